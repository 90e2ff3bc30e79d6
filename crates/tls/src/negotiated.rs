//! The outcome of a handshake.

use rustls::pki_types::CertificateDer;
use rustls::{CipherSuite, Connection, HandshakeKind, ProtocolVersion};

/// The versions of TLS that this crate speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Version {
    /// TLS 1.2 (RFC 5246).
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

/// What both sides agreed on, and what the peer showed.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Negotiated<'a> {
    /// The version of the protocol.
    pub version: Version,
    /// The cipher suite.
    pub suite: CipherSuite,
    /// The application protocol (ALPN), if both sides named one in common.
    pub alpn: Option<&'a [u8]>,
    /// The name that the client asked for (SNI). Only a server sees it here.
    pub server_name: Option<&'a str>,
    /// The peer's certificates, its own first. They were verified. Empty if the peer showed none. A resumed
    /// session has those of the first one.
    pub peer_certificates: &'a [CertificateDer<'static>],
    /// The session continues an earlier one, without certificates on the wire.
    pub resumed: bool,
}

impl<'a> Negotiated<'a> {
    pub(crate) fn of(connection: &'a Connection) -> Option<Negotiated<'a>> {
        let version = match connection.protocol_version()? {
            ProtocolVersion::TLSv1_2 => Version::Tls12,
            ProtocolVersion::TLSv1_3 => Version::Tls13,
            _ => return None,
        };
        let server_name = match connection {
            Connection::Server(server) => server.server_name(),
            Connection::Client(_) => None,
        };
        Some(Negotiated {
            version,
            suite: connection.negotiated_cipher_suite()?.suite(),
            alpn: connection.alpn_protocol(),
            server_name,
            peer_certificates: connection.peer_certificates().unwrap_or_default(),
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        })
    }
}
