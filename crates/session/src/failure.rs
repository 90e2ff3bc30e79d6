//! Any error, with its type and its causes.
//!
//! Users write handlers, codecs and layers, and these fail in ways that this crate does not know. [`Failure`]
//! takes any error by `?`, and gives it back by type. Because it converts from every error, it cannot be an
//! error itself. Code that needs a standard error calls [`Failure::as_error`] or [`Failure::into_error`].

use std::error::Error;
use std::fmt;

/// The result of a function that may fail with an error of any type.
pub type Result<T = (), E = Failure> = std::result::Result<T, E>;

/// An error of any type.
///
/// ```
/// use session::{Failure, Result};
///
/// fn parse(text: &str) -> Result<u16> {
///     Ok(text.parse()?)
/// }
///
/// let failure: Failure = parse("x").unwrap_err();
/// assert!(failure.is::<std::num::ParseIntError>());
/// ```
pub struct Failure(Box<dyn Error + Send + Sync>);

impl Failure {
    /// Returns the error as `T`, if that is its type.
    pub fn downcast_ref<T: Error + 'static>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }

    /// Turns the failure into its error.
    ///
    /// # Errors
    /// The failure itself, unchanged, if its error is not a `T`.
    pub fn downcast<T: Error + 'static>(self) -> Result<T> {
        match self.0.downcast() {
            Ok(error) => Ok(*error),
            Err(other) => Err(Failure(other)),
        }
    }

    /// Returns whether the error is a `T`.
    pub fn is<T: Error + 'static>(&self) -> bool {
        self.0.is::<T>()
    }

    /// Returns the error as a standard error, with its sources.
    pub fn as_error(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.0
    }

    /// Turns the failure into a standard error.
    pub fn into_error(self) -> Box<dyn Error + Send + Sync> {
        self.0
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure(error.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Prints the error and then each of its sources, separated by colons. Many errors already end with the text
/// of their source; then that text is not repeated.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        let mut source = self.0.source();
        while let Some(error) = source {
            let cause = error.to_string();
            if !text.ends_with(&cause) {
                text = text + ": " + &cause;
            }
            source = error.source();
        }
        f.write_str(&text)
    }
}

/// The input ended where its protocol does not allow an end: inside an item, inside a handshake, or without
/// the authentic end that a layer requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncated;

impl fmt::Display for Truncated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the input was cut: it ended where its protocol does not allow an end")
    }
}

impl Error for Truncated {}
