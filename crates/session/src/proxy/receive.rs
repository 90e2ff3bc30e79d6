//! The receiver of a PROXY header: a backend, of connections that its proxy opens.

use super::header::{HeaderError, LEN_MAX, ProxyHeader, SIGNATURE, parse_v1, parse_v2};
use crate::failure::Result;
use crate::layer::{Io, Layer, Next, Step};

/// Says which versions of a header a receiver accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accepts {
    /// Version 1 alone.
    V1,
    /// Version 2 alone.
    V2,
    /// Either.
    #[default]
    Either,
}

/// Expects a PROXY header in front of the connection's bytes, and passes them unchanged behind it.
///
/// A connection without a header fails with [`HeaderError::Absent`]: whether a listener expects one is configuration,
/// never a guess, because whoever may leave the header out or write one may claim any address. So accept these
/// connections from your proxies alone. The stream opens once the header has arrived; until then the handshake's
/// deadline runs, and at most 4 KiB wait.
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

    /// Returns the header; `None` before the layer is ready.
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
        // The first byte tells the versions apart.
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
        // Never called: it is transparent. Passing the bytes on is what that means.
        io.down.put(clear);
        Ok(clear.len())
    }
}
