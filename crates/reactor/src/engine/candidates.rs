//! Candidates: the available engines, in the order in which they are tried.

use std::{error::Error, fmt, io};

#[cfg(any(unix, feature = "polling"))]
use super::Calls;
use super::Engine;
#[cfg(unix)]
use super::PollCall;

/// The environment variable that names the engine.
pub const ENGINE_VARIABLE: &str = "REACTOR_ENGINE";

/// A constructor of an engine.
type OpenFn = fn() -> io::Result<Box<dyn Engine>>;

/// An ordered list of named engines. The first that opens is used, unless the caller names another.
///
/// ```
/// use reactor::engine::{Candidates, EngineError};
/// let candidates = Candidates::default();
/// let engine = candidates.open(None)?;
/// assert_eq!(candidates.names().next(), Some(engine.name()));
/// assert!(matches!(candidates.open(Some("abacus")), Err(EngineError::Unknown { .. })));
/// # Ok::<(), EngineError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Candidates(Vec<(&'static str, OpenFn)>);

impl Candidates {
    /// Puts an engine first in the list. It replaces one of the same name.
    #[must_use]
    pub fn with(mut self, name: &'static str, make: fn() -> io::Result<Box<dyn Engine>>) -> Candidates {
        self.0.retain(|candidate| candidate.0 != name);
        self.0.insert(0, (name, make));
        self
    }

    /// Returns the names, in the order in which they are tried.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|candidate| candidate.0)
    }

    /// Opens the engine of that name. Without a name, or with `auto`, opens the first that can be opened.
    ///
    /// # Errors
    /// [`EngineError`]. If the caller names an engine, no other takes its place.
    pub fn open(&self, name: Option<&str>) -> Result<Box<dyn Engine>, EngineError> {
        self.open_within(name, usize::MAX)
    }

    /// Opens one as [`Candidates::open`] does, but rejects engines whose own [memory](Engine::memory) would
    /// leave nothing of `bytes`.
    pub(crate) fn open_within(
        &self,
        name: Option<&str>,
        bytes: usize,
    ) -> Result<Box<dyn Engine>, EngineError> {
        let Some(asked) = name.filter(|name| *name != AUTO) else { return self.open_first(bytes) };
        match self.0.iter().find(|candidate| candidate.0 == asked) {
            Some((name, make)) => {
                make_within(*make, bytes).map_err(|source| EngineError::Failed { name, source })
            }
            None => Err(EngineError::Unknown { asked: asked.to_owned(), known: self.names().collect() }),
        }
    }

    /// Opens the engine that the environment variable [`ENGINE_VARIABLE`] names now. Unset or empty means
    /// `auto`.
    ///
    /// # Errors
    /// As [`Candidates::open`].
    pub fn from_environment(&self) -> Result<Box<dyn Engine>, EngineError> {
        self.open_from_environment(usize::MAX)
    }

    /// Opens the same engine, within the limit of [`Candidates::open_within`].
    pub(crate) fn open_from_environment(&self, bytes: usize) -> Result<Box<dyn Engine>, EngineError> {
        let asked = std::env::var_os(ENGINE_VARIABLE).unwrap_or_default();
        self.open_within(Some(asked.to_string_lossy().as_ref()).filter(|asked| !asked.is_empty()), bytes)
    }

    fn open_first(&self, bytes: usize) -> Result<Box<dyn Engine>, EngineError> {
        let mut tried = Vec::new();
        for (name, make) in &self.0 {
            match make_within(*make, bytes) {
                Ok(engine) => return Ok(engine),
                Err(error) => {
                    crate::log::engine_passed(name, &error);
                    tried.push((*name, error));
                }
            }
        }
        Err(EngineError::None { tried })
    }
}

impl Default for Candidates {
    /// Lists the platform's engines, best first: `epoll` where it exists, then `io_uring` if it is compiled
    /// in, then `poll`, then those of the features `mio` (Unix) and `polling` (Unix and Windows; on Windows
    /// it is the only one).
    ///
    /// With some dozens of busy connections or more, `io_uring` costs less than `epoll` (0.84 to 0.88 of its
    /// processor time for 64-byte messages). For a single connection it costs more (1.2 times). If you know
    /// your workload, name the engine.
    fn default() -> Candidates {
        Candidates(vec![
            #[cfg(any(target_os = "linux", target_os = "android"))]
            ("epoll", || Ok(Box::new(Calls::new(super::Epoll::new()?)))),
            #[cfg(all(target_os = "linux", feature = "io-uring"))]
            ("io_uring", || Ok(Box::new(super::IoUring::new()?))),
            #[cfg(unix)]
            ("poll", || Ok(Box::new(Calls::new(PollCall::new()?)))),
            #[cfg(all(unix, feature = "mio", target_pointer_width = "64"))]
            ("mio", || Ok(Box::new(Calls::new(super::Mio::new()?)))),
            #[cfg(all(feature = "polling", target_pointer_width = "64"))]
            ("polling", || Ok(Box::new(Calls::new(super::Polling::new()?)))),
        ])
    }
}

