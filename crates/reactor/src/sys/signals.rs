//! Signals of the process: one handler counts them for all registrations, and wakes their owners through a
//! pipe.
//!
//! signalfd(2) does not work here. It sees a signal only if every thread of the process blocks it, and a
//! library has no control over other threads. A handler runs in whichever thread the signal interrupts.
//!
//! The handler is async-signal-safe (signal-safety(7)), because it uses only lock-free atomics and a write(2)
//! of one byte. Counts are in memory and the byte only wakes, so nothing is lost if the pipe is full. In a
//! child between fork and exec, the handler writes to the same pipe, which wakes the parent for nothing.
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

/// A part of the program that receives some signals.
///
/// The handler of a signal is installed while at least one registration wants it. After the last one, the
/// previous disposition is restored.
pub(crate) struct Registration {
    slot: usize,
    wanted: u64,
    /// Readable while something may be pending.
    reader: UnixStream,
    /// Lives as long as the reader, so a wake never meets a broken pipe.
    writer: UnixStream,
}

impl Registration {
    /// Registers for the signals whose bit (number minus one) is set.
    ///
    /// # Errors
    /// `QuotaExceeded` if there are [`REGISTRATIONS_MAX`] already; otherwise as socketpair(2) and
    /// sigaction(2).
    pub(crate) fn new(wanted: u64) -> io::Result<Registration> {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        let mut table = table();
        let slot = table.taken.iter().position(|taken| !taken).ok_or_else(too_many)?;
        let this = &SLOTS[slot];
        this.times.iter().for_each(|times| times.store(0, SeqCst));
        this.pipe.store(writer.as_raw_fd(), SeqCst);
        // Set this before installing the handlers, because a signal that is already pending may arrive during
        // the installation.
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

    /// Returns the socket that is readable while something may be pending.
    pub(crate) fn pipe(&self) -> &UnixStream {
        &self.reader
    }

    /// Takes the pending signal with the lowest number, and returns its number and count.
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
        // After this no handler writes to the pipe. Its number may soon belong to another descriptor.
        SLOTS[self.slot].retire();
        table.taken[self.slot] = false;
    }
}

/// The handler's view of one registration.
struct RegistrationSlot {
    /// A bit for each signal; 0 if the slot is free.
    wanted: AtomicU64,
    /// The number of handlers between their first look at `wanted` and the end of their write.
    busy: AtomicU32,
    pipe: AtomicI32,
    /// The count of each signal since it was last taken, by number.
    times: [AtomicU32; NUMBER_MAX as usize + 1],
}

impl RegistrationSlot {
    const fn free() -> RegistrationSlot {
        RegistrationSlot {
            wanted: AtomicU64::new(0),
            busy: AtomicU32::new(0),
            pipe: AtomicI32::new(-1),
            times: [const { AtomicU32::new(0) }; NUMBER_MAX as usize + 1],
        }
    }

    /// Counts a signal. Called in a handler.
    fn note(&self, number: u32) {
        if self.wanted.load(SeqCst) & bit(number) == 0 {
            return;
        }
        self.busy.fetch_add(1, SeqCst);
        // Check again. The slot may have retired before it saw this handler in `busy`, and then does not wait
        // for it.
        if self.wanted.load(SeqCst) & bit(number) != 0 {
            let _ = self.times[number as usize]
                .fetch_update(SeqCst, SeqCst, |times| Some(times.saturating_add(1)));
            wake(self.pipe.load(SeqCst));
        }
        self.busy.fetch_sub(1, SeqCst);
    }

    /// Stops the counting, and waits for handlers in other threads that are doing it. That takes a few
    /// instructions and one non-blocking write. Must not be called in a handler.
    fn retire(&self) {
        self.wanted.store(0, SeqCst);
        while self.busy.load(SeqCst) > 0 {
            std::thread::yield_now();
        }
    }
}

