//! Reads the variables that a supervisor sets.

use std::{ffi::OsString, fmt, io, str::FromStr};

use crate::error::Error;

/// Looks variables up in the process's environment, or in a test's.
pub(super) struct Environment<'a> {
    pub(super) lookup: &'a dyn Fn(&str) -> Option<OsString>,
    /// The number of this process.
    pub(super) process: u32,
}

impl Environment<'_> {
    /// Returns the environment of the process.
    pub(super) fn of_process() -> Environment<'static> {
        Environment { lookup: &|name| std::env::var_os(name), process: std::process::id() }
    }

    /// Returns a variable as text, or `None` if it is not set.
    ///
    /// # Errors
    /// The value is not Unicode.
    pub(super) fn text(&self, name: &'static str) -> Result<Option<String>, Error> {
        let value = (self.lookup)(name).map(OsString::into_string).transpose();
        value.map_err(|value| bad(name, value.display(), "it is not Unicode"))
    }

    /// Returns a variable as a number, or `None` if it is not set.
    ///
    /// # Errors
    /// The value is not a number of this type.
    pub(super) fn number<T: FromStr>(&self, name: &'static str) -> Result<Option<T>, Error> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        text.parse().map(Some).map_err(|_| bad(name, text, "it is not a number in its range"))
    }

    /// Returns whether the variable names this process, or `None` if it is not set.
    ///
    /// # Errors
    /// The value is not a number.
    pub(super) fn is_for_us(&self, name: &'static str) -> Result<Option<bool>, Error> {
        Ok(self.number::<u32>(name)?.map(|process| process == self.process))
    }
}

/// Makes an error about the value of a variable.
pub(super) fn bad(name: &'static str, value: impl fmt::Display, why: &str) -> Error {
    let source = io::Error::new(io::ErrorKind::InvalidData, why);
    Error::os("environment", format!("{name}={value}"), source)
}
