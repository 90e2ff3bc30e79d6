//! Counters that are always on. The loop counts without atomics and publishes once a turn; any thread may
//! read.

use std::{
    array,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// The number of buckets in the histogram of turn times.
pub const TURN_BUCKETS: usize = 24;

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// One reading of a runtime's counters.
        ///
        /// ```
        /// let mut runtime = reactor::Runtime::new()?;
        /// runtime.turn(Some(std::time::Duration::ZERO))?;
        /// let counters = runtime.metrics().read();
        /// assert_eq!((counters.turns, counters.resources, counters.bytes_in), (1, 0, 0));
        /// assert_eq!(counters.turn_micros.iter().sum::<u64>(), 1);
        /// # Ok::<(), reactor::Error>(())
        /// ```
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        #[non_exhaustive]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $name: u64,)+
            /// Turns by duration, without the wait. Bucket `n` counts turns of less than 2^n microseconds
            /// that do not fit the bucket before. The last bucket also counts all longer turns.
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
    /// Turns that the runtime made without a wait, at its own request, and in which nothing happened: no
    /// event, no call, no byte. A few are normal. A steadily growing number is a bug in the library, and
    /// wastes processor time.
    turns_empty,
    /// Events pulled from the engine.
    events,
    /// Calls of handlers and receivers.
    handled,
    /// Events for an id that was already gone.
    stale,
    /// Bytes received.
    bytes_in,
    /// Bytes that the kernel accepted.
    bytes_out,
    /// System calls of the engine.
    engine_calls,
    /// Connections accepted.
    accepts,
    /// Connections that a listener closed for lack of a descriptor.
    turned_away,
    /// Connections that were started.
    connects,
    /// Resources that ended because of a system error.
    errors_os,
    /// Resources that ended because of an error of a handler, codec or layer.
    errors_refused,
    /// Resources that ended at a limit: overflow, budget, stall or deadline.
    errors_limit,
    /// Faults: errors that belong to no live resource, or that do not end it.
    faults,
    /// Panics in calls of services.
    panics,
    /// Resources alive now.
    resources,
    /// Bytes of memory in queues and buffers now, whether in use or not.
    queue_bytes,
    /// How often the bytes ran short.
    shortages,
    /// Resources that the runtime ended because they held many bytes while bytes were short. Also counted in
    /// `errors_limit`.
    evicted,
    /// Timers pending now, and messages for deadlines.
    timers,
    /// Commands from other threads that were executed.
    commands,
    /// Messages delivered: those of services, timers and deadlines.
    messages,
}

impl Counters {
    pub(crate) fn turn_took(&mut self, time: Duration) {
        let micros = time.as_micros() as u64;
        let bucket = (u64::BITS - micros.leading_zeros()) as usize;
        self.turn_micros[bucket.min(TURN_BUCKETS - 1)] += 1;
    }
}

/// A runtime's counters, readable from any thread at no cost to the loop.
///
/// Each counter is as of the end of the last turn. Two counters of one reading may stem from different turns.
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
