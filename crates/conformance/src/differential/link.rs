//! One connection while it is played: what was sent, what came, and whether a step is over.

use reactor::{Id, Stream};

use super::{
    content::Got,
    script::{Last, Plan, Side, Step},
};

/// A connection and where it stands in its plan.
pub(super) struct Link {
    pub(super) plan: Plan,
    /// The step: 0 is the connecting, then come those of the plan, then the last one.
    pub(super) at: usize,
    /// Whether the step has begun, and is not over.
    pub(super) is_playing: bool,
    pub(super) ends: [End; 2],
    /// Timers, messages and refusals of the step that have not come yet.
    pub(super) pending: usize,
}

/// One end.
pub(super) struct End {
    /// While it lives.
    pub(super) id: Option<Id<Stream>>,
    pub(super) state: State,
    /// How much was sent from here.
    pub(super) sent: usize,
    /// What came here.
    pub(super) got: Got,
    /// How much had come here when the last step was over.
    pub(super) confirmed: usize,
    pub(super) is_paused: bool,
    pub(super) is_ended: bool,
    /// What is under way to here may be lost.
    pub(super) is_cut: bool,
    /// A send was answered `High`, and `Drained` was not told since.
    pub(super) is_high: bool,
    /// The handler refuses what comes next, after it has sent so many bytes.
    pub(super) refuses: Option<usize>,
}

/// The life of an end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Opening,
    Open,
    Closed,
}

/// What is to be done now.
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

    /// The step where it stands; `None` while it connects, and when all is over.
    pub(super) fn next(&self) -> Option<Next> {
        let at = self.at.checked_sub(1)?;
        match self.plan.steps.get(at) {
            Some(step) => Some(Next::Step(step.clone())),
            None => (at == self.plan.steps.len()).then_some(Next::Last(self.plan.last)),
        }
    }

    /// Whether all that the step led to has come.
    pub(super) fn is_reached(&self) -> bool {
        match self.next() {
            // The resume of an end that closed while it was paused is still to come.
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

    /// Whether nothing is left to do, but perhaps the stop of the runtime.
    pub(super) fn is_over(&self) -> bool {
        match self.next() {
            Some(Next::Last(Last::Stay)) => self.is_playing,
            Some(_) => false,
            None => self.at > 0,
        }
    }

    /// The step in words.
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
