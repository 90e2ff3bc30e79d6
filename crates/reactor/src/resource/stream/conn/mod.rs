//! The state of a connection, without its bytes: where its life stands, what each of its two sides may still
//! do, and why it is not read.
//!
//! Everything here is a pure function of this state and of a few facts that the caller passes in. A step
//! changes the state and answers what is to be done; the caller does it. So all steps are tested here, in all
//! states that any sequence of them reaches, and no generic code decides anything about an end.
//!
//! ```text
//! life    Retrying ⇄ Connecting ─▶ Handshake ─▶ Open ─▶ Lingering
//! exit    Stays ─▶ Releasing ─▶ Detaching ─▶ Detached        a close overtakes a release until it detaches
//!         Stays | Releasing ─▶ Closing                       the runtime ends it from any state
//! read    Open ─▶ HungUp | Failed ─▶ Eof ─▶ Delivered        a HungUp may turn out to be early: back to Open
//! write   Open ─▶ Draining ─▶ FinSent                        or Absent for ever
//!         Open | Draining | FinSent ─▶ Broken
//! ```

mod sides;
#[cfg(test)]
mod tests;

use session::Phase;

use crate::{
    engine::Medium,
    resource::{
        exit::Exit,
        rest::{RestReason, RestReasons},
    },
};

/// Where the life of a connection stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Life {
    /// The system refuses the connect for now. The engine does not have the stream.
    Retrying,
    Connecting,
    /// The transport is up, but the layers are not.
    Handshake,
    Open,
    /// All output and our FIN were sent. The runtime discards input until the peer's FIN, because the kernel
    /// would answer late input with a reset that destroys our last bytes. Its exit is `Closing`.
    Lingering,
}

/// What is known of the peer's side.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum ReadSide {
    Open,
    /// The engine has reported that the peer is gone, behind input that is still to be read.
    HungUp {
        /// The service has got `HungUp`.
        told: bool,
    },
    /// The engine has reported a failure of the connection. The link keeps the error.
    Failed,
    /// The engine has delivered all input.
    Eof {
        /// The service has got `HungUp`.
        told: bool,
    },
    /// The end of the input was handed on: to the service as `End`, or as the reason of the stream's end.
    Delivered,
}

/// What is left to do on our side.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum WriteSide {
    /// The transport takes no output.
    Absent,
    Open,
    /// No more output is taken. The queue leaves, and then our FIN.
    Draining,
    FinSent,
    /// A write has failed. The link keeps the error.
    Broken,
}

/// Who else writes to the connection, or is written to by it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Partner {
    None,
    /// Another stream, which gets its input.
    Stream,
    /// A transfer, which sends a file through it.
    Transfer {
        /// The transfer waits for room in the socket.
        awaits_room: bool,
    },
}

/// What the caller of a step has to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NextStep {
    /// There is nothing to do now.
    Wait,
    /// Note the reason beside the one that the close has already.
    Note,
    /// Conclude the output: end the session, set the deadline, and flush.
    Conclude,
    /// Close it as [`Closed::Done`](crate::Closed::Done).
    Close,
    /// End it now with the failure that its link keeps.
    Fail,
    /// End it now, with the reason that its close has noted.
    End,
    /// End it now, because both sides have ended: [`Closed::End`](crate::Closed::End).
    EndBoth,
    /// Ask the engine for the transport.
    Detach,
    /// Send our FIN, and report the result to [`Conn::shut_down`].
    Shutdown,
    /// Note in the slot that it only waits for the peer's FIN.
    Linger,
}

/// What to do when the input of a connection may have ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AtEnd {
    /// The end is not due: there is none, other work comes first, or the next life reports it.
    Wait,
    /// Input before the end is kept. Emit `HungUp`, if [`Conn::tell_hangup`] allows it.
    HungUp,
    /// Nobody waits for the end but the close, which goes on.
    Flush,
    /// A transfer feeds a closing stream, and its output has no receiver any more.
    Fail,
    /// Ask the transfer whether it has the failure of the connection. If not, it is as `Deliver`.
    Ask,
    /// Hand the end on, and note that by [`Conn::deliver_end`].
    Deliver,
}

