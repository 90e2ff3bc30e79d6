//! The only place where the library calls users' code, and drops users' values.
//!
//! It catches a panic of users' code at once, and turns it into a text that the caller attributes to a
//! service. So a panic never unwinds through a table that is half changed, through an engine whose memory the
//! kernel still uses, or out of one of the library's own drops. Only the drop of io_uring catches more,
//! because it must leak memory that the kernel may still write to, whoever panicked.
//!
//! Values count as code, too: a message, an item, a codec or the payload of a panic may panic while it is
//! dropped. [`Kept`] holds such a value wherever the library stores it, in any collection and thread.
//!
//! No library can survive two panics at once. If a handler panics, and a value that it holds panics while
//! that panic drops it, the language aborts the process.

use std::{
    any::{Any, type_name},
    fmt, mem,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Calls users' code. The error is the text of its panic.
///
/// It is unwind safe for two reasons. No borrow of a table lives while users' code runs. And the runtime ends
/// everything that a panicking call leaves behind: its resource, or its whole service.
#[inline]
pub(crate) fn call<T>(users: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(users)).map_err(said)
}

/// Returns the text of a user's value, for example of an error. If making the text panics, it says so.
#[cold]
pub(crate) fn text(given: &(impl fmt::Display + ?Sized)) -> String {
    call(|| given.to_string()).unwrap_or_else(|said| format!("(its text panicked: {said})"))
}

/// Drops a user's value. The error is the text of its panic.
pub(crate) fn drop<T>(given: T) -> Result<(), String> {
    call(|| mem::drop(given))
}

/// Drops a user's value for which no service answers any more. Logs a panic under this name.
pub(crate) fn discard<T>(given: T, whose: &str) {
    if let Err(text) = drop(given) {
        crate::log::drop_panicked(whose, &text);
    }
}

/// Calls users' code for which no service answers any more. Logs its panic.
pub(crate) fn quietly(users: impl FnOnce()) {
    if let Err(text) = call(users) {
        crate::log::drop_panicked("a call for somebody who is gone", &text);
    }
}

/// Returns the text of a panic, and drops its payload, which may panic again.
#[cold]
pub(crate) fn said(mut payload: Box<dyn Any + Send>) -> String {
    let text = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "a payload that is no text".to_owned(),
    };
    for _ in 0..DROPS_MAX {
        match catch_unwind(AssertUnwindSafe(|| mem::drop(payload))) {
            Ok(()) => return text,
            Err(another) => payload = another,
        }
    }
    // Each drop panics with the next payload, so this one is leaked.
    mem::forget(payload);
    text
}

/// A user's value that the library stores. If the library drops it, a panic of its drop ends here.
pub(crate) struct Kept<T>(Option<T>);

impl<T> Kept<T> {
    #[inline]
    pub(crate) fn new(given: T) -> Kept<T> {
        Kept(Some(given))
    }

    /// Returns the value to its receiver, who drops it as any other value.
    #[inline]
    pub(crate) fn into_inner(mut self) -> T {
        self.0.take().expect("only this call takes it out, and it takes `self`")
    }
}

impl<T> Drop for Kept<T> {
    #[inline]
    fn drop(&mut self) {
        if mem::needs_drop::<T>()
            && let Some(given) = self.0.take()
        {
            discard(given, type_name::<T>());
        }
    }
}

/// The number of payloads in a row that may panic while they are dropped.
const DROPS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::resume_unwind;

    /// Panics while it is dropped, this many times, each time with the next as the payload.
    struct Bomb(u32);

    impl Drop for Bomb {
        fn drop(&mut self) {
            if self.0 > 0 {
                // Resume it, so that the panic prints nothing.
                resume_unwind(Box::new(Bomb(self.0 - 1)));
            }
        }
    }

    #[test]
    fn a_call_gives_its_value_or_what_its_panic_said() {
        assert_eq!(call(|| 7), Ok(7));
        assert_eq!(call(|| -> u8 { resume_unwind(Box::new("a text")) }), Err("a text".to_owned()));
        assert_eq!(call(|| -> u8 { resume_unwind(Box::new(String::from("mine"))) }), Err("mine".to_owned()));
        assert_eq!(
            call(|| -> u8 { resume_unwind(Box::new(7)) }),
            Err("a payload that is no text".to_owned())
        );
    }

    #[test]
    fn a_text_that_panics_says_so() {
        struct Text(&'static str);
        impl fmt::Display for Text {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 {
                    "panic" => resume_unwind(Box::new("no text")),
                    "error" => Err(fmt::Error),
                    text => f.write_str(text),
                }
            }
        }
        assert_eq!(text(&Text("as it is")), "as it is");
        assert_eq!(text(&Text("panic")), "(its text panicked: no text)");
        // The standard library panics for it.
        assert!(text(&Text("error")).starts_with("(its text panicked: "));
    }

    #[test]
    fn a_payload_that_panics_while_it_is_dropped_ends_here() {
        for depth in [0, 1, DROPS_MAX as u32 - 1, DROPS_MAX as u32, DROPS_MAX as u32 + 1] {
            call(|| resume_unwind(Box::new(Bomb(depth)))).expect_err("it panics");
            drop(Bomb(depth + 1)).expect_err("it panics");
        }
    }

    #[test]
    fn several_that_panic_in_one_collection_are_dropped_one_by_one() {
        let kept: Vec<Kept<Bomb>> = (0..3).map(|_| Kept::new(Bomb(1))).collect();
        mem::drop(kept);
    }

    #[test]
    fn what_is_taken_out_is_dropped_by_who_took_it() {
        let bomb = Kept::new(Bomb(1)).into_inner();
        call(|| mem::drop(bomb)).expect_err("it panics where it is dropped");
    }
}
