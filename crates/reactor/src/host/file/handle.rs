//! An open file, of the system or of a simulated disk.

use std::{
    any::Any,
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

/// An open file. A clone refers to the same open file, and dropping the last clone closes it.
///
/// Operations on it go through [`Context::file`](crate::Context::file), so it has no blocking methods. If
/// closing may block (a network file system), [`Operation::close`](crate::file::Operation::close) closes it outside
/// the loop.
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
    held: FileBacking,
    path: PathBuf,
    /// Determined once; see [`File::writes`].
    writes: std::sync::OnceLock<Writes>,
    /// Determined once; see [`File::is_plain`].
    #[cfg(all(target_os = "linux", feature = "io-uring"))]
    is_plain: std::sync::OnceLock<bool>,
}

/// The position at which writes to an open file take effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Writes {
    /// At its end, whatever the offset, because it was opened to append.
    AtItsEnd,
    /// At the given offset: a regular file that was not opened to append.
    AtAPlace,
    /// It has no positions (a pipe, a device), or they are unknown.
    Anywhere,
}

enum FileBacking {
    System(fs::File),
    Hosted(Box<dyn Any + Send + Sync>),
}

impl File {
    /// Wraps a file of the standard library, with a path for error messages.
    pub fn new(file: fs::File, path: impl Into<PathBuf>) -> File {
        File::of(FileBacking::System(file), path.into())
    }

    /// Wraps a file that only a simulated disk knows. The last drop drops `held`.
    pub fn hosted(held: impl Any + Send + Sync, path: impl Into<PathBuf>) -> File {
        File::of(FileBacking::Hosted(Box::new(held)), path.into())
    }

    fn of(held: FileBacking, path: PathBuf) -> File {
        File(Arc::new(Named {
            held,
            path,
            writes: std::sync::OnceLock::new(),
            #[cfg(all(target_os = "linux", feature = "io-uring"))]
            is_plain: std::sync::OnceLock::new(),
        }))
    }

    /// Returns the path by which it was opened.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Returns the file of the standard library, or `None` on a simulated disk.
    pub fn system(&self) -> Option<&fs::File> {
        match &self.0.held {
            FileBacking::System(file) => Some(file),
            FileBacking::Hosted(_) => None,
        }
    }

    /// Returns where writes to it take effect. Asks the system once, however the file was opened.
    pub(crate) fn writes(&self) -> Writes {
        *self.0.writes.get_or_init(|| self.system().map_or(Writes::Anywhere, crate::sys::writes))
    }

    /// Returns the value that [`File::hosted`] was given, if it has this type.
    pub fn hosted_as<T: Any>(&self) -> Option<&T> {
        match &self.0.held {
            FileBacking::System(_) => None,
            FileBacking::Hosted(held) => held.downcast_ref(),
        }
    }
}

#[cfg(all(target_os = "linux", feature = "io-uring"))]
impl File {
    /// Wraps a file for which the result of [`is_plain`](crate::sys::is_plain) is known.
    pub(crate) fn known(file: fs::File, path: impl Into<PathBuf>, is_plain: bool) -> File {
        let file = File::new(file, path);
        let _ = file.0.is_plain.set(is_plain);
        file
    }

    /// Returns whether the file has positions and is in blocking mode.
    pub(crate) fn is_plain(&self) -> bool {
        *self.0.is_plain.get_or_init(|| self.system().is_some_and(crate::sys::is_plain))
    }

    /// Returns the file of the standard library if this was the last clone. Otherwise drops this clone.
    pub(crate) fn into_last(self) -> Option<fs::File> {
        match Arc::into_inner(self.0)?.held {
            FileBacking::System(file) => Some(file),
            FileBacking::Hosted(_) => None,
        }
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("File").field(&self.path()).finish()
    }
}
