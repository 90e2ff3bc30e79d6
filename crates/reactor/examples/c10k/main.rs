//! Ten thousand connections on one thread: `cargo run --release --example c10k`. `-- --help` lists its
//! options.
//!
//! It starts itself again as an echo server on one thread, and opens the connections from this process. It
//! keeps messages in flight on all of them, checks every byte that returns, and prints its measurements.
//! Both processes are services of this library. The exit code is 0 only if every byte came back right, 1 if
//! a byte was wrong or missing, 2 for bad input, and 3 if the server died on the way.

#[cfg(unix)]
#[path = "program.rs"]
mod program;

#[cfg(unix)]
fn main() -> std::process::ExitCode {
    program::main()
}

#[cfg(not(unix))]
fn main() -> std::process::ExitCode {
    eprintln!("c10k: it hands sockets to another process, which needs Unix");
    std::process::ExitCode::from(2)
}
