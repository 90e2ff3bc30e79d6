//! The effect of a node's end on its disk, and on its operations in flight.

use reactor::file::Action;

use super::{Disk, Moment, inode::Fate, perform::REPLACE_STEPS};

impl Disk {
    /// Decides the fate of an operation whose process ended: done, done in part, or not done.
    pub(super) fn leave_undone(&mut self, action: &mut Action, moment: &mut Moment<'_>) {
        match action {
            Action::Replace { path, bytes } => {
                let steps = moment.chance.below(REPLACE_STEPS + 1);
                // Nobody waits for the result any more.
                let _ = self.replace(path, bytes, steps, moment);
            }
            Action::Write { bytes, .. }
            | Action::Append { bytes, .. }
            | Action::AppendSynced { bytes, .. } => {
                bytes.truncate(moment.chance.below(bytes.len() as u64 + 1) as usize);
                let _ = self.perform(action, moment);
            }
            _ if moment.chance.below(2) == 0 => {
                let _ = self.perform(action, moment);
            }
            _ => (),
        }
    }

    /// Cuts the power. Each change that is not durable is lost, kept or torn.
    pub(super) fn cut(&mut self, moment: &mut Moment<'_>) {
        let counts = &mut self.counts;
        counts.cuts += 1;
        counts.names_lost += self.names.cut(moment.chance) as u64;
        for inode in self.inodes.values_mut() {
            inode.cut(moment.chance, |fate| match fate {
                Fate::Lost => counts.writes_lost += 1,
                Fate::Torn => counts.writes_torn += 1,
                Fate::Kept => (),
            });
        }
        self.used = self.inodes.values().map(|inode| inode.content.len() as u64).sum();
        self.collect();
    }
}
