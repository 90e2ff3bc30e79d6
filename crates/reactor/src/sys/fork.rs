//! Which process this is: what an engine shares with the kernel belongs to the process that made it.
//!
//! A child of fork(2) has copies of the parent's descriptors, which name the same sockets, the same epoll instance and
//! the same ring. So whatever a child does with them, the parent feels. A handler of pthread_atfork(3) counts forks in
//! the child, and a look at the counter costs no system call. A child made by the bare system call is not noticed.
#![cfg_attr(unix, allow(unsafe_code))]

use std::{
    io,
    sync::atomic::{AtomicU32, Ordering},
};

/// The process in which something was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Birthplace(u32);

impl Birthplace {
    /// Returns this process.
    pub(crate) fn here() -> Birthplace {
        watch();
        Birthplace(FORKS.load(Ordering::Relaxed))
    }

    /// Says whether this is still that process, and not a child of it.
    #[inline]
    pub(crate) fn is_here(self) -> bool {
        self.0 == FORKS.load(Ordering::Relaxed)
    }

    /// Returns an error unless this is still that process.
    #[inline]
    pub(crate) fn check(self) -> io::Result<()> {
        if self.is_here() { Ok(()) } else { Err(elsewhere()) }
    }
}

#[cold]
fn elsewhere() -> io::Error {
    io::Error::other(
        "the runtime belongs to the process that this one was forked from; a child makes a runtime of its own",
    )
}

#[cfg(unix)]
fn watch() {
    unsafe extern "C" {
        fn pthread_atfork(
            before: Option<extern "C" fn()>,
            parent: Option<extern "C" fn()>,
            child: Option<extern "C" fn()>,
        ) -> std::ffi::c_int;
    }
    extern "C" fn count() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    static WATCHED: std::sync::Once = std::sync::Once::new();
    // SAFETY: the handler lives as long as the process, and may run after a fork, since it only adds to an atomic. A
    // system without memory for it refuses; then forks are not noticed.
    WATCHED.call_once(|| _ = unsafe { pthread_atfork(None, None, Some(count)) });
}

#[cfg(not(unix))]
fn watch() {}

/// How many forks lie between the first process and this one.
static FORKS: AtomicU32 = AtomicU32::new(0);
