//! Puts a layer that changes bytes where only one that lets them pass can be.
use reactor::session::{Io, Layer, Result, Step};

struct Cipher;

impl Layer for Cipher {
    const INPUT_MAX: usize = 16;

    fn ready(&self) -> bool {
        true
    }

    fn open(&mut self, _: &mut [u8], _: &mut Io<'_>) -> Result<Step> {
        unimplemented!()
    }

    fn seal(&mut self, _: &[u8], _: &mut Io<'_>) -> Result<usize> {
        unimplemented!()
    }
}

const IS_TRANSPARENT: bool = <(Cipher, Cipher) as Layer>::TRANSPARENT;

fn main() {
    println!("{IS_TRANSPARENT}");
}
