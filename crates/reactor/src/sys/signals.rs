//! Signals of the process: one handler, which notes them for whoever registered, and wakes through a pipe.
//!
//! Not signalfd(2): that sees a signal only while every thread of the process blocks it, and a library cannot
//! answer for threads of others. A handler sees it in whichever thread it interrupts.
//!
//! What the handler does is async-signal-safe (signal-safety(7)): atomics that are lock-free, and a write(2)
//! of one byte. Counts are in memory and the byte only wakes, so nothing is lost when the pipe is full; and
//! a child between fork and exec, whose handler writes to the same pipe, wakes the parent for nothing.
#![allow(unsafe_code)]

use std::{
    io::{self, ErrorKind},
    mem::MaybeUninit,
    os::{fd::AsRawFd as _, unix::net::UnixStream},
    ptr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
};

use libc::{c_int, c_void, siginfo_t};

/// A part of the program that wants to see some signals.
///
/// While the first of a signal lives the handler is installed; with the last one the disposition from before
/// comes back.
pub(crate) struct Registration {
    slot: usize,
    wanted: u64,
    /// Readable while something may be pending.
    reader: UnixStream,
    /// Lives as long as the reader: so a wake is never a broken pipe.
    writer: UnixStream,
}

impl Registration {
    /// Registers for the signals whose bit (number less one) is set.
    ///
    /// # Errors
    /// `QuotaExceeded` when [`REGISTRATIONS_MAX`] live; as socketpair(2) and sigaction(2) otherwise.
    pub(crate) fn new(wanted: u64) -> io::Result<Registration> {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        let mut table = table();
        let slot = table.taken.iter().position(|taken| !taken).ok_or_else(too_many)?;
        let this = &SLOTS[slot];
        this.times.iter().for_each(|times| times.store(0, SeqCst));
        this.pipe.store(writer.as_raw_fd(), SeqCst);
        // Before the handlers: a signal that is pending already comes while they are installed.
        this.wanted.store(wanted, SeqCst);
        for number in numbers(wanted) {
            if let Err(error) = table.begin(number) {
                numbers(wanted).take_while(|begun| *begun != number).for_each(|begun| table.end(begun));
                this.retire();
                return Err(error);
            }
        }
        table.taken[slot] = true;
        drop(table);
        Ok(Registration { slot, wanted, reader, writer })
    }

    /// What is readable while something may be pending.
    pub(crate) fn pipe(&self) -> &UnixStream {
        &self.reader
    }

    /// Takes the pending signal of the lowest number: which, and how often it came.
    pub(crate) fn take(&self) -> Option<(u32, u32)> {
        let times = &SLOTS[self.slot].times;
        numbers(self.wanted).find_map(|number| match times[number as usize].swap(0, SeqCst) {
            0 => None,
            count => Some((number, count)),
        })
    }

    /// Makes the pipe readable, as a signal does.
    pub(crate) fn wake(&self) {
        wake(self.writer.as_raw_fd());
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut table = table();
        numbers(self.wanted).for_each(|number| table.end(number));
        // After this no handler writes to the pipe, whose number may soon be another's.
        SLOTS[self.slot].retire();
        table.taken[self.slot] = false;
    }
}

/// What the handler knows of one registration.
struct Slot {
    /// A bit for each signal; 0: nobody is here.
    wanted: AtomicU64,
    /// Handlers that are between looking at `wanted` and having written.
    busy: AtomicU32,
    pipe: AtomicI32,
    /// By number: how often each came since it was taken.
    times: [AtomicU32; NUMBER_MAX as usize + 1],
}

impl Slot {
    const fn free() -> Slot {
        Slot {
            wanted: AtomicU64::new(0),
            busy: AtomicU32::new(0),
            pipe: AtomicI32::new(-1),
            times: [const { AtomicU32::new(0) }; NUMBER_MAX as usize + 1],
        }
    }

    /// Notes a signal, in a handler.
    fn note(&self, number: u32) {
        if self.wanted.load(SeqCst) & bit(number) == 0 {
            return;
        }
        self.busy.fetch_add(1, SeqCst);
        // Again: it may have retired between, and then waits for nobody who was not counted.
        if self.wanted.load(SeqCst) & bit(number) != 0 {
            let _ = self.times[number as usize]
                .fetch_update(SeqCst, SeqCst, |times| Some(times.saturating_add(1)));
            wake(self.pipe.load(SeqCst));
        }
        self.busy.fetch_sub(1, SeqCst);
    }

    /// Ends the noting, and waits for handlers of other threads that are at it: a few instructions and one
    /// write that does not block. Not called in a handler.
    fn retire(&self) {
        self.wanted.store(0, SeqCst);
        while self.busy.load(SeqCst) > 0 {
            std::thread::yield_now();
        }
    }
}

static SLOTS: [Slot; REGISTRATIONS_MAX] = [const { Slot::free() }; REGISTRATIONS_MAX];

/// By number: the handler from before ours, which is called after it; 0 is the default action.
static BEFORE: [AtomicUsize; NUMBER_MAX as usize + 1] =
    [const { AtomicUsize::new(libc::SIG_DFL) }; NUMBER_MAX as usize + 1];

/// Who is registered; the handler never looks at it.
static TABLE: Mutex<Table> = Mutex::new(Table {
    taken: [false; REGISTRATIONS_MAX],
    users: [0; NUMBER_MAX as usize + 1],
    before: [const { None }; NUMBER_MAX as usize + 1],
});

