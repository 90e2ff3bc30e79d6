//! The picture: a space-time diagram of a run. Time goes to the right, each node is a line, and each message
//! is a stroke from its sending to its arrival.

mod canvas;
mod frame;
mod timeline;

use std::fmt::Write;

use sim::{Kind, Node};

use self::{
    canvas::Canvas,
    timeline::{Mark, MarkKind, Span, Stroke, Timeline},
};
use crate::{args::Request, scenario::Played};

/// Draws a run as SVG.
pub(crate) fn draw(request: &Request, played: &Played) -> String {
    let timeline = Timeline::of(&played.history, played.ended);
    let lanes = lanes_of(&timeline.spans);
    let lane_count = lanes.iter().max().map_or(0, |lane| lane + 1);
    let top = frame::HEAD + lane_count as f64 * LANE + 22.0;
    let mut canvas = Canvas::new(request.nodes, played.began, played.ended, top);

    let drawn = sample(&timeline.strokes);
    bands(&mut canvas, &timeline.spans);
    frame::grid(&mut canvas, played);
    nodes(&mut canvas, request.nodes, &timeline);
    strokes(&mut canvas, &drawn);
    bars(&mut canvas, &timeline.spans, &lanes);
    marks(&mut canvas, played, &timeline.marks);
    frame::ends(&mut canvas, played);
    frame::head(&mut canvas, request, played, &timeline.counts, drawn.len());
    let height = frame::foot(&mut canvas, played);
    canvas.finish(height, &frame::attributes(request, played, &timeline.counts, drawn.len()))
}

/// Returns every message, or an even sample if there are too many to distinguish.
fn sample(strokes: &[Stroke]) -> Vec<&Stroke> {
    let count = strokes.len().min(STROKES_MAX);
    (0..count).map(|at| &strokes[at * strokes.len() / count]).collect()
}

/// Returns the lane of each span's bar: the first lane that is free at its beginning.
fn lanes_of(spans: &[Span]) -> Vec<usize> {
    let mut busy_until = Vec::new();
    let lanes = spans.iter().map(|span| {
        let free = busy_until.iter().position(|until| *until <= span.begin);
        let lane = free.unwrap_or(busy_until.len());
        busy_until.resize(busy_until.len().max(lane + 1), span.end);
        busy_until[lane] = span.end;
        lane
    });
    lanes.collect()
}

/// Tints the rows of nodes that cannot reach each other, for as long as that lasts.
fn bands(canvas: &mut Canvas, spans: &[Span]) {
    for span in spans {
        let (these, those) = match span.kind {
            Kind::Partition => ("side-a", Some("side-b")),
            Kind::OneWay => ("muted", None),
            Kind::Hold => ("held", Some("held")),
            _ => ("slowed", None),
        };
        band(canvas, these, span, &span.these);
        if let Some(those) = those {
            band(canvas, those, span, &span.those);
        }
    }
}

/// Draws neighbouring rows as one rectangle.
fn band(canvas: &mut Canvas, class: &str, span: &Span, nodes: &[Node]) {
    let (x, width) = (canvas.x(span.begin), canvas.x(span.end) - canvas.x(span.begin));
    for run in nodes.chunk_by(|one, next| one.number() + 1 == next.number()) {
        let y = canvas.y(run[0]) - canvas.row / 2.0;
        canvas.rect(class, (x, y), (width, canvas.row * run.len() as f64));
    }
}

/// Draws one bar above the rows for each obstacle, with its kind and its duration.
fn bars(canvas: &mut Canvas, spans: &[Span], lanes: &[usize]) {
    for (span, lane) in spans.iter().zip(lanes) {
        let (class, label) = match span.kind {
            Kind::Partition => ("bar-partition", "partition".to_owned()),
            Kind::OneWay => ("bar-one-way", "one way".to_owned()),
            Kind::Hold => ("bar-hold", format!("hold {}, {}", span.these[0], span.those[0])),
            _ => ("bar-slow", format!("slow {}", span.these[0])),
        };
        let (x, width) = (canvas.x(span.begin), canvas.x(span.end) - canvas.x(span.begin));
        let y = canvas.top - 22.0 - (*lane + 1) as f64 * LANE;
        canvas.rect(class, (x, y), (width.max(1.0), LANE - 2.0));
        if width > 6.5 * label.len() as f64 {
            canvas.text("bar-text", (x + 4.0, y + LANE - 5.0), label);
        }
    }
}

