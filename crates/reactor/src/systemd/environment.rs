//! Reading the variables that a supervisor sets.

use std::{ffi::OsString, fmt, io, str::FromStr};

use crate::error::Error;

/// Where variables are looked up: the process's environment, or a test's.
pub(super) struct Environment<'a> {
    pub(super) lookup: &'a dyn Fn(&str) -> Option<OsString>,
    /// This process's number.
    pub(super) process: u32,
}

impl Environment<'_> {
    /// That of the process.
    pub(super) fn of_process() -> Environment<'static> {
        Environment { lookup: &|name| std::env::var_os(name), process: std::process::id() }
    }

    /// A variable as text; `None` if it is not set.
    ///
    /// # Errors
    /// It is not Unicode.
    pub(super) fn text(&self, name: &'static str) -> Result<Option<String>, Error> {
        let value = (self.lookup)(name).map(OsString::into_string).transpose();
        value.map_err(|value| bad(name, value.display(), "it is not Unicode"))
    }

    /// A variable as a number; `None` if it is not set.
    ///
    /// # Errors
    /// It is not such a number.
    pub(super) fn number<T: FromStr>(&self, name: &'static str) -> Result<Option<T>, Error> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        text.parse().map(Some).map_err(|_| bad(name, text, "it is not a number in its range"))
    }

    /// Whether what comes with this variable is for this process.
    ///
    /// # Errors
    /// It is not a number.
    pub(super) fn is_for_us(&self, name: &'static str) -> Result<Option<bool>, Error> {
        Ok(self.number::<u32>(name)?.map(|process| process == self.process))
    }
}

/// An error about the value of a variable.
pub(super) fn bad(name: &'static str, value: impl fmt::Display, why: &str) -> Error {
    let source = io::Error::new(io::ErrorKind::InvalidData, why);
    Error::os("environment", format!("{name}={value}"), source)
}
