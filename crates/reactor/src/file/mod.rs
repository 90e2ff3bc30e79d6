//! Regular files: operations that block, done beside the loop and told to a service when they are over.
//!
//! A file is never ready or unready: each operation on it may take as long as its disk or its server likes. So
//! operations are asked for through the [`Context`](crate::Context), performed elsewhere, and answered.
//!
//! There are three ways to ask: single [operations](Operation) by [`Context::file`](crate::Context::file), each answered
//! by a message; a [`FileReader`] or [`FileWriter`], resources that take a file as a stream is taken, with bounded
//! read-ahead and write-behind; and [`Context::send_file`](crate::Context::send_file), which moves a file to a stream.
//!
//! | operation | its answer | bytes that count | errors of its own |
//! |---|---|---|---|
//! | [`open`](Operation::open) | [`Opened`]: file, metadata, first bytes | `prefetch` | [`beneath`](OpenOptions::beneath): EXDEV, `PermissionDenied` |
//! | [`read_at`](Operation::read_at) | bytes; fewer only at the end | what is asked for | |
//! | [`read`](Operation::read) | the whole file | its limit | `FileTooLarge` above the limit |
//! | [`write_at`](Operation::write_at), [`append`](Operation::append) | nothing: all is written | what is written | ENOSPC, EDQUOT: any part may be there; `InvalidInput`: opened for the other |
//! | [`append_synced`](Operation::append_synced) | nothing: all is written and synced | what is written | the same |
//! | [`set_len`](Operation::set_len), [`sync`](Operation::sync) | nothing | none | a failed sync: see durability |
//! | [`stat`](Operation::stat), [`stat_file`](Operation::stat_file) | [`Metadata`] | none | |
//! | [`rename`](Operation::rename), [`remove`](Operation::remove), [`create_directory`](Operation::create_directory), [`sync_directory`](Operation::sync_directory) | nothing | none | |
//! | [`read_directory`](Operation::read_directory) | [`Entry`]s, sorted by name | none: bounded by their number | `FileTooLarge` above it |
//! | [`replace`](Operation::replace) | nothing: the new content is there, for good | what is written | the old content stays |
//! | [`close`](Operation::close) | nothing | none | |
//!
//! # The contract
//!
//! **Where.** The engine may take an operation ([`Engine::run_file`](crate::engine::Engine::run_file)): a simulated
//! world does, and asks its own disk; `io_uring` does, and asks the kernel. Otherwise threads of the runtime perform it
//! which do nothing else ([`Limits::file_threads`](crate::Limits::file_threads)): files and offloaded work do not wait
//! for each other.
//!
//! On `io_uring` what is in memory is read and copied in the loop's thread, which spares another thread and two wakes;
//! what has to wait for a disk waits in the kernel. To threads are still left: reading a directory,
//! [`replace`](Operation::replace), files that have no place of their own (pipes), were opened so that they do not
//! wait, or may have nothing to read (`/proc/kmsg`), the part of a [`FileTransfer`] that sendfile(2) moves, and what an
//! older kernel does not know.
//!
//! **When.** What a turn asks for begins at its end, or when handlers are flushed in the middle of a long one; what is
//! asked for outside of turns begins at once. Operations begin in the order asked, as far as there are threads.
//!
//! **Once.** Each operation that was taken is answered exactly once, as a message or to its resource, unless the
//! service has ended before. An answer comes in a later turn, never within the call that asked.
//!
//! **Order.** Two operations that are out at once have none, also on one file: whoever needs one asks for the second
//! when the first is answered. [`FileReader`], [`FileWriter`] and [`FileTransfer`] have one operation out at a time.
//!
//! **Bounds.** Operations that are out, their threads and their bytes each have a limit of the runtime
//! ([`Limits`](crate::Limits): 1,024, 4 and 64 MiB by default). An operation is out from the call that asks until its
//! answer was handed over, and its bytes count for so long. At a limit it comes back as
//! [`Refused::Full`](crate::Refused::Full), and one that could never fit as
//! [`Refused::TooLarge`](crate::Refused::TooLarge); a resource waits its turn instead.
//!
//! **Cancelling.** No system takes back a read that waits for a disk. An operation goes on after its service or
//! resource has ended, and its answer is dropped. One that hangs (a stalled mount) keeps its thread, and delays
//! operations on other files only when all threads hang; it never delays the loop or other resources, and a stop at most
//! until its grace is over: what still runs then is left, and counted in
//! [`Receipt::file_operations_running`](crate::Receipt::file_operations_running). An engine that took it asks the kernel
//! for its end when it is dropped, and waits at most a second for that.
//!
//! **Errors** (ENOSPC, EIO, ..) are those of that operation, and end that resource only. They name the operation and
//! the path; [`Error::io`](crate::Error::io) is the system's. What nothing performs any more is answered with an error, too:
//! no thread could be started, or the runtime's end came first (then nobody hears it).
//!
//! **Signals.** None: at RLIMIT_FSIZE a write fails with EFBIG, and a named pipe that nobody reads with EPIPE, whatever the
//! dispositions of SIGXFSZ and SIGPIPE are.
//!
//! **Ends.** A [`close`](crate::Context::close) lets what a writer or a transfer has still to do be done, a stop within its
//! grace likewise; [`abort`](crate::Context::abort) does not. A reader ends at once by both. An operation that was asked for
//! alone keeps [`run`](crate::Runtime::run) from returning by itself, and a stop from being over, until it was answered or
//! the grace is over: then it is dropped before it began, or left running, and counted.
//!
//! **Durability.** What was written is safe from a power cut when a [`sync`](Operation::sync) that was asked for
//! after the write was answered was itself answered with `Ok`; a name that was made, moved or removed is safe after
//! [`sync_directory`](Operation::sync_directory). After a failed sync nothing is known about what was written
//! before it: the system may have dropped it, and a second sync may say `Ok` (fsync(2)).
//! [`replace`](Operation::replace) does all of it as one operation.

mod ask;
mod held;
mod job;
mod operation;
mod options;
mod pool;
mod reader;
mod replace;
mod sendfile;
mod system;
mod transfer;
mod writer;

pub(crate) use self::held::Writes;
pub(crate) use self::pool::{Answered, Files};
#[cfg(all(target_os = "linux", feature = "io-uring"))]
pub(crate) use self::system::PREFETCH_MAX;
pub use self::{
    held::File,
    job::{Action, Answer, FileJob},
    operation::Operation,
    options::{Entry, FileKind, Metadata, OpenOptions, Opened},
    reader::{FileEvent, FileReader},
    transfer::FileTransfer,
    writer::{FileWriter, WriterEvent},
};
