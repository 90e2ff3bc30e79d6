//! The frame of the diagram: title, counts, legend, axis, the curve of known facts, the table of faults.

use std::fmt::Write;

use sim::KINDS;

use super::{
    MarkKind,
    canvas::{Canvas, LEFT, RIGHT},
    mark_at,
    timeline::Counts,
};
use crate::{args::Request, scenario::Played};

/// Draws the title, the counts and the legend.
pub(crate) fn head(canvas: &mut Canvas, request: &Request, played: &Played, counts: &Counts, drawn: usize) {
    let (nodes, seed) = (request.nodes, request.seed);
    canvas.text("title", (LEFT, 40.0), format_args!("{nodes} nodes gossip, seed {seed}"));
    let outcome = match played.converged {
        Some(time) => format!("all agree {:.3} s later", time.as_secs_f64()),
        None => "they never agree".to_owned(),
    };
    let (seconds, digest) = (request.seconds, played.summary.digest);
    let lead =
        format!("{seconds} s with faults, then everything is repaired, and {outcome} (digest {digest})");
    canvas.text("lead", (LEFT, 64.0), lead);
    let mut line = format!("{} messages", counts.messages);
    if (drawn as u64) < counts.messages {
        write!(line, " (drawn: {drawn} of {})", counts.messages).expect("memory can be written");
    }
    write!(
        line,
        " of {} bytes, {} facts; {} crashes, {} restarts, {} partitions, {} one-way cuts, {} holds, {} pauses, \
         {} wall steps",
        counts.bytes,
        played.facts,
        counts.crashes,
        counts.restarts,
        counts.partitions,
        counts.one_way_cuts,
        counts.holds,
        counts.pauses,
        counts.wall_steps
    )
    .expect("memory can be written");
    if played.history_left_out > 0 {
        write!(line, "; {} further happenings were not kept", played.history_left_out)
            .expect("memory can be written");
    }
    canvas.text("lead", (LEFT, 86.0), line);
    legend(canvas);
}

fn legend(canvas: &mut Canvas) {
    let y = 114.0;
    let mut x = LEFT;
    let mut next = |canvas: &mut Canvas, label: &str| {
        let at = x;
        canvas.text("small", (at + 26.0, y + 4.0), label);
        x += 26.0 + 6.6 * label.len() as f64 + 16.0;
        at
    };
    let at = next(canvas, "message");
    canvas.line("message few", (at + 2.0, y - 6.0), (at + 20.0, y + 6.0));
    let at = next(canvas, "held up");
    canvas.line("late few", (at, y - 6.0), (at + 20.0, y + 6.0));
    let at = next(canvas, "new fact");
    canvas.circle("fact", (at + 14.0, y), 4.5);
    for (kind, label) in [
        (MarkKind::Crash, "crash"),
        (MarkKind::PowerOff, "power cut"),
        (MarkKind::Restart, "restart"),
        (MarkKind::WallStep, "wall clock steps"),
    ] {
        let at = next(canvas, label);
        mark_at(canvas, kind, (at + 14.0, y), 5.0);
    }
    let at = next(canvas, "stands still");
    canvas.line("pause", (at + 4.0, y), (at + 18.0, y));
    let at = next(canvas, "the two sides of a partition");
    canvas.rect("side-a", (at + 2.0, y - 8.0), (18.0, 8.0));
    canvas.rect("side-b", (at + 2.0, y), (18.0, 8.0));
    for (class, label) in [("muted", "is not heard"), ("held", "packets are held"), ("slowed", "is slow")] {
        let at = next(canvas, label);
        canvas.rect(class, (at + 2.0, y - 7.0), (18.0, 14.0));
    }
}

/// Draws the axis, with a line for each tick.
pub(crate) fn grid(canvas: &mut Canvas, played: &Played) {
    let seconds = played.ended.since(played.began).as_secs() as usize;
    let step = [1, 2, 5, 10, 20, 50, 100].into_iter().find(|step| seconds / step <= 25).unwrap_or(200);
    for second in (0..=seconds).step_by(step) {
        let x = canvas.x_of_second(second as f64);
        canvas.line("grid", (x, canvas.top), (x, canvas.bottom() + 5.0));
        canvas.text("tick", (x, canvas.bottom() + 19.0), format_args!("{second} s"));
    }
}

