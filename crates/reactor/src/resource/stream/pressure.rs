//! Back-pressure: when a stream rests, so that the runtime does not read its input, and what frees it.
//!
//! A stream rests for output that its own input causes, because only then does the rest slow the peer that
//! causes it. Output that others queue counts only once it takes up half of the cap. A paired stream rests
//! for its partner's queue ([`RestReason::Partner`]) and for output that its own input puts into its own queue, which
//! is nothing in a proxy.
//!
//! Two peers that both rest would wait for each other. So the output of a resting stream must make progress.
//! After [`StreamOptions::rest`] without any, the valve opens, and the stream reads on until its input has
//! caused some more output. Each further opening allows twice as much, and none allows more than half of the
//! cap.
//!
//! [`StreamOptions::rest`]: super::StreamOptions::rest

use std::time::Duration;

use session::{Codec, Layer};

use super::link::Link;
use crate::{
    clock::Time,
    id::Key,
    resource::rest::RestReason,
    runtime::{LoopState, ports::Ports},
};

/// The state of a stream whose queue was above its marks.
#[derive(Default)]
pub(super) struct Pressure {
    /// The weight that the valve allows. 0 if it has not opened since the queue was low.
    level: usize,
    /// How often it has opened since then.
    openings: u32,
    /// How long the output had made no progress at the last look.
    waited: Duration,
    /// The time from the last look to the next. Zero if only the stall's deadline is set.
    next: Duration,
    /// The length of a queue that was allowed to pass the cap. Behind it there is room as usual.
    large: usize,
}

impl<C: Codec, L: Layer, R: 'static> Link<C, L, R> {
    /// Returns the weight against reading: the output that the stream's own input caused, and other output
    /// beyond half of the cap.
    fn weight(&self) -> usize {
        let (queued, options) = (self.queued(), self.options());
        let free =
            if self.conn.is_paired() { queued } else { (options.cap / 2).saturating_sub(options.high) };
        self.caused.min(queued).max(queued.saturating_sub(free))
    }

    /// Lets the stream rest if it must. Returns `true` if it begins to rest.
    pub(super) fn begin_rest(&mut self) -> bool {
        let level = self.rare.as_ref().map_or(0, |rare| rare.pressure.level).max(self.options().high);
        let rests = self.conn.rests_for(RestReason::Output);
        let begins = !rests && self.options().backpressure && self.weight() > level;
        if begins {
            self.conn.rest(RestReason::Output, true);
        }
        begins
    }

    /// Ends the rest at the low mark. Returns `true` if the stream rested.
    pub(super) fn end_rest(&mut self) -> bool {
        let queued = self.queued();
        let (low, cap) = (self.options().low, self.options().cap);
        let is_low = self.weight() <= low;
        if let Some(rare) = &mut self.rare {
            let pressure = &mut rare.pressure;
            if queued <= cap {
                pressure.large = 0;
            }
            if is_low {
                (pressure.level, pressure.openings) = (0, 0);
            }
        }
        is_low && self.conn.rest(RestReason::Output, false)
    }

    /// Returns whether the queued output may stay. Above the cap there is room for one item that is alone in
    /// the queue, and for the output of one call of a handler for its input. Behind either there is room up
    /// to the cap as usual.
    pub(super) fn has_room(&mut self, is_alone: bool, is_answer: bool) -> bool {
        let (queued, options) = (self.queued(), self.options());
        if queued <= options.cap {
            return true;
        }
        let (cap, item) = (options.cap, options.item);
        if (is_alone || is_answer) && queued <= item {
            self.rare().pressure.large = queued;
            return true;
        }
        queued <= cap.saturating_add(self.rare.as_ref().map_or(0, |rare| rare.pressure.large))
    }

    /// Returns how long the output in the engine's hands may make no progress before the next look. `None` is
    /// without limit.
    pub(super) fn patience(&mut self) -> Option<Duration> {
        if !self.conn.rests_for(RestReason::Output) {
            self.progressed();
            return self.write_stall();
        }
        let next = self.options().rest.max(SHORTEST).min(self.stall());
        let pressure = &mut self.rare().pressure;
        (pressure.waited, pressure.next) = (Duration::ZERO, next);
        Some(next)
    }

    fn stall(&self) -> Duration {
        self.write_stall().unwrap_or(Duration::MAX)
    }

    /// Clears the waiting time, because output has left.
    pub(super) fn progressed(&mut self) {
        if let Some(rare) = &mut self.rare {
            rare.pressure.next = Duration::ZERO;
        }
    }

    /// Notes that there was no progress since the last look. Returns the time to the next one. `None` if the
    /// output is stalled.
    fn look(&mut self) -> Option<Duration> {
        let (rest, stall) = (self.options().rest, self.stall());
        let pressure = &mut self.rare.as_mut()?.pressure;
        pressure.waited = pressure.waited.saturating_add(pressure.next);
        if pressure.next.is_zero() || pressure.waited >= stall {
            return None;
        }
        pressure.next = rest.max(SHORTEST).min(stall - pressure.waited);
        Some(pressure.next)
    }

    /// Lets a resting stream read on, for a bounded amount of further output. Returns `true` if it does.
    fn open_valve(&mut self) -> bool {
        let room = (self.options().cap / 2).saturating_sub(self.caused);
        if !self.conn.rests_for(RestReason::Output) || room == 0 {
            return false;
        }
        let (weight, high) = (self.weight(), self.options().high.max(1));
        let pressure = &mut self.rare().pressure;
        let more = high.saturating_mul(1 << pressure.openings.min(20)).min(room);
        (pressure.level, pressure.openings) = (weight.saturating_add(more), pressure.openings + 1);
        self.conn.rest(RestReason::Output, false);
        true
    }

    /// Lets the stream rest if needed, after output was queued above the high mark.
    pub(super) fn pressed(&mut self, ports: &mut Ports<'_>) {
        if !self.begin_rest() || self.flying == 0 || self.conn.is_concluding() {
            return;
        }
        // The valve was open, and the next look is due as before.
        if self.rare.as_ref().is_some_and(|rare| !rare.pressure.next.is_zero()) {
            return;
        }
        // The output in flight has the stall's deadline. The first look comes earlier, and counts the time
        // that has passed.
        let (mut next, stall) = (self.patience(), self.write_stall());
        if let (Some(next), Some(stall)) = (&mut next, stall)
            && ports.head.internal_deadline != Time::NEVER
        {
            let left = ports.head.internal_deadline.since(ports.now);
            *next = left.min(*next);
            let pressure = &mut self.rare().pressure;
            (pressure.waited, pressure.next) = (stall.saturating_sub(left), *next);
        }
        ports.set_internal_deadline(next);
    }

    /// Handles a time without progress of the output. Returns `false` if it was too long.
    pub(super) fn waited(&mut self, ports: &mut Ports<'_>) -> bool {
        let Some(next) = self.look() else { return false };
        let opened = self.open_valve();
        if !opened && self.write_stall().is_none() {
            // Nothing remains to do, and no deadline counts. The next look comes when the stream rests again.
            self.progressed();
            ports.set_internal_deadline(None);
            return true;
        }
        ports.set_internal_deadline(Some(next));
        if opened {
            ports.drive_again();
            ports.mark();
        }
        true
    }
}

