//! Lines of arbitrary bytes, because a program's output need not be text. Cuts a line that is too long.

use reactor::{Codec, Decoded, Outgoing, Result};

/// Lines without their newline, of at most 4 KiB.
pub(crate) struct Said;

impl Codec for Said {
    type In<'a> = &'a [u8];
    type Out<'a> = &'a [u8];

    fn decode<'a>(&mut self, input: &'a mut [u8]) -> Result<Decoded<&'a [u8]>> {
        let window = &input[..input.len().min(LINE_MAX)];
        Ok(match window.iter().position(|byte| *byte == b'\n') {
            Some(at) => Decoded::Item(at + 1, &window[..at]),
            None if window.len() == LINE_MAX => Decoded::Item(LINE_MAX, window),
            None => Decoded::More,
        })
    }

    fn encode(&mut self, line: &[u8], out: &mut Outgoing) -> Result {
        out.put(line);
        out.put(b"\n");
        Ok(())
    }

    fn end<'a>(&mut self, left: &'a mut [u8]) -> Result<Option<&'a [u8]>> {
        Ok((!left.is_empty()).then_some(&*left))
    }
}

const LINE_MAX: usize = 4096;
