//! Socket addresses: an IP address with a port, or a Unix socket by path or abstract name.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
};

/// The address of one end of a stream.
///
/// The text form is `127.0.0.1:80`, `[::1]:80`, `[fe80::1%2]:80`, `unix:/run/service` or `unix:@abstract`.
/// Parsing also accepts an interface's name, for example `%eth0`, and looks up its index. A text that begins
/// with `/` or `@` needs no `unix:`. Host names are not addresses, because resolving one blocks.
///
/// After `unix:`, a backslash is written `\\`. A byte that is not valid text, and a first `@` of a path, is
/// written `\xNN`. So each address that has a name reads back as it was written. Without `unix:`, every
/// character stands for itself.
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
    /// A Unix socket in Linux's abstract namespace. The name excludes its leading zero byte.
    Abstract(Vec<u8>),
    /// A Unix socket without a name: the connecting end, or one of a pair.
    Unnamed,
}

impl Address {
    /// Returns the IP address and port, or `None` for a Unix socket.
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Address::Ip(address) => Some(*address),
            _ => None,
        }
    }
}

/// A text that is neither an IP address with a port nor the name of a Unix socket.
///
/// ```
/// use reactor::Address;
///
/// let error = "localhost:80".parse::<Address>().expect_err("names are not resolved");
/// assert!(error.to_string().contains("localhost:80"));
/// ```
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
        let escaped = text.strip_prefix("unix:");
        let name = escaped.or_else(|| text.starts_with(['/', '@']).then_some(text));
        let bytes = |name: &str| if escaped.is_some() { unescape(name) } else { name.as_bytes().to_vec() };
        match name.map(|name| (name.strip_prefix('@'), name)) {
            // Linux has an abstract name without a byte. A lone `@` is rather a name that was forgotten.
            Some((Some(name), _)) if !name.is_empty() || escaped.is_some() => {
                Ok(Address::Abstract(bytes(name)))
            }
            Some((None, name)) if !name.is_empty() => Ok(Address::Path(path(bytes(name)))),
            None => match text.parse() {
                Ok(address) => Ok(Address::Ip(address)),
                Err(_) => scoped(text).ok_or_else(|| NotAnAddress(text.to_owned())),
            },
            _ => Err(NotAnAddress(text.to_owned())),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(address) => address.fmt(f),
            Address::Path(path) => {
                f.write_str("unix:")?;
                let name = path.as_os_str().as_encoded_bytes();
                match name.strip_prefix(b"@") {
                    Some(rest) => f.write_str("\\x40").and_then(|()| escape(f, rest)),
                    None => escape(f, name),
                }
            }
            Address::Abstract(name) => f.write_str("unix:@").and_then(|()| escape(f, name)),
            Address::Unnamed => f.write_str("unix:"),
        }
    }
}

/// Writes a name so that [`unescape`] restores it.
fn escape(f: &mut fmt::Formatter<'_>, name: &[u8]) -> fmt::Result {
    for chunk in name.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '\\' => f.write_str("\\\\")?,
                letter if letter.is_control() => {
                    let mut bytes = [0; 4];
                    letter.encode_utf8(&mut bytes).bytes().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
                }
                letter => write!(f, "{letter}")?,
            }
        }
        chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
    }
    Ok(())
}

/// Decodes `\\` and `\xNN`. Any other backslash stands for itself.
fn unescape(text: &str) -> Vec<u8> {
    let mut name = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let digit = |at: usize| behind.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        let (byte, used) = match (first, behind.first()) {
            (b'\\', Some(b'\\')) => (b'\\', 1),
            (b'\\', Some(b'x')) => match (digit(1), digit(2)) {
                (Some(high), Some(low)) => ((high * 16 + low) as u8, 3),
                _ => (b'\\', 0),
            },
            _ => (*first, 0),
        };
        name.push(byte);
        rest = &behind[used..];
    }
    name
}

#[cfg(unix)]
fn path(name: Vec<u8>) -> PathBuf {
    use std::os::unix::ffi::OsStringExt as _;
    std::ffi::OsString::from_vec(name).into()
}

