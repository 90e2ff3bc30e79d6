//! The two sides of a connection, and the partner that it may have.

use super::{AtEnd, Conn, Exit, Fact, KeptInput, Life, NextStep, Partner, ReadSide, WriteSide};
use crate::{
    error::Closed,
    resource::rest::{RestReason, RestReasons},
};

/// The read side.
impl Conn {
    /// Returns whether the engine has delivered all input.
    #[inline]
    pub(in super::super) fn has_ended(self) -> bool {
        matches!(self.read, ReadSide::Eof { .. } | ReadSide::Delivered)
    }

    /// Returns whether its end was handed on.
    #[inline]
    pub(in super::super) fn is_end_delivered(self) -> bool {
        self.read == ReadSide::Delivered
    }

    /// Returns whether the peer is gone, and the service has not got the end.
    pub(in super::super) fn has_gone(self) -> bool {
        !matches!(self.read, ReadSide::Open | ReadSide::Delivered)
    }

    /// Notes that the engine has delivered all input.
    pub(in super::super) fn end_input(&mut self) {
        self.read = match self.read {
            ReadSide::HungUp { told } => ReadSide::Eof { told },
            ReadSide::Open | ReadSide::Failed => ReadSide::Eof { told: false },
            ended => ended,
        };
    }

    /// Notes that the peer is gone behind input, or that the connection has failed.
    pub(in super::super) fn note_hangup(&mut self, has_failed: bool) {
        self.read = match self.read {
            ReadSide::Open | ReadSide::HungUp { .. } if has_failed => ReadSide::Failed,
            ReadSide::Open => ReadSide::HungUp { told: false },
            read => read,
        };
    }

    /// Returns whether it is read although it is paused. It is so if the connection has failed, because the
    /// runtime hands over the input that had arrived together with the stream.
    #[inline]
    pub(in super::super) fn salvages(self) -> bool {
        self.read == ReadSide::Failed && self.is_paused() && !self.is_releasing()
    }

    #[inline]
    pub(in super::super) fn is_paused(self) -> bool {
        self.rests.has(RestReason::Paused)
    }

    /// Returns whether the service may get items now.
    #[inline]
    pub(in super::super) fn takes_items(self) -> bool {
        self.exit == Exit::Stays && !self.rests.hold_items()
    }

    /// Returns whether input goes through the layers now.
    #[inline]
    pub(in super::super) fn opens_input(self) -> bool {
        self.life != Life::Open || self.takes_items() && !self.rests.has(RestReason::Backlog)
    }

    /// Returns whether input is dropped. A closing stream drops it, unless a handshake has to finish for
    /// queued output.
    pub(in super::super) fn discards_input(self) -> bool {
        self.life == Life::Lingering || self.life == Life::Open && self.is_closing()
    }

    /// Returns whether only the peer delays the end of an item that it has begun.
    #[inline]
    pub(in super::super) fn awaits_item(self) -> bool {
        self.medium.is_socket() && self.is_open() && self.opens_input() && !self.has_ended()
    }

    /// Returns whether the engine should read, as far as this stream alone decides.
    #[inline]
    pub(in super::super) fn wants_input(self) -> bool {
        !self.has_ended()
            && match self.life {
                Life::Open => self.is_closing() || self.opens_input() || self.salvages(),
                _ => !self.is_releasing(),
            }
    }

    /// Returns whether a shortage of bytes may stop it. A close and the rest of a failed connection are read
    /// in any case.
    #[inline]
    pub(in super::super) fn may_rest_for_bytes(self) -> bool {
        self.is_open() && !self.is_closing() && !self.salvages()
    }

    /// Updates what the engine was last asked for. Returns the request, if it has to change.
    #[inline]
    pub(in super::super) fn sync(&mut self, wanted: bool) -> Option<bool> {
        if self.facts.has(Fact::Reading) == wanted || self.is_detaching() {
            return None;
        }
        self.facts.set(Fact::Reading, wanted);
        if wanted && self.read == (ReadSide::HungUp { told: false }) {
            // The engine reports it again if the stream rests again before its end.
            self.read = ReadSide::Open;
        }
        Some(wanted)
    }

    /// Returns why it is not read, besides a shortage of bytes.
    pub(in super::super) fn rests(self) -> RestReasons {
        self.rests
    }

    #[inline]
    pub(in super::super) fn rests_for(self, rest: RestReason) -> bool {
        self.rests.has(rest)
    }

    /// Begins or ends a rest. Returns whether it rested for this reason before.
    #[inline]
    pub(in super::super) fn rest(&mut self, rest: RestReason, rests: bool) -> bool {
        let rested = self.rests.has(rest);
        self.rests = self.rests.with(rest, rests);
        rested
    }

