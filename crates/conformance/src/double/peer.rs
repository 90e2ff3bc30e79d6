//! The test's end of a connection, without a runtime.

use std::{
    io::{self, ErrorKind},
    sync::Arc,
};

use reactor::{Address, engine::Ending};

use super::{
    fault,
    network::Shared,
    state::{Holder, Input},
};

/// One end of a connection in the hands of a test. No call blocks: an operation that cannot proceed returns
/// `WouldBlock`, and the test lets the other side work before it tries again. A drop closes the end.
///
/// ```
/// use conformance::double::{Network, Tuning};
/// let network = Network::new(Tuning::roomy(1));
/// let refused = network.connect("127.0.0.1:7").expect_err("nobody listens");
/// assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
/// ```
pub struct Peer {
    shared: Arc<Shared>,
    number: u64,
}

impl Peer {
    pub(super) fn connect(shared: &Arc<Shared>, to: &Address) -> io::Result<Peer> {
        let number = shared.change(|state| {
            let number = state.connect(to, None, Holder::Peer)?;
            match state.establish(number) {
                Ok(true) => Ok(number),
                refused => {
                    state.close(number, Ending::Orderly);
                    Err(refused.err().unwrap_or_else(|| fault::error(ErrorKind::ConnectionRefused)))
                }
            }
        })?;
        Ok(Peer { shared: Arc::clone(shared), number })
    }

    /// Sends as many bytes as fit, and returns their number.
    ///
    /// # Errors
    /// `WouldBlock` if there is no room now, and EPIPE or ECONNRESET if there never will be.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.shared.change(|state| {
            let send_bytes = state.tuning.send_bytes;
            match state.room(self.number, send_bytes)?.min(bytes.len()) {
                0 if !bytes.is_empty() => Err(fault::error(ErrorKind::WouldBlock)),
                count => {
                    state.put(self.number, &bytes[..count]);
                    Ok(count)
                }
            }
        })
    }

    /// Reads input. `Ok(0)` is the end, unless `into` is empty.
    ///
    /// # Errors
    /// `WouldBlock` if there is no input, and ECONNRESET after a reset.
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.shared.change(|state| {
            let window_bytes = state.tuning.window_bytes;
            state.flow(self.number, window_bytes, usize::MAX);
            match state.input(self.number) {
                Input::Bytes(_) => Ok(state.take(self.number, into)),
                Input::End => Ok(0),
                Input::Reset => Err(fault::error(ErrorKind::ConnectionReset)),
                Input::Nothing => Err(fault::error(ErrorKind::WouldBlock)),
            }
        })
    }

    /// Shuts down the write side.
    ///
    /// # Errors
    /// ENOTCONN after a reset.
    pub fn shutdown(&mut self) -> io::Result<()> {
        self.shared.change(|state| state.shut(self.number))
    }

    /// Closes this end as close(2) does. With unread input, that is a reset.
    pub fn close(self) {}

    /// Resets the connection. Bytes that were written and have not arrived are lost.
    pub fn reset(self) {
        self.shared.change(|state| state.close(self.number, Ending::Reset));
    }

    /// Returns the address of this end.
    pub fn local(&self) -> Address {
        let state = self.shared.lock();
        state.ends.get(&self.number).map_or(Address::Unnamed, |end| end.local.clone())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.shared.change(|state| state.close(self.number, Ending::Orderly));
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Peer({})", self.number)
    }
}
