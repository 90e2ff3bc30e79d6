//! The header of the PROXY protocol, versions 1 and 2: as data, as text and as bytes.
//!
//! A proxy writes it before a connection's bytes, so that its backend learns which client connected to the
//! proxy. This file knows the format. The layers in the files beside it send and receive the header. The
//! source is HAProxy's document "The PROXY protocol, versions 1 & 2".

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Describes the connection that a proxy relays to a backend.
///
/// ```
/// use session::proxy::{ProxyHeader, Relayed};
///
/// let header = ProxyHeader::stream("192.0.2.1:4711".parse()?, "198.51.100.1:443".parse()?);
/// let Relayed::Stream { source, .. } = header.relayed else { unreachable!("it was made above") };
/// assert_eq!(source.port(), 4711);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProxyHeader {
    /// The client and the address that it connected to.
    pub relayed: Relayed,
    /// The additional values of version 2, by type and in their order. They do not include the checksum,
    /// which is checked when the header is read and added when it is written.
    pub values: Vec<Tlv>,
}

/// The two ends of the connection that a proxy relays.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Relayed {
    /// The proxy connects for itself, for example to check the backend's health. Then the connection's own
    /// addresses apply.
    Local,
    /// The proxy relays a connection without naming its ends (`UNKNOWN`, `AF_UNSPEC`).
    Unknown,
    /// A TCP connection.
    Stream {
        /// The client's address.
        source: SocketAddr,
        /// The address that the client connected to.
        destination: SocketAddr,
    },
    /// UDP. Only in version 2.
    Datagrams {
        /// The client's address.
        source: SocketAddr,
        /// The address that the client sent to.
        destination: SocketAddr,
    },
    /// A Unix socket. Only in version 2. The paths are those of `sockaddr_un`, up to the first zero byte. An
    /// abstract address begins with a zero byte, and is kept whole except for the zeros at its end.
    Unix {
        /// The client's path, usually empty.
        source: Vec<u8>,
        /// The proxy's path.
        destination: Vec<u8>,
    },
}

/// One value of a version 2 header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tlv {
    /// The type, for example 0x01 for ALPN, 0x02 for the server's name, 0x05 for a unique id, or 0x20 for TLS
    /// details.
    pub kind: u8,
    /// The value.
    pub value: Vec<u8>,
}

impl ProxyHeader {
    /// Creates a header without values.
    pub fn new(relayed: Relayed) -> ProxyHeader {
        ProxyHeader { relayed, values: Vec::new() }
    }

    /// Creates the header of a TCP connection from `source` to `destination`.
    pub fn stream(source: SocketAddr, destination: SocketAddr) -> ProxyHeader {
        ProxyHeader::new(Relayed::Stream { source, destination })
    }

    /// Adds a value. Only version 2 can carry it.
    #[must_use]
    pub fn with(mut self, kind: u8, value: impl Into<Vec<u8>>) -> ProxyHeader {
        self.values.push(Tlv { kind, value: value.into() });
        self
    }

    /// Returns the first value of this type.
    pub fn value(&self, kind: u8) -> Option<&[u8]> {
        self.values.iter().find(|tlv| tlv.kind == kind).map(|tlv| &tlv.value[..])
    }

    /// Writes version 1, a line of text. It becomes `UNKNOWN` for datagrams, Unix sockets and the proxy's own
    /// connections. Values are omitted.
    pub(super) fn to_v1(&self) -> Vec<u8> {
        let Relayed::Stream { source, destination } = &self.relayed else {
            return b"PROXY UNKNOWN\r\n".to_vec();
        };
        let (from, to) = one_family(source, destination);
        let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
        let (from_port, to_port) = (source.port(), destination.port());
        format!("PROXY {family} {from} {to} {from_port} {to_port}\r\n").into_bytes()
    }

