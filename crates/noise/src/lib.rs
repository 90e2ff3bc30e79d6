//! Noise as a layer for io-reactor, on snow: encrypted sessions between peers that know each other by their
//! keys (the Noise Protocol Framework, revision 34).
//!
//! [`NoiseOptions`] hold the pattern, the keys and the prologue of one side, and make [`Noise`], a
//! [`Layer`](session::Layer) that a stream or any other driver of layers takes. The crate does no I/O.
//!
//! ```
//! use reactor_noise::{Keypair, NoiseOptions, XK};
//!
//! let server_keys = Keypair::generate()?;
//! let server = NoiseOptions::new(XK)?.keypair(&server_keys).responder()?;
//!
//! // With XK, a client knows the server's public key, and shows its own under encryption.
//! let client_keys = Keypair::generate()?;
//! let client =
//!     NoiseOptions::new(XK)?.keypair(&client_keys).remote(server_keys.public()).initiator()?;
//! # Ok::<(), reactor_noise::NoiseError>(())
//! ```
//!
//! # Settings that a pattern does not use
//! A shared secret, a static key or the peer's key that the pattern has no use for would protect nothing, so
//! no session is made with it ([`NoiseError::Unused`]). One that the pattern needs must be there
//! ([`NoiseError::Missing`]). One-way patterns (N, K and X) are refused, because their responder cannot send the
//! marker that ends its side ([`NoiseError::OneWay`]).
//!
//! # On the wire
//! Each message, in the handshake and after it, follows its length in two bytes, the high one first. A message
//! is at most 65,535 bytes long, 16 of which authenticate it. Our handshake messages carry no payload, and the
//! peer's may carry none.
//!
//! Noise itself does not mark the end of a session, so an attacker could cut the connection between two
//! messages. Here an empty message is the authentic end of a side, and a transport that ends without it fails
//! with [`Truncated`](session::Truncated). Turn the marker off for peers that do not know it
//! ([`NoiseOptions::unmarked`]).
//!
//! The protocol called Noise in `cyphernet` and `netservices` is not this one: its handshake messages lack
//! their authentication tags, and after the handshake its bytes are neither encrypted nor authenticated.
//! There is no layer for it here.
//!
//! # What an open stream means
//! When the stream opens, this side has finished the handshake. [`Noise::remote_static`] returns the peer's
//! key, and [`Noise::handshake_hash`] identifies the session. Whether the key belongs to somebody whom the
//! service trusts is the service's decision, unless [`NoiseOptions::remote`] requires a certain key: then a peer
//! with another key never gets this far. If our message is the last one of the handshake, the peer has not
//! yet judged our key: it may still end the session.
//!
//! # Randomness
//! Ephemeral keys come from the system, unless [`NoiseOptions::initiator_with`] and
//! [`NoiseOptions::responder_with`] give other secret bytes. A test in a simulated world must use these, with
//! bytes of the world's own chance, or its runs do not repeat. A service takes the choice from its builder:
//!
//! ```
//! use reactor_noise::{Keypair, Noise, NoiseError, NoiseOptions, NN};
//!
//! /// Makes an ephemeral key: `None` for the system's randomness.
//! type Ephemeral = fn(random: &mut dyn FnMut() -> u64) -> Option<[u8; 32]>;
//!
//! fn system(_: &mut dyn FnMut() -> u64) -> Option<[u8; 32]> {
//!     None
//! }
//!
//! /// For tests only: these bytes are not secret.
//! fn of_the_world(random: &mut dyn FnMut() -> u64) -> Option<[u8; 32]> {
//!     let mut bytes = [0; 32];
//!     bytes.chunks_mut(8).for_each(|eight| eight.copy_from_slice(&random().to_ne_bytes()));
//!     Some(bytes)
//! }
//!
//! /// In a service, `random` is `|| cx.random()`.
//! fn dial(
//!     options: &NoiseOptions,
//!     ephemeral: Ephemeral,
//!     random: &mut dyn FnMut() -> u64,
//! ) -> Result<Noise, NoiseError> {
//!     match ephemeral(random) {
//!         None => options.initiator(),
//!         Some(bytes) => options.initiator_with(bytes),
//!     }
//! }
//!
//! let options = NoiseOptions::new(NN)?;
//! dial(&options, system, &mut || 7)?;
//! dial(&options, of_the_world, &mut || 7)?;
//! # Ok::<(), NoiseError>(())
//! ```
#![forbid(unsafe_code)]

mod ephemeral;
mod error;
mod keys;
mod layer;
mod options;

pub use error::{NoiseError, Setting};
pub use keys::Keypair;
pub use layer::Noise;
pub use options::{IK, NN, NoiseOptions, XK, XX};
