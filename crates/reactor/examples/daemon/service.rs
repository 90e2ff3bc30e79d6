//! The service: echoes lines over the sockets that it was given, and reports its state to the supervisor.

use reactor::signals::{Arrived, Signal, Signals};
use reactor::systemd::{Notice, Supervised};
use reactor::{Address, Closed, Context, Event, Handle, Id, Lines, Result, Service, ServiceId, Stream};

pub(crate) struct Daemon {
    address: Address,
    supervised: ServiceId<Supervised>,
    open: u32,
    served: u64,
}

impl Daemon {
    /// Makes one that listens on this address if the supervisor passes no sockets.
    pub(crate) fn new(address: Address, supervised: ServiceId<Supervised>) -> Daemon {
        Daemon { address, supervised, open: 0, served: 0 }
    }

    fn status(&self) -> Notice {
        Notice::status(&format!("{} connected, {} lines", self.open, self.served))
    }

    fn tell(&self, cx: &mut Context<Self>, notice: Notice) {
        // Ignore a full queue and a supervisor that does not listen, because the next notice is newer
        // anyway.
        let _ = cx.tell(self.supervised, notice);
    }
}

impl Service for Daemon {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let accept = |_: &Address| Some(Stream::new(Lines::max(4096)));
        let mut listeners = Vec::new();
        for socket in cx.activated()? {
            listeners.push(cx.listen_on(socket.into_listener()?, accept)?);
        }
        if listeners.is_empty() {
            listeners.push(cx.listen(&self.address, accept)?);
        }
        for listener in listeners {
            println!("listening on {}", cx.local(listener)?);
        }
        cx.signals([Signal::HUP])?;
        self.tell(cx, Notice::ready().and(self.status()));
        Ok(())
    }
}

impl Handle<Stream<Lines>> for Daemon {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream<Lines>>, event: Event<Lines>) -> Result {
        match event {
            Event::Open => self.open += 1,
            Event::Received(line) => {
                self.served += 1;
                cx.send(id, line);
                return Ok(());
            }
            Event::End | Event::Drained | Event::HungUp => return Ok(()),
        }
        self.tell(cx, self.status());
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<Self>, _: Id<Stream<Lines>>, _: Stream<Lines>, _: Closed) {
        self.open -= 1;
        self.tell(cx, self.status());
    }
}

impl Handle<Signals> for Daemon {
    fn handle(&mut self, cx: &mut Context<Self>, _: Id<Signals>, _: Arrived) -> Result {
        self.tell(cx, Notice::reloading());
        self.served = 0;
        self.tell(cx, Notice::ready().and(self.status()));
        Ok(())
    }
}
