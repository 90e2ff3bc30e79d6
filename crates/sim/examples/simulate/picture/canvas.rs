//! The canvas: the positions of times and nodes, and the few shapes of the picture.

use std::fmt::Display;

use reactor::Time;
use sim::Node;

/// A picture in progress.
pub(crate) struct Canvas {
    out: String,
    began: Time,
    /// Pixels per second.
    scale: f64,
    /// The upper edge of the first row.
    pub(crate) top: f64,
    /// The height of a node's row.
    pub(crate) row: f64,
    nodes: usize,
}

impl Canvas {
    pub(crate) fn new(nodes: usize, began: Time, ended: Time, top: f64) -> Canvas {
        let seconds = ended.since(began).as_secs_f64().max(1e-3);
        Canvas {
            out: String::new(),
            began,
            scale: (RIGHT - LEFT) / seconds,
            top,
            row: (ROWS / nodes as f64).clamp(ROW_MIN, ROW_MAX),
            nodes,
        }
    }

    /// Returns the position of a moment.
    pub(crate) fn x(&self, at: Time) -> f64 {
        LEFT + at.since(self.began).as_secs_f64() * self.scale
    }

    /// Returns the position of a number of seconds after the beginning.
    pub(crate) fn x_of_second(&self, second: f64) -> f64 {
        LEFT + second * self.scale
    }

    /// Returns the middle of a node's row.
    pub(crate) fn y(&self, node: Node) -> f64 {
        self.y_of_row(node.number() as usize)
    }

    /// Returns the middle of a row.
    pub(crate) fn y_of_row(&self, row: usize) -> f64 {
        self.top + (row as f64 + 0.5) * self.row
    }

    /// Returns the lower edge of the last row.
    pub(crate) fn bottom(&self) -> f64 {
        self.top + self.nodes as f64 * self.row
    }

    pub(crate) fn raw(&mut self, text: &str) {
        self.out.push_str(text);
        self.out.push('\n');
    }

    pub(crate) fn rect(&mut self, class: &str, (x, y): (f64, f64), (width, height): (f64, f64)) {
        self.raw(&format!(
            r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}"/>"#
        ));
    }

    pub(crate) fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        self.raw(&format!(r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#));
    }

    pub(crate) fn circle(&mut self, class: &str, (x, y): (f64, f64), radius: f64) {
        self.raw(&format!(r#"<circle class="{class}" cx="{x:.1}" cy="{y:.1}" r="{radius:.1}"/>"#));
    }

    pub(crate) fn path(&mut self, class: &str, d: &str) {
        if !d.is_empty() {
            self.raw(&format!(r#"<path class="{class}" d="{d}"/>"#));
        }
    }

    /// Writes text. `class` sets its size and its anchor.
    pub(crate) fn text(&mut self, class: &str, (x, y): (f64, f64), text: impl Display) {
        self.raw(&format!(r#"<text class="{class}" x="{x:.1}" y="{y:.1}">{text}</text>"#));
    }

    /// Returns the picture, with its height and attributes.
    pub(crate) fn finish(self, height: f64, attributes: &str) -> String {
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {WIDTH} {height:.0}\" {attributes}>\n<style>{STYLE}</style>\n\
             <rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n{}</svg>\n",
            self.out
        )
    }
}

const WIDTH: f64 = 1600.0;
/// The edges of the time axis.
pub(crate) const LEFT: f64 = 70.0;
pub(crate) const RIGHT: f64 = 1570.0;
/// The height of all rows together, and the limits for each of them.
const ROWS: f64 = 900.0;
const ROW_MIN: f64 = 3.0;
const ROW_MAX: f64 = 84.0;

const STYLE: &str = "
.paper{fill:#fdfdfb} text{font-family:'DejaVu Sans',Verdana,sans-serif;fill:#2b3440}
.title{font-size:24px;font-weight:bold} .lead{font-size:14px} .small{font-size:12px}
.table{font-size:11.5px;fill:#4a5563} .none{font-size:11.5px;fill:#b4bac2}
.head{font-size:12.5px;font-weight:bold} .node{font-size:11px;text-anchor:end;fill:#5b6675}
.tick{font-size:11px;text-anchor:middle;fill:#5b6675} .bar-text{font-size:10px;fill:#fff}
.before{font-size:12px;font-weight:bold;text-anchor:end;fill:#1d7f4f}
.after{font-size:12px;font-weight:bold;fill:#1d7f4f}
.grid{stroke:#e3e5e8;stroke-width:1} .life{stroke:#9aa4b1;stroke-width:1.2}
.down{stroke:#fdfdfb;stroke-width:3} .gone{stroke:#d62f3c;stroke-width:1;stroke-dasharray:2 4}
.message{stroke:#3c6997;fill:none} .late{stroke:#e8590c;fill:none}
.few{stroke-width:.9;stroke-opacity:.6} .many{stroke-width:.6;stroke-opacity:.3}
.late.few{stroke-width:1.1;stroke-opacity:.9} .late.many{stroke-width:.7;stroke-opacity:.6}
.arrival{stroke:#3c6997;stroke-width:3.4;stroke-linecap:round}
.side-a{fill:#2f7de1;fill-opacity:.13} .side-b{fill:#f2a516;fill-opacity:.17}
.muted{fill:#8e44ad;fill-opacity:.16} .held{fill:#0c9c8c;fill-opacity:.22} .slowed{fill:#8a6d3b;fill-opacity:.2}
.bar-partition{fill:#4b74b8} .bar-one-way{fill:#8e44ad} .bar-hold{fill:#0c8577} .bar-slow{fill:#8a6d3b}
.crash{stroke:#d62f3c;fill:none;stroke-width:2.6;stroke-linecap:round}
.power-off{stroke:#111;fill:none;stroke-width:2.6;stroke-linecap:round}
.restart{fill:#1d9a5b;stroke:#fdfdfb;stroke-width:.8} .pause{stroke:#f08c00;stroke-width:5;stroke-linecap:round}
.wall{fill:#fdfdfb;stroke:#8e44ad;stroke-width:1.8} .fact{fill:#1b4f8f;stroke:#fdfdfb;stroke-width:.7}
.stop{stroke:#1d7f4f;stroke-width:1.6} .agree{stroke:#1d7f4f;stroke-width:1.6;stroke-dasharray:5 3}
.known{fill:#1d9a5b;fill-opacity:.25;stroke:#1d7f4f;stroke-width:1.4}
";