/// Draws the lines of the nodes, interrupted while a node is down, and thick while it is paused.
fn nodes(canvas: &mut Canvas, count: usize, timeline: &Timeline) {
    let every = (LABEL_MIN / canvas.row).ceil() as usize;
    for row in 0..count {
        let y = canvas.y_of_row(row);
        canvas.line("life", (canvas::LEFT, y), (canvas::RIGHT, y));
        if row.is_multiple_of(every) {
            canvas.text("node", (canvas::LEFT - 10.0, y + 4.0), row);
        }
    }
    for down in &timeline.downs {
        let y = canvas.y(down.node);
        let ends = ((canvas.x(down.begin), y), (canvas.x(down.end), y));
        canvas.line("down", ends.0, ends.1);
        canvas.line("gone", ends.0, ends.1);
    }
    for pause in &timeline.pauses {
        let y = canvas.y(pause.node);
        canvas.line("pause", (canvas.x(pause.begin), y), (canvas.x(pause.end), y));
    }
}

fn strokes(canvas: &mut Canvas, drawn: &[&Stroke]) {
    let (mut on_time, mut late, mut arrivals) = (String::new(), String::new(), String::new());
    for stroke in drawn {
        let (x1, y1) = (canvas.x(stroke.sent), canvas.y(stroke.from));
        let (x2, y2) = (canvas.x(stroke.arrived), canvas.y(stroke.to));
        let is_late = stroke.arrived.since(stroke.sent).as_millis() > LATE_MS;
        let path = if is_late { &mut late } else { &mut on_time };
        write!(path, "M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}").expect("memory can be written");
        write!(arrivals, "M{x2:.1} {y2:.1}h0").expect("memory can be written");
    }
    let density = if drawn.len() <= FEW { "few" } else { "many" };
    canvas.path(&format!("message {density}"), &on_time);
    canvas.path(&format!("late {density}"), &late);
    if drawn.len() <= FEW {
        canvas.path("arrival", &arrivals);
    }
}

fn marks(canvas: &mut Canvas, played: &Played, marks: &[Mark]) {
    let size = (canvas.row * 0.3).clamp(2.5, 6.0);
    for (at, node) in &played.published {
        let place = (canvas.x(*at), canvas.y(*node));
        canvas.circle("fact", place, size * 0.75);
    }
    for mark in marks {
        mark_at(canvas, mark.kind, (canvas.x(mark.at), canvas.y(mark.node)), size);
    }
}

fn mark_at(canvas: &mut Canvas, kind: MarkKind, (x, y): (f64, f64), size: f64) {
    let (s, d) = (size, 2.0 * size);
    let cross = format!("M{:.1} {:.1}l{d:.1} {d:.1}m-{d:.1} 0l{d:.1} -{d:.1}", x - s, y - s);
    match kind {
        MarkKind::Crash => canvas.path("crash", &cross),
        MarkKind::PowerOff => canvas.path("power-off", &cross),
        MarkKind::Restart => {
            let triangle =
                format!("M{:.1} {:.1}l{:.1} {s:.1}l-{:.1} {s:.1}z", x - s * 0.7, y - s, s * 1.7, s * 1.7);
            canvas.path("restart", &triangle);
        }
        MarkKind::WallStep => {
            let diamond = format!("M{x:.1} {:.1}l{s:.1} {s:.1}l-{s:.1} {s:.1}l-{s:.1} -{s:.1}z", y - s);
            canvas.path("wall", &diamond);
        }
    }
}

/// The most messages in a picture. More would form one grey area.
const STROKES_MAX: usize = 4000;
/// Up to this many messages, each arrival gets a mark.
const FEW: usize = 1500;
/// An obstacle delayed a message that took longer than this.
const LATE_MS: u128 = 250;
/// The height of a bar.
const LANE: f64 = 16.0;
/// The least distance between two names of nodes.
const LABEL_MIN: f64 = 12.0;
