//! A SOCKS5 proxy server without authentication (RFC 1928): `cargo run --release --example socks5 [ADDR]`, then
//! `curl --socks5-hostname 127.0.0.1:1080 http://example.org`.
//!
//! It serves CONNECT, to IPv4 and IPv6 addresses and to names, which it resolves on the runtime's threads for
//! blocking work. Whoever reaches the address can use the proxy, so it listens on the loopback unless you say
//! otherwise.
//!
//! A connection looks up one name at most, and a look-up that has not begun when its client leaves is skipped.
//! One that has begun cannot be interrupted: it holds its thread until the system's resolver gives up, and the
//! runtime has four such threads. So four names whose servers are silent delay all other names for that long,
//! but no addresses, and a waiting client is refused after 30 seconds. A proxy for many strangers should resolve
//! in a process or on threads of its own, with a time limit.

mod message;

use std::{
    net::SocketAddr,
    process::exit,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use message::{Destination, Greeting, Reply, Request};
use reactor::{
    Address, Bytes, Closed, Context, Event, Fault, Handle, Id, IdMap, Receive, Result, Service, Stream,
};

/// Distinguish accepted connections from outgoing ones by role.
struct Inbound;
struct Outbound;
type Client = Stream<Bytes, (), Inbound>;
type Target = Stream<Bytes, (), Outbound>;

/// How long a client may take until its target is connected.
const PATIENCE: Duration = Duration::from_secs(30);

struct Proxy {
    listen: Address,
    clients: IdMap<Client, State>,
    /// The client of each target.
    targets: IdMap<Target, Id<Client>>,
}

/// How far a client has come.
enum State {
    /// It has sent these bytes of its greeting.
    Greeting(Vec<u8>),
    /// It has sent these bytes of its request.
    Request(Vec<u8>),
    /// Its target's name is looked up. It may send nothing meanwhile. The flag says that the client has left.
    LooksUp(Arc<AtomicBool>),
    /// Its target is connected. It may send nothing meanwhile.
    Connects(Id<Target>),
    Forwards(Id<Target>),
    /// It was refused. What it still sends is ignored.
    Refused,
}

/// The addresses of a client's target, from a job. There are none for a client that has left.
struct Resolved {
    client: Id<Client>,
    addresses: Option<Vec<SocketAddr>>,
}

impl Proxy {
    /// Takes bytes of a client that is not connected yet.
    fn negotiate(&mut self, cx: &mut Context<Self>, client: Id<Client>, bytes: &[u8]) -> Result {
        let Some(state) = self.clients.get_mut(client) else { return Ok(()) };
        match state {
            State::Greeting(got) => {
                got.extend_from_slice(bytes);
                let used = match message::greeting(got)? {
                    None => return Ok(()),
                    Some(Greeting::Accepted(used)) => used,
                    Some(Greeting::NoMethod) => return self.dismiss(cx, client, &message::NO_METHOD),
                };
                let rest = got.split_off(used);
                cx.send(client, &message::CHOSEN);
                *state = State::Request(Vec::new());
                if rest.is_empty() { Ok(()) } else { self.negotiate(cx, client, &rest) }
            }
            State::Request(got) => {
                got.extend_from_slice(bytes);
                match message::request(got)? {
                    None => Ok(()),
                    Some(Request::Connect(to)) => self.find(cx, client, to),
                    Some(Request::Refused(why)) => self.refuse(cx, client, why),
                }
            }
            State::LooksUp(_) | State::Connects(_) => Err("it sent data before it got a reply".into()),
            State::Refused => Ok(()),
            State::Forwards(target) => {
                cx.send(*target, bytes);
                Ok(())
            }
        }
    }

    /// Connects to an address at once, and to a name after a look-up.
    fn find(&mut self, cx: &mut Context<Self>, client: Id<Client>, to: Destination) -> Result {
        let name = match to {
            Destination::Address(address) => return self.connect(cx, client, address),
            Destination::Name(name) => name,
        };
        let gone = Arc::new(AtomicBool::new(false));
        self.clients.insert(client, State::LooksUp(gone.clone()));
        let job = move || {
            let addresses = if gone.load(Relaxed) { None } else { message::resolve(&name).ok() };
            Resolved { client, addresses }
        };
        match cx.offload(job) {
            Ok(()) => Ok(()),
            Err(_) => self.refuse(cx, client, Reply::Failure),
        }
    }

    fn connect(&mut self, cx: &mut Context<Self>, client: Id<Client>, address: SocketAddr) -> Result {
        match cx.connect(address, Stream::new(Bytes).role::<Outbound>()) {
            Ok(target) => {
                self.targets.insert(target, client);
                self.clients.insert(client, State::Connects(target));
            }
            Err(_) => self.refuse(cx, client, Reply::Failure)?,
        }
        Ok(())
    }

    fn refuse(&mut self, cx: &mut Context<Self>, client: Id<Client>, why: Reply) -> Result {
        self.dismiss(cx, client, &message::reply(why, None))
    }

    /// Ends a client with an answer that says why.
    fn dismiss(&mut self, cx: &mut Context<Self>, client: Id<Client>, answer: &[u8]) -> Result {
        self.clients.insert(client, State::Refused);
        cx.send(client, answer);
        cx.close(client);
        Ok(())
    }
}

impl Service for Proxy {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let listener = cx.listen(&self.listen, |_| Some(Stream::new(Bytes).role::<Inbound>()))?;
        println!("listening on {}", cx.local(listener)?);
        Ok(())
    }

    fn fault(&mut self, _: &mut Context<Self>, fault: Fault) {
        eprintln!("socks5: {fault}");
    }
}

