//! The server: echoes its input, on one thread, until its control connection ends.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::AsFd,
    time::Duration,
};

use reactor::{Bytes, Context, Event, Fault, Handle, Id, Lines, Result, Service, Stream};

/// The role of the connection between the two processes.
pub(crate) struct Controlling;

/// The server sends its addresses, one a line, and then [`READY`]. Nothing else is sent. The client closes
/// it to end the server.
pub(crate) type Control = Stream<Lines, (), Controlling>;

/// The last line of the server's introduction.
pub(crate) const READY: &str = "ready";

/// Runs the server until its control connection ends.
///
/// # Errors
/// An error of the library.
pub(crate) fn serve(engine: &str, resources: usize) -> Result {
    let mut runtime = super::runtime(Some(engine), resources)?;
    runtime.add(Server)?;
    runtime.run()?.check()?;
    Ok(())
}

struct Server;

impl Service for Server {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let control: Control =
            Stream::new(Lines::new()).role().on(io::stdin().as_fd().try_clone_to_owned()?)?;
        let control = cx.add(control)?;
        for last in 1..=ADDRESSES {
            let address = (IpAddr::from(Ipv4Addr::new(127, 0, 0, last)), 0);
            match cx.listen(address, |_| Some(Stream::new(Bytes))) {
                Ok(listener) => _ = cx.send(control, &cx.local(listener)?.to_string()),
                // Not every system has more than the first address on its loopback device.
                Err(_) if last > 1 => break,
                Err(error) => return Err(error.into()),
            }
        }
        cx.send(control, READY);
        Ok(())
    }

    fn fault(&mut self, _: &mut Context<Self>, fault: Fault) {
        eprintln!("c10k: server: {fault}");
    }
}

impl Handle<Stream> for Server {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
        if let Event::Received(bytes) = event {
            cx.send(id, bytes);
        }
        Ok(())
    }
}

impl Handle<Control> for Server {
    fn handle(&mut self, cx: &mut Context<Self>, _: Id<Control>, event: Event<Lines>) -> Result {
        if let Event::End = event {
            cx.stop(GRACE);
        }
        Ok(())
    }
}

/// How many addresses of the loopback device the server uses. Each has its own range of ports.
const ADDRESSES: u8 = 8;

/// How long the connections may take to end after the client has gone.
const GRACE: Duration = Duration::from_secs(1);
