//! Operations on files that the kernel performs: taken from the runtime, done step by step, and answered.
//!
//! Each is one flight: the job, and the one operation of the kernel that is out for it. What the flight refers to
//! lives in it until the operation's completion was looked at. Most operations are over when they are submitted, since
//! what they need is in memory; those that wait do so in the kernel, and nobody waits for them here.

mod ask;
mod begin;

use std::{collections::VecDeque, io, mem};

use self::{
    ask::{Ask, Step},
    begin::begin,
};
use super::{
    IoUring,
    operation::{Kind, LIFE_MAX, Tag},
    probe::Known,
    ring::Completion,
};
use crate::{
    file::{Answer, FileJob},
    guard,
};

/// What is out, and what is over.
pub(super) struct Files {
    known: Known,
    flights: Vec<Option<Flight>>,
    /// Indexes without a flight.
    free: Vec<u32>,
    lives: u32,
    /// Over, and not answered.
    over: Vec<(FileJob, io::Result<Answer>)>,
    /// For the threads after all.
    left: VecDeque<FileJob>,
    is_ending: bool,
}

/// One operation on its way.
struct Flight {
    job: FileJob,
    ask: Ask,
    life: u32,
    /// How often the kernel wanted to be asked once more.
    repeats: u32,
}

impl Files {
    /// With what the kernel knows; with nothing, no operation is taken.
    pub(super) fn new(known: Known) -> Files {
        let (flights, free, over, left) = (Vec::new(), Vec::new(), Vec::new(), VecDeque::new());
        Files { known, flights, free, lives: 0, over, left, is_ending: false }
    }

    /// How many are out.
    pub(super) fn out(&self) -> usize {
        self.flights.len() - self.free.len()
    }

    /// Whether some are over or for the threads, and the runtime does not know.
    pub(super) fn has_answers(&self) -> bool {
        !self.over.is_empty() || !self.left.is_empty()
    }

    /// The next of those that turned out to be for the threads.
    pub(super) fn next_left(&mut self) -> Option<FileJob> {
        self.left.pop_front()
    }

    /// From here on each ends with the operation of the kernel that is out for it.
    pub(super) fn begin_end(&mut self) {
        self.is_ending = true;
    }

    /// Leaks the memory that the kernel may still use. Each operation is over then, and its answer says that its result
    /// is unknown.
    pub(super) fn leak(&mut self) {
        for Flight { job, ask, .. } in mem::take(&mut self.flights).into_iter().flatten() {
            mem::forget(ask);
            let error = io::Error::new(io::ErrorKind::TimedOut, "it was still out when the engine ended");
            self.over.push((job, Err(error)));
        }
        self.free.clear();
    }

    /// Leaks what is over or for the threads: it is answered in another process.
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
    /// Takes an operation, or gives it back for the threads.
    pub(super) fn take_file(&mut self, mut job: FileJob) -> Option<FileJob> {
        if self.files.out() >= FLIGHTS_MAX {
            return Some(job);
        }
        match begin(job.action_mut(), self.files.known) {
            None => return Some(job),
            Some(Step::Leave(file)) => return Some(job.with_opened(file)),
            Some(Step::Done(result)) => self.files.over.push((job, result)),
            Some(Step::Ask(ask)) => {
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

    /// The completion of an operation on files: on with the next, or it is over.
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
            Step::Ask(flight.ask)
        } else {
            flight.ask.after(result)
        };
        match step {
            Step::Ask(ask) if !self.files.is_ending => {
                *slot = Some(Flight { ask, ..flight });
                return self.launch_file(index);
            }
            Step::Leave(file) if !self.files.is_ending => {
                self.files.left.push_back(flight.job.with_opened(file))
            }
            Step::Ask(_) | Step::Leave(_) => {
                let error = io::Error::from_raw_os_error(libc::ECANCELED);
                self.files.over.push((flight.job, Err(error)));
            }
            Step::Done(result) => self.files.over.push((flight.job, result)),
        }
        self.files.free.push(index);
    }

    /// Answers what is over, which runs users' code. The loop is awake then, so an answer needs no wake.
    pub(super) fn answer_files(&mut self) {
        for (job, result) in self.files.over.drain(..) {
            guard::quietly(|| job.perform(|_| result));
        }
    }
}

/// How many are out at once; more are left to the threads.
const FLIGHTS_MAX: usize = 1024;
/// How often an operation is asked for once more that a signal or a rename elsewhere has stopped.
const REPEATS_MAX: u32 = 64;

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc::channel,
        time::{Duration, Instant},
    };

    use io_uring::opcode;

    use super::*;
    use crate::file::Action;

    #[test]
    fn an_operation_that_hangs_is_waited_for_and_then_answered_when_the_engine_goes() {
        let (tell, told) = channel();
        let mut engine = IoUring::new().expect("this kernel has io_uring");
        let before = engine.ring.out();
        let mut job = FileJob::new(Action::Stat { path: "/".into() }, move |answer| {
            tell.send(answer).expect("the test listens");
        });
        let Some(Step::Ask(ask)) = begin(job.action_mut(), engine.files.known) else {
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
