//! Models of the interactions between threads, run in every order of their steps.
//!
//! Run: `RUSTFLAGS="--cfg loom" cargo test -p io-reactor --lib models --release`. A lost wake shows as a
//! deadlock, which the checker reports.

use super::mailbox::{Inbox, Mailbox, Refused, RemoteSender};
use super::pending::{Reply, Unanswered};
use crate::sync::{Condvar, Mutex, lock, wait_while};
use crate::threads::{Job, Jobs, Left};
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Notify};
use loom::thread;
use std::any::Any;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

type DeliverFn = fn(&mut dyn Any, &mut Vec<u32>);

fn take<M: Into<u32> + 'static>(queue: &mut dyn Any, log: &mut Vec<u32>) {
    let queue = queue.downcast_mut::<VecDeque<M>>().expect("the queue of its type");
    log.push(queue.pop_front().expect("one message for each walk").into());
}

/// Wakes a sleeping loop.
struct LoopWaker(Notify);

impl Wake for LoopWaker {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.notify();
    }
}

struct Loop {
    inbox: Inbox<DeliverFn>,
    bell: std::sync::Arc<LoopWaker>,
    log: Vec<u32>,
}

impl Loop {
    fn new(limit: usize) -> Self {
        let bell = std::sync::Arc::new(LoopWaker(Notify::new()));
        let (_, inbox) = Mailbox::new(limit, Waker::from(bell.clone()));
        Loop { inbox, bell, log: Vec::new() }
    }

    fn mailbox(&self) -> Arc<Mailbox<DeliverFn>> {
        self.inbox.mailbox().clone()
    }

    fn take(&mut self) {
        self.inbox.drain();
        while let Some((_, queue, deliver)) = self.inbox.next() {
            deliver(queue, &mut self.log);
        }
    }

    fn sleep(&mut self) {
        if self.inbox.sleep() {
            self.bell.0.wait();
            self.inbox.awake();
        }
    }
}

/// Checks a model of three looping threads in every order with at most this many preemptions. All orders
/// would take hours.
fn bounded(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut checker = loom::model::Builder::new();
    checker.preemption_bound = Some(preemptions);
    checker.check(model);
}

#[test]
fn two_senders_never_lose_the_wake_of_a_sleeping_loop() {
    bounded(3, || {
        let mut looping = Loop::new(2);
        let senders = [1_u32, 2].map(|number| {
            let mailbox = looping.mailbox();
            thread::spawn(move || mailbox.send(0, number, take::<u32>).expect("there is room"))
        });
        while looping.log.len() < 2 {
            looping.take();
            if looping.log.len() < 2 {
                looping.sleep();
            }
        }
        senders.into_iter().for_each(|sender| sender.join().expect("a sender does not panic"));
        looping.log.sort_unstable();
        assert_eq!(looping.log, [1, 2]);
    });
}

#[test]
fn what_was_sent_is_found_without_a_further_wake() {
    loom::model(|| {
        let mut looping = Loop::new(2);
        assert!(looping.inbox.sleep());
        let senders = [1_u32, 2].map(|number| {
            let mailbox = looping.mailbox();
            thread::spawn(move || mailbox.send(0, number, take::<u32>).expect("there is room"))
        });
        senders.into_iter().for_each(|sender| sender.join().expect("a sender does not panic"));
        looping.bell.0.wait();
        looping.inbox.awake();
        looping.take();
        looping.log.sort_unstable();
        assert_eq!(looping.log, [1, 2]);
        assert!(looping.inbox.sleep());
    });
}

#[test]
fn one_sender_keeps_its_order_over_two_types() {
    loom::model(|| {
        let mut looping = Loop::new(3);
        let remote = RemoteSender::new(looping.inbox.mailbox());
        let sender = thread::spawn(move || {
            remote.send(0, 1_u8, take::<u8>).expect("there is room");
            remote.send(0, 2_u16, take::<u16>).expect("there is room");
            remote.send(0, 3_u8, take::<u8>).expect("there is room");
        });
        looping.take();
        looping.take();
        sender.join().expect("the sender does not panic");
        looping.take();
        assert_eq!(looping.log, [1, 2, 3]);
    });
}

#[test]
fn a_full_mailbox_has_room_once_the_loop_walked() {
    loom::model(|| {
        let mut looping = Loop::new(1);
        let mailbox = looping.mailbox();
        mailbox.send(0, 1_u32, take::<u32>).expect("there is room");
        let sender = thread::spawn(move || match mailbox.send(0, 2_u32, take::<u32>) {
            Ok(()) => 1,
            Err(Refused::Full(2)) => 0,
            Err(other) => panic!("not {other:?}"),
        });
        looping.take();
        let room = looping.mailbox().send(0, 3_u32, take::<u32>).is_ok();
        let sent = sender.join().expect("the sender does not panic") + usize::from(room);
        looping.take();
        assert_eq!(looping.log.len(), 1 + sent);
        assert!(sent >= 1, "one of two finds the room that was made, and the limit holds");
    });
}

