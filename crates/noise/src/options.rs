//! The settings of one side.

use std::fmt;

use snow::params::{HandshakeModifier, NoiseParams};

use crate::error::{NoiseError, Setting};
use crate::keys::{Keypair, params};
use crate::layer::Noise;

/// The initiator knows the responder's key, and shows its own under encryption.
pub const XK: &str = "Noise_XK_25519_ChaChaPoly_BLAKE2s";
/// Both sides show their keys under encryption, and neither knows the other's before.
pub const XX: &str = "Noise_XX_25519_ChaChaPoly_BLAKE2s";
/// The initiator knows the responder's key, and shows its own in the first message: one round trip.
pub const IK: &str = "Noise_IK_25519_ChaChaPoly_BLAKE2s";
/// No side has a key: encrypted, but anybody can be in the middle, unless a shared secret is added
/// ("NNpsk0").
pub const NN: &str = "Noise_NN_25519_ChaChaPoly_BLAKE2s";

/// The settings of one side, for any number of sessions.
#[derive(Clone)]
pub struct NoiseOptions {
    pub(crate) params: NoiseParams,
    pub(crate) prologue: Vec<u8>,
    pub(crate) private: Option<[u8; 32]>,
    pub(crate) remote: Option<[u8; 32]>,
    pub(crate) psks: Vec<(u8, [u8; 32])>,
    pub(crate) marked: bool,
    pub(crate) rekey: Option<u64>,
}

impl NoiseOptions {
    /// Begins the settings of the protocol with this name, for example [`XK`] or
    /// `"Noise_NNpsk0_25519_AESGCM_SHA256"`. The curve is always 25519.
    ///
    /// # Errors
    /// [`NoiseError::Settings`] if there is no such protocol. [`NoiseError::OneWay`] for the patterns N, K and X,
    /// with or without shared secrets: only one side can send, so neither end of a session could be clean.
    pub fn new(protocol: &str) -> Result<NoiseOptions, NoiseError> {
        let params = params(protocol)?;
        if params.dh != snow::params::DHChoice::Curve25519 {
            return Err(NoiseError::Settings(snow::Error::Dh));
        }
        if params.handshake.pattern.is_oneway() {
            return Err(NoiseError::OneWay);
        }
        Ok(NoiseOptions {
            params,
            prologue: Vec::new(),
            private: None,
            remote: None,
            psks: Vec::new(),
            marked: true,
            rekey: None,
        })
    }

    /// Sets bytes that both sides must have in common, for example the name and the version of the
    /// application. The handshake fails if the peer's differ. There are none by default.
    #[must_use]
    pub fn prologue(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.prologue = bytes.into();
        self
    }

    /// Sets this side's static key, for patterns in which this side has one.
    #[must_use]
    pub fn keypair(mut self, keypair: &Keypair) -> Self {
        self.private = Some(*keypair.private());
        self
    }

    /// Requires the peer to have this static key.
    ///
    /// Patterns in which this side knows the key before use it. In others the peer shows its key (XX on both
    /// sides, XK and IK for the responder). There the handshake fails with [`NoiseError::WrongKey`] if it is
    /// another, before this side sends anything more. Without this setting, these accept any key, and the service
    /// decides by [`Noise::remote_static`]. In patterns in which the peer has no static key, no session is made.
    #[must_use]
    pub fn remote(mut self, public: &[u8; 32]) -> Self {
        self.remote = Some(*public);
        self
    }

    /// Sets a secret that both sides share, at this place of the pattern (0 for `psk0`). The pattern's name must
    /// have that place. The secret should be as good as 32 random bytes, because the handshake does not protect
    /// a weak one.
    #[must_use]
    pub fn psk(mut self, place: u8, secret: &[u8; 32]) -> Self {
        self.psks.push((place, *secret));
        self
    }

