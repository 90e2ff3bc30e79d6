//! Signals of this process: every waiting resource gets them, the old dispositions return, and the graceful
//! stop.
//!
//! Signals concern the whole process, so the tests here run one after the other.
#![cfg(unix)]
#![allow(unsafe_code)]

mod common;

use std::{
    mem::MaybeUninit,
    ptr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

use common::{LONG, SHORT, for_each_engine, settle, until};
use reactor::{
    Closed, Context, Error, Handle, Id, Pollable, Receive, Result, Runtime, Service, ServiceId,
    signals::{Arrived, Graceful, Signal, Signals},
};

/// Gives one test at a time the process's signals.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Records its events.
#[derive(Default)]
struct Watch {
    wanted: Vec<Signal>,
    arrived: Vec<Arrived>,
    id: Option<Id<Signals>>,
    closed: Vec<String>,
    /// Pauses after each event.
    pauses: bool,
}

impl Watch {
    fn of<const N: usize>(wanted: [Signal; N]) -> Watch {
        Watch { wanted: wanted.to_vec(), ..Watch::default() }
    }

    fn times(&self, signal: Signal) -> u32 {
        self.arrived.iter().filter(|arrived| arrived.signal == signal).map(|arrived| arrived.times).sum()
    }
}

impl Service for Watch {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        self.id = Some(cx.signals(self.wanted.iter().copied())?);
        Ok(())
    }
}

impl Handle<Signals> for Watch {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Signals>, event: Arrived) -> Result {
        self.arrived.push(event);
        if self.pauses {
            cx.pause(id);
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<Signals>, _: Signals, why: Closed) {
        self.closed.push(why.to_string());
    }
}

fn watch(runtime: &Runtime, id: ServiceId<Watch>) -> &Watch {
    runtime.service(id).expect("it lives")
}

/// Sends a signal to the process, and the kernel chooses the thread.
fn send(signal: Signal) {
    // SAFETY: kill takes no pointer.
    assert_eq!(unsafe { libc::kill(libc::getpid(), signal.number()) }, 0);
}

/// Sends a signal to this thread, whose handler has run when the call returns.
fn raise(signal: Signal) {
    // SAFETY: raise takes no pointer.
    assert_eq!(unsafe { libc::raise(signal.number()) }, 0);
}

/// Returns the process's disposition for a signal: the handler, and the flags.
fn disposition(signal: Signal) -> (usize, i32) {
    let mut now = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: the second pointer may be null, and the third is to a live value.
    assert_eq!(unsafe { libc::sigaction(signal.number(), ptr::null(), now.as_mut_ptr()) }, 0);
    // SAFETY: the call succeeded, and filled the value.
    let now = unsafe { now.assume_init() };
    (now.sa_sigaction, now.sa_flags & !RESTORER)
}

/// A flag that glibc adds to the given ones.
const RESTORER: i32 = 0x0400_0000;

fn set_handler(signal: Signal, handler: usize) {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: the pointer is to a live value, all of whose bytes may be zero.
    unsafe { (*action.as_mut_ptr()).sa_sigaction = handler };
    // SAFETY: the handler is a constant or a function of this file, and the third pointer may be null.
    assert_eq!(unsafe { libc::sigaction(signal.number(), action.as_ptr(), ptr::null_mut()) }, 0);
}

static OTHERS: AtomicU32 = AtomicU32::new(0);

extern "C" fn others_handler(_: libc::c_int) {
    OTHERS.fetch_add(1, SeqCst);
}

fn others() -> usize {
    others_handler as *const () as usize
}

