//! An engine from outside the library, from the example `select`, against the whole table of rows.
#![cfg(unix)]

#[path = "../../reactor/examples/select/engine/mod.rs"]
mod engine;
mod floor;

use std::{
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
};

use conformance::Suite;
use engine::{FD_SETSIZE, Select, TooHigh};
use floor::{QUICK_ROWS_MIN, assert_rows};
use reactor::{
    Interest, Key, Source,
    engine::{Calls, Poll as _, Trigger},
};

/// Lets one test run at a time, because a row counts the descriptors of the process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn an_engine_from_outside_passes_the_same_rows() {
    let _alone = alone();
    let suite = Suite::new(|| Box::new(Calls::new(Select::new().expect("it opens"))));
    let report = suite.descriptors_max(FD_SETSIZE as usize).quick().run();
    println!("{report}");
    assert!(report.is_passed(), "{report}");
    if cfg!(target_os = "linux") {
        assert_rows(&report, QUICK_ROWS_MIN - OTHERS);
    }
}

#[test]
fn a_descriptor_beyond_the_set_is_a_typed_error_and_the_last_one_fits() {
    let _alone = alone();
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = FD_SETSIZE as u64 + 16;
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum })
        .expect("below the hard limit");
    let mut select = Select::new().expect("it opens");
    for (number, fits) in [(FD_SETSIZE - 1, true), (FD_SETSIZE, false), (FD_SETSIZE + 1, false)] {
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let high: OwnedFd = rustix::io::fcntl_dupfd_cloexec(ours.as_fd(), number).expect("it is free");
        assert_eq!(high.as_raw_fd(), number);
        let key = Key::new(0, number as u32, 0);
        let result = select.watch(key, Source::of(&high), Interest::Both, Trigger::Level);
        assert_eq!(result.is_ok(), fits, "{number}");
        match result {
            Ok(()) => {
                let mut ready = Vec::new();
                select.wait(&mut ready, Some(std::time::Duration::ZERO)).expect("it is whole");
                assert!(matches!(ready[..], [(of, ready)] if of == key && ready.writable), "{ready:?}");
                select.unwatch(key, Source::of(&high)).expect("it is watched");
            }
            Err(error) => {
                let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<TooHigh>());
                assert_eq!(cause, Some(&TooHigh(number)));
            }
        }
    }
}

/// The rows that select(2) cannot pass, or that need an engine of the library.
const OTHERS: usize = 4;