/// The queue as the end of the write side sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tail {
    /// All bytes have left: clear, sealed and in the engine's hands.
    pub(super) is_empty: bool,
    /// The layers hold no bytes, whatever the engine holds.
    pub(super) is_sealed: bool,
    pub(super) phase: Phase,
    /// A part of the output is known to be missing.
    pub(super) is_cut: bool,
}

/// The input before an end.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeptInput {
    /// The stream is in the resume queue.
    pub(super) is_resuming: bool,
    /// Some input was not delivered.
    pub(super) has_input: bool,
    /// The codec has skipped bytes, and may keep a part of an item.
    pub(super) has_skipped: bool,
    /// The link keeps the failure of the connection.
    pub(super) has_error: bool,
}

/// Which deadline of the runtime has passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Expired {
    Connect,
    Handshake,
    /// The queue made no progress.
    Stall,
    /// A write has failed, and the input before that was not delivered in time.
    Broken,
    Close,
    /// The peer has not ended its side. The close is done all the same.
    Linger,
}

/// The state of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Conn {
    life: Life,
    exit: Exit,
    read: ReadSide,
    write: WriteSide,
    partner: Partner,
    rests: RestReasons,
    medium: Medium,
    facts: Facts,
}

/// A fact that excludes no other.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
enum Fact {
    /// The engine reads it, as last requested.
    Reading = 1,
    /// The queue has passed its high mark, and has not been at its low mark since.
    High = 2,
    /// `Drained` is due.
    DrainedDue = 4,
    /// It was added to the runtime, and has not begun its handshake there.
    StartDue = 8,
}

/// The facts of a connection, in one byte, because a program has ten thousand connections.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Facts(u8);

impl Facts {
    const READING: Facts = Facts(Fact::Reading as u8);

    #[inline]
    fn has(self, fact: Fact) -> bool {
        self.0 & fact as u8 != 0
    }

    #[inline]
    fn set(&mut self, fact: Fact, is_so: bool) {
        *self = self.with(fact, is_so);
    }

    #[must_use]
    const fn with(self, fact: Fact, is_so: bool) -> Facts {
        Facts(if is_so { self.0 | fact as u8 } else { self.0 & !(fact as u8) })
    }
}

impl Default for Conn {
    /// Returns the state of a stream that no runtime has had.
    fn default() -> Conn {
        Conn {
            life: Life::Handshake,
            exit: Exit::Stays,
            read: ReadSide::Open,
            write: WriteSide::Open,
            partner: Partner::None,
            rests: RestReasons::NONE,
            medium: Medium::SOCKET,
            facts: Facts::READING,
        }
    }
}

/// How a connection enters a runtime.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entering {
    pub(super) medium: Medium,
    pub(super) is_connecting: bool,
    /// Its layers were asked to end in an earlier life.
    pub(super) is_ending: bool,
    pub(super) is_high: bool,
}

/// The life of a connection: how it enters, comes up and leaves.
impl Conn {
    /// Returns the state of a stream that enters a runtime, from its state before.
    pub(super) fn enter(self, entry: Entering) -> Conn {
        let life = match self.life {
            _ if entry.is_connecting => Life::Connecting,
            Life::Open => Life::Open,
            _ => Life::Handshake,
        };
        let read = match self.read {
            // The engine reports it again.
            ReadSide::Failed | ReadSide::HungUp { told: false } => ReadSide::Open,
            read => read,
        };
        let write = match self.write {
            _ if !entry.medium.has_output() => WriteSide::Absent,
            WriteSide::FinSent => WriteSide::FinSent,
            _ if entry.is_ending => WriteSide::Draining,
            _ => WriteSide::Open,
        };
        Conn {
            life,
            read,
            write,
            medium: entry.medium,
            rests: RestReasons::NONE.with(RestReason::Paused, self.is_paused()),
            // A `Drained` that is still due is due in this life.
            facts: Facts::READING
                .with(Fact::High, self.is_high() || self.facts.has(Fact::DrainedDue) || entry.is_high),
            ..Conn::default()
        }
    }

