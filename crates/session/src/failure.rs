//! Any error, kept with its type and its causes.
//!
//! A handler, a codec and a layer are written by users and fail in ways this crate does not know. [`Failure`] takes
//! what they return by `?` and gives it back by type. Because it takes every error it cannot be one itself; who needs
//! a standard error calls [`Failure::as_error`] or [`Failure::into_error`].

use std::error::Error;
use std::fmt;

/// The result of whatever may fail with an error of any type.
pub type Result<T = (), E = Failure> = std::result::Result<T, E>;

/// Holds an error of any type.
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
    /// The failure itself, unchanged, when its error is not a `T`.
    pub fn downcast<T: Error + 'static>(self) -> Result<T> {
        match self.0.downcast() {
            Ok(error) => Ok(*error),
            Err(other) => Err(Failure(other)),
        }
    }

    /// Says whether the error is a `T`.
    pub fn is<T: Error + 'static>(&self) -> bool {
        self.0.is::<T>()
    }

    /// Returns the error as a standard one, its sources included.
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

/// Prints the error and then each of its sources, separated by colons. Many errors end with the text of their source:
/// what was said that way is not said again.
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

/// Says that the input ended where its protocol does not allow an end: inside an item, inside a handshake, or without
/// the authentic end that a layer demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncated;

impl fmt::Display for Truncated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the input was cut: it ended where its protocol does not allow an end")
    }
}

impl Error for Truncated {}
