//! Where a proxy is asked to connect to: an address, or a name that the proxy resolves.

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// Names the host and port that a proxy connects to.
///
/// A name is 1 to 255 visible ASCII characters. It is not resolved and not changed, so an international name is
/// written in its ASCII form (`xn--…`), and names that no resolver knows (`….onion`, `….i2p`) reach the proxy.
///
/// ```
/// use session::proxy::Destination;
///
/// let name: Destination = "example.org:443".parse()?;
/// assert_eq!((name.host(), name.port()), ("example.org".to_owned(), 443));
/// let address: Destination = "[2001:db8::1]:443".parse()?;
/// assert!(matches!(address, Destination::Address(_)));
/// # Ok::<(), session::proxy::DestinationError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Destination {
    /// An IP address and a port.
    Address(SocketAddr),
    /// A name and a port. [`Destination::name`] makes one that is valid.
    #[non_exhaustive]
    Name {
        /// The host's name.
        host: String,
        /// The port.
        port: u16,
    },
}

impl Destination {
    /// Names a host by its name, or by the text of its IP address.
    ///
    /// # Errors
    /// [`DestinationError`] when `host` is not an IP address and not a name of 1 to 255 visible ASCII characters.
    pub fn name(host: impl Into<String>, port: u16) -> Result<Destination, DestinationError> {
        let host = host.into();
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(Destination::Address(SocketAddr::new(ip, port)));
        }
        // A slash, an at sign or a colon would give the text another meaning in a URI, which HTTP proxies parse.
        let is_valid = |byte: u8| byte.is_ascii_graphic() && !b"/@:?#[]\\".contains(&byte);
        if host.is_empty() || host.len() > NAME_MAX || !host.bytes().all(is_valid) {
            return Err(DestinationError {
                text: host,
                why: "the host is not a name of 1 to 255 characters",
            });
        }
        Ok(Destination::Name { host, port })
    }

    /// Returns the host without its port: the name, or the text of the address.
    pub fn host(&self) -> String {
        match self {
            Destination::Address(address) => address.ip().to_string(),
            Destination::Name { host, .. } => host.clone(),
        }
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        match self {
            Destination::Address(address) => address.port(),
            Destination::Name { port, .. } => *port,
        }
    }
}

/// Writes `host:port`, with an IPv6 address in brackets: what [`Destination::from_str`] reads.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // A scope has no meaning on another machine.
            Destination::Address(SocketAddr::V6(v6)) => write!(f, "[{}]:{}", v6.ip(), v6.port()),
            Destination::Address(v4) => v4.fmt(f),
            Destination::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

impl From<SocketAddr> for Destination {
    fn from(address: SocketAddr) -> Self {
        Destination::Address(address)
    }
}

/// Reads `host:port`; an IPv6 address stands in brackets.
impl FromStr for Destination {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Destination::Address(address));
        }
        let fault = |why| DestinationError { text: text.to_owned(), why };
        let (host, port) = text.rsplit_once(':').ok_or_else(|| fault("it is not HOST:PORT"))?;
        let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|_| is_number);
        let port = port.ok_or_else(|| fault("the port is not a number from 0 to 65535"))?;
        if host.parse::<IpAddr>().is_ok() {
            return Err(fault("an IPv6 address stands in brackets"));
        }
        Destination::name(host, port).map_err(|error| fault(error.why))
    }
}

/// Says that a text names no destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationError {
    text: String,
    why: &'static str,
}

impl fmt::Display for DestinationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no destination: {}", self.text, self.why)
    }
}

impl Error for DestinationError {}

/// The longest name that SOCKS5 can carry, and DNS allows.
const NAME_MAX: usize = 255;
