//! Keeps programs running: `cargo run --release --example supervise -- CMD [ARG..] [-- CMD [ARG..]]..`, for
//! example `supervise ping -i 5 ::1 -- sh -c 'echo once; exit 1'`.
//!
//! It prints each line of a command as `NAME[PID]: LINE`, or as `NAME[PID]! LINE` for its standard error. It
//! restarts a command that ends: after 100 ms, the next time after twice that, up to 30 s. The delay returns
//! to 100 ms once a command has run for ten seconds.
//!
//! It passes SIGTERM and SIGINT on as SIGTERM. It kills commands that are still running five seconds later,
//! or at the second of these signals. It passes on SIGHUP, SIGUSR1 and SIGUSR2 unchanged. It ends in the
//! same way if the reader of its output has gone. As process 1 (of a container), or as a subreaper, it reaps
//! the orphans that the kernel gives it (Linux, with /proc). A command that cannot be executed at the start
//! is bad input: one line, and exit code 2. Unix.
#[cfg(unix)]
mod orphans;
#[cfg(unix)]
mod output;
#[cfg(unix)]
mod service;

#[cfg(unix)]
fn main() -> reactor::Result {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let commands: Vec<_> = args.split(|arg| arg == "--").map(<[_]>::to_vec).collect();
    if commands.iter().any(Vec::is_empty) {
        eprintln!("supervise: a command is missing; usage: supervise CMD [ARG..] [-- CMD [ARG..]]..");
        std::process::exit(2)
    }
    let mut runtime = reactor::Runtime::new()?;
    if let Err(error) = runtime.add(service::Supervise::new(commands)) {
        eprintln!("supervise: {}", service::cause(&error));
        // The runtime's end kills the commands that were started before the failed one.
        drop(runtime);
        std::process::exit(2)
    }
    runtime.run()?.check()?;
    Ok(())
}

#[cfg(not(unix))]
fn main() {
    eprintln!("supervise: child processes need Unix");
    std::process::exit(2)
}
