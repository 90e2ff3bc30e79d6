//! A static key.

use std::fmt;

use snow::params::NoiseParams;
use snow::resolvers::{CryptoResolver, DefaultResolver};

use crate::error::NoiseError;
use crate::options::XK;

/// The static key of one side: a private key and its public one (X25519, RFC 7748).
#[derive(Clone)]
pub struct Keypair {
    private: [u8; 32],
    public: [u8; 32],
}

impl Keypair {
    /// Makes a new key with the system's randomness.
    ///
    /// # Errors
    /// [`NoiseError::Settings`] if the system gives no randomness.
    pub fn generate() -> Result<Keypair, NoiseError> {
        let made = snow::Builder::new(params(XK)?).generate_keypair().map_err(NoiseError::Settings)?;
        let private = made.private.try_into().map_err(|key: Vec<u8>| NoiseError::KeyLength(key.len()))?;
        Keypair::from_private(private)
    }

    /// Makes the pair of a private key, for example one that was read from a file.
    ///
    /// # Errors
    /// [`NoiseError::Settings`] if the library has no X25519. It has, so this does not happen.
    pub fn from_private(private: [u8; 32]) -> Result<Keypair, NoiseError> {
        let missing = NoiseError::Settings(snow::Error::Dh);
        let mut dh = DefaultResolver.resolve_dh(&params(XK)?.dh).ok_or(missing)?;
        dh.set(&private);
        let public = key(dh.pubkey())?;
        Ok(Keypair { private, public })
    }

    /// Returns the public key, for others to know.
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// Returns the private key, for example to store it. Whoever has it can pass for this side.
    pub fn private(&self) -> &[u8; 32] {
        &self.private
    }
}

/// Shows the public key only.
impl fmt::Debug for Keypair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keypair(")?;
        self.public.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, ")")
    }
}

pub(crate) fn params(pattern: &str) -> Result<NoiseParams, NoiseError> {
    pattern.parse().map_err(NoiseError::Settings)
}

pub(crate) fn key(bytes: &[u8]) -> Result<[u8; 32], NoiseError> {
    bytes.try_into().map_err(|_| NoiseError::KeyLength(bytes.len()))
}
