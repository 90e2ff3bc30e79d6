//! Wakes: the target of a simulated engine's waker, which any thread may call, even after the engine is gone.

use std::{
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Wake,
};

use reactor::engine::{Ending, TransportGuard};

use crate::ids::{EngineId, ObjectId};

/// Messages to a world from other threads and from dropped values: the woken engines, and the dropped
/// transports.
#[derive(Default)]
pub(crate) struct Inbox {
    has_messages: AtomicBool,
    messages: Mutex<Messages>,
}

#[derive(Default)]
pub(crate) struct Messages {
    /// The woken engines.
    pub(crate) woken: Vec<EngineId>,
    /// The objects of the dropped transports, and how they end.
    pub(crate) dropped: Vec<(ObjectId, Ending)>,
}

impl Inbox {
    fn post(&self, change: impl FnOnce(&mut Messages)) {
        change(&mut self.messages.lock().unwrap_or_else(PoisonError::into_inner));
        self.has_messages.store(true, Ordering::Release);
    }

    /// Takes the messages since the last call.
    #[inline]
    pub(crate) fn take(&self) -> Option<Messages> {
        if !self.has_messages.load(Ordering::Acquire) {
            return None;
        }
        self.has_messages.store(false, Ordering::Release);
        Some(std::mem::take(&mut *self.messages.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// The ownership of an end or a listener. Dropping it closes that object.
pub(crate) struct Lease {
    inbox: Arc<Inbox>,
    object: ObjectId,
    how: Ending,
}

impl Lease {
    pub(crate) fn new(inbox: &Arc<Inbox>, object: ObjectId) -> Lease {
        Lease { inbox: inbox.clone(), object, how: Ending::Orderly }
    }
}

impl TransportGuard for Lease {
    fn reset_at_drop(&mut self) {
        self.how = Ending::Reset;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.inbox.post(|messages| messages.dropped.push((self.object, self.how)));
    }
}

/// The target of an engine's waker.
pub(crate) struct WakeFlag {
    engine: EngineId,
    inbox: Arc<Inbox>,
    is_set: Mutex<bool>,
    changed: Condvar,
}

impl WakeFlag {
    pub(crate) fn new(engine: EngineId, inbox: &Arc<Inbox>) -> WakeFlag {
        WakeFlag { engine, inbox: inbox.clone(), is_set: Mutex::default(), changed: Condvar::new() }
    }

    /// Returns whether it was set since the last call.
    pub(crate) fn take(&self) -> bool {
        std::mem::take(&mut *self.is_set.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sleeps in real time until it is set. The next [`take`](WakeFlag::take) still returns `true`.
    pub(crate) fn sleep(&self) {
        let mut is_set = self.is_set.lock().unwrap_or_else(PoisonError::into_inner);
        while !*is_set {
            is_set = self.changed.wait(is_set).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Wake for WakeFlag {
    fn wake(self: Arc<WakeFlag>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<WakeFlag>) {
        let mut is_set = self.is_set.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut *is_set, true) {
            self.changed.notify_all();
            self.inbox.post(|messages| messages.woken.push(self.engine));
        }
    }
}
