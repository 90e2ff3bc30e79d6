//! Converts addresses to the system's form and back.

use std::io;

use socket2::{Domain, SockAddr};

use crate::address::Address;

/// Converts an address to the system's form.
///
/// # Errors
/// `InvalidInput` for an unnamed address, for a path with a zero byte and for a name that is too long.
pub(super) fn to_system(address: &Address) -> io::Result<SockAddr> {
    match address {
        Address::Ip(address) => Ok((*address).into()),
        Address::Path(path) if path.as_os_str().as_encoded_bytes().contains(&0) => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "a path has no zero byte"))
        }
        Address::Path(path) if !path.as_os_str().is_empty() => SockAddr::unix(path),
        Address::Abstract(name) => from_abstract(name),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "a socket without a name cannot be reached")),
    }
}

/// Converts a system address. An address of an unknown family becomes [`Address::Unnamed`].
pub(super) fn from_system(address: &SockAddr) -> Address {
    if let Some(ip) = address.as_socket() {
        return Address::Ip(ip);
    }
    #[cfg(unix)]
    if address.is_unix() {
        if let Some(name) = address.as_abstract_namespace() {
            return Address::Abstract(name.to_vec());
        }
        // An empty path names nothing. A system may report one for a socket without a name.
        if let Some(path) = address.as_pathname().filter(|path| !path.as_os_str().is_empty()) {
            return Address::Path(path.to_owned());
        }
    }
    Address::Unnamed
}

/// Returns the socket family of an address.
pub(super) fn domain(address: &Address) -> Domain {
    match address {
        Address::Ip(ip) => Domain::for_address(*ip),
        _ => Domain::UNIX,
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn from_abstract(name: &[u8]) -> io::Result<SockAddr> {
    use std::os::unix::ffi::OsStrExt as _;
    let name = [b"\0", name].concat();
    SockAddr::unix(std::ffi::OsStr::from_bytes(&name))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn from_abstract(_: &[u8]) -> io::Result<SockAddr> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "only Linux has an abstract namespace"))
}

#[cfg(all(test, any(target_os = "linux", target_os = "android")))]
mod tests {
    use super::*;

    #[test]
    fn an_address_comes_back_as_it_went() {
        for text in ["127.0.0.1:80", "[::1]:8080", "unix:/run/x", "unix:@name"] {
            let address: Address = text.parse().expect(text);
            assert_eq!(from_system(&to_system(&address).expect(text)), address);
        }
    }

    #[test]
    fn a_name_fits_up_to_the_limit_of_the_system() {
        // sun_path has 108 bytes. One of them is the zero after a path, or before an abstract name.
        for (length, fits) in [(106, true), (107, true), (108, false)] {
            let path = Address::Path(format!("/{}", "p".repeat(length - 1)).into());
            assert_eq!(to_system(&path).is_ok(), fits, "path of {length}");
            assert_eq!(to_system(&Address::Abstract(vec![b'a'; length])).is_ok(), fits, "name of {length}");
        }
        for address in [Address::Unnamed, Address::Path("".into()), Address::Path("/a\0b".into())] {
            let error = to_system(&address).expect_err("no name");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{address:?}");
        }
    }
}
