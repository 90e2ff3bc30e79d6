//! A certificate and its key.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::error::ConfigError;

/// A chain of certificates and the private key of its first one. Servers have one, and clients that
/// authenticate themselves.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Creates an identity from a chain in DER, its own certificate first, and the key of that certificate.
    ///
    /// # Errors
    /// [`ConfigError::Pem`] if the chain is empty.
    pub fn from_der(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Identity, ConfigError> {
        if chain.is_empty() {
            return Err(missing(CERTIFICATE, "the chain"));
        }
        Ok(Identity { chain, key })
    }

    /// Reads an identity from PEM: the chain, its own certificate first, and the key (PKCS #8, PKCS #1 or SEC
    /// 1). Both may be the same text.
    ///
    /// # Errors
    /// [`ConfigError::Pem`] if the chain or the key is not there or cannot be read.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Identity, ConfigError> {
        Identity::read(chain, "the text", key, "the text")
    }

    /// Reads an identity from two files in PEM, as [`Identity::from_pem`] does. Both may be the same file.
    ///
    /// It reads at once, so it blocks as long as the file system does.
    ///
    /// # Errors
    /// [`ConfigError::File`] if a file cannot be read, or as [`Identity::from_pem`].
    pub fn from_files(chain: impl AsRef<Path>, key: impl AsRef<Path>) -> Result<Identity, ConfigError> {
        let (chain, key) = (chain.as_ref(), key.as_ref());
        let texts = (read(chain)?, read(key)?);
        Identity::read(&texts.0, &chain.display().to_string(), &texts.1, &key.display().to_string())
    }

    fn read(chain: &[u8], chain_at: &str, key: &[u8], key_at: &str) -> Result<Identity, ConfigError> {
        let chain = certificates(chain, chain_at)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| missing("a private key", key_at))?;
        Ok(Identity { chain, key })
    }

    /// Makes the form that rustls uses.
    ///
    /// # Errors
    /// [`ConfigError::Refused`] if the key cannot be used or does not belong to the certificate.
    pub(crate) fn certified(self, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, ConfigError> {
        CertifiedKey::from_der(self.chain, self.key, provider).map(Arc::new).map_err(ConfigError::Refused)
    }

    pub(crate) fn into_parts(self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        (self.chain, self.key)
    }
}

/// Never shows the key.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("certificates", &self.chain.len()).finish_non_exhaustive()
    }
}

/// Reads a file, and names it in the error.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    fs::read(path).map_err(|error| ConfigError::File { path: path.to_owned(), error })
}

/// Reads the certificates of a text in PEM, at least one.
pub(crate) fn certificates(text: &[u8], place: &str) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(missing(CERTIFICATE, place)),
    }
}

fn missing(expected: &'static str, place: &str) -> ConfigError {
    ConfigError::Pem { expected, place: place.to_owned() }
}

const CERTIFICATE: &str = "a certificate";
