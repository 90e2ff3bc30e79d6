//! HTTP CONNECT, the client side: asks an HTTP proxy for a tunnel (RFC 9110, section 9.3.6; RFC 9112).

use std::error::Error;
use std::fmt;

use super::destination::Destination;
use crate::failure::Result;
use crate::layer::{Io, Layer, LayerError, Next, Step};

/// Asks an HTTP proxy for a tunnel to a destination, and passes bytes unchanged once the proxy has opened it.
///
/// Any 2xx answer opens the tunnel. Its header fields are ignored, as RFC 9110 requires. Interim 1xx answers
/// are skipped. Any other answer fails as [`HttpConnectError::Refused`] with its status. An answer whose head
/// is longer than 16 KiB fails as [`LayerError::TooLong`].
///
/// ```
/// use session::kit::Peer;
/// use session::proxy::{Destination, HttpConnect};
///
/// let layer = HttpConnect::new(Destination::name("example.org", 443)?);
/// let mut client = Peer::new(layer);
/// assert!(client.flight().starts_with(b"CONNECT example.org:443 HTTP/1.1\r\n"));
/// client.feed(b"HTTP/1.1 200 OK\r\n\r\nhello");
/// assert_eq!(client.received(), b"hello");
/// # Ok::<(), session::Failure>(())
/// ```
#[derive(Clone)]
pub struct HttpConnect {
    to: Destination,
    /// The value of Proxy-Authorization.
    authorization: Option<String>,
    /// How many bytes of the answer were searched for the end of its head.
    searched: usize,
    ready: bool,
}

impl HttpConnect {
    /// Creates a client that asks for a tunnel to this destination.
    pub fn new(to: impl Into<Destination>) -> HttpConnect {
        HttpConnect { to: to.into(), authorization: None, searched: 0, ready: false }
    }

    /// Sends this user and password with the request (RFC 7617, Basic), without waiting for the proxy to ask.
    ///
    /// The password crosses the connection to the proxy in the clear.
    ///
    /// # Errors
    /// [`LoginError`] if the user contains a colon, or if either is longer than 255 bytes or contains a
    /// control character.
    pub fn login(mut self, user: &str, password: &str) -> Result<HttpConnect, LoginError> {
        check_login(!user.contains(':'), "the user has a colon")?;
        let is_valid = |text: &str| text.len() <= 255 && !text.chars().any(char::is_control);
        check_login(is_valid(user), "the user is too long or has a control character")?;
        check_login(is_valid(password), "the password is too long or has a control character")?;
        self.authorization = Some(format!("Basic {}", base64(format!("{user}:{password}").as_bytes())));
        Ok(self)
    }

    /// Returns the requested destination.
    pub fn destination(&self) -> &Destination {
        &self.to
    }
}

impl Layer for HttpConnect {
    const TRANSPARENT: bool = true;
    /// The longest head of an answer.
    const INPUT_MAX: usize = 16 << 10;

    fn start(&mut self, io: &mut Io<'_>) -> Result {
        let to = &self.to;
        let mut request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n");
        if let Some(authorization) = self.authorization.take() {
            request += &format!("Proxy-Authorization: {authorization}\r\n");
        }
        request += "\r\n";
        io.down.put(request.as_bytes());
        Ok(())
    }

    fn ready(&self) -> bool {
        self.ready
    }

    fn open(&mut self, input: &mut [u8], _: &mut Io<'_>) -> Result<Step> {
        check_begin(input)?;
        let Some(len) = head_len(input, self.searched) else {
            // The blank line may begin within the last three bytes.
            self.searched = input.len().saturating_sub(3);
            return Ok(Step { used: 0, next: Next::Wait });
        };
        self.searched = 0;
        if len > Self::INPUT_MAX {
            return Err(LayerError::TooLong { limit: Self::INPUT_MAX, len }.into());
        }
        let (status, reason) = status_line(&input[..len])?;
        match status {
            100..=199 => Ok(Step { used: len, next: Next::Again }),
            200..=299 => {
                self.ready = true;
                Ok(Step { used: len, next: Next::Wait })
            }
            _ => Err(HttpConnectError::Refused { status, reason }.into()),
        }
    }

