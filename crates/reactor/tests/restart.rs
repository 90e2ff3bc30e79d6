//! A program that ends, and restarts at once on the same port.
#![cfg(unix)]

mod common;

use std::{
    env,
    process::{Command, Output, Stdio},
    time::Duration,
};

use common::{Probe, SHORT};
use reactor::{Address, Bytes, Runtime, Stream, engine::Candidates};

/// Passes the address to the program.
const AT: &str = "RESTART_AT";
/// Passes the way to end to the program.
const HOW: &str = "RESTART_HOW";

/// Runs as the child process: listens, prints its address, and ends in the given way.
#[test]
fn the_program() {
    let (Ok(at), Ok(how)) = (env::var(AT), env::var(HOW)) else { return };
    let at: Address = at.parse().expect("an address");
    let mut runtime = Runtime::new().expect("the engine opens");
    let service = runtime.add(Probe::quiet()).expect("it starts");
    let bound = runtime.with(service, |_, cx| {
        let listener = cx.listen(&at, |_| Some(Stream::new(Bytes))).map_err(|error| error.to_string())?;
        Ok::<_, String>(cx.local(listener).expect("bound"))
    });
    match bound.expect("it lives") {
        Ok(bound) => println!("at {bound}."),
        Err(error) => {
            println!("refused: {error}.");
            std::process::exit(3);
        }
    }
    // From here on the engine waits for connections.
    for _ in 0..3 {
        runtime.turn(Some(Duration::ZERO)).expect("whole");
    }
    if how == "stop" {
        runtime.controller(service).stop(SHORT);
        runtime.run().expect("it stops");
    }
    drop(runtime);
    std::process::exit(0);
}

fn run(engine: &str, at: &str, how: &str) -> Output {
    let mut command = Command::new(env::current_exe().expect("a test knows its own path"));
    command.args(["--exact", "the_program", "--nocapture"]).stdin(Stdio::null());
    command.env(AT, at).env(HOW, how).env("REACTOR_ENGINE", engine).output().expect("it starts")
}

#[test]
fn a_program_that_stopped_finds_its_port_free_at_once() {
    for engine in Candidates::default().names() {
        for how in ["stop", "drop"] {
            let first = run(engine, "127.0.0.1:0", how);
            let said = String::from_utf8_lossy(&first.stdout).into_owned();
            let at = said.split("at ").nth(1).and_then(|rest| rest.split(".\n").next());
            let at = at.unwrap_or_else(|| panic!("{engine}, {how}: {first:?}")).to_owned();
            for round in 0..5 {
                let next = run(engine, &at, how);
                assert_eq!(next.status.code(), Some(0), "{engine}, {how}, round {round}: {next:?}");
            }
        }
    }
}
