//! Shows what is appended to files: `cargo run --release --example tail_follow FILE...`, then append to them.
//!
//! It follows the name, as `tail -F` does, and shows the last ten lines, then each addition. If a file is
//! renamed and replaced, it shows the old file to its end, then the new one from its beginning. If a file is
//! truncated, it reports that, and shows the file from its beginning. It waits for a file that does not
//! exist yet. Its own messages go to standard error.
//!
//! It sleeps until the kernel reports a change ([`Watch`]). It looks at files on the runtime's pool, one
//! look at a time and 64 KiB in each, so that neither a slow disk nor a slow reader blocks the loop. Linux.
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
