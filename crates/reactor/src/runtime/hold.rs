//! Work that the library cannot see, and that a stop must wait for.

use std::fmt;

use crate::{message::WorkGuard, runtime::dispatch::DeliverFn};

/// Keeps the runtime running until it is dropped. A stop waits for it, up to the end of the grace.
///
/// Operations on files, offloaded jobs and waiting messages keep the runtime running without a hold. A hold
/// stands for work that only the service knows of, for example an answer that another thread prepares, or a
/// write that waits for a timer. Any thread may drop it.
/// [`Context::hold`](crate::Context::hold) makes one.
///
/// ```
/// use reactor::{Context, Hold, Receive, Result, Service};
/// use std::time::Duration;
///
/// /// Collects writes for a moment, and is not stopped before it has written them.
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
    /// Held only for its `Drop`.
    _held: WorkGuard<DeliverFn>,
}

impl Hold {
    pub(crate) fn new(held: WorkGuard<DeliverFn>) -> Hold {
        Hold { _held: held }
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hold")
    }
}
