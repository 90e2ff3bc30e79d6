//! The errors of settings and of sessions.

use std::error::Error;
use std::fmt;

/// The error of a Noise session, or of its settings.
#[derive(Debug, PartialEq)]
#[non_exhaustive]
pub enum NoiseError {
    /// The settings cannot be used: the protocol is unknown, or snow refuses them.
    Settings(snow::Error),
    /// The pattern is one-way (N, K or X), so its sessions could never end cleanly.
    OneWay,
    /// The pattern needs this from this side, and it was not set.
    Missing(Setting),
    /// The pattern has no use for this on this side, so it would protect nothing.
    Unused(Setting),
    /// A public or private key is not 32 bytes long.
    KeyLength(usize),
    /// The peer's handshake message is not what the pattern requires, or was made with other keys.
    Handshake(snow::Error),
    /// The peer proved another static key than [`NoiseOptions::remote`](crate::NoiseOptions::remote) requires.
    WrongKey {
        /// The peer's key.
        key: [u8; 32],
    },
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

/// A setting that a pattern needs or cannot use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// The secret that both sides share, at this place ([`NoiseOptions::psk`](crate::NoiseOptions::psk)).
    Psk(u8),
    /// This side's static key ([`NoiseOptions::keypair`](crate::NoiseOptions::keypair)).
    Keypair,
    /// The peer's static key ([`NoiseOptions::remote`](crate::NoiseOptions::remote)).
    Remote,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Setting::Psk(place) => write!(f, "a shared secret at place {place}"),
            Setting::Keypair => f.write_str("a static key of our own"),
            Setting::Remote => f.write_str("the peer's static key"),
        }
    }
}

impl fmt::Display for NoiseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoiseError::Settings(error) => write!(f, "Noise settings: {error}"),
            NoiseError::OneWay => f.write_str("Noise: a session with a one-way pattern cannot end cleanly"),
            NoiseError::Missing(setting) => write!(f, "Noise: the pattern needs {setting} on this side"),
            NoiseError::Unused(setting) => {
                write!(f, "Noise: the pattern has no use for {setting} on this side")
            }
            NoiseError::KeyLength(len) => write!(f, "a key of {len} bytes, where keys have 32"),
            NoiseError::Handshake(error) => {
                write!(f, "Noise: the peer's handshake message is wrong: {error}")
            }
            NoiseError::WrongKey { key } => {
                f.write_str("Noise: the peer has another key than it must have: ")?;
                key.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
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
