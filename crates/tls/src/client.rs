//! The settings of a client.

use std::fmt;
use std::sync::Arc;

use rustls::client::Resumption as ClientResumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

use crate::error::ConfigError;
use crate::identity::Identity;
use crate::layer::Tls;
use crate::negotiated::Version;
use crate::provider;
use crate::roots::Roots;

/// Makes the sessions of a client. It is cheap to clone, and its clones share the sessions to resume.
#[derive(Clone)]
pub struct Connector(Arc<ClientConfig>);

impl Connector {
    /// Begins the settings of a client that trusts these roots.
    pub fn builder(roots: Roots) -> ConnectorBuilder {
        ConnectorBuilder {
            roots: roots.into_store(),
            identity: None,
            alpn: Vec::new(),
            resumption: SESSIONS,
            least: Version::Tls12,
            provider: None,
            time: None,
        }
    }

    /// Makes the layer of a connection to the server of this name: a DNS name or an IP address, without a
    /// port. The layer sends a DNS name to the server (SNI) and accepts only a certificate for the name.
    ///
    /// # Errors
    /// [`ConfigError::Name`] if it is neither.
    pub fn to(&self, name: &str) -> Result<Tls, ConfigError> {
        let server = ServerName::try_from(name).map_err(|_| ConfigError::Name(name.to_owned()))?;
        Ok(Tls::client(Arc::clone(&self.0), server.to_owned()))
    }
}

/// Uses settings that were made with rustls itself.
impl From<Arc<ClientConfig>> for Connector {
    fn from(config: Arc<ClientConfig>) -> Connector {
        Connector(config)
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

/// The settings of a client. [`Connector::builder`] begins them.
pub struct ConnectorBuilder {
    roots: RootCertStore,
    identity: Option<Identity>,
    alpn: Vec<Vec<u8>>,
    resumption: usize,
    least: Version,
    provider: Option<Arc<CryptoProvider>>,
    time: Option<Arc<dyn TimeProvider>>,
}

impl ConnectorBuilder {
    /// Shows this certificate to servers that ask for one.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Offers these application protocols (ALPN), the preferred one first. A server that has none of them
    /// refuses the session.
    #[must_use]
    pub fn alpn<P: Into<Vec<u8>>>(mut self, protocols: impl IntoIterator<Item = P>) -> Self {
        self.alpn = protocols.into_iter().map(Into::into).collect();
        self
    }

    /// Remembers the sessions of at most so many servers, to resume them. The default is 256, and 0 turns
    /// resumption off.
    #[must_use]
    pub fn resumption(mut self, servers: usize) -> Self {
        self.resumption = servers;
        self
    }

    /// Accepts no version below this one. The default is [`Version::Tls12`].
    #[must_use]
    pub fn least(mut self, version: Version) -> Self {
        self.least = version;
        self
    }

    /// Takes the cryptography of this provider, instead of the one of the features.
    #[must_use]
    pub fn provider(mut self, provider: Arc<CryptoProvider>) -> Self {
        self.provider = Some(provider);
        self
    }

    /// Takes the time from here, to check the validity of certificates. The default is the system's time.
    #[must_use]
    pub fn time(mut self, time: Arc<dyn TimeProvider>) -> Self {
        self.time = Some(time);
        self
    }

    /// Builds the connector.
    ///
    /// # Errors
    /// [`ConfigError::NoProvider`], or [`ConfigError::Refused`] if the identity cannot be used.
    pub fn build(self) -> Result<Connector, ConfigError> {
        let provider = provider::or_default(self.provider)?;
        let time = self.time.unwrap_or_else(|| Arc::new(DefaultTimeProvider));
        let builder = ClientConfig::builder_with_details(provider, time)
            .with_protocol_versions(versions(self.least))
            .map_err(ConfigError::Refused)?
            .with_root_certificates(self.roots);
        let mut config = match self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let (chain, key) = identity.into_parts();
                builder.with_client_auth_cert(chain, key).map_err(ConfigError::Refused)?
            }
        };
        config.alpn_protocols = self.alpn;
        config.resumption = match self.resumption {
            0 => ClientResumption::disabled(),
            servers => ClientResumption::in_memory_sessions(servers),
        };
        Ok(Connector(Arc::new(config)))
    }
}

impl fmt::Debug for ConnectorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectorBuilder")
            .field("roots", &self.roots.len())
            .field("identity", &self.identity)
            .field("alpn", &self.alpn)
            .field("resumption", &self.resumption)
            .field("least", &self.least)
            .finish_non_exhaustive()
    }
}

/// Returns the versions from this one on.
pub(crate) fn versions(least: Version) -> &'static [&'static SupportedProtocolVersion] {
    match least {
        Version::Tls12 => rustls::ALL_VERSIONS,
        Version::Tls13 => ONLY_TLS13,
    }
}

static ONLY_TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// How many servers' sessions a client remembers by default.
const SESSIONS: usize = 256;
