//! File operations that the kernel performs: the engine takes them from the runtime, does them step by step,
//! and answers them.
//!
//! Each is one flight: the job, and its one kernel operation in flight. The flight owns all memory that the
//! operation refers to, until the completion has been handled. Most operations finish when they are
//! submitted, because their data is in memory. Those that wait do so in the kernel, and nobody waits for them
//! here.

mod begin;
mod step;

use std::{collections::VecDeque, io, mem};

use self::{
    begin::begin,
    step::{Ask, FileStep},
};
use super::{
    IoUring,
    operation::{Kind, LIFE_MAX, Tag},
    probe::Known,
    ring::Completion,
};
use crate::{
    guard,
    host::file::{Answer, FileJob},
};

/// The flights, and the results that are ready.
pub(super) struct FileOperations {
    known: Known,
    flights: Vec<Option<Flight>>,
    /// Indexes without a flight.
    free: Vec<u32>,
    lives: u32,
    /// Finished, and not yet answered.
    over: Vec<(FileJob, io::Result<Answer>)>,
    /// Left for the threads after all.
    left: VecDeque<FileJob>,
    is_ending: bool,
}

/// One operation on its way.
struct Flight {
    job: FileJob,
    ask: Ask,
    life: u32,
    /// The number of times that the kernel requested a repetition.
    repeats: u32,
}

impl FileOperations {
    /// Creates one for these operations of the kernel. Without any, it takes no job.
    pub(super) fn new(known: Known) -> FileOperations {
        let (flights, free, over, left) = (Vec::new(), Vec::new(), Vec::new(), VecDeque::new());
        FileOperations { known, flights, free, lives: 0, over, left, is_ending: false }
    }

    /// Returns the number of flights.
    pub(super) fn out(&self) -> usize {
        self.flights.len() - self.free.len()
    }

    /// Returns whether there are jobs that have finished or are for the threads, of which the runtime does
    /// not know.
    pub(super) fn has_answers(&self) -> bool {
        !self.over.is_empty() || !self.left.is_empty()
    }

    /// Takes the next job that turned out to be for the threads.
    pub(super) fn next_left(&mut self) -> Option<FileJob> {
        self.left.pop_front()
    }

    /// Ends each flight with its present kernel operation, from now on.
    pub(super) fn begin_end(&mut self) {
        self.is_ending = true;
    }

    /// Leaks the memory that the kernel may still use. Each operation then has finished, and its answer says
    /// that the result is unknown.
    pub(super) fn leak(&mut self) {
        for Flight { job, ask, .. } in mem::take(&mut self.flights).into_iter().flatten() {
            mem::forget(ask);
            let error = io::Error::new(io::ErrorKind::TimedOut, "it was still out when the engine ended");
            self.over.push((job, Err(error)));
        }
        self.free.clear();
    }

    /// Leaks the jobs that have finished or are for the threads, because another process answers them.
    pub(super) fn forget_answers(&mut self) {
        mem::forget(mem::take(&mut self.over));
        mem::forget(mem::take(&mut self.left));
    }

    fn add(&mut self, job: FileJob, ask: Ask) -> u32 {
        self.lives = (self.lives + 1) & LIFE_MAX;
        let flight = Some(Flight { job, ask, life: self.lives, repeats: 0 });
        if let Some(index) = self.free.pop() {
            self.flights[index as usize] = flight;
            return index;
        }
        self.flights.push(flight);
        // At most `FLIGHTS_MAX`.
        self.flights.len() as u32 - 1
    }
}

impl IoUring {
    /// Takes a file operation, or gives it back for the threads.
    pub(super) fn take_file(&mut self, mut job: FileJob) -> Option<FileJob> {
        if self.files.out() >= FLIGHTS_MAX {
            return Some(job);
        }
        match begin(job.action_mut(), self.files.known) {
            None => return Some(job),
            Some(FileStep::Leave(file)) => return Some(job.with_opened(file)),
            Some(FileStep::Done(result)) => self.files.over.push((job, result)),
            Some(FileStep::Ask(ask)) => {
                let index = self.files.add(job, ask);
                self.launch_file(index);
            }
        }
        self.stir();
        None
    }

