//! Records of the services, for the receipt: errors, faults, panics and ends, and lines on standard error.

use crate::{error::Closed, log::short, resource::Losses, runtime::LoopState, sync::atomic::Ordering};

/// The most errors of a service whose texts the receipt keeps.
const ERRORS_KEPT: usize = 8;
/// The most bytes of such a text.
const ERROR_BYTES_MAX: usize = 1024;

/// Keeps the first few texts, each cut to a limit.
fn keep_first(kept: &mut Vec<String>, text: &str) {
    if kept.len() < ERRORS_KEPT {
        let end = (0..=ERROR_BYTES_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
        kept.push(text[..end.unwrap_or(0)].to_owned());
    }
}

/// The record of a service, for its receipt.
#[derive(Default)]
pub(crate) struct ServiceRecord {
    /// The type of the service.
    pub(crate) name: &'static str,
    pub(crate) faults: u64,
    pub(crate) first_faults: Vec<String>,
    pub(crate) closed: u64,
    pub(crate) cut: u64,
    pub(crate) bytes_dropped: u64,
    /// Bytes of released streams that were dropped later, in any thread.
    pub(crate) losses: Option<Losses>,
    pub(crate) jobs: u32,
    /// Errors that no code took, and the texts of the first of them.
    pub(crate) errors: u64,
    pub(crate) first_errors: Vec<String>,
    pub(crate) panics: u64,
    pub(crate) first_panics: Vec<String>,
    /// The number of restarts.
    pub(crate) restarts: u64,
    /// The number of the service's present life. The runtime discards requests of an earlier life.
    pub(crate) life: u32,
}

impl ServiceRecord {
    /// Returns the bytes of the service's streams that have not left, so far.
    pub(crate) fn bytes_dropped(&self) -> u64 {
        let released = self.losses.as_ref().map_or(0, |losses| losses.load(Ordering::Relaxed));
        self.bytes_dropped + released
    }
}

impl LoopState {
    /// Records an error of a service that no code took: in the receipt, and as a line on standard error.
    #[cold]
    pub(crate) fn note_error(&mut self, service: u16, text: String) {
        self.complain(service, &text);
        self.record_error(service, text);
    }

    /// Counts an error of a service that its caller receives, and keeps it for the receipt.
    pub(crate) fn record_error(&mut self, service: u16, text: String) {
        let Some(record) = self.records.get_mut(service as usize) else { return };
        record.errors += 1;
        keep_first(&mut record.first_errors, &text);
    }

    /// Counts a panic of a service, and keeps its text for the receipt.
    pub(crate) fn record_panic(&mut self, service: u16, text: &str) {
        let Some(record) = self.records.get_mut(service as usize) else { return };
        record.panics += 1;
        keep_first(&mut record.first_panics, text);
    }

    /// Writes a line about a service to standard error, unless there were too many.
    #[cold]
    pub(crate) fn complain(&mut self, service: u16, text: &str) {
        let name = self.records.get(service as usize).map_or("", |record| record.name);
        if crate::log::error(name, text) {
            return;
        }
        let line = self.lines.line(self.now, &format!("service {}: {text}", short(name)));
        if line.is_some_and(|line| !self.engine.host_mut().print_error(&line)) {
            self.lines.keep_back();
        }
    }

    /// Writes the number of lines that were left out since the last one.
    pub(crate) fn end_complaints(&mut self) {
        if let Some(line) = self.lines.last() {
            self.engine.host_mut().print_error(&line);
        }
    }

    /// Counts the end of a resource, by its cause and for its service.
    pub(super) fn count_end(&mut self, service: u16, why: &Closed, is_cut: bool) {
        match why {
            Closed::Failed(_) => self.counters.errors_os += 1,
            Closed::Refused(_) | Closed::Truncated(_) | Closed::Misuse(_) => {
                self.counters.errors_refused += 1
            }
            Closed::Overflow
            | Closed::Unread
            | Closed::OverBudget
            | Closed::Stalled
            | Closed::Deadline
            | Closed::TimedOut(_) => self.counters.errors_limit += 1,
            _ => (),
        }
        if let Some(record) = self.records.get_mut(service as usize) {
            record.closed += 1;
            record.cut += is_cut as u64;
        }
    }
}
