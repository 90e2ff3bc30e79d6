//! A serial line: two virtual sources that are each other's other side.

use reactor::Source;

use crate::{feed::Feed, world::World};

/// A serial line between two services, or two ends in one: what is written at one end is read at the other.
///
/// A `Serial` of `reactor` (feature `serial`) is made over an end with `Serial::hosted(line.ends().0)`; so is any
/// resource that reads and writes through its `Io`. Bytes arrive at once and in order, 4 KiB of them wait in each
/// direction; speed, parity and noise are not modelled. For one service alone a [`Feed`] is the other side.
///
/// ```
/// let mut world = sim::World::new(1);
/// let line = sim::Line::new(&mut world);
/// let (meter, reader) = line.ends();
/// assert_ne!(meter.number(), reader.number());
/// line.hang_up();
/// ```
#[derive(Debug)]
pub struct Line {
    one: Feed,
    other: Feed,
}

impl Line {
    /// A line that is connected.
    pub fn new(world: &mut World) -> Line {
        let (one, other) = (world.feed(), world.feed());
        Feed::join(&one, &other, ROOM);
        Line { one, other }
    }

    /// What is to be watched at each end.
    pub fn ends(&self) -> (Source<'static>, Source<'static>) {
        (self.one.source(), self.other.source())
    }

    /// Hangs up: each end reads what had arrived, and then, as each write at once, fails with EIO.
    pub fn hang_up(&self) {
        self.one.fail();
        self.other.fail();
    }
}

/// As much as the buffer of a terminal on Linux.
const ROOM: usize = 4096;
