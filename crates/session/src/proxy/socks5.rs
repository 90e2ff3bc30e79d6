//! SOCKS5, the client side: asks a proxy to connect to a destination (RFC 1928, RFC 1929).
//!
//! ```text
//! client                          proxy
//!   version, methods     ──▶
//!                        ◀──      method
//!   user, password       ──▶                      only if the proxy chose that method
//!                        ◀──      accepted
//!   connect, destination ──▶
//!                        ◀──      reply, the address that the proxy connects from
//! ```
//!
//! The client sends each message only after the answer to the previous one, because some proxies read each
//! message with one call and would lose any bytes after it.

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;

use super::connect::{LoginError, check_login};
use super::destination::Destination;
use crate::failure::Result;
use crate::layer::{Io, Layer, Next, Step};

/// Asks a SOCKS5 proxy to connect to a destination, and passes bytes unchanged once the proxy has connected.
///
/// Without a [`login`](Socks5::login) the client offers only "no authentication". With a login it offers both
/// methods, and the proxy chooses. (Tor uses separate circuits for different logins.) The proxy resolves
/// names.
///
/// Fails with [`Socks5Error`]. A [`Reply`] in it gives the proxy's reason.
///
/// ```
/// use session::proxy::{Destination, Socks5};
///
/// let to = Destination::name("example.onion", 80)?;
/// let layer = Socks5::new(to).login("circuit-7", "any")?;
/// assert_eq!(layer.bound(), None); // known when the stream opens
/// # Ok::<(), session::Failure>(())
/// ```
#[derive(Clone)]
pub struct Socks5 {
    to: Destination,
    login: Option<(String, String)>,
    awaits: Awaits,
    bound: Option<Destination>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaits {
    Method,
    Login,
    Reply,
    Nothing,
}

impl Socks5 {
    /// Creates a client that asks for a connection to this destination.
    pub fn new(to: impl Into<Destination>) -> Socks5 {
        Socks5 { to: to.into(), login: None, awaits: Awaits::Method, bound: None }
    }

    /// Also offers the proxy this user and password.
    ///
    /// The password crosses the connection to the proxy in the clear.
    ///
    /// # Errors
    /// [`LoginError`] if either is empty or longer than 255 bytes.
    pub fn login(
        mut self,
        user: impl Into<String>,
        password: impl Into<String>,
    ) -> Result<Socks5, LoginError> {
        let (user, password) = (user.into(), password.into());
        check_login(!user.is_empty() && user.len() <= FIELD_MAX, "the user is not 1 to 255 bytes long")?;
        check_login(
            !password.is_empty() && password.len() <= FIELD_MAX,
            "the password is not 1 to 255 bytes long",
        )?;
        self.login = Some((user, password));
        Ok(self)
    }

    /// Returns the requested destination.
    pub fn destination(&self) -> &Destination {
        &self.to
    }

    /// Returns the address that the proxy reports to connect from, or `None` before the layer is ready. Many
    /// proxies report `0.0.0.0:0`.
    pub fn bound(&self) -> Option<&Destination> {
        self.bound.as_ref()
    }

    /// Handles the proxy's choice of a method, and answers it.
    fn chosen(&mut self, method: u8, io: &mut Io<'_>) -> Result<(), Socks5Error> {
        match (method, &self.login) {
            (METHOD_NONE, _) => self.request(io),
            (METHOD_LOGIN, Some((user, password))) => {
                let mut message = vec![LOGIN_VERSION];
                put_field(&mut message, user);
                put_field(&mut message, password);
                io.down.put(&message);
                self.awaits = Awaits::Login;
            }
            (METHOD_REFUSED, Some(_)) => return Err(Socks5Error::NoMethod),
            (METHOD_REFUSED | METHOD_LOGIN, None) => return Err(Socks5Error::LoginRequired),
            _ => return Err(Socks5Error::Malformed("it chose a method that was not offered")),
        }
        Ok(())
    }

    fn request(&mut self, io: &mut Io<'_>) {
        let mut message = vec![VERSION, COMMAND_CONNECT, 0];
        match &self.to {
            Destination::Address(SocketAddr::V4(v4)) => {
                message.push(ADDRESS_V4);
                message.extend_from_slice(&v4.ip().octets());
            }
            Destination::Address(SocketAddr::V6(v6)) => {
                message.push(ADDRESS_V6);
                message.extend_from_slice(&v6.ip().octets());
            }
            Destination::Name { host, .. } => {
                message.push(ADDRESS_NAME);
                put_field(&mut message, host);
            }
        }
        message.extend_from_slice(&self.to.port().to_be_bytes());
        io.down.put(&message);
        self.awaits = Awaits::Reply;
    }

