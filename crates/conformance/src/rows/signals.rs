//! H: signals that interrupt a wait.

use std::time::Instant;

use nix::sys::signal::Signal as Number;
use reactor::signals::{Signal, Signals};

use super::prelude::*;
use crate::storm::under_storm;

pub(super) const ROWS: &[Row] = &[Row {
    id: "H1",
    name: "a wait that signals interrupt is neither an error nor begun anew",
    needs: &[Need::Sockets],
    slow: false,
    run: interrupted,
}];

fn interrupted(fixture: &mut Fixture<'_>) -> Outcome {
    let _handled = Signals::of_process([Signal::USR2])?;
    let engine = &mut *fixture.engine();
    let (outcome, [_, sent]) = under_storm(None, Number::SIGUSR2, || -> Outcome {
        for _ in 0..WAITS {
            let (begun, real) = (engine.host().now(), Instant::now());
            loop {
                // Read the clock once, because a busy machine may take long between two readings.
                let left = WAIT.saturating_sub(engine.host().now().since(begun));
                if left.is_zero() {
                    break;
                }
                engine.wait(Some(left))?;
                check!(engine.next().is_none(), "an event of nothing");
                check!(real.elapsed() < LATE, "a wait of {WAIT:?} is not over after {:?}", real.elapsed());
            }
        }
        Ok(())
    })?;
    outcome?;
    check!(sent > WAITS, "only {sent} signals were sent");
    Ok(())
}

const WAITS: u32 = 5;
const WAIT: Duration = Duration::from_millis(30);
/// If an interrupted wait started anew, it would not end during the storm.
const LATE: Duration = Duration::from_secs(1);
