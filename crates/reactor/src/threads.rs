//! A small bounded pool of threads for blocking work.
//!
//! The pool has no thread before the first job, and starts one only if no other is free. Threads stay until
//! the pool closes. A job runs once, on any thread, in the order of the queue. The pool does not handle its
//! result. If a job panics, its thread survives, and the pool reports nothing. The code that submits the job
//! must catch the panic and report it.
//!
//! These threads block SIGPIPE and SIGXFSZ, so a job's write fails with EPIPE or EFBIG and raises no signal.
//!
//! The pool claims a sleeping thread only if no claimed thread is still on its way to the queue. A claimed
//! thread looks at the queue before anything else. A thread that takes a job and leaves others claims the next
//! sleeper, because its own job may take for ever. So whenever a job waits and a thread sleeps, some thread
//! is on its way to the queue. And if many short jobs are submitted at once, one thread does them all after
//! one wake.

use crate::guard;
use crate::sync::thread::{self, JoinHandle, ThreadId};
use crate::sync::{Arc, Condvar, Mutex, lock, wait_while, wait_while_for};
use crate::sys::Birthplace;
use std::collections::VecDeque;
use std::time::Duration;
use std::{fmt, io, mem};

/// A piece of work that may block.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// Runs jobs on at most `threads_max` threads. At most `queue_max` more wait for a free one.
pub(crate) struct Jobs {
    shared: Arc<PoolShared>,
    threads_max: usize,
    queue_max: usize,
    spawn: Spawn,
    birthplace: Birthplace,
}

impl Jobs {
    /// Makes a pool without threads. If `threads_max` is 0, it refuses every job as `Full`.
    pub(crate) fn new(threads_max: usize, queue_max: usize) -> Self {
        Jobs::named("reactor-job", threads_max, queue_max)
    }

    /// Does the same with another name for the threads.
    pub(crate) fn named(name: &'static str, threads_max: usize, queue_max: usize) -> Self {
        Jobs::with_spawn(name, threads_max, queue_max, spawn_worker)
    }

    fn with_spawn(name: &'static str, threads_max: usize, queue_max: usize, spawn: Spawn) -> Self {
        let (state, work, ended) = (Mutex::new(PoolState::default()), Condvar::new(), Condvar::new());
        let shared = PoolShared { name, state, work, ended };
        Jobs { shared: Arc::new(shared), threads_max, queue_max, spawn, birthplace: Birthplace::here() }
    }

    /// Gives a job to a free thread, otherwise to a new one, otherwise to the queue.
    ///
    /// If a thread cannot be started, that is no error as long as another exists and the queue has room.
    ///
    /// # Errors
    /// The pool is full or closed, or the job needs a thread and none can be started. The job is dropped
    /// then.
    pub(crate) fn run(&self, job: Job) -> Result<(), NotRun> {
        let mut state = lock(&self.shared.state);
        let taken = self.take(&mut state, job);
        let claimed = state.claim_sleeper();
        drop(state);
        self.shared.wake(claimed);
        // Drop the job outside the lock, because its drop may run any code.
        taken.map_err(|(_, why)| why)
    }

    /// Submits all these jobs as [`run`](Jobs::run) does, with at most one wake, and leaves the list empty.
    /// Refused jobs are dropped.
    pub(crate) fn run_all(&self, jobs: &mut Vec<Job>) {
        let mut state = lock(&self.shared.state);
        let refused: Vec<_> = jobs.drain(..).filter_map(|job| self.take(&mut state, job).err()).collect();
        let claimed = state.claim_sleeper();
        drop(state);
        self.shared.wake(claimed);
        drop(refused);
    }

    /// Queues a job, and starts a thread for it if none is free. Otherwise gives it back.
    fn take(&self, state: &mut PoolState, job: Job) -> Result<(), (Job, NotRun)> {
        if state.closed {
            return Err((job, NotRun::Closed));
        }
        // Each queued job has a claim to one free thread.
        let no_thread_free = state.queue.len() >= state.free();
        let mut cause = None;
        if no_thread_free && state.handles.len() < self.threads_max {
            // This happens under the lock, but only `threads_max` times in the life of the pool.
            match (self.spawn)(self.shared.clone()) {
                Ok(handle) => state.handles.push(handle),
                Err(error) => cause = Some(error),
            }
            state.starting += usize::from(cause.is_none());
        }
        let waiting_max = if state.handles.is_empty() { 0 } else { state.free() + self.queue_max };
        if state.queue.len() >= waiting_max {
            return Err((job, cause.map_or(NotRun::Full, NotRun::NoThread)));
        }
        state.queue.push_back(job);
        Ok(())
    }