    fn launch_file(&mut self, index: u32) {
        if let Some(Some(flight)) = self.files.flights.get_mut(index as usize) {
            self.ring.start(flight.ask.entry(), Tag::new(Kind::File, flight.life, index));
        }
    }

    /// Handles the completion of a file operation: starts the next step, or finishes.
    pub(super) fn advance_file(&mut self, index: u32, completion: Completion) {
        self.ring.ended();
        let Some(slot) = self.files.flights.get_mut(index as usize) else { return };
        let Some(mut flight) = slot.take() else { return };
        let result = u32::try_from(completion.result)
            .map_err(|_| io::Error::from_raw_os_error(completion.result.wrapping_neg()));
        let is_passing = matches!(completion.result.wrapping_neg(), libc::EINTR | libc::EAGAIN)
            && flight.ask.is_repeatable();
        let step = if is_passing && flight.repeats < REPEATS_MAX {
            flight.repeats += 1;
            FileStep::Ask(flight.ask)
        } else {
            flight.ask.after(result)
        };
        match step {
            FileStep::Ask(ask) if !self.files.is_ending => {
                *slot = Some(Flight { ask, ..flight });
                return self.launch_file(index);
            }
            FileStep::Leave(file) if !self.files.is_ending => {
                self.files.left.push_back(flight.job.with_opened(file))
            }
            FileStep::Ask(_) | FileStep::Leave(_) => {
                let error = io::Error::from_raw_os_error(libc::ECANCELED);
                self.files.over.push((flight.job, Err(error)));
            }
            FileStep::Done(result) => self.files.over.push((flight.job, result)),
        }
        self.files.free.push(index);
    }

    /// Answers finished operations, which runs users' code. The loop is awake at that point, so an answer
    /// needs no wake.
    pub(super) fn answer_files(&mut self) {
        for (job, result) in self.files.over.drain(..) {
            guard::quietly(|| job.perform(|_| result));
        }
    }
}

/// The most flights. Further jobs are left to the threads.
const FLIGHTS_MAX: usize = 1024;
/// The most repetitions of an operation that a signal or a concurrent rename has stopped.
const REPEATS_MAX: u32 = 64;

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc::channel,
        time::{Duration, Instant},
    };

    use io_uring::opcode;

    use super::*;
    use crate::host::file::Action;

    #[test]
    fn an_operation_that_hangs_is_waited_for_and_then_answered_when_the_engine_goes() {
        let (tell, told) = channel();
        let mut engine = IoUring::new().expect("this kernel has io_uring");
        let before = engine.ring.out();
        let mut job = FileJob::new(Action::Stat { path: "/".into() }, move |answer| {
            tell.send(answer).expect("the test listens");
        });
        let Some(FileStep::Ask(ask)) = begin(job.action_mut(), engine.files.known) else {
            panic!("this kernel knows statx");
        };
        engine.files.add(job, ask);
        // Something is out whose last completion never comes: nobody counts the end of this one.
        engine.ring.start(opcode::Nop::new().build(), Tag::new(Kind::Cancel, 0, 0));
        assert_eq!((engine.ring.out() - before, engine.files.out()), (1, 1));
        let begin = Instant::now();
        drop(engine);
        // A disk that is only slow has that long.
        assert!(begin.elapsed() >= Duration::from_secs(1), "{:?}", begin.elapsed());
        let error = told.recv().expect("it is answered").expect_err("nobody knows what became of it");
        assert!(error.to_string().contains("still out when the engine ended"), "{error}");
        assert!(error.to_string().contains("stat /"), "{error}");
        assert!(told.recv().is_err(), "once");
    }
}
