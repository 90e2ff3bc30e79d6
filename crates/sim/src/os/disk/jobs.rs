//! File operations in flight: an engine starts them, and they run at a drawn moment unless their node ends
//! first.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io,
    ops::{Index, IndexMut},
};

use reactor::{
    Time,
    file::{Action, Answer, FileJob},
};

use super::{Disk, Moment, timing::Times};
use crate::{
    faults::Kind,
    ids::{FileJobId, HostId, IdVec},
    world::{
        base::Base,
        node::Node,
        record::Happening,
        state::{Scheduled, State},
    },
};

/// The disks of all hosts, and the operations in flight, which run at most once.
pub(crate) struct Disks {
    all: IdVec<HostId, Disk>,
    out: BTreeMap<FileJobId, Out>,
    next: FileJobId,
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
    pub(crate) fn complete(self, state: &RefCell<State>) {
        let Out { host, job, result, .. } = self.0;
        job.perform(|action| {
            result.unwrap_or_else(|| {
                let state = &mut *state.borrow_mut();
                state.disks.perform(&mut state.base, host, action)
            })
        });
    }
}

impl Disks {
    pub(crate) fn new() -> Disks {
        Disks { all: IdVec::new(), out: BTreeMap::new(), next: FileJobId::default() }
    }

    pub(crate) fn add_host(&mut self) {
        self.all.push(Disk::default());
    }

    /// Queues an operation, which runs at a drawn moment.
    pub(crate) fn start(&mut self, base: &mut Base, host: HostId, job: FileJob) {
        let Times { done, lag, met } = self.draw_times(base, host, job.action());
        let number = self.next.take();
        base.record.digest.number(number.number() << 8 | 0xf1);
        base.record.digest.bytes(job.action().to_string().as_bytes());
        self.out.insert(number, Out { host, job, lag, met, result: None });
        base.clock.schedule(done, Scheduled::File { number });
    }

    /// Takes the operation that is due, unless its node has ended. An operation with a delayed completion
    /// runs here.
    pub(crate) fn take_due(&mut self, base: &mut Base, number: FileJobId) -> Option<Due> {
        let mut out = self.out.remove(&number)?;
        if let Some(kind) = out.met.take() {
            base.faults.tally.observe(kind);
        }
        if out.lag == 0 {
            return Some(Due(out));
        }
        let at = base.now() + std::mem::take(&mut out.lag);
        out.met = Some(Kind::LateFile);
        out.result = Some(self.perform(base, out.host, out.job.action_mut()));
        self.out.insert(number, out);
        base.clock.schedule(at, Scheduled::File { number });
        None
    }

    /// Performs an operation, and adds its result to the digest.
    pub(crate) fn perform(
        &mut self,
        base: &mut Base,
        host: HostId,
        action: &mut Action,
    ) -> io::Result<Answer> {
        let disk = &mut self.all[host];
        let mut moment = Moment { chance: &mut base.faults.chance, now: base.clock.now() };
        let result = disk.perform(action, &mut moment);
        match &result {
            Ok(Answer::Bytes(bytes)) => base.record.digest.bytes(bytes),
            Ok(_) => base.record.digest.number(0xf2),
            Err(error) => {
                base.record.digest.bytes(error.to_string().as_bytes());
                let (at, operation, error) = (Time::from_nanos(base.now()), action.to_string(), error.kind());
                base.record.keep(|| Happening::FileFailed { at, node: Node(host), operation, error });
            }
        }
        result
    }

    /// Ends the operations of a node. A power cut also loses, keeps or tears the data that is not durable.
    /// Returns the operations, which the caller must drop.
    pub(crate) fn end_operations(&mut self, base: &mut Base, host: HostId, kind: Kind) -> Vec<FileJob> {
        let numbers: Vec<FileJobId> =
            self.out.iter().filter(|(_, out)| out.host == host).map(|(number, _)| *number).collect();
        let mut left = Vec::new();
        let disk = &mut self.all[host];
        let mut moment = Moment { chance: &mut base.faults.chance, now: base.clock.now() };
        for number in numbers {
            let Some(mut out) = self.out.remove(&number) else { continue };
            if out.result.is_none() {
                disk.leave_undone(out.job.action_mut(), &mut moment);
            }
            left.push(out.job);
        }
        if kind == Kind::PowerOff && disk.counts.operations > 0 {
            let before = disk.counts;
            disk.cut(&mut moment);
            let after = disk.counts;
            let at = Time::from_nanos(base.now());
            let writes_lost = after.writes_lost - before.writes_lost;
            let writes_torn = after.writes_torn - before.writes_torn;
            let names_lost = after.names_lost - before.names_lost;
            base.record.digest.number(writes_lost << 32 ^ writes_torn << 16 ^ names_lost);
            base.record.keep(|| Happening::PowerCut {
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

impl Index<HostId> for Disks {
    type Output = Disk;

    fn index(&self, host: HostId) -> &Disk {
        &self.all[host]
    }
}

impl IndexMut<HostId> for Disks {
    fn index_mut(&mut self, host: HostId) -> &mut Disk {
        &mut self.all[host]
    }
}
