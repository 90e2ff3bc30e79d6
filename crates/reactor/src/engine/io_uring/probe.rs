//! Detection of the kernel's abilities: opens the ring with the best flags, and checks the operations that
//! the engine needs.

use std::{error::Error, fmt, io};

use io_uring::{Builder, IoUring, Probe, opcode};

use super::options::{IoUringOptions, Operations};

/// The features that the engine `io_uring` needs and that this kernel, or a sandbox around the program, does
/// not have.
///
/// It is inside the [`io::Error`] with which the engine fails to open. The error's kind is then
/// `Unsupported`.
///
/// ```
/// use reactor::engine::{IoUring, Missing};
///
/// if let Err(error) = IoUring::new()
///     && let Some(missing) = error.get_ref().and_then(|inner| inner.downcast_ref::<Missing>())
/// {
///     println!("{} is missing", missing.what().join(", "));
/// }
/// ```
#[derive(Debug)]
pub struct Missing {
    what: Vec<&'static str>,
    cause: Option<io::Error>,
}

impl Missing {
    /// Returns the names of the missing system calls, features and operations.
    pub fn what(&self) -> &[&'static str] {
        &self.what
    }

    fn refusal(what: Vec<&'static str>, cause: Option<io::Error>) -> io::Error {
        io::Error::new(io::ErrorKind::Unsupported, Missing { what, cause })
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the kernel has no {}", self.what.join(", "))?;
        let Some(cause) = &self.cause else { return Ok(()) };
        write!(f, ": {cause}")?;
        let disabled = std::fs::read_to_string(DISABLED).ok();
        let why = cause.raw_os_error().and_then(|number| why(number, disabled.as_deref()));
        why.map_or(Ok(()), |why| write!(f, "; {why}"))
    }
}

impl Error for Missing {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_ref().map(|cause| cause as _)
    }
}

/// Explains why a ring is refused with this error, if known. `disabled` is the content of [`DISABLED`].
fn why(number: i32, disabled: Option<&str>) -> Option<&'static str> {
    match (number, disabled.map(str::trim)) {
        (libc::ENOSYS, _) => Some(
            "it was built without io_uring, is older than 5.1, or a filter of system calls (seccomp) hides it",
        ),
        (libc::EPERM | libc::EACCES, Some("2")) => {
            Some("the setting kernel.io_uring_disabled is 2: no process may use it")
        }
        (libc::EPERM | libc::EACCES, Some("1")) => Some(
            "the setting kernel.io_uring_disabled is 1: only processes with CAP_SYS_ADMIN and members of \
             kernel.io_uring_group may use it",
        ),
        (libc::EPERM | libc::EACCES, _) => Some(
            "a filter of system calls (seccomp) or a security module refuses it, as containers do by default",
        ),
        (libc::ENOMEM, _) => {
            Some("the queues are too large for the limit of locked memory (ulimit -l), or memory is short")
        }
        (libc::EMFILE | libc::ENFILE, _) => Some("no descriptor is free (ulimit -n)"),
        _ => None,
    }
}

/// The file operations that a kernel has, by number. None by default.
#[derive(Clone, Copy, Default)]
pub(super) struct Known(u64);

impl Known {
    /// Collects all operations that the kernel reports.
    fn of(probe: &Probe) -> Known {
        Known(
            (0..u64::BITS as u8)
                .filter(|code| probe.is_supported(*code))
                .fold(0, |all, code| all | 1 << code),
        )
    }

    pub(super) fn has(self, code: u8) -> bool {
        u32::from(code) < u64::BITS && self.0 & 1 << code != 0
    }

    /// Returns a copy without one of them.
    #[cfg(test)]
    pub(super) fn without(self, code: u8) -> Known {
        Known(self.0 & !(1 << code))
    }
}