/// Draws the moment when the faults end, and the one when all agree.
pub(crate) fn ends(canvas: &mut Canvas, played: &Played) {
    let (top, bottom) = (canvas.top - 18.0, canvas.bottom() + CURVE_TOP + CURVE);
    let x = canvas.x(played.calm_since);
    canvas.line("stop", (x, top), (x, bottom));
    canvas.text("before", (x - 5.0, top + 11.0), "the faults end");
    if let Some(time) = played.converged {
        let x = canvas.x_of_second((played.calm_since.since(played.began) + time).as_secs_f64());
        canvas.line("agree", (x, top), (x, bottom));
        canvas.text("after", (x + 5.0, top + 11.0), "all agree");
    }
}

/// Draws the curve of known facts and the table of faults. Returns the height of the whole.
pub(crate) fn foot(canvas: &mut Canvas, played: &Played) -> f64 {
    let top = canvas.bottom() + CURVE_TOP;
    canvas.text("node", (LEFT - 10.0, top + 10.0), "100 %");
    canvas.text("node", (LEFT - 10.0, top + 0.5 * CURVE + 6.0), "known");
    canvas.text("node", (LEFT - 10.0, top + CURVE), "0 %");
    let mut curve = format!("M{LEFT:.1} {:.1}", top + CURVE);
    for (at, part) in &played.known {
        write!(curve, "L{:.1} {:.1}", canvas.x(*at), top + CURVE * (1.0 - part))
            .expect("memory can be written");
    }
    write!(curve, "L{RIGHT:.1} {:.1}z", top + CURVE).expect("memory can be written");
    canvas.path("known", &curve);
    canvas.line("grid", (LEFT, top), (RIGHT, top));

    let top = top + CURVE + 34.0;
    canvas.text("head", (LEFT, top), "Faults: how often injected, and how often seen");
    let width = (RIGHT - LEFT) / COLUMNS as f64;
    for (number, kind) in KINDS.into_iter().enumerate() {
        let (column, row) = (number / TABLE_ROWS, number % TABLE_ROWS);
        let (x, y) = (LEFT + column as f64 * width, top + 20.0 + row as f64 * 17.0);
        let tally = &played.summary.faults;
        let (injected, observed) = (tally.injected(kind), tally.observed(kind));
        let class = if injected + observed == 0 { "none" } else { "table" };
        canvas.text(class, (x, y), format_args!("{kind:?}"));
        canvas.text(class, (x + 105.0, y), format_args!("{injected}, {observed}"));
    }
    top + 20.0 + TABLE_ROWS as f64 * 17.0 + 10.0
}

/// Returns the attributes of the picture for programs.
pub(crate) fn attributes(request: &Request, played: &Played, counts: &Counts, drawn: usize) -> String {
    let numbers = [
        ("nodes", request.nodes as u64),
        ("seed", request.seed),
        ("messages", counts.messages),
        ("messages-drawn", drawn as u64),
        ("bytes", counts.bytes),
        ("facts", played.facts),
        ("crashes", counts.crashes),
        ("restarts", counts.restarts),
        ("partitions", counts.partitions),
        ("one-way-cuts", counts.one_way_cuts),
        ("holds", counts.holds),
        ("pauses", counts.pauses),
        ("wall-steps", counts.wall_steps),
        ("left-out", played.history_left_out),
    ];
    let mut text = format!("data-digest=\"{}\"", played.summary.digest);
    for (name, number) in numbers {
        write!(text, " data-{name}=\"{number}\"").expect("memory can be written");
    }
    text
}

/// The upper edge of the bars.
pub(crate) const HEAD: f64 = 136.0;
/// The distance of the curve from the rows, and its height.
const CURVE_TOP: f64 = 34.0;
const CURVE: f64 = 56.0;
const COLUMNS: usize = 6;
const TABLE_ROWS: usize = KINDS.len().div_ceil(COLUMNS);
