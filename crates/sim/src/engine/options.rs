//! The options of the engines: how small, how few and how late, within the engine contract.

use crate::net::buffer::PACKET_MAX;

/// The resources and the habits of the engines of a world.
///
/// Every value is within the contract of [`reactor::engine`], so no correct service notices it, except by the
/// time that it takes. None of them draws a random number while it has its default.
///
/// ```
/// use sim::{EngineOptions, World, WorldOptions};
/// let mut options = WorldOptions::default();
/// options.engine = EngineOptions::with(|engine| engine.events_max = 1);
/// assert!(World::with_options(7, options).is_empty());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct EngineOptions {
    /// The most objects whose events one wait returns: no limit by default. The others wait their turn. At
    /// least 1.
    pub events_max: usize,
    /// The number of buffers that an engine has for the input of streams: no limit by default. While the
    /// runtime holds all of them, no input arrives. At least 1.
    pub buffers: usize,
    /// The size of each buffer, and so the most bytes of one event: 4,096. At least 1, and at most 4,096.
    pub buffer_bytes: usize,
    /// The most bytes that one send takes: no limit by default. At least 1.
    pub send_bytes_max: usize,
    /// The most datagrams that one send takes: no limit by default. At least 1.
    pub send_datagrams_max: usize,
    /// The engine acknowledges every send in a later wait, although the bytes are already on their way.
    pub acknowledges_late: bool,
    /// A listener delivers one more connection after the runtime has switched its reading off.
    pub accepts_late: bool,
    /// The engine closes transports in its next wait, as an engine does that queues its operations.
    pub closes_late: bool,
}

impl Default for EngineOptions {
    fn default() -> EngineOptions {
        EngineOptions {
            events_max: usize::MAX,
            buffers: usize::MAX,
            buffer_bytes: PACKET_MAX,
            send_bytes_max: usize::MAX,
            send_datagrams_max: usize::MAX,
            acknowledges_late: false,
            accepts_late: false,
            closes_late: false,
        }
    }
}

impl EngineOptions {
    /// Returns the default with a change.
    pub fn with(change: impl FnOnce(&mut EngineOptions)) -> EngineOptions {
        let mut options = EngineOptions::default();
        change(&mut options);
        options
    }

    /// Returns the smallest sizes that work, because small sizes provoke races: 8 events, 8 buffers of 64
    /// bytes, 48 bytes and 3 datagrams a send, and everything late.
    pub const fn harsh() -> EngineOptions {
        EngineOptions {
            events_max: 8,
            buffers: 8,
            buffer_bytes: 64,
            send_bytes_max: 48,
            send_datagrams_max: 3,
            acknowledges_late: true,
            accepts_late: true,
            closes_late: true,
        }
    }

    /// Brings every size within its bounds.
    pub(crate) fn within_bounds(mut self) -> EngineOptions {
        for size in
            [&mut self.events_max, &mut self.buffers, &mut self.send_bytes_max, &mut self.send_datagrams_max]
        {
            *size = (*size).max(1);
        }
        self.buffer_bytes = self.buffer_bytes.clamp(1, PACKET_MAX);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_of_zero_becomes_one_and_a_buffer_is_at_most_a_packet() {
        let none = EngineOptions {
            events_max: 0,
            buffers: 0,
            buffer_bytes: 0,
            send_bytes_max: 0,
            send_datagrams_max: 0,
            ..EngineOptions::harsh()
        };
        let one = EngineOptions {
            events_max: 1,
            buffers: 1,
            buffer_bytes: 1,
            send_bytes_max: 1,
            send_datagrams_max: 1,
            ..EngineOptions::harsh()
        };
        assert_eq!(none.within_bounds(), one);
        assert_eq!(one.within_bounds(), one);
        for (bytes, expected) in
            [(PACKET_MAX - 1, PACKET_MAX - 1), (PACKET_MAX, PACKET_MAX), (PACKET_MAX + 1, PACKET_MAX)]
        {
            let options = EngineOptions { buffer_bytes: bytes, ..EngineOptions::default() };
            assert_eq!(options.within_bounds().buffer_bytes, expected);
        }
    }
}
