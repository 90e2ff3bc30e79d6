//! The program: runs the client or the server, and chooses the exit code.

mod args;
mod client;
mod latency;
mod message;
mod process;
mod progress;
mod report;
mod server;

use std::{
    env, io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Child, Command, ExitCode, Stdio},
};

use reactor::{Error, Limits, Runtime, RuntimeOptions};

use self::{
    args::{Request, Work},
    client::Client,
    report::Report,
};

pub(crate) fn main() -> ExitCode {
    let words = env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let ended = match args::parse(words) {
        Ok(Request::Help) => {
            print!("{}", args::HELP);
            Ok(())
        }
        Ok(Request::Serve { engine, resources }) => server::serve(&engine, resources).map_err(Failed::Work),
        Ok(Request::Work(work)) => run(work),
        Err(line) => Err(Failed::Usage(line)),
    };
    let (code, line) = match ended {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failed::Work(failure)) => (1, failure.to_string()),
        Err(Failed::Usage(line)) => (2, line),
        Err(Failed::Died(line)) => (3, line),
    };
    eprintln!("c10k: {line}");
    ExitCode::from(code)
}

/// The reasons to fail, one for each exit code.
enum Failed {
    Work(reactor::Failure),
    Usage(String),
    Died(String),
}

impl<E: Into<reactor::Failure>> From<E> for Failed {
    fn from(error: E) -> Failed {
        Failed::Work(error.into())
    }
}

/// Runs the client here and the server in a child, and prints the report.
fn run(mut work: Work) -> Result<(), Failed> {
    let room = process::raise_descriptor_limit().saturating_sub(DESCRIPTORS_BESIDE);
    let asked = work.streams();
    work.fit(room);
    let resources = work.streams() + DESCRIPTORS_BESIDE;
    let mut runtime = match runtime(work.engine.as_deref(), resources) {
        Err(Error::Engine(unknown)) => return Err(Failed::Usage(unknown.to_string())),
        made => made?,
    };
    if work.streams() < asked {
        eprintln!(
            "the descriptor limit allows {} of {asked} connections: raise it with `ulimit -n`",
            work.streams()
        );
    } else {
        eprintln!("the descriptor limit allows {room} connections, {asked} are requested");
    }
    let engine = runtime.engine_name();
    let (control, theirs) = UnixStream::pair()?;
    let mut server = start_server(engine, resources, theirs)?;
    eprintln!("the server is process {}, both run on the engine {engine}", server.id());
    let json = work.json;
    let client = runtime.add(Client::new(work, control, process::Process::of(server.id())))?;
    let receipt = runtime.run().and_then(reactor::Receipt::check);
    let outcome = runtime.service_mut(client).map(Client::take_outcome);
    // Close our end of the control connection, if it is still open, because the server ends with it.
    drop(runtime);
    let status = server.wait()?;
    if !status.success() {
        return Err(Failed::Died(format!("the server died on the way: {status}")));
    }
    receipt?;
    let report: Report = outcome.ok_or("the client has ended")??;
    if json {
        println!("{}", report.json(engine));
    } else {
        print!("{}", report.table(engine));
    }
    Ok(())
}

/// Starts this program again as the server. The control connection is its standard input, so that either
/// process notices at once when the other ends.
fn start_server(engine: &str, resources: usize, control: UnixStream) -> io::Result<Child> {
    Command::new(env::current_exe()?)
        .args([args::SERVE, engine, &resources.to_string()])
        .stdin(OwnedFd::from(control))
        .stdout(Stdio::null())
        .spawn()
}

fn runtime(engine: Option<&str>, resources: usize) -> Result<Runtime, Error> {
    let mut limits = Limits::default();
    limits.resources = resources;
    let mut options = RuntimeOptions::default();
    options.engine = engine.map(str::to_owned);
    options.limits = limits;
    Runtime::with_options(options)
}

/// The descriptors that a process needs besides its connections: standard streams, engine, listeners, and
/// so on.
const DESCRIPTORS_BESIDE: usize = 64;