#[test]
fn two_that_wait_for_room_are_never_forgotten() {
    bounded(2, || {
        let mut looping = Loop::new(1);
        let senders = [1_u32, 2].map(|number| {
            let mailbox = looping.mailbox();
            thread::spawn(move || {
                mailbox.send_timeout(Duration::MAX, 0, number, take::<u32>).expect("there will be room")
            })
        });
        while looping.log.len() < 2 {
            looping.take();
            if looping.log.len() < 2 {
                looping.sleep();
            }
        }
        senders.into_iter().for_each(|sender| sender.join().expect("a sender does not panic"));
        looping.log.sort_unstable();
        assert_eq!(looping.log, [1, 2]);
    });
}

#[test]
fn who_waits_for_room_while_the_loop_ends_gets_the_command_back() {
    loom::model(|| {
        let mut looping = Loop::new(1);
        let mailbox = looping.mailbox();
        mailbox.send(0, 1_u32, take::<u32>).expect("there is room");
        let sender =
            thread::spawn(move || mailbox.send_timeout(Duration::MAX, 0, 2_u32, take::<u32>).is_ok());
        looping.mailbox().close();
        while !looping.inbox.is_empty() {
            looping.take();
        }
        let sent = sender.join().expect("a sender does not panic");
        assert_eq!(looping.log.len(), 1 + usize::from(sent));
    });
}

#[test]
fn each_command_that_races_a_stop_is_executed_or_refused() {
    bounded(3, || {
        let mut looping = Loop::new(2);
        let mailbox = looping.mailbox();
        let sender = thread::spawn(move || {
            let sent = [1_u32, 2].map(|number| mailbox.send(0, number, take::<u32>));
            sent.iter().filter(|sent| sent.is_ok()).count()
        });
        let mailbox = looping.mailbox();
        let stopper = thread::spawn(move || mailbox.stop(9));
        while looping.mailbox().grace().is_none() {
            looping.take();
            looping.sleep();
        }
        looping.mailbox().close();
        looping.take();
        let sent = sender.join().expect("the sender does not panic");
        stopper.join().expect("the stopper does not panic");
        assert_eq!(looping.log.len(), sent);
        assert!(looping.inbox.is_empty());
    });
}

#[test]
fn the_loop_ends_with_the_last_outside_handle_and_has_everything() {
    bounded(2, || {
        let mut looping = Loop::new(2);
        let first = RemoteSender::new(looping.inbox.mailbox());
        let handles = [first.clone(), first];
        let senders = handles
            .map(|remote| thread::spawn(move || remote.send(0, 1_u32, take::<u32>).expect("there is room")));
        while looping.mailbox().controllers() > 0 || !looping.inbox.is_empty() {
            looping.take();
            if looping.mailbox().controllers() > 0 {
                looping.sleep();
            }
        }
        assert_eq!(looping.log, [1, 1]);
        senders.into_iter().for_each(|sender| sender.join().expect("a sender does not panic"));
    });
}

#[test]
fn a_command_that_races_the_end_of_its_service_or_loop_resolves_its_reply() {
    loom::model(|| {
        let mut looping = Loop::new(2);
        let mailbox = looping.mailbox();
        let asker = thread::spawn(move || {
            let deliver: DeliverFn = |_, _| unreachable!("nothing is delivered");
            let loop_thread = mailbox.loop_thread();
            [0, 1].map(|service| {
                let (reply, pending) = Reply::<u8>::channel(loop_thread);
                drop(mailbox.send(service, reply, deliver));
                assert!(matches!(pending.wait(), Err(Unanswered::Gone)));
            })
        });
        looping.inbox.end_service(0);
        drop(looping);
        asker.join().expect("the asker does not panic");
    });
}

