//! The data path. Each message follows its length in two bytes, and one call opens one message.

use std::fmt;

use session::{Io, Layer, Next, Outgoing, Result, Step, Truncated};
use snow::resolvers::{BoxedCryptoResolver, DefaultResolver, FallbackResolver, RingResolver};
use snow::{HandshakeState, TransportState};

use crate::ephemeral::Fixed;
use crate::error::NoiseError;
use crate::keys::key;
use crate::options::NoiseOptions;

/// A Noise session of one connection, as a layer. [`NoiseOptions`] make it.
///
/// It ends with [`NoiseError`], or with [`Truncated`] if the transport ends without the peer's marker.
pub struct Noise {
    state: State,
    marked: bool,
    rekey: Option<Rekey>,
    /// The peer ended its side.
    ended: bool,
    /// The static key that the peer must have.
    wanted: Option<[u8; 32]>,
    remote: Option<[u8; 32]>,
    hash: Option<Vec<u8>>,
}

enum State {
    Handshake(Box<HandshakeState>),
    Transport(Box<TransportState>),
    /// A call failed between the two.
    Broken,
}

/// Counts down to the next key of each direction.
#[derive(Clone, Copy)]
struct Rekey {
    every: u64,
    out: u64,
    incoming: u64,
}

impl Noise {
    pub(crate) fn new(
        options: &NoiseOptions,
        initiator: bool,
        ephemeral: Option<[u8; 32]>,
    ) -> Result<Noise, NoiseError> {
        options.check(initiator)?;
        let state = build(options, initiator, ephemeral)?;
        Ok(Noise {
            state: State::Handshake(Box::new(state)),
            marked: options.marked,
            rekey: options.rekey.map(|every| Rekey { every, out: every, incoming: every }),
            ended: false,
            wanted: options.remote,
            remote: None,
            hash: None,
        })
    }

    /// Returns the peer's static key, or `None` before the stream is open, or if the pattern has none.
    pub fn remote_static(&self) -> Option<&[u8; 32]> {
        self.remote.as_ref()
    }

    /// Returns the hash of the whole handshake, or `None` before the stream is open. It is the same at both
    /// ends and differs for each session, so an application can bind its own messages to the session.
    pub fn handshake_hash(&self) -> Option<&[u8]> {
        self.hash.as_deref()
    }

    /// Replaces the key for output now. The peer must call [`rekey_incoming`](Noise::rekey_incoming) at the
    /// same place, which the application's protocol has to mark.
    ///
    /// # Errors
    /// [`NoiseError::Early`] before the handshake is over.
    pub fn rekey_outgoing(&mut self) -> Result<(), NoiseError> {
        self.transport().map(TransportState::rekey_outgoing)
    }

    /// Replaces the key for input now.
    ///
    /// # Errors
    /// [`NoiseError::Early`] before the handshake is over.
    pub fn rekey_incoming(&mut self) -> Result<(), NoiseError> {
        self.transport().map(TransportState::rekey_incoming)
    }

    fn transport(&mut self) -> Result<&mut TransportState, NoiseError> {
        match &mut self.state {
            State::Transport(transport) => Ok(transport),
            _ => Err(NoiseError::Early),
        }
    }

    /// Writes handshake messages while it is our turn, and then changes over if the handshake is over.
    fn advance(&mut self, io: &mut Io<'_>) -> Result<(), NoiseError> {
        let State::Handshake(handshake) = &mut self.state else { return Ok(()) };
        // Check first: a peer with another key must not get our own key, nor anything else.
        let remote = handshake.get_remote_static().map(key).transpose()?;
        if let (Some(wanted), Some(key)) = (self.wanted, remote)
            && key != wanted
        {
            return Err(NoiseError::WrongKey { key });
        }
        while handshake.is_my_turn() && !handshake.is_handshake_finished() {
            put_message(io.down, HANDSHAKE_MAX, |room| handshake.write_message(&[], room))
                .map_err(NoiseError::Handshake)?;
        }
        if handshake.is_handshake_finished() {
            self.remote = remote;
            // The change drops it.
            self.hash = Some(handshake.get_handshake_hash().to_vec());
            let State::Handshake(handshake) = std::mem::replace(&mut self.state, State::Broken) else {
                return Err(NoiseError::Early);
            };
            let transport = handshake.into_transport_mode().map_err(NoiseError::Handshake)?;
            self.state = State::Transport(Box::new(transport));
        }
        Ok(())
    }

    /// Reads one message of the handshake, and answers it.
    fn shake(&mut self, message: &[u8], io: &mut Io<'_>) -> Result<(), NoiseError> {
        let State::Handshake(handshake) = &mut self.state else { return Err(NoiseError::Early) };
        let mut payload = [0; HANDSHAKE_MAX];
        let len = handshake.read_message(message, &mut payload).map_err(NoiseError::Handshake)?;
        if len > 0 {
            return Err(NoiseError::Payload { len });
        }
        self.advance(io)
    }

