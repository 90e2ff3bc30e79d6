//! The destination of a proxied connection: an address, or a name that the proxy resolves.

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// The host and port that a proxy connects to.
///
/// A name has 1 to 255 visible ASCII characters. It is neither resolved nor changed. So write an
/// international name in its ASCII form (`xn--…`). Names that no resolver knows (`….onion`, `….i2p`) reach
/// the proxy.
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
    /// A name and a port. [`Destination::name`] makes a valid one.
    #[non_exhaustive]
    Name {
        /// The host's name.
        host: String,
        /// The port.
        port: u16,
    },
}

impl Destination {
    /// Makes a destination from a host's name, or from the text of its IP address.
    ///
    /// # Errors
    /// [`DestinationError`] if `host` is neither an IP address nor a name of 1 to 255 visible ASCII
    /// characters.
    pub fn name(host: impl Into<String>, port: u16) -> Result<Destination, DestinationError> {
        let host = host.into();
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(Destination::Address(SocketAddr::new(ip, port)));
        }
        // Reject characters with a meaning in a URI, for example a slash, an at sign or a colon, because HTTP
        // proxies parse one.
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

/// Writes `host:port`, with an IPv6 address in brackets. [`Destination::from_str`] reads this form.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Omit the scope, because it has no meaning on another machine.
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

/// Reads `host:port`. An IPv6 address must be in brackets.
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

/// The error for a text that is not a destination.
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

/// The longest name that SOCKS5 can carry and DNS allows.
const NAME_MAX: usize = 255;