#[cfg(not(unix))]
fn path(name: Vec<u8>) -> PathBuf {
    String::from_utf8_lossy(&name).into_owned().into()
}

/// Parses a link-local address with the interface's name in place of its index, for example
/// `[fe80::1%eth0]:80`.
#[cfg(unix)]
fn scoped(text: &str) -> Option<Address> {
    let (ip, rest) = text.strip_prefix('[')?.split_once('%')?;
    let (name, port) = rest.split_once("]:")?;
    let ip: std::net::Ipv6Addr = ip.parse().ok()?;
    // Parse the port as the standard library does, so that both forms accept the same texts.
    let port: SocketAddr = format!("[::]:{port}").parse().ok()?;
    let scope = crate::sys::interface(name)?;
    Some(Address::Ip(std::net::SocketAddrV6::new(ip, port.port(), 0, scope).into()))
}

#[cfg(not(unix))]
fn scoped(_: &str) -> Option<Address> {
    None
}

/// A value that names an address: a text, a `SocketAddr`, an `(IpAddr, u16)`, a `Path` or an [`Address`].
///
/// ```
/// use reactor::{Address, ToAddress};
/// use std::net::{IpAddr, Ipv4Addr};
///
/// let address = "127.0.0.1:80".to_address()?;
/// assert_eq!(address, (IpAddr::from(Ipv4Addr::LOCALHOST), 80).to_address()?);
/// assert!(matches!(address, Address::Ip(_)));
/// # Ok::<(), std::io::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an address",
    label = "this is no address",
    note = "an address is a text like \"127.0.0.1:80\", \"/run/service\" or \"@name\", a `SocketAddr`, an `(IpAddr, u16)`, a `Path` or an `Address`"
)]
pub trait ToAddress {
    /// Returns the address.
    ///
    /// # Errors
    /// `InvalidInput` with a [`NotAnAddress`] if the text is not an address.
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

    #[cfg(unix)]
    #[test]
    fn every_address_with_a_name_reads_back_as_it_was_written() {
        let mut addresses = vec![
            Address::Abstract("é".into()),
            Address::Path("@x".into()),
            Address::Path("\\x40".into()),
            Address::Path("unix:/x".into()),
            Address::Abstract(b"@".to_vec()),
            Address::Abstract(Vec::new()),
            Address::Abstract(b"\0\xff\n\\".to_vec()),
            Address::Ip("[fe80::1%7]:80".parse().expect("an address")),
        ];
        // Random names, built from pieces that are special in one of the notations.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut draw = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        const PIECES: [&[u8]; 12] =
            [b"a", b"@", b"/", b"\\", b"x", b"4", b"0", b"\0", b"\xc3", "é".as_bytes(), b"\x7f", b"unix:"];
        for _ in 0..10_000 {
            let name = (0..=draw(8)).flat_map(|_| PIECES[draw(PIECES.len())].to_vec()).collect::<Vec<_>>();
            addresses.push(Address::Path(path(name.clone())));
            addresses.push(Address::Abstract(name));
        }
        for address in addresses {
            let text = address.to_string();
            assert_eq!(text.parse(), Ok(address), "{text}");
        }
        assert_eq!("/a\\x40".parse(), Ok(Address::Path("/a\\x40".into())), "without unix: all is literal");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_interface_is_found_by_its_name() {
        let index = std::fs::read_to_string("/sys/class/net/lo/ifindex").expect("there is a loopback");
        let address: Address = "[fe80::1%lo]:80".parse().expect("an address");
        assert_eq!(address.to_string(), format!("[fe80::1%{}]:80", index.trim()));
        for text in
            ["[fe80::1%nowhere]:80", "[fe80::1%lo]", "[fe80::1%lo]:65536", "[1.2.3.4%lo]:80", "[%lo]:80"]
        {
            assert_eq!(text.parse::<Address>(), Err(NotAnAddress(text.to_owned())), "{text}");
        }
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