    /// Returns whether it has ended a side, outside of a runtime.
    pub(super) fn is_over(self) -> bool {
        self.has_ended() || self.write == WriteSide::FinSent
    }

    /// Begins another handshake, because its layer was replaced. `is_added` says that it starts in the next
    /// turn, like a stream that was just added.
    pub(super) fn restart(&mut self, is_added: bool) {
        self.life = Life::Handshake;
        self.facts.set(Fact::StartDue, is_added);
    }

    /// Starts it in the next turn.
    pub(super) fn start_later(&mut self) {
        self.facts.set(Fact::StartDue, true);
    }

    pub(super) fn is_start_due(self) -> bool {
        self.facts.has(Fact::StartDue)
    }

    /// Does not start it any more.
    pub(super) fn forget_start(&mut self) {
        self.facts.set(Fact::StartDue, false);
    }

    /// Notes that its transport is up.
    pub(super) fn start(&mut self) {
        self.facts.set(Fact::StartDue, false);
        if self.is_connecting() {
            self.life = Life::Handshake;
        }
    }

    /// Waits for another attempt to connect, without the engine.
    pub(super) fn retry(&mut self) {
        self.life = Life::Retrying;
    }

    /// Notes that the engine has it, and connects.
    pub(super) fn retried(&mut self) {
        self.life = Life::Connecting;
        self.facts.set(Fact::Reading, true);
    }

    /// Notes that the layers are up. Returns `false` if they were not needed.
    pub(super) fn open(&mut self) -> bool {
        let opens = self.life == Life::Handshake;
        if opens {
            self.life = Life::Open;
        }
        opens
    }

    /// Returns whether its transport is not up yet.
    #[inline]
    pub(super) fn is_connecting(self) -> bool {
        matches!(self.life, Life::Connecting | Life::Retrying)
    }

    #[inline]
    pub(super) fn is_open(self) -> bool {
        self.life == Life::Open
    }

    /// Returns whether the engine has it, until it is told to give it back or to close it.
    pub(super) fn is_attached(self) -> bool {
        self.life != Life::Retrying && self.exit != Exit::Detached
    }

    /// Returns whether it is on its way out of its runtime.
    #[inline]
    pub(super) fn is_leaving(self) -> bool {
        self.exit.is_leaving()
    }

    #[inline]
    pub(super) fn is_closing(self) -> bool {
        self.exit.is_closing()
    }

    #[inline]
    pub(super) fn is_releasing(self) -> bool {
        self.exit.is_releasing()
    }

    /// Returns whether its transport is on its way out of the engine.
    #[inline]
    pub(super) fn is_detaching(self) -> bool {
        self.exit.is_detaching()
    }

    /// Returns whether it closes, and no transfer brings more output. Then it has the deadline of the close.
    #[inline]
    pub(super) fn is_concluding(self) -> bool {
        self.is_closing() && !self.is_fed()
    }

    /// Returns whether its output has the deadline of a stall.
    #[inline]
    pub(super) fn is_timed(self) -> bool {
        self.life == Life::Open && !self.is_concluding()
    }

    /// Begins a close. `has_failed` says that a clean close comes behind a failure that the service has not
    /// got yet. Then the stream does not close in order, whatever the caller requested.
    pub(super) fn close(&mut self, has_failed: bool) -> NextStep {
        match self.exit {
            Exit::Closing => return NextStep::Note,
            Exit::Detaching | Exit::Detached => return NextStep::Wait,
            Exit::Stays | Exit::Releasing => (),
        }
        if has_failed {
            return NextStep::Fail;
        }
        self.exit = Exit::Closing;
        self.drain();
        NextStep::Conclude
    }

