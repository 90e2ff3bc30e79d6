//! A serial line: two joined virtual sources, one for each end.

use reactor::Source;

use crate::{testing::source::VirtualSource, world::World};

/// A serial line between two services, or within one. Bytes that are written at one end are read at the
/// other.
///
/// `Serial::hosted(line.ends().0)` makes a `Serial` of `reactor` (feature `serial`) over an end. Any other
/// resource that reads and writes through its `Io` works, too. Bytes arrive at once and in order, and each
/// direction holds up to 4 KiB of them. Speed, parity and noise are not modelled. For one service alone, a
/// [`VirtualSource`] can be the other side.
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
    one: VirtualSource,
    other: VirtualSource,
}

impl Line {
    /// Makes a connected line.
    pub fn new(world: &mut World) -> Line {
        let (one, other) = (world.virtual_source(), world.virtual_source());
        VirtualSource::join(&one, &other, ROOM);
        Line { one, other }
    }

    /// Returns the sources of both ends, for resources to watch.
    pub fn ends(&self) -> (Source<'static>, Source<'static>) {
        (self.one.source(), self.other.source())
    }

    /// Hangs up. Writes fail with EIO at once, and reads fail with EIO after the bytes that had arrived.
    pub fn hang_up(&self) {
        self.one.fail();
        self.other.fail();
    }
}

/// The size of a terminal's buffer on Linux.
const ROOM: usize = 4096;
