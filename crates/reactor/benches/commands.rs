//! The cost of one command from another thread. Run: `cargo bench -p io-reactor --bench commands [COMMANDS]`
//!
//! A thread sends a row of commands to a reactor on another, through a controller as any program would. For
//! each limit of the queue, the bench takes the time from the first send to the answer of a final question,
//! and divides it by the number of commands. It prints the median and the range of several rounds.

use reactor::{
    Context, Controller, Error, Limits, Reactor, Receive, Refused, Reply, Result, Runtime, Service, engine,
};
use std::time::Instant;

/// Receives commands and counts them.
#[derive(Default)]
struct Counter {
    count: u64,
}

struct Count(u64);
struct Total(Reply<u64>);

impl Service for Counter {}

impl Receive<Count> for Counter {
    fn receive(&mut self, _: &mut Context<Self>, Count(number): Count) -> Result {
        self.count += number;
        Ok(())
    }
}

impl Receive<Total> for Counter {
    fn receive(&mut self, _: &mut Context<Self>, Total(reply): Total) -> Result {
        reply.send(std::mem::take(&mut self.count));
        Ok(())
    }
}

fn main() -> std::result::Result<(), Error> {
    // Skip `--bench`, which `cargo bench` passes.
    let commands = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(1_000_000);
    for limit in [1 << 20, 1 << 10] {
        report(commands, limit)?;
    }
    Ok(())
}

fn report(commands: u64, limit: usize) -> std::result::Result<(), Error> {
    let make = move || {
        let mut limits = Limits::default();
        limits.commands = limit;
        Ok(Runtime::assemble(engine::Candidates::default().open(None)?, limits))
    };
    let reactor = Reactor::spawn_with(make, |runtime| runtime.add(Counter::default()))?;
    let controller = reactor.controller();
    let mut costs: Vec<f64> = (0..ROUNDS).map(|_| round(&controller, commands)).collect();
    costs.sort_by(f64::total_cmp);
    let (least, median, most) = (costs[0], costs[ROUNDS / 2], costs[ROUNDS - 1]);
    println!(
        "commands: {median:.0} ns each ({least:.0} to {most:.0}), {commands} in a row, room for {limit}"
    );
    controller.stop(std::time::Duration::ZERO);
    reactor.join()?;
    Ok(())
}

fn round(controller: &Controller<Counter>, commands: u64) -> f64 {
    let start = Instant::now();
    for _ in 0..commands {
        let mut command = Count(1);
        while let Err(refused) = controller.send(command) {
            match refused {
                Refused::Full(back) => command = back,
                _ => panic!("the reactor ended"),
            }
            std::thread::yield_now();
        }
    }
    let total = loop {
        if let Ok(total) = controller.ask(Total).wait() {
            break total;
        }
    };
    assert_eq!(total, commands, "every command was executed once");
    start.elapsed().as_nanos() as f64 / commands as f64
}

const ROUNDS: usize = 7;
