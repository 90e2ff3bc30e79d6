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
pub(crate) struct Outside {
    is_news: AtomicBool,
    news: Mutex<News>,
}

#[derive(Default)]
pub(crate) struct News {
    /// The woken engines.
    pub(crate) woken: Vec<EngineId>,
    /// The objects of the dropped transports, and how they end.
    pub(crate) dropped: Vec<(ObjectId, Ending)>,
}

impl Outside {
    fn tell(&self, change: impl FnOnce(&mut News)) {
        change(&mut self.news.lock().unwrap_or_else(PoisonError::into_inner));
        self.is_news.store(true, Ordering::Release);
    }

    /// Takes the messages since the last call.
    #[inline]
    pub(crate) fn take(&self) -> Option<News> {
        if !self.is_news.load(Ordering::Acquire) {
            return None;
        }
        self.is_news.store(false, Ordering::Release);
        Some(std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// The ownership of an end or a listener. Dropping it closes that object.
pub(crate) struct Lease {
    outside: Arc<Outside>,
    object: ObjectId,
    how: Ending,
}

impl Lease {
    pub(crate) fn new(outside: &Arc<Outside>, object: ObjectId) -> Lease {
        Lease { outside: outside.clone(), object, how: Ending::Orderly }
    }
}

impl TransportGuard for Lease {
    fn reset_at_drop(&mut self) {
        self.how = Ending::Reset;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.outside.tell(|news| news.dropped.push((self.object, self.how)));
    }
}

/// The target of an engine's waker.
pub(crate) struct Bell {
    engine: EngineId,
    outside: Arc<Outside>,
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    pub(crate) fn new(engine: EngineId, outside: &Arc<Outside>) -> Bell {
        Bell { engine, outside: outside.clone(), rung: Mutex::default(), changed: Condvar::new() }
    }

    /// Returns whether it was rung since the last call.
    pub(crate) fn answer(&self) -> bool {
        std::mem::take(&mut *self.rung.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sleeps in real time until it is rung. The next [`answer`](Bell::answer) still returns `true`.
    pub(crate) fn sleep(&self) {
        let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        while !*rung {
            rung = self.changed.wait(rung).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Bell>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Bell>) {
        let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut *rung, true) {
            self.changed.notify_all();
            self.outside.tell(|news| news.woken.push(self.engine));
        }
    }
}
