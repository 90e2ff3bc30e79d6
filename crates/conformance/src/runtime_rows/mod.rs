//! Rows about a whole runtime over the engine: services run, and the row checks their events.
//!
//! Their ids have an `r` behind the number of the scenario (SCENARIOS.md). In most of them both ends of the
//! connections are in the same runtime, so that they also run on a virtual engine.

mod bombs;
#[cfg(unix)]
mod child_fixtures;
#[cfg(unix)]
mod children;
mod datagrams;
#[cfg(unix)]
mod devices;
mod ends;
mod exhaustion;
mod files;
mod floods;
mod fragile;
mod layers;
mod lifecycle;
mod memory;
mod order;
mod outlived;
mod pairs;
mod panics;
mod partial;
#[cfg(unix)]
mod passing;
mod paused;
mod peers;
#[cfg(unix)]
mod pipes;
mod pressure;
mod probe;
mod readiness;
mod reasons;
mod release;
mod rig;
mod sealed;
mod shutdown;
#[cfg(unix)]
mod signals;
mod supervised;
mod threads;
mod time;

use std::time::Duration;

use crate::{fixture::Fixture, suite::Row};

/// What most rows use.
mod prelude {
    pub(super) use std::{
        cell::{Cell, RefCell},
        io::ErrorKind,
        rc::Rc,
        time::Duration,
    };

    pub(super) use reactor::{
        Address, Bytes, Closed, Context, Event, Flow, Handle, Id, Layer, Lines, ListenOptions, Receive,
        Result, Service, ServiceId, Stream, StreamOptions,
    };

    pub(super) use super::{
        SHORT, moved,
        probe::{Probe, What},
        rig::{self, Pair, Rig},
        sized,
    };
    pub(super) use crate::{
        fixture::Fixture,
        rows::pattern,
        suite::{Need, Outcome, Row, SOCKETS, Stop, check, row, slow},
    };
}

/// Returns all rows of this kind.
pub(crate) fn rows() -> Vec<Row> {
    #[cfg_attr(not(unix), expect(unused_mut, reason = "only Unix has children"))]
    let mut all = [
        lifecycle::ROWS,
        release::ROWS,
        paused::ROWS,
        readiness::ROWS,
        partial::ROWS,
        datagrams::ROWS,
        peers::ROWS,
        floods::ROWS,
        layers::ROWS,
        pressure::ROWS,
        ends::ROWS,
        pairs::ROWS,
        reasons::ROWS,
        exhaustion::ROWS,
        files::ROWS,
        time::ROWS,
        threads::ROWS,
        order::ROWS,
        #[cfg(unix)]
        devices::ROWS,
        #[cfg(unix)]
        signals::ROWS,
        panics::ROWS,
        bombs::ROWS,
        outlived::ROWS,
        supervised::ROWS,
        shutdown::ROWS,
        memory::ROWS,
    ]
    .concat();
    #[cfg(unix)]
    {
        all.extend_from_slice(passing::ROWS);
        all.extend_from_slice(pipes::ROWS);
        all.extend_from_slice(children::ROWS);
    }
    all
}

/// Chooses the size that suits the engine, because a virtual one moves little at a time.
fn sized(fixture: &Fixture<'_>, real: usize, in_memory: usize) -> usize {
    if fixture.is_virtual() { in_memory } else { real }
}

/// Chooses the size as [`sized`] does, for bytes that must move whatever the kernel's buffers hold.
fn moved(fixture: &Fixture<'_>, real: usize, little: usize) -> usize {
    if fixture.moves_little() { little } else { sized(fixture, real, little) }
}

/// A timeout that passes while a row waits.
const SHORT: Duration = Duration::from_millis(20);