/// Lets a stream rest for its partner's queue, or ends that rest.
pub(super) fn hold<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key, held: bool) {
    let Some((link, mut ports)) = core.enter::<Link<C, L, R>>(key) else { return };
    let has_kept = link.has_kept();
    if link.conn.hold(held, has_kept) {
        ports.drive_again();
    }
}

/// The shortest time between two looks, because a rest of zero would look in every turn.
const SHORTEST: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use session::Bytes;

    use super::*;
    use crate::{
        Stream,
        engine::{Medium, Role},
        resource::StreamOptions,
    };

    const HIGH: usize = 1_000;
    const LOW: usize = 100;
    const CAP: usize = 10_000;
    const ITEM: usize = 20_000;
    const REST: Duration = Duration::from_secs(1);
    const STALL: Duration = Duration::from_secs(5);

    /// Returns a stream with so many bytes in the engine's hands, of which its own input caused so many.
    fn link(medium: Medium, queued: usize, caused: usize) -> Link<Bytes, (), ()> {
        let options = StreamOptions {
            high: HIGH,
            low: LOW,
            cap: CAP,
            item: ITEM,
            rest: REST,
            write_stall: medium.is_socket().then_some(STALL),
            ..StreamOptions::DEFAULT
        };
        let stream = Stream::new(Bytes).options(options);
        let mut link = Link::new(stream, Role::Stream, medium);
        (link.flying, link.caused) = (queued, caused);
        link
    }

    fn rests(link: &Link<Bytes, (), ()>) -> bool {
        link.conn.rests_for(RestReason::Output)
    }

    #[test]
    fn a_stream_rests_for_what_its_input_causes_until_that_is_low() {
        for (queued, caused, begins) in
            [(HIGH, HIGH, false), (HIGH + 1, HIGH + 1, true), (HIGH + 1, HIGH, false), (CAP / 2, 0, false)]
        {
            let mut one = link(Medium::SOCKET, queued, caused);
            assert_eq!((one.begin_rest(), rests(&one)), (begins, begins), "{queued} {caused}");
            assert!(!one.begin_rest(), "it begins once");
        }
        // Half of the cap less the high mark is free of output that others cause.
        let free = CAP / 2 - HIGH;
        for (queued, begins) in [(free + HIGH, false), (free + HIGH + 1, true)] {
            assert_eq!(link(Medium::SOCKET, queued, 0).begin_rest(), begins, "{queued}");
        }
        let mut one = link(Medium::SOCKET, HIGH + 1, HIGH + 1);
        assert!(one.begin_rest());
        for (left, ends) in [(LOW + 1, false), (LOW, true), (LOW, false)] {
            (one.flying, one.caused) = (left, left);
            assert_eq!((one.end_rest(), rests(&one)), (ends, !ends && left > LOW), "{left}");
        }
        let mut paired = link(Medium::SOCKET, CAP, HIGH);
        paired.conn.pair();
        assert!(!paired.begin_rest(), "a paired one rests only for its own input");
    }

    #[test]
    fn a_queue_has_room_up_to_the_cap_and_behind_one_large_item() {
        for (queued, room) in [(CAP - 1, [true; 4]), (CAP, [true; 4]), (CAP + 1, [false, true, true, true])] {
            let cases = [(false, false), (true, false), (false, true), (true, true)];
            let got = cases
                .map(|(is_alone, is_answer)| link(Medium::SOCKET, queued, 0).has_room(is_alone, is_answer));
            assert_eq!(got, room, "{queued}");
        }
        assert!(link(Medium::SOCKET, ITEM, 0).has_room(true, false));
        assert!(!link(Medium::SOCKET, ITEM + 1, 0).has_room(true, false), "it is too large");
        let mut one = link(Medium::SOCKET, ITEM, 0);
        assert!(one.has_room(true, false));
        for (queued, fits) in [(ITEM + CAP, true), (ITEM + CAP + 1, false)] {
            one.flying = queued;
            assert_eq!(one.has_room(false, false), fits, "{queued} behind the large one");
        }
        one.flying = CAP;
        one.end_rest();
        one.flying = CAP + 1;
        assert!(!one.has_room(false, false), "the large one has left");
    }

    #[test]
    fn output_without_progress_is_looked_at_until_it_stalls() {
        let mut one = link(Medium::SOCKET, HIGH + 1, HIGH + 1);
        assert_eq!(one.patience(), Some(STALL), "it does not rest, so only the stall counts");
        assert_eq!(one.look(), None, "and then it is over");
        assert!(one.begin_rest());
        assert_eq!(one.patience(), Some(REST));
        for _ in 1..5 {
            assert_eq!(one.look(), Some(REST));
        }
        assert_eq!(one.look(), None, "five seconds");
        assert_eq!(one.patience(), Some(REST));
        one.progressed();
        assert_eq!(one.look(), None, "output has left, and the look was for the stall only");
        let mut pipe = link(Medium::WRITER, HIGH + 1, HIGH + 1);
        assert_eq!(pipe.patience(), None, "a reader of a pipe takes its time");
        assert!(pipe.begin_rest());
        assert_eq!(pipe.patience(), Some(REST));
        assert_eq!(pipe.look(), Some(REST));
    }

    #[test]
    fn the_valve_opens_for_twice_as_much_each_time_and_never_beyond_half_of_the_cap() {
        let mut one = link(Medium::SOCKET, HIGH + 1, HIGH + 1);
        assert!(!one.open_valve(), "it does not rest");
        let mut level = HIGH + 1;
        for more in [HIGH, 2 * HIGH] {
            assert!(one.begin_rest() && one.open_valve() && !rests(&one));
            level += more;
            for (caused, begins) in [(level, false), (level + 1, true)] {
                (one.flying, one.caused) = (caused, caused);
                let mut copy = link(Medium::SOCKET, caused, caused);
                copy.rare = one.rare.take();
                assert_eq!(copy.begin_rest(), begins, "{caused} of {level}");
                one.rare = copy.rare;
            }
            level += 1;
        }
        (one.flying, one.caused) = (CAP / 2, CAP / 2);
        assert!(one.begin_rest());
        assert!(!one.open_valve(), "half of the cap");
    }
}
