//! Datagrams: in batches from the engine, in a queue to it, and the system calls that move them.

mod batch;
mod queue;
pub(crate) mod syscalls;

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use self::queue::Run;
pub use self::{
    batch::Batch,
    queue::{Datagram, DatagramQueue, Ecn, Outbound},
};
pub(crate) use self::{
    batch::{KeptDatagrams, Packet},
    syscalls::Batches,
};
