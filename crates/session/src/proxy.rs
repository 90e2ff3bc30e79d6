//! Proxies: layers that talk to a proxy before the connection's own bytes begin. Sans-IO, like every layer.
//!
//! | layer | who uses it | source |
//! |---|---|---|
//! | [`Socks5`] | a client, to a SOCKS5 proxy (Tor, I2P, `ssh -D`) | RFC 1928, RFC 1929 |
//! | [`HttpConnect`] | a client, to an HTTP proxy | RFC 9110, section 9.3.6 |
//! | [`SendHeader`] | a proxy, to its backend | PROXY protocol, versions 1 and 2 |
//! | [`ReceiveHeader`] | a backend, on connections from a proxy | the same |
//!
//! All of them are transparent: once the proxy has answered, bytes pass unchanged and the layer costs
//! nothing. So each one composes with the next layer as a tuple, for example `(Socks5, Noise)`. Bytes that
//! arrive in the same segment as the proxy's answer are delivered.
//!
//! The client asks a proxy for a [`Destination`]. If that is a name, the client sends it to the proxy
//! unchanged, and the proxy resolves it. So no resolver on this machine learns of it.
//!
//! ```
//! use session::kit::Peer;
//! use session::proxy::{Destination, Socks5};
//!
//! let to: Destination = "example.org:80".parse()?;
//! let mut client = Peer::new(Socks5::new(to));
//! assert_eq!(client.flight(), [5, 1, 0]); // version 5, one method: none
//! # Ok::<(), session::proxy::DestinationError>(())
//! ```

mod connect;
mod destination;
mod header;
mod receive;
mod send;
mod socks5;

pub use connect::{HttpConnect, HttpConnectError, LoginError};
pub use destination::{Destination, DestinationError};
pub use header::{HeaderError, ProxyHeader, Relayed, Tlv};
pub use receive::{Accepts, ReceiveHeader};
pub use send::{SendHeader, Version};
pub use socks5::{Reply, Socks5, Socks5Error};
