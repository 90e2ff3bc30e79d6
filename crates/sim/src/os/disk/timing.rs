//! The duration of an operation: drawn within the disk's bounds, and extended by faults of the world.
//!
//! This code cannot break a promise of the kernel, because an operation runs at one moment between its start
//! and its completion. An operation that completed before a sync started is therefore durable once the sync
//! completes with `Ok`. Concurrent operations have no order on a real system either.

use reactor::{Time, file::Action};

use crate::{
    faults::Kind,
    ids::HostId,
    net::link::nanos,
    world::state::State,
    world::{node::Node, record::Happening},
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

impl State {
    /// Draws the time at which an operation runs.
    pub(super) fn draw_times(&mut self, host: HostId, action: &Action) -> Times {
        let is_sync = is_sync(action);
        let disk = &mut self.hosts[host].disk;
        let base = nanos(if is_sync { disk.options.sync } else { disk.options.operation });
        let factor = disk.speed.factor;
        let is_slow = self.chance.per_million(disk.options.slow);
        let is_struck = self.strikes(Kind::SlowFile);
        let mut met = (factor > 1).then_some(Kind::SlowDisk);
        let mut most = base.saturating_mul(u64::from(factor));
        if is_slow || is_struck {
            most = most.max(SLOW_MAX);
            self.hosts[host].disk.counts.slow += 1;
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

    /// Returns the time until which the syncs of a host's disk stall, after a new sync has started.
    fn stall_syncs(&mut self, host: HostId) -> u64 {
        if self.strikes(Kind::StallSync) {
            let until = self.now + self.chance.between(STALL_MAX / 10, STALL_MAX);
            let disk = &mut self.hosts[host].disk;
            disk.counts.stalls += 1;
            disk.speed.stalled_until = disk.speed.stalled_until.max(until);
            let (at, until) = (Time::from_nanos(self.now), Time::from_nanos(until));
            self.record.keep(|| Happening::SyncStalled { at, node: Node(host), until });
        }
        self.hosts[host].disk.speed.stalled_until
    }

    /// Multiplies the time of a host's disk operations by this factor. 1 restores the speed.
    pub(crate) fn slow_disk(&mut self, host: HostId, factor: u32) {
        self.hosts[host].disk.speed.factor = factor.max(1);
        let at = Time::from_nanos(self.now);
        self.record.keep(|| Happening::DiskSlowed { at, node: Node(host), factor: factor.max(1) });
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
