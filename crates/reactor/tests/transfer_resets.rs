//! A connection that fails while a file is sent: its input does not end as if it were complete.
#![cfg(target_os = "linux")]

mod common;
mod scratch;

use std::{
    convert::Infallible,
    io::Write,
    net::TcpStream,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    thread,
    time::{Duration, Instant},
};

use common::{LONG, for_each_engine, until};
use reactor::{
    Bytes, Closed, Context, Event, Handle, Id, Result, Runtime, Service, ServiceId, Stream,
    file::{File, FileTransfer},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use scratch::Scratch;

/// What the service asks for in the turn in which the peer goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum And {
    Nothing,
    Pauses,
    Finishes,
}

/// Takes an upload and sends a file meanwhile.
struct Server {
    file: File,
    /// What the peer does when its first bytes have been received.
    leave: Option<Box<dyn FnOnce()>>,
    and: And,
    ends: usize,
    got: Vec<u8>,
    closed: Vec<Closed>,
    back: Vec<Stream>,
    transfers: Vec<Closed>,
}

impl Service for Server {}

impl Handle<Stream> for Server {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
        match event {
            Event::Received(bytes) => self.got.extend_from_slice(bytes),
            Event::End => self.ends += 1,
            _ => (),
        }
        if self.got.is_empty() {
            return Ok(());
        }
        let Some(leave) = self.leave.take() else { return Ok(()) };
        leave();
        // The part is asked for at the end of this turn, so nothing else touches the socket before.
        cx.send_file(id, self.file.clone(), 0..1_000_000)?;
        match self.and {
            And::Nothing => (),
            And::Pauses => cx.pause(id),
            And::Finishes => cx.finish(id),
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<Stream>, stream: Stream, why: Closed) {
        if matches!(why, Closed::Released) {
            self.back.push(stream);
        }
        self.closed.push(why);
    }
}

impl Handle<FileTransfer> for Server {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<FileTransfer>, event: Infallible) -> Result {
        match event {}
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<FileTransfer>, _: FileTransfer, why: Closed) {
        self.transfers.push(why);
    }
}

/// A server of which the peer goes in the turn in which its first bytes arrive.
struct Stage {
    runtime: Runtime,
    server: ServiceId<Server>,
    id: Id<Stream>,
    socket: OwnedFd,
    _dir: Scratch,
}

impl Stage {
    fn new(
        engine: common::Engine,
        socket: OwnedFd,
        half_open: bool,
        and: And,
        leave: impl FnOnce() + 'static,
    ) -> Stage {
        let dir = Scratch::new();
        let path = dir.sparse("file", 1_000_000);
        let file = File::new(std::fs::File::open(&path).expect("it is there"), path);
        let mut runtime = engine.runtime();
        let server = Server {
            file,
            leave: Some(Box::new(leave)),
            and,
            ends: 0,
            got: Vec::new(),
            closed: Vec::new(),
            back: Vec::new(),
            transfers: Vec::new(),
        };
        let server = runtime.add(server).expect("it starts");
        let stream =
            Stream::new(Bytes).half_open(half_open).on(socket.try_clone().expect("a descriptor is left"));
        let add =
            |cx: &mut Context<Server>| cx.add(stream.expect("a socket")).map_err(|rejected| rejected.error);
        let id = runtime.with(server, |_, cx| add(cx).expect("room")).expect("it lives");
        Stage { runtime, server, id, socket, _dir: dir }
    }

    fn server(&self) -> &Server {
        self.runtime.service(self.server).expect("it lives")
    }

    /// Makes turns until the peer has gone, and waits until the thread has met that.
    fn until_gone(&mut self) {
        let server = self.server;
        until(&mut self.runtime, |runtime| runtime.service(server).expect("it lives").leave.is_none());
        let end = Instant::now() + LONG;
        while flags(&self.socket, Duration::ZERO).contains(PollFlags::ERR) {
            assert!(Instant::now() < end, "nobody took the error");
            thread::yield_now();
        }
    }
}

