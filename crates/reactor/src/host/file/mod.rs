//! The words of file operations: what is asked of a host, and what it answers. [`crate::file`] shows them to
//! users.

mod handle;
mod job;
mod options;

pub(crate) use self::handle::Writes;
pub(crate) use self::job::NO_THREAD;
pub(crate) use self::options::PREFETCH_MAX;
pub use self::{
    handle::File,
    job::{Action, Answer, FileJob},
    options::{DirEntry, FileKind, Metadata, OpenOptions, Opened},
};
