//! The stop: graceful within its grace, then a cut, and one receipt of it all.

use std::time::Duration;

use super::Runtime;
use crate::{
    engine::Ending,
    error::{Closed, Error},
    guard,
    id::Key,
    panics::{Blame, During},
    resource::listener,
    threads::Left,
};

/// The beginning of a stop, when listeners still accept the connections that wait in their backlogs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drain {
    /// The count of accepted connections when the drain began, and at the last look.
    begun: u64,
    seen: u64,
    /// How many looks in a row, one a turn, found no further connection.
    quiet: u32,
}

/// A summary of a runtime's work until its end. `run` and `join` return it once.
///
/// If a runtime runs again, its receipt covers everything since it was made, including earlier services and
/// errors.
///
/// ```
/// use reactor::{Runtime, Service};
///
/// struct Idle;
///
/// impl Service for Idle {}
///
/// let mut runtime = Runtime::new()?;
/// runtime.add(Idle)?;
/// // Nothing is left to do.
/// let receipt = runtime.run()?;
/// assert_eq!((receipt.bytes_dropped, receipt.services.len()), (0, 1));
/// assert!(!receipt.services[0].is_failed());
/// # Ok::<(), reactor::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Receipt {
    /// Bytes that left after the stop began.
    pub bytes_flushed: u64,
    /// Bytes that did not leave, because their streams were cut, aborted or failed, or were dropped after
    /// their release.
    pub bytes_dropped: u64,
    /// Resources that were cut off at the end of the grace.
    pub cut: u64,
    /// Offloaded jobs that still run, on threads that the runtime abandoned.
    pub jobs_running: usize,
    /// Offloaded jobs that were dropped before they ran.
    pub jobs_dropped: usize,
    /// Operations on files that still run, on threads that the runtime abandoned.
    pub file_operations_running: usize,
    /// Operations on files that were dropped before they ran.
    pub file_operations_dropped: usize,
    /// [Holds](crate::Hold) that were still held at the end of the grace.
    pub holds: usize,
    /// A receipt for each service, in the order added.
    pub services: Vec<ServiceReceipt>,
}

/// A summary of one service.
///
/// [`Receipt`] has an example.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ServiceReceipt {
    /// The name of its type.
    pub name: &'static str,
    /// The message of the panic that ended it.
    pub panicked: Option<String>,
    /// How many panics it had, including those that it [survived](crate::Service::panicked).
    pub panics: u64,
    /// The messages of the first of them.
    pub first_panics: Vec<String>,
    /// How often the runtime [restarted](crate::Runtime::add_supervised) it after a panic.
    pub restarts: u64,
    /// All resources that ended.
    pub closed: u64,
    /// Those of them that were cut off at the end of the grace.
    pub cut: u64,
    /// Bytes of its streams that did not leave.
    pub bytes_dropped: u64,
    /// The number of its faults.
    pub faults: u64,
    /// The first of them.
    pub first_faults: Vec<String>,
    /// The number of its errors that no code took: see [`Service::fault`](crate::Service::fault).
    pub errors: u64,
    /// The first of them.
    pub first_errors: Vec<String>,
}

impl ServiceReceipt {
    /// Returns whether it ended by a panic, could not start, or had an error that no code took.
    pub fn is_failed(&self) -> bool {
        self.panicked.is_some() || self.errors > 0
    }
}

impl Receipt {
    /// Returns an error with the receipt if anything failed.
    ///
    /// # Errors
    /// [`Error::Failed`] with the receipt, if a service ended by a panic, could not start, or had an error
    /// that no code took.
    pub fn check(self) -> Result<Receipt, Error> {
        match self.services.iter().any(ServiceReceipt::is_failed) {
            true => Err(Error::Failed(Box::new(self))),
            false => Ok(self),
        }
    }
}

