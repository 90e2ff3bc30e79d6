//! A storm of signals to one thread. The signals interrupt whatever the thread waits in.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use nix::sys::{
    pthread::{Pthread, pthread_kill, pthread_self},
    signal::Signal,
};

use crate::suite::Stop;

/// Runs `work` while another thread sends a signal to this one each millisecond: `loud` once in ten times, if
/// it is given, and `silent` otherwise. Returns the result, and how many loud and silent signals were sent.
/// The caller must have installed handlers for both.
pub(crate) fn under_storm<T>(
    loud: Option<Signal>,
    silent: Signal,
    work: impl FnOnce() -> T,
) -> Result<(T, [u32; 2]), Stop> {
    let (target, is_over) = (pthread_self() as usize, AtomicBool::new(false));
    let (result, sent) = thread::scope(|scope| {
        let sender = scope.spawn(|| send(target, loud, silent, &is_over));
        // The scope waits for the sender, so stop the storm even if the work panics.
        let result = panic::catch_unwind(AssertUnwindSafe(work));
        is_over.store(true, Ordering::Release);
        (result, sender.join())
    });
    let result = result.unwrap_or_else(|payload| panic::resume_unwind(payload));
    Ok((result, sent.map_err(|_| "the thread that sends signals panicked")?))
}

fn send(target: usize, loud: Option<Signal>, silent: Signal, is_over: &AtomicBool) -> [u32; 2] {
    let mut sent = [0, 0];
    for round in 0_u32.. {
        if is_over.load(Ordering::Acquire) {
            break;
        }
        let loud = loud.filter(|_| round.is_multiple_of(10));
        // The call could fail only if the target thread had ended, but that thread waits for this one.
        if pthread_kill(target as Pthread, loud.unwrap_or(silent)).is_ok() {
            sent[usize::from(loud.is_none())] += 1;
        }
        thread::sleep(Duration::from_millis(1));
    }
    sent
}
