//! Where a stream leads: an IP address and port, or a Unix socket by path or abstract name.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
};

/// The address of one end of a stream.
///
/// Written and read as `127.0.0.1:80`, `[::1]:80`, `unix:/run/service` or `unix:@abstract`; a text that
/// begins with `/` or `@` needs no `unix:`. Host names are not addresses: resolving one blocks.
///
/// ```
/// use reactor::Address;
/// let address: Address = "unix:/run/echo".parse()?;
/// assert_eq!(address, Address::Path("/run/echo".into()));
/// assert!("localhost:80".parse::<Address>().is_err());
/// # Ok::<(), reactor::NotAnAddress>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Address {
    /// An IP address with a port.
    Ip(SocketAddr),
    /// A Unix socket in the file system.
    Path(PathBuf),
    /// A Unix socket in Linux's abstract namespace; the name is without its leading zero byte.
    Abstract(Vec<u8>),
    /// A Unix socket without a name: the connecting end, or one of a pair.
    Unnamed,
}

impl Address {
    /// The IP address and port.
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Address::Ip(address) => Some(*address),
            _ => None,
        }
    }
}

/// A text that is neither an IP address with a port nor the name of a Unix socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotAnAddress(pub String);

impl fmt::Display for NotAnAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is not an address: write IP:PORT, [IPV6]:PORT, /PATH or @NAME (host names are not resolved here)",
            self.0
        )
    }
}

impl std::error::Error for NotAnAddress {}

impl FromStr for Address {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Address, NotAnAddress> {
        let (unix, name) = match text.strip_prefix("unix:") {
            Some(name) => (true, name),
            None => (text.starts_with('/') || text.starts_with('@'), text),
        };
        match name.strip_prefix('@') {
            Some(name) if unix && !name.is_empty() => Ok(Address::Abstract(name.as_bytes().to_vec())),
            None if unix && !name.is_empty() => Ok(Address::Path(name.into())),
            _ => text.parse().map(Address::Ip).map_err(|_| NotAnAddress(text.to_owned())),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(address) => address.fmt(f),
            Address::Path(path) => write!(f, "unix:{}", path.display()),
            Address::Abstract(name) => write!(f, "unix:@{}", name.escape_ascii()),
            Address::Unnamed => f.write_str("unix:"),
        }
    }
}

/// What can be given where an address is wanted.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an address",
    label = "this is no address",
    note = "an address is a text like \"127.0.0.1:80\", \"/run/service\" or \"@name\", a `SocketAddr`, an `(IpAddr, u16)`, a `Path` or an `Address`"
)]
pub trait ToAddress {
    /// The address.
    ///
    /// # Errors
    /// `InvalidInput` with a [`NotAnAddress`] for a text that is not one.
    fn to_address(&self) -> io::Result<Address>;
}

impl ToAddress for Address {
    fn to_address(&self) -> io::Result<Address> {
        Ok(self.clone())
    }
}
impl ToAddress for SocketAddr {
    fn to_address(&self) -> io::Result<Address> {
        Ok(Address::Ip(*self))
    }
}
impl ToAddress for (IpAddr, u16) {
    fn to_address(&self) -> io::Result<Address> {
        Ok(Address::Ip((*self).into()))
    }
}
impl ToAddress for str {
    fn to_address(&self) -> io::Result<Address> {
        self.parse().map_err(|e: NotAnAddress| io::Error::new(io::ErrorKind::InvalidInput, e))
    }
}
impl ToAddress for String {
    fn to_address(&self) -> io::Result<Address> {
        self.as_str().to_address()
    }
}
impl ToAddress for Path {
    fn to_address(&self) -> io::Result<Address> {
        Ok(Address::Path(self.to_owned()))
    }
}
impl ToAddress for PathBuf {
    fn to_address(&self) -> io::Result<Address> {
        self.as_path().to_address()
    }
}
impl<A: ToAddress + ?Sized> ToAddress for &A {
    fn to_address(&self) -> io::Result<Address> {
        (**self).to_address()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_as_it_is_written() {
        for text in ["127.0.0.1:80", "[::1]:8080", "unix:/run/x", "unix:@name"] {
            assert_eq!(text.parse::<Address>().expect(text).to_string(), text);
        }
        assert_eq!("/run/x".parse(), Ok(Address::Path("/run/x".into())));
        assert_eq!("@n".parse(), Ok(Address::Abstract(b"n".to_vec())));
    }

    #[test]
    fn what_is_no_address_comes_back_in_the_error() {
        for text in ["", "localhost:80", "127.0.0.1", "127.0.0.1:65536", "unix:", "@"] {
            assert_eq!(text.parse::<Address>(), Err(NotAnAddress(text.to_owned())), "{text}");
        }
        let error = "nowhere".to_address().expect_err("a name is not an address");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("nowhere"));
    }
}
