//! Counts the lines of files: `cargo run --release --example services FILE...`, for example
//! `services Cargo.toml README.md`.
//!
//! Two services share one runtime on its own thread. The main thread *asks* the desk. The desk *tells* the
//! reader which file to read. The reader *offloads* the blocking work to the runtime's pool, and sends the
//! result to the desk. At the end the main thread stops the reactor gracefully, and checks its receipt.

use std::{collections::HashMap, fs, io, path::PathBuf, process::ExitCode, time::Duration};

use reactor::{Context, Reactor, Receive, Reply, Result, Service, ServiceId};

/// The main thread's question to the desk.
struct CountLines {
    path: PathBuf,
    reply: Reply<io::Result<usize>>,
}

/// The desk's request to the reader.
struct Read {
    ticket: u64,
    path: PathBuf,
    from: ServiceId<Desk>,
}

/// The result. A thread of the pool sends it to the reader, which passes it on to the desk.
struct Counted {
    ticket: u64,
    lines: io::Result<usize>,
    from: ServiceId<Desk>,
}

/// Remembers the caller of each question.
struct Desk {
    reader: ServiceId<Reader>,
    tickets: u64,
    open: HashMap<u64, Reply<io::Result<usize>>>,
}

impl Service for Desk {}

impl Receive<CountLines> for Desk {
    fn receive(&mut self, cx: &mut Context<Self>, question: CountLines) -> Result {
        self.tickets += 1;
        // If the queue is full, this fails and drops the reply, so the caller learns that no answer will
        // come.
        cx.tell(self.reader, Read { ticket: self.tickets, path: question.path, from: cx.me() })?;
        self.open.insert(self.tickets, question.reply);
        Ok(())
    }
}

impl Receive<Counted> for Desk {
    fn receive(&mut self, _: &mut Context<Self>, counted: Counted) -> Result {
        if let Some(reply) = self.open.remove(&counted.ticket) {
            reply.send(counted.lines);
        }
        Ok(())
    }
}

/// Reads files without blocking the loop.
struct Reader;

impl Service for Reader {}

impl Receive<Read> for Reader {
    fn receive(&mut self, cx: &mut Context<Self>, Read { ticket, path, from }: Read) -> Result {
        let job = move || Counted { ticket, lines: fs::read(path).map(|bytes| lines_in(&bytes)), from };
        if cx.offload(job).is_err() {
            let busy = io::Error::new(io::ErrorKind::ResourceBusy, "too many files wait to be read");
            cx.tell(from, Counted { ticket, lines: Err(busy), from })?;
        }
        Ok(())
    }
}

impl Receive<Counted> for Reader {
    fn receive(&mut self, cx: &mut Context<Self>, counted: Counted) -> Result {
        cx.tell(counted.from, counted)?;
        Ok(())
    }
}

fn lines_in(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

fn main() -> Result<ExitCode> {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if paths.is_empty() {
        eprintln!("services: write `services FILE...`, at least one file");
        return Ok(ExitCode::from(2));
    }
    let reactor = Reactor::spawn(|runtime| {
        let reader = runtime.add(Reader)?;
        runtime.add(Desk { reader, tickets: 0, open: HashMap::new() })
    })?;

    // Ask all questions first, so that the files are read in parallel.
    let desk = reactor.controller();
    let answers: Vec<_> =
        paths.iter().map(|path| desk.ask(|reply| CountLines { path: path.clone(), reply })).collect();
    let mut code = ExitCode::SUCCESS;
    for (path, answer) in paths.iter().zip(answers) {
        match answer.wait() {
            Ok(Ok(lines)) => println!("{lines:>8} {}", path.display()),
            Ok(Err(error)) => {
                eprintln!("services: {}: {error}", path.display());
                code = ExitCode::FAILURE;
            }
            Err(unanswered) => {
                eprintln!("services: {}: {unanswered}", path.display());
                code = ExitCode::FAILURE;
            }
        }
    }

    desk.stop(Duration::from_secs(5));
    let receipt = reactor.join()?.check()?;
    println!("stopped: {} services, {} jobs still running", receipt.services.len(), receipt.jobs_running);
    Ok(code)
}
