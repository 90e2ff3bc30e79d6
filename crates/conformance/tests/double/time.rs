//! The virtual clock, wakes, threads, jobs, and leaks after a drop.

use super::*;

#[test]
fn the_clock_jumps_to_the_timeout_when_nothing_happens() {
    let network = Network::new(Tuning::roomy(1));
    let mut engine = network.double();
    let (before, wall) = (engine.host().now(), engine.host().wall());
    engine.wait(Some(Duration::from_secs(30 * 86_400))).expect("the double does not break");
    assert_eq!(engine.host().now() - before, Duration::from_secs(30 * 86_400));
    assert_eq!(engine.host().wall().duration_since(wall).ok(), Some(Duration::from_secs(30 * 86_400)));
    engine.wait(Some(Duration::MAX)).expect("the double does not break");
    engine.wait(Some(Duration::MAX)).expect("time does not overflow");
}

#[test]
fn the_clock_does_not_pass_a_sibling_that_has_something_to_do() {
    let network = Network::new(Tuning::roomy(1));
    let (mut server, mut client) = (network.double(), network.double());
    let address = listen(&mut server);
    turn(&mut server);
    let transport = client.connect(&address, &ConnectOptions::default()).expect("it begins");
    client.attach(FIRST, transport, Role::Connecting).expect("a connect of this network");
    assert_eq!(turn(&mut client).len(), 1);
    let before = client.host().now();
    client.wait(Some(Duration::from_secs(5))).expect("the double does not break");
    assert_eq!(client.host().now(), before, "the server has a connection to accept first");
    drop(accepted(&mut server));
    turn(&mut server);
    let told: Vec<_> = (0..3).flat_map(|_| turn(&mut client)).collect();
    assert!(matches!(told[..], [(FIRST, Event::End)]), "{told:?}");
    turn(&mut server);
    client.wait(Some(Duration::from_secs(5))).expect("the double does not break");
    assert_eq!(client.host().now() - before, Duration::from_secs(5));
}

#[test]
fn doubles_in_threads_see_one_clock_in_the_order_of_their_deadlines() {
    let network = Network::new(Tuning::roomy(1));
    let hold = network.hold();
    let origin = network.now();
    let (tell, told) = mpsc::channel();
    let threads: Vec<_> = [3, 1, 2]
        .map(|seconds| {
            let (network, tell) = (network.clone(), tell.clone());
            let (ready, is_ready) = mpsc::channel();
            let thread = thread::spawn(move || {
                let mut engine = network.double();
                ready.send(()).expect("the test waits");
                let deadline = engine.host().now() + Duration::from_secs(seconds);
                while engine.host().now() < deadline {
                    engine.wait(Some(deadline - engine.host().now())).expect("the double does not break");
                }
                tell.send((seconds, engine.host().now() - origin)).expect("the test waits");
            });
            is_ready.recv().expect("the thread made its double");
            thread
        })
        .into_iter()
        .collect();
    drop(hold);
    for thread in threads {
        thread.join().expect("the thread did not panic");
    }
    let mut seen: Vec<_> = told.try_iter().collect();
    seen.sort_unstable();
    assert_eq!(seen, [1, 2, 3].map(|seconds| (seconds, Duration::from_secs(seconds))));
}

#[test]
fn a_wake_ends_a_wait_from_any_thread_and_none_is_lost() {
    let network = Network::new(Tuning::roomy(1));
    let mut engine = network.double();
    let waker = engine.waker();
    for _ in 0..1_000 {
        waker.wake_by_ref();
    }
    engine.wait(None).expect("the double does not break");
    let before = engine.host().now();
    engine.wait(Some(Duration::from_secs(1))).expect("the double does not break");
    assert_eq!(engine.host().now() - before, Duration::from_secs(1), "wakes coalesce");
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
        engine.wait(None).expect("the double does not break");
        turns.send(()).expect("the thread counts");
    }
    thread.join().expect("the thread did not panic");
    drop(engine);
    drop(network);
    waker.wake();
}

#[test]
fn a_peer_in_another_thread_ends_a_wait_without_timeout() {
    let (_network, mut engine, mut peer) = stream(Tuning::tight(3));
    let thread = thread::spawn(move || {
        peer.write(b"x").expect("it is connected");
        peer
    });
    let mut told = Vec::new();
    while told.is_empty() {
        engine.wait(None).expect("the double does not break");
        told.extend(std::iter::from_fn(|| engine.next()));
    }
    assert!(matches!(told[..], [(FIRST, Event::Got(_))]), "{told:?}");
    drop(thread.join().expect("the thread did not panic"));
}

#[test]
fn jobs_run_in_a_wait_when_the_tuning_says_so() {
    let mut engine = Network::new(Tuning::roomy(1)).double();
    assert!(engine.host_mut().run_blocking(Box::new(|| ())).is_some());
    let mut engine = Network::new(Tuning { runs_jobs: true, ..Tuning::roomy(1) }).double();
    let (tell, told) = mpsc::channel();
    let waker = engine.waker();
    let job = move || {
        tell.send(()).expect("the test waits");
        waker.wake();
    };
    assert!(engine.host_mut().run_blocking(Box::new(job)).is_none());
    assert!(told.try_recv().is_err(), "not before the wait");
    engine.wait(None).expect("the double does not break");
    assert_eq!(told.try_recv(), Ok(()));
}

#[test]
fn one_seed_is_one_run() {
    let run = |seed| {
        let (_, mut engine, mut peer) = stream(Tuning::tight(seed));
        let mut trace = vec![engine.host_mut().entropy()];
        assert!(engine.send(FIRST, queue(&pattern(2_000))).is_none());
        for _ in 0..200 {
            let _ = peer.write(&pattern(30));
            read_available(&mut peer, &mut Vec::new());
            for (key, event) in turn(&mut engine) {
                trace.push(key.slot() as u64);
                match event {
                    Event::Got(mut chunk) => {
                        trace.push(chunk.bytes().len() as u64);
                        engine.give(chunk);
                    }
                    Event::Sent(sent) => {
                        trace.push(sent.queue.len() as u64);
                        assert!(sent.queue.is_empty() || engine.send(FIRST, sent.queue).is_none());
                    }
                    other => panic!("it told {other:?}"),
                }
            }
        }
        trace
    };
    assert_eq!(run(8154), run(8154));
    assert_ne!(run(8154), run(8155));
}

#[test]
fn dropping_an_engine_closes_what_it_owns_and_reports_what_it_lent() {
    let (network, mut engine, mut peer) = stream(Tuning::tight(1));
    let feed = network.source();
    engine.watch(SECOND, feed.source(), Some(Interest::Read)).expect("it is open");
    assert_eq!(peer.write(b"x").ok(), Some(1));
    let mut kept = Vec::new();
    while kept.is_empty() {
        kept = turn(&mut engine);
    }
    let open = network.leaks();
    assert_eq!((open.transports.len(), open.sources, open.buffers), (1, 1, 1), "{open}");
    drop(engine);
    let left = network.leaks();
    assert_eq!((left.transports.len(), left.sources, left.buffers, left.peers), (0, 0, 1, 1), "{left}");
    assert!(!left.is_clean(), "a buffer was never given back");
    assert_eq!(peer.read(&mut [0; 4]).ok(), Some(0));
}