#[test]
fn a_question_that_races_two_stops_is_answered_or_gone_and_the_shorter_grace_is_kept() {
    bounded(3, || {
        let mut looping = Loop::new(2);
        let mailbox = looping.mailbox();
        let asker = thread::spawn(move || {
            let deliver: DeliverFn = |queue, log| {
                let queue = queue.downcast_mut::<VecDeque<Reply<u32>>>().expect("the queue of its type");
                queue.pop_front().expect("one message for each walk").send(7);
                log.push(7);
            };
            let (reply, pending) = Reply::channel(mailbox.loop_thread());
            // A refused command drops its reply, and that is the answer.
            drop(mailbox.send(0, reply, deliver));
            match pending.wait() {
                Ok(answer) => Some(answer),
                Err(Unanswered::Gone) => None,
                Err(other) => panic!("not {other:?}"),
            }
        });
        let mailbox = looping.mailbox();
        let stopper = thread::spawn(move || {
            mailbox.stop(9);
            mailbox.stop(5);
        });
        while looping.mailbox().grace().is_none() {
            looping.take();
            looping.sleep();
        }
        looping.mailbox().close();
        looping.take();
        let answer = asker.join().expect("the asker does not panic");
        stopper.join().expect("the stopper does not panic");
        assert_eq!(looping.log, answer.into_iter().collect::<Vec<_>>());
        assert_eq!(looping.mailbox().grace(), Some(5));
    });
}

#[test]
fn a_waiting_asker_gets_the_answer() {
    loom::model(|| {
        let (reply, pending) = Reply::channel(thread::current().id());
        let asker = thread::spawn(move || pending.wait().expect("answered"));
        reply.send(7);
        assert_eq!(asker.join().expect("the asker does not panic"), 7);
    });
}

#[test]
fn a_waiting_asker_learns_that_the_reply_was_dropped() {
    loom::model(|| {
        let (reply, pending) = Reply::<u8>::channel(thread::current().id());
        let asker = thread::spawn(move || matches!(pending.wait(), Err(Unanswered::Gone)));
        drop(reply);
        assert!(asker.join().expect("the asker does not panic"));
    });
}

/// An answer that counts its drops.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn an_answer_that_races_the_drop_of_its_pending_is_dropped_once() {
    loom::model(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        let (reply, pending) = Reply::channel(thread::current().id());
        let asker = thread::spawn(move || drop(pending));
        reply.send(Counted(drops.clone()));
        asker.join().expect("the asker does not panic");
        assert_eq!(drops.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_future_is_woken_for_the_answer() {
    loom::model(|| {
        let (reply, mut pending) = Reply::channel(thread::current().id());
        let asker = thread::spawn(move || {
            let bell = std::sync::Arc::new(LoopWaker(Notify::new()));
            let waker = Waker::from(bell.clone());
            loop {
                match Pin::new(&mut pending).poll(&mut Context::from_waker(&waker)) {
                    std::task::Poll::Ready(answer) => return answer.expect("answered"),
                    std::task::Poll::Pending => bell.0.wait(),
                }
            }
        });
        reply.send(7);
        assert_eq!(asker.join().expect("the asker does not panic"), 7);
    });
}

#[test]
fn a_closing_pool_runs_or_drops_each_job() {
    loom::model(|| {
        let (ran, drops) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let jobs = Jobs::new(1, 1);
        for _ in 0..2 {
            let (ran, counted) = (ran.clone(), Counted(drops.clone()));
            let job = Box::new(move || {
                ran.fetch_add(1, Ordering::Relaxed);
                drop(counted);
            });
            jobs.run(job).expect("a thread and a place");
        }
        let Left { dropped, running } = jobs.join(Duration::MAX);
        assert_eq!(running, 0);
        assert_eq!(ran.load(Ordering::Relaxed) + dropped, 2);
        assert_eq!(drops.load(Ordering::Relaxed), 2);
    });
}

/// A meeting point for two threads.
struct Meeting {
    arrived: Mutex<usize>,
    changed: Condvar,
}

impl Meeting {
    fn arrive(&self) {
        *lock(&self.arrived) += 1;
        self.changed.notify_all();
        self.wait();
    }

    fn wait(&self) {
        drop(wait_while(&self.changed, lock(&self.arrived), |arrived| *arrived < 2));
    }
}

#[test]
fn a_sleeping_thread_is_called_to_the_job_that_another_left() {
    bounded(2, || {
        let jobs = Jobs::new(2, 2);
        // In some orders both threads sleep when the next two jobs come, in others they do not.
        jobs.run_all(&mut vec![Box::new(|| ()), Box::new(|| ())]);
        let meeting = Arc::new(Meeting { arrived: Mutex::new(0), changed: Condvar::new() });
        // Neither ends before the other has begun, as if it hung.
        let given =
            [meeting.clone(), meeting.clone()].map(|meeting| -> Job { Box::new(move || meeting.arrive()) });
        jobs.run_all(&mut given.into());
        meeting.wait();
        assert_eq!(jobs.join(Duration::MAX), Left { dropped: 0, running: 0 });
    });
}
