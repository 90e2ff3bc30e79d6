//! Appends the lines of its standard input to a write-ahead log, and prints the number of each when it is
//! safe: `cargo run --release --example wal FILE`, then type. It begins with the records that it finds. The
//! guide of the crate explains the service, in the chapter `write_ahead_log`.

mod log;

use std::{io, path::Path, process::ExitCode, time::Duration};

use log::{Append, Found, Log};
use reactor::Reactor;

fn main() -> reactor::Result<ExitCode> {
    let mut paths = std::env::args_os().skip(1);
    let (Some(path), None) = (paths.next(), paths.next()) else {
        eprintln!("wal: write `wal FILE`");
        return Ok(ExitCode::from(2));
    };
    // The directory of a bare name is the present one, and must be named for its sync.
    let path = std::path::absolute(Path::new(&path))?;
    let reactor = Reactor::spawn(move |runtime| runtime.add(Log::new(&path)))?;
    let log = reactor.controller();
    let mut is_whole = true;
    match log.ask(Found).wait() {
        Ok(records) => println!("{} records", records.len()),
        Err(_) => is_whole = false,
    }
    if is_whole {
        for line in io::stdin().lines() {
            match log.ask(|reply| Append { body: line.unwrap_or_default().into_bytes(), reply }).wait() {
                Ok(number) => println!("{number} is safe"),
                Err(_) => eprintln!("wal: not appended: empty, too long, or the log has failed"),
            }
        }
    }
    log.stop(Duration::from_secs(5));
    reactor.join()?.check()?;
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
