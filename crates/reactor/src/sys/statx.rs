//! statx(2), as an io_uring operation and as a call that never waits for a server; and the blocking mode of
//! open files.
#![allow(unsafe_code)]

use std::{
    fs::File,
    io, mem,
    os::fd::{AsRawFd as _, BorrowedFd},
    time::{Duration, SystemTime},
};

use super::file::look;
use crate::host::file::{FileKind, Metadata};

/// The fields to request: all those of [`Metadata`].
pub(crate) const STATX_MASK: u32 = libc::STATX_TYPE | libc::STATX_SIZE | libc::STATX_MTIME;

/// Makes a record for the kernel to fill.
pub(crate) fn statx_record() -> Box<libc::statx> {
    // SAFETY: the record consists of numbers, for which zero is valid.
    Box::new(unsafe { mem::zeroed() })
}

/// Converts a record that the kernel has filled.
pub(crate) fn metadata_of(record: &libc::statx) -> Metadata {
    let kind = match u32::from(record.stx_mode) & libc::S_IFMT {
        libc::S_IFREG => FileKind::Regular,
        libc::S_IFDIR => FileKind::Directory,
        libc::S_IFLNK => FileKind::Link,
        _ => FileKind::Other,
    };
    let is_dated = record.stx_mask & libc::STATX_MTIME != 0;
    let modified = if is_dated { time(record.stx_mtime.tv_sec, record.stx_mtime.tv_nsec) } else { None };
    Metadata { len: record.stx_size, kind, modified }
}

/// Converts a timestamp. Its nanoseconds count forwards, also before 1970.
fn time(seconds: i64, nanos: u32) -> Option<SystemTime> {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let second = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(whole)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(whole)
    };
    second?.checked_add(Duration::from_nanos(nanos.into()))
}

/// Returns this machine's knowledge of an open file, without asking a file server. Right after opening, that
/// is the server's latest answer.
///
/// # Errors
/// As statx(2).
pub(crate) fn stat_known(file: &File) -> io::Result<Metadata> {
    let mut record = statx_record();
    let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
    // SAFETY: the path ends with a zero, and the record is a live value of the type that the call fills.
    let result = unsafe {
        libc::syscall(libc::SYS_statx, file.as_raw_fd(), c"".as_ptr(), flags, STATX_MASK, &raw mut *record)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(metadata_of(&record)) }
}

/// Returns whether a file has positions and is in blocking mode. A kernel that performs operations on it
/// elsewhere then never blocks the thread that submits them.
pub(crate) fn is_plain(file: &File) -> bool {
    // SAFETY: the call moves nothing and touches no memory.
    let place = unsafe { libc::lseek(file.as_raw_fd(), 0, libc::SEEK_CUR) };
    place >= 0 && flags(file).is_ok_and(|flags| flags & libc::O_NONBLOCK == 0)
}

/// Returns whether a file is always ready to be read and written, as POSIX requires of regular files. Another
/// file may never have anything to read. This asks no file server.
pub(crate) fn is_always_ready(file: BorrowedFd<'_>) -> bool {
    let both = libc::POLLIN | libc::POLLOUT;
    look(file, both).is_ok_and(|events| events & both == both)
}

/// Puts a file that was opened with these flags into blocking mode.
///
/// # Errors
/// As fcntl(2).
pub(crate) fn make_waiting(file: &File, opened_with: u64) -> io::Result<()> {
    // F_SETFL can set other flags, too, but the library never opens a file with them.
    let flags = opened_with as libc::c_int & libc::O_APPEND;
    // SAFETY: the descriptor is open, and the argument is the number that the command takes.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn flags(file: &File) -> io::Result<libc::c_int> {
    // SAFETY: the descriptor is open, and the command takes no argument.
    let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    if flags < 0 { Err(io::Error::last_os_error()) } else { Ok(flags) }
}

#[cfg(test)]
mod tests {
    use std::io::pipe;

    use super::*;

    #[test]
    fn it_tells_the_same_as_the_standard_library() {
        for path in ["/proc/self/exe", "/", "/dev/null"] {
            let file = File::open(path).expect("Linux has it");
            let (known, theirs) = (stat_known(&file).expect("open"), file.metadata().expect("open"));
            assert_eq!(known.modified, theirs.modified().ok(), "{path}");
            assert_eq!(known.len, theirs.len(), "{path}");
            let kind = if theirs.is_file() {
                FileKind::Regular
            } else if theirs.is_dir() {
                FileKind::Directory
            } else {
                FileKind::Other
            };
            assert_eq!(known.kind, kind, "{path}");
        }
    }

    #[test]
    fn a_file_that_may_have_nothing_to_read_is_not_always_ready() {
        use std::os::fd::AsFd as _;
        for (path, is_ready) in
            [("/proc/self/exe", true), ("/proc/self/status", true), ("/proc/self/mounts", false)]
        {
            let file = File::open(path).expect("Linux has it");
            assert_eq!(is_always_ready(file.as_fd()), is_ready, "{path}");
        }
    }

    #[test]
    fn nanoseconds_count_forwards_before_1970_too() {
        let at = time(-2, 250_000_000).expect("it is a moment");
        let before = SystemTime::UNIX_EPOCH.duration_since(at).expect("before");
        assert_eq!(before, Duration::from_millis(1750));
    }

    #[test]
    fn what_does_not_wait_or_has_no_place_is_not_plain() {
        let (reader, _writer) = pipe().expect("a pipe");
        assert!(!is_plain(&std::os::fd::OwnedFd::from(reader).into()), "it has no place");
        let mut options = std::fs::OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
        let file = options.read(true).open("/proc/self/exe").expect("it is there");
        assert!(!is_plain(&file));
        make_waiting(&file, libc::O_NONBLOCK as u64).expect("its flags can be set");
        assert!(is_plain(&file));
    }
}
