//! Puts a layer that changes bytes in a place for transparent layers only.
use reactor::session::{Io, Layer, LayerError, Result, Step};

struct Cipher;

impl Layer for Cipher {
    const INPUT_MAX: usize = 16;

    fn ready(&self) -> bool {
        true
    }

    fn open(&mut self, _: &mut [u8], _: &mut Io<'_>) -> Result<Step> {
        Err(LayerError::Misuse("it stands outside").into())
    }

    fn seal(&mut self, _: &[u8], _: &mut Io<'_>) -> Result<usize> {
        Err(LayerError::Misuse("it stands outside").into())
    }
}

const IS_TRANSPARENT: bool = <(Cipher, Cipher) as Layer>::TRANSPARENT;

fn main() {
    println!("{IS_TRANSPARENT}");
}
