//! A simulated engine by itself: a wake of another thread ends its wait.

use std::{sync::mpsc, thread, time::Duration};

use reactor::{engine::Engine, host::Host};
use sim::World;

#[test]
fn a_wake_from_any_thread_ends_a_wait_and_none_is_lost() {
    let mut engine = World::new(1).engine();
    let waker = engine.waker();
    (0..1_000).for_each(|_| waker.wake_by_ref());
    engine.wait(None).expect("it does not break");
    let before = engine.now();
    engine.wait(Some(Duration::from_secs(1))).expect("it does not break");
    assert_eq!(engine.now() - before, Duration::from_secs(1), "wakes coalesce");
    let (turns, count) = mpsc::channel();
    let thread = thread::spawn({
        let waker = waker.clone();
        move || {
            for _ in 0..2_000 {
                waker.wake_by_ref();
                count.recv().expect("each wake ends a wait");
            }
        }
    });
    for _ in 0..2_000 {
        engine.wait(None).expect("it does not break");
        turns.send(()).expect("the thread counts");
    }
    thread.join().expect("the thread did not panic");
    drop(engine);
    waker.wake();
}