    /// Writes version 2, with its checksum.
    ///
    /// # Errors
    /// [`HeaderError::TooLong`] if the values make the header longer than [`LEN_MAX`]. [`HeaderError::Path`]
    /// if a path of a Unix socket is longer than 108 bytes.
    pub(super) fn to_v2(&self) -> Result<Vec<u8>, HeaderError> {
        let (command, family, addresses) = match &self.relayed {
            Relayed::Local => (COMMAND_LOCAL, UNSPECIFIED, Vec::new()),
            Relayed::Unknown => (COMMAND_PROXY, UNSPECIFIED, Vec::new()),
            Relayed::Stream { source, destination } => inet(source, destination, STREAM),
            Relayed::Datagrams { source, destination } => inet(source, destination, DATAGRAM),
            Relayed::Unix { source, destination } => {
                let mut addresses = vec![0; 2 * PATH_LEN];
                for (place, path) in addresses.chunks_mut(PATH_LEN).zip([source, destination]) {
                    place.get_mut(..path.len()).ok_or(HeaderError::Path)?.copy_from_slice(path);
                }
                (COMMAND_PROXY, UNIX | STREAM, addresses)
            }
        };
        let mut header = [&SIGNATURE[..], &[VERSION_2 | command, family, 0, 0], &addresses].concat();
        for tlv in &self.values {
            let len = u16::try_from(tlv.value.len()).map_err(|_| HeaderError::TooLong)?;
            header.push(tlv.kind);
            header.extend_from_slice(&len.to_be_bytes());
            header.extend_from_slice(&tlv.value);
        }
        header.extend_from_slice(&[TYPE_CRC32C, 0, 4, 0, 0, 0, 0]);
        if header.len() > LEN_MAX {
            return Err(HeaderError::TooLong);
        }
        let len = (header.len() - FIXED_LEN) as u16;
        header[LEN_AT..FIXED_LEN].copy_from_slice(&len.to_be_bytes());
        let checksum = crc32c(&header);
        let at = header.len() - 4;
        header[at..].copy_from_slice(&checksum.to_be_bytes());
        Ok(header)
    }
}

/// Returns both addresses in one family: if they differ, both as IPv6.
fn one_family(a: &SocketAddr, b: &SocketAddr) -> (IpAddr, IpAddr) {
    let mapped = |address: &SocketAddr| match address.ip() {
        IpAddr::V4(v4) => IpAddr::V6(v4.to_ipv6_mapped()),
        v6 => v6,
    };
    if a.is_ipv4() == b.is_ipv4() { (a.ip(), b.ip()) } else { (mapped(a), mapped(b)) }
}

/// Returns the command, the family and the addresses of version 2.
fn inet(source: &SocketAddr, destination: &SocketAddr, transport: u8) -> (u8, u8, Vec<u8>) {
    let (from, to) = one_family(source, destination);
    let mut addresses = Vec::with_capacity(36);
    for ip in [from, to] {
        match ip {
            IpAddr::V4(v4) => addresses.extend_from_slice(&v4.octets()),
            IpAddr::V6(v6) => addresses.extend_from_slice(&v6.octets()),
        }
    }
    addresses.extend_from_slice(&source.port().to_be_bytes());
    addresses.extend_from_slice(&destination.port().to_be_bytes());
    (COMMAND_PROXY, transport | if from.is_ipv4() { INET } else { INET6 }, addresses)
}

/// Reads a version 1 header at the front of `input`. Returns the header and its length, or `None` while bytes
/// are missing.
pub(super) fn parse_v1(input: &[u8]) -> Result<Option<(ProxyHeader, usize)>, HeaderError> {
    if !input.starts_with(&V1_BEGIN[..input.len().min(V1_BEGIN.len())]) {
        return Err(HeaderError::Absent);
    }
    let end = input.iter().take(V1_LEN_MAX).position(|byte| *byte == b'\n');
    let Some(end) = end else {
        return if input.len() < V1_LEN_MAX { Ok(None) } else { Err(HeaderError::TooLong) };
    };
    let line = input[..end].strip_suffix(b"\r").ok_or(HeaderError::Malformed("the line ends without CR"))?;
    let line = str::from_utf8(line).map_err(|_| HeaderError::Malformed("the line is not ASCII"))?;
    let mut words = line.split(' ').skip(1);
    let relayed = match words.next() {
        // The specification requires a receiver to ignore the rest of the line.
        Some("UNKNOWN") => Relayed::Unknown,
        Some("TCP4") => addresses_v1::<Ipv4Addr>(words)?,
        Some("TCP6") => addresses_v1::<Ipv6Addr>(words)?,
        _ => return Err(HeaderError::Malformed("the family is none of TCP4, TCP6, UNKNOWN")),
    };
    Ok(Some((ProxyHeader::new(relayed), end + 1)))
}

