//! Opens private parsers to the fuzz targets in `fuzz/`. Exists only with `--cfg fuzzing`.

use crate::{address::Address, watch::Changes};

/// Parses records of inotify(7).
pub fn changes(records: &[u8]) -> Changes<'_> {
    Changes::new(records)
}

/// Parses a sender's name and control messages, as the kernel writes them. Returns the sender.
#[cfg(feature = "io-uring")]
pub fn datagram(name: &[u8], control: &[u8]) -> Address {
    crate::sys::datagram::parse(name, control).from
}
