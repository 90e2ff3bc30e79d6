//! Sends a PROXY header: for a proxy, to its backend.

use super::header::{HeaderError, ProxyHeader};
use crate::failure::Result;
use crate::layer::{Io, Layer, Next, Step};

/// The format of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Version {
    /// A line of text. It carries the addresses of TCP connections and nothing else; any other header becomes
    /// `UNKNOWN`.
    V1,
    /// Binary, with values and a checksum.
    V2,
}

/// Writes a PROXY header before the connection's bytes, and passes these unchanged.
///
/// It expects no answer, so it is ready at once and costs no round trip. Use it only for a backend that
/// expects a header.
///
/// ```
/// use session::kit::Peer;
/// use session::proxy::{ProxyHeader, SendHeader, Version};
///
/// let header = ProxyHeader::stream("192.0.2.1:4711".parse()?, "198.51.100.1:443".parse()?);
/// let mut backend = Peer::new(SendHeader::new(&header, Version::V1)?);
/// backend.send(b"hello");
/// assert_eq!(backend.flight(), b"PROXY TCP4 192.0.2.1 198.51.100.1 4711 443\r\nhello");
/// # Ok::<(), session::Failure>(())
/// ```
#[derive(Debug, Clone)]
pub struct SendHeader {
    bytes: Vec<u8>,
    ready: bool,
}

impl SendHeader {
    /// Creates a sender of this header.
    ///
    /// # Errors
    /// [`HeaderError::TooLong`] if the values make a header of version 2 longer than 4 KiB.
    /// [`HeaderError::Path`] if a path in it is longer than 108 bytes.
    pub fn new(header: &ProxyHeader, version: Version) -> Result<SendHeader, HeaderError> {
        let bytes = match version {
            Version::V1 => header.to_v1(),
            Version::V2 => header.to_v2()?,
        };
        Ok(SendHeader { bytes, ready: false })
    }
}

impl Layer for SendHeader {
    const TRANSPARENT: bool = true;
    const INPUT_MAX: usize = 0;

    fn start(&mut self, io: &mut Io<'_>) -> Result {
        io.down.put(&std::mem::take(&mut self.bytes));
        self.ready = true;
        Ok(())
    }

    fn ready(&self) -> bool {
        self.ready
    }

    fn open(&mut self, _: &mut [u8], _: &mut Io<'_>) -> Result<Step> {
        // Never called, because the layer is ready once it has started.
        Ok(Step { used: 0, next: Next::Again })
    }

    fn seal(&mut self, clear: &[u8], io: &mut Io<'_>) -> Result<usize> {
        // Never called, because the layer is transparent. Pass the bytes on all the same.
        io.down.put(clear);
        Ok(clear.len())
    }
}
