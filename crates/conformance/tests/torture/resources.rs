//! Scripts of users' own resources: with output, bare descriptors, and virtual sources.

use std::{
    cell::RefCell,
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    rc::Rc,
};

use reactor::{
    Closed, Context, Fd, Handle, Id, Interest, Io, Outgoing, Pollable, Ready, Result, Service, Source,
    Writable,
};
use sim::VirtualSource;

use crate::stage::{Ground, Ledger, Played, Script, Spoiled, Stage, on_systems, should};

pub const SCRIPTS: &[Script] = &[
    on_systems("a resource with output over a pair of sockets", |stage| {
        let (one, other) = pair()?;
        carry(stage, Pipe(one), Pipe(other), || ())
    }),
    Script {
        name: "a resource with output over virtual sources",
        play: feeds,
        on: |ground| ground == Ground::Harsh,
    },
    on_systems("bare descriptors", bare),
];

/// The transport below a user's own resource.
trait Link: 'static {
    fn source(&self) -> Source<'_>;
}

impl Link for TcpStream {
    fn source(&self) -> Source<'_> {
        Source::of(self)
    }
}

impl Link for Rc<VirtualSource> {
    fn source(&self) -> Source<'_> {
        VirtualSource::source(self)
    }
}

/// A byte pipe that implements everything by hand.
struct Pipe<T>(T);

impl<T: Link> Pollable for Pipe<T> {
    type Event<'a> = &'a [u8];

    fn source(&self) -> Source<'_> {
        self.0.source()
    }

    fn step<'a>(&mut self, _: Ready, io: &mut Io<'_>, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        let count = io.read(self.0.source(), &mut buffer[..50])?;
        Ok(Some(&buffer[..count]))
    }
}

impl<T: Link> Writable for Pipe<T> {
    type Item<'a> = &'a [u8];

    fn encode(&mut self, item: &[u8], out: &mut Outgoing) -> Result {
        out.put(item);
        Ok(())
    }
}

struct Piper {
    ledger: Rc<Ledger>,
    got: Rc<RefCell<Vec<u8>>>,
}

impl Service for Piper {}

impl<T: Link> Handle<Pipe<T>> for Piper {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Pipe<T>>, bytes: &[u8]) -> Result {
        self.ledger.lives(id);
        self.got.borrow_mut().extend_from_slice(bytes);
        if bytes.is_empty() {
            cx.close(id);
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, id: Id<Pipe<T>>, _: Pipe<T>, _: Closed) {
        self.ledger.closed(id);
    }
}

fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let one = TcpStream::connect(listener.local_addr()?)?;
    let (other, _) = listener.accept()?;
    one.set_nonblocking(true)?;
    other.set_nonblocking(true)?;
    Ok((one, other))
}

/// Sends from one pipe to the other in pieces. `pump` moves the bytes in between.
fn carry<T: Link>(stage: &mut Stage, one: Pipe<T>, other: Pipe<T>, mut pump: impl FnMut()) -> Played {
    let got: Rc<RefCell<Vec<u8>>> = Rc::default();
    let service = stage.add(Piper { ledger: stage.ledger.clone(), got: got.clone() })?;
    let mut ids = Vec::new();
    for pipe in [one, other] {
        let added = stage.runtime.with(service, |_, cx| cx.add(pipe).map_err(|rejected| rejected.error));
        let id = added.ok_or("the service has ended").map_err(|why| Spoiled(why.to_owned()))??;
        stage.ledger.lives(id);
        ids.push(id);
    }
    let expected: Vec<u8> = (0..200).collect();
    for piece in expected.chunks(40) {
        stage.runtime.with(service, |_, cx| cx.send(ids[0], piece));
        pump();
        stage.turns(2)?;
    }
    stage.until(|| {
        pump();
        got.borrow().len() >= expected.len()
    })?;
    should(*got.borrow() == expected, "the bytes came in order")?;
    stage.runtime.with(service, |_, cx| cx.close(ids[0]));
    stage.turns(3)
}

fn feeds(stage: &mut Stage) -> Played {
    let Some(world) = stage.world() else { return Ok(()) };
    let (one, other) = (Rc::new(world.virtual_source()), Rc::new(world.virtual_source()));
    let (from, to) = (one.clone(), other.clone());
    carry(stage, Pipe(one), Pipe(other), move || {
        from.allow(30);
        to.put(&from.taken());
    })
}

struct Bare {
    ledger: Rc<Ledger>,
    got: Rc<RefCell<Vec<u8>>>,
}

impl Service for Bare {}

impl Handle<Fd<TcpStream>> for Bare {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Fd<TcpStream>>, ready: Ready) -> Result {
        self.ledger.lives(id);
        let Some(socket) = cx.get_mut(id) else { return Ok(()) };
        if ready.writable {
            (&**socket).write_all(b"once")?;
            socket.set_interest(Some(Interest::Read));
        }
        if ready.can_read() {
            let mut bytes = [0; 3];
            match socket.read(&mut bytes) {
                Ok(0) => cx.close(id),
                Ok(count) => self.got.borrow_mut().extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, id: Id<Fd<TcpStream>>, _: Fd<TcpStream>, _: Closed) {
        self.ledger.closed(id);
    }
}

fn bare(stage: &mut Stage) -> Played {
    let got: Rc<RefCell<Vec<u8>>> = Rc::default();
    let service = stage.add(Bare { ledger: stage.ledger.clone(), got: got.clone() })?;
    let (one, other) = pair()?;
    let mut ids = Vec::new();
    for (socket, interest) in [(one, Interest::Both), (other, Interest::Read)] {
        let fd = Fd::new(socket, interest);
        let added = stage.runtime.with(service, |_, cx| cx.add(fd).map_err(|rejected| rejected.error));
        let id = added.ok_or("the service has ended").map_err(|why| Spoiled(why.to_owned()))??;
        stage.ledger.lives(id);
        ids.push(id);
    }
    stage.until(|| got.borrow().len() == 4)?;
    stage.runtime.with(service, |_, cx| cx.close(ids[0]));
    stage.turns(4)
}
