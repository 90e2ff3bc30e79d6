//! Hunts for a seed under which the checking scenario fails, replays it, and shrinks it.
//!
//! `cargo run --release -p io-reactor-sim --example hunt -- --seeds 1000`. With `--isolate 400` it also
//! prints the kinds of fault that alone suffice for the failure.

mod args;
#[path = "../../tests/scenario/mod.rs"]
mod scenario;

use std::process::ExitCode;

use sim::{Digest, Failure, Plan, Tally, hunt, isolate, shrink};

use crate::args::{Args, command};

fn main() -> ExitCode {
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    match Args::parse(words) {
        Ok(args) if args.one => one(&args),
        Ok(args) => many(&args),
        Err(error) => {
            eprintln!("hunt: {error}");
            ExitCode::from(2)
        }
    }
}

/// Plays one plan.
fn one(args: &Args) -> ExitCode {
    let plan = args.plan(args.first);
    println!("plan: {plan}");
    match scenario::play(&plan) {
        Ok(played) => {
            let summary = played.summary;
            println!("{} messages, {} turns, {:?}", summary.messages, summary.turns, summary.elapsed);
            println!("digest: {}", summary.digest);
            ExitCode::SUCCESS
        }
        Err(what) => {
            println!("failed: {what}");
            ExitCode::FAILURE
        }
    }
}

/// Plays one seed after the other, until one fails.
fn many(args: &Args) -> ExitCode {
    let mut tally = Tally::default();
    let (mut messages, mut turns, mut digest) = (0, 0, Digest::default());
    let mut scenario = |plan: &Plan| {
        let played = scenario::play(plan)?;
        tally.add(&played.summary.faults);
        messages += played.summary.messages;
        turns += played.summary.turns;
        digest.number(played.summary.digest.value());
        Ok(())
    };
    let plans = (args.first..args.first + args.seeds).map(|seed| args.plan(seed));
    let Err(failure) = hunt(plans, &mut scenario) else {
        println!("{tally}digest: {digest}");
        println!("{} seeds, {messages} messages, {turns} turns: nothing found", args.seeds);
        return ExitCode::SUCCESS;
    };
    let Failure { plan, what, .. } = &*failure;
    println!("seed: {}\nfailed: {what}\nreplay: {}", plan.seed, command(plan));
    let again = |plan: &Plan| scenario::play(plan).map(|_| ());
    if let Some(runs_max) = args.isolate {
        println!("{}", isolate(&failure, runs_max, again));
    }
    let small = shrink(*failure, again);
    println!("shrunk: {}\nshrunk failed: {}", command(&small.plan), small.what);
    ExitCode::FAILURE
}
