//! A terminal for a serial device: `cargo run --release --features serial --example serial_terminal DEVICE [SPEED]`,
//! say `/dev/ttyUSB0 9600`; without a speed 115200. Ctrl-] leaves.
//!
//! Keys go to the device, and what the device says to the screen, byte by byte. The side that gives too much rests
//! while the other is slow. Without a device: `socat -d -d pty,raw pty,raw` prints the names of a pair; run this on
//! both. Unix.

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