    /// Handles the reply. Returns its length, or `None` while bytes are missing.
    fn replied(&mut self, input: &[u8]) -> Result<Option<usize>, Socks5Error> {
        // Some proxies close after a refusal, without sending the address that belongs to it.
        if let [_, code, ..] = *input
            && code != 0
        {
            return Err(Socks5Error::Refused(Reply::from_code(code)));
        }
        let [_, _, _, kind, first, ..] = *input else { return Ok(None) };
        let (begin, len) = match kind {
            ADDRESS_V4 => (4, 4),
            ADDRESS_V6 => (4, 16),
            ADDRESS_NAME => (5, usize::from(first)),
            _ => return Err(Socks5Error::Malformed("its reply has an unknown kind of address")),
        };
        let Some(host) = input.get(begin..begin + len) else { return Ok(None) };
        let Some(&[high, low]) = input.get(begin + len..begin + len + 2) else { return Ok(None) };
        let port = u16::from_be_bytes([high, low]);
        self.bound = match kind {
            ADDRESS_V4 => host.try_into().ok().map(|ip: [u8; 4]| SocketAddr::from((ip, port)).into()),
            ADDRESS_V6 => host.try_into().ok().map(|ip: [u8; 16]| SocketAddr::from((ip, port)).into()),
            // An invalid name is useless, but no reason to give up the connection.
            _ => str::from_utf8(host).ok().and_then(|host| Destination::name(host, port).ok()),
        };
        self.awaits = Awaits::Nothing;
        // The login is no longer needed, and an open connection should keep no secret.
        self.login = None;
        Ok(Some(begin + len + 2))
    }
}

impl Layer for Socks5 {
    const TRANSPARENT: bool = true;
    // The longest reply contains a name of 255 bytes, and has 262 bytes.
    const INPUT_MAX: usize = 262;

    fn start(&mut self, io: &mut Io<'_>) -> Result {
        io.down.put(match self.login {
            Some(_) => &[VERSION, 2, METHOD_NONE, METHOD_LOGIN],
            None => &[VERSION, 1, METHOD_NONE],
        });
        Ok(())
    }

    fn ready(&self) -> bool {
        self.awaits == Awaits::Nothing
    }

    fn open(&mut self, input: &mut [u8], io: &mut Io<'_>) -> Result<Step> {
        let wait = Step { used: 0, next: Next::Wait };
        let Some(&version) = input.first() else { return Ok(wait) };
        // The answer to a login has a version of its own. Some proxies send 5 there, so ignore it.
        if version != VERSION && self.awaits != Awaits::Login {
            return Err(Socks5Error::NotSocks5(version).into());
        }
        let used = match (self.awaits, &*input) {
            (Awaits::Method, &[_, method, ..]) => {
                self.chosen(method, io)?;
                2
            }
            (Awaits::Login, &[_, status, ..]) => {
                if status != 0 {
                    return Err(Socks5Error::LoginRefused.into());
                }
                self.request(io);
                2
            }
            (Awaits::Reply, input) => match self.replied(input)? {
                Some(used) => used,
                None => return Ok(wait),
            },
            (Awaits::Method | Awaits::Login | Awaits::Nothing, _) => return Ok(wait),
        };
        Ok(Step { used, next: if self.ready() { Next::Wait } else { Next::Again } })
    }

    fn seal(&mut self, clear: &[u8], io: &mut Io<'_>) -> Result<usize> {
        // Never called, because the layer is transparent. Pass the bytes on all the same.
        io.down.put(clear);
        Ok(clear.len())
    }
}

/// Shows the destination and the state of the handshake, but no password.
impl fmt::Debug for Socks5 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socks5")
            .field("to", &self.to)
            .field("login", &self.login.as_ref().map(|_| "hidden"))
            .field("awaits", &self.awaits)
            .field("bound", &self.bound)
            .finish()
    }
}

/// The reason why a SOCKS5 proxy did not connect.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Socks5Error {
    /// The peer answered with this version, so it is not a SOCKS5 proxy.
    NotSocks5(u8),
    /// The proxy requires a login, but none was given.
    LoginRequired,
    /// The proxy accepts neither a login by password nor a connection without one.
    NoMethod,
    /// The proxy refused the user or the password.
    LoginRefused,
    /// The proxy could not or would not connect.
    Refused(Reply),
    /// The proxy violated the protocol, as the text describes.
    Malformed(&'static str),
}

