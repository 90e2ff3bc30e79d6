//! Lines of UTF-8 text.

use std::io::BufRead;

use super::{Codec, CodecError, Decoded};
use crate::failure::Result;
use crate::outgoing::Outgoing;

/// Cuts text at newlines. A carriage return before the newline belongs to the line's end.
///
/// Items contain no newline: the codec strips it from input and appends it to output. A line that ends in a
/// carriage return is sent as it is, which is how to speak a protocol with `\r\n`. If the input ends without
/// a newline, the rest is the last line. The limit applies in both directions. It counts bytes without the
/// line's end.
///
/// ```
/// use session::{Codec, Decoded, Lines};
///
/// let mut lines = Lines::new();
/// assert_eq!(lines.decode(&mut b"one\r\ntwo".to_vec())?, Decoded::Item(5, "one"));
/// assert_eq!(lines.decode(&mut b"two".to_vec())?, Decoded::More);
/// assert_eq!(lines.end(&mut b"two".to_vec())?, Some("two"));
/// # Ok::<(), session::Failure>(())
/// ```
#[derive(Debug, Clone)]
pub struct Lines {
    max: usize,
    /// The number of bytes at the start of the unused input that contain no newline.
    seen: usize,
}

impl Lines {
    /// Creates a codec for lines of at most 8 KiB.
    pub fn new() -> Self {
        Lines::max(LINE_MAX)
    }

    /// Creates a codec for lines of at most `bytes`.
    pub fn max(bytes: usize) -> Self {
        Lines { max: bytes, seen: 0 }
    }

    fn check(&self, line: &[u8]) -> Result<(), CodecError> {
        if line.len() > self.max { Err(self.too_long()) } else { Ok(()) }
    }

    /// Makes the error with the least possible length, so that it does not depend on how the input was cut.
    fn too_long(&self) -> CodecError {
        CodecError::TooLong { limit: self.max, len: self.max.saturating_add(1) }
    }

    fn text<'a>(&self, line: &'a [u8]) -> Result<&'a str> {
        self.check(line)?;
        Ok(std::str::from_utf8(line).map_err(CodecError::NotUtf8)?)
    }
}

impl Default for Lines {
    fn default() -> Self {
        Lines::new()
    }
}

impl Codec for Lines {
    type In<'a> = &'a str;
    type Out<'a> = &'a str;

    fn decode<'a>(&mut self, input: &'a mut [u8]) -> Result<Decoded<&'a str>> {
        let input: &'a [u8] = input;
        // The line's end takes up to two more bytes than the line. Bytes beyond them cannot make the line
        // valid.
        let window = &input[..input.len().min(self.max.saturating_add(2))];
        let seen = self.seen.min(window.len());
        if let Some(at) = find_newline(&window[seen..]) {
            self.seen = 0;
            let line = &input[..seen + at];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            return Ok(Decoded::Item(seen + at + 1, self.text(line)?));
        }
        self.check(window.strip_suffix(b"\r").unwrap_or(window))?;
        self.seen = window.len();
        Ok(Decoded::More)
    }

    fn encode(&mut self, item: &str, out: &mut Outgoing) -> Result {
        self.check(item.as_bytes())?;
        if find_newline(item.as_bytes()).is_some() {
            return Err(CodecError::Newline.into());
        }
        out.put(item.as_bytes());
        out.put(b"\n");
        Ok(())
    }

    fn end<'a>(&mut self, left: &'a mut [u8]) -> Result<Option<&'a str>> {
        if left.is_empty() { Ok(None) } else { self.text(left).map(Some) }
    }
}

/// Finds a newline. `skip_until` is the standard library's way to its vectorised search.
fn find_newline(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    let skipped = rest.skip_until(b'\n').expect("reading from memory cannot fail");
    (skipped > 0 && bytes[skipped - 1] == b'\n').then(|| skipped - 1)
}

/// The default for the longest line, in bytes.
const LINE_MAX: usize = 8 << 10;