    /// Neither sends nor expects the empty message that marks the authentic end. For peers that do not know
    /// it. A connection that somebody cuts between two messages then looks complete.
    #[must_use]
    pub fn unmarked(mut self) -> Self {
        self.marked = false;
        self
    }

    /// Replaces the key of a direction after every so many messages in it (section 4.2 of the specification).
    /// Both sides must use the same number. 0 counts as 1. By default keys stay.
    #[must_use]
    pub fn rekey_every(mut self, messages: u64) -> Self {
        self.rekey = Some(messages.max(1));
        self
    }

    /// Makes the layer of the side that speaks first.
    ///
    /// # Errors
    /// [`NoiseError::Missing`] if a key or a secret is missing that the pattern needs on this side,
    /// [`NoiseError::Unused`] if one is set that it does not use, and [`NoiseError::Settings`] if snow refuses the
    /// settings, for example two secrets at one place.
    pub fn initiator(&self) -> Result<Noise, NoiseError> {
        Noise::new(self, true, None)
    }

    /// Makes the layer of the side that answers.
    ///
    /// # Errors
    /// As [`initiator`](NoiseOptions::initiator).
    pub fn responder(&self) -> Result<Noise, NoiseError> {
        Noise::new(self, false, None)
    }

    /// Makes the layer of the side that speaks first, with an ephemeral key made from these bytes.
    ///
    /// They must be secret, as good as random, and used for one session only: whoever knows them can read the
    /// session.
    ///
    /// # Errors
    /// As [`initiator`](NoiseOptions::initiator).
    pub fn initiator_with(&self, ephemeral: [u8; 32]) -> Result<Noise, NoiseError> {
        Noise::new(self, true, Some(ephemeral))
    }

    /// Makes the layer of the side that answers, with an ephemeral key made from these bytes, as
    /// [`initiator_with`](NoiseOptions::initiator_with) does.
    ///
    /// # Errors
    /// As [`initiator`](NoiseOptions::initiator).
    pub fn responder_with(&self, ephemeral: [u8; 32]) -> Result<Noise, NoiseError> {
        Noise::new(self, false, Some(ephemeral))
    }

    /// Checks that the pattern uses on this side what is set, and that nothing is missing.
    pub(crate) fn check(&self, initiator: bool) -> Result<(), NoiseError> {
        let (pattern, modifiers) = (self.params.handshake.pattern, &self.params.handshake.modifiers.list);
        let used = |place| modifiers.contains(&HandshakeModifier::Psk(place));
        if let Some((place, _)) = self.psks.iter().find(|(place, _)| !used(*place)) {
            return Err(NoiseError::Unused(Setting::Psk(*place)));
        }
        for modifier in modifiers {
            if let HandshakeModifier::Psk(place) = *modifier
                && !self.psks.iter().any(|(given, _)| *given == place)
            {
                return Err(NoiseError::Missing(Setting::Psk(place)));
            }
        }
        match (self.private.is_some(), pattern.needs_local_static_key(initiator)) {
            (true, false) => return Err(NoiseError::Unused(Setting::Keypair)),
            (false, true) => return Err(NoiseError::Missing(Setting::Keypair)),
            _ => (),
        }
        let peer_has_one = pattern.needs_local_static_key(!initiator);
        match self.remote {
            Some(_) if !peer_has_one => Err(NoiseError::Unused(Setting::Remote)),
            None if self.known_before(initiator) => Err(NoiseError::Missing(Setting::Remote)),
            _ => Ok(()),
        }
    }

    /// Returns whether this side knows the peer's static key before the handshake.
    pub(crate) fn known_before(&self, initiator: bool) -> bool {
        self.params.handshake.pattern.need_known_remote_pubkey(initiator)
    }
}

/// Shows no key and no secret.
impl fmt::Debug for NoiseOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NoiseOptions")
            .field("protocol", &self.params.name)
            .field("marked", &self.marked)
            .field("rekey_every", &self.rekey)
            .finish_non_exhaustive()
    }
}
