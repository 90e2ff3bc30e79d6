//! Shows what is appended to files: `cargo run --release --example tail_follow FILE...`, then append to them.
//!
//! It follows the name, as `tail -F` does: the last ten lines, then whatever comes. A file that is renamed and made
//! anew is shown to its end, then the new one from its begin; one that is cut off is said to be, and shown from its
//! begin; one that is not there yet is waited for. What it has to say itself goes to the standard error.
//!
//! It sleeps until the kernel tells that something changed ([`Watch`]), and looks at files on the runtime's pool,
//! one look at a time and 64 KiB in each, so that neither a slow disk nor a slow reader holds the loop. Linux.
//!
//! [`Watch`]: reactor::watch::Watch

#[cfg(target_os = "linux")]
mod follow;
#[cfg(target_os = "linux")]
mod tail;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    tail::run(std::env::args_os().skip(1).map(std::path::PathBuf::from).collect())
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("tail_follow: directories are watched by inotify, which needs Linux");
    std::process::exit(2)
}
