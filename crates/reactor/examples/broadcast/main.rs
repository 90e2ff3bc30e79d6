//! A chat without names: `cargo run --release --example broadcast [ADDR]`, then `nc 127.0.0.1 7009` in other
//! terminals, and type. What you type goes to all of them; what one of them sends goes to the others and to you.
//! The end of your input ends it, so `tar c . | broadcast` serves one archive to all who are there. A client that
//! reads slowly makes the input wait; one that reads nothing for ten seconds is cut off. Unix.
#[cfg(unix)]
mod service;

#[cfg(unix)]
fn main() -> reactor::Result {
    let args = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned());
    // Several of them are no address, whatever each of them is.
    let text = args.reduce(|all, more| format!("[{all}, {more}]")).unwrap_or_else(|| "127.0.0.1:7009".into());
    let Ok(address) = text.parse() else {
        eprintln!("broadcast: `{text}` is not an address (IP:PORT)");
        std::process::exit(2)
    };
    reactor::run(service::Broadcast::new(address))?;
    Ok(())
}

#[cfg(not(unix))]
fn main() {
    eprintln!("broadcast: standard input as a stream needs Unix");
    std::process::exit(2)
}
