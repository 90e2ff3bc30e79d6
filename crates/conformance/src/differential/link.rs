//! The state of one connection during play: sent and received bytes, and whether a step is over.

use reactor::{Id, Stream};

use super::{
    content::Got,
    script::{Last, Plan, Side, Step},
};

/// A connection and its position in its plan.
pub(super) struct Link {
    pub(super) plan: Plan,
    /// The step: 0 is the connect, then come those of the plan, then the last one.
    pub(super) at: usize,
    /// The step has begun, and is not over.
    pub(super) is_playing: bool,
    pub(super) ends: [End; 2],
    /// The number of timers, messages and refusals of the step that have not arrived yet.
    pub(super) pending: usize,
}

/// One end of a connection.
pub(super) struct End {
    /// The id of the stream, while it lives.
    pub(super) id: Option<Id<Stream>>,
    pub(super) state: State,
    /// The number of bytes sent from this end.
    pub(super) sent: usize,
    /// The bytes received by this end.
    pub(super) got: Got,
    /// The bytes that this end had received when the last step was over.
    pub(super) confirmed: usize,
    pub(super) is_paused: bool,
    pub(super) is_ended: bool,
    /// Bytes in flight to this end may be lost.
    pub(super) is_cut: bool,
    /// A send returned `High`, and `Drained` has not arrived since.
    pub(super) is_high: bool,
    /// If set, the handler answers the next input with this many bytes, and then returns an error.
    pub(super) refuses: Option<usize>,
}

/// The life of an end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Opening,
    Open,
    Closed,
}

/// The next action of a link.
pub(super) enum Next {
    Step(Step),
    Last(Last),
}

impl Link {
    pub(super) fn new(plan: Plan) -> Link {
        Link { plan, at: 0, is_playing: true, ends: Side::BOTH.map(|_| End::new()), pending: 0 }
    }

    pub(super) fn end(&mut self, side: Side) -> &mut End {
        &mut self.ends[side as usize]
    }

    /// Returns the current step. `None` while the link connects, and when all is over.
    pub(super) fn next(&self) -> Option<Next> {
        let at = self.at.checked_sub(1)?;
        match self.plan.steps.get(at) {
            Some(step) => Some(Next::Step(step.clone())),
            None => (at == self.plan.steps.len()).then_some(Next::Last(self.plan.last)),
        }
    }

    /// Reports whether all effects of the step have arrived.
    pub(super) fn is_reached(&self) -> bool {
        match self.next() {
            // An end that closed while it was paused still has its resume to come.
            Some(Next::Last(_)) => self.ends.iter().all(|end| end.state == State::Closed && !end.is_paused),
            _ => {
                let [near, far] = &self.ends;
                self.pending == 0
                    && near.got.bytes == far.sent
                    && far.got.bytes == near.sent
                    && self.ends.iter().all(|end| end.state == State::Open && !end.is_paused)
            }
        }
    }

    /// Reports whether nothing is left to do, except perhaps to stop the runtime.
    pub(super) fn is_over(&self) -> bool {
        match self.next() {
            Some(Next::Last(Last::Stay)) => self.is_playing,
            Some(_) => false,
            None => self.at > 0,
        }
    }

    /// Describes the step in words.
    pub(super) fn words(&self) -> String {
        match self.next() {
            Some(Next::Step(step)) => format!("step {}, {step:?}", self.at),
            Some(Next::Last(last)) => format!("step {}, {last:?}", self.at),
            None => "connecting".to_owned(),
        }
    }
}

impl End {
    fn new() -> End {
        End {
            id: None,
            state: State::Opening,
            sent: 0,
            got: Got::NOTHING,
            confirmed: 0,
            is_paused: false,
            is_ended: false,
            is_cut: false,
            is_high: false,
            refuses: None,
        }
    }
}
