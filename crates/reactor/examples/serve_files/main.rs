//! Serves the files of a directory by HTTP/1.1: `cargo run --release --example serve_files DIR [ADDR]`, then
//! `curl -i http://127.0.0.1:8080/`.
//!
//! It knows GET and HEAD, single ranges, conditions by ETag and by date, keep-alive and pipelining. It
//! serves nothing outside of DIR, not even through symbolic links. The head of a request has at most 8 KiB
//! (431) and must arrive within 10 seconds (408). The default ADDR is `127.0.0.1:8080`. It reads a large
//! file no faster than the client takes it. After SIGTERM or SIGINT (Unix), responses in flight have ten
//! more seconds to be sent. A second signal ends it at once.

mod answer;
mod date;
mod head;
mod request;
mod server;

use std::{fs, process::exit};

use reactor::{Address, Error, Receipt, Runtime, file::File};

fn main() {
    let (address, root) = arguments().unwrap_or_else(|why| fail(2, &why));
    if let Err(error) = serve(address, root) {
        fail(1, &error.to_string());
    }
}

fn serve(address: Address, root: File) -> Result<Receipt, Error> {
    let mut runtime = Runtime::new()?;
    #[cfg(unix)]
    runtime.add(reactor::signals::Graceful::within(std::time::Duration::from_secs(10)))?;
    runtime.add(server::Server::new(address, root))?;
    runtime.run()?.check()
}

fn arguments() -> Result<(Address, File), String> {
    let mut args = std::env::args_os().skip(1);
    let directory = args.next().ok_or(USAGE)?;
    let address = args.next().unwrap_or_else(|| "127.0.0.1:8080".into());
    if args.next().is_some() {
        return Err(USAGE.to_owned());
    }
    let address = address.to_str().ok_or("the address is not text")?;
    let address = address.parse().map_err(|error: reactor::NotAnAddress| error.to_string())?;
    let shown = directory.display();
    let root = fs::File::open(&directory).map_err(|error| format!("{shown}: {error}"))?;
    match root.metadata() {
        Ok(metadata) if metadata.is_dir() => Ok((address, File::new(root, directory))),
        Ok(_) => Err(format!("{shown}: not a directory")),
        Err(error) => Err(format!("{shown}: {error}")),
    }
}

fn fail(code: i32, why: &str) -> ! {
    eprintln!("serve_files: {why}");
    exit(code)
}

const USAGE: &str = "usage: serve_files DIR [ADDR]";
