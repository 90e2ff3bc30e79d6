//! What a runtime knows of the operations that are out: their number, their bytes, and who waits for room.

use std::{
    collections::{HashSet, VecDeque},
    io,
    marker::PhantomData,
    mem,
    time::Duration,
};

use super::{Action, Answer, FileJob};
use crate::{
    core::Core,
    error::Error,
    id::Key,
    message::{Deliver, Job, Jobs, Left, Offloaded},
    runtime::limits::Limits,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// The threads for files, and the bounds.
pub(crate) struct Files {
    jobs: Jobs,
    /// Asked for in this turn, and given to the threads at its end: together, so with one wake.
    asked: Vec<Job>,
    load: Arc<Load>,
    operations_max: usize,
    bytes_max: usize,
    /// Resources that found no room, in the order they asked.
    waiting: VecDeque<Key>,
    /// The same, to find one: each is in the queue once.
    waits: HashSet<Key>,
}

/// What is out.
struct Load {
    operations: AtomicUsize,
    bytes: AtomicUsize,
}

/// A place among what is out; given back by its drop, in whatever thread that is.
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
    pub(crate) what: Offloaded<M>,
    pub(crate) _claim: Claim,
}

/// An answer on its way to a resource of kind `R`: a type for each kind, since messages of one type have one lane, and
/// one way to be delivered.
pub(super) struct Landed<R> {
    pub(super) key: Key,
    pub(super) result: Result<Answer, Error>,
    _claim: Claim,
    of: PhantomData<fn() -> R>,
}

impl Files {
    pub(crate) fn new(limits: &Limits) -> Files {
        let load = Load { operations: AtomicUsize::new(0), bytes: AtomicUsize::new(0) };
        Files {
            jobs: Jobs::named("reactor-file", limits.file_threads, limits.file_operations),
            asked: Vec::new(),
            load: Arc::new(load),
            operations_max: limits.file_operations,
            bytes_max: limits.file_bytes,
            waiting: VecDeque::new(),
            waits: HashSet::new(),
        }
    }

    /// How many operations are out.
    pub(crate) fn out(&self) -> usize {
        self.load.operations.load(Ordering::Acquire)
    }

    /// Drops what did not begin, and leaves what hangs; says how much there was of both.
    pub(crate) fn end(&mut self) -> Left {
        let dropped = mem::take(&mut self.asked).len() + self.jobs.close().dropped;
        let running = self.out();
        // A thread whose operation is answered has nothing left to wait for.
        self.jobs.join(if running == 0 { JOIN_MAX } else { Duration::ZERO });
        Left { dropped, running }
    }

    /// What one operation may have of so many bytes; none if the runtime allows no operation.
    pub(super) fn fitting(&self, bytes: usize) -> usize {
        if self.operations_max == 0 { 0 } else { bytes.min(self.bytes_max) }
    }

    /// Says which limit keeps an operation of so many bytes out for ever, and how high it is.
    pub(super) fn never_fits(&self, bytes: usize) -> Option<(&'static str, usize)> {
        if self.operations_max == 0 {
            return Some(("operations on files", 0));
        }
        (bytes > self.bytes_max).then_some(("bytes of operations on files", self.bytes_max))
    }

    /// Takes a place, if there is one. Only the loop's thread takes, so that what is there stays there meanwhile.
    pub(super) fn claim(&self, bytes: usize) -> Option<Claim> {
        let room = self.bytes_max.checked_sub(self.load.bytes.load(Ordering::Acquire))?;
        if self.out() >= self.operations_max || bytes > room {
            return None;
        }
        self.load.operations.fetch_add(1, Ordering::AcqRel);
        self.load.bytes.fetch_add(bytes, Ordering::AcqRel);
        Some(Claim { load: self.load.clone(), bytes })
    }
}

impl Core {
    /// Hands a job to the engine, or at the end of the turn to a thread. One that nobody takes is answered by its drop.
    pub(super) fn start_file(&mut self, job: FileJob) {
        if let Some(job) = self.engine.run_file(job) {
            self.run_file(Box::new(move || job.perform_here()));
        }
    }

    /// Has a thread for files run a job at the end of the turn. One that no thread takes is dropped.
    pub(super) fn run_file(&mut self, job: Job) {
        self.files.asked.push(job);
    }

    /// Gives what was asked for to the threads, and what the engine has left to them.
    #[inline]
    pub(crate) fn give_files(&mut self) {
        if self.files.out() > 0 {
            while let Some(job) = self.engine.left_file() {
                self.run_file(Box::new(move || job.perform_here()));
            }
        }
        if !self.files.asked.is_empty() {
            self.files.jobs.run_all(&mut self.files.asked);
        }
    }

    /// Takes a place for a resource; without room it is flushed again when there is some.
    pub(super) fn claim_file(&mut self, key: Key, bytes: usize) -> Option<Claim> {
        let claim = self.files.claim(bytes);
        if claim.is_none() && self.files.waits.insert(key) {
            self.files.waiting.push_back(key);
        }
        claim
    }

    /// Asks for an operation of a resource, whose answer `deliver` takes. Without room the action comes back, and the
    /// resource is flushed again when there is some.
    pub(super) fn ask_file<R: 'static>(
        &mut self,
        (service, key): (u16, Key),
        action: Action,
        deliver: Deliver,
    ) -> Result<(), Action> {
        let Some(claim) = self.files.claim(action.bytes()) else {
            let Some((what, limit)) = self.files.never_fits(action.bytes()) else {
                if self.files.waits.insert(key) {
                    self.files.waiting.push_back(key);
                }
                return Err(action);
            };
            let asked = action.bytes();
            let error = format!("it needs {asked} bytes, and the runtime allows {limit} {what}");
            self.fail(key, action.name(), io::Error::other(error));
            return Err(action);
        };
        let mailbox = self.mailbox.clone();
        let tell = move |result| {
            // A service that has gone wants no answer; whoever waits for its place does.
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

    /// Lets some of the resources that wait for room ask again; each that finds none waits again, behind the others.
    #[inline]
    pub(crate) fn feed_file_waiters(&mut self) {
        if self.files.waiting.is_empty() {
            return;
        }
        let room = self.files.operations_max.saturating_sub(self.files.out()).min(FED_MAX);
        for _ in 0..room {
            let Some(key) = self.files.waiting.pop_front() else { return };
            self.files.waits.remove(&key);
            self.mark(key);
        }
    }
}

/// The most waiting resources that are woken in one turn.
const FED_MAX: usize = 64;

/// How long the end waits for threads that have nothing left to do.
const JOIN_MAX: Duration = Duration::from_secs(1);
