//! The service that stops a runtime when the process is asked to end.

use std::time::Duration;

use super::{Arrived, Signal, Signals};
use crate::{context::Context, error::Result, id::Id, service::Handle, service::Service};

/// A service that stops its runtime gracefully on the first SIGTERM or SIGINT, and at once on the second.
///
/// Other services are told by their [`stop`](Service::stop), as by any stop: answers that are on their way
/// still leave, until the grace is over. It is in the background: a runtime with nothing else to do ends.
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
    /// A service that gives the others so much time to end.
    pub fn within(grace: Duration) -> Graceful {
        Graceful { grace, asked: 0 }
    }

    /// How often the process was asked to end.
    pub fn asked(&self) -> u32 {
        self.asked
    }
}

// Here and below: who forgets an `impl` of their own is not helped by hearing of this one.
#[diagnostic::do_not_recommend]
impl Service for Graceful {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let signals = cx.signals([Signal::TERM, Signal::INT])?;
        cx.background(signals);
        Ok(())
    }

    fn stop(&mut self, _: &mut Context<Self>) {
        // The signals stay until the end: the second one is for them, too.
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
