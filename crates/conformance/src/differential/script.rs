//! Scripts: the steps of each connection, drawn from a seed.

use sim::Chance;

/// A script of operations: several connections in parallel, each with its own steps.
#[derive(Clone, Debug)]
pub struct Script {
    pub(super) seed: u64,
    pub(super) links: Vec<Plan>,
}

/// An end of a connection. The near one connected, and the far one was accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Near,
    Far,
}

impl Side {
    pub(super) const BOTH: [Side; 2] = [Side::Near, Side::Far];

    pub(super) fn other(self) -> Side {
        match self {
            Side::Near => Side::Far,
            Side::Far => Side::Near,
        }
    }
}

/// The plan of one connection.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) kind: Kind,
    pub(super) pace: Pace,
    pub(super) steps: Vec<Step>,
    pub(super) last: Last,
}

/// The options of a connection's streams and sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Kind {
    /// The streams stay open after the peer's end, until the service closes them.
    pub(super) half_open: bool,
    /// The runtime does not read a stream while its own queue is above the high mark.
    pub(super) backpressure: bool,
    /// Real sockets take only a little at a time.
    pub(super) narrow: bool,
}

impl Kind {
    /// Returns all kinds. The service has a listener for each.
    pub(super) fn all() -> impl Iterator<Item = Kind> {
        (0..8).map(|bits| Kind {
            half_open: bits & 1 != 0,
            backpressure: bits & 2 != 0,
            narrow: bits & 4 != 0,
        })
    }
}

/// How the next step begins once the last one is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pace {
    /// Inside the handler call that completed the last step.
    AtOnce,
    /// By a message to itself.
    Told,
    /// By a timer of a millisecond.
    Later,
}

/// How many bytes the acting end sends with the action, and how many its peer sends at that moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Traffic {
    pub(super) own: usize,
    pub(super) others: usize,
}

/// One step, which leaves the connection open. It is over once all sent bytes have arrived.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// One end sends bytes, in this many sends.
    Send { from: Side, bytes: usize, pieces: usize },
    /// Both ends send bytes at once.
    Cross { by: Side, traffic: Traffic },
    /// One end pauses while bytes arrive, and resumes later.
    Pause { on: Side, bytes: usize },
    /// One end is released, and added again.
    Release { on: Side, traffic: Traffic },
    /// A deadline is set, postponed by the arrival of a message, and removed.
    Deadline { on: Side },
    /// The service sets timers of this many milliseconds in one call, and cancels one of them.
    Timers { millis: Vec<u64>, cancelled: usize },
    /// The service sends itself this many messages.
    Tell { count: u64 },
    /// A connect to an address without a listener.
    Refused,
    /// A connect that the service closes or aborts in the same call.
    Fleeting { is_aborted: bool },
}

/// The last step. It is over once both ends have closed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Last {
    /// One end closes. The peer may be paused then, and resume later.
    Close { by: Side, traffic: Traffic, paused: bool },
    /// One end finishes its write side after its bytes. The other one answers, and finishes too.
    Finish { by: Side, traffic: Traffic, paused: bool },
    /// One end aborts.
    Abort { by: Side, traffic: Traffic, paused: bool },
    /// The deadline of one end passes.
    Deadline { by: Side },
    /// The handler of one end answers its next input with some bytes, and then returns an error.
    Refuse { by: Side, own: usize },
    /// Both ends are open when the runtime stops.
    Stay,
}

impl Script {
    /// Draws a script with this many connections.
    pub fn draw(seed: u64, links: usize) -> Script {
        let mut chance = Chance::new(seed);
        let links = (0..links).map(|_| plan(&mut chance)).collect();
        Script { seed, links }
    }

    /// Describes the plan of the connection to which a resource of a [`Trace`](super::Trace) belongs.
    pub fn words(&self, resource: &str) -> String {
        let number =
            resource.strip_prefix("link ").and_then(|rest| rest.split(',').next()?.parse::<usize>().ok());
        number.and_then(|number| self.links.get(number)).map(|plan| format!("{plan:?}")).unwrap_or_default()
    }

    /// Returns the seed of the script.
    pub fn seed(&self) -> u64 {
        self.seed
    }
}

fn plan(chance: &mut Chance) -> Plan {
    let kind =
        Kind { half_open: chance.percent(50), backpressure: chance.percent(50), narrow: chance.percent(20) };
    let pace = match chance.up_to(3) {
        1 => Pace::AtOnce,
        2 => Pace::Told,
        _ => Pace::Later,
    };
    let steps = (0..chance.up_to(STEPS_MAX)).map(|_| step(chance, kind)).collect();
    Plan { kind, pace, steps, last: last(chance, kind) }
}