    fn seal(&mut self, clear: &[u8], io: &mut Io<'_>) -> Result<usize> {
        // Never called, because the layer is transparent. Pass the bytes on all the same.
        io.down.put(clear);
        Ok(clear.len())
    }
}

/// Shows the destination and the state of the handshake, but no password.
impl fmt::Debug for HttpConnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpConnect")
            .field("to", &self.to)
            .field("login", &self.authorization.as_ref().map(|_| "hidden"))
            .field("ready", &self.ready)
            .finish()
    }
}

/// Rejects early any input that cannot become an answer. A server of another protocol might wait for us while
/// we wait for it.
fn check_begin(input: &[u8]) -> Result<(), HttpConnectError> {
    let common = input.len().min(BEGIN.len());
    if input[..common] == BEGIN[..common] { Ok(()) } else { Err(HttpConnectError::NotHttp) }
}

/// Returns the length of the head including its blank line. A single LF also ends a line, as RFC 9112 allows.
fn head_len(input: &[u8], from: usize) -> Option<usize> {
    (from..input.len()).find_map(|at| match &input[at..] {
        [b'\n', b'\n', ..] => Some(at + 2),
        [b'\n', b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })
}

/// Reads `HTTP/1.x SSS reason`. Cuts the reason to 100 characters, without control characters.
fn status_line(head: &[u8]) -> Result<(u16, String), HttpConnectError> {
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let [b'0'..=b'9', b' ', digits @ ..] = &line[BEGIN.len().min(line.len())..] else {
        return Err(HttpConnectError::NotHttp);
    };
    let (&[a, b, c], reason) = digits.split_first_chunk().ok_or(HttpConnectError::NotHttp)?;
    // RFC 9112, section 4: a status has three digits, the first is not 0, and a space precedes the reason.
    if ![a, b, c].iter().all(u8::is_ascii_digit) || !(reason.is_empty() || reason[0] == b' ') || a == b'0' {
        return Err(HttpConnectError::NotHttp);
    }
    let status = [a, b, c].iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'));
    let reason = String::from_utf8_lossy(reason);
    let is_shown = |char: &char| !char.is_control();
    Ok((status, reason.trim().chars().filter(is_shown).take(REASON_MAX).collect()))
}

/// Encodes as in RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let at = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// The reason why an HTTP proxy opened no tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HttpConnectError {
    /// The proxy refused with this status, for example 407, which requires a login.
    Refused {
        /// The status code: 300 to 999.
        status: u16,
        /// The reason phrase, at most 100 characters; often empty.
        reason: String,
    },
    /// The peer's answer is not HTTP/1.
    NotHttp,
}

impl fmt::Display for HttpConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HttpConnectError::Refused { status, reason } if reason.is_empty() => {
                write!(f, "the HTTP proxy refused with status {status}")
            }
            HttpConnectError::Refused { status, reason } => {
                write!(f, "the HTTP proxy refused with status {status} ({reason})")
            }
            HttpConnectError::NotHttp => f.write_str("the peer is no HTTP/1 proxy"),
        }
    }
}

impl Error for HttpConnectError {}

/// The reason why a user and a password cannot be sent to a proxy. It shows neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginError(&'static str);

impl fmt::Display for LoginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the proxy's login cannot be sent: {}", self.0)
    }
}

impl Error for LoginError {}

pub(super) fn check_login(is_valid: bool, fault: &'static str) -> Result<(), LoginError> {
    if is_valid { Ok(()) } else { Err(LoginError(fault)) }
}

/// The beginning of each answer.
const BEGIN: &[u8] = b"HTTP/1.";
const REASON_MAX: usize = 100;
