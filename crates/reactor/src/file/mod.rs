//! Regular files: blocking operations that run outside the loop, and report to a service when they are done.
//!
//! A file is never ready or unready, because each operation may take as long as its disk or its server does.
//! So a service submits operations through the [`Context`](crate::Context), other threads or the engine
//! perform them, and the service gets the answers.
//!
//! There are three ways to use files. Single [operations](Operation) go through
//! [`Context::file`](crate::Context::file), and a message answers each. A [`FileReader`] or [`FileWriter`] is
//! a resource that treats a file like a stream, with bounded read-ahead and write-behind.
//! [`Context::send_file`](crate::Context::send_file) moves a file to a stream.
//!
//! | operation | its answer | bytes that count | specific errors |
//! |---|---|---|---|
//! | [`open`] | [`Opened`]: also its first bytes | `prefetch` | [`beneath`]: EXDEV, `PermissionDenied` |
//! | [`read_at`] | bytes; fewer only at the file's end | the requested ones | |
//! | [`read`] | the whole file | its limit | `FileTooLarge` above the limit |
//! | [`write_at`], [`append`] | nothing: all is written | the written ones | see below |
//! | [`append_synced`] | nothing: all is written and synced | the written ones | see below |
//! | [`set_len`], [`sync`] | nothing | none | a failed sync: see durability |
//! | [`stat`], [`stat_file`] | [`Metadata`] | none | |
//! | [`rename`], [`remove`], [`create_directory`], [`sync_directory`] | nothing | none | |
//! | [`read_directory`] | [`DirEntry`]s, sorted by name | none | `FileTooLarge` above its limit of entries |
//! | [`replace`] | nothing: the new content is there, durably | the written ones | the old content stays |
//! | [`close`] | nothing | none | |
//!
//! After an error of a write (ENOSPC, EDQUOT), any part of the bytes may be in the file. The error is
//! `InvalidInput` if the file was opened to append but the write names an offset, or the other way round.
//!
//! [`open`]: Operation::open
//! [`beneath`]: OpenOptions::beneath
//! [`read_at`]: Operation::read_at
//! [`read`]: Operation::read
//! [`write_at`]: Operation::write_at
//! [`append`]: Operation::append
//! [`append_synced`]: Operation::append_synced
//! [`set_len`]: Operation::set_len
//! [`sync`]: Operation::sync
//! [`stat`]: Operation::stat
//! [`stat_file`]: Operation::stat_file
//! [`rename`]: Operation::rename
//! [`remove`]: Operation::remove
//! [`create_directory`]: Operation::create_directory
//! [`sync_directory`]: Operation::sync_directory
//! [`read_directory`]: Operation::read_directory
//! [`replace`]: Operation::replace
//! [`close`]: Operation::close
//!
//! # The contract
//!
//! **Where.** The host may take an operation ([`Host::run_file`](crate::host::Host::run_file)). A
//! simulated world does, and asks its own disk. `io_uring` does, and asks the kernel. Otherwise threads of
//! the runtime perform it. They do nothing else ([`Limits::file_threads`](crate::Limits::file_threads)), so
//! files and offloaded work do not wait for each other.
//!
//! On `io_uring`, the loop's thread reads and copies data that is in memory, which saves another thread and
//! two wakes. The kernel waits for the disk if it must. Some work still goes to threads: reading a directory,
//! [`replace`], the part of a [`FileTransfer`] that sendfile(2) moves, and any operation
//! that an older kernel does not know. So do operations on files that have no positions (pipes), that were
//! opened in non-blocking mode, or that may have nothing to read (`/proc/kmsg`).
//!
//! **When.** An operation that is submitted in a turn begins at the turn's end, or at a flush in the middle
//! of a long turn. Outside of turns it begins at once. Operations begin in the order of submission, as far as
//! there are threads.
//!
//! **Once.** Each accepted operation is answered exactly once, by a message or to its resource, unless the
//! service has ended before. The answer comes in a later turn, never within the submitting call.
//!
//! **Order.** Two operations in flight have no order, not even on the same file. For an order, submit the
//! second one when the first is answered. [`FileReader`], [`FileWriter`] and [`FileTransfer`] have one
//! operation in flight at a time.
//!
//! **Bounds.** The operations in flight, their threads and their bytes each have a limit in the runtime
//! ([`Limits`](crate::Limits): 1,024, 4 and 64 MiB by default). An operation is in flight from the submitting
//! call until its answer has been delivered, and its bytes count for that time. At a limit the call returns
//! [`Refused::Full`](crate::Refused::Full), and for an operation that can never fit,
//! [`Refused::TooLarge`](crate::Refused::TooLarge). A resource waits for its turn instead. The turns come in
//! the order of asking, and one that is not used, because its resource has ended or is paused, passes on to the
//! next. An operation that needs many bytes is not overtaken by smaller ones of other resources.
//!
//! **Cancelling.** No system can take back a read that waits for a disk. An operation goes on after its
//! service or resource has ended, and its answer is dropped. An operation that hangs (a stalled mount) keeps
//! its thread. It delays operations on other files only if all threads hang. It never delays the loop or
//! other resources, and a stop only until its grace is over. Operations that still run then are abandoned,
//! and counted in [`Receipt::file_operations_running`](crate::Receipt::file_operations_running). An engine
//! with operations in flight asks the kernel to cancel them when it is dropped, and waits for that for at
//! most a second.
//!
//! **Errors** (ENOSPC, EIO and others) concern only their operation, and end only their resource. They name
//! the operation and the path. [`Error::io`](crate::Error::io) returns the system's error. An operation that
//! nothing performs any more is answered with an error as well: because no thread could be started, or
//! because the runtime ended first (then nobody receives it).
//!
//! **Signals.** Operations raise none. At RLIMIT_FSIZE a write fails with EFBIG, and a write to a named pipe
//! without readers with EPIPE, whatever the dispositions of SIGXFSZ and SIGPIPE are.
//!
//! **Ends.** A [`close`](crate::Context::close) lets a writer or a transfer finish its work, and so does a
//! stop within its grace. [`abort`](crate::Context::abort) does not. A reader ends at once in both cases. A
//! single operation keeps [`run`](crate::Runtime::run) from returning by itself, and delays the end of a
//! stop, until it is answered or the grace is over. After the grace it is either dropped before it began, or
//! left running, and counted.
//!
//! **Durability.** Written data is safe from a power cut after two steps: the write was answered, and then a
//! [`sync`] submitted after that was answered with `Ok`. A name that was created, moved or
//! removed is safe after [`sync_directory`]. After a failed sync, nothing is known
//! about earlier writes, because the system may have dropped them, and a second sync may report `Ok`
//! (fsync(2)). [`replace`] does all of this as one operation.

mod in_flight;
mod operation;
mod reader;
mod replace;
mod sendfile;
mod submit;
mod system;
mod transfer;
mod waiting;
mod writer;

use std::{any::Any, collections::VecDeque};

pub(crate) use self::in_flight::{Answered, FilesInFlight};
pub(crate) use self::submit::submit;
pub(crate) use self::transfer::{begin as begin_transfer, hold_end};
pub use self::{
    operation::Operation,
    reader::{FileEvent, FileReader},
    transfer::FileTransfer,
    writer::{FileWriter, WriterEvent},
};

pub use crate::host::file::{
    Action, Answer, DirEntry, File, FileJob, FileKind, Metadata, OpenOptions, Opened,
};

/// Why a range is refused.
const BACKWARDS: &str = "the range ends before it begins";
/// Why a file is refused after the end of a run.
const OVER: &str = "the runtime has run to its end: make a new one to use files";

/// Takes the next answer from a typed queue.
fn next_landed<T: 'static>(queue: &mut dyn Any) -> Option<T> {
    let queue: &mut VecDeque<T> = queue.downcast_mut().expect("a typed queue keeps the type it was made for");
    queue.pop_front()
}
