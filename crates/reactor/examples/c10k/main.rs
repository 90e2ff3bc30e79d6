//! Ten thousand connections in one thread: `cargo run --release --example c10k`, or with `-- --help` for its options.
//!
//! It starts itself again as an echo server on one thread, opens the connections to it from this process, keeps
//! messages in flight on all of them, checks every byte that comes back, and prints what it measured. Both
//! processes are services of this library. The exit code is 0 only if all came back right: 1 says that something
//! did not, 2 that the input was bad, 3 that the server died on the way.

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
