//! The protocol between a service and systemd, or a supervisor like it: sockets that the supervisor opened,
//! and notices of the service's state.
//!
//! [`activated`] takes the sockets (sd_listen_fds(3)). [`Supervised`] is a service that forwards [`Notice`]s
//! to the supervisor (sd_notify(3)) and feeds the watchdog (sd_watchdog_enabled(3)). Both implement the
//! protocol themselves. Without a supervisor both do nothing, so the same program also runs by hand.
//!
//! The environment stays unchanged, because changing it is not safe while other threads run. Children inherit
//! it. `LISTEN_PID` and `WATCHDOG_PID` make them ignore the sockets and the watchdog, because they name this
//! process. `NOTIFY_SOCKET` has no such mark, so remove it for a child that must not speak for the service
//! (`Command::env_remove`).

mod activation;
mod notice;
mod supervised;

use std::{ffi::OsString, fmt, io, str::FromStr};

pub use self::{
    activation::{Activated, activated},
    notice::Notice,
    supervised::Supervised,
};
use crate::error::Error;

/// Looks variables up in the process's environment, or in a test's.
struct Environment<'a> {
    lookup: &'a dyn Fn(&str) -> Option<OsString>,
    /// The number of this process.
    process: u32,
}

impl Environment<'_> {
    /// Returns the environment of the process.
    fn of_process() -> Environment<'static> {
        Environment { lookup: &|name| std::env::var_os(name), process: std::process::id() }
    }

    /// Returns a variable as text, or `None` if it is not set.
    ///
    /// # Errors
    /// The value is not Unicode.
    fn text(&self, name: &'static str) -> Result<Option<String>, Error> {
        let value = (self.lookup)(name).map(OsString::into_string).transpose();
        value.map_err(|value| bad(name, value.display(), "it is not Unicode"))
    }

    /// Returns a variable as a number, or `None` if it is not set.
    ///
    /// # Errors
    /// The value is not a number of this type.
    fn number<T: FromStr>(&self, name: &'static str) -> Result<Option<T>, Error> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        text.parse().map(Some).map_err(|_| bad(name, text, "it is not a number in its range"))
    }

    /// Returns whether the variable names this process, or `None` if it is not set.
    ///
    /// # Errors
    /// The value is not a number.
    fn is_for_us(&self, name: &'static str) -> Result<Option<bool>, Error> {
        Ok(self.number::<u32>(name)?.map(|process| process == self.process))
    }
}

/// Makes an error about the value of a variable.
fn bad(name: &'static str, value: impl fmt::Display, why: &str) -> Error {
    let source = io::Error::new(io::ErrorKind::InvalidData, why);
    Error::os("environment", format!("{name}={value}"), source)
}