#[test]
fn a_signal_to_the_process_is_told_once_while_four_other_threads_run() {
    let _alone = alone();
    for_each_engine(|engine| {
        let mut runtime = engine.runtime();
        let id = runtime.add(Watch::of([Signal::TERM])).expect("it starts");
        thread::scope(|scope| {
            let waiting: Vec<_> = (0..4)
                .map(|_| {
                    let (end, wait) = mpsc::channel::<()>();
                    (end, scope.spawn(move || wait.recv().is_err()))
                })
                .collect();
            send(Signal::TERM);
            until(&mut runtime, |runtime| !watch(runtime, id).arrived.is_empty());
            settle(&mut runtime);
            for (end, thread) in waiting {
                drop(end);
                assert!(thread.join().expect("it did not panic"));
            }
        });
        assert_eq!(watch(&runtime, id).arrived, [Arrived { signal: Signal::TERM, times: 1 }]);
    });
}

#[test]
fn many_of_one_kind_are_told_at_least_once_and_counted_as_the_handler_ran() {
    let _alone = alone();
    for_each_engine(|engine| {
        let mut runtime = engine.runtime();
        let id = runtime.add(Watch::of([Signal::USR1, Signal::USR2])).expect("it starts");
        for _ in 0..1000 {
            raise(Signal::USR1);
        }
        raise(Signal::USR2);
        until(&mut runtime, |runtime| watch(runtime, id).arrived.len() >= 2);
        settle(&mut runtime);
        let arrived = &watch(&runtime, id).arrived;
        assert_eq!(arrived.len(), 2, "they were pending together: {arrived:?}");
        assert_eq!(watch(&runtime, id).times(Signal::USR1), 1000);
        assert_eq!(watch(&runtime, id).times(Signal::USR2), 1);
    });
}

#[test]
fn what_is_pending_while_it_is_paused_is_told_when_it_goes_on() {
    let _alone = alone();
    for_each_engine(|engine| {
        let mut runtime = engine.runtime();
        let wanted = [Signal::HUP, Signal::USR1, Signal::USR2];
        let id = runtime.add(Watch { pauses: true, ..Watch::of(wanted) }).expect("it starts");
        wanted.into_iter().for_each(raise);
        for count in 1..=wanted.len() {
            until(&mut runtime, |runtime| watch(runtime, id).arrived.len() >= count);
            settle(&mut runtime);
            assert_eq!(watch(&runtime, id).arrived.len(), count, "it is paused");
            runtime.with(id, |watch, cx| cx.resume(watch.id.expect("it was added")));
        }
        settle(&mut runtime);
        assert_eq!(watch(&runtime, id).arrived.len(), wanted.len());
    });
}

#[test]
fn each_runtime_that_waits_sees_it_and_one_that_ended_does_not_hinder() {
    let _alone = alone();
    let before = disposition(Signal::HUP);
    for_each_engine(|engine| {
        let mut runtimes = [engine.runtime(), engine.runtime(), engine.runtime()];
        let ids: Vec<_> = runtimes
            .iter_mut()
            .map(|runtime| runtime.add(Watch::of([Signal::HUP])).expect("it starts"))
            .collect();
        raise(Signal::HUP);
        for (runtime, id) in runtimes.iter_mut().zip(&ids) {
            until(runtime, |runtime| watch(runtime, *id).times(Signal::HUP) == 1);
        }
        let [first, mut second, third] = runtimes;
        drop((first, third));
        raise(Signal::HUP);
        until(&mut second, |runtime| watch(runtime, ids[1]).times(Signal::HUP) == 2);
        assert_ne!(disposition(Signal::HUP), before, "one still waits");
        drop(second);
        assert_eq!(disposition(Signal::HUP), before);
    });
}

#[test]
fn the_disposition_from_before_comes_back_and_a_handler_is_called_meanwhile() {
    let _alone = alone();
    let original = disposition(Signal::USR1);
    for handler in [libc::SIG_DFL, libc::SIG_IGN, others()] {
        set_handler(Signal::USR1, handler);
        let before = disposition(Signal::USR1);
        let called = OTHERS.load(SeqCst);
        let signals = Signals::of_process([Signal::USR1]).expect("it is registered");
        assert_ne!(disposition(Signal::USR1), before);
        raise(Signal::USR1);
        assert_eq!(OTHERS.load(SeqCst) - called, u32::from(handler == others()));
        drop(signals);
        assert_eq!(disposition(Signal::USR1), before);
    }
    set_handler(Signal::USR1, original.0);
}