impl Runtime {
    /// Begins a requested stop. A later call with an earlier deadline moves it.
    pub(super) fn begin_stop_if_asked(&mut self) {
        let Some(grace) = self.core.mailbox.grace() else { return };
        let by = self.core.now + Duration::from_nanos(grace);
        // The earliest deadline wins, because the same grace seen in a later turn ends later.
        self.stop_by = Some(self.stop_by.map_or(by, |before| before.min(by)));
        if !std::mem::replace(&mut self.core.stopping, true) {
            crate::log::stop(self.core.registry.occupied());
            self.end_restarts();
            self.bytes_out_at_stop = self.core.counters.bytes_out;
            let accepts = self.core.counters.accepts;
            self.drain = Some(Drain { begun: accepts, seen: accepts, quiet: 0 });
        }
        if self.drain.is_some() && self.is_drained() {
            self.drain = None;
            self.announce_stop();
        }
        let core = &self.core;
        let is_talk = core.typed_queues.messages() > 0 && core.is_without_resources() && !core.is_awaited();
        self.talk_turns = if is_talk { self.talk_turns.saturating_add(1) } else { 0 };
    }

    /// Returns whether the listeners have handed over the connections that waited in their backlogs. A close
    /// of the listener would reset each of these, although its peer considers it accepted.
    fn is_drained(&mut self) -> bool {
        let Some(drain) = &mut self.drain else { return true };
        let core = &mut self.core;
        let accepts = core.counters.accepts;
        drain.quiet = if accepts == drain.seen { drain.quiet + 1 } else { 1 };
        drain.seen = accepts;
        let is_late = self.stop_by.is_some_and(|by| core.now >= by);
        let is_flood = accepts - drain.begun >= DRAINED_MAX;
        if core.listeners.is_empty() || drain.quiet > QUIET_TURNS || is_late || is_flood {
            return true;
        }
        for listener in &core.listeners {
            core.engine.probe(*listener);
        }
        false
    }

    /// Closes the listeners, and notifies each service of the stop.
    fn announce_stop(&mut self) {
        for listener in self.core.listeners.clone() {
            self.core.end(listener, Closed::Done, Ending::Orderly);
        }
        for index in 0..self.services.len() {
            let stop = self.services[index].stop;
            let blame = Blame::none(During::Stop);
            self.call(index as u16, blame, |core, erased| stop(core, erased, index as u16));
        }
    }

    /// Returns whether [`run`](Runtime::run) only has to write the receipt. Callers that drive the turns by
    /// hand stop when this is true, and then call `run`.
    pub fn is_over(&self) -> bool {
        let core = &self.core;
        let is_due = !core.panics_due.is_empty() || core.turn_ends.is_due();
        if is_due || !core.ended.is_empty() || !core.faults_due.is_empty() {
            return false;
        }
        if core.stopping {
            let late = self.stop_by.is_some_and(|by| core.now >= by);
            // The stop waits for work that the last message began, as for any other work.
            let is_talk = core.typed_queues.messages() > 0 && self.talk_turns < TALK_TURNS_MAX;
            let is_at_work = core.is_awaited() || is_talk;
            return self.drain.is_none() && (late || core.is_without_resources() && !is_at_work);
        }
        if core.mailbox.grace().is_some() {
            return false;
        }
        // Read this first: if no controller lives outside, the checks below see all of their commands.
        let controllers = core.mailbox.controllers();
        let idle = core.is_without_resources()
            // A message for the deadline of a resource in the background does not keep the runtime running.
            && core.typed_queues.timers() == core.last_words.len()
            && self.inbox.is_empty()
            && !core.is_at_work();
        core.remaking.is_empty() && (idle && controllers == 0 || core.alive.iter().all(|alive| !alive))
    }

    /// Cuts off the remaining resources, executes the commands that are already queued, and writes the
    /// receipt.
    pub(super) fn finish(&mut self) -> Receipt {
        self.core.end_background();
        for key in self.core.registry.keys(None) {
            self.core.end(key, Closed::Stopped, Ending::Orderly);
        }
        self.closings();
        // From here on senders get their commands back. Commands that came before are executed.
        self.core.mailbox.close();
        while !self.inbox.is_empty() {
            self.inbox.drain();
            self.walk_commands(usize::MAX);
        }
        // Services that collected work have not seen the end of a turn since.
        self.turn_ends();
        // No loop remains for the resources that these last calls registered.
        for key in self.core.registry.keys(None) {
            self.core.end(key, Closed::Stopped, Ending::Orderly);
        }
        self.closings();
        // No turn need follow, and the peers must see their ends now.
        self.core.engine.finish_closes();
        let left = self.jobs_left();
        let files_left = self.core.files.end();
        self.publish();
        self.core.end_complaints();
        self.receipt(left, files_left)
    }