    /// Ends the write side behind the queue.
    pub(super) fn finish(&mut self) -> NextStep {
        // A stream of one direction ends with it.
        if !self.medium.has_input() {
            return NextStep::Close;
        }
        match self.write {
            WriteSide::Open => {
                self.drain();
                NextStep::Conclude
            }
            // A stream that closes drains already, and one whose write has failed has nothing to end.
            _ => NextStep::Wait,
        }
    }

    fn drain(&mut self) {
        if self.write == WriteSide::Open {
            self.write = WriteSide::Draining;
        }
    }

    /// Begins to give it back to its service. Returns `false` if it closes.
    pub(super) fn release(&mut self) -> bool {
        self.exit.release()
    }

    /// Notes that the engine has given its transport back.
    pub(super) fn detached(&mut self) {
        self.exit = Exit::Detached;
    }

    /// Returns whether its end, its half-close or its release may be able to go on after a write.
    #[inline]
    pub(super) fn is_ending(self) -> bool {
        self.is_releasing() || self.ends_output() && !self.is_fed()
    }

    /// Returns whether the output ends behind the queue.
    #[inline]
    pub(super) fn ends_output(self) -> bool {
        self.is_closing() || matches!(self.write, WriteSide::Draining | WriteSide::FinSent)
    }

    /// Takes the next step of the close, the half-close or the release after a write.
    pub(super) fn proceed(&mut self, tail: Tail) -> NextStep {
        if self.is_releasing() {
            // A send in flight comes back before the transport does.
            let may_detach = !self.is_fed() && !self.is_connecting();
            return if may_detach && self.exit.detach() { NextStep::Detach } else { NextStep::Wait };
        }
        let is_broken = self.write == WriteSide::Broken;
        if self.is_closing() && tail.is_cut && (tail.is_empty || is_broken) {
            // An orderly end of the layer would be as false as one of the transport.
            return NextStep::End;
        }
        if !is_broken && self.waits_for(tail) {
            return NextStep::Wait;
        }
        if self.is_closing() && (self.has_ended() || is_broken) {
            return NextStep::End;
        }
        if self.read == ReadSide::Delivered && self.write == WriteSide::FinSent {
            return NextStep::EndBoth;
        }
        // A read-only or write-only socket may have another user, so do not shut it down.
        if self.is_closing() && !(self.medium.has_input() && self.medium.has_output()) {
            return NextStep::End;
        }
        if self.write == WriteSide::Draining {
            self.write = WriteSide::FinSent;
            return NextStep::Shutdown;
        }
        self.linger()
    }

    /// Returns whether output is still to leave before our FIN.
    fn waits_for(self, tail: Tail) -> bool {
        // The peer has ended inside the handshake, so output queued behind it can never leave.
        if self.has_ended() && tail.phase == Phase::Handshake {
            return false;
        }
        let layers_wait = match tail.phase {
            // A handshake continues only for output that is queued behind it.
            Phase::Idle | Phase::Handshake => !tail.is_sealed,
            Phase::Finished => false,
            _ => true,
        };
        !tail.is_empty || layers_wait && self.write != WriteSide::FinSent
    }

    /// Continues after our FIN, which the kernel has sent or refused.
    pub(super) fn shut_down(&mut self, is_sent: bool) -> NextStep {
        match (is_sent, self.is_closing()) {
            // The peer is gone, so there is nothing left to wait for.
            (false, true) => NextStep::End,
            (true, false) if self.read == ReadSide::Delivered => NextStep::EndBoth,
            _ => self.linger(),
        }
    }

    fn linger(&mut self) -> NextStep {
        if !self.is_closing() {
            return NextStep::Wait;
        }
        self.life = Life::Lingering;
        NextStep::Linger
    }

    /// Returns which of the runtime's deadlines has passed.
    pub(super) fn expired(self) -> Expired {
        match self.life {
            Life::Lingering => Expired::Linger,
            _ if self.is_concluding() => Expired::Close,
            Life::Retrying | Life::Connecting => Expired::Connect,
            Life::Handshake => Expired::Handshake,
            Life::Open if self.write == WriteSide::Broken => Expired::Broken,
            Life::Open => Expired::Stall,
        }
    }
}