/// Reads `SOURCE DESTINATION SOURCE-PORT DESTINATION-PORT`, with single spaces in between.
fn addresses_v1<'a, Ip>(mut words: impl Iterator<Item = &'a str>) -> Result<Relayed, HeaderError>
where
    Ip: std::str::FromStr + Into<IpAddr>,
{
    let mut ip = || words.next()?.parse::<Ip>().ok().map(Into::into);
    let ips = (ip(), ip());
    let mut port = || {
        let word = words.next()?;
        let is_plain =
            word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
        word.parse::<u16>().ok().filter(|_| is_plain)
    };
    let ports = (port(), port());
    match (ips, ports, words.next()) {
        ((Some(from), Some(to)), (Some(from_port), Some(to_port)), None) => Ok(Relayed::Stream {
            source: SocketAddr::new(from, from_port),
            destination: SocketAddr::new(to, to_port),
        }),
        _ => Err(HeaderError::Malformed("the line's addresses and ports are not those of its family")),
    }
}

/// Reads a version 2 header at the front of `input`. Returns the header and its length, or `None` while bytes
/// are missing.
pub(super) fn parse_v2(input: &[u8]) -> Result<Option<(ProxyHeader, usize)>, HeaderError> {
    if !input.starts_with(&SIGNATURE[..input.len().min(SIGNATURE.len())]) {
        return Err(HeaderError::Absent);
    }
    let Some(&[version, family, high, low]) = input.get(SIGNATURE.len()..FIXED_LEN) else { return Ok(None) };
    if version & 0xf0 != VERSION_2 {
        return Err(HeaderError::Malformed("the version is not 2"));
    }
    let len = FIXED_LEN + usize::from(u16::from_be_bytes([high, low]));
    if len > LEN_MAX {
        return Err(HeaderError::TooLong);
    }
    let Some(header) = input.get(..len) else { return Ok(None) };
    let body = &header[FIXED_LEN..];
    let (relayed, used) = match version & 0x0f {
        COMMAND_LOCAL => (Relayed::Local, address_len(family).min(body.len())),
        COMMAND_PROXY => addresses_v2(family, body)?,
        _ => return Err(HeaderError::Malformed("the command is neither LOCAL nor PROXY")),
    };
    let values = values(header, FIXED_LEN + used)?;
    Ok(Some((ProxyHeader { relayed, values }, len)))
}

fn address_len(family: u8) -> usize {
    match family & 0xf0 {
        INET => 12,
        INET6 => 36,
        UNIX => 2 * PATH_LEN,
        _ => 0,
    }
}

/// Reads the addresses after the fixed part, and returns how many bytes they take.
fn addresses_v2(family: u8, body: &[u8]) -> Result<(Relayed, usize), HeaderError> {
    let len = address_len(family);
    let transport = family & 0x0f;
    let addresses = body.get(..len).ok_or(HeaderError::Malformed("its addresses are cut"))?;
    let relayed = match family & 0xf0 {
        INET => ends::<4>(addresses, transport),
        INET6 => ends::<16>(addresses, transport),
        UNIX => {
            let (source, destination) = addresses.split_at(PATH_LEN);
            Relayed::Unix { source: path(source), destination: path(destination) }
        }
        // An unknown family: the receiver uses the connection's own addresses.
        _ => Relayed::Unknown,
    };
    Ok((relayed, len))
}

