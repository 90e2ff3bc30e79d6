//! A terminal for a serial device: `cargo run --release --features serial --example serial_terminal DEVICE`,
//! for example with `/dev/ttyUSB0`. A speed may follow, by default 115200. Ctrl-] leaves.
//!
//! Keys go to the device, and the device's output goes to the screen, byte by byte. If one side is slow,
//! the example stops reading the other. Without a device, `socat -d -d pty,raw pty,raw` prints the names of
//! a pair: run the example on both. Unix.

#[cfg(unix)]
mod terminal;

#[cfg(unix)]
fn main() -> std::process::ExitCode {
    terminal::run(std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect())
}

#[cfg(not(unix))]
fn main() {
    eprintln!("serial_terminal: serial ports need Unix");
    std::process::exit(2)
}
