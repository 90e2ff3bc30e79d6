//! A transparent layer for tests: a greeting each way, then bytes pass unchanged.

use std::error::Error;
use std::fmt;

use crate::failure::Result;
use crate::layer::{Io, Layer, Next, Step};

/// Sends one text and expects another, byte for byte. It does not touch the bytes after that.
///
/// Either text may be empty. An end that expects nothing is ready at once.
#[derive(Debug, Clone)]
pub struct Preamble {
    say: &'static str,
    expect: &'static str,
    ready: bool,
}

impl Preamble {
    /// Creates one end. The other end sends the text that this one expects, at most 1 KiB.
    pub fn new(say: &'static str, expect: &'static str) -> Self {
        Preamble { say, expect, ready: false }
    }
}

impl Layer for Preamble {
    const TRANSPARENT: bool = true;
    const INPUT_MAX: usize = 1 << 10;

    fn start(&mut self, io: &mut Io<'_>) -> Result {
        io.down.put(self.say.as_bytes());
        self.ready = self.expect.is_empty();
        Ok(())
    }

    fn ready(&self) -> bool {
        self.ready
    }

    fn open(&mut self, input: &mut [u8], _: &mut Io<'_>) -> Result<Step> {
        assert!(!self.ready, "a transparent layer is not called once it is ready");
        let expect = self.expect.as_bytes();
        let common = expect.len().min(input.len());
        if input[..common] != expect[..common] {
            return Err(PreambleError.into());
        }
        if common < expect.len() {
            return Ok(Step { used: 0, next: Next::Wait });
        }
        self.ready = true;
        Ok(Step { used: common, next: Next::Wait })
    }

    fn seal(&mut self, _: &[u8], _: &mut Io<'_>) -> Result<usize> {
        unreachable!("a transparent layer seals nothing")
    }
}

/// The peer's preamble is a different one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreambleError;

impl fmt::Display for PreambleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the peer began with another preamble")
    }
}

impl Error for PreambleError {}
