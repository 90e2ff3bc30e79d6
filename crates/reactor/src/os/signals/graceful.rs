//! The service that stops a runtime when somebody asks the process to end.

use std::time::Duration;

use super::{Arrived, Signal, Signals};
use crate::{
    error::Result,
    id::Id,
    runtime::{Context, Handle, Service},
};

/// A service that stops its runtime gracefully on the first SIGTERM or SIGINT, and at once on the second.
///
/// Other services learn of it through [`stop`](Service::stop), as of any stop. Pending answers are still
/// sent, until the grace is over. The service runs in the background, so a runtime with nothing else to do
/// ends.
///
/// ```no_run
/// use reactor::{Runtime, signals::Graceful};
/// use std::time::Duration;
///
/// # struct Server;
/// # impl reactor::Service for Server {}
/// let mut runtime = Runtime::new()?;
/// runtime.add(Graceful::within(Duration::from_secs(10)))?;
/// runtime.add(Server)?;
/// let receipt = runtime.run()?.check()?;
/// println!("stopped; {} connections were cut", receipt.cut);
/// # Ok::<(), reactor::Error>(())
/// ```
#[derive(Debug)]
pub struct Graceful {
    grace: Duration,
    asked: u32,
}

impl Graceful {
    /// Creates the service. It gives the other services this much time to finish.
    pub fn within(grace: Duration) -> Graceful {
        Graceful { grace, asked: 0 }
    }

    /// Returns how often the process was asked to end.
    pub fn asked(&self) -> u32 {
        self.asked
    }
}

// Here and below: a user who forgot an `impl` gains nothing from a compiler hint about this one.
#[diagnostic::do_not_recommend]
impl Service for Graceful {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let signals = cx.signals([Signal::TERM, Signal::INT])?;
        cx.background(signals);
        Ok(())
    }

    fn stop(&mut self, _: &mut Context<Self>) {
        // Keep the signals until the end, because the second one must arrive, too.
    }
}

#[diagnostic::do_not_recommend]
impl Handle<Signals> for Graceful {
    fn handle(&mut self, cx: &mut Context<Self>, _: Id<Signals>, arrived: Arrived) -> Result {
        self.asked = self.asked.saturating_add(arrived.times);
        let grace = if self.asked == 1 { self.grace } else { Duration::ZERO };
        cx.stop(grace);
        Ok(())
    }
}
