//! TLS as a layer for io-reactor, on rustls: TLS 1.2 and 1.3, for clients and servers.
//!
//! A [`Connector`] holds the settings of a client, an [`Acceptor`] those of a server. Both make [`Tls`], a
//! [`Layer`](session::Layer) that a stream or any other driver of layers takes. The crate does no I/O of its
//! own, except where a function reads a file by its name or the system's root certificates.
//!
//! ```no_run
//! use reactor_tls::{Acceptor, Connector, Identity, Roots};
//!
//! // A client that trusts the system's roots. `example.org` is checked, and sent to the server (SNI).
//! let connector = Connector::builder(Roots::system()?).alpn(["http/1.1"]).build()?;
//! let client = connector.to("example.org")?;
//!
//! // A server with one certificate.
//! let acceptor = Acceptor::builder(Identity::from_files("cert.pem", "key.pem")?).build()?;
//! let server = acceptor.accept();
//! # Ok::<(), reactor_tls::ConfigError>(())
//! ```
//!
//! # What an open stream means
//! When the stream opens, [`Tls::negotiated`] says what both sides agreed on. A client's stream opens when
//! the client has checked the server. With TLS 1.3, the server may still refuse the client's certificate
//! after that: the stream then fails with [`TlsError::Alert`], possibly after the client has sent its first
//! bytes.
//!
//! # When the peer is rejected
//! The stream ends with `Closed::Refused`, and `downcast_ref::<TlsError>()` of its failure says why. Another
//! attempt ends in the same way, so do not retry at once.
//!
//! # Certificates for a test
//! rustls does not accept the certificate of an authority (CA) as the one of a server
//! (`CaUsedAsEndEntity`), and `openssl req -x509` alone makes one of an authority. These commands make both:
//!
//! ```console
//! $ openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=test-ca \
//!       -keyout ca.key -out ca.pem
//! $ openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost \
//!       -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout key.pem -out request.pem
//! $ openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -copy_extensions copy -out cert.pem
//! ```
//!
//! A client of that server trusts it with `Roots::from_file("ca.pem")`.
//!
//! # Ends
//! A TLS session ends with a message, `close_notify`. If the transport ends without it, somebody may have cut
//! the connection, and the stream fails with [`Truncated`](session::Truncated). It then sends no `close_notify`
//! of its own, unless the service had ended the output, because that would vouch for a part of the answer.
//!
//! # Randomness and time
//! The cryptographic library makes its own keys, and rustls offers no way to draw them from elsewhere. So two
//! runs never have the same bytes on the wire, not even in a simulator: compare clear bytes there. Time (for
//! the validity of certificates) comes from the system, unless the builder's `time` gives another source.
//!
//! # Not here
//! Early data (0-RTT) is off, because an attacker can replay it. Neither certificates by OCSP nor encrypted
//! client hello is set up here; for these and anything else, make rustls' own configuration, and turn it into
//! a [`Connector`] or an [`Acceptor`] with `from`.
//!
//! # Features
//! `ring` (the default) or `aws-lc-rs` provide the cryptography; with both, `aws-lc-rs` is taken. A builder's
//! `provider` takes any other.
#![forbid(unsafe_code)]

mod client;
mod error;
mod identity;
mod layer;
mod negotiated;
mod provider;
mod roots;
mod server;

pub use client::{Connector, ConnectorBuilder};
pub use error::{ConfigError, TlsError};
pub use identity::Identity;
pub use layer::Tls;
pub use negotiated::{Negotiated, Version};
pub use roots::Roots;
pub use rustls;
pub use server::{Acceptor, AcceptorBuilder, ClientAuth, Resumption};
