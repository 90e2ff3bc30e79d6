//! A service that sends a file to each client, and plain sockets as its clients.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::{
    convert::Infallible,
    fs,
    io::Read,
    net::TcpStream,
    path::Path,
    sync::{Arc, mpsc},
    time::Duration,
};

use reactor::{
    Bytes, Closed, Context, Event, Handle, Id, Receive, Result, Runtime, Service, ServiceId, Stream,
    StreamOptions,
    file::{File, FileTransfer, Operation},
};

use crate::common::{self, until};

/// Sends a head, a file and a tail to each client.
pub struct Sender {
    pub file: File,
    pub len: u64,
    pub head: Vec<u8>,
    pub streams: Vec<Id<Stream>>,
    pub transfers: Vec<Id<FileTransfer>>,
    pub ended: Vec<(Closed, u64)>,
    pub closed: Vec<Closed>,
    /// The transfers that have ended, and the released streams.
    pub back: (Vec<FileTransfer>, Vec<Stream>),
    pub drained: usize,
    pub received: Vec<u8>,
    pub address: Option<std::net::SocketAddr>,
    pub half_open: bool,
    pub write_stall: Duration,
    pub close: Duration,
    /// The end of a transfer does not end its stream.
    pub keeps_open: bool,
}

impl Service for Sender {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let half_open = self.half_open;
        let options = StreamOptions::with(|options| {
            options.write_stall = Some(self.write_stall);
            options.close = self.close;
        });
        let options = Arc::new(options);
        let listener = cx.listen("127.0.0.1:0", move |_| {
            Some(Stream::new(Bytes).half_open(half_open).options(options.clone()))
        })?;
        self.address = Some(cx.local(listener)?.to_string().parse()?);
        Ok(())
    }
}

impl Handle<Stream> for Sender {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
        match event {
            Event::Open => {
                cx.send(id, &self.head);
                self.streams.push(id);
                self.transfers.push(cx.send_file(id, self.file.clone(), 0..self.len)?);
            }
            Event::Drained => self.drained += 1,
            Event::Received(bytes) => self.received.extend_from_slice(bytes),
            Event::End | Event::HungUp => (),
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<Stream>, stream: Stream, why: Closed) {
        if matches!(why, Closed::Released) {
            self.back.1.push(stream);
        }
        self.closed.push(why);
    }
}

/// Message: a thread for files was held up, and goes on.
pub struct HeldUp;

impl Receive<HeldUp> for Sender {
    fn receive(&mut self, _: &mut Context<Self>, HeldUp: HeldUp) -> Result {
        Ok(())
    }
}

impl Handle<FileTransfer> for Sender {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<FileTransfer>, event: Infallible) -> Result {
        match event {}
    }

    fn closed(&mut self, cx: &mut Context<Self>, id: Id<FileTransfer>, transfer: FileTransfer, why: Closed) {
        let at = self.transfers.iter().position(|of| *of == id).expect("it was begun");
        if matches!(why, Closed::Done) {
            cx.send(self.streams[at], b"tail");
        }
        if !self.keeps_open && !matches!(why, Closed::Released) {
            cx.close(self.streams[at]);
        }
        self.ended.push((why, transfer.sent()));
        self.back.0.push(transfer);
    }
}

pub struct Stage {
    pub runtime: Runtime,
    pub sender: ServiceId<Sender>,
}

impl Stage {
    pub fn new(engine: common::Engine, path: &Path, half_open: bool) -> Stage {
        Stage::with_limits(engine, path, half_open, |_| ())
    }

    pub fn with_limits(
        engine: common::Engine,
        path: &Path,
        half_open: bool,
        change: impl FnOnce(&mut reactor::Limits),
    ) -> Stage {
        Stage::made(engine, path, change, |sender| sender.half_open = half_open)
    }

    pub fn made(
        engine: common::Engine,
        path: &Path,
        change: impl FnOnce(&mut reactor::Limits),
        prepare: impl FnOnce(&mut Sender),
    ) -> Stage {
        let file = fs::File::open(path).expect("it is there");
        let len = file.metadata().expect("it has some").len();
        let mut runtime = engine.with(change);
        let mut sender = Sender {
            file: File::new(file, path),
            len,
            head: b"head".to_vec(),
            streams: Vec::new(),
            transfers: Vec::new(),
            ended: Vec::new(),
            closed: Vec::new(),
            back: (Vec::new(), Vec::new()),
            drained: 0,
            received: Vec::new(),
            address: None,
            half_open: false,
            write_stall: common::LONG,
            close: StreamOptions::DEFAULT.close,
            keeps_open: false,
        };
        prepare(&mut sender);
        let sender = runtime.add(sender).expect("it starts");
        Stage { runtime, sender }
    }

    /// Holds up a thread for files until the returned sender is dropped. Returns once the thread is held up.
    pub fn hold_up(&mut self) -> mpsc::Sender<()> {
        let (began, begins) = mpsc::channel();
        let (release, held) = mpsc::channel::<()>();
        // No engine performs this operation itself.
        let operation = Operation::read_directory("/", 100_000);
        let then = move |_| {
            began.send(()).expect("the test waits");
            let _ = held.recv();
            HeldUp
        };
        let sender = self.sender;
        let asked = self.runtime.with(sender, |_, cx| cx.file(operation, then).is_ok());
        assert_eq!(asked, Some(true));
        begins.recv_timeout(common::LONG).expect("a thread takes it");
        release
    }

    pub fn sender(&self) -> &Sender {
        self.runtime.service(self.sender).expect("it lives")
    }

    pub fn service(&mut self) -> &mut Sender {
        self.runtime.service_mut(self.sender).expect("it lives")
    }

    pub fn with<T>(&mut self, f: impl FnOnce(&mut Sender, &mut Context<Sender>) -> T) -> T {
        self.runtime.with(self.sender, f).expect("it lives")
    }

    pub fn until(&mut self, mut done: impl FnMut(&Sender) -> bool) {
        let sender = self.sender;
        until(&mut self.runtime, |runtime| done(runtime.service(sender).expect("it lives")));
    }

    pub fn connect(&mut self) -> TcpStream {
        let peer = TcpStream::connect(self.sender().address.expect("it listens")).expect("it listens");
        peer.set_nonblocking(true).expect("it is a socket");
        peer
    }

    /// Drives the loop, and reads from the peer until the end or the limit.
    pub fn read(&mut self, peer: &mut TcpStream, bytes_max: usize) -> Vec<u8> {
        let (mut all, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
        until(&mut self.runtime, |_| {
            while all.len() < bytes_max {
                match peer.read(&mut buffer) {
                    Ok(0) => return true,
                    Ok(count) => all.extend_from_slice(&buffer[..count]),
                    Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
                }
            }
            true
        });
        all
    }
}
