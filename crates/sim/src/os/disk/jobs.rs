//! File operations in flight: an engine starts them, and they run at a drawn moment unless their node ends
//! first.

use std::{cell::RefCell, io};

use reactor::{
    Time,
    file::{Action, Answer, FileJob},
};

use super::{Moment, timing::Times};
use crate::{
    faults::Kind,
    ids::HostId,
    world::state::{State, What},
    world::{node::Node, record::Happening},
};

/// The operations in flight in a world, by number.
#[derive(Default)]
pub(crate) struct FileJobs {
    out: std::collections::BTreeMap<u64, Out>,
    next: u64,
}

/// An operation in flight.
struct Out {
    host: HostId,
    job: FileJob,
    /// The delay between its execution and its completion.
    lag: u64,
    met: Option<Kind>,
    /// The result of an operation whose completion is delayed.
    result: Option<io::Result<Answer>>,
}

/// An operation whose completion is due.
pub(crate) struct Due(Out);

impl Due {
    /// Performs the operation if it has no result yet, and completes it.
    pub(crate) fn tell(self, state: &RefCell<State>) {
        let Out { host, job, result, .. } = self.0;
        job.perform(|action| result.unwrap_or_else(|| state.borrow_mut().perform_file(host, action)));
    }
}

impl State {
    /// Queues an operation, which runs at a drawn moment.
    pub(crate) fn add_file_job(&mut self, host: HostId, job: FileJob) {
        let Times { done, lag, met } = self.draw_times(host, job.action());
        let number = self.files.next;
        self.files.next += 1;
        self.digest.number(number << 8 | 0xf1);
        self.digest.bytes(job.action().to_string().as_bytes());
        self.files.out.insert(number, Out { host, job, lag, met, result: None });
        self.queue.put(done, What::File { number });
    }

    /// Takes the operation that is due, unless its node has ended. An operation with a delayed completion
    /// runs here.
    pub(crate) fn take_file_job(&mut self, number: u64) -> Option<Due> {
        let mut out = self.files.out.remove(&number)?;
        if let Some(kind) = out.met.take() {
            self.tally.observe(kind);
        }
        if out.lag == 0 {
            return Some(Due(out));
        }
        let at = self.now + std::mem::take(&mut out.lag);
        out.met = Some(Kind::LateFile);
        out.result = Some(self.perform_file(out.host, out.job.action_mut()));
        self.files.out.insert(number, out);
        self.queue.put(at, What::File { number });
        None
    }

    /// Performs an operation, and adds its result to the digest.
    pub(crate) fn perform_file(&mut self, host: HostId, action: &mut Action) -> io::Result<Answer> {
        let disk = &mut self.hosts[host].disk;
        let mut moment = Moment { chance: &mut self.chance, now: self.now };
        let result = disk.perform(action, &mut moment);
        match &result {
            Ok(Answer::Bytes(bytes)) => self.digest.bytes(bytes),
            Ok(_) => self.digest.number(0xf2),
            Err(error) => {
                self.digest.bytes(error.to_string().as_bytes());
                let (at, operation, error) = (Time::from_nanos(self.now), action.to_string(), error.kind());
                self.record.keep(|| Happening::FileFailed { at, node: Node(host), operation, error });
            }
        }
        result
    }

    /// Ends the operations of a node. A power cut also loses, keeps or tears the data that is not durable.
    /// Returns the operations, which the caller must drop.
    pub(crate) fn end_files(&mut self, host: HostId, kind: Kind) -> Vec<FileJob> {
        let numbers: Vec<u64> =
            self.files.out.iter().filter(|(_, out)| out.host == host).map(|(number, _)| *number).collect();
        let mut left = Vec::new();
        let disk = &mut self.hosts[host].disk;
        let mut moment = Moment { chance: &mut self.chance, now: self.now };
        for number in numbers {
            let Some(mut out) = self.files.out.remove(&number) else { continue };
            if out.result.is_none() {
                disk.leave_undone(out.job.action_mut(), &mut moment);
            }
            left.push(out.job);
        }
        if kind == Kind::Vanish && disk.counts.operations > 0 {
            let before = disk.counts;
            disk.cut(&mut moment);
            let after = disk.counts;
            let at = Time::from_nanos(self.now);
            let writes_lost = after.writes_lost - before.writes_lost;
            let writes_torn = after.writes_torn - before.writes_torn;
            let names_lost = after.names_lost - before.names_lost;
            self.digest.number(writes_lost << 32 ^ writes_torn << 16 ^ names_lost);
            self.record.keep(|| Happening::PowerCut {
                at,
                node: Node(host),
                writes_lost,
                writes_torn,
                names_lost,
            });
        }
        left
    }
}
