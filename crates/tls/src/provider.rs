//! The choice of the cryptographic library.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

use crate::error::ConfigError;

/// Returns the given provider, or else the one of the features.
pub(crate) fn or_default(given: Option<Arc<CryptoProvider>>) -> Result<Arc<CryptoProvider>, ConfigError> {
    given.or_else(by_feature).ok_or(ConfigError::NoProvider)
}

#[cfg(feature = "aws-lc-rs")]
fn by_feature() -> Option<Arc<CryptoProvider>> {
    Some(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
}

#[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
fn by_feature() -> Option<Arc<CryptoProvider>> {
    Some(Arc::new(rustls::crypto::ring::default_provider()))
}

#[cfg(not(any(feature = "ring", feature = "aws-lc-rs")))]
fn by_feature() -> Option<Arc<CryptoProvider>> {
    None
}

/// Returns a source of session tickets with the cryptography of the features.
pub(crate) fn tickets() -> Result<Arc<dyn rustls::server::ProducesTickets>, ConfigError> {
    #[cfg(feature = "aws-lc-rs")]
    return rustls::crypto::aws_lc_rs::Ticketer::new().map_err(ConfigError::Refused);
    #[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
    return rustls::crypto::ring::Ticketer::new().map_err(ConfigError::Refused);
    #[cfg(not(any(feature = "ring", feature = "aws-lc-rs")))]
    Err(ConfigError::NoProvider)
}