    /// Returns the jobs that the pool did not finish. A job whose result has arrived has ended, although its
    /// thread may not have counted that yet.
    fn jobs_left(&self) -> Left {
        let waited_for: u32 = self.core.records.iter().map(|record| record.jobs).sum();
        let left = self.core.jobs.join(Duration::ZERO);
        let running_max = waited_for.saturating_add(self.core.jobs_abandoned) as usize;
        Left { running: left.running.min(running_max), ..left }
    }

    fn receipt(&self, jobs_left: Left, files_left: Left) -> Receipt {
        // Keep the records, because the runtime may run on and add others.
        let services: Vec<ServiceReceipt> = self
            .services
            .iter()
            .zip(&self.core.records)
            .map(|(entry, record)| ServiceReceipt {
                name: entry.name,
                panicked: entry.panic.clone(),
                panics: record.panics,
                first_panics: record.first_panics.clone(),
                restarts: record.restarts,
                closed: record.closed,
                cut: record.cut,
                bytes_dropped: record.bytes_dropped(),
                faults: record.faults,
                first_faults: record.first_faults.clone(),
                errors: record.errors,
                first_errors: record.first_errors.clone(),
            })
            .collect();
        let since = if self.core.stopping { self.bytes_out_at_stop } else { self.core.counters.bytes_out };
        Receipt {
            bytes_flushed: self.core.counters.bytes_out - since,
            bytes_dropped: services.iter().map(|service| service.bytes_dropped).sum(),
            cut: services.iter().map(|service| service.cut).sum(),
            jobs_running: jobs_left.running,
            jobs_dropped: jobs_left.dropped,
            file_operations_running: files_left.running,
            file_operations_dropped: files_left.dropped,
            holds: self.core.mailbox.holds(),
            services,
        }
    }

    /// Ends a service that cannot be called any more. Its resources close without `closed`, the runtime drops
    /// its timers and messages, and senders get `Gone`.
    pub(super) fn end_service(&mut self, index: u16) {
        let entry = &mut self.services[index as usize];
        let name = entry.name;
        guard::discard(entry.service.take(), name);
        self.core.alive[index as usize] = false;
        self.core.turn_ends.forget(index);
        self.inbox.end_service(index);
        // A stream whose own code panicked may have sent only a part of its output, so reset it.
        for key in std::mem::take(&mut self.core.broken) {
            self.core.end(key, Closed::Aborted, Ending::Reset);
        }
        self.end_resources(index, Ending::Orderly);
        for timer in self.core.typed_queues.clear(index) {
            self.core.timers.cancel(timer);
        }
        let jobs = std::mem::take(&mut self.core.records[index as usize].jobs);
        self.core.jobs_abandoned = self.core.jobs_abandoned.saturating_add(jobs);
    }

    /// Ends the resources of a service that cannot be called, without `closed`. Listeners that wait for its
    /// next life stay open.
    pub(super) fn end_resources(&mut self, index: u16, how: Ending) {
        let name = self.services[index as usize].name;
        let waits = self.core.remaking.contains(&index);
        for key in self.core.registry.keys(Some(index)) {
            if !waits || !listener::is_orphan(&self.core, key) {
                self.core.end(key, Closed::Aborted, how);
            }
        }
        let ended: Vec<(Key, Closed)> = std::mem::take(&mut self.core.ended);
        for (key, why) in ended {
            match self.core.registry.service_of_ended(key) {
                Some(service) if service == index => {
                    guard::discard(self.core.registry.take_ended(key), name);
                    guard::discard(why, name);
                    self.core.forget(key);
                }
                _ => self.core.ended.push((key, why)),
            }
        }
    }
}

/// For this many turns a stop waits for messages between services when nothing else is left. It is bounded
/// because a service may send itself one message after the other without end.
const TALK_TURNS_MAX: u32 = 1_024;
/// The first look asks each listener to try. The engine accepts in the turn after that, and the next look
/// sees the result.
const QUIET_TURNS: u32 = 2;
/// The most connections that listeners accept while a stop begins, which is the default length of a backlog.
const DRAINED_MAX: u64 = 4096;
