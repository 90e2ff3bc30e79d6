//! Detects forks, because an engine's kernel objects belong to the process that made them.
//!
//! A child of fork(2) has copies of the parent's descriptors, which refer to the same sockets, the same epoll
//! instance and the same ring. So anything the child does with them affects the parent. A handler of
//! pthread_atfork(3) counts forks in the child, and comparing the counter needs no system call. A child made
//! by the raw system call goes unnoticed.
#![cfg_attr(unix, allow(unsafe_code))]

use std::{
    io,
    sync::atomic::{AtomicU32, Ordering},
};

/// The process in which an object was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Birthplace(u32);

impl Birthplace {
    /// Returns this process.
    pub(crate) fn here() -> Birthplace {
        watch();
        Birthplace(FORKS.load(Ordering::Relaxed))
    }

    /// Returns whether this is still that process, and not a child of it.
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
    // SAFETY: the handler lives as long as the process. It may run after a fork, because it only adds to an
    // atomic. If the system has no memory for it, the call fails and forks go unnoticed.
    WATCHED.call_once(|| _ = unsafe { pthread_atfork(None, None, Some(count)) });
}

#[cfg(not(unix))]
fn watch() {}

/// The number of forks between the first process and this one.
static FORKS: AtomicU32 = AtomicU32::new(0);