static SLOTS: [RegistrationSlot; REGISTRATIONS_MAX] = [const { RegistrationSlot::free() }; REGISTRATIONS_MAX];

/// The handler from before ours by number. Our handler calls it afterwards. 0 is the default action.
static BEFORE: [AtomicUsize; NUMBER_MAX as usize + 1] =
    [const { AtomicUsize::new(libc::SIG_DFL) }; NUMBER_MAX as usize + 1];

/// The registrations. The handler never uses this table.
static TABLE: Mutex<Registrations> = Mutex::new(Registrations {
    taken: [false; REGISTRATIONS_MAX],
    users: [0; NUMBER_MAX as usize + 1],
    before: [const { None }; NUMBER_MAX as usize + 1],
});

struct Registrations {
    taken: [bool; REGISTRATIONS_MAX],
    /// How many registrations want each signal, by number.
    users: [usize; NUMBER_MAX as usize + 1],
    /// The disposition from before our handler by number, while our handler is installed.
    before: [Option<libc::sigaction>; NUMBER_MAX as usize + 1],
}

impl Registrations {
    /// Adds a registration for the signal, and installs the handler for the first one.
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

    /// Removes a registration for the signal. After the last one, it restores the previous disposition. If
    /// other code has installed a handler over ours, both stay. Theirs may call ours, which then only calls
    /// the previous handler.
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

fn table() -> MutexGuard<'static, Registrations> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The signal handler. Every Unix calls handlers with one and with three parameters in the same way.
extern "C" fn on_signal(number: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let error = errno();
    let index = number as u32;
    SLOTS.iter().for_each(|slot| slot.note(index));
    let before = BEFORE[index as usize].load(SeqCst);
    // SAFETY: the address is that of this thread's own errno, which lives as long as the thread.
    unsafe { *errno_address() = error };
    if before != libc::SIG_DFL && before != libc::SIG_IGN {
        // SAFETY: sigaction(2) returned this as a handler of the process, so calling it with these arguments
        // is valid. A handler with one parameter ignores the others.
        let before = unsafe { std::mem::transmute::<usize, Handler>(before) };
        before(number, info, context);
    }
}

type Handler = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);

fn our_handler() -> usize {
    on_signal as *const () as usize
}

/// Builds the action for our handler. It keeps the flags of the previous action that other code may rely on,
/// and resumes interrupted system calls where possible.
fn ours(before: &libc::sigaction) -> libc::sigaction {
    let kept = libc::SA_ONSTACK | libc::SA_NOCLDSTOP | libc::SA_NOCLDWAIT;
    let mut action = *before;
    action.sa_sigaction = our_handler();
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | (before.sa_flags & kept);
    action
}

/// Calls sigaction(2), and returns the previous action. Replaces it only if there is a new one.
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

/// Writes one byte to a pipe and ignores errors, because a full pipe is readable already.
fn wake(pipe: c_int) {
    // SAFETY: the pointer is to one live byte. The registration that owns this descriptor keeps it open until
    // `retire` has returned.
    unsafe { libc::write(pipe, ptr::from_ref(&1_u8).cast(), 1) };
}

/// Returns this thread's errno.
fn errno() -> c_int {
    // SAFETY: the address is that of this thread's own errno, which lives as long as the thread.
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

/// Iterates over the numbers whose bit is set, lowest first.
pub(crate) fn numbers(set: u64) -> impl Iterator<Item = u32> {
    (1..=NUMBER_MAX).filter(move |number| set & bit(*number) != 0)
}

fn too_many() -> io::Error {
    let text = format!("{REGISTRATIONS_MAX} resources of this process wait for signals already");
    io::Error::new(ErrorKind::QuotaExceeded, text)
}

/// The highest signal number. Linux has 64.
pub(crate) const NUMBER_MAX: u32 = 64;
/// The most registrations in a process. The handler looks at each of them.
pub(crate) const REGISTRATIONS_MAX: usize = 64;
