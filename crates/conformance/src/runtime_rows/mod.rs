//! Rows about a whole runtime over the engine: services run, and the row looks at what they are told.
//!
//! Their ids have an `r` behind the scenario's number. Most have both ends of their connections in the runtime itself, so that they
//! run on a virtual engine, too.

mod exhaustion;
mod files;
mod floods;
mod lives;
mod memory;
mod panics;
mod partial;
mod peers;
mod probe;
mod readiness;
mod rig;
mod shutdown;
mod threads;
mod time;

use std::time::Duration;

use crate::{
    suite::{Need, Outcome, Row},
    world::World,
};

/// All rows of this kind.
pub(crate) fn rows() -> Vec<Row> {
    [
        lives::ROWS,
        readiness::ROWS,
        partial::ROWS,
        peers::ROWS,
        floods::ROWS,
        exhaustion::ROWS,
        files::ROWS,
        time::ROWS,
        threads::ROWS,
        panics::ROWS,
        shutdown::ROWS,
        memory::ROWS,
    ]
    .concat()
}

const fn row(
    id: &'static str,
    name: &'static str,
    needs: &'static [Need],
    run: fn(&mut World<'_>) -> Outcome,
) -> Row {
    Row { id, name, needs, slow: false, run }
}

/// Takes more than a second.
const fn slow(
    id: &'static str,
    name: &'static str,
    needs: &'static [Need],
    run: fn(&mut World<'_>) -> Outcome,
) -> Row {
    Row { id, name, needs, slow: true, run }
}

/// What suits the engine: a virtual one moves little at a time.
fn sized(world: &World<'_>, real: usize, in_memory: usize) -> usize {
    if world.is_virtual() { in_memory } else { real }
}

/// A timeout that a row waits for.
const SHORT: Duration = Duration::from_millis(20);
const SOCKETS: &[Need] = &[Need::Sockets];
