//! The stop: graceful within its grace, then a cut; and the one receipt of it all.

use std::time::Duration;

use super::Runtime;
use crate::{
    engine::Ending,
    error::{Closed, Error},
    guard,
    id::Key,
    message::Left,
    panics::{Blame, During},
    resource::listener,
};

/// The beginning of a stop: connections that wait in the listeners' backlogs are still accepted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drain {
    /// Connections accepted when it began, and when it was last looked at.
    begun: u64,
    seen: u64,
    /// Looks in a row, one a turn, between which none was accepted.
    quiet: u32,
}

/// What a runtime did until its end, given once by `run` and `join`.
///
/// A runtime that goes on after its `run` and runs again tells all it did since it was made, services and errors of
/// before included.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Receipt {
    /// Bytes that left after the stop began.
    pub bytes_flushed: u64,
    /// Bytes that did not leave: of streams that were cut, aborted or failed, or were dropped after their release.
    pub bytes_dropped: u64,
    /// Resources that were cut at the end of the grace.
    pub cut: u64,
    /// Offloaded jobs that still run, on threads that were left alone.
    pub jobs_running: usize,
    /// Offloaded jobs that were dropped before they ran.
    pub jobs_dropped: usize,
    /// Operations on files that still run, on threads that were left alone.
    pub file_operations_running: usize,
    /// Operations on files that were dropped before they ran.
    pub file_operations_dropped: usize,
    /// [Holds](crate::Hold) that nobody had let go when the grace was over.
    pub holds: usize,
    /// Of each service, in the order added.
    pub services: Vec<ServiceReceipt>,
}

/// What became of one service.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ServiceReceipt {
    /// Its type.
    pub name: &'static str,
    /// What the panic said by which it ended.
    pub panicked: Option<String>,
    /// How many panics it had, those included after which it [lived on](crate::Service::panicked).
    pub panics: u64,
    /// What the first of them said.
    pub first_panics: Vec<String>,
    /// How often it was [made again](crate::Runtime::add_supervised) after a panic.
    pub restarts: u64,
    /// Resources that ended, all told.
    pub closed: u64,
    /// Those of them that were cut at the end of the grace.
    pub cut: u64,
    /// Bytes of its streams that did not leave.
    pub bytes_dropped: u64,
    /// How many faults it had.
    pub faults: u64,
    /// The first of them.
    pub first_faults: Vec<String>,
    /// How many errors it had that nobody took: see [`Service::fault`](crate::Service::fault).
    pub errors: u64,
    /// The first of them.
    pub first_errors: Vec<String>,
}

impl ServiceReceipt {
    /// Whether it ended by a panic, could not start, or had an error that nobody took.
    pub fn is_failed(&self) -> bool {
        self.panicked.is_some() || self.errors > 0
    }
}

impl Receipt {
    /// Makes an error of the receipt if anything failed.
    ///
    /// # Errors
    /// [`Error::Failed`] with the receipt, when a service ended by a panic, could not start, or had an error that nobody took.
    pub fn check(self) -> Result<Receipt, Error> {
        match self.services.iter().any(ServiceReceipt::is_failed) {
            true => Err(Error::Failed(Box::new(self))),
            false => Ok(self),
        }
    }
}

