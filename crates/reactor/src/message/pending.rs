//! One answer from a service to another thread: given once, then waited for, polled or awaited.
//!
//! A [`Reply`] travels inside a command, and the asker keeps the [`Pending`]. Answering uses up the reply.
//! Dropping it unused, as when its command is dropped, resolves the pending to [`Unanswered::Gone`]. So a
//! pending always resolves. Wakers are woken and values are dropped outside the lock.
//!
//! In a child of fork(2) nobody answers what was asked before the fork, and another thread of the parent may have held
//! the lock. So both ends are as good as gone there, without a look at the lock, and leak what they share.

use crate::guard;
use crate::sync::thread::{self, ThreadId};
use crate::sync::{Arc, Condvar, Mutex, lock, wait_while, wait_while_for};
use crate::sys::Birthplace;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use std::{fmt, mem};

/// Answers one question, at most once. If it is dropped without an answer, the asker learns that none will
/// come.
///
/// ```
/// struct GetCount(reactor::Reply<u64>);
///
/// let loop_thread = std::thread::current().id();
/// let (reply, mut pending) = reactor::Reply::channel(loop_thread);
/// let question = GetCount(reply);
/// question.0.send(42);
/// assert_eq!(pending.try_take().unwrap().unwrap(), 42);
/// ```
pub struct Reply<T> {
    shared: Arc<ReplyState<T>>,
}

impl<T> Reply<T> {
    /// Makes the two ends of one answer. The pending refuses to block on `loop_thread`.
    pub fn channel(loop_thread: ThreadId) -> (Reply<T>, Pending<T>) {
        let (slot, changed) = (Mutex::new(AnswerState::Open(None)), Condvar::new());
        let shared = Arc::new(ReplyState { slot, changed, birthplace: Birthplace::here() });
        (Reply { shared: shared.clone() }, Pending { shared, loop_thread })
    }

    /// Gives the answer and wakes the asker. It neither blocks nor fails. If the asker is gone, the answer is
    /// dropped.
    pub fn send(self, answer: T) {
        self.resolve(AnswerState::Answered(answer));
    }

    /// Returns whether the [`Pending`] still exists, so that a service can skip costly work that nobody
    /// wants.
    ///
    /// A result of true may be out of date at once, but false is final.
    pub fn is_wanted(&self) -> bool {
        self.shared.open().is_some_and(|slot| !matches!(*slot, AnswerState::Unwanted))
    }

    fn resolve(&self, answer: AnswerState<T>) {
        let Some(mut slot) = self.shared.open() else { return };
        if !matches!(*slot, AnswerState::Open(_)) {
            // `return` releases the lock before it drops `answer`, because a parameter outlives the locals.
            return;
        }
        let before = mem::replace(&mut *slot, answer);
        drop(slot);
        self.shared.changed.notify_all();
        if let AnswerState::Open(Some(waker)) = before {
            // This runs an executor's code. A panic in it must not harm the service that answers.
            let _ = guard::call(|| waker.wake());
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        if !self.shared.birthplace.is_here() {
            return ReplyState::leak(&self.shared);
        }
        // This does nothing if the answer was given.
        self.resolve(AnswerState::Gone);
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply(..)")
    }
}

/// Waits for the answer to one question: by blocking, by polling, or as a future on any executor.
///
/// Dropping it lets the answerer know that nobody wants the answer. As a future it resolves once. If it is
/// polled again, it resolves to [`Unanswered::Gone`].
///
/// ```
/// let (reply, pending) = reactor::Reply::channel(std::thread::current().id());
/// let asker = std::thread::spawn(move || pending.wait().unwrap());
/// reply.send("yes");
/// assert_eq!(asker.join().unwrap(), "yes");
/// ```
#[must_use = "dropping it says that the answer is not wanted"]
pub struct Pending<T> {
    shared: Arc<ReplyState<T>>,
    loop_thread: ThreadId,
}

impl<T> Pending<T> {
    /// Blocks until the answer arrives.
    ///
    /// Two loops that wait for each other would wait for ever. So a loop's thread should ask another loop by
    /// a message, and get the answer as a message.
    ///
    /// # Errors
    /// [`Unanswered::Gone`] if no answer will come. [`Unanswered::WouldDeadlock`], at once, if there is no
    /// answer yet and the calling thread is the one that has to give it.
    pub fn wait(self) -> Result<T, Unanswered<T>> {
        self.block(|changed, slot| wait_while(changed, slot, AnswerState::is_open))
    }

    /// Blocks until the answer arrives, or for this long.
    ///
    /// # Errors
    /// As [`Pending::wait`], and [`Unanswered::TimedOut`] if the time is over. The caller can then go on
    /// waiting.
    pub fn wait_for(self, up_to: Duration) -> Result<T, Unanswered<T>> {
        self.block(|changed, slot| wait_while_for(changed, slot, up_to, AnswerState::is_open))
    }

