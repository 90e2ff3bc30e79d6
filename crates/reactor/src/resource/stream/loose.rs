//! The transport of a stream outside of a runtime. If it is dropped with unsent output, its peer sees a
//! reset.

use crate::{
    engine::Transport,
    runtime::LoopState,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    sys::Birthplace,
};

/// A counter of bytes that were dropped after the service had released their stream.
pub(crate) type Losses = Arc<AtomicU64>;

/// A transport that no runtime drives.
pub(super) struct Loose {
    /// `None` once its owner has taken it.
    transport: Option<Transport>,
    /// Accepted output that has not left.
    pub(super) unsent: usize,
    /// Whether more output is missing than is queued.
    pub(super) is_cut: bool,
    /// The counter of the service that released the stream.
    losses: Option<Losses>,
    birthplace: Birthplace,
}

impl Loose {
    pub(super) fn new(transport: Transport) -> Loose {
        let birthplace = Birthplace::here();
        Loose { transport: Some(transport), unsent: 0, is_cut: false, losses: None, birthplace }
    }

    /// Creates one whose losses count for this service of a runtime.
    pub(super) fn of(core: &mut LoopState, service: u16, transport: Transport) -> Loose {
        let record = core.records.get_mut(service as usize);
        let losses = record.map(|record| record.losses.get_or_insert_with(Losses::default).clone());
        let mut loose = Loose::new(transport);
        loose.losses = losses;
        loose
    }

    /// Notes output that has not left.
    pub(super) fn with(mut self, unsent: usize, is_cut: bool) -> Loose {
        (self.unsent, self.is_cut) = (unsent, is_cut);
        self
    }

    /// Takes the transport. The caller decides how it ends.
    pub(super) fn take(mut self) -> Option<Transport> {
        self.transport.take()
    }
}

impl Drop for Loose {
    fn drop(&mut self) {
        let Some(transport) = &mut self.transport else { return };
        // In a child of a fork the socket still belongs to the parent, which may send the rest.
        if self.unsent == 0 && !self.is_cut || !self.birthplace.is_here() {
            return;
        }
        transport.reset_at_drop();
        if let Some(losses) = &self.losses {
            losses.fetch_add(self.unsent as u64, Ordering::Relaxed);
        }
    }
}
