//! Work that the library cannot know of, and that a stop is to wait for.

use std::fmt;

use crate::message::{Deliver, Held};

/// Keeps the runtime from ending by itself, and a stop from being over before its grace, until it is dropped.
///
/// Operations on files, offloaded jobs and messages that wait do so by themselves. A hold stands for what only the service
/// knows: an answer that another thread prepares, a write that waits for a timer. It may be dropped in any thread. Made by
/// [`Context::hold`](crate::Context::hold).
///
/// ```
/// use reactor::{Context, Hold, Receive, Result, Service};
/// use std::time::Duration;
///
/// /// Collects what is to be written for a moment, and is not stopped before it was.
/// #[derive(Default)]
/// struct Batch(Option<Hold>, bool);
/// struct Write;
///
/// impl Service for Batch {
///     fn start(&mut self, cx: &mut Context<Self>) -> Result {
///         self.0 = Some(cx.hold());
///         cx.after(Duration::from_millis(1), Write);
///         cx.stop(Duration::from_secs(5));
///         Ok(())
///     }
/// }
///
/// impl Receive<Write> for Batch {
///     fn receive(&mut self, _: &mut Context<Self>, Write: Write) -> Result {
///         (self.0, self.1) = (None, true);
///         Ok(())
///     }
/// }
///
/// let mut runtime = reactor::Runtime::new()?;
/// let batch = runtime.add(Batch::default())?;
/// assert_eq!(runtime.run()?.holds, 0);
/// assert!(runtime.service(batch).is_some_and(|batch| batch.1));
/// # Ok::<(), reactor::Error>(())
/// ```
#[must_use = "dropped at once it holds nothing"]
pub struct Hold {
    /// Only there to be dropped.
    _held: Held<Deliver>,
}

impl Hold {
    pub(crate) fn new(held: Held<Deliver>) -> Hold {
        Hold { _held: held }
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hold")
    }
}
