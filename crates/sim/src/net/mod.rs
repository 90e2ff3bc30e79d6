//! The network: the links between hosts, and what travels on them. Streams are connections and pipes.

pub(crate) mod buffer;
pub(crate) mod datagram;
pub(crate) mod link;
pub(crate) mod stream;