#[test]
fn a_handler_that_somebody_installed_over_ours_stays() {
    let _alone = alone();
    let before = disposition(Signal::WINCH);
    let signals = Signals::of_process([Signal::WINCH]).expect("it is registered");
    let ours = disposition(Signal::WINCH);
    set_handler(Signal::WINCH, others());
    let theirs = disposition(Signal::WINCH);
    drop(signals);
    assert_eq!(disposition(Signal::WINCH), theirs, "it is not ours to take away");
    // The other owner restores our handler, as chaining code does. The next waiting resource finds it, and
    // removes it.
    let mut runtime = Runtime::new().expect("an engine");
    set_handler(Signal::WINCH, ours.0);
    let id = runtime.add(Watch::of([Signal::WINCH])).expect("it starts");
    raise(Signal::WINCH);
    until(&mut runtime, |runtime| watch(runtime, id).times(Signal::WINCH) == 1);
    drop(runtime);
    assert_eq!(disposition(Signal::WINCH), before);
}

#[test]
fn one_that_was_registered_early_is_added_later_and_has_what_came_between() {
    let _alone = alone();
    for_each_engine(|engine| {
        let early = Signals::of_process([Signal::TERM]).expect("it is registered");
        raise(Signal::TERM);
        let mut runtime = engine.runtime();
        let id = runtime.add(Watch::of([Signal::USR2])).expect("it starts");
        runtime.with(id, |_, cx| cx.add(early).expect("it is watched"));
        until(&mut runtime, |runtime| watch(runtime, id).times(Signal::TERM) == 1);
    });
}

#[test]
fn so_many_live_at_once_and_no_more() {
    let _alone = alone();
    let mut all: Vec<Signals> = Vec::new();
    for _ in 0..64 {
        all.push(Signals::of_process([Signal::USR1]).expect("up to the limit"));
    }
    let error = Signals::of_process([Signal::USR1]).expect_err("limit + 1");
    assert_eq!(error.io().map(std::io::Error::kind), Some(std::io::ErrorKind::QuotaExceeded), "{error}");
    all.pop();
    all.push(Signals::of_process([Signal::USR1]).expect("room again"));
}

#[test]
fn no_child_inherits_what_it_is_woken_by() {
    let _alone = alone();
    let signals = Signals::of_process([Signal::USR1]).expect("it is registered");
    let descriptor = signals.source().descriptor().expect("a real one");
    let flags = rustix::io::fcntl_getfd(descriptor).expect("it is open");
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
}

#[test]
fn an_empty_set_and_one_that_the_system_refuses_change_nothing() {
    let _alone = alone();
    let error = Signals::of_process([]).expect_err("nothing is named");
    assert!(matches!(error, Error::Misuse { .. }), "{error}");
    // glibc reserves these signals, and refuses them.
    let reserved = (32..34).filter_map(|number| Signal::numbered(number).ok());
    let before = disposition(Signal::HUP);
    if cfg!(all(target_os = "linux", target_env = "gnu")) {
        for reserved in reserved {
            let error = Signals::of_process([Signal::HUP, reserved]).expect_err("it is reserved");
            assert_eq!(error.io().and_then(std::io::Error::raw_os_error), Some(libc::EINVAL), "{error}");
            assert_eq!(disposition(Signal::HUP), before, "what was begun is undone");
        }
    }
}

/// Ends itself by a timer.
struct Short;

impl Service for Short {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        cx.after(SHORT, ());
        Ok(())
    }
}

impl Receive<()> for Short {
    fn receive(&mut self, _: &mut Context<Self>, (): ()) -> Result {
        Ok(())
    }
}