    /// Opens one message of the session. Returns whether it was the peer's end.
    fn decrypt(&mut self, message: &[u8], io: &mut Io<'_>) -> Result<bool, NoiseError> {
        if message.len() < TAG {
            return Err(NoiseError::TooShort { len: message.len() });
        }
        let transport = self.transport()?;
        // With less room than the message has, the library allocates.
        let opened = session::layer::grow(io.up, message.len(), |room| transport.read_message(message, room))
            .map_err(|_| NoiseError::Forged)?;
        if let Some(rekey) = &mut self.rekey {
            rekey.incoming -= 1;
            if rekey.incoming == 0 {
                rekey.incoming = rekey.every;
                self.transport()?.rekey_incoming();
            }
        }
        Ok(opened == 0 && self.marked)
    }

    fn encrypt(&mut self, clear: &[u8], down: &mut Outgoing) -> Result<(), NoiseError> {
        let transport = self.transport()?;
        put_message(down, clear.len() + TAG, |room| transport.write_message(clear, room))
            .map_err(NoiseError::State)?;
        if let Some(rekey) = &mut self.rekey {
            rekey.out -= 1;
            if rekey.out == 0 {
                rekey.out = rekey.every;
                self.transport()?.rekey_outgoing();
            }
        }
        Ok(())
    }
}

impl Layer for Noise {
    const INPUT_MAX: usize = LENGTH + MESSAGE_MAX;

    fn start(&mut self, io: &mut Io<'_>) -> Result {
        Ok(self.advance(io)?)
    }

    fn ready(&self) -> bool {
        matches!(self.state, State::Transport(_))
    }

    fn open(&mut self, input: &mut [u8], io: &mut Io<'_>) -> Result<Step> {
        let Some(&[high, low]) = input.first_chunk() else { return Ok(Step { used: 0, next: Next::Wait }) };
        let len = usize::from(u16::from_be_bytes([high, low]));
        if !self.ready() && len > HANDSHAKE_MAX {
            return Err(NoiseError::HandshakeTooLong { limit: HANDSHAKE_MAX, len }.into());
        }
        let used = LENGTH + len;
        let Some(message) = input.get(LENGTH..used) else { return Ok(Step { used: 0, next: Next::Wait }) };
        if self.ready() {
            self.ended = self.decrypt(message, io)?;
        } else {
            self.shake(message, io)?;
        }
        let next = match used < input.len() {
            _ if self.ended => Next::End,
            true => Next::Again,
            false => Next::Wait,
        };
        Ok(Step { used, next })
    }

    fn seal(&mut self, clear: &[u8], io: &mut Io<'_>) -> Result<usize> {
        let taken = clear.len().min(MESSAGE_MAX - TAG);
        self.encrypt(&clear[..taken], io.down)?;
        Ok(taken)
    }

    fn finish(&mut self, io: &mut Io<'_>) -> Result {
        if self.marked && self.ready() {
            self.encrypt(&[], io.down)?;
        }
        Ok(())
    }

    fn end(&mut self, left: &[u8]) -> Result {
        // Without the marker, an end between two messages is all there is.
        if !self.marked && left.is_empty() { Ok(()) } else { Err(Truncated.into()) }
    }
}

/// Appends a message and its length in front of it. Appends nothing on an error.
fn put_message(
    down: &mut Outgoing,
    room: usize,
    write: impl FnOnce(&mut [u8]) -> Result<usize, snow::Error>,
) -> Result<(), snow::Error> {
    down.grow(LENGTH + room, |bytes| {
        let (length, message) = bytes.split_at_mut(LENGTH);
        let written = write(message)?;
        let announced = u16::try_from(written).map_err(|_| snow::Error::Input)?;
        length.copy_from_slice(&announced.to_be_bytes());
        Ok::<_, snow::Error>(LENGTH + written)
    })?;
    Ok(())
}

/// Makes the state of a handshake.
fn build(
    options: &NoiseOptions,
    initiator: bool,
    ephemeral: Option<[u8; 32]>,
) -> Result<HandshakeState, NoiseError> {
    let resolver: BoxedCryptoResolver =
        Box::new(FallbackResolver::new(Box::new(RingResolver), Box::new(DefaultResolver)));
    let resolver = match ephemeral {
        None => resolver,
        Some(bytes) => Box::new(Fixed::new(bytes, resolver)),
    };
    let make = || {
        let mut builder = snow::Builder::with_resolver(options.params.clone(), resolver);
        builder = builder.prologue(&options.prologue)?;
        if let Some(private) = &options.private {
            builder = builder.local_private_key(private)?;
        }
        // Where the peer shows its key, the session compares it.
        if let Some(remote) = &options.remote
            && options.known_before(initiator)
        {
            builder = builder.remote_public_key(remote)?;
        }
        for (place, secret) in &options.psks {
            builder = builder.psk(*place, secret)?;
        }
        if initiator { builder.build_initiator() } else { builder.build_responder() }
    };
    make().map_err(NoiseError::Settings)
}

/// Shows the state, and neither keys nor data.
impl fmt::Debug for Noise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Handshake(_) => "handshake",
            State::Transport(_) => "open",
            State::Broken => "broken",
        };
        f.debug_struct("Noise").field("state", &state).field("ended", &self.ended).finish_non_exhaustive()
    }
}

/// The length in front of a message.
const LENGTH: usize = 2;
/// The tag that authenticates a message.
const TAG: usize = 16;
/// The longest message (section 3 of the specification).
const MESSAGE_MAX: usize = 65_535;
/// The longest handshake message without a payload is shorter: two keys and two tags.
const HANDSHAKE_MAX: usize = 256;