    /// Pauses or resumes it. Returns whether it has to be driven again.
    pub(in super::super) fn pause(&mut self, paused: bool, has_kept: bool) -> bool {
        let resumed = self.rest(RestReason::Paused, paused) && !paused;
        resumed && has_kept || paused && self.has_gone()
    }

    /// Lets it rest for its partner's queue, or ends that rest. Returns whether it has to be driven again.
    pub(in super::super) fn hold(&mut self, held: bool, has_kept: bool) -> bool {
        self.rest(RestReason::Partner, held) && !held && has_kept
    }

    /// Returns what to do if its input may have ended.
    pub(in super::super) fn at_end(self, kept: KeptInput) -> AtEnd {
        // Work in the resume queue comes before the end, for example more items than one turn takes.
        if !self.has_gone() || kept.is_resuming {
            return AtEnd::Wait;
        }
        if !self.has_ended() {
            return AtEnd::HungUp;
        }
        match self.exit {
            Exit::Closing if self.is_fed() && kept.has_error => return AtEnd::Fail,
            Exit::Closing => return AtEnd::Flush,
            Exit::Releasing | Exit::Detaching | Exit::Detached => return AtEnd::Wait,
            Exit::Stays => (),
        }
        let is_kept = kept.has_input || self.is_paused() && kept.has_skipped;
        // Input that arrived before the failure of a paused stream leaves with the stream.
        let is_failed = self.is_paused() && kept.has_error;
        if is_kept && !self.takes_items() && !is_failed {
            // The end follows when the input before it may be delivered.
            return AtEnd::HungUp;
        }
        if self.is_fed() && !kept.has_error { AtEnd::Ask } else { AtEnd::Deliver }
    }

    /// Notes that the end is handed on.
    pub(in super::super) fn deliver_end(&mut self) {
        self.read = ReadSide::Delivered;
    }

    /// Notes that the service gets `HungUp`. Returns `false` if it must not get it: it does only if it has
    /// paused the stream, and once.
    pub(in super::super) fn tell_hangup(&mut self) -> bool {
        let tells = self.is_paused() && self.is_open() && self.exit == Exit::Stays;
        match &mut self.read {
            ReadSide::HungUp { told } | ReadSide::Eof { told } if tells && !*told => {
                *told = true;
                true
            }
            _ => false,
        }
    }

    /// Returns whether the stream closes now that the service has got the end of the input.
    pub(in super::super) fn closes_after_end(self, is_half_open: bool) -> bool {
        self.write == WriteSide::FinSent || self.partner == Partner::None && !is_half_open
    }

    /// Returns whether the stream closes because of an end that the service got earlier.
    pub(in super::super) fn closes_after_earlier_end(self, is_half_open: bool) -> bool {
        self.is_end_delivered() && self.exit == Exit::Stays && self.partner == Partner::None && !is_half_open
    }
}

/// The write side.
impl Conn {
    /// Returns whether its queue takes more items. Items sent to a stream that is being released go with it.
    #[inline]
    pub(in super::super) fn takes_output(self) -> bool {
        self.write == WriteSide::Open
    }

    /// Returns whether its queue takes bytes of its transfer. A close waits for them.
    pub(in super::super) fn takes_feed(self) -> bool {
        !self.is_releasing() && !matches!(self.write, WriteSide::Broken | WriteSide::Absent)
    }

    /// Returns whether the engine may get its output.
    #[inline]
    pub(in super::super) fn may_write(self) -> bool {
        self.write != WriteSide::Broken && !self.is_detaching()
    }

    #[inline]
    pub(in super::super) fn is_broken(self) -> bool {
        self.write == WriteSide::Broken
    }

    /// Returns whether it only reads and writes, as most streams do at a flush.
    #[inline]
    pub(in super::super) fn is_plain(self) -> bool {
        (self.life == Life::Open)
            & (self.exit == Exit::Stays)
            & (self.read == ReadSide::Open)
            & (self.write == WriteSide::Open)
            & self.rests.is_none()
            & self.facts.has(Fact::Reading)
            & !self.is_high()
    }

    /// Returns whether the peer would take a part of the output for the whole if the stream ended in order
    /// now, as far as its partner is concerned.
    pub(in super::super) fn is_fed_partly(self) -> bool {
        self.is_fed() || self.is_paired_partly()
    }

    /// Returns whether the paired stream could still add output.
    fn is_paired_partly(self) -> bool {
        self.partner == Partner::Stream && !self.ends_output()
    }