#[test]
fn what_is_in_the_background_holds_up_neither_the_end_nor_a_stop() {
    let _alone = alone();
    for_each_engine(|engine| {
        let before = disposition(Signal::TERM);
        let mut runtime = engine.runtime();
        runtime.add(Graceful::within(LONG)).expect("it starts");
        runtime.add(Short).expect("it starts");
        // It returns when the timer has fired, because only the signals are left.
        let receipt = runtime.run().expect("the engine is whole").check().expect("nobody panicked");
        assert_eq!((receipt.cut, receipt.services[0].closed), (0, 1));
        assert_eq!(disposition(Signal::TERM), before);

        let mut runtime = engine.runtime();
        runtime.add(Graceful::within(LONG)).expect("it starts");
        let id = runtime.add(Watch::of([Signal::USR1])).expect("it starts");
        runtime.controller(id).stop(LONG);
        let receipt = runtime.run().expect("the engine is whole").check().expect("nobody panicked");
        assert_eq!(receipt.cut, 0);
        assert_eq!(watch(&runtime, id).closed, ["closed"]);
    });
}

#[test]
fn the_first_asks_for_a_graceful_stop_and_the_second_for_one_at_once() {
    let _alone = alone();
    /// A service that does not close on a stop.
    struct Stubborn(u32);
    impl Service for Stubborn {
        fn start(&mut self, cx: &mut Context<Self>) -> Result {
            cx.signals([Signal::USR1])?;
            Ok(())
        }
        fn stop(&mut self, _: &mut Context<Self>) {
            self.0 += 1;
        }
    }
    impl Handle<Signals> for Stubborn {
        fn handle(&mut self, _: &mut Context<Self>, _: Id<Signals>, _: Arrived) -> Result {
            Ok(())
        }
    }
    for_each_engine(|engine| {
        for (first, second) in [(Signal::TERM, Signal::INT), (Signal::INT, Signal::INT)] {
            let mut runtime = engine.runtime();
            let graceful = runtime.add(Graceful::within(Duration::from_secs(3600))).expect("it starts");
            let stubborn = runtime.add(Stubborn(0)).expect("it starts");
            send(first);
            until(&mut runtime, |runtime| runtime.service(stubborn).expect("it lives").0 == 1);
            settle(&mut runtime);
            assert!(!runtime.is_over(), "the grace is an hour");
            send(second);
            until(&mut runtime, |runtime| runtime.is_over());
            let receipt = runtime.run().expect("the engine is whole").check().expect("nobody panicked");
            assert_eq!(receipt.cut, 1, "{receipt:?}");
            assert_eq!(runtime.service(graceful).expect("it lives").asked(), 2);
            assert_eq!(runtime.service(stubborn).expect("it lives").0, 1, "it is told once");
        }
    });
}

#[test]
fn registrations_come_and_go_while_signals_arrive_in_another_thread() {
    let _alone = alone();
    const ROUNDS: u32 = 2000;
    let mut runtime = Runtime::new().expect("an engine");
    let id = runtime.add(Watch::of([Signal::USR1])).expect("it starts");
    thread::scope(|scope| {
        let (end, wait) = mpsc::channel::<()>();
        let storm = scope.spawn(move || {
            let mut count = 0;
            while wait.try_recv() == Err(mpsc::TryRecvError::Empty) {
                raise(Signal::USR1);
                count += 1;
            }
            count
        });
        for _ in 0..ROUNDS {
            let one = Signals::of_process([Signal::USR1, Signal::USR2]).expect("it is registered");
            let other = Signals::of_process([Signal::USR1]).expect("it is registered");
            drop((one, other));
        }
        drop(end);
        let count = storm.join().expect("it did not panic");
        until(&mut runtime, |runtime| watch(runtime, id).times(Signal::USR1) >= count);
        settle(&mut runtime);
        assert_eq!(watch(&runtime, id).times(Signal::USR1), count, "none was lost, none is double");
    });
}
