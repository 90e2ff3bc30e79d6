//! How long an operation takes: drawn within the disk's bounds, and what the world's faults make of it.
//!
//! Nothing here can break a promise of a kernel. An operation is done at one moment between the call that asked for it
//! and its answer, so what was answered before a sync was asked for is safe when that sync is answered with `Ok`.
//! Operations that are out at once have no order on a real system either.

use reactor::{Time, file::Action};

use crate::{fault::Kind, link::nanos, record::Happening, state::State};

/// When an operation is done and answered.
pub(super) struct Times {
    pub(super) done: u64,
    /// How long its answer is under way then.
    pub(super) lag: u64,
    /// The fault that keeps it longest, if one does.
    pub(super) met: Option<Kind>,
}

/// What faults have made of a disk's speed.
pub(crate) struct Speed {
    /// By how much it is slower.
    pub(crate) factor: u32,
    /// Until then no sync is done.
    stalled_until: u64,
}

impl Default for Speed {
    fn default() -> Speed {
        Speed { factor: 1, stalled_until: 0 }
    }
}

impl State {
    /// Draws when an operation is done.
    pub(super) fn draw_times(&mut self, host: u32, action: &Action) -> Times {
        let is_sync = is_sync(action);
        let disk = &mut self.hosts[host as usize].disk;
        let base = nanos(if is_sync { disk.options.sync } else { disk.options.operation });
        let factor = disk.speed.factor;
        let is_slow = self.chance.per_million(disk.options.slow);
        let is_struck = self.strikes(Kind::SlowFile);
        let mut met = (factor > 1).then_some(Kind::SlowDisk);
        let mut most = base.saturating_mul(u64::from(factor));
        if is_slow || is_struck {
            most = most.max(SLOW_MAX);
            self.hosts[host as usize].disk.counts.slow += 1;
        }
        if is_struck {
            met = Some(Kind::SlowFile);
        }
        let mut done = self.now.saturating_add(self.chance.between((most / 10).max(1), most.max(1)));
        if is_sync {
            let until = self.stall_syncs(host);
            if until > done {
                (done, met) = (until, Some(Kind::StallSync));
            }
        }
        let is_late = self.strikes(Kind::LateFile);
        let lag = if is_late { self.chance.between(1, self.late_max) } else { 0 };
        Times { done, lag, met }
    }

    /// Until when syncs of a host's disk stand still, after this one was asked for.
    fn stall_syncs(&mut self, host: u32) -> u64 {
        if self.strikes(Kind::StallSync) {
            let until = self.now + self.chance.between(STALL_MAX / 10, STALL_MAX);
            let disk = &mut self.hosts[host as usize].disk;
            disk.counts.stalls += 1;
            disk.speed.stalled_until = disk.speed.stalled_until.max(until);
            let (at, until) = (Time::from_nanos(self.now), Time::from_nanos(until));
            self.record.keep(|| Happening::SyncStalled { at, node: host, until });
        }
        self.hosts[host as usize].disk.speed.stalled_until
    }

    /// Makes a host's disk so many times slower; 1 is as before.
    pub(crate) fn slow_disk(&mut self, host: u32, factor: u32) {
        self.hosts[host as usize].disk.speed.factor = factor.max(1);
        let at = Time::from_nanos(self.now);
        self.record.keep(|| Happening::DiskSlowed { at, node: host, factor: factor.max(1) });
    }
}

fn is_sync(action: &Action) -> bool {
    matches!(
        action,
        Action::Sync { .. }
            | Action::SyncDirectory { .. }
            | Action::AppendSynced { .. }
            | Action::Replace { .. }
    )
}

/// How long a slow operation takes at most.
const SLOW_MAX: u64 = 1_000_000_000;
/// How long syncs stand still at most.
const STALL_MAX: u64 = 5_000_000_000;
