//! The errors of sessions and of settings.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

use rustls::{AlertDescription, CertificateError};

/// The error that ended a TLS session.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum TlsError {
    /// The peer's certificate was not accepted, for example because nobody whom we trust signed it, or because
    /// it is for another name.
    Certificate(CertificateError),
    /// The peer refused the session, and said why in an alert.
    Alert(AlertDescription),
    /// The peer violated the protocol, offered nothing that we accept, or changed bytes on the way; or a call
    /// came at the wrong time.
    Protocol(rustls::Error),
    /// The peer's handshake is longer than [`Tls::HANDSHAKE_MAX`](crate::Tls::HANDSHAKE_MAX).
    HandshakeTooLong {
        /// The limit, in bytes.
        limit: usize,
    },
}

impl TlsError {
    pub(crate) fn of(error: rustls::Error) -> TlsError {
        match error {
            rustls::Error::InvalidCertificate(error) => TlsError::Certificate(error),
            rustls::Error::AlertReceived(alert) => TlsError::Alert(alert),
            error => TlsError::Protocol(error),
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::Certificate(error) => write!(f, "TLS: the peer's certificate is not accepted: {error}"),
            TlsError::Alert(alert) => write!(f, "TLS: the peer refused the session: {alert:?}"),
            TlsError::Protocol(error) => write!(f, "TLS: {error}"),
            TlsError::HandshakeTooLong { limit } => {
                write!(f, "TLS: the peer's handshake is longer than {limit} bytes")
            }
        }
    }
}

impl Error for TlsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            TlsError::Protocol(error) => Some(error),
            _ => None,
        }
    }
}

/// Settings that cannot be used: a file, a certificate, a key or a name.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file could not be read.
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// A text is not PEM, or has no section of the expected kind.
    Pem {
        /// The expected content, for example "a private key".
        expected: &'static str,
        /// Where it was expected: a file, or "the text".
        place: String,
    },
    /// The system has no root certificates that can be read. The texts say why, if the system said so.
    NoSystemRoots(Vec<String>),
    /// A set of roots is empty, so nobody could be trusted.
    NoRoots,
    /// A server's name is neither a DNS name nor an IP address.
    Name(String),
    /// Neither a feature nor the builder provides cryptography.
    NoProvider,
    /// rustls refuses the settings, for example because the key does not belong to the certificate.
    Refused(rustls::Error),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::File { path, error } => write!(f, "cannot read {}: {error}", path.display()),
            ConfigError::Pem { expected, place } => write!(f, "{place} has not {expected} in PEM"),
            ConfigError::NoSystemRoots(causes) if causes.is_empty() => {
                f.write_str("the system has no root certificates")
            }
            ConfigError::NoSystemRoots(causes) => {
                write!(f, "the system's root certificates cannot be read: {}", causes.join("; "))
            }
            ConfigError::NoRoots => f.write_str("there is no root certificate, so no peer could be trusted"),
            ConfigError::Name(name) => write!(f, "{name:?} is neither a DNS name nor an IP address"),
            ConfigError::NoProvider => {
                f.write_str("no cryptography: turn on the feature ring or aws-lc-rs, or give a provider")
            }
            ConfigError::Refused(error) => write!(f, "TLS settings: {error}"),
        }
    }
}

impl Error for ConfigError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            ConfigError::File { error, .. } => Some(error),
            ConfigError::Refused(error) => Some(error),
            _ => None,
        }
    }
}
