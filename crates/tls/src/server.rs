//! The settings of a server, and the certificates that it shows.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, RwLock};

use rustls::crypto::CryptoProvider;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerSessionMemoryCache, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{RootCertStore, ServerConfig};

use crate::client::versions;
use crate::error::ConfigError;
use crate::identity::Identity;
use crate::layer::Tls;
use crate::negotiated::Version;
use crate::provider;
use crate::roots::Roots;

/// Makes the sessions of a server. It is cheap to clone, and its clones share the certificates.
#[derive(Clone)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    /// Absent if the settings were made with rustls itself.
    certificates: Option<Arc<Certificates>>,
}

impl Acceptor {
    /// Begins the settings of a server that shows this certificate.
    pub fn builder(identity: Identity) -> AcceptorBuilder {
        AcceptorBuilder {
            identities: Identities { default: identity, names: Vec::new() },
            client_auth: ClientAuth::None,
            alpn: Vec::new(),
            resumption: Resumption::Memory(SESSIONS),
            least: Version::Tls12,
            provider: None,
            time: None,
        }
    }

    /// Makes the layer of an accepted connection.
    pub fn accept(&self) -> Tls {
        Tls::server(Arc::clone(&self.config))
    }

    /// Replaces all certificates: the default one, and those by name. Handshakes that begin later use the new
    /// ones. Open sessions go on, and a client may still resume a session that it began with an old one.
    ///
    /// # Errors
    /// [`ConfigError::Refused`] if an identity cannot be used, or if the settings were made with rustls
    /// itself. The old certificates then stay.
    pub fn replace(
        &self,
        identity: Identity,
        names: impl IntoIterator<Item = (String, Identity)>,
    ) -> Result<(), ConfigError> {
        let Some(certificates) = &self.certificates else {
            let text = "the certificates belong to a configuration of rustls";
            return Err(ConfigError::Refused(rustls::Error::General(text.to_owned())));
        };
        let identities = Identities { default: identity, names: names.into_iter().collect() };
        let shown = identities.certified(self.config.crypto_provider())?;
        *certificates.0.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = shown;
        Ok(())
    }
}

/// Uses settings that were made with rustls itself.
impl From<Arc<ServerConfig>> for Acceptor {
    fn from(config: Arc<ServerConfig>) -> Acceptor {
        Acceptor { config, certificates: None }
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("certificates", &self.certificates).finish_non_exhaustive()
    }
}

/// Whether a server asks its clients for certificates.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ClientAuth {
    /// It does not ask.
    None,
    /// It asks, and accepts clients that have none. A certificate that is shown must be of these roots.
    Optional(Roots),
    /// It accepts only clients with a certificate of these roots.
    Required(Roots),
}

/// How a server lets clients resume sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resumption {
    /// Not at all.
    Off,
    /// It remembers the last so many sessions.
    Memory(usize),
    /// Clients keep the sessions, in tickets that only this server can read. It changes the tickets' key every
    /// six hours.
    Tickets,
}

/// The settings of a server. [`Acceptor::builder`] begins them.
pub struct AcceptorBuilder {
    identities: Identities,
    client_auth: ClientAuth,
    alpn: Vec<Vec<u8>>,
    resumption: Resumption,
    least: Version,
    provider: Option<Arc<CryptoProvider>>,
    time: Option<Arc<dyn TimeProvider>>,
}