    /// Takes the answer if it has arrived, or returns `None` if it has not arrived yet.
    ///
    /// # Errors
    /// [`Unanswered::Gone`] if no answer will come, or if it was taken before.
    pub fn try_take(&mut self) -> Option<Result<T, Unanswered<T>>> {
        let Some(mut slot) = self.shared.open() else { return Some(Err(Unanswered::Gone)) };
        slot.take()
    }

    fn block<W>(self, wait: W) -> Result<T, Unanswered<T>>
    where
        W: for<'a> FnOnce(&Condvar, Guard<'a, T>) -> Guard<'a, T>,
    {
        let Some(mut slot) = self.shared.open() else { return Err(Unanswered::Gone) };
        let may_block = thread::current().id() != self.loop_thread;
        if may_block {
            slot = wait(&self.shared.changed, slot);
        }
        let taken = slot.take();
        drop(slot);
        match taken {
            Some(result) => result,
            None if may_block => Err(Unanswered::TimedOut(self)),
            None => Err(Unanswered::WouldDeadlock(self)),
        }
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, Unanswered<T>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Clone the waker before taking the lock, because cloning and dropping a waker runs the executor's
        // code.
        let mut waker = Some(cx.waker().clone());
        let Some(mut slot) = self.shared.open() else { return Poll::Ready(Err(Unanswered::Gone)) };
        let taken = slot.take();
        if let AnswerState::Open(waiting) = &mut *slot {
            mem::swap(waiting, &mut waker);
        }
        drop(slot);
        taken.map_or(Poll::Pending, Poll::Ready)
    }
}

impl<T> Drop for Pending<T> {
    fn drop(&mut self) {
        let Some(mut slot) = self.shared.open() else { return ReplyState::leak(&self.shared) };
        let before = mem::replace(&mut *slot, AnswerState::Unwanted);
        drop(slot);
        drop(before);
    }
}

impl<T> fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pending(..)")
    }
}

/// The reason why there is no answer. If one may still come, this gives the [`Pending`] back.
///
/// ```
/// use std::time::Duration;
///
/// let (reply, pending) = reactor::Reply::<u64>::channel(std::thread::current().id());
/// let asker = std::thread::spawn(move || match pending.wait_for(Duration::ZERO) {
///     Err(reactor::Unanswered::TimedOut(pending)) => pending.wait(),
///     other => other,
/// });
/// drop(reply);
/// assert!(matches!(asker.join().unwrap(), Err(reactor::Unanswered::Gone)));
/// ```
#[non_exhaustive]
pub enum Unanswered<T> {
    /// No answer will come: the service or the loop ended, or it dropped the [`Reply`]. Or this process is a child of fork(2),
    /// and the question is older.
    Gone,
    /// The time was over before the answer came.
    TimedOut(Pending<T>),
    /// Blocking here would block the thread that has to answer.
    WouldDeadlock(Pending<T>),
}

impl<T> fmt::Debug for Unanswered<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unanswered::Gone => "Gone",
            Unanswered::TimedOut(_) => "TimedOut(..)",
            Unanswered::WouldDeadlock(_) => "WouldDeadlock(..)",
        })
    }
}

impl<T> fmt::Display for Unanswered<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unanswered::Gone => "no answer will come",
            Unanswered::TimedOut(_) => "no answer came in time",
            Unanswered::WouldDeadlock(_) => "waiting on the loop's own thread would block the answer",
        })
    }
}

impl<T> Error for Unanswered<T> {}

struct ReplyState<T> {
    slot: Mutex<AnswerState<T>>,
    changed: Condvar,
    birthplace: Birthplace,
}

impl<T> ReplyState<T> {
    /// Takes the lock, unless this is a child of the process that asked.
    fn open(&self) -> Option<Guard<'_, T>> {
        self.birthplace.is_here().then(|| lock(&self.slot))
    }

    /// Keeps the users' values from being dropped in a child.
    fn leak(shared: &Arc<Self>) {
        mem::forget(shared.clone());
    }
}

type Guard<'a, T> = crate::sync::MutexGuard<'a, AnswerState<T>>;

enum AnswerState<T> {
    /// No answer yet. Contains the waker of the task that awaits it, if there is one.
    Open(Option<Waker>),
    Answered(T),
    /// The reply was dropped, or the answer was taken.
    Gone,
    /// The pending was dropped.
    Unwanted,
}

impl<T> AnswerState<T> {
    fn is_open(&self) -> bool {
        matches!(self, AnswerState::Open(_))
    }

