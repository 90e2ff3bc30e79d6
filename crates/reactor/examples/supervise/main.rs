//! Keeps programs running: `cargo run --release --example supervise -- CMD [ARG..] [-- CMD [ARG..]]..`, for instance
//! `supervise ping -i 5 ::1 -- sh -c 'echo once; exit 1'`.
//!
//! Each line that a command says comes out as `NAME[PID]: LINE` (`NAME[PID]! LINE` for its standard error). A
//! command that ends begins again after 100 ms, after twice that the next time, up to 30 s; one that ran for ten
//! seconds begins anew with 100 ms. SIGTERM and SIGINT are passed on as SIGTERM, and what has not ended five seconds
//! later, or at the second of them, is killed; SIGHUP, SIGUSR1 and SIGUSR2 are passed on as they are. When nobody
//! reads the output any more it ends likewise. As process 1 (of a container), and as a subreaper, it reaps the orphans that
//! the kernel gives it (Linux, with /proc). A command that cannot be executed at the beginning is bad input: one
//! line, and exit code 2. Unix.
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
        // With it end the commands before the one that cannot be executed.
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