fn flags(socket: &impl AsFd, patience: Duration) -> PollFlags {
    let mut entry = [PollFd::new(socket, PollFlags::empty())];
    let patience = Timespec::try_from(patience).expect("it fits");
    poll(&mut entry, Some(&patience)).expect("it can be polled");
    entry[0].revents()
}

/// A stage whose peer has sent a part of its upload, and resets the connection.
fn reset(engine: common::Engine, half_open: bool, and: And) -> Stage {
    let (ours, mut peer) = common::tcp_pair();
    peer.write_all(b"half of an upl").expect("there is room");
    let watched = ours.try_clone().expect("a descriptor is left");
    Stage::new(engine, ours.into(), half_open, and, move || {
        socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).expect("a socket");
        drop::<TcpStream>(peer);
        assert!(flags(&watched, LONG).contains(PollFlags::ERR), "the reset has arrived");
    })
}

fn is_reset(why: &Closed) -> bool {
    why.io().map(std::io::Error::kind) == Some(std::io::ErrorKind::ConnectionReset)
}

#[test]
fn a_reset_that_a_thread_takes_is_no_end_of_the_input() {
    for_each_engine(|engine| {
        for and in [And::Nothing, And::Pauses, And::Finishes] {
            for half_open in [false, true] {
                let mut stage = reset(engine, half_open, and);
                stage.until_gone();
                let (server, id) = (stage.server, stage.id);
                common::settle(&mut stage.runtime);
                stage.runtime.with(server, |_, cx| cx.resume(id)).expect("it lives");
                until(&mut stage.runtime, |runtime| {
                    runtime.service(server).is_some_and(|server| server.closed.len() == 1)
                });
                let server = stage.server();
                assert_eq!((server.ends, &server.got[..]), (0, &b"half of an upl"[..]), "{and:?}");
                assert!(is_reset(&server.closed[0]), "{and:?}: {:?}", server.closed);
                assert!(matches!(server.transfers[..], [Closed::Aborted]), "{:?}", server.transfers);
            }
        }
    });
}

#[test]
fn a_reset_that_a_thread_takes_goes_with_a_stream_that_is_released() {
    for_each_engine(|engine| {
        let mut stage = reset(engine, true, And::Nothing);
        stage.until_gone();
        let (server, id) = (stage.server, stage.id);
        stage.runtime.with(server, |_, cx| cx.release(id).expect("it is open")).expect("it lives");
        let closed = |count| {
            move |runtime: &mut Runtime| {
                runtime.service(server).is_some_and(|server| server.closed.len() == count)
            }
        };
        until(&mut stage.runtime, closed(1));
        // An engine that met the reset before the release ends the stream at once.
        let back = stage.runtime.with(server, |server, _| server.back.pop()).expect("it lives");
        if let Some(stream) = back {
            stage.runtime.with(server, |_, cx| cx.add(stream).expect("room")).expect("it lives");
            until(&mut stage.runtime, closed(2));
        }
        let server = stage.server();
        assert_eq!(server.ends, 0);
        assert!(server.closed.last().is_some_and(is_reset), "{:?}", server.closed);
    });
}

#[test]
fn a_local_peer_that_has_sent_all_and_is_gone_has_ended_its_side() {
    for_each_engine(|engine| {
        let (ours, mut peer) = UnixStream::pair().expect("a pair");
        peer.write_all(b"all").expect("there is room");
        let mut stage = Stage::new(engine, ours.into(), false, And::Nothing, move || drop(peer));
        stage.until_gone();
        let server = stage.server;
        until(&mut stage.runtime, |runtime| {
            runtime.service(server).is_some_and(|server| server.closed.len() == 1)
        });
        let server = stage.server();
        assert_eq!((server.ends, &server.got[..]), (1, &b"all"[..]));
        let kind = server.closed[0].io().map(std::io::Error::kind);
        assert_eq!(
            kind,
            Some(std::io::ErrorKind::BrokenPipe),
            "the file could not be sent: {:?}",
            server.closed
        );
    });
}
