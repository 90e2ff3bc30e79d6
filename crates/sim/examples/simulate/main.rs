//! Fifty nodes gossip in a simulated world, through partitions and crashes: `cargo run --release --example simulate`.
//!
//! ```console
//! $ cargo run --release --example simulate -- --nodes 50 --seed 7
//! $ cargo run --release --example simulate -- --nodes 5 --seed 7 --picture run.svg
//! ```
//!
//! The service is that of the example `gossip`, unchanged. The seed draws the faults. Then everything is
//! repaired, and all nodes must agree on the same facts within 30 virtual seconds. The same seed prints the
//! same output, with the same digest. The picture shows the run.

mod args;
#[path = "../gossip_service/mod.rs"]
mod gossip_service;
mod picture;
mod report;
mod scenario;

use std::{fs, process::ExitCode};

use self::{args::Request, report::Report};

fn main() -> ExitCode {
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let request = match Request::parse(words) {
        Ok(Some(request)) => request,
        Ok(None) => {
            print!("{}", args::HELP);
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("simulate: {why}");
            return ExitCode::from(2);
        }
    };
    let played = scenario::play(&request);
    println!("{}", Report { request: &request, played: &played });
    let mut code = ExitCode::SUCCESS;
    if let Some(path) = &request.picture
        && let Err(error) = fs::write(path, picture::draw(&request, &played))
    {
        eprintln!("simulate: write {}: {error}", path.display());
        code = ExitCode::FAILURE;
    }
    if let Some(wrong) = &played.wrong {
        eprintln!("simulate: {wrong}\nreplay with `{request}`");
        code = ExitCode::FAILURE;
    }
    code
}
