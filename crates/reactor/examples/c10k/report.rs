//! The measurements, as a table for people or as one JSON object for programs.

use std::{fmt::Display, time::Duration};

/// The measurements. A figure that the system does not provide is `None`.
pub(crate) struct Report {
    pub(crate) connections: usize,
    pub(crate) idle: usize,
    pub(crate) size: usize,
    pub(crate) depth: usize,
    pub(crate) messages: u64,
    /// From the first message sent to the last one back.
    pub(crate) duration: Duration,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) p999: Duration,
    /// The server's processor time between the first and the last message.
    pub(crate) processor_time: Option<Duration>,
    /// The growth of the server's resident memory since it had no connections.
    pub(crate) resident_growth: Option<u64>,
    pub(crate) threads: Option<usize>,
}

impl Report {
    pub(crate) fn table(&self, engine: &str) -> String {
        let row = |name: &str, value: String| format!("{name:<26}{value}\n");
        let millis = |latency: Duration| format!("{:.2}", latency.as_secs_f64() * 1e3);
        [
            row("engine", engine.to_owned()),
            row("connections", format!("{} and {} idle", grouped(self.connections), grouped(self.idle))),
            row("message", format!("{} bytes, {} in flight per connection", self.size, self.depth)),
            row("messages", format!("{} in {:.2} s", grouped(self.messages), self.duration.as_secs_f64())),
            row("messages/s", grouped(self.per_second() as u64)),
            row(
                "latency p50/p99/p99.9",
                format!("{} / {} / {} ms", millis(self.p50), millis(self.p99), millis(self.p999)),
            ),
            row("server CPU per message", known(self.micros_per_message().map(|cpu| format!("{cpu:.3} us")))),
            row("resident per connection", known(self.bytes_per_connection().map(|n| format!("{n} bytes")))),
            row("server threads", known(self.threads)),
        ]
        .concat()
    }

    /// Formats the report as one JSON object on one line. Latencies are in microseconds.
    pub(crate) fn json(&self, engine: &str) -> String {
        let field = |name: &str, value: String| format!("\"{name}\":{value}");
        let micros = |latency: Duration| (latency.as_nanos() as f64 / 1e3).to_string();
        let fields = [
            // Nothing to escape: names of engines are plain words.
            field("engine", format!("\"{engine}\"")),
            field("connections", self.connections.to_string()),
            field("idle", self.idle.to_string()),
            field("size", self.size.to_string()),
            field("depth", self.depth.to_string()),
            field("messages", self.messages.to_string()),
            field("seconds", self.duration.as_secs_f64().to_string()),
            field("messages_per_second", self.per_second().to_string()),
            field("latency_p50_us", micros(self.p50)),
            field("latency_p99_us", micros(self.p99)),
            field("latency_p999_us", micros(self.p999)),
            field("server_cpu_us_per_message", json(self.micros_per_message())),
            field("resident_bytes_per_connection", json(self.bytes_per_connection())),
            field("threads", json(self.threads)),
        ];
        format!("{{{}}}", fields.join(","))
    }

    fn per_second(&self) -> f64 {
        self.messages as f64 / self.duration.as_secs_f64().max(1e-9)
    }

    fn micros_per_message(&self) -> Option<f64> {
        Some(self.processor_time?.as_secs_f64() * 1e6 / self.messages.max(1) as f64)
    }

    fn bytes_per_connection(&self) -> Option<u64> {
        Some(self.resident_growth? / (self.connections + self.idle) as u64)
    }
}

fn known(value: Option<impl Display>) -> String {
    value.map_or_else(|| "not known on this system".to_owned(), |value| value.to_string())
}

fn json(value: Option<impl Display>) -> String {
    value.map_or_else(|| "null".to_owned(), |value| value.to_string())
}

/// Formats a number with commas between its thousands.
pub(crate) fn grouped(number: impl Display) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
