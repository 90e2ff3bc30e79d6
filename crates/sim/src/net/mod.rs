//! The network: connections, pipes, listeners, datagrams, and the links between hosts.

mod arrival;
pub(crate) mod buffer;
mod close;
mod connect;
pub(crate) mod end;
pub(crate) mod flight;
pub(crate) mod input;
pub(crate) mod link;
pub(crate) mod listener;
#[cfg(unix)]
pub(crate) mod passing;
#[cfg(unix)]
pub(crate) mod pipe;
pub(crate) mod socket;
