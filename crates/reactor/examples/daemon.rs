//! A service under supervision: `cargo run --release --example daemon [ADDR]`, then `nc 127.0.0.1 7007`.
//!
//! It echoes lines, and does what a supervisor expects. Sockets that are passed to it are taken instead of ADDR:
//! `systemd-socket-activate -l 7007 target/release/examples/daemon`. With `NOTIFY_SOCKET` it tells that it is
//! ready, how many are connected, and that it is alive if a watchdog asks. `kill -HUP` has it begin anew with
//! counting, `kill -TERM` or Ctrl-C lets answers leave within ten seconds, and a second one does not. Unix only.

#[cfg(unix)]
mod unix {
    use reactor::signals::{Arrived, Graceful, Signal, Signals};
    use reactor::systemd::{Activated, Notice, Supervised};
    use reactor::{
        Address, Closed, Context, Event, Handle, Id, Lines, Receipt, Result, Runtime, Service, ServiceId,
        Stream,
    };
    use std::time::Duration;

    struct Daemon {
        sockets: Vec<Activated>,
        address: Address,
        supervised: ServiceId<Supervised>,
        open: u32,
        served: u64,
    }

    impl Daemon {
        fn status(&self) -> Notice {
            Notice::status(&format!("{} connected, {} lines", self.open, self.served))
        }

        fn tell(&self, cx: &mut Context<Self>, notice: Notice) {
            // Too many that wait, or nobody who listens: the next one says more.
            let _ = cx.tell(self.supervised, notice);
        }
    }

    impl Service for Daemon {
        fn start(&mut self, cx: &mut Context<Self>) -> Result {
            let accept = |_: &Address| Some(Stream::new(Lines::max(4096)));
            let mut listeners = Vec::new();
            for socket in self.sockets.drain(..) {
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
                Event::End | Event::Drained => return Ok(()),
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

    pub(crate) fn run(address: Address, sockets: Vec<Activated>) -> Result<Receipt> {
        let mut runtime = Runtime::new()?;
        runtime.add(Graceful::within(Duration::from_secs(10)))?;
        let supervised = runtime.add(Supervised::new())?;
        runtime.add(Daemon { sockets, address, supervised, open: 0, served: 0 })?;
        Ok(runtime.run()?.check()?)
    }
}

#[cfg(unix)]
fn main() {
    let refuse = |why: &dyn std::fmt::Display, code| -> ! {
        eprintln!("daemon: {why}");
        std::process::exit(code)
    };
    // First of all: the numbers of passed descriptors are those that the program would open next.
    let sockets = reactor::systemd::activated().unwrap_or_else(|error| refuse(&error, 2));
    let text = std::env::args_os().nth(1).unwrap_or_else(|| "127.0.0.1:7007".into());
    let address = text.to_string_lossy().parse().unwrap_or_else(|error| refuse(&error, 2));
    match unix::run(address, sockets) {
        Ok(receipt) => println!("stopped, {} cut", receipt.cut),
        Err(error) => refuse(&error, 1),
    }
}

#[cfg(not(unix))]
fn main() {
    println!("signals and supervisors' sockets are a thing of Unix: nothing to show here");
}
