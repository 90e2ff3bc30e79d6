//! The certificates that a side trusts.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use crate::error::ConfigError;
use crate::identity::{certificates, read};

/// The root certificates that a side trusts. There is always at least one.
#[derive(Debug, Clone)]
pub struct Roots(RootCertStore);

impl Roots {
    /// Reads the roots that the system trusts. The environment variables `SSL_CERT_FILE` and `SSL_CERT_DIR`
    /// replace them, as with OpenSSL.
    ///
    /// It reads files (on Windows and macOS, it asks the system), so it blocks for some milliseconds: call it
    /// once, at the start. Certificates that cannot be parsed are left out.
    ///
    /// # Errors
    /// [`ConfigError::NoSystemRoots`] if there is none at all.
    pub fn system() -> Result<Roots, ConfigError> {
        let loaded = rustls_native_certs::load_native_certs();
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(loaded.certs);
        if store.is_empty() {
            let causes = loaded.errors.iter().map(ToString::to_string).collect();
            return Err(ConfigError::NoSystemRoots(causes));
        }
        Ok(Roots(store))
    }

    /// Reads roots from PEM.
    ///
    /// # Errors
    /// [`ConfigError::Pem`] if the text has no certificate, and [`ConfigError::Refused`] if one cannot be a
    /// root.
    pub fn from_pem(text: &[u8]) -> Result<Roots, ConfigError> {
        Roots::from_der(certificates(text, "the text")?)
    }

    /// Reads roots from a file in PEM, at once.
    ///
    /// # Errors
    /// [`ConfigError::File`] if the file cannot be read, or as [`Roots::from_pem`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Roots, ConfigError> {
        let path = path.as_ref();
        Roots::from_der(certificates(&read(path)?, &path.display().to_string())?)
    }

    /// Takes roots in DER.
    ///
    /// # Errors
    /// [`ConfigError::NoRoots`] if there is none, and [`ConfigError::Refused`] if one cannot be a root.
    pub fn from_der(roots: impl IntoIterator<Item = CertificateDer<'static>>) -> Result<Roots, ConfigError> {
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root).map_err(ConfigError::Refused)?;
        }
        if store.is_empty() { Err(ConfigError::NoRoots) } else { Ok(Roots(store)) }
    }

    /// Adds all roots of another set.
    #[must_use]
    pub fn and(mut self, other: Roots) -> Roots {
        self.0.roots.extend(other.0.roots);
        self
    }

    pub(crate) fn into_store(self) -> RootCertStore {
        self.0
    }
}