impl fmt::Display for Socks5Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Socks5Error::NotSocks5(version) => {
                write!(f, "the peer is no SOCKS5 proxy: it answered with version {version}")
            }
            Socks5Error::LoginRequired => f.write_str("the SOCKS5 proxy demands a login"),
            Socks5Error::NoMethod => f.write_str("the SOCKS5 proxy accepts no login by user and password"),
            Socks5Error::LoginRefused => f.write_str("the SOCKS5 proxy refused the user or the password"),
            Socks5Error::Refused(reply) => write!(f, "the SOCKS5 proxy refused: {reply}"),
            Socks5Error::Malformed(what) => write!(f, "the SOCKS5 proxy broke the protocol: {what}"),
        }
    }
}

impl Error for Socks5Error {}

/// A SOCKS5 proxy's reason for refusing a connection: the codes of RFC 1928, section 6, and those of Tor's
/// proposal 304.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reply {
    /// 1: the proxy failed, without a specific reason.
    GeneralFailure,
    /// 2: the proxy's rules do not allow this connection.
    NotAllowed,
    /// 3: the proxy has no route to the destination's network.
    NetworkUnreachable,
    /// 4: the host does not answer, or the proxy cannot resolve its name.
    HostUnreachable,
    /// 5: the destination refused the connection.
    ConnectionRefused,
    /// 6: a packet's time to live expired, or the proxy's own timeout.
    TtlExpired,
    /// 7: the proxy does not know the command.
    CommandNotSupported,
    /// 8: the proxy does not support this kind of address, for example IPv6.
    AddressNotSupported,
    /// 0xF0 to 0xF7: Tor's reason for not reaching an onion service.
    Onion(u8),
    /// A code that is not documented.
    Other(u8),
}

impl Reply {
    /// Names a code. The code must not be 0, because that means success.
    fn from_code(code: u8) -> Reply {
        match code {
            1 => Reply::GeneralFailure,
            2 => Reply::NotAllowed,
            3 => Reply::NetworkUnreachable,
            4 => Reply::HostUnreachable,
            5 => Reply::ConnectionRefused,
            6 => Reply::TtlExpired,
            7 => Reply::CommandNotSupported,
            8 => Reply::AddressNotSupported,
            0xf0..=0xf7 => Reply::Onion(code),
            _ => Reply::Other(code),
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reply::GeneralFailure => "general failure",
            Reply::NotAllowed => "not allowed by its rules",
            Reply::NetworkUnreachable => "network unreachable",
            Reply::HostUnreachable => "host unreachable",
            Reply::ConnectionRefused => "connection refused by the destination",
            Reply::TtlExpired => "time to live expired",
            Reply::CommandNotSupported => "command not supported",
            Reply::AddressNotSupported => "kind of address not supported",
            Reply::Onion(0xf0) => "onion service descriptor not found",
            Reply::Onion(0xf1) => "onion service descriptor invalid",
            Reply::Onion(0xf2) => "introduction to the onion service failed",
            Reply::Onion(0xf3) => "rendezvous with the onion service failed",
            Reply::Onion(0xf4) => "the onion service demands client authorisation",
            Reply::Onion(0xf5) => "the onion service refused the client authorisation",
            Reply::Onion(0xf6) => "onion address invalid",
            Reply::Onion(_) => "introduction to the onion service timed out",
            Reply::Other(code) => return write!(f, "code {code}"),
        })
    }
}

/// Appends a text after its length. The constructors have checked that the length fits in one byte.
fn put_field(message: &mut Vec<u8>, text: &str) {
    message.push(text.len() as u8);
    message.extend_from_slice(text.as_bytes());
}

const VERSION: u8 = 5;
const LOGIN_VERSION: u8 = 1;
const COMMAND_CONNECT: u8 = 1;
const METHOD_NONE: u8 = 0;
const METHOD_LOGIN: u8 = 2;
const METHOD_REFUSED: u8 = 0xff;
const ADDRESS_V4: u8 = 1;
const ADDRESS_NAME: u8 = 3;
const ADDRESS_V6: u8 = 4;
/// The longest user, password or name, in bytes.
const FIELD_MAX: usize = 255;
