//! Socket activation: sockets that a supervisor opened before it started this process.

use std::{
    os::fd::RawFd,
    sync::atomic::{AtomicBool, Ordering},
};

use super::{Environment, bad};
pub use crate::host::activated::Activated;
use crate::{error::Error, sys::inherited};

/// Takes the descriptors that a supervisor opened for this process, in the supervisor's order:
/// sd_listen_fds(3).
///
/// The list is empty if no supervisor passed descriptors, or if they are for another process (`LISTEN_PID`).
/// Only the first call returns the descriptors; later calls return an empty list. They are CLOEXEC from then
/// on.
///
/// A service calls [`Context::activated`](crate::Context::activated) instead, which also works in a simulated
/// world. This function is for a `main` that needs the descriptors before there is a runtime.
///
/// # Errors
/// A variable is malformed, there are more than 1,024 descriptors, or the number of names does not match. Or
/// a descriptor is not open, or was opened by this program itself. In all these cases nothing is taken.
pub fn activated() -> Result<Vec<Activated>, Error> {
    static ARE_TAKEN: AtomicBool = AtomicBool::new(false);
    let names = names(&Environment::of_process())?;
    if names.is_empty() || ARE_TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    let last = FIRST + names.len() as RawFd;
    let descriptors = inherited::take(FIRST..last).map_err(|error| {
        let which = format!("descriptors {FIRST} to {}", last - 1);
        Error::os("activation", which, error)
    })?;
    let all = names.into_iter().zip(descriptors);
    Ok(all.map(|(name, descriptor)| Activated::new(&name, descriptor.into())).collect())
}

/// Returns the name of each descriptor.
fn names(environment: &Environment<'_>) -> Result<Vec<String>, Error> {
    if environment.is_for_us("LISTEN_PID")? != Some(true) {
        return Ok(Vec::new());
    }
    let Some(count) = environment.number::<u32>("LISTEN_FDS")? else { return Ok(Vec::new()) };
    if !(1..=DESCRIPTORS_MAX).contains(&count) {
        return Err(bad("LISTEN_FDS", count, &format!("it is not between 1 and {DESCRIPTORS_MAX}")));
    }
    let Some(text) = environment.text("LISTEN_FDNAMES")? else {
        return Ok(vec!["unknown".to_owned(); count as usize]);
    };
    let names: Vec<String> = text.split(':').map(str::to_owned).collect();
    if names.len() != count as usize {
        return Err(bad("LISTEN_FDNAMES", text, &format!("LISTEN_FDS says that there are {count}")));
    }
    Ok(names)
}

/// The first descriptor after standard input, output and error: SD_LISTEN_FDS_START.
const FIRST: RawFd = 3;
const DESCRIPTORS_MAX: u32 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn found(variables: &[(&str, &str)]) -> Result<Vec<String>, Error> {
        let lookup =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        names(&Environment { lookup: &lookup, process: 77 })
    }

    #[test]
    fn they_are_named_and_for_one_process() {
        let all = [("LISTEN_PID", "77"), ("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", "web:admin")];
        assert_eq!(found(&all).expect("well formed"), ["web", "admin"]);
        assert_eq!(found(&all[..2]).expect("well formed"), ["unknown", "unknown"]);
        assert_eq!(found(&all[1..]).expect("nobody is named"), Vec::<String>::new());
        assert_eq!(found(&[("LISTEN_PID", "78"), all[1]]).expect("another"), Vec::<String>::new());
        assert_eq!(found(&all[..1]).expect("none"), Vec::<String>::new());
        assert_eq!(found(&[]).expect("nothing is set"), Vec::<String>::new());
    }

    #[test]
    fn their_number_is_bounded() {
        for (count, fits) in [(0, false), (1, true), (1023, true), (1024, true), (1025, false)] {
            let result = found(&[("LISTEN_PID", "77"), ("LISTEN_FDS", &count.to_string())]);
            assert_eq!(result.map(|names| names.len()).ok(), fits.then_some(count), "{count}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = [
            (
                [("LISTEN_PID", "x"), ("LISTEN_FDS", "1"), ("", "")],
                "environment LISTEN_PID=x: it is not a number in its range",
            ),
            (
                [("LISTEN_PID", "77"), ("LISTEN_FDS", "-1"), ("", "")],
                "environment LISTEN_FDS=-1: it is not a number in its range",
            ),
            (
                [("LISTEN_PID", "77"), ("LISTEN_FDS", "0"), ("", "")],
                "environment LISTEN_FDS=0: it is not between 1 and 1024",
            ),
            (
                [("LISTEN_PID", "77"), ("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", "one")],
                "environment LISTEN_FDNAMES=one: LISTEN_FDS says that there are 2",
            ),
        ];
        for (variables, text) in wrong {
            assert_eq!(found(&variables).expect_err(text).to_string(), text);
        }
    }

    #[test]
    fn one_that_is_not_open_or_is_our_own_takes_none() {
        let error = inherited::take(1_000_000..1_000_001).expect_err("no process has so many");
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        let file = std::fs::File::open("/dev/null").expect("it is there");
        let number = std::os::fd::AsRawFd::as_raw_fd(&file);
        let error = inherited::take(number..number + 1).expect_err("it is CLOEXEC");
        assert_eq!(
            error.to_string(),
            format!("descriptor {number} was not inherited: this program opened it")
        );
        assert!(file.metadata().is_ok(), "it is still open");
    }
}