/// Makes an engine, but refuses it if its own memory would leave nothing of `bytes`.
fn make_within(make: OpenFn, bytes: usize) -> io::Result<Box<dyn Engine>> {
    let engine = make()?;
    match engine.memory() {
        memory if memory > 0 && memory >= bytes => {
            let why = format!("it holds {memory} bytes itself, and the runtime may hold {bytes} in all");
            Err(io::Error::new(io::ErrorKind::QuotaExceeded, why))
        }
        _ => Ok(engine),
    }
}

/// The error when no engine opens.
#[derive(Debug)]
#[non_exhaustive]
pub enum EngineError {
    /// The name asked for is not on the list.
    Unknown {
        /// The name.
        asked: String,
        /// The names on the list.
        known: Vec<&'static str>,
    },
    /// The engine asked for did not open.
    Failed {
        /// Its name.
        name: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// None opened, or none is compiled in. On Windows that needs the feature `polling` and 64 bits.
    None {
        /// Each candidate with the reason why it failed.
        tried: Vec<(&'static str, io::Error)>,
    },
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EngineError::Unknown { asked, known } => {
                write!(f, "there is no engine `{asked}`; there are: {AUTO}")?;
                known.iter().try_for_each(|name| write!(f, ", {name}"))
            }
            EngineError::Failed { name, source } => write!(f, "the engine `{name}` does not open: {source}"),
            EngineError::None { tried } if tried.is_empty() => {
                write!(
                    f,
                    "no engine is compiled in; on a 64-bit system the crate's feature `polling` brings one"
                )
            }
            EngineError::None { tried } => {
                write!(f, "no engine opens")?;
                tried.iter().try_for_each(|(name, error)| write!(f, "; {name}: {error}"))
            }
        }
    }
}

impl Error for EngineError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            EngineError::Failed { source, .. } => Some(source),
            EngineError::None { tried } => tried.first().map(|(_, error)| error as _),
            EngineError::Unknown { .. } => None,
        }
    }
}

/// The name of whatever opens first.
const AUTO: &str = "auto";

#[cfg(test)]
mod tests {
    use super::*;

    fn broken() -> io::Result<Box<dyn Engine>> {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }

    #[test]
    fn an_engine_asked_for_by_name_never_becomes_another() {
        let candidates = Candidates::default().with("broken", broken);
        let error = candidates.open(Some("broken")).err().expect("it does not open");
        assert!(matches!(&error, EngineError::Failed { name: "broken", .. }), "{error}");
        assert!(error.source().is_some(), "the cause is kept");
        assert!(error.to_string().contains("unsupported"), "{error} says why");
        let error = candidates.open(Some("abacus")).err().expect("it is unknown").to_string();
        for name in candidates.names().chain(["abacus", AUTO]) {
            assert!(error.contains(name), "{error} names {name}");
        }
    }

    #[test]
    fn without_a_name_the_first_that_opens_is_taken_and_all_failures_are_told() {
        let candidates = Candidates::default().with("broken", broken);
        assert_eq!(candidates.names().next(), Some("broken"));
        let expected = Candidates::default().names().next();
        for name in [None, Some(AUTO)] {
            assert_eq!(candidates.open(name).ok().map(|engine| engine.name()), expected);
        }
        for name in Candidates::default().names() {
            assert_eq!(candidates.open(Some(name)).expect(name).name(), name);
        }
        let error = Candidates(vec![("one", broken), ("two", broken)]).open(None).err().expect("none");
        let EngineError::None { tried } = &error else { panic!("{error}") };
        assert_eq!(tried.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["one", "two"]);
        assert!(error.to_string().contains("two: "), "{error}");
    }

    #[test]
    fn where_no_engine_is_compiled_in_the_error_names_the_feature_that_brings_one() {
        let none = Candidates(Vec::new());
        if cfg!(all(windows, not(feature = "polling"))) {
            assert_eq!(Candidates::default().names().count(), 0);
        }
        for name in [None, Some(AUTO)] {
            let error = none.open(name).err().expect("there is none");
            assert!(matches!(&error, EngineError::None { tried } if tried.is_empty()), "{error:?}");
            assert!(error.to_string().contains("feature `polling`"), "{error}");
        }
    }

    #[test]
    fn a_name_given_again_is_replaced() {
        let candidates = Candidates::default().with("poll", broken);
        assert_eq!(candidates.names().filter(|name| *name == "poll").count(), 1);
        assert!(matches!(candidates.open(Some("poll")), Err(EngineError::Failed { .. })));
    }
}
