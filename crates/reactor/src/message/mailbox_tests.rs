//! A mailbox's guarantees for its senders and its loop.

use super::mailbox::{Inbox, Mailbox, Refused, RemoteSender};
use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Wake, Waker};
use std::thread;
use std::time::Duration;

/// Moves the front of the queue to the log.
type DeliverFn = fn(&mut dyn Any, &mut Vec<u64>);

fn take<M: Into<u64> + 'static>(queue: &mut dyn Any, log: &mut Vec<u64>) {
    let queue = queue.downcast_mut::<VecDeque<M>>().expect("the queue of its type");
    log.push(queue.pop_front().expect("one message for each walk").into());
}

/// A waker that counts its wakes, and unparks the thread that made it.
struct CountingWaker(AtomicUsize, thread::Thread);

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
        self.1.unpark();
    }
}

impl CountingWaker {
    fn new() -> Arc<Self> {
        Arc::new(CountingWaker(AtomicUsize::new(0), thread::current()))
    }

    fn rung(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

fn mailbox(limit: usize) -> (Arc<Mailbox<DeliverFn>>, Inbox<DeliverFn>, Arc<CountingWaker>) {
    let bell = CountingWaker::new();
    let (mailbox, inbox) = Mailbox::new(limit, Waker::from(bell.clone()));
    (mailbox, inbox, bell)
}

/// Consumes at most `budget` commands, and returns each one's service and number.
fn walk(inbox: &mut Inbox<DeliverFn>, budget: usize) -> Vec<(u16, u64)> {
    inbox.drain();
    let (mut services, mut log) = (Vec::new(), Vec::new());
    while services.len() < budget
        && let Some((service, queue, deliver)) = inbox.next()
    {
        services.push(service);
        deliver(queue, &mut log);
    }
    services.into_iter().zip(log).collect()
}

#[test]
fn one_sender_keeps_its_order_over_types_and_services() {
    let (mailbox, mut inbox, _) = mailbox(8);
    mailbox.send(0, 1_u8, take::<u8>).unwrap();
    mailbox.send(1, 2_u8, take::<u8>).unwrap();
    mailbox.send(0, 3_u32, take::<u32>).unwrap();
    mailbox.send(0, 4_u8, take::<u8>).unwrap();
    assert_eq!(walk(&mut inbox, 8), [(0, 1), (1, 2), (0, 3), (0, 4)]);
}

#[test]
fn what_a_budget_left_comes_before_what_is_new() {
    let (mailbox, mut inbox, _) = mailbox(8);
    for number in 0..4_u8 {
        mailbox.send(0, number, take::<u8>).unwrap();
    }
    assert_eq!(walk(&mut inbox, 1), [(0, 0)]);
    mailbox.send(0, 4_u8, take::<u8>).unwrap();
    assert!(!inbox.sleep(), "commands are left");
    assert_eq!(inbox.drain(), 3, "only what was taken before");
    assert_eq!(walk(&mut inbox, 8), [(0, 1), (0, 2), (0, 3)]);
    assert_eq!(walk(&mut inbox, 8), [(0, 4)]);
    assert!(inbox.is_empty());
}

#[test]
fn the_limit_counts_both_sides_and_gives_the_message_back() {
    for limit in [0, 1, 5] {
        let (mailbox, mut inbox, _) = mailbox(limit);
        for number in 0..limit as u64 {
            mailbox.send(0, number, take::<u64>).expect("below the limit");
        }
        assert!(matches!(mailbox.send(0, 77_u64, take::<u64>), Err(Refused::Full(77))));
        assert_eq!(inbox.drain(), limit);
        assert!(matches!(mailbox.send(0, 77_u64, take::<u64>), Err(Refused::Full(77))), "none was consumed");
        if let Some((_, queue, deliver)) = inbox.next() {
            deliver(queue, &mut Vec::new());
            mailbox.send(0, 78_u64, take::<u64>).expect("one was consumed");
            assert_eq!(mailbox.send(0, 79_u64, take::<u64>).unwrap_err().into_message(), 79);
        }
    }
}

const LONG: Duration = Duration::from_secs(60);

fn wait_for_a_sender(mailbox: &Mailbox<DeliverFn>) {
    while mailbox.waiting() == 0 {
        thread::yield_now();
    }
}

#[test]
fn who_waits_for_room_gets_it_after_a_walk() {
    for limit in [1, 5] {
        let (mailbox, mut inbox, _) = mailbox(limit);
        for number in 0..limit as u64 {
            mailbox.send_timeout(LONG, 0, number, take::<u64>).expect("below the limit");
        }
        let waits = mailbox.clone();
        let sender = thread::spawn(move || waits.send_timeout(LONG, 0, 77_u64, take::<u64>));
        wait_for_a_sender(&mailbox);
        let mut got = Vec::new();
        while got.len() <= limit {
            got.extend(walk(&mut inbox, 1).into_iter().map(|(_, number)| number));
        }
        sender.join().expect("it does not panic").expect("it got room");
        assert_eq!(got, (0..limit as u64).chain([77]).collect::<Vec<_>>());
        assert!(inbox.is_empty() && inbox.sleep(), "nobody waits any more");
    }
}

#[test]
fn the_loops_own_thread_never_waits_for_room() {
    let (mailbox, _inbox, _) = mailbox(1);
    mailbox.send_timeout(LONG, 0, 1_u8, take::<u8>).expect("room needs no wait");
    let refused = mailbox.send_timeout(LONG, 0, 2_u8, take::<u8>);
    assert!(matches!(refused, Err(Refused::WouldDeadlock(2))), "{refused:?}");
    let refused = mailbox.send_timeout(Duration::ZERO, 0, 3_u8, take::<u8>);
    assert!(matches!(refused, Err(Refused::Full(3))), "{refused:?}");
}

#[test]
fn a_wait_for_room_ends_with_its_time_and_where_there_is_never_room_at_once() {
    for (limit, up_to) in [(0, LONG), (1, Duration::ZERO), (1, Duration::from_millis(1))] {
        let (mailbox, mut inbox, _) = mailbox(limit);
        for number in 0..limit as u64 {
            mailbox.send(0, number, take::<u64>).expect("below the limit");
        }
        let sender = thread::spawn(move || mailbox.send_timeout(up_to, 0, 77_u64, take::<u64>));
        let refused = sender.join().expect("it does not panic");
        assert!(matches!(refused, Err(Refused::Full(77))), "limit {limit}, {up_to:?}: {refused:?}");
        walk(&mut inbox, 8);
        walk(&mut inbox, 8);
        assert!(inbox.sleep(), "nobody waits any more");
    }
}

#[test]
fn who_waits_for_room_learns_that_there_will_be_none() {
    type End = fn(&Mailbox<DeliverFn>, &mut Option<Inbox<DeliverFn>>);
    let ends: [End; 3] = [
        |mailbox, _| mailbox.close(),
        |_, inbox| assert_eq!(inbox.as_mut().expect("it is there").end_service(7), 1),
        |_, inbox| *inbox = None,
    ];
    for end in ends {
        let (mailbox, inbox, _) = mailbox(1);
        let mut inbox = Some(inbox);
        mailbox.send(7, 1_u8, take::<u8>).expect("there is room");
        let waits = mailbox.clone();
        let sender = thread::spawn(move || waits.send_timeout(LONG, 7, 2_u8, take::<u8>));
        wait_for_a_sender(&mailbox);
        end(&mailbox, &mut inbox);
        let refused = sender.join().expect("it does not panic");
        assert!(matches!(refused, Err(Refused::Gone(2))), "{refused:?}");
    }
}

#[test]
fn the_end_of_one_service_makes_room_for_who_waits_for_another() {
    let (mailbox, mut inbox, _) = mailbox(1);
    mailbox.send(7, 1_u8, take::<u8>).expect("there is room");
    let waits = mailbox.clone();
    let sender = thread::spawn(move || waits.send_timeout(LONG, 3, 2_u8, take::<u8>));
    wait_for_a_sender(&mailbox);
    assert_eq!(inbox.end_service(7), 1);
    sender.join().expect("it does not panic").expect("it got room");
    assert_eq!(walk(&mut inbox, 8), [(3, 2)]);
}

#[test]
fn a_steady_stream_keeps_its_queues() {
    let (mailbox, mut inbox, _) = mailbox(64);
    let mut capacities = Vec::new();
    for _ in 0..32 {
        for number in 0..40_u64 {
            mailbox.send(0, number, take::<u64>).unwrap();
        }
        inbox.drain();
        let (_, queue, deliver) = inbox.next().expect("the first of forty");
        deliver(queue, &mut Vec::new());
        let queue = queue.downcast_mut::<VecDeque<u64>>().expect("the queue of its type");
        capacities.push((std::ptr::from_ref(queue), queue.capacity()));
        assert_eq!(walk(&mut inbox, 64).len(), 39);
    }
    // Two sides take turns, so each is the same queue, with the same capacity, as two rounds before.
    assert!(capacities.iter().zip(&capacities[2..]).all(|(before, after)| before == after));
    assert_ne!(capacities[0].0, capacities[1].0);
}

#[test]
fn only_the_first_send_of_a_sleep_wakes() {
    let (mailbox, mut inbox, bell) = mailbox(8);
    mailbox.send(0, 1_u8, take::<u8>).unwrap();
    assert_eq!(bell.rung(), 0, "the loop is awake");
    assert!(!inbox.sleep(), "a command is queued");
    mailbox.send(0, 2_u8, take::<u8>).unwrap();
    assert_eq!(bell.rung(), 0, "the loop was refused its sleep");
    walk(&mut inbox, 8);
    for sleeps in 1..=3 {
        assert!(inbox.sleep());
        mailbox.send(0, 3_u8, take::<u8>).unwrap();
        mailbox.send(0, 4_u8, take::<u8>).unwrap();
        assert_eq!(bell.rung(), sleeps);
        walk(&mut inbox, 8);
    }
    assert!(inbox.sleep());
    inbox.awake();
    mailbox.send(0, 5_u8, take::<u8>).unwrap();
    assert_eq!(bell.rung(), 3, "the loop woke by itself");
}

#[test]
fn the_earliest_stop_wins_and_wakes_or_refuses_one_sleep() {
    let (mailbox, inbox, bell) = mailbox(8);
    assert_eq!(mailbox.grace(), None);
    mailbox.stop(50);
    assert_eq!((mailbox.grace(), bell.rung()), (Some(50), 0));
    assert!(!inbox.sleep(), "the stop is new");
    assert!(inbox.sleep(), "and now is known");
    mailbox.stop(70);
    assert_eq!((mailbox.grace(), bell.rung()), (Some(50), 1));
    assert!(inbox.sleep(), "the wake has reported it");
    mailbox.stop(20);
    assert_eq!((mailbox.grace(), bell.rung()), (Some(20), 2));
}

#[test]
fn a_stop_without_a_deadline_is_a_stop() {
    let (mailbox, ..) = mailbox(8);
    mailbox.stop(u64::MAX);
    assert_eq!(mailbox.grace(), Some(u64::MAX - 1));
}

#[test]
fn the_last_outside_handle_wakes_or_refuses_one_sleep() {
    let (mailbox, inbox, bell) = mailbox(8);
    let first = RemoteSender::new(&mailbox);
    let second = first.clone();
    assert_eq!(mailbox.controllers(), 2);
    drop(first);
    assert!(inbox.sleep(), "one lives");
    drop(second);
    assert_eq!((mailbox.controllers(), bell.rung()), (0, 1));
    inbox.awake();
    drop(RemoteSender::new(&mailbox));
    assert!(!inbox.sleep());
    assert!(inbox.sleep());
}

#[test]
fn an_ended_service_refuses_and_drops_only_its_own() {
    let (mailbox, mut inbox, _) = mailbox(8);
    let watch = Arc::new(());
    let keep: fn(&mut dyn Any, &mut Vec<u64>) = |_, _| unreachable!("its service has ended");
    // On both sides: two queues of the service that ends, between queues of others.
    for _ in 0..2 {
        mailbox.send(64, watch.clone(), keep).unwrap();
        mailbox.send(3, 1_u8, take::<u8>).unwrap();
        mailbox.send(64, 9_u8, take::<u8>).unwrap();
        mailbox.send(0, 2_u32, take::<u32>).unwrap();
        inbox.drain();
    }
    assert!(matches!(mailbox.send(0, 8_u8, take::<u8>), Err(Refused::Full(8))));
    assert_eq!(inbox.end_service(64), 4);
    assert_eq!(Arc::strong_count(&watch), 1);
    assert!(matches!(mailbox.send(64, 5_u8, take::<u8>), Err(Refused::Gone(5))));
    for number in 5..9_u8 {
        mailbox.send(3, number, take::<u8>).expect("what was dropped made room");
    }
    assert!(matches!(mailbox.send(3, 9_u8, take::<u8>), Err(Refused::Full(9))));
    assert_eq!(walk(&mut inbox, 8), [(3, 1), (0, 2)]);
    assert_eq!(walk(&mut inbox, 8), [(3, 1), (0, 2), (3, 5), (3, 6), (3, 7), (3, 8)]);
    assert_eq!(inbox.end_service(64), 0);
    assert!(inbox.sleep());
}

#[test]
fn commands_of_a_held_service_wait_in_order_and_others_pass() {
    let (mailbox, mut inbox, _) = mailbox(9);
    for number in 0..3_u8 {
        mailbox.send(1, number, take::<u8>).unwrap();
        mailbox.send(2, number, take::<u8>).unwrap();
        mailbox.send(1, u32::from(number) + 10, take::<u32>).unwrap();
        inbox.drain();
    }
    assert!(mailbox.send(1, 9_u8, take::<u8>).is_err(), "the limit");
    assert_eq!(walk(&mut inbox, 1), [(1, 0)]);
    inbox.hold(1);
    assert_eq!(walk(&mut inbox, 8), [(2, 0)]);
    assert_eq!(walk(&mut inbox, 8), [(2, 1), (2, 2)]);
    assert!(inbox.is_empty() && inbox.sleep(), "what is held keeps nobody awake");
    // The first release is not the last: half of what it brings is held again.
    inbox.release(1);
    assert!(!inbox.is_empty() && !inbox.sleep());
    assert_eq!(walk(&mut inbox, 2), [(1, 10), (1, 1)]);
    inbox.hold(1);
    mailbox.send(1, 20_u8, take::<u8>).unwrap();
    mailbox.send(2, 21_u8, take::<u8>).unwrap();
    assert_eq!(walk(&mut inbox, 8), [(2, 21)]);
    inbox.release(1);
    mailbox.send(1, 22_u8, take::<u8>).unwrap();
    assert_eq!(walk(&mut inbox, 8), [(1, 11), (1, 2), (1, 12), (1, 20), (1, 22)]);
    assert!(inbox.sleep());
}

#[test]
fn what_is_held_counts_against_the_limit_until_it_is_walked_or_dropped() {
    for is_ended in [false, true] {
        let (mailbox, mut inbox, _) = mailbox(3);
        let watch = Arc::new(());
        inbox.hold(1);
        for number in 0..3_u64 {
            let kept = CountedNumber(number, watch.clone());
            assert!(mailbox.send(1, kept, take::<CountedNumber>).is_ok(), "below the limit");
            inbox.drain();
        }
        assert!(matches!(mailbox.send(2, 3_u8, take::<u8>), Err(Refused::Full(3))));
        if is_ended {
            assert_eq!(inbox.end_service(1), 3);
            assert!(matches!(mailbox.send(1, 4_u8, take::<u8>), Err(Refused::Gone(4))));
        } else {
            inbox.release(1);
            assert_eq!(walk(&mut inbox, 8), [(1, 0), (1, 1), (1, 2)]);
        }
        assert_eq!(Arc::strong_count(&watch), 1);
        assert!(mailbox.send(2, 3_u8, take::<u8>).is_ok(), "there is room again");
        assert_eq!(walk(&mut inbox, 8), [(2, 3)]);
    }
}

/// A number that is counted while it is kept.
struct CountedNumber(u64, #[expect(dead_code, reason = "counted")] Arc<()>);

impl From<CountedNumber> for u64 {
    fn from(kept: CountedNumber) -> u64 {
        kept.0
    }
}

#[test]
fn who_waits_for_room_that_is_held_does_not_keep_the_loop_awake() {
    let (mailbox, mut inbox, _) = mailbox(1);
    inbox.hold(1);
    mailbox.send(1, 1_u8, take::<u8>).unwrap();
    let sender = {
        let mailbox = mailbox.clone();
        thread::spawn(move || mailbox.send_timeout(Duration::from_secs(60), 2, 2_u8, take::<u8>).is_ok())
    };
    while mailbox.waiting() == 0 {
        thread::yield_now();
    }
    inbox.drain();
    assert!(inbox.sleep(), "it cannot make room now");
    inbox.awake();
    inbox.release(1);
    let mut consumed = Vec::new();
    while consumed.len() < 2 {
        consumed.extend(walk(&mut inbox, 8));
        thread::yield_now();
    }
    assert_eq!(consumed, [(1, 1), (2, 2)]);
    assert!(sender.join().expect("it does not panic"));
}

#[test]
fn a_closed_mailbox_refuses_and_still_delivers() {
    let (mailbox, mut inbox, _) = mailbox(8);
    mailbox.send(0, 1_u8, take::<u8>).unwrap();
    mailbox.close();
    assert!(matches!(mailbox.send(0, 2_u8, take::<u8>), Err(Refused::Gone(2))));
    assert_eq!(walk(&mut inbox, 8), [(0, 1)]);
}

#[test]
fn dropping_the_inbox_closes_and_drops_on_both_sides() {
    let (mailbox, mut inbox, _) = mailbox(8);
    let watch = Arc::new(());
    let deliver: DeliverFn = |_, _| unreachable!("it is dropped");
    mailbox.send(0, watch.clone(), deliver).unwrap();
    inbox.drain();
    mailbox.send(0, watch.clone(), deliver).unwrap();
    drop(inbox);
    assert_eq!(Arc::strong_count(&watch), 1);
    assert!(matches!(mailbox.send(0, 2_u8, take::<u8>), Err(Refused::Gone(2))));
}

#[test]
fn a_command_whose_drop_sends_does_not_deadlock() {
    struct Sends(Arc<Mailbox<DeliverFn>>, mpsc::Sender<bool>);
    impl Drop for Sends {
        fn drop(&mut self) {
            let refused = self.0.send(0, 1_u8, take::<u8>).is_err();
            self.1.send(refused).expect("the test listens");
        }
    }
    let deliver: DeliverFn = |_, _| unreachable!("it is dropped");
    let (mailbox, mut inbox, _) = mailbox(8);
    let (told, hears) = mpsc::channel();
    mailbox.send(0, Sends(mailbox.clone(), told.clone()), deliver).unwrap();
    inbox.end_service(0);
    mailbox.send(1, Sends(mailbox.clone(), told), deliver).unwrap();
    drop(inbox);
    assert_eq!(hears.iter().collect::<Vec<_>>(), [true, true]);
}

#[test]
fn a_panic_in_a_delivery_leaves_the_rest_in_order() {
    let (mailbox, mut inbox, _) = mailbox(8);
    let fails: DeliverFn = |queue, log| {
        take::<u32>(queue, log);
        std::panic::resume_unwind(Box::new("a handler's own"));
    };
    mailbox.send(0, 1_u32, fails).unwrap();
    mailbox.send(0, 2_u8, take::<u8>).unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| walk(&mut inbox, 8))).is_err());
    assert_eq!(walk(&mut inbox, 8), [(0, 2)]);
}

#[test]
fn four_threads_lose_no_wake_and_keep_their_orders() {
    const EACH: u64 = 50_000;
    let (mailbox, mut inbox, _) = mailbox(256);
    let senders = [0_u16, 1, 2, 3].map(|service| {
        let remote = RemoteSender::new(&mailbox);
        thread::spawn(move || {
            for number in 0..EACH {
                if service == 3 {
                    remote.send_timeout(LONG, service, number, take::<u64>).expect("there will be room");
                    continue;
                }
                while remote.send(service, number, take::<u64>).is_err() {
                    thread::yield_now();
                }
            }
        })
    });
    let mut next = [0; 4];
    while mailbox.controllers() > 0 || !inbox.is_empty() {
        for (service, number) in walk(&mut inbox, 100) {
            assert_eq!(number, next[usize::from(service)]);
            next[usize::from(service)] += 1;
        }
        if inbox.sleep() {
            // This has no time limit, so a lost wake hangs here.
            thread::park();
            inbox.awake();
        }
    }
    assert_eq!(next, [EACH; 4]);
    for sender in senders {
        sender.join().expect("a sender does not panic");
    }
}