/// Makes the ring. Returns which of the wanted operations it has, and which file operations.
///
/// # Errors
/// [`Missing`] inside; otherwise as io_uring_setup(2), for example ENOMEM or EMFILE.
pub(super) fn open(options: &IoUringOptions) -> io::Result<(IoUring, Operations, Known)> {
    let (ring, is_in_one_thread) = build(options)?;
    let parameters = ring.params();
    let features = [
        (parameters.is_feature_nodrop(), "completions that are never dropped"),
        (parameters.is_feature_submit_stable(), "stable submissions"),
        (parameters.is_feature_fast_poll(), "internal polling"),
        (parameters.is_feature_ext_arg(), "timeouts of io_uring_enter(2)"),
    ];
    let mut missing: Vec<_> = features.iter().filter(|(has, _)| !has).map(|(_, name)| *name).collect();
    let mut probe = Probe::new();
    if let Err(cause) = ring.submitter().register_probe(&mut probe) {
        missing.push("probe of operations");
        return Err(Missing::refusal(missing, Some(cause)));
    }
    let needed = [
        (opcode::PollAdd::CODE, "IORING_OP_POLL_ADD"),
        (opcode::AsyncCancel::CODE, "IORING_OP_ASYNC_CANCEL"),
        (opcode::Read::CODE, "IORING_OP_READ"),
    ];
    missing.extend(needed.iter().filter(|(code, _)| !probe.is_supported(*code)).map(|(_, name)| *name));
    if !missing.is_empty() {
        return Err(Missing::refusal(missing, None));
    }
    let wanted = options.operations;
    let operations = Operations {
        accept: wanted.accept && probe.is_supported(opcode::AcceptMulti::CODE),
        receive: wanted.receive && probe.is_supported(opcode::RecvMulti::CODE),
        pieces: wanted.pieces && is_in_one_thread,
        send: wanted.send
            && probe.is_supported(opcode::Send::CODE)
            && probe.is_supported(opcode::SendMsg::CODE),
        read: wanted.read && probe.is_supported(opcode::ReadMulti::CODE),
        files: wanted.files,
    };
    let known = if wanted.files { Known::of(&probe) } else { Known::default() };
    Ok((ring, operations, known))
}

/// Makes the ring with as many flags as the kernel has. Returns whether these are all.
fn build(options: &IoUringOptions) -> io::Result<(IoUring, bool)> {
    let entries = options.entries.clamp(2, ENTRIES_MAX);
    let completions = options.completions.clamp(entries * 2, ENTRIES_MAX * 2);
    for (at, flags) in [FLAGS, FLAGS_6_0, FLAGS_5_19, |_: &mut Builder| ()].into_iter().enumerate() {
        let mut builder = IoUring::builder();
        builder.dontfork().setup_clamp().setup_cqsize(completions);
        flags(&mut builder);
        match builder.build(entries) {
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {}
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EPERM | libc::EACCES)) => {
                return Err(Missing::refusal(vec!["io_uring_setup(2)"], Some(e)));
            }
            Err(e) => return Err(refused(e)),
            Ok(ring) => return Ok((ring, at == 0)),
        }
    }
    Err(Missing::refusal(vec!["completion queue of a chosen size"], None))
}

/// Explains a refusal for lack of something that may be available later. Keeps the kind.
fn refused(error: io::Error) -> io::Error {
    let why = error.raw_os_error().and_then(|number| why(number, None)).unwrap_or("nothing more is known");
    io::Error::new(error.kind(), format!("io_uring_setup(2): {error}; {why}"))
}

type SetFlags = fn(&mut Builder);
/// One thread makes all calls, and the kernel finishes work for the ring where that thread waits (Linux 6.1).
const FLAGS: SetFlags = |builder| {
    builder.setup_submit_all().setup_single_issuer().setup_defer_taskrun();
};
/// The kernel finishes work for the ring in any call of that thread (Linux 6.0).
const FLAGS_6_0: SetFlags = |builder| {
    builder.setup_submit_all().setup_coop_taskrun().setup_single_issuer();
};
/// Linux 5.19.
const FLAGS_5_19: SetFlags = |builder| {
    builder.setup_submit_all().setup_coop_taskrun();
};

/// The kernel's setting of who may use io_uring (Linux 6.6).
const DISABLED: &str = "/proc/sys/kernel/io_uring_disabled";
/// The most entries of a submission queue that a kernel makes.
const ENTRIES_MAX: u32 = 1 << 15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_that_does_not_open_says_why() {
        for (number, disabled, word) in [
            (libc::ENOSYS, None, "seccomp"),
            (libc::EPERM, None, "seccomp"),
            (libc::EPERM, Some("0\n"), "seccomp"),
            (libc::EPERM, Some("1\n"), "io_uring_disabled is 1"),
            (libc::EACCES, Some("2\n"), "io_uring_disabled is 2"),
            (libc::ENOMEM, None, "locked memory"),
            (libc::EMFILE, None, "ulimit -n"),
        ] {
            let text = why(number, disabled).expect("it is known");
            assert!(text.contains(word), "{text}");
        }
        assert_eq!(why(libc::EINVAL, None), None);
        let missing = Missing::refusal(vec!["a call"], Some(io::Error::from_raw_os_error(libc::ENOSYS)));
        assert!(
            missing.to_string().contains("no a call") && missing.to_string().contains("seccomp"),
            "{missing}"
        );
        let short = refused(io::Error::from_raw_os_error(libc::ENOMEM));
        assert_eq!(short.kind(), io::ErrorKind::OutOfMemory);
        assert!(short.to_string().contains("locked memory"), "{short}");
    }
}