impl AcceptorBuilder {
    /// Shows another certificate to clients that ask for this name (SNI). `*.example.org` stands for all names
    /// with one more label. The exact name goes first, then such a pattern, then the default.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>, identity: Identity) -> Self {
        self.identities.names.push((name.into(), identity));
        self
    }

    /// Says whether clients show certificates. The default is [`ClientAuth::None`].
    #[must_use]
    pub fn client_auth(mut self, client_auth: ClientAuth) -> Self {
        self.client_auth = client_auth;
        self
    }

    /// Speaks these application protocols (ALPN), the preferred one first. A client that offers only others is
    /// refused; one that offers none is accepted.
    #[must_use]
    pub fn alpn<P: Into<Vec<u8>>>(mut self, protocols: impl IntoIterator<Item = P>) -> Self {
        self.alpn = protocols.into_iter().map(Into::into).collect();
        self
    }

    /// Sets how clients may resume sessions. The default is [`Resumption::Memory`] of 256.
    #[must_use]
    pub fn resumption(mut self, resumption: Resumption) -> Self {
        self.resumption = resumption;
        self
    }

    /// Accepts no version below this one. The default is [`Version::Tls12`].
    #[must_use]
    pub fn least(mut self, version: Version) -> Self {
        self.least = version;
        self
    }

    /// Takes the cryptography of this provider, instead of the one of the features. Tickets
    /// ([`Resumption::Tickets`]) always use the features' one.
    #[must_use]
    pub fn provider(mut self, provider: Arc<CryptoProvider>) -> Self {
        self.provider = Some(provider);
        self
    }

    /// Takes the time from here, to check the validity of certificates and tickets. The default is the
    /// system's time.
    #[must_use]
    pub fn time(mut self, time: Arc<dyn TimeProvider>) -> Self {
        self.time = Some(time);
        self
    }

    /// Builds the acceptor.
    ///
    /// # Errors
    /// [`ConfigError::NoProvider`], or [`ConfigError::Refused`] if an identity or the clients' roots cannot be
    /// used.
    pub fn build(self) -> Result<Acceptor, ConfigError> {
        let provider = provider::or_default(self.provider)?;
        let shown = self.identities.certified(&provider)?;
        let certificates = Arc::new(Certificates(RwLock::new(shown)));
        let time = self.time.unwrap_or_else(|| Arc::new(DefaultTimeProvider));
        let builder = ServerConfig::builder_with_details(Arc::clone(&provider), time)
            .with_protocol_versions(versions(self.least))
            .map_err(ConfigError::Refused)?;
        let (roots, required) = match self.client_auth {
            ClientAuth::None => (None, false),
            ClientAuth::Optional(roots) => (Some(roots.into_store()), false),
            ClientAuth::Required(roots) => (Some(roots.into_store()), true),
        };
        let builder = match roots {
            None => builder.with_no_client_auth(),
            Some(roots) => builder.with_client_cert_verifier(verifier(roots, required, provider)?),
        };
        let mut config = builder.with_cert_resolver(Arc::clone(&certificates) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = self.alpn;
        match self.resumption {
            Resumption::Off | Resumption::Memory(0) => {
                config.session_storage = Arc::new(NoServerSessionStorage {});
                config.send_tls13_tickets = 0;
            }
            Resumption::Memory(sessions) => config.session_storage = ServerSessionMemoryCache::new(sessions),
            Resumption::Tickets => config.ticketer = provider::tickets()?,
        }
        Ok(Acceptor { config: Arc::new(config), certificates: Some(certificates) })
    }
}

fn verifier(
    roots: RootCertStore,
    required: bool,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, ConfigError> {
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|error| ConfigError::Refused(rustls::Error::General(error.to_string())))
}

impl fmt::Debug for AcceptorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcceptorBuilder")
            .field("names", &self.identities.names.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .field("client_auth", &self.client_auth)
            .field("alpn", &self.alpn)
            .field("resumption", &self.resumption)
            .field("least", &self.least)
            .finish_non_exhaustive()
    }
}

/// Identities that were not checked yet.
struct Identities {
    default: Identity,
    names: Vec<(String, Identity)>,
}

impl Identities {
    fn certified(self, provider: &CryptoProvider) -> Result<Shown, ConfigError> {
        let default = self.default.certified(provider)?;
        let names: Result<HashMap<_, _>, ConfigError> = self
            .names
            .into_iter()
            .map(|(name, identity)| Ok((name.to_ascii_lowercase(), identity.certified(provider)?)))
            .collect();
        Ok(Shown { default, names: names? })
    }
}

/// The certificates of a server.
#[derive(Debug)]
struct Shown {
    default: Arc<CertifiedKey>,
    names: HashMap<String, Arc<CertifiedKey>>,
}

impl Shown {
    fn of(&self, name: Option<&str>) -> &Arc<CertifiedKey> {
        let Some(name) = name.map(str::to_ascii_lowercase) else { return &self.default };
        let pattern = || self.names.get(&format!("*{}", &name[name.find('.')?..]));
        self.names.get(&name).or_else(pattern).unwrap_or(&self.default)
    }
}

/// Chooses among the certificates of now.
struct Certificates(RwLock<Shown>);

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let shown = self.0.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        Some(Arc::clone(shown.of(hello.server_name())))
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        f.debug_struct("Certificates")
            .field("names", &shown.names.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// How many sessions a server remembers by default.
const SESSIONS: usize = 256;