fn ends<const N: usize>(addresses: &[u8], transport: u8) -> Relayed
where
    IpAddr: From<[u8; N]>,
{
    let ip = |at: usize| addresses[at..at + N].try_into().map(|ip: [u8; N]| IpAddr::from(ip));
    let port = |at: usize| u16::from_be_bytes([addresses[at], addresses[at + 1]]);
    let (Ok(from), Ok(to)) = (ip(0), ip(N)) else { return Relayed::Unknown };
    let source = SocketAddr::new(from, port(2 * N));
    let destination = SocketAddr::new(to, port(2 * N + 2));
    match transport {
        STREAM => Relayed::Stream { source, destination },
        DATAGRAM => Relayed::Datagrams { source, destination },
        _ => Relayed::Unknown,
    }
}

fn path(field: &[u8]) -> Vec<u8> {
    let is_abstract = field.first() == Some(&0);
    let end = match is_abstract {
        true => field.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1),
        false => field.iter().position(|byte| *byte == 0).unwrap_or(field.len()),
    };
    field[..end].to_vec()
}

/// Reads the values after the addresses, and checks the header's checksum if it has one.
fn values(header: &[u8], mut at: usize) -> Result<Vec<Tlv>, HeaderError> {
    let mut values = Vec::new();
    while at < header.len() {
        let cut = || HeaderError::Malformed("one of its values is cut");
        let Some(&[kind, high, low]) = header.get(at..at + 3) else { return Err(cut()) };
        let begin = at + 3;
        at = begin + usize::from(u16::from_be_bytes([high, low]));
        let value = header.get(begin..at).ok_or_else(cut)?;
        match kind {
            TYPE_CRC32C => check(header, begin, value)?,
            TYPE_PADDING => (),
            _ => values.push(Tlv { kind, value: value.to_vec() }),
        }
    }
    Ok(values)
}

/// Checks the checksum at `at`. Its own bytes count as zero in the computation.
fn check(header: &[u8], at: usize, value: &[u8]) -> Result<(), HeaderError> {
    let told: [u8; 4] =
        value.try_into().map_err(|_| HeaderError::Malformed("its checksum is not 4 bytes"))?;
    let mut copy = header.to_vec();
    copy[at..at + 4].fill(0);
    if crc32c(&copy) == u32::from_be_bytes(told) { Ok(()) } else { Err(HeaderError::Checksum) }
}

/// Computes CRC-32C (Castagnoli, RFC 3385). A header is short, so computing it bit by bit is fast enough.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc: u32, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

/// The reason why a PROXY header cannot be read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderError {
    /// The connection does not begin with a header of an accepted version.
    Absent,
    /// The header violates the protocol, as the text describes.
    Malformed(&'static str),
    /// The checksum does not match.
    Checksum,
    /// The header is longer than 107 bytes in version 1, or 4 KiB in version 2.
    TooLong,
    /// A path of a Unix socket is longer than 108 bytes.
    Path,
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderError::Absent => f.write_str("the connection does not begin with a PROXY header"),
            HeaderError::Malformed(what) => write!(f, "the PROXY header is malformed: {what}"),
            HeaderError::Checksum => f.write_str("the PROXY header has a wrong checksum"),
            HeaderError::TooLong => f.write_str("the PROXY header is too long"),
            HeaderError::Path => f.write_str("a PROXY header carries paths of at most 108 bytes"),
        }
    }
}

impl Error for HeaderError {}

/// The longest version 2 header that is read or written, in bytes. The format allows 64 KiB, but the largest
/// common value, a certificate, needs less than 4 KiB.
pub(super) const LEN_MAX: usize = 4 << 10;
/// The longest line of version 1, including CR and LF.
const V1_LEN_MAX: usize = 107;
const V1_BEGIN: &[u8] = b"PROXY ";
/// The beginning of version 2. No other protocol begins this way.
pub(super) const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const LEN_AT: usize = 14;
const FIXED_LEN: usize = 16;
const VERSION_2: u8 = 0x20;
const COMMAND_LOCAL: u8 = 0;
const COMMAND_PROXY: u8 = 1;
const UNSPECIFIED: u8 = 0;
const INET: u8 = 0x10;
const INET6: u8 = 0x20;
const UNIX: u8 = 0x30;
const STREAM: u8 = 1;
const DATAGRAM: u8 = 2;
const PATH_LEN: usize = 108;
const TYPE_CRC32C: u8 = 3;
const TYPE_PADDING: u8 = 4;
