//! An open file, whoever holds it: the system, or a simulated disk.

use std::{
    any::Any,
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

/// An open file. A clone is the same open file; the last one that is dropped closes it.
///
/// Operations on it are asked for through [`Context::file`](crate::Context::file), so it has no methods that block.
/// Where closing may block (a network file system), [`Operation::close`](super::Operation::close) closes it elsewhere.
///
/// ```
/// use reactor::file::File;
/// let path = std::env::current_exe()?;
/// let file = File::new(std::fs::File::open(&path)?, &path);
/// assert_eq!(file.path(), path);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct File(Arc<Named>);

struct Named {
    held: Held,
    path: PathBuf,
    /// Found out once: see [`File::writes`].
    writes: std::sync::OnceLock<Writes>,
    /// Found out once: see [`File::is_plain`].
    #[cfg(all(target_os = "linux", feature = "io-uring"))]
    is_plain: std::sync::OnceLock<bool>,
}

/// Where what is written to an open file goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Writes {
    /// To its end, whatever place is named: it was opened to append.
    AtItsEnd,
    /// To the place that is named: a regular file that was not opened to append.
    AtAPlace,
    /// It has no places (a pipe, a device), or nobody tells.
    Anywhere,
}

enum Held {
    System(fs::File),
    Hosted(Box<dyn Any + Send + Sync>),
}

impl File {
    /// Takes a file of the standard library, with the name that errors are to show.
    pub fn new(file: fs::File, path: impl Into<PathBuf>) -> File {
        File::of(Held::System(file), path.into())
    }

    /// A file that only a simulated disk knows; the last drop drops `held`.
    pub fn hosted(held: impl Any + Send + Sync, path: impl Into<PathBuf>) -> File {
        File::of(Held::Hosted(Box::new(held)), path.into())
    }

    fn of(held: Held, path: PathBuf) -> File {
        File(Arc::new(Named {
            held,
            path,
            writes: std::sync::OnceLock::new(),
            #[cfg(all(target_os = "linux", feature = "io-uring"))]
            is_plain: std::sync::OnceLock::new(),
        }))
    }

    /// The path by which it was opened.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The file of the standard library; a simulated disk's has none.
    pub fn system(&self) -> Option<&fs::File> {
        match &self.0.held {
            Held::System(file) => Some(file),
            Held::Hosted(_) => None,
        }
    }

    /// Where writes to it go. Asked of the system once, whoever opened it.
    pub(crate) fn writes(&self) -> Writes {
        *self.0.writes.get_or_init(|| self.system().map_or(Writes::Anywhere, crate::sys::writes))
    }

    /// What [`File::hosted`] was given, if it was of this type.
    pub fn hosted_as<T: Any>(&self) -> Option<&T> {
        match &self.0.held {
            Held::System(_) => None,
            Held::Hosted(held) => held.downcast_ref(),
        }
    }
}

#[cfg(all(target_os = "linux", feature = "io-uring"))]
impl File {
    /// One of which [`is_plain`](crate::sys::is_plain) is known.
    pub(crate) fn known(file: fs::File, path: impl Into<PathBuf>, is_plain: bool) -> File {
        let file = File::new(file, path);
        let _ = file.0.is_plain.set(is_plain);
        file
    }

    /// Whether operations on it have a place of their own, and wait for what they need.
    pub(crate) fn is_plain(&self) -> bool {
        *self.0.is_plain.get_or_init(|| self.system().is_some_and(crate::sys::is_plain))
    }

    /// The file of the standard library, if this was the last clone; otherwise this clone is dropped.
    pub(crate) fn into_last(self) -> Option<fs::File> {
        match Arc::into_inner(self.0)?.held {
            Held::System(file) => Some(file),
            Held::Hosted(_) => None,
        }
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("File").field(&self.path()).finish()
    }
}