    /// Returns how many jobs run now.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn running(&self) -> usize {
        lock(&self.shared.state).running
    }

    /// Returns how many jobs no thread has begun.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn queued(&self) -> usize {
        lock(&self.shared.state).queue.len()
    }

    /// Refuses later jobs, drops the queued ones, and joins the threads without a job. Running jobs go on.
    pub(crate) fn close(&self) -> Left {
        let mut state = lock(&self.shared.state);
        state.closed = true;
        let dropped = mem::take(&mut state.queue);
        self.shared.work.notify_all();
        let mut state = wait_while(&self.shared.ended, state, |state| state.free() > 0);
        let ended = state.take_ended();
        let running = state.running;
        drop(state);
        join_all(ended);
        Left { dropped: dropped.len(), running }
    }

    /// Closes the pool, waits for the running jobs for at most this long, and returns how many jobs were
    /// dropped or still run.
    pub(crate) fn join(&self, up_to: Duration) -> Left {
        let closed = self.close();
        let state = lock(&self.shared.state);
        let mut state = wait_while_for(&self.shared.ended, state, up_to, |state| state.running > 0);
        let ended = state.take_ended();
        let running = state.running;
        drop(state);
        join_all(ended);
        Left { running, ..closed }
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        if self.birthplace.is_here() {
            self.close();
        } else {
            // A child of a fork has none of the pool's threads, and the locks may be held for ever.
            mem::forget(self.shared.clone());
        }
    }
}

/// The reason why a job will not run.
#[derive(Debug)]
pub(crate) enum NotRun {
    /// All threads are busy and the queue is at its limit.
    Full,
    /// The pool is closed.
    Closed,
    /// The system refused a thread. Either no other thread exists that could take the job later, or the queue
    /// is at its limit.
    NoThread(io::Error),
}

impl fmt::Display for NotRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotRun::Full => f.write_str("too many jobs wait"),
            NotRun::Closed => f.write_str("the runtime has ended"),
            NotRun::NoThread(error) => write!(f, "no thread could be started: {error}"),
        }
    }
}

/// The work that a closed pool did not finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    /// Jobs dropped before they began.
    pub(crate) dropped: usize,
    /// Jobs that still ran when the call returned.
    pub(crate) running: usize,
}

struct PoolShared {
    /// The name of the threads.
    name: &'static str,
    state: Mutex<PoolState>,
    /// Signals that a thread was claimed, or that the pool closed.
    work: Condvar,
    /// Signals that a thread ended.
    ended: Condvar,
}

impl PoolShared {
    /// Wakes a claimed thread. The caller has released the lock.
    fn wake(&self, claimed: bool) {
        if claimed {
            self.work.notify_one();
        }
    }
}

#[derive(Default)]
struct PoolState {
    queue: VecDeque<Job>,
    /// Threads that sleep and were not claimed.
    asleep: usize,
    /// Claims that no thread has followed yet. So many threads are on their way to the queue.
    claimed: usize,
    /// New threads that are on their way to the queue for the first time.
    starting: usize,
    running: usize,
    closed: bool,
    handles: Vec<JoinHandle<()>>,
    /// Threads that no longer use the state, and can be joined without waiting for a job.
    ended: Vec<ThreadId>,
}

impl PoolState {
    /// Returns how many threads have no job.
    fn free(&self) -> usize {
        self.asleep + self.claimed + self.starting
    }

    /// Claims a sleeper if a job waits and no thread is on its way to the queue. Returns whether one must be
    /// woken.
    fn claim_sleeper(&mut self) -> bool {
        let claims = !self.queue.is_empty() && self.claimed + self.starting == 0 && self.asleep > 0;
        if claims {
            self.asleep -= 1;
            self.claimed += 1;
        }
        claims
    }

    fn take_ended(&mut self) -> Vec<JoinHandle<()>> {
        let ended = mem::take(&mut self.ended);
        self.handles.extract_if(.., |handle| ended.contains(&handle.thread().id())).collect()
    }
}

type Spawn = fn(Arc<PoolShared>) -> io::Result<JoinHandle<()>>;

fn spawn_worker(shared: Arc<PoolShared>) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(shared.name.into()).spawn(move || {
        crate::sys::block_write_signals();
        work(&shared);
    })
}

/// Runs one thread. The code that started it has counted it.
fn work(shared: &PoolShared) {
    let mut state = lock(&shared.state);
    state.starting -= 1;
    loop {
        let Some(job) = state.queue.pop_front() else {
            if state.closed {
                break;
            }
            state.asleep += 1;
            state = wait_while(&shared.work, state, |state| state.claimed == 0 && !state.closed);
            // The claim has already counted one sleeper less. Closing the pool claims nobody.
            let count = if state.claimed > 0 { &mut state.claimed } else { &mut state.asleep };
            *count -= 1;
            continue;
        };
        state.running += 1;
        let claimed = state.claim_sleeper();
        drop(state);
        shared.wake(claimed);
        // A panic that escaped here would corrupt the count of threads. The code that submitted the job has
        // reported it.
        let _ = guard::call(job);
        state = lock(&shared.state);
        state.running -= 1;
    }
    state.ended.push(thread::current().id());
    drop(state);
    shared.ended.notify_all();
}