    /// Returns whether a close for this reason cuts the output: neither the service nor the peer ended it in
    /// order, and more could have followed. Asked before the close, which ends the write side.
    ///
    /// Anybody on the path can send the FIN that truncates the input. An authentic end of the layer behind it
    /// would vouch for a part. At a refusal or a deadline with last words, the service has sent what it wanted
    /// to send, but the partner has not.
    pub(in super::super) fn is_cut_by(self, why: &Closed) -> bool {
        match why {
            Closed::Done | Closed::End | Closed::Released => false,
            Closed::Refused(_) | Closed::Deadline => self.is_paired_partly(),
            Closed::Truncated(_) => !self.ends_output(),
            _ => true,
        }
    }

    #[inline]
    pub(in super::super) fn is_high(self) -> bool {
        self.facts.has(Fact::High)
    }

    pub(in super::super) fn set_high(&mut self, high: bool) {
        self.facts.set(Fact::High, high);
    }

    /// Notes that the queue is at its low mark. The service gets `Drained`; of a transfer's queue the
    /// transfer learns instead. Returns `false` if the queue was not high.
    #[inline]
    pub(in super::super) fn drained(&mut self) -> bool {
        let was_high = self.is_high();
        if was_high {
            self.facts.set(Fact::High, false);
            self.facts.set(Fact::DrainedDue, !self.is_fed());
        }
        was_high
    }

    /// Takes a due `Drained`. Returns `false` if it is not due, or has become false.
    pub(in super::super) fn take_drained(&mut self) -> bool {
        let is_due = self.facts.has(Fact::DrainedDue);
        self.facts.set(Fact::DrainedDue, false);
        is_due && !self.is_closing() && !self.is_high()
    }

    /// Notes that a write has failed. The input that arrived before is delivered first, unless there can be
    /// none: then the stream fails at once. `Wait` is for a failure that was noted before.
    pub(in super::super) fn write_failed(&mut self) -> NextStep {
        if matches!(self.write, WriteSide::Broken | WriteSide::Absent) {
            return NextStep::Wait;
        }
        self.write = WriteSide::Broken;
        // The queue will not drain any more, so read the input that it held back.
        self.set_high(false);
        self.rest(RestReason::Output, false);
        let is_over = self.is_end_delivered() || self.is_closing() || !self.medium.has_input();
        if is_over { NextStep::Fail } else { NextStep::Note }
    }

    /// Returns whether the peer may be on another host, so that it must not keep an item unfinished for ever.
    #[inline]
    pub(in super::super) fn is_remote(self) -> bool {
        self.medium.is_socket()
    }
}

/// The partner.
impl Conn {
    #[inline]
    pub(in super::super) fn is_fed(self) -> bool {
        matches!(self.partner, Partner::Transfer { .. })
    }

    #[inline]
    pub(in super::super) fn is_paired(self) -> bool {
        self.partner == Partner::Stream
    }

    /// Returns whether a partner waits for its queue, or for its input.
    #[inline]
    pub(in super::super) fn has_partner(self) -> bool {
        self.partner != Partner::None
    }

    /// Notes that another stream gets its input. Returns whether that has already ended.
    pub(in super::super) fn pair(&mut self) -> bool {
        self.partner = Partner::Stream;
        self.is_end_delivered()
    }

    /// Separates it from another stream, which would not report that its queue has drained any more.
    pub(in super::super) fn unpair(&mut self) {
        self.partner = Partner::None;
        self.rest(RestReason::Partner, false);
    }

    /// Binds it to a transfer. Returns `false` if it takes no more output, or is already bound.
    pub(in super::super) fn begin_feed(&mut self) -> bool {
        let may_begin = match self.write {
            WriteSide::Open | WriteSide::Absent => self.exit == Exit::Stays && !self.has_partner(),
            _ => false,
        };
        if may_begin {
            self.partner = Partner::Transfer { awaits_room: false };
        }
        may_begin
    }

    /// Frees it from its transfer. Returns whether the peer has ended meanwhile, so that it closes now unless
    /// it is half open.
    pub(in super::super) fn end_feed(&mut self) -> bool {
        self.partner = Partner::None;
        self.is_end_delivered() && !self.is_releasing()
    }

    /// Returns whether a transfer may write straight into the socket, as far as the state is concerned.
    pub(in super::super) fn takes_direct_writes(self) -> bool {
        let is_over = matches!(self.write, WriteSide::Broken | WriteSide::FinSent);
        self.is_open() && !self.is_releasing() && !is_over
    }

    /// Begins or ends the transfer's wait for room in the socket. Returns whether it waited before.
    pub(in super::super) fn await_room(&mut self, waits: bool) -> bool {
        match &mut self.partner {
            Partner::Transfer { awaits_room } => std::mem::replace(awaits_room, waits),
            Partner::None | Partner::Stream => false,
        }
    }

    pub(in super::super) fn awaits_room(self) -> bool {
        self.partner == (Partner::Transfer { awaits_room: true })
    }
}
