//! An ephemeral key from given bytes, in place of the system's randomness.

use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{BoxedCryptoResolver, CryptoResolver};
use snow::types::{Cipher, Dh, Hash, Random};

/// Takes its randomness from the given bytes, and everything else from another resolver.
pub(crate) struct Fixed {
    bytes: [u8; 32],
    others: BoxedCryptoResolver,
}

impl Fixed {
    pub(crate) fn new(bytes: [u8; 32], others: BoxedCryptoResolver) -> Fixed {
        Fixed { bytes, others }
    }
}

impl CryptoResolver for Fixed {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Once(Some(self.bytes))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        self.others.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        self.others.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        self.others.resolve_cipher(choice)
    }
}

/// Gives its bytes once: a handshake makes one ephemeral key. Secret bytes are never given twice.
struct Once(Option<[u8; 32]>);

impl Random for Once {
    fn try_fill_bytes(&mut self, into: &mut [u8]) -> Result<(), snow::Error> {
        let bytes = self.0.take().ok_or(snow::Error::Rng)?;
        if into.len() != bytes.len() {
            return Err(snow::Error::Rng);
        }
        into.copy_from_slice(&bytes);
        Ok(())
    }
}