impl Receive<Resolved> for Proxy {
    fn receive(&mut self, cx: &mut Context<Self>, resolved: Resolved) -> Result {
        let Resolved { client, addresses } = resolved;
        if !self.clients.contains(client) {
            return Ok(());
        }
        match addresses.and_then(|addresses| addresses.first().copied()) {
            Some(address) => self.connect(cx, client, address),
            None => self.refuse(cx, client, Reply::HostUnreachable),
        }
    }
}

impl Handle<Client> for Proxy {
    fn handle(&mut self, cx: &mut Context<Self>, client: Id<Client>, event: Event<Bytes>) -> Result {
        match event {
            Event::Open => {
                self.clients.insert(client, State::Greeting(Vec::new()));
                cx.deadline(client, PATIENCE);
            }
            Event::Received(bytes) => return self.negotiate(cx, client, bytes),
            Event::End | Event::Drained | Event::HungUp => (),
        }
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<Self>, client: Id<Client>, _: Client, why: Closed) {
        match self.clients.remove(client) {
            Some(State::LooksUp(gone)) => gone.store(true, Relaxed),
            Some(State::Connects(target)) => cx.abort(target),
            // The runtime ends the other stream of a pair.
            _ => (),
        }
        report("client", &why);
    }
}

impl Handle<Target> for Proxy {
    fn handle(&mut self, cx: &mut Context<Self>, target: Id<Target>, event: Event<Bytes>) -> Result {
        let Some(&client) = self.targets.get(target) else { return Ok(()) };
        match event {
            // The client may have ended in this turn, before its `closed`. A pair with it would end nobody.
            Event::Open if cx.get(client).is_some() => {
                let local = cx.local(target)?.ip();
                cx.send(client, &message::reply(Reply::Granted, local));
                cx.pair(client, target)?;
                cx.deadline(client, None);
                self.clients.insert(client, State::Forwards(target));
            }
            Event::Open => cx.abort(target),
            Event::Received(bytes) => _ = cx.send(client, bytes),
            // Paired streams pass their ends on without our help.
            Event::End | Event::Drained | Event::HungUp => (),
        }
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<Self>, target: Id<Target>, _: Target, why: Closed) {
        if let Some(client) = self.targets.remove(target)
            && matches!(self.clients.get(client), Some(State::Connects(_)))
        {
            // It fails for no client.
            _ = self.refuse(cx, client, Reply::of(&why));
        }
        report("target", &why);
    }
}

/// Reports an end that was not orderly.
fn report(side: &str, why: &Closed) {
    if !why.is_clean() {
        eprintln!("socks5: {side}: {why}");
    }
}

const HELP: &str = "\
A SOCKS5 proxy server without authentication.

Usage: socks5 [ADDR]

  ADDR    where to listen (default: 127.0.0.1:1080)
  --help  prints this text";

fn main() -> Result {
    let args: Vec<_> = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    let text = match &args[..] {
        [] => "127.0.0.1:1080",
        [help] if help == "--help" => {
            println!("{HELP}");
            return Ok(());
        }
        [address] => address,
        _ => refuse("at most one address; --help explains"),
    };
    let listen = text.parse().unwrap_or_else(|error| refuse(format!("{error}")));
    reactor::run(Proxy { listen, clients: IdMap::new(), targets: IdMap::new() })?;
    Ok(())
}

fn refuse(what: impl std::fmt::Display) -> ! {
    eprintln!("socks5: {what}");
    exit(2)
}
