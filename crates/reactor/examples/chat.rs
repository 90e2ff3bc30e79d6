//! A chat: `cargo run --release --example chat [ADDR [IDLE_SECONDS]]`, then `nc 127.0.0.1 7008` twice. Your
//! first line is your name, the others go to everyone. You leave by `/quit`, or after five silent minutes.
use reactor::{Address, Closed, Context, Event, Handle, Id, IdMap, Lines, Result, Service, Shared, Stream};
use std::{process::exit, sync::Arc, time::Duration};
struct Chat {
    address: Address,
    idle: Duration,
    names: IdMap<Stream<Lines>, String>,
}
impl Chat {
    fn tell_all(&self, cx: &mut Context<Self>, line: String) {
        let line = Shared::from((line + "\n").into_bytes());
        self.names.ids().for_each(|id| _ = cx.send_shared(id, &line));
    }
}
impl Service for Chat {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        // The library cuts off a client that leaves more than this unread, so it costs the others nothing.
        let options = Arc::new(reactor::StreamOptions::with(|options| options.cap = 256 << 10));
        let accept = move |_: &Address| Some(Stream::new(Lines::max(512)).options(options.clone()));
        let listener = cx.listen(&self.address, accept)?;
        println!("listening on {}", cx.local(listener)?);
        Ok(())
    }
}
impl Handle<Stream<Lines>> for Chat {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream<Lines>>, event: Event<Lines>) -> Result {
        cx.deadline(id, self.idle);
        let is_bad = |name: &str| name.trim().is_empty() || self.names.iter().any(|(_, taken)| taken == name);
        match (event, self.names.get(id)) {
            (Event::Open, _) => _ = cx.send(id, "your name?"),
            (Event::Received("/quit"), _) => cx.close(id),
            (Event::Received(line), Some(name)) => self.tell_all(cx, format!("{name}: {line}")),
            (Event::Received(name), None) if is_bad(name) => _ = cx.send(id, "not that one; your name?"),
            (Event::Received(name), None) => {
                self.names.insert(id, name.to_owned());
                self.tell_all(cx, format!("{name} is here"));
            }
            (Event::End | Event::Drained | Event::HungUp, _) => (),
        }
        Ok(())
    }
    fn closed(&mut self, cx: &mut Context<Self>, id: Id<Stream<Lines>>, _: Stream<Lines>, why: Closed) {
        if let Some(name) = self.names.remove(id) {
            self.tell_all(cx, format!("{name} has left ({why})"));
        }
    }
}

fn main() -> Result {
    let mut args = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned());
    let address = args.next().unwrap_or_else(|| "127.0.0.1:7008".into());
    let idle = args.reduce(|all, more| format!("{all} {more}")).unwrap_or_else(|| "300".into());
    let (Ok(address), Ok(idle)) = (address.parse(), idle.parse().map(Duration::from_secs)) else {
        eprintln!("chat: `{address}` and `{idle}` are not an address (IP:PORT) and a number of seconds");
        exit(2)
    };
    reactor::run(Chat { address, idle, names: IdMap::new() })?;
    Ok(())
}
