//! Errors that no service handles: a line on standard error, and the error of `run`.
#![cfg(unix)]

use std::{
    io::Write,
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Command, Output, Stdio},
    time::Duration,
};

use reactor::{
    Bytes, Closed, Context, Event, Fault, Handle, Id, Receive, Result, Service, Stream, engine::Candidates,
};

/// Names the case to the child process.
const CASE: &str = "REACTOR_TEST_CASE";
/// The most lines in a burst.
const LINES_MAX: usize = 16;

/// A program whose service meets one error and does not handle it.
struct Program(String);

impl Service for Program {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        match &*self.0 {
            "start" => return Err("it cannot begin".into()),
            "receive" => _ = cx.after(Duration::ZERO, 1_u32),
            "flood" => {
                for _ in 0..10_000 {
                    cx.after(Duration::ZERO, 1_u32);
                }
            }
            "job" => cx.offload(|| -> u32 { panic!("the job broke\nin two lines") })?,
            "panic" => _ = cx.after(Duration::ZERO, "panic"),
            "handle" | "broken" => {
                let listener = cx.listen("127.0.0.1:0", |_| Some(Stream::new(Bytes)))?;
                let address = cx.local(listener)?;
                cx.connect(address, Stream::new(Bytes))?;
            }
            _ => _ = cx.after(Duration::ZERO, 0_u32),
        }
        Ok(())
    }
}

impl Receive<u32> for Program {
    fn receive(&mut self, _: &mut Context<Self>, n: u32) -> Result {
        if n == 0 { Ok(()) } else { Err("the message is wrong".into()) }
    }
}

impl Receive<&'static str> for Program {
    fn receive(&mut self, _: &mut Context<Self>, what: &'static str) -> Result {
        panic!("{what}: the state is broken")
    }
}

impl Handle<Stream> for Program {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
        match event {
            Event::Open if cx.get(id).is_some_and(Stream::is_outbound) => _ = cx.send(id, b"x"),
            Event::Received(_) => {
                cx.stop(Duration::from_secs(1));
                assert_ne!(self.0, "broken", "the request breaks it");
                return Err("the request is wrong".into());
            }
            _ => (),
        }
        Ok(())
    }
}

/// Runs as the child process. Without a case there is nothing to do.
#[test]
fn the_program() {
    let Ok(case) = std::env::var(CASE) else { return };
    match reactor::run(Program(case)) {
        Ok(_) => std::process::exit(0),
        Err(error) => {
            println!("run: {error}");
            std::process::exit(7);
        }
    }
}

