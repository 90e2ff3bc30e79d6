//! The transport of a stream outside of a runtime. If it is dropped there with output left, its peer sees a reset.

use crate::{
    core::Core,
    engine::{Source, Transport},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    sys::Birthplace,
};

/// Where the bytes are counted that a service released and that were dropped then.
pub(crate) type Losses = Arc<AtomicU64>;

/// A transport that no runtime drives.
pub(super) struct Loose {
    /// `None` once its owner has taken it.
    transport: Option<Transport>,
    /// Accepted output that has not left.
    pub(super) unsent: usize,
    /// More of the output is missing than is queued.
    pub(super) is_cut: bool,
    /// Of the service that released the stream.
    losses: Option<Losses>,
    birthplace: Birthplace,
}

impl Loose {
    pub(super) fn new(transport: Transport) -> Loose {
        let birthplace = Birthplace::here();
        Loose { transport: Some(transport), unsent: 0, is_cut: false, losses: None, birthplace }
    }

    /// Makes one that this service of a runtime answers for.
    pub(super) fn of(core: &mut Core, service: u16, transport: Transport) -> Loose {
        let record = core.records.get_mut(service as usize);
        let losses = record.map(|record| record.losses.get_or_insert_with(Losses::default).clone());
        let mut loose = Loose::new(transport);
        loose.losses = losses;
        loose
    }

    /// Notes the output that has not left.
    pub(super) fn with(mut self, unsent: usize, is_cut: bool) -> Loose {
        (self.unsent, self.is_cut) = (unsent, is_cut);
        self
    }

    pub(super) fn source(&self) -> Option<Source<'_>> {
        self.transport.as_ref().map(Transport::source)
    }

    /// Takes the transport: whoever has it now ends it as they like.
    pub(super) fn take(mut self) -> Option<Transport> {
        self.transport.take()
    }
}

impl Drop for Loose {
    fn drop(&mut self) {
        let Some(transport) = &mut self.transport else { return };
        // In a child of a fork the socket is still the parent's, which may send the rest.
        if self.unsent == 0 && !self.is_cut || !self.birthplace.is_here() {
            return;
        }
        transport.reset_at_drop();
        if let Some(losses) = &self.losses {
            losses.fetch_add(self.unsent as u64, Ordering::Relaxed);
        }
    }
}
