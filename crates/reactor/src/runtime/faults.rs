//! Faults that wait for their services until the end of the turn, in a bounded list.

use crate::error::Fault;

/// The most faults of one turn that are kept. The runtime only counts further ones.
pub(crate) const FAULTS_MAX: usize = 1_024;

/// The faults of a turn, each with its service.
#[derive(Default)]
pub(crate) struct Faults {
    due: Vec<(u16, Fault)>,
    /// The number of dropped faults of each service that passed the limit.
    more: Vec<(u16, u64)>,
}

impl Faults {
    /// Keeps a fault for the service, or only counts it at the limit.
    pub(crate) fn push(&mut self, service: u16, fault: Fault) {
        if self.due.len() < FAULTS_MAX {
            return self.due.push((service, fault));
        }
        match self.more.iter_mut().find(|(of, _)| *of == service) {
            Some((_, count)) => *count += 1,
            None => self.more.push((service, 1)),
        }
    }

    /// Drops the faults of a service.
    pub(crate) fn drop_of(&mut self, service: u16) {
        self.due.retain(|(of, _)| *of != service);
        self.more.retain(|(of, _)| *of != service);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    /// Takes all faults in their order. The counts of dropped faults come last.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = (u16, Fault)> + use<> {
        let more = std::mem::take(&mut self.more).into_iter();
        let more = more.map(|(service, count)| (service, Fault::More(count)));
        std::mem::take(&mut self.due).into_iter().chain(more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_beyond_the_limit_are_counted_for_their_service() {
        for (count, more) in [(FAULTS_MAX - 1, None), (FAULTS_MAX, None), (FAULTS_MAX + 1, Some(1))] {
            let mut faults = Faults::default();
            (0..count).for_each(|limit| faults.push(7, Fault::TimersFull(limit)));
            let mut kept = 0;
            let mut counted = None;
            for (service, fault) in faults.take() {
                assert_eq!(service, 7);
                match fault {
                    Fault::TimersFull(limit) if limit == kept && counted.is_none() => kept += 1,
                    Fault::More(count) if counted.is_none() => counted = Some(count),
                    other => panic!("{other:?} is out of order"),
                }
            }
            assert_eq!((kept, counted), (count.min(FAULTS_MAX), more));
            assert!(faults.is_empty());
            (0..count).for_each(|limit| faults.push(7, Fault::TimersFull(limit)));
            faults.push(8, Fault::TimersFull(0));
            faults.drop_of(7);
            assert!(faults.take().all(|(service, _)| service == 8));
        }
    }
}
