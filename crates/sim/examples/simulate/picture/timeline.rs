//! The history sorted for drawing: spans, moments, and counts.

use reactor::Time;
use sim::{Happening, Kind, Node};

/// The counts of the history's events.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) crashes: u64,
    pub(crate) restarts: u64,
    pub(crate) partitions: u64,
    pub(crate) one_way_cuts: u64,
    pub(crate) holds: u64,
    pub(crate) pauses: u64,
    pub(crate) wall_steps: u64,
}

/// A message in flight.
pub(crate) struct Stroke {
    pub(crate) from: Node,
    pub(crate) to: Node,
    pub(crate) sent: Time,
    pub(crate) arrived: Time,
}

/// An obstacle between nodes, with its duration.
pub(crate) struct Span {
    pub(crate) kind: Kind,
    pub(crate) begin: Time,
    pub(crate) end: Time,
    pub(crate) these: Vec<Node>,
    pub(crate) those: Vec<Node>,
    /// Set if the reverse direction is obstructed, too.
    is_both_ways: bool,
    is_open: bool,
}

/// A state of one node, with its duration.
pub(crate) struct Stay {
    pub(crate) node: Node,
    pub(crate) begin: Time,
    pub(crate) end: Time,
    is_open: bool,
}

/// A moment of one node.
pub(crate) struct Mark {
    pub(crate) kind: MarkKind,
    pub(crate) node: Node,
    pub(crate) at: Time,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum MarkKind {
    Crash,
    PowerOff,
    Restart,
    WallStep,
}

/// A sorted history.
#[derive(Default)]
pub(crate) struct Timeline {
    pub(crate) counts: Counts,
    pub(crate) strokes: Vec<Stroke>,
    pub(crate) spans: Vec<Span>,
    pub(crate) downs: Vec<Stay>,
    pub(crate) pauses: Vec<Stay>,
    pub(crate) marks: Vec<Mark>,
}

impl Timeline {
    /// Sorts a history that ended at `end`.
    pub(crate) fn of(history: &[Happening], end: Time) -> Timeline {
        let mut timeline = Timeline::default();
        history.iter().for_each(|happening| timeline.take(happening));
        let (spans, stays) = (&mut timeline.spans, timeline.downs.iter_mut().chain(&mut timeline.pauses));
        spans.iter_mut().filter(|span| span.is_open).for_each(|span| span.end = end);
        stays.filter(|stay| stay.is_open).for_each(|stay| stay.end = end);
        timeline
    }

    fn take(&mut self, happening: &Happening) {
        let counts = &mut self.counts;
        match happening {
            &Happening::Message { sent, arrived, from, to, bytes } => {
                counts.messages += 1;
                counts.bytes += u64::from(bytes);
                self.strokes.push(Stroke { from, to, sent, arrived });
            }
            Happening::Obstructed { at, kind, from, to } => self.obstructed(*at, *kind, from, to),
            Happening::Cleared { at, kind, from, to } => self.cleared(*at, *kind, from, to),
            &Happening::Crashed { at, kind, node } => {
                counts.crashes += 1;
                let kind = if kind == Kind::PowerOff { MarkKind::PowerOff } else { MarkKind::Crash };
                self.marks.push(Mark { kind, node, at });
                begin(&mut self.downs, node, at);
            }
            &Happening::Restarted { at, node } => {
                counts.restarts += 1;
                self.marks.push(Mark { kind: MarkKind::Restart, node, at });
                end(&mut self.downs, node, at);
            }
            &Happening::Paused { at, node, on: true } => {
                counts.pauses += 1;
                begin(&mut self.pauses, node, at);
            }
            &Happening::Paused { at, node, on: false } => end(&mut self.pauses, node, at),
            &Happening::WallStepped { at, node, .. } => {
                counts.wall_steps += 1;
                self.marks.push(Mark { kind: MarkKind::WallStep, node, at });
            }
            // Events of later versions are not drawn.
            _ => (),
        }
    }

    fn obstructed(&mut self, at: Time, kind: Kind, from: &[Node], to: &[Node]) {
        // The history reports a cut in both directions as two obstacles, one right after the other.
        if let Some(span) = self.spans.last_mut()
            && matches!(kind, Kind::Partition | Kind::Hold)
            && (span.kind, span.begin, span.is_both_ways) == (kind, at, false)
            && (&span.these[..], &span.those[..]) == (to, from)
        {
            span.is_both_ways = true;
            return;
        }
        match kind {
            Kind::Partition => self.counts.partitions += 1,
            Kind::OneWay => self.counts.one_way_cuts += 1,
            Kind::Hold => self.counts.holds += 1,
            _ => (),
        }
        let (these, those) = (from.to_vec(), to.to_vec());
        let span = Span { kind, begin: at, end: at, these, those, is_both_ways: false, is_open: true };
        self.spans.push(span);
    }

    fn cleared(&mut self, at: Time, kind: Kind, from: &[Node], to: &[Node]) {
        let open = |span: &&mut Span| span.is_open;
        if from == to {
            // A repair clears all links of all nodes.
            self.spans.iter_mut().filter(open).for_each(|span| (span.end, span.is_open) = (at, false));
        } else if let Some(span) = self
            .spans
            .iter_mut()
            .filter(open)
            .find(|span| span.kind == kind && (&span.these[..], &span.those[..]) == (from, to))
        {
            (span.end, span.is_open) = (at, false);
        }
    }
}

fn begin(stays: &mut Vec<Stay>, node: Node, at: Time) {
    stays.push(Stay { node, begin: at, end: at, is_open: true });
}

fn end(stays: &mut [Stay], node: Node, at: Time) {
    if let Some(stay) = stays.iter_mut().find(|stay| stay.is_open && stay.node == node) {
        (stay.end, stay.is_open) = (at, false);
    }
}
