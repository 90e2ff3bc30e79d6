//! Nodes that gossip over real sockets: the service of the example `simulate`, unchanged.
//!
//! In three terminals:
//!
//! ```console
//! $ cargo run --release --example gossip -- 127.0.0.1:7101 --fact "the sky is blue"
//! $ cargo run --release --example gossip -- 127.0.0.1:7102 127.0.0.1:7101 --fact "water is wet"
//! $ cargo run --release --example gossip -- 127.0.0.1:7103 127.0.0.1:7102
//! ```
//!
//! Each prints its facts when they change, and soon all three know both. A line that you type into any of
//! them is one more fact. End one with Ctrl-C, add a fact to another one, and start the first one again: it
//! catches up.

#[path = "../gossip_service/mod.rs"]
mod gossip_service;

use std::{
    cell::RefCell,
    fmt::Display,
    io::{self, BufRead, Write},
    process::ExitCode,
    rc::Rc,
    thread,
    time::Duration,
};

use reactor::{Address, Context, Controller, Reactor, Receive, Result, Service};

use self::gossip_service::{Facts, Gossip, Watch};

/// The parsed command line.
struct Request {
    listen: Address,
    peers: Vec<Address>,
    facts: Facts,
    time: Option<Duration>,
}

/// Prints the events of the node.
struct Print {
    has_listened: bool,
}

impl Watch for Print {
    fn listening(&mut self, at: &Address) {
        self.has_listened = true;
        print(format_args!("listening on {at}"));
    }

    fn not_listening(&mut self, why: &dyn Display) {
        eprintln!("gossip: {why}");
        if !self.has_listened {
            // The service would try again, but the user must hear of a wrong address.
            std::process::exit(1);
        }
    }

    fn lost(&mut self, peer: &Address, why: &dyn Display, again: Duration) {
        eprintln!("gossip: no link to {peer} ({why}); again in {:.1} s", again.as_secs_f64());
    }

    fn learned(&mut self, facts: &Facts) {
        show(facts);
    }
}

/// A typed line.
struct Typed(String);

impl Receive<Typed> for Gossip {
    fn receive(&mut self, cx: &mut Context<Self>, Typed(text): Typed) -> Result {
        if let Err(unfit) = self.publish(cx, &text) {
            eprintln!("gossip: {unfit}");
        }
        Ok(())
    }
}

/// Ends the node after a while.
struct Leave(Duration);
/// The timer of `Leave`.
struct Enough;

impl Service for Leave {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        cx.after(self.0, Enough);
        Ok(())
    }
}

impl Receive<Enough> for Leave {
    fn receive(&mut self, cx: &mut Context<Self>, _: Enough) -> Result {
        cx.stop(Duration::from_secs(1));
        Ok(())
    }
}

fn main() -> Result<ExitCode> {
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let request = match parse(words) {
        Ok(Some(request)) => request,
        Ok(None) => {
            print(format_args!("{}", HELP.trim_end()));
            return Ok(ExitCode::SUCCESS);
        }
        Err(why) => {
            eprintln!("gossip: {why}");
            return Ok(ExitCode::from(2));
        }
    };
    let Request { listen, peers, facts, time } = request;
    if facts.sum().count > 0 {
        show(&facts);
    }
    let reactor = Reactor::spawn(move |runtime| {
        if let Some(time) = time {
            runtime.add(Leave(time))?;
        }
        let facts = Rc::new(RefCell::new(facts));
        runtime.add(Gossip::new(listen, peers, facts, Print { has_listened: false }))
    })?;
    let node = reactor.controller();
    // Nothing joins this thread, because a read of the terminal cannot be cancelled. The thread holds no
    // resources.
    thread::spawn(move || type_in(&node));
    reactor.join()?.check()?;
    Ok(ExitCode::SUCCESS)
}

/// Passes typed lines on until the input ends. The node continues without it.
fn type_in(node: &Controller<Gossip>) {
    for line in io::stdin().lock().lines().map_while(io::Result::ok) {
        if node.send(Typed(line)).is_err() {
            return;
        }
    }
}

fn show(facts: &Facts) {
    let mut texts: Vec<&str> = facts.texts().collect();
    texts.sort_unstable();
    print(format_args!("{} known: {}", texts.len(), texts.join("; ")));
}

/// Prints a line. A missing reader does not stop the node.
fn print(line: impl Display) {
    _ = writeln!(io::stdout(), "{line}");
}

/// Parses the command line. Returns `None` if it asks for help.
fn parse(words: impl Iterator<Item = String>) -> Result<Option<Request>, String> {
    let (mut addresses, mut facts, mut time) = (Vec::new(), Facts::default(), None);
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--help" | "-h" => return Ok(None),
            "--fact" => {
                facts.add(&value()?).map_err(|unfit| unfit.to_string())?;
            }
            "--seconds" => {
                let text = value()?;
                let seconds = text.parse().ok().filter(|seconds| (1..=SECONDS_MAX).contains(seconds));
                let seconds = seconds
                    .ok_or_else(|| format!("--seconds: `{text}` is not a number from 1 to {SECONDS_MAX}"))?;
                time = Some(Duration::from_secs(seconds));
            }
            option if option.starts_with('-') => {
                return Err(format!("there is no option `{option}`; --help lists those that are there"));
            }
            address => addresses.push(address.parse::<Address>().map_err(|error| error.to_string())?),
        }
    }
    let mut addresses = addresses.into_iter();
    let listen =
        addresses.next().ok_or("write `gossip LISTEN_ADDRESS [PEER_ADDRESS]...`; --help says more")?;
    Ok(Some(Request { listen, peers: addresses.collect(), facts, time }))
}

const SECONDS_MAX: u64 = 1_000_000;

const HELP: &str = "\
gossip LISTEN_ADDRESS [PEER_ADDRESS]... [--fact TEXT]... [--seconds N]

A node that comes to know what the others know. It prints the facts when they change; each line that is
typed in is one more.

  LISTEN_ADDRESS   where others reach this node: IP:PORT (port 0: any that is free), or /PATH of a socket
  PEER_ADDRESS     another node; those it knows are reached through it
  --fact TEXT      what this node knows from the beginning; may be given several times
  --seconds N      ends after so many seconds; without it the node stays
  --help           prints this

Exit codes: 0 it ended as asked, 1 it could not listen, 2 bad input.
";