fn join_all(ended: Vec<JoinHandle<()>>) {
    for handle in ended {
        handle.join().expect("a worker catches the panics of its jobs");
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    const LONG: Duration = Duration::from_secs(60);

    /// Makes a job that reports its start, and ends when the returned sender is dropped.
    fn held(began: &Sender<Option<String>>) -> (Job, Sender<()>) {
        let (release, held) = channel::<()>();
        let began = began.clone();
        let job = Box::new(move || {
            began.send(thread::current().name().map(String::from)).expect("the test listens");
            held.recv().expect_err("nothing is ever sent");
        });
        (job, release)
    }

    fn begin(jobs: &Jobs, began: &(Sender<Option<String>>, Receiver<Option<String>>)) -> Sender<()> {
        let (job, release) = held(&began.0);
        jobs.run(job).expect("there is room");
        assert_eq!(began.1.recv().expect("it begins").as_deref(), Some("reactor-job"));
        release
    }

    fn threads(jobs: &Jobs) -> usize {
        lock(&jobs.shared.state).handles.len()
    }

    fn wait_until_free(jobs: &Jobs, free: usize) {
        while lock(&jobs.shared.state).free() != free {
            thread::yield_now();
        }
    }

    #[test]
    fn a_thread_is_started_only_when_no_other_is_free() {
        let (jobs, began) = (Jobs::new(2, 8), channel());
        assert_eq!(threads(&jobs), 0);
        drop(begin(&jobs, &began));
        wait_until_free(&jobs, 1);
        let first = begin(&jobs, &began);
        assert_eq!((threads(&jobs), jobs.running()), (1, 1));
        let second = begin(&jobs, &began);
        assert_eq!((threads(&jobs), jobs.running()), (2, 2));
        drop((first, second));
        assert_eq!(jobs.join(LONG), Left { dropped: 0, running: 0 });
    }

    #[test]
    fn two_jobs_at_once_do_not_share_one_free_thread() {
        let (jobs, began) = (Jobs::new(2, 0), channel());
        drop(begin(&jobs, &began));
        wait_until_free(&jobs, 1);
        let ((one, first), (two, second)) = (held(&began.0), held(&began.0));
        jobs.run(one).expect("a free thread");
        jobs.run(two).expect("a new thread");
        // Both begin, although neither ends.
        began.1.recv().expect("the first begins");
        began.1.recv().expect("the second begins");
        drop((first, second));
        assert_eq!(jobs.join(LONG).running, 0);
    }

    #[test]
    fn a_job_that_hangs_holds_up_none_that_was_given_with_it() {
        let (jobs, began) = (Jobs::new(2, 8), channel());
        // Two sleeping threads.
        drop([begin(&jobs, &began), begin(&jobs, &began)]);
        wait_until_free(&jobs, 2);
        let (hangs, release) = held(&began.0);
        let (done, results) = channel();
        let mut given: Vec<Job> = vec![hangs];
        given.extend((0..5).map(|number| -> Job {
            let done = done.clone();
            Box::new(move || done.send(number).expect("the test listens"))
        }));
        jobs.run_all(&mut given);
        drop(done);
        assert!(given.is_empty());
        assert_eq!(results.iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert_eq!(jobs.running(), 1);
        drop(release);
        assert_eq!(jobs.join(LONG), Left { dropped: 0, running: 0 });
    }

    #[test]
    fn of_several_jobs_those_beyond_the_limit_are_dropped_unrun() {
        for count in [2, 3, 4] {
            let (jobs, began) = (Jobs::new(1, 2), channel());
            let (hangs, release) = held(&began.0);
            jobs.run(hangs).expect("there is room");
            began.1.recv().expect("it begins");
            let (done, results) = channel();
            let mut given: Vec<Job> = Vec::new();
            for number in 0..count {
                let done = done.clone();
                given.push(Box::new(move || done.send(number).expect("the test listens")));
            }
            jobs.run_all(&mut given);
            drop((release, done));
            assert_eq!(results.iter().collect::<Vec<_>>(), (0..count.min(2)).collect::<Vec<_>>());
            assert_eq!(jobs.join(LONG), Left { dropped: 0, running: 0 });
        }
    }

    #[test]
    fn the_queue_takes_its_limit_and_drops_the_next_job_unrun() {
        for queue_max in [0, 1, 3] {
            let (jobs, began) = (Jobs::new(1, queue_max), channel());
            let release = begin(&jobs, &began);
            let (done, results) = channel();
            let job = |number: usize| -> Job {
                let done = done.clone();
                Box::new(move || done.send(number).expect("the test listens"))
            };
            for number in 0..queue_max {
                assert_eq!(jobs.queued(), number);
                jobs.run(job(number)).expect("the queue has room");
            }
            assert!(matches!(jobs.run(job(queue_max)), Err(NotRun::Full)), "at the limit");
            drop((release, done));
            let order: Vec<_> = results.iter().collect();
            assert_eq!(order, (0..queue_max).collect::<Vec<_>>());
            assert_eq!(jobs.join(LONG), Left { dropped: 0, running: 0 });
        }
    }

    #[test]
    fn without_threads_every_job_is_refused() {
        assert!(matches!(Jobs::new(0, 8).run(Box::new(|| ())), Err(NotRun::Full)));
    }

    #[test]
    fn a_job_is_refused_with_the_cause_when_no_thread_can_be_started() {
        let jobs = Jobs::with_spawn("reactor-job", 2, 8, |_| Err(io::Error::from(io::ErrorKind::WouldBlock)));
        match jobs.run(Box::new(|| ())) {
            Err(NotRun::NoThread(error)) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            other => panic!("no thread, not {other:?}"),
        }
        assert_eq!(jobs.close(), Left { dropped: 0, running: 0 });
    }

    #[test]
    fn a_thread_that_cannot_be_started_is_no_error_while_another_lives() {
        let (mut jobs, began) = (Jobs::new(2, 1), channel());
        let release = begin(&jobs, &began);
        jobs.spawn = |_| Err(io::Error::from(io::ErrorKind::WouldBlock));
        let (job, queued) = held(&began.0);
        jobs.run(job).expect("it waits for the living thread");
        assert!(matches!(jobs.run(Box::new(|| ())), Err(NotRun::NoThread(_))), "the queue is at its limit");
        drop((release, queued));
        began.1.recv().expect("the queued job begins");
        assert_eq!(jobs.join(LONG), Left { dropped: 0, running: 0 });
    }

    /// Counts its drops, and panics while it is dropped.
    struct Spiteful(Sender<()>);

    impl Drop for Spiteful {
        fn drop(&mut self) {
            self.0.send(()).expect("the test listens");
            // The code that catches this forgets it. That leaks nothing, because a unit takes no memory.
            std::panic::resume_unwind(Box::new(()));
        }
    }

    #[test]
    fn what_a_job_panicked_with_is_dropped_once_even_if_that_panics() {
        let (jobs, began, (drops, dropped)) = (Jobs::new(1, 8), channel(), channel());
        jobs.run(Box::new(|| std::panic::resume_unwind(Box::new(Spiteful(drops))))).expect("there is room");
        drop(begin(&jobs, &began));
        assert_eq!(jobs.join(LONG), Left { dropped: 0, running: 0 });
        assert_eq!(dropped.iter().count(), 1);
    }

    #[test]
    fn a_panic_costs_only_its_job() {
        let (jobs, began) = (Jobs::new(1, 8), channel());
        // Resume a panic instead of raising one, so that nothing is printed.
        jobs.run(Box::new(|| std::panic::resume_unwind(Box::new("a job's own")))).expect("there is room");
        drop(begin(&jobs, &began));
        assert_eq!(threads(&jobs), 1);
        assert_eq!(jobs.join(LONG), Left { dropped: 0, running: 0 });
    }

    #[test]
    fn close_drops_queued_jobs_and_leaves_running_ones() {
        let (jobs, began) = (Jobs::new(2, 8), channel());
        drop(begin(&jobs, &began));
        wait_until_free(&jobs, 1);
        let releases = [begin(&jobs, &began), begin(&jobs, &began)];
        let (job, queued) = held(&began.0);
        jobs.run(job).expect("there is room");
        assert_eq!(jobs.close(), Left { dropped: 1, running: 2 });
        assert!(matches!(jobs.run(Box::new(|| ())), Err(NotRun::Closed)));
        assert_eq!(jobs.join(Duration::ZERO), Left { dropped: 0, running: 2 });
        drop((releases, queued));
        assert_eq!(jobs.join(LONG), Left { dropped: 0, running: 0 });
        assert_eq!(threads(&jobs), 0, "all are joined");
    }

    #[test]
    fn close_joins_the_threads_without_a_job() {
        let (jobs, began) = (Jobs::new(1, 8), channel());
        drop(begin(&jobs, &began));
        wait_until_free(&jobs, 1);
        assert_eq!(jobs.close(), Left { dropped: 0, running: 0 });
        assert_eq!(threads(&jobs), 0);
    }
}