struct Table {
    taken: [bool; REGISTRATIONS_MAX],
    /// By number: how many registrations want it.
    users: [usize; NUMBER_MAX as usize + 1],
    /// By number: what was there before our handler, while that is installed.
    before: [Option<libc::sigaction>; NUMBER_MAX as usize + 1],
}

impl Table {
    /// One more wants the signal: the first has the handler installed.
    fn begin(&mut self, number: u32) -> io::Result<()> {
        if self.before[number as usize].is_none() {
            let before = action(number, None)?;
            BEFORE[number as usize].store(before.sa_sigaction, SeqCst);
            action(number, Some(&ours(&before)))?;
            self.before[number as usize] = Some(before);
        }
        self.users[number as usize] += 1;
        Ok(())
    }

    /// One less wants it: with the last the disposition from before comes back. Where somebody else has
    /// installed a handler over ours, both stay: theirs may call ours, which then only calls on.
    fn end(&mut self, number: u32) {
        let users = &mut self.users[number as usize];
        *users -= 1;
        if *users > 0 {
            return;
        }
        let is_ours = action(number, None).is_ok_and(|now| now.sa_sigaction == our_handler());
        if let (true, Some(before)) = (is_ours, &self.before[number as usize])
            && action(number, Some(before)).is_ok()
        {
            self.before[number as usize] = None;
        }
    }
}

fn table() -> MutexGuard<'static, Table> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The handler. Every Unix calls handlers of one and of three arguments alike.
extern "C" fn on_signal(number: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let error = errno();
    let index = number as u32;
    SLOTS.iter().for_each(|slot| slot.note(index));
    let before = BEFORE[index as usize].load(SeqCst);
    // SAFETY: `errno` gives the address of this thread's own, which lives as long as the thread.
    unsafe { *errno_address() = error };
    if before != libc::SIG_DFL && before != libc::SIG_IGN {
        // SAFETY: sigaction(2) named this as a handler of the process, so it is a function that may be called
        // with these arguments; one that takes only the number leaves the others where they are.
        let before = unsafe { std::mem::transmute::<usize, Handler>(before) };
        before(number, info, context);
    }
}

type Handler = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);

fn our_handler() -> usize {
    on_signal as *const () as usize
}

/// Our handler, with the properties of what was there that others may rely on. Interrupted calls that can be
/// resumed are.
fn ours(before: &libc::sigaction) -> libc::sigaction {
    let kept = libc::SA_ONSTACK | libc::SA_NOCLDSTOP | libc::SA_NOCLDWAIT;
    let mut action = *before;
    action.sa_sigaction = our_handler();
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | (before.sa_flags & kept);
    action
}

/// sigaction(2): what is installed, after it was replaced if there is a new one.
fn action(number: u32, new: Option<&libc::sigaction>) -> io::Result<libc::sigaction> {
    let new = new.map_or(ptr::null(), ptr::from_ref);
    let mut before = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: `new` is null or a live action whose handler is one of the process or `on_signal`, and
    // `before` is live and large enough.
    if unsafe { libc::sigaction(number as c_int, new, before.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, and filled it.
    Ok(unsafe { before.assume_init() })
}

/// Writes one byte to a pipe, whatever comes of it: when it is full it is readable already.
fn wake(pipe: c_int) {
    // SAFETY: the pointer is to one live byte. Whose number it is keeps it open: a registration, until
    // `retire` has returned.
    unsafe { libc::write(pipe, ptr::from_ref(&1_u8).cast(), 1) };
}

/// This thread's errno.
fn errno() -> c_int {
    // SAFETY: the address is that of this thread's own, which lives as long as the thread.
    unsafe { *errno_address() }
}

fn errno_address() -> *mut c_int {
    #[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
    // SAFETY: the call takes nothing and cannot fail.
    return unsafe { libc::__error() };
    #[cfg(any(target_os = "android", target_os = "netbsd", target_os = "openbsd"))]
    // SAFETY: the call takes nothing and cannot fail.
    return unsafe { libc::__errno() };
    #[cfg(any(target_os = "solaris", target_os = "illumos"))]
    // SAFETY: the call takes nothing and cannot fail.
    return unsafe { libc::___errno() };
    #[cfg(not(any(
        target_vendor = "apple",
        target_os = "freebsd",
        target_os = "android",
        target_os = "netbsd",
        target_os = "openbsd",
        target_os = "solaris",
        target_os = "illumos"
    )))]
    // SAFETY: the call takes nothing and cannot fail.
    return unsafe { libc::__errno_location() };
}

fn bit(number: u32) -> u64 {
    1 << (number - 1)
}

/// The numbers whose bit is set, the lowest first.
pub(crate) fn numbers(set: u64) -> impl Iterator<Item = u32> {
    (1..=NUMBER_MAX).filter(move |number| set & bit(*number) != 0)
}

fn too_many() -> io::Error {
    let text = format!("{REGISTRATIONS_MAX} resources of this process wait for signals already");
    io::Error::new(ErrorKind::QuotaExceeded, text)
}

/// The highest number of a signal that can be waited for: Linux has 64.
pub(crate) const NUMBER_MAX: u32 = 64;
/// How many registrations of a process live at once: the handler looks at each.
pub(crate) const REGISTRATIONS_MAX: usize = 64;
