//! The errors of settings and of sessions.

use std::error::Error;
use std::fmt;

/// The error of a Noise session, or of its settings.
#[derive(Debug, PartialEq)]
#[non_exhaustive]
pub enum NoiseError {
    /// The settings cannot be used: the pattern is unknown, or a key that it needs is missing.
    Settings(snow::Error),
    /// A public or private key is not 32 bytes long.
    KeyLength(usize),
    /// The peer's handshake message is not what the pattern requires, or was made with other keys.
    Handshake(snow::Error),
    /// The peer's handshake message carries a payload.
    Payload {
        /// How many bytes.
        len: usize,
    },
    /// The peer's handshake message is longer than any pattern's.
    HandshakeTooLong {
        /// The limit, in bytes.
        limit: usize,
        /// The length that the peer announced.
        len: usize,
    },
    /// A message is shorter than its authentication tag.
    TooShort {
        /// The length that the peer announced.
        len: usize,
    },
    /// A message is not authentic: it was changed or repeated on the way.
    Forged,
    /// A message cannot be sealed, or a call came at the wrong time.
    State(snow::Error),
    /// The session is not in a phase that allows the call.
    Early,
}

impl fmt::Display for NoiseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoiseError::Settings(error) => write!(f, "Noise settings: {error}"),
            NoiseError::KeyLength(len) => write!(f, "a key of {len} bytes, where keys have 32"),
            NoiseError::Handshake(error) => {
                write!(f, "Noise: the peer's handshake message is wrong: {error}")
            }
            NoiseError::Payload { len } => {
                write!(
                    f,
                    "Noise: the peer's handshake message carries {len} bytes of payload, and may carry none"
                )
            }
            NoiseError::HandshakeTooLong { limit, len } => {
                write!(f, "Noise: the peer's handshake message has {len} bytes, at most {limit} are allowed")
            }
            NoiseError::TooShort { len } => {
                write!(f, "Noise: the peer's message of {len} bytes is shorter than its tag")
            }
            NoiseError::Forged => f.write_str("Noise: the peer's message is not authentic"),
            NoiseError::State(error) => write!(f, "Noise: {error}"),
            NoiseError::Early => f.write_str("Noise: the handshake is not over"),
        }
    }
}

impl Error for NoiseError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            NoiseError::Settings(error) | NoiseError::Handshake(error) | NoiseError::State(error) => {
                Some(error)
            }
            _ => None,
        }
    }
}
