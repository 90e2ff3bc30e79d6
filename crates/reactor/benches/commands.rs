//! What one command from another thread costs. Run: `cargo bench -p io-reactor --bench commands [COMMANDS]`
//!
//! A sender gives commands in a row to a loop on another thread, which parks when it has none. Printed for each case:
//! the time from the first `send` to the last delivery divided by the commands, as the median and the range of several
//! rounds, with the wakes and drains of the median round. The loop sleeps as soon as it finds nothing; a turn that may
//! not sleep makes as many short system calls as a turn of a real loop at least makes.

#[allow(dead_code, unreachable_pub, reason = "internal to the library: the benchmark includes its source")]
#[path = "../src/message/mailbox.rs"]
mod mailbox;
#[allow(dead_code, unused_imports, reason = "as above")]
#[path = "../src/sync.rs"]
mod sync;

use mailbox::{Inbox, Mailbox, Outside, Refused};
use std::any::Any;
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

type Deliver = fn(&mut dyn Any, &mut u64);

fn main() {
    // `cargo bench` itself passes `--bench`.
    let commands = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(1_000_000);
    for limit in [1 << 20, 1024] {
        for kinds in [1, 2] {
            report(Case { commands, limit, kinds });
        }
    }
}

/// One way to send, and one to take.
#[derive(Clone, Copy)]
struct Case {
    commands: u64,
    limit: usize,
    /// How many types of command the sender uses in turn: one or two.
    kinds: u64,
}

/// What one round of a case cost.
struct Cost {
    each_ns: f64,
    wakes: u64,
    drains: u64,
    retries: u64,
}

fn report(case: Case) {
    let mut costs: Vec<Cost> = (0..ROUNDS).map(|_| measure(case)).collect();
    costs.sort_by(|a, b| a.each_ns.total_cmp(&b.each_ns));
    let Cost { each_ns, wakes, drains, retries } = costs[ROUNDS / 2];
    let (least, most) = (costs[0].each_ns, costs[ROUNDS - 1].each_ns);
    let Case { limit, kinds, .. } = case;
    println!(
        "commands: {each_ns:.1} ns each, wakes {wakes} (range {least:.1} to {most:.1}, drains {drains}, \
         retries {retries}; limit {limit}, types {kinds})"
    );
}

/// Sends all commands of the case to a loop of its own.
fn measure(case: Case) -> Cost {
    let (give, take) = mpsc::channel();
    let looping = thread::spawn(move || {
        let wakes = Arc::new(AtomicU64::new(0));
        let bell = Bell { thread: thread::current(), wakes: wakes.clone() };
        let (mailbox, inbox) = Mailbox::<Deliver>::new(case.limit, Waker::from(Arc::new(bell)));
        give.send(Outside::new(&mailbox)).expect("the sender waits for it");
        let (sum, drains) = take_all(case, inbox);
        (sum, drains, wakes.load(Ordering::Relaxed))
    });
    let outside = take.recv().expect("the loop starts");
    let mut retries = 0;
    let begin = Instant::now();
    for command in 0..case.commands {
        match command % case.kinds {
            0 => send(&outside, command, &mut retries),
            _ => send(&outside, [command; 4], &mut retries),
        }
    }
    let (sum, drains, wakes) = looping.join().expect("the loop does not panic");
    let each_ns = begin.elapsed().as_nanos() as f64 / case.commands as f64;
    assert_eq!(sum, case.commands * (case.commands - 1) / 2, "each command is delivered once");
    Cost { each_ns, wakes, drains, retries }
}

/// The loop: returns the sum of the commands, and how often it took some.
fn take_all(case: Case, mut inbox: Inbox<Deliver>) -> (u64, u64) {
    let idle = UdpSocket::bind(("127.0.0.1", 0)).expect("a socket on the loopback");
    idle.set_nonblocking(true).expect("a socket can be non-blocking");
    let (mut sum, mut drains, mut left) = (0, 0, case.commands);
    loop {
        let taken = inbox.drain() as u64;
        while let Some((_, queue, deliver)) = inbox.next() {
            deliver(queue, &mut sum);
        }
        drains += u64::from(taken > 0);
        left -= taken;
        if left == 0 {
            return (sum, drains);
        }
        if inbox.sleep() {
            thread::park();
            inbox.awake();
        } else {
            for _ in 0..CALLS_PER_TURN {
                // A call that finds nothing; unlike a yield it does not lend this core to the sender.
                let error = idle.recv(&mut [0; 1]).expect_err("nobody sends to this socket");
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
            }
        }
    }
}

/// Sends one command, again while the mailbox is full.
fn send<M: Command>(outside: &Outside<Deliver>, mut message: M, retries: &mut u64) {
    while let Err(refused) = outside.send(0, message, take::<M>) {
        let Refused::Full(back) = refused else { panic!("the loop lives until all were taken") };
        message = back;
        *retries += 1;
        thread::yield_now();
    }
}

/// Delivers the command at the front of its lane.
fn take<M: Command>(queue: &mut dyn Any, sum: &mut u64) {
    let queue = queue.downcast_mut::<VecDeque<M>>().expect("the queue of the lane");
    *sum += queue.pop_front().expect("one command for each walk").number();
}

trait Command: Send + 'static {
    fn number(self) -> u64;
}

impl Command for u64 {
    fn number(self) -> u64 {
        self
    }
}

impl Command for [u64; 4] {
    fn number(self) -> u64 {
        self[0]
    }
}

/// Wakes the loop by unparking it, and counts.
struct Bell {
    thread: Thread,
    wakes: Arc<AtomicU64>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, Ordering::Relaxed);
        self.thread.unpark();
    }
}

/// A turn waits, reads and writes.
const CALLS_PER_TURN: usize = 3;

/// How often each case is measured: the machine's other load shows in the spread.
const ROUNDS: usize = 7;
