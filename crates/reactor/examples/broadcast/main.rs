//! A chat without names: `cargo run --release --example broadcast [ADDR]`, then `nc 127.0.0.1 7009` in
//! other terminals, and type. Your input goes to all clients. Input of a client goes to the other clients
//! and to you. The example ends with its standard input, so `tar c . | broadcast` serves one archive to all
//! connected clients. A slow client makes the input wait. A client that reads nothing for ten seconds is
//! cut off. Unix.
#[cfg(unix)]
mod service;

#[cfg(unix)]
fn main() -> reactor::Result {
    let args = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned());
    // Join several arguments into a text that never parses as an address.
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