    fn take(&mut self) -> Option<Result<T, Unanswered<T>>> {
        match mem::replace(self, AnswerState::Gone) {
            AnswerState::Answered(answer) => Some(Ok(answer)),
            AnswerState::Gone | AnswerState::Unwanted => Some(Err(Unanswered::Gone)),
            open @ AnswerState::Open(_) => {
                *self = open;
                None
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::task::Wake;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn here() -> ThreadId {
        thread::current().id()
    }

    /// Returns the id of a loop's thread that is not this thread.
    fn elsewhere() -> ThreadId {
        thread::spawn(here).join().expect("it only looks at itself")
    }

    #[test]
    fn an_answer_reaches_who_blocks_for_it() {
        let (reply, pending) = Reply::channel(here());
        let asker = thread::spawn(move || pending.wait().expect("answered"));
        reply.send(7);
        assert_eq!(asker.join().expect("the asker does not panic"), 7);
    }

    #[test]
    fn a_dropped_reply_resolves_to_gone() {
        let (reply, mut pending) = Reply::<u8>::channel(elsewhere());
        assert!(pending.try_take().is_none());
        drop(reply);
        assert!(matches!(pending.wait(), Err(Unanswered::Gone)));
    }

    #[test]
    fn the_loops_own_thread_is_not_blocked_and_gets_its_pending_back() {
        let (reply, pending) = Reply::channel(here());
        let Err(Unanswered::WouldDeadlock(pending)) = pending.wait() else { panic!("it must not block") };
        let Err(Unanswered::WouldDeadlock(pending)) = pending.wait_for(Duration::MAX) else {
            panic!("nor this")
        };
        reply.send(7);
        assert_eq!(pending.wait().expect("what is there needs no blocking"), 7);
    }

    #[test]
    fn waiting_goes_on_after_the_time_was_over() {
        let (reply, pending) = Reply::channel(elsewhere());
        let Err(Unanswered::TimedOut(pending)) = pending.wait_for(Duration::ZERO) else {
            panic!("no answer yet")
        };
        reply.send(7);
        assert_eq!(pending.wait_for(Duration::MAX).expect("answered"), 7);
    }

    #[test]
    fn an_answer_is_taken_once() {
        let (reply, mut pending) = Reply::channel(elsewhere());
        reply.send(7);
        assert!(matches!(pending.try_take(), Some(Ok(7))));
        assert!(matches!(pending.try_take(), Some(Err(Unanswered::Gone))));
        assert!(matches!(pending.wait(), Err(Unanswered::Gone)));
    }

    #[test]
    fn a_dropped_pending_makes_the_reply_unwanted_and_the_answer_is_dropped() {
        let (reply, pending) = Reply::channel(elsewhere());
        assert!(reply.is_wanted());
        drop(pending);
        assert!(!reply.is_wanted());
        let answer = Arc::new(());
        reply.send(answer.clone());
        assert_eq!(Arc::strong_count(&answer), 1);
    }

    #[test]
    fn an_answer_that_nobody_took_is_dropped_with_the_pending() {
        let (reply, pending) = Reply::channel(elsewhere());
        let answer = Arc::new(());
        reply.send(answer.clone());
        assert_eq!(Arc::strong_count(&answer), 2);
        drop(pending);
        assert_eq!(Arc::strong_count(&answer), 1);
    }

    #[test]
    fn a_future_wakes_the_last_waker_once() {
        let (reply, mut pending) = Reply::channel(here());
        let counts = [0, 0].map(|zero| Arc::new(Count(AtomicUsize::new(zero))));
        for count in &counts {
            let waker = Waker::from(count.clone());
            assert!(Pin::new(&mut pending).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        assert_eq!(Arc::strong_count(&counts[0]), 1, "the replaced waker was dropped");
        reply.send(7);
        assert_eq!(counts.each_ref().map(|count| count.0.load(Ordering::Relaxed)), [0, 1]);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(Pin::new(&mut pending).poll(&mut cx), Poll::Ready(Ok(7))));
        assert!(matches!(Pin::new(&mut pending).poll(&mut cx), Poll::Ready(Err(Unanswered::Gone))));
    }

    #[test]
    fn an_answer_whose_drop_asks_again_does_not_deadlock() {
        struct Asks(mpsc::Sender<bool>, Option<Reply<Asks>>);
        impl Drop for Asks {
            fn drop(&mut self) {
                let wanted = self.1.as_ref().is_some_and(Reply::is_wanted);
                self.0.send(wanted).expect("the test listens");
            }
        }
        let (told, hears) = mpsc::channel();
        let (reply, pending) = Reply::channel(elsewhere());
        let twin = Reply { shared: reply.shared.clone() };
        drop(pending);
        reply.send(Asks(told, Some(twin)));
        assert_eq!(hears.recv(), Ok(false));
    }
}