fn step(chance: &mut Chance, kind: Kind) -> Step {
    match chance.up_to(10) {
        1 | 2 => Step::Send { from: side(chance), bytes: size(chance), pieces: chance.up_to(5) },
        3 => Step::Cross { by: side(chance), traffic: crossing(chance, kind) },
        4 => Step::Pause { on: side(chance), bytes: size(chance) },
        5 => Step::Release { on: side(chance), traffic: crossing(chance, kind) },
        6 => Step::Deadline { on: side(chance) },
        7 => {
            let millis: Vec<u64> = (0..chance.up_to(6)).map(|_| chance.bits() % 4).collect();
            Step::Timers { cancelled: chance.up_to(millis.len()) - 1, millis }
        }
        8 => Step::Tell { count: chance.up_to(5) as u64 },
        9 => Step::Refused,
        _ => Step::Fleeting { is_aborted: chance.percent(50) },
    }
}

fn last(chance: &mut Chance, kind: Kind) -> Last {
    let (by, paused) = (side(chance), chance.percent(30));
    match chance.up_to(9) {
        1 | 2 => Last::Close { by, traffic: crossing(chance, kind), paused },
        3 | 4 => Last::Finish { by, traffic: crossing(chance, kind), paused },
        5 | 6 => Last::Abort { by, traffic: crossing(chance, kind), paused },
        7 => Last::Deadline { by },
        8 => Last::Refuse { by, own: size(chance) },
        _ => Last::Stay,
    }
}

fn side(chance: &mut Chance) -> Side {
    Side::BOTH[chance.up_to(2) - 1]
}

/// Draws a size: mostly small, sometimes at the edges of buffers, and now and then more than a socket takes.
fn size(chance: &mut Chance) -> usize {
    match chance.up_to(10) {
        1..=4 => chance.up_to(100),
        5..=7 => chance.up_to(20_000),
        8 => EDGES[chance.up_to(EDGES.len()) - 1],
        _ => chance.up_to(SIZE_MAX),
    }
}

/// Draws the traffic of both ends. With backpressure, each sends less than the high mark. Otherwise both ends
/// could stop reading because their own queues are high, and wait for each other for ever.
fn crossing(chance: &mut Chance, kind: Kind) -> Traffic {
    let mut amount = || match (chance.percent(30), kind.backpressure) {
        (true, _) => 0,
        (false, true) => size(chance).min(CROSSING_MAX),
        (false, false) => size(chance),
    };
    Traffic { own: amount(), others: amount() }
}

/// How many steps a connection has before the last one, at most.
const STEPS_MAX: usize = 6;
/// The largest amount, in bytes. It exceeds the system's buffers of a new connection.
const SIZE_MAX: usize = 300_000;
/// Less than the default high mark.
const CROSSING_MAX: usize = 32 << 10;
/// Sizes near the buffer sizes of the library and of a harsh world.
const EDGES: [usize; 9] = [1, 47, 48, 49, 64, 16 << 10, (64 << 10) - 1, 64 << 10, (64 << 10) + 1];

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, mem::discriminant};

    use super::*;

    #[test]
    fn a_seed_is_one_script_and_few_seeds_draw_every_operation() {
        let texts: Vec<String> = (0..2).map(|_| format!("{:?}", Script::draw(5, 20))).collect();
        assert_eq!(texts[0], texts[1]);
        let (mut kinds, mut steps, mut lasts) = (BTreeSet::new(), Vec::new(), Vec::new());
        for plan in (0..40).flat_map(|seed| Script::draw(seed, 8).links) {
            assert!((1..=STEPS_MAX).contains(&plan.steps.len()));
            kinds.insert(format!("{:?}", (plan.kind, plan.pace)));
            steps.extend(plan.steps.iter().map(discriminant));
            lasts.push(discriminant(&plan.last));
        }
        assert_eq!(kinds.len(), 8 * 3, "every kind at every pace");
        assert_eq!(distinct(steps), 9, "every step");
        assert_eq!(distinct(lasts), 6, "every last step");
    }

    fn distinct<T: PartialEq>(all: Vec<T>) -> usize {
        let mut seen: Vec<T> = Vec::new();
        for one in all {
            if !seen.contains(&one) {
                seen.push(one);
            }
        }
        seen.len()
    }
}
