//! A failure keeps the error, its type and its causes.

use std::error::Error;
use std::fmt;
use std::num::ParseIntError;

use session::{Failure, Result, Truncated};

#[derive(Debug)]
struct Outer(ParseIntError);

impl fmt::Display for Outer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a bad port")
    }
}

impl Error for Outer {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

fn port(text: &str) -> Result<u16> {
    Ok(text.parse().map_err(Outer)?)
}

#[test]
fn any_error_passes_by_question_mark_and_comes_back_by_type() {
    let failure = port("x").unwrap_err();
    assert!(failure.is::<Outer>() && failure.downcast_ref::<Truncated>().is_none());
    assert!(!failure.is::<Truncated>());
    assert_eq!(Truncated.to_string(), "the input was cut: it ended where its protocol does not allow an end");
    assert_eq!(failure.to_string(), "a bad port");
    assert_eq!(format!("{failure:?}"), "a bad port: invalid digit found in string");
    assert!(failure.as_error().source().is_some());
    let failure = failure.downcast::<Truncated>().expect_err("it is another error");
    assert_eq!(failure.downcast::<Outer>().expect("its own type").to_string(), "a bad port");
}

#[test]
fn text_and_boxes_are_errors_too_and_a_failure_passes_by_question_mark() {
    fn text() -> Result {
        Err("only text")?
    }
    fn passed() -> Result {
        text()?;
        Ok(())
    }
    let boxed: Box<dyn Error + Send + Sync> = passed().unwrap_err().into_error();
    assert_eq!(Failure::from(boxed).to_string(), "only text");
}

#[test]
fn a_cause_that_an_error_ends_with_is_said_once() {
    /// Prints its cause itself, and also returns it as its source.
    #[derive(Debug)]
    struct Listening(Outer);
    impl fmt::Display for Listening {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "listen: {}", self.0)
        }
    }
    impl Error for Listening {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }
    let cause = "x".parse::<u16>().expect_err("it is no number");
    let failure = Failure::from(Listening(Outer(cause)));
    assert_eq!(format!("{failure:?}"), "listen: a bad port: invalid digit found in string");
}