impl Runtime {
    /// Begins the stop when one was asked for; a later call with an earlier deadline moves it.
    pub(super) fn begin_stop_if_asked(&mut self) {
        let Some(grace) = self.core.mailbox.grace() else { return };
        let by = self.core.now + Duration::from_nanos(grace);
        // The earliest wins: seen again in a later turn, the same grace ends later.
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
            self.tell_stop();
        }
        let core = &self.core;
        let is_talk = core.lanes.told() > 0 && core.is_without_resources() && !core.is_awaited();
        self.talk_turns = if is_talk { self.talk_turns.saturating_add(1) } else { 0 };
    }

    /// Looks whether the listeners have handed over the connections that waited in their backlogs: closed with its
    /// listener, each of these would be reset, although its peer takes it for accepted.
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

    /// Closes the listeners, and tells each service of the stop.
    fn tell_stop(&mut self) {
        for listener in self.core.listeners.clone() {
            self.core.end(listener, Closed::Done, Ending::Orderly);
        }
        for index in 0..self.services.len() {
            let stop = self.services[index].stop;
            let blame = Blame::none(During::Stop);
            self.call(index as u16, blame, |core, erased| stop(core, erased, index as u16));
        }
    }

    /// Whether [`run`](Runtime::run) has nothing left to do but to write the receipt: who drives the turns by
    /// hand stops when this is true, and calls `run` for it.
    pub fn is_over(&self) -> bool {
        let core = &self.core;
        let is_due = !core.panics_due.is_empty() || core.turn_ends.is_due();
        if is_due || !core.ended.is_empty() || !core.faults_due.is_empty() {
            return false;
        }
        if core.stopping {
            let late = self.stop_by.is_some_and(|by| core.now >= by);
            // What was begun by the last message that the stop waits for is waited for like any other work.
            let is_talk = core.lanes.told() > 0 && self.talk_turns < TALK_TURNS_MAX;
            let is_at_work = core.is_awaited() || is_talk;
            return self.drain.is_none() && (late || core.is_without_resources() && !is_at_work);
        }
        if core.mailbox.grace().is_some() {
            return false;
        }
        // First: when none lives outside, all that they sent is seen below.
        let controllers = core.mailbox.controllers();
        let idle = core.is_without_resources()
            // A message for the deadline of a resource in the background holds nothing up.
            && core.lanes.timers() == core.last_words.len()
            && self.inbox.is_empty()
            && !core.is_at_work();
        core.remaking.is_empty() && (idle && controllers == 0 || core.alive.iter().all(|alive| !alive))
    }

    /// Cuts what is left, executes what was commanded before, and writes the receipt.
    pub(super) fn finish(&mut self) -> Receipt {
        self.core.end_background();
        for key in self.core.registry.keys(None) {
            self.core.end(key, Closed::Stopped, Ending::Orderly);
        }
        self.closings();
        // From here on senders get their commands back; those that came before are executed.
        self.core.mailbox.close();
        while !self.inbox.is_empty() {
            self.inbox.drain();
            self.walk_commands(usize::MAX);
        }
        // Services that collected something have not seen the end of a turn since.
        self.turn_ends();
        // What these last calls registered has no loop any more.
        for key in self.core.registry.keys(None) {
            self.core.end(key, Closed::Stopped, Ending::Orderly);
        }
        self.closings();
        // No turn need follow, and the peers are to hear of their ends now.
        self.core.engine.finish_closes();
        let left = self.jobs_left();
        let files_left = self.core.files.end();
        self.publish();
        self.core.end_complaints();
        self.receipt(left, files_left)
    }

    /// What the pool did not finish. A job whose result is there has ended, although its thread may not have
    /// counted that yet.
    fn jobs_left(&self) -> Left {
        let waited_for: u32 = self.core.records.iter().map(|record| record.jobs).sum();
        let left = self.core.jobs.join(Duration::ZERO);
        let running_max = waited_for.saturating_add(self.core.jobs_abandoned) as usize;
        Left { running: left.running.min(running_max), ..left }
    }

    fn receipt(&self, jobs_left: Left, files_left: Left) -> Receipt {
        // The records stay: the runtime may go on, and add others.
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

    /// Ends a service that cannot be called any more: its resources close without `closed`, its timers and
    /// messages are dropped, senders get `Gone`.
    pub(super) fn end_service(&mut self, index: u16) {
        let entry = &mut self.services[index as usize];
        let name = entry.name;
        guard::discard(entry.service.take(), name);
        self.core.alive[index as usize] = false;
        self.core.turn_ends.forget(index);
        self.inbox.end_service(index);
        // Of a stream whose own code panicked it is not known whether what has left is whole.
        for key in std::mem::take(&mut self.core.broken) {
            self.core.end(key, Closed::Aborted, Ending::Reset);
        }
        self.end_resources(index, Ending::Orderly);
        for timer in self.core.lanes.clear(index) {
            self.core.timers.cancel(timer);
        }
        let jobs = std::mem::take(&mut self.core.records[index as usize].jobs);
        self.core.jobs_abandoned = self.core.jobs_abandoned.saturating_add(jobs);
    }

    /// Ends the resources of a service that cannot be called, without `closed`; not the listeners that wait for its next
    /// life.
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

/// For so many turns a stop waits for messages between services when nothing else is left: a service that tells itself
/// one message after the other has no end.
const TALK_TURNS_MAX: u32 = 1_024;
/// The first look asks each listener to try, the engine does so in the turn after that, and the next look sees it.
const QUIET_TURNS: u32 = 2;
/// The most connections that are accepted while a stop begins: as many as a backlog holds by default.
const DRAINED_MAX: u64 = 4096;
