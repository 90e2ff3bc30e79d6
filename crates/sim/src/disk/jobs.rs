//! Operations on their way: taken from an engine, done at a drawn moment, or overtaken by their node's end.

use std::io;

use reactor::{
    Time,
    file::{Action, Answer, FileJob},
};

use super::Moment;
use crate::{
    fault::Kind,
    link::nanos,
    record::Happening,
    state::{State, What},
};

/// The operations that are out in a world, by number.
#[derive(Default)]
pub(crate) struct FileJobs {
    out: std::collections::BTreeMap<u64, (u32, FileJob)>,
    next: u64,
}

impl State {
    /// Takes an operation, to be done at a drawn moment.
    pub(crate) fn add_file_job(&mut self, host: u32, job: FileJob) {
        let disk = &mut self.hosts[host as usize].disk;
        let is_sync = matches!(
            job.action(),
            Action::Sync { .. }
                | Action::SyncDirectory { .. }
                | Action::AppendSynced { .. }
                | Action::Replace { .. }
        );
        let mut most = nanos(if is_sync { disk.options.sync } else { disk.options.operation });
        if self.chance.per_million(disk.options.slow) {
            disk.counts.slow += 1;
            most = most.max(1_000_000_000);
        }
        let at = self.now + self.chance.between((most / 10).max(1), most.max(1));
        let number = self.files.next;
        self.files.next += 1;
        self.digest.number(number << 8 | 0xf1);
        self.digest.bytes(job.action().to_string().as_bytes());
        self.files.out.insert(number, (host, job));
        self.queue.put(at, What::File { number });
    }

    /// The operation whose moment has come, unless its node has ended meanwhile.
    pub(crate) fn take_file_job(&mut self, number: u64) -> Option<(u32, FileJob)> {
        self.files.out.remove(&number)
    }

    /// Does an operation.
    pub(crate) fn perform_file(&mut self, host: u32, action: &mut Action) -> io::Result<Answer> {
        let disk = &mut self.hosts[host as usize].disk;
        let mut moment = Moment { chance: &mut self.chance, now: self.now };
        let result = disk.perform(action, &mut moment);
        match &result {
            Ok(Answer::Bytes(bytes)) => self.digest.bytes(bytes),
            Ok(_) => self.digest.number(0xf2),
            Err(error) => {
                self.digest.bytes(error.to_string().as_bytes());
                let (at, operation, error) = (Time::from_nanos(self.now), action.to_string(), error.kind());
                self.record.keep(|| Happening::FileFailed { at, node: host, operation, error });
            }
        }
        result
    }

    /// A node has ended: without power its disk keeps what is safe. Gives back what was out, to be dropped.
    pub(crate) fn end_files(&mut self, host: u32, kind: Kind) -> Vec<FileJob> {
        let numbers: Vec<u64> =
            self.files.out.iter().filter(|(_, (of, _))| *of == host).map(|(number, _)| *number).collect();
        let mut left = Vec::new();
        let disk = &mut self.hosts[host as usize].disk;
        let mut moment = Moment { chance: &mut self.chance, now: self.now };
        for number in numbers {
            let Some((_, mut job)) = self.files.out.remove(&number) else { continue };
            disk.leave_undone(job.action_mut(), &mut moment);
            left.push(job);
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
            self.record.keep(|| Happening::PowerCut { at, node: host, writes_lost, writes_torn, names_lost });
        }
        left
    }
}
