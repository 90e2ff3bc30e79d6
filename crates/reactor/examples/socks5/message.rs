//! The messages of SOCKS5 (RFC 1928), from the server's side.

use std::{
    fmt,
    io::ErrorKind,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
};

use reactor::Closed;

const VERSION: u8 = 5;
const METHOD_NONE: u8 = 0;
const METHOD_UNACCEPTABLE: u8 = 0xff;
const CONNECT: u8 = 1;
const ADDRESS_V4: u8 = 1;
const ADDRESS_NAME: u8 = 3;
const ADDRESS_V6: u8 = 4;

/// The answer to a greeting: no authentication.
pub(crate) const CHOSEN: [u8; 2] = [VERSION, METHOD_NONE];

/// The answer to a greeting that offers no method of this server's.
pub(crate) const NO_METHOD: [u8; 2] = [VERSION, METHOD_UNACCEPTABLE];

/// A message that is not of this protocol.
#[derive(Debug)]
pub(crate) struct Malformed(&'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

pub(crate) enum Greeting {
    /// It has this many bytes, and offers to do without authentication.
    Accepted(usize),
    /// It insists on authentication.
    NoMethod,
}

pub(crate) enum Request {
    Connect(Destination),
    /// BIND or UDP ASSOCIATE, or an unknown kind of address.
    Refused(Reply),
}

pub(crate) enum Destination {
    Address(SocketAddr),
    Name((String, u16)),
}

/// Reads a greeting, or returns `None` while bytes are missing.
pub(crate) fn greeting(bytes: &[u8]) -> Result<Option<Greeting>, Malformed> {
    match *bytes {
        [VERSION, count, ref methods @ ..] if methods.len() >= count.into() => {
            if !methods[..count.into()].contains(&METHOD_NONE) {
                return Ok(Some(Greeting::NoMethod));
            }
            Ok(Some(Greeting::Accepted(2 + usize::from(count))))
        }
        [] | [VERSION, ..] => Ok(None),
        _ => Err(Malformed("it does not speak SOCKS5")),
    }
}

/// Reads a request, or returns `None` while bytes are missing. No bytes may follow it, because a client waits
/// for the reply.
pub(crate) fn request(bytes: &[u8]) -> Result<Option<Request>, Malformed> {
    let (command, kind, rest) = match *bytes {
        [VERSION, command, _, kind, ref rest @ ..] => (command, kind, rest),
        [] | [VERSION] | [VERSION, _] | [VERSION, _, _] => return Ok(None),
        _ => return Err(Malformed("its request is not of SOCKS5")),
    };
    let (host_len, prefix) = match (kind, rest) {
        (ADDRESS_V4, _) => (4, 0),
        (ADDRESS_V6, _) => (16, 0),
        (ADDRESS_NAME, [len, ..]) => (usize::from(*len), 1),
        (ADDRESS_NAME, []) => return Ok(None),
        _ => return Ok(Some(Request::Refused(Reply::AddressNotSupported))),
    };
    let Some(rest) = rest.get(prefix..).filter(|rest| rest.len() >= host_len + 2) else { return Ok(None) };
    let (host, rest) = rest.split_at(host_len);
    let [high, low] = *rest else { return Err(Malformed("it sent data before it got a reply")) };
    let port = u16::from_be_bytes([high, low]);
    if command != CONNECT {
        return Ok(Some(Request::Refused(Reply::CommandNotSupported)));
    }
    let ip = |ip: IpAddr| Destination::Address(SocketAddr::new(ip, port));
    let to = if let Ok(octets) = <[u8; 4]>::try_from(host)
        && kind == ADDRESS_V4
    {
        ip(octets.into())
    } else if let Ok(octets) = <[u8; 16]>::try_from(host)
        && kind == ADDRESS_V6
    {
        ip(octets.into())
    } else {
        let name = std::str::from_utf8(host).map_err(|_| Malformed("its request's name is not text"))?;
        Destination::Name((name.to_owned(), port))
    };
    Ok(Some(Request::Connect(to)))
}

/// Looks a name up. Blocks.
pub(crate) fn resolve((name, port): &(String, u16)) -> std::io::Result<Vec<SocketAddr>> {
    Ok((name.as_str(), *port).to_socket_addrs()?.collect())
}

/// The codes of a reply (section 6).
#[derive(Clone, Copy)]
pub(crate) enum Reply {
    Granted = 0,
    Failure = 1,
    NetworkUnreachable = 3,
    HostUnreachable = 4,
    Refused = 5,
    CommandNotSupported = 7,
    AddressNotSupported = 8,
}

impl Reply {
    /// Returns the reply for a target that could not be connected.
    pub(crate) fn of(why: &Closed) -> Reply {
        match why.io().map(std::io::Error::kind) {
            Some(ErrorKind::ConnectionRefused) => Reply::Refused,
            Some(ErrorKind::NetworkUnreachable) => Reply::NetworkUnreachable,
            Some(ErrorKind::HostUnreachable | ErrorKind::TimedOut) => Reply::HostUnreachable,
            None if matches!(why, Closed::TimedOut(_)) => Reply::HostUnreachable,
            _ => Reply::Failure,
        }
    }
}

/// Makes a reply, with the address that the proxy connects from.
pub(crate) fn reply(code: Reply, bound: Option<SocketAddr>) -> Vec<u8> {
    let mut message = vec![VERSION, code as u8, 0];
    let bound = bound.unwrap_or(SocketAddr::from(([0; 4], 0)));
    match bound.ip() {
        IpAddr::V4(ip) => {
            message.push(ADDRESS_V4);
            message.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            message.push(ADDRESS_V6);
            message.extend_from_slice(&ip.octets());
        }
    }
    message.extend_from_slice(&bound.port().to_be_bytes());
    message
}
