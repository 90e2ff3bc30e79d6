//! Synchronisation primitives: those of the standard library, or those of the model checker.
//!
//! Everything that threads share is built from these names, so that a model of it checks the code that ships.
//! With `--cfg loom` they are loom's, which work inside `loom::model` only, and time does not pass there.
//!
//! A poisoned lock is recovered. No user code runs under a lock of this crate, and if a panic happens all the
//! same, the lock still guards a queue between two complete states.

pub(crate) use primitives::{Arc, Condvar, Mutex, MutexGuard, atomic, thread, wait_while_for};
use std::sync::PoisonError;

/// Takes the lock, whether or not a panic poisoned it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits without a time limit until `waiting` is false.
pub(crate) fn wait_while<'a, T>(
    condvar: &Condvar,
    mut guard: MutexGuard<'a, T>,
    waiting: impl Fn(&T) -> bool,
) -> MutexGuard<'a, T> {
    while waiting(&guard) {
        guard = condvar.wait(guard).unwrap_or_else(PoisonError::into_inner);
    }
    guard
}

#[cfg(not(loom))]
mod primitives {
    pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard, atomic};
    pub(crate) use std::thread;

    /// Waits until `waiting` is false or the time is over. The caller checks which.
    pub(crate) fn wait_while_for<'a, T>(
        condvar: &Condvar,
        guard: MutexGuard<'a, T>,
        up_to: std::time::Duration,
        waiting: impl Fn(&T) -> bool,
    ) -> MutexGuard<'a, T> {
        let waited = condvar.wait_timeout_while(guard, up_to, |state| waiting(state));
        waited.unwrap_or_else(std::sync::PoisonError::into_inner).0
    }
}

#[cfg(loom)]
mod primitives {
    pub(crate) use loom::sync::{Arc, Condvar, Mutex, MutexGuard, atomic};
    pub(crate) use loom::thread;

    /// Waits until `waiting` is false. In a model the time is either over at once or never.
    pub(crate) fn wait_while_for<'a, T>(
        condvar: &Condvar,
        guard: MutexGuard<'a, T>,
        up_to: std::time::Duration,
        waiting: impl Fn(&T) -> bool,
    ) -> MutexGuard<'a, T> {
        if up_to.is_zero() { guard } else { super::wait_while(condvar, guard, waiting) }
    }
}
