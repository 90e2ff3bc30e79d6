//! Receives a PROXY header: for a backend, on connections that its proxy opens.

use super::header::{HeaderError, LEN_MAX, ProxyHeader, SIGNATURE, parse_v1, parse_v2};
use crate::failure::Result;
use crate::layer::{Io, Layer, Next, Step};

/// The versions of a header that a receiver accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Accepts {
    /// Version 1 alone.
    V1,
    /// Version 2 alone.
    V2,
    /// Either.
    #[default]
    Either,
}

/// Expects a PROXY header before the connection's bytes, and passes the bytes after it unchanged.
///
/// A connection without a header fails with [`HeaderError::Absent`]. Whether a listener expects a header is a
/// matter of configuration, never of a guess, because a peer that may omit or write a header can claim any
/// address. So accept these connections only from your own proxies. The stream opens when the header has
/// arrived. Until then the handshake's deadline runs, and at most 4 KiB wait.
///
/// ```
/// use session::kit::Peer;
/// use session::proxy::{Accepts, ReceiveHeader, Relayed};
///
/// let mut accepted = Peer::new(ReceiveHeader::new(Accepts::Either));
/// accepted.feed(b"PROXY TCP4 192.0.2.1 198.51.100.1 4711 443\r\nhello");
/// let header = accepted.session().layer().header().expect("it has arrived");
/// assert!(matches!(header.relayed, Relayed::Stream { source, .. } if source.port() == 4711));
/// assert_eq!(accepted.received(), b"hello");
/// ```
#[derive(Debug, Clone, Default)]
pub struct ReceiveHeader {
    accepts: Accepts,
    header: Option<Box<ProxyHeader>>,
}

impl ReceiveHeader {
    /// Creates a receiver of these versions.
    pub fn new(accepts: Accepts) -> ReceiveHeader {
        ReceiveHeader { accepts, header: None }
    }

    /// Returns the header, or `None` before the layer is ready.
    pub fn header(&self) -> Option<&ProxyHeader> {
        self.header.as_deref()
    }
}

impl Layer for ReceiveHeader {
    const TRANSPARENT: bool = true;
    const INPUT_MAX: usize = LEN_MAX;

    fn ready(&self) -> bool {
        self.header.is_some()
    }

    fn open(&mut self, input: &mut [u8], _: &mut Io<'_>) -> Result<Step> {
        let Some(first) = input.first() else { return Ok(Step { used: 0, next: Next::Wait }) };
        // The first byte distinguishes the versions.
        let parsed = match (*first == SIGNATURE[0], self.accepts) {
            (true, Accepts::V2 | Accepts::Either) => parse_v2(input)?,
            (false, Accepts::V1 | Accepts::Either) => parse_v1(input)?,
            _ => return Err(HeaderError::Absent.into()),
        };
        let Some((header, used)) = parsed else { return Ok(Step { used: 0, next: Next::Wait }) };
        self.header = Some(Box::new(header));
        Ok(Step { used, next: Next::Wait })
    }

    fn seal(&mut self, clear: &[u8], io: &mut Io<'_>) -> Result<usize> {
        // Never called, because the layer is transparent. Pass the bytes on all the same.
        io.down.put(clear);
        Ok(clear.len())
    }
}
