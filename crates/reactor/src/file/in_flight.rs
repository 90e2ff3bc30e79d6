//! The operations in flight of a runtime: their number, their bytes, and the resources that wait for room.

use std::{io, marker::PhantomData, mem, time::Duration};

use super::{
    Action, Answer, FileJob, system,
    waiting::{Line, Room},
};
use crate::{
    error::Error,
    id::Key,
    message::Offloaded,
    runtime::{LoopState, dispatch::DeliverFn, limits::Limits},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    threads::{Job, Jobs, Left},
};

/// The threads for files, and the limits.
pub(crate) struct FilesInFlight {
    jobs: Jobs,
    /// Jobs of this turn. The threads get them together at its end, so one wake is enough.
    asked: Vec<Job>,
    load: Arc<Load>,
    operations_max: usize,
    bytes_max: usize,
    line: Line,
    /// The runtime has run to its end, so nobody would answer any more.
    is_over: bool,
}

/// The load of the operations in flight.
struct Load {
    operations: AtomicUsize,
    bytes: AtomicUsize,
}

/// A place for one operation in flight. Its drop gives the place back, on any thread.
pub(crate) struct Claim {
    load: Arc<Load>,
    bytes: usize,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.load.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.load.operations.fetch_sub(1, Ordering::AcqRel);
    }
}

/// An answer on its way to a service.
pub(crate) struct Answered<M> {
    /// The life of the service that submitted the operation.
    pub(crate) life: u32,
    pub(crate) what: Offloaded<M>,
    pub(crate) _claim: Claim,
}

/// An answer on its way to a resource of kind `R`. Each kind has its own type, because all messages of one
/// type share a typed queue and a way of delivery.
pub(super) struct Landed<R> {
    pub(super) key: Key,
    pub(super) result: Result<Answer, Error>,
    _claim: Claim,
    of: PhantomData<fn() -> R>,
}

impl FilesInFlight {
    pub(crate) fn new(limits: &Limits) -> FilesInFlight {
        let load = Load { operations: AtomicUsize::new(0), bytes: AtomicUsize::new(0) };
        FilesInFlight {
            jobs: Jobs::named("reactor-file", limits.file_threads, limits.file_operations),
            asked: Vec::new(),
            load: Arc::new(load),
            operations_max: limits.file_operations,
            bytes_max: limits.file_bytes,
            line: Line::default(),
            is_over: false,
        }
    }

    /// Returns how many operations are in flight.
    pub(crate) fn out(&self) -> usize {
        self.load.operations.load(Ordering::Acquire)
    }

    /// Drops operations that have not begun and abandons those that hang. Returns the number of both.
    pub(crate) fn end(&mut self) -> Left {
        self.is_over = true;
        let dropped = mem::take(&mut self.asked).len() + self.jobs.close().dropped;
        let running = self.out();
        // If all operations are answered, the threads have nothing left to wait for.
        self.jobs.join(if running == 0 { JOIN_MAX } else { Duration::ZERO });
        Left { dropped, running }
    }

    /// Returns whether no operation is answered any more, because the runtime has run to its end.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Returns how many of `bytes` one operation may use, or 0 if the runtime allows no operations.
    pub(super) fn fitting(&self, bytes: usize) -> usize {
        if self.operations_max == 0 { 0 } else { bytes.min(self.bytes_max) }
    }

    /// Returns the limit that an operation of this size can never meet, with its unit.
    pub(super) fn never_fits(&self, bytes: usize) -> Option<(&'static str, usize)> {
        if self.operations_max == 0 {
            return Some(("operations on files", 0));
        }
        (bytes > self.bytes_max).then_some(("bytes of operations on files", self.bytes_max))
    }

    /// Takes a place, if one is free. Only the loop's thread takes places, so a place that is free here stays
    /// free.
    pub(super) fn claim(&self, bytes: usize) -> Option<Claim> {
        if !self.room().fits(bytes) {
            return None;
        }
        self.load.operations.fetch_add(1, Ordering::AcqRel);
        self.load.bytes.fetch_add(bytes, Ordering::AcqRel);
        Some(Claim { load: self.load.clone(), bytes })
    }

