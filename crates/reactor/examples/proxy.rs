//! Forwards connections: `cargo run --release --example proxy LISTEN TARGET`. For example, start
//! `proxy 127.0.0.1:7009 127.0.0.1:7007` in front of the `echo` example, then `nc 127.0.0.1 7009`, and type.
//!
//! For each accepted client it connects to the target at once. Until that connection is up, the client's
//! bytes wait in its queue. The two streams are paired: while one side takes bytes slowly, the runtime
//! does not read the other. A half-close passes on, and if one side closes, the other closes too.

use std::process::exit;

use reactor::{
    Address, Bytes, Closed, Context, Event, Handle, Id, IdMap, NotAnAddress, Result, Service, Stream,
};

/// Distinguish accepted connections from outgoing ones by role.
struct Inbound;
struct Outbound;
type Client = Stream<Bytes, (), Inbound>;
type Target = Stream<Bytes, (), Outbound>;

struct Proxy {
    listen: Address,
    target: Address,
    targets: IdMap<Client, Id<Target>>,
    clients: IdMap<Target, Id<Client>>,
}

impl Service for Proxy {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let listener = cx.listen(&self.listen, |_| Some(Stream::new(Bytes).role::<Inbound>()))?;
        println!("listening on {}", cx.local(listener)?);
        Ok(())
    }
}

impl Handle<Client> for Proxy {
    fn handle(&mut self, cx: &mut Context<Self>, client: Id<Client>, event: Event<Bytes>) -> Result {
        match event {
            Event::Open => {
                let target = cx.connect(&self.target, Stream::new(Bytes).role::<Outbound>())?;
                cx.pair(client, target)?;
                self.targets.insert(client, target);
                self.clients.insert(target, client);
            }
            Event::Received(bytes) => {
                if let Some(target) = self.targets.get(client) {
                    cx.send(*target, bytes);
                }
            }
            // Paired streams pass their ends on without our help.
            Event::End | Event::Drained | Event::HungUp => (),
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, client: Id<Client>, _: Client, why: Closed) {
        self.targets.remove(client);
        tell("client", &why);
    }
}

impl Handle<Target> for Proxy {
    fn handle(&mut self, cx: &mut Context<Self>, target: Id<Target>, event: Event<Bytes>) -> Result {
        if let Event::Received(bytes) = event
            && let Some(client) = self.clients.get(target)
        {
            cx.send(*client, bytes);
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, target: Id<Target>, _: Target, why: Closed) {
        self.clients.remove(target);
        tell("target", &why);
    }
}

/// Reports an end that was not orderly.
fn tell(side: &str, why: &Closed) {
    if !why.is_clean() {
        eprintln!("proxy: {side}: {why}");
    }
}

fn main() -> Result {
    let args: Vec<_> = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    let [listen, target] = &args[..] else { refuse("write `proxy LISTEN TARGET`, two addresses") };
    let parse = |text: &str| text.parse().unwrap_or_else(|error: NotAnAddress| refuse(error));
    let (listen, target) = (parse(listen), parse(target));
    reactor::run(Proxy { listen, target, targets: IdMap::new(), clients: IdMap::new() })?;
    Ok(())
}

fn refuse(what: impl std::fmt::Display) -> ! {
    eprintln!("proxy: {what}");
    exit(2)
}
