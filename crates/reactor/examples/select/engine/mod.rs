//! A user's own engine: select(2), which the library does not have, behind the contract `Poll`.
#![allow(unsafe_code)]

use std::{
    collections::BTreeMap,
    error::Error,
    fmt,
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, RawFd},
        unix::net::UnixStream,
    },
    sync::Arc,
    task::{Wake, Waker},
    time::Duration,
};

use reactor::{
    Interest, Key, Ready, Source,
    engine::{Poll, Trigger},
};
use rustix::{
    event::{FdSetElement, Timespec, fd_set_insert},
    io::Errno,
};

/// The watched descriptors, and the signal that ends a wait.
pub(crate) struct Select {
    watched: BTreeMap<RawFd, (Key, Interest)>,
    signal: Arc<Signal>,
    calls: u64,
}

/// A descriptor's number exceeds the sets of select(2). `watch` returns it inside its `io::Error`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooHigh(pub(crate) RawFd);

/// Ends a wait by a byte in a socket pair. It owns both ends, so a late wake never finds a broken pipe.
struct Signal {
    reader: UnixStream,
    writer: UnixStream,
}

impl Select {
    /// Makes an engine that watches nothing.
    pub(crate) fn new() -> io::Result<Select> {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        number(reader.as_fd())?;
        Ok(Select { watched: BTreeMap::new(), signal: Arc::new(Signal { reader, writer }), calls: 0 })
    }

    /// Returns the descriptor of a source that is watched under this key.
    fn place(&mut self, key: Key, source: Source<'_>) -> io::Result<RawFd> {
        let number = number(source.descriptor().ok_or(io::ErrorKind::Unsupported)?)?;
        match self.watched.get(&number) {
            Some((of, _)) if *of == key => Ok(number),
            _ => Err(Errno::NOENT.into()),
        }
    }

    /// Stops watching descriptors that were closed while watched, because one of them fails the whole call.
    /// Reports each as an error.
    fn expel(&mut self, ready: &mut Vec<(Key, Ready)>) {
        self.watched.retain(|&number, &mut (key, _)| {
            // SAFETY: this only asks whether the descriptor is open, and does nothing to it.
            let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
            let is_open = rustix::io::fcntl_getfd(descriptor).is_ok();
            if !is_open {
                ready.push((key, Ready { error: true, ..Ready::default() }));
            }
            is_open
        });
    }
}

impl Poll for Select {
    fn name(&self) -> &'static str {
        "select"
    }

    /// select(2) reports the current state on every call, so its events are level-triggered.
    fn trigger(&self) -> Trigger {
        Trigger::Level
    }

    fn watch(&mut self, key: Key, source: Source<'_>, interest: Interest, _: Trigger) -> io::Result<()> {
        let descriptor = source.descriptor().ok_or(io::ErrorKind::Unsupported)?;
        let number = number(descriptor)?;
        rustix::io::fcntl_getfd(descriptor)?;
        if self.watched.contains_key(&number) {
            return Err(Errno::EXIST.into());
        }
        self.watched.insert(number, (key, interest));
        Ok(())
    }

    fn rewatch(&mut self, key: Key, source: Source<'_>, interest: Interest, _: Trigger) -> io::Result<()> {
        let place = self.place(key, source)?;
        self.watched.insert(place, (key, interest));
        Ok(())
    }

    fn unwatch(&mut self, key: Key, source: Source<'_>) -> io::Result<()> {
        let place = self.place(key, source)?;
        self.watched.remove(&place);
        Ok(())
    }

    fn wait(&mut self, ready: &mut Vec<(Key, Ready)>, timeout: Option<Duration>) -> io::Result<()> {
        let (mut reads, mut writes) = ([FdSetElement::default(); SET], [FdSetElement::default(); SET]);
        let signal = self.signal.reader.as_raw_fd();
        fd_set_insert(&mut reads, signal);
        for (&number, &(_, interest)) in &self.watched {
            if interest.is_read() {
                fd_set_insert(&mut reads, number);
            }
            if interest.is_write() {
                fd_set_insert(&mut writes, number);
            }
        }
        let last = self.watched.last_key_value().map_or(signal, |(&number, _)| number.max(signal));
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs().min(SECONDS_MAX) as i64,
            tv_nsec: timeout.subsec_nanos().into(),
        });
        self.calls += 1;
        // SAFETY: both sets have room for FD_SETSIZE descriptors, and only lower ones are inserted. If one
        // was closed, the kernel returns EBADF.
        match unsafe {
            rustix::event::select(last + 1, Some(&mut reads), Some(&mut writes), None, timeout.as_ref())
        } {
            Err(Errno::INTR) => return Ok(()),
            Err(Errno::BADF) => {
                self.expel(ready);
                return Ok(());
            }
            result => result?,
        };
        if contains(&reads, signal) {
            self.calls += 1;
            // An empty socket means that nobody woke us. Bytes beyond this read only wake us once more.
            let _ = (&self.signal.reader).read(&mut [0; 1024]);
        }
        for (&number, &(key, _)) in &self.watched {
            let (readable, writable) = (contains(&reads, number), contains(&writes, number));
            if readable || writable {
                // select(2) reports an end or an error as readable, and the runtime finds it by reading.
                ready.push((key, Ready { readable, writable, ..Ready::default() }));
            }
        }
        Ok(())
    }

    fn waker(&self) -> Waker {
        Arc::clone(&self.signal).into()
    }

    fn calls(&self) -> u64 {
        self.calls
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // The write fails only if the pair is full, and then it is already readable.
        let _ = (&self.writer).write(&[1]);
    }
}

impl fmt::Display for TooHigh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "select(2) takes descriptors below {FD_SETSIZE}, not {}", self.0)
    }
}

impl Error for TooHigh {}

/// Returns the descriptor's number, if it fits in a set.
fn number(descriptor: BorrowedFd<'_>) -> io::Result<RawFd> {
    let number = descriptor.as_raw_fd();
    if number < FD_SETSIZE { Ok(number) } else { Err(io::Error::other(TooHigh(number))) }
}

fn contains(set: &[FdSetElement], number: RawFd) -> bool {
    rustix::event::FdSetIter::new(set).any(|member| member == number)
}

/// The size of a set in POSIX. Some systems allow more.
pub(crate) const FD_SETSIZE: RawFd = 1024;
const SET: usize = FD_SETSIZE as usize / (8 * size_of::<FdSetElement>());
const _: () = assert!(SET * 8 * size_of::<FdSetElement>() == FD_SETSIZE as usize);
/// The longest wait that every system takes: some three years.
const SECONDS_MAX: u64 = 100_000_000;
