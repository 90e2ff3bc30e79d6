//! Counters that are always on: kept plainly by the loop, published once a turn, readable from any thread.

use std::{
    array,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// How many buckets the histogram of turn times has.
pub const TURN_BUCKETS: usize = 24;

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// A reading of a runtime's counters.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        #[non_exhaustive]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $name: u64,)+
            /// Turns by the time they took, waiting aside: bucket `n` counts those of less than
            /// 2^n microseconds (and not less than the one before); the last one also all longer ones.
            pub turn_micros: [u64; TURN_BUCKETS],
        }

        #[derive(Debug, Default)]
        struct Published {
            $($name: AtomicU64,)+
            turn_micros: [AtomicU64; TURN_BUCKETS],
        }

        impl Published {
            fn store(&self, counters: &Counters) {
                $(self.$name.store(counters.$name, Ordering::Relaxed);)+
                for (to, from) in self.turn_micros.iter().zip(&counters.turn_micros) {
                    to.store(*from, Ordering::Relaxed);
                }
            }

            fn load(&self) -> Counters {
                Counters {
                    $($name: self.$name.load(Ordering::Relaxed),)+
                    turn_micros: array::from_fn(|n| self.turn_micros[n].load(Ordering::Relaxed)),
                }
            }
        }
    };
}

counters! {
    /// Turns of the loop.
    turns,
    /// Turns that the runtime asked for without a wait, and in which nothing happened: no event, no call, no byte. One
    /// now and then is normal; a number that keeps growing is a fault of the library, and costs processor time.
    turns_empty,
    /// Events pulled from the engine.
    events,
    /// Calls of handlers and receivers.
    handled,
    /// Events that came for an id that was gone.
    stale,
    /// Bytes received.
    bytes_in,
    /// Bytes taken by the kernel.
    bytes_out,
    /// System calls of the engine.
    engine_calls,
    /// Connections accepted.
    accepts,
    /// Connections that a listener closed because there was no descriptor for them.
    turned_away,
    /// Connections begun.
    connects,
    /// Errors of the system that ended a resource.
    errors_os,
    /// Errors of handlers, codecs and layers that ended a resource.
    errors_refused,
    /// Resources ended by a limit: overflow, budget, stall, deadlines.
    errors_limit,
    /// Faults: errors without a live resource, or that pass.
    faults,
    /// Panics of services.
    panics,
    /// Resources alive now.
    resources,
    /// Bytes of memory in queues and buffers now, used or not.
    queue_bytes,
    /// Times at which bytes ran short.
    shortages,
    /// Resources ended because they held many bytes while bytes were short. Also among `errors_limit`.
    evicted,
    /// Timers pending now.
    timers,
    /// Commands of other threads executed.
    commands,
    /// Messages between services, and of timers, delivered.
    messages,
}

impl Counters {
    pub(crate) fn turn_took(&mut self, time: Duration) {
        let micros = time.as_micros() as u64;
        let bucket = (u64::BITS - micros.leading_zeros()) as usize;
        self.turn_micros[bucket.min(TURN_BUCKETS - 1)] += 1;
    }
}

/// A runtime's counters, for any thread: a reading costs the loop nothing.
///
/// Each counter is as of the end of the last turn; two counters of one reading may be of two turns.
///
/// ```
/// let mut runtime = reactor::Runtime::new()?;
/// let metrics = runtime.metrics();
/// runtime.turn(Some(std::time::Duration::ZERO))?;
/// assert_eq!(metrics.read().turns, 1);
/// # Ok::<(), reactor::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Metrics(Published);

impl Metrics {
    /// Reads all counters.
    pub fn read(&self) -> Counters {
        self.0.load()
    }

    pub(crate) fn publish(&self, counters: &Counters) {
        self.0.store(counters);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turn_times_fall_into_powers_of_two() {
        let mut counters = Counters::default();
        for micros in [0, 1, 2, 3, 4, 1 << 40] {
            counters.turn_took(Duration::from_micros(micros));
        }
        assert_eq!(counters.turn_micros[..4], [1, 1, 2, 1]);
        assert_eq!(counters.turn_micros[TURN_BUCKETS - 1], 1);
    }

    #[test]
    fn a_reading_is_what_was_published() {
        let metrics = Metrics::default();
        let counters = Counters { turns: 3, bytes_in: 5, ..Counters::default() };
        metrics.publish(&counters);
        assert_eq!(metrics.read(), counters);
    }
}