fn program(engine: &str, case: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a test knows its own path"));
    command.args(["--exact", "the_program", "--nocapture"]).stdin(Stdio::null());
    command.env(CASE, case).env("REACTOR_ENGINE", engine).env("RUST_BACKTRACE", "0");
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Returns the lines that the library wrote.
fn lines(output: &Output) -> Vec<String> {
    text(&output.stderr).lines().filter(|line| line.starts_with("reactor: ")).map(String::from).collect()
}

#[test]
fn each_error_that_nobody_takes_is_a_line_and_an_error_of_run() {
    let cases = [
        // The caller gets the reason for a failed start as an error, so a line would repeat it.
        ("start", ""),
        ("receive", "reactor: service Program: the message is wrong"),
        ("job", r"reactor: service Program: an offloaded job failed: the job broke\nin two lines"),
        ("panic", "reactor: service Program: panicked: panic: the state is broken"),
        ("handle", "the request is wrong"),
        ("broken", "panicked: assertion `left != right` failed: the request breaks it"),
    ];
    for engine in Candidates::default().names() {
        for (case, expected) in cases {
            let output = program(engine, case).output().expect("it starts");
            let said = lines(&output);
            assert_eq!(output.status.code(), Some(7), "{engine}, {case}: {output:?}");
            match case {
                "start" => assert!(said.is_empty(), "{engine}, {case}: {said:?}"),
                _ => assert!(said.len() == 1 && said[0].contains(expected), "{engine}, {case}: {said:?}"),
            }
            let told = text(&output.stdout);
            let run = told.lines().find(|line| line.starts_with("run: service Program "));
            assert!(run.is_some(), "{engine}, {case}: {told}");
        }
        let output = program(engine, "nothing").output().expect("it starts");
        assert_eq!((output.status.code(), lines(&output)), (Some(0), Vec::new()), "{engine}");
    }
}

#[test]
fn a_handlers_error_and_its_panic_name_the_peer() {
    for (case, expected) in [("handle", "the request is wrong"), ("broken", "panicked: assertion")] {
        let output = program("epoll", case).output().expect("it starts");
        let said = lines(&output);
        let rest = said[0].strip_prefix("reactor: service Program: 127.0.0.1:").expect("the address");
        let (port, text) = rest.split_once(": ").expect("a text");
        assert!(port.parse::<u16>().is_ok() && text.starts_with(expected), "{said:?}");
    }
}

#[test]
fn a_flood_of_errors_is_a_few_lines_that_count_the_others() {
    let output = program("epoll", "flood").output().expect("it starts");
    let said = lines(&output);
    // One more line for each second, in case the machine is busy.
    assert!((LINES_MAX..LINES_MAX + 30).contains(&said.len()), "{} lines", said.len());
    let left_out: u64 = said.iter().filter_map(|line| count_of(line)).sum();
    let printed = said.iter().filter(|line| !line.contains("no more was written")).count() as u64;
    assert_eq!(left_out + printed, 10_000, "{said:?}");
}

/// Returns how many lines were left out according to this line.
fn count_of(line: &str) -> Option<u64> {
    let (_, rest) = line.rsplit_once(" (")?;
    rest.strip_suffix(" lines were left out)")?.parse().ok()
}

#[test]
fn standard_error_that_nobody_reads_holds_nothing_up() {
    let (writer, reader) = UnixStream::pair().expect("a pair");
    fill(&writer);
    let mut command = program("epoll", "flood");
    let mut child =
        command.stdout(Stdio::null()).stderr(Stdio::from(OwnedFd::from(writer))).spawn().expect("it starts");
    drop(command);
    // The process ends although the socket stays full until then.
    assert_eq!(child.wait().expect("it ends").code(), Some(7));
    drop(reader);
}

/// Fills a socket, and leaves it in blocking mode.
fn fill(mut writer: &UnixStream) {
    writer.set_nonblocking(true).expect("a socket");
    for size in [4096, 1] {
        while writer.write(&[0; 4096][..size]).is_ok() {}
    }
    writer.set_nonblocking(false).expect("a socket");
}

/// Handles its errors itself.
#[derive(Default)]
struct Careful {
    faults: Vec<String>,
    refused: Vec<String>,
}

impl Service for Careful {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        cx.after(Duration::ZERO, 1_u32);
        let listener = cx.listen("127.0.0.1:0", |_| Some(Stream::new(Bytes)))?;
        let address = cx.local(listener)?;
        cx.connect(address, Stream::new(Bytes))?;
        Ok(())
    }

    fn fault(&mut self, _: &mut Context<Self>, fault: Fault) {
        self.faults.push(fault.to_string());
    }
}

impl Receive<u32> for Careful {
    fn receive(&mut self, _: &mut Context<Self>, _: u32) -> Result {
        Err("the message is wrong".into())
    }
}

impl Handle<Stream> for Careful {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
        match event {
            Event::Open if cx.get(id).is_some_and(Stream::is_outbound) => {
                cx.send(id, b"x");
                Ok(())
            }
            Event::Received(_) => Err("the request is wrong".into()),
            _ => Ok(()),
        }
    }

    fn closed(&mut self, cx: &mut Context<Self>, _: Id<Stream>, _: Stream, why: Closed) {
        if let Closed::Refused(failure) = why {
            self.refused.push(failure.to_string());
            cx.stop(Duration::from_secs(1));
        }
    }
}

#[test]
fn errors_that_a_service_takes_are_counted_and_fail_nothing() {
    let mut runtime = reactor::Runtime::new().expect("an engine");
    let id = runtime.add(Careful::default()).expect("it starts");
    let receipt = runtime.run().expect("whole").check().expect("all was taken");
    let service = runtime.service(id).expect("it lives");
    assert_eq!(service.faults, ["the message is wrong"]);
    assert_eq!(service.refused, ["the request is wrong"]);
    assert_eq!((receipt.services[0].faults, receipt.services[0].errors), (1, 0));
}
