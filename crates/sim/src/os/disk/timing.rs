//! The duration of an operation: drawn within the disk's bounds, and extended by faults of the world.
//!
//! This code cannot break a promise of the kernel, because an operation runs at one moment between its start
//! and its completion. An operation that completed before a sync started is therefore durable once the sync
//! completes with `Ok`. Concurrent operations have no order on a real system either.

use reactor::{Time, file::Action};

use super::Disks;
use crate::{
    faults::Kind,
    ids::HostId,
    net::link::nanos,
    world::{base::Base, node::Node, record::Happening},
};

/// The times at which an operation runs and completes.
pub(super) struct Times {
    pub(super) done: u64,
    /// The delay between its execution and its completion.
    pub(super) lag: u64,
    /// The fault that delays it longest, if one does.
    pub(super) met: Option<Kind>,
}

/// The effect of faults on a disk's speed.
pub(crate) struct Speed {
    /// The factor by which it is slower.
    pub(crate) factor: u32,
    /// No sync finishes before this time.
    stalled_until: u64,
}

impl Default for Speed {
    fn default() -> Speed {
        Speed { factor: 1, stalled_until: 0 }
    }
}

impl Disks {
    /// Draws the time at which an operation runs.
    pub(super) fn draw_times(&mut self, base: &mut Base, host: HostId, action: &Action) -> Times {
        let is_sync = is_sync(action);
        let disk = &mut self[host];
        let usual = nanos(if is_sync { disk.options.sync } else { disk.options.operation });
        let factor = disk.speed.factor;
        let is_slow = base.faults.chance.per_million(disk.options.slow);
        let is_struck = base.faults.draw_fault(Kind::SlowFile);
        let mut met = (factor > 1).then_some(Kind::SlowDisk);
        let mut most = usual.saturating_mul(u64::from(factor));
        if is_slow || is_struck {
            most = most.max(SLOW_MAX);
            self[host].counts.slow += 1;
        }
        if is_struck {
            met = Some(Kind::SlowFile);
        }
        let mut done = base.now().saturating_add(base.faults.chance.between((most / 10).max(1), most.max(1)));
        if is_sync {
            let until = self.stall_syncs(base, host);
            if until > done {
                (done, met) = (until, Some(Kind::StallSync));
            }
        }
        let is_late = base.faults.draw_fault(Kind::LateFile);
        let lag = if is_late { base.faults.draw_lateness() } else { 0 };
        Times { done, lag, met }
    }

    /// Returns the time until which the syncs of a host's disk stall, after a new sync has started.
    fn stall_syncs(&mut self, base: &mut Base, host: HostId) -> u64 {
        if base.faults.draw_fault(Kind::StallSync) {
            let until = base.now() + base.faults.chance.between(STALL_MAX / 10, STALL_MAX);
            let disk = &mut self[host];
            disk.counts.stalls += 1;
            disk.speed.stalled_until = disk.speed.stalled_until.max(until);
            let (at, until) = (Time::from_nanos(base.now()), Time::from_nanos(until));
            base.record.keep(|| Happening::SyncStalled { at, node: Node(host), until });
        }
        self[host].speed.stalled_until
    }

    /// Multiplies the time of a host's disk operations by this factor. 1 restores the speed.
    pub(crate) fn slow(&mut self, base: &mut Base, host: HostId, factor: u32) {
        self[host].speed.factor = factor.max(1);
        let at = Time::from_nanos(base.now());
        base.record.keep(|| Happening::DiskSlowed { at, node: Node(host), factor: factor.max(1) });
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

/// The longest time of a slow operation.
const SLOW_MAX: u64 = 1_000_000_000;
/// The longest stall of syncs.
const STALL_MAX: u64 = 5_000_000_000;