    /// Takes a place for a resource, or adds the resource to the line.
    fn claim_in_turn(&mut self, key: Key, bytes: usize) -> Option<Claim> {
        let claim = self.line.lets(key).then(|| self.claim(bytes)).flatten();
        match claim {
            Some(_) => self.line.leave(key),
            None => self.line.join(key, bytes),
        }
        claim
    }

    fn room(&self) -> Room {
        Room {
            operations: self.operations_max.saturating_sub(self.out()),
            bytes: self.bytes_max.saturating_sub(self.load.bytes.load(Ordering::Acquire)),
        }
    }

    /// Returns whether a resource waits for which there is room.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.line.is_due(|| self.room())
    }

    /// Forgets a resource that has ended.
    #[inline]
    pub(crate) fn forget(&mut self, key: Key) {
        self.line.leave(key);
    }
}

impl LoopState {
    /// Passes a job to the engine, or at the end of the turn to a thread. If neither takes it, its drop
    /// answers it.
    pub(super) fn start_file(&mut self, job: FileJob) {
        if let Some(job) = self.engine.host_mut().run_file(job) {
            self.run_file(Box::new(move || system::perform_job(job)));
        }
    }

    /// Runs a job in a thread for files at the end of the turn. A job that no thread takes is dropped.
    pub(super) fn run_file(&mut self, job: Job) {
        self.files.asked.push(job);
    }

    /// Passes this turn's jobs to the threads, including those that the engine left to them.
    #[inline]
    pub(crate) fn give_files(&mut self) {
        if self.files.out() > 0 {
            while let Some(job) = self.engine.host_mut().left_file() {
                self.run_file(Box::new(move || system::perform_job(job)));
            }
        }
        if !self.files.asked.is_empty() {
            self.files.jobs.run_all(&mut self.files.asked);
        }
    }

    /// Takes a place for a resource. If none is free, flushes the resource again when it is its turn.
    pub(super) fn claim_file(&mut self, key: Key, bytes: usize) -> Option<Claim> {
        self.files.claim_in_turn(key, bytes)
    }

    /// Submits an operation of a resource. `deliver` takes the answer. If there is no room, returns the
    /// action, and flushes the resource again when it is its turn.
    pub(super) fn ask_file<R: 'static>(
        &mut self,
        (service, key): (u16, Key),
        action: Action,
        deliver: DeliverFn,
    ) -> Result<(), Action> {
        let asked = action.bytes();
        if let Some((what, limit)) = self.files.never_fits(asked) {
            let error = format!("it needs {asked} bytes, and the runtime allows {limit} {what}");
            self.fail(key, action.name(), io::Error::other(error));
            return Err(action);
        }
        let Some(claim) = self.files.claim_in_turn(key, asked) else { return Err(action) };
        let mailbox = self.mailbox.clone();
        let tell = move |result| {
            // A service that has ended needs no answer, but this place is free now, and others may wait for
            // it.
            if let Err(refused) = mailbox.send_reserved(
                service,
                Landed::<R> { key, result, _claim: claim, of: PhantomData },
                deliver,
            ) {
                drop(refused);
                mailbox.announce();
            }
        };
        self.start_file(FileJob::new(action, tell));
        Ok(())
    }

    /// Has the resources flushed whose turn it is. A resource that finds no room waits again, behind the others.
    #[inline]
    pub(crate) fn feed_file_waiters(&mut self) {
        if self.files.line.is_idle() {
            return;
        }
        let mut room = self.files.room();
        self.files.line.begin();
        while let Some(key) = self.files.line.call(&mut room) {
            self.steps += 1;
            self.mark(key);
        }
    }
}

/// The longest time to wait at the end for threads that have nothing left to do.
const JOIN_MAX: Duration = Duration::from_secs(1);
