//! A service under supervision: `cargo run --release --example daemon [ADDR]`, then `nc 127.0.0.1 7007`.
//!
//! It echoes lines, and does everything that a supervisor expects. If the supervisor passes sockets, it
//! listens on them instead of ADDR: `systemd-socket-activate -l 7007 target/release/examples/daemon`. With
//! `NOTIFY_SOCKET` it reports that it is ready, how many clients are connected, and, if there is a
//! watchdog, that it is alive. `kill -HUP` restarts its count. After `kill -TERM` or Ctrl-C, answers have
//! ten seconds to be sent. A second signal cuts them off. Unix only.

#[cfg(unix)]
mod service;

#[cfg(unix)]
fn main() {
    let args = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned());
    // Join several arguments into a text that never parses as an address.
    let text = args.reduce(|all, more| format!("[{all}, {more}]")).unwrap_or_else(|| "127.0.0.1:7007".into());
    let address = text.parse().unwrap_or_else(|error| refuse(&error, 2));
    match run(address) {
        Ok(receipt) => println!("stopped, {} cut", receipt.cut),
        Err(reactor::Error::Start { failure, .. }) => {
            refuse(&failure, if is_bad_activation(&failure) { 2 } else { 1 })
        }
        Err(error) => refuse(&error, 1),
    }
}

#[cfg(unix)]
fn run(address: reactor::Address) -> Result<reactor::Receipt, reactor::Error> {
    use reactor::{signals::Graceful, systemd::Supervised};

    let mut runtime = reactor::Runtime::new()?;
    runtime.add(Graceful::within(std::time::Duration::from_secs(10)))?;
    let supervised = runtime.add(Supervised::new())?;
    runtime.add(service::Daemon::new(address, supervised))?;
    runtime.run()?.check()
}

/// Returns whether the supervisor's description of its sockets is wrong.
#[cfg(unix)]
fn is_bad_activation(failure: &reactor::Failure) -> bool {
    match failure.downcast_ref() {
        Some(reactor::Error::Os { operation: "activation", .. }) => true,
        Some(reactor::Error::Os { operation: "environment", resource, .. }) => {
            resource.starts_with("LISTEN_")
        }
        _ => false,
    }
}

#[cfg(unix)]
fn refuse(why: &dyn std::fmt::Display, code: i32) -> ! {
    eprintln!("daemon: {why}");
    std::process::exit(code)
}

#[cfg(not(unix))]
fn main() {
    eprintln!("daemon: signals and supervisors' sockets need Unix");
    std::process::exit(2)
}
