//! Files on their way to streams: whole, no faster than they are taken, and ended when the file is.
#![cfg(unix)]

mod common;
mod scratch;

use std::{
    convert::Infallible,
    fs,
    io::{Read, Write},
    mem,
    net::{Shutdown, TcpStream},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use common::{for_each_engine, until};
use reactor::{
    Bytes, Closed, Context, Event, Flow, Handle, Id, Result, Runtime, Service, ServiceId, Stream,
    StreamOptions,
    file::{File, FileTransfer},
};
use scratch::Scratch;

/// Sends a head, a file and a tail to whoever connects.
struct Sender {
    file: File,
    len: u64,
    streams: Vec<Id<Stream>>,
    transfers: Vec<Id<FileTransfer>>,
    ended: Vec<(Closed, u64)>,
    closed: Vec<Closed>,
    drained: usize,
    received: Vec<u8>,
    address: Option<std::net::SocketAddr>,
    half_open: bool,
    write_stall: Duration,
    /// A transfer that ends is not the end of its stream.
    keeps_open: bool,
}

impl Service for Sender {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let half_open = self.half_open;
        let options = StreamOptions { write_stall: self.write_stall, ..StreamOptions::DEFAULT };
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
                cx.send(id, b"head");
                self.streams.push(id);
                self.transfers.push(cx.send_file(id, self.file.clone(), 0..self.len)?);
            }
            Event::Drained => self.drained += 1,
            Event::Received(bytes) => self.received.extend_from_slice(bytes),
            Event::End => (),
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<Stream>, _: Stream, why: Closed) {
        self.closed.push(why);
    }
}

impl Handle<FileTransfer> for Sender {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<FileTransfer>, event: Infallible) -> Result {
        match event {}
    }

    fn closed(&mut self, cx: &mut Context<Self>, id: Id<FileTransfer>, transfer: FileTransfer, why: Closed) {
        let at = self.transfers.iter().position(|of| *of == id).expect("it was begun");
        if why.is_clean() {
            cx.send(self.streams[at], b"tail");
        }
        if !self.keeps_open {
            cx.close(self.streams[at]);
        }
        self.ended.push((why, transfer.sent()));
    }
}

struct Stage {
    runtime: Runtime,
    sender: ServiceId<Sender>,
}

impl Stage {
    fn new(engine: common::Engine, path: &Path, half_open: bool) -> Stage {
        Stage::with_limits(engine, path, half_open, |_| ())
    }

    fn with_limits(
        engine: common::Engine,
        path: &Path,
        half_open: bool,
        change: impl FnOnce(&mut reactor::Limits),
    ) -> Stage {
        Stage::with(engine, path, change, |sender| sender.half_open = half_open)
    }

    fn with(
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
            streams: Vec::new(),
            transfers: Vec::new(),
            ended: Vec::new(),
            closed: Vec::new(),
            drained: 0,
            received: Vec::new(),
            address: None,
            half_open: false,
            write_stall: common::LONG,
            keeps_open: false,
        };
        prepare(&mut sender);
        let sender = runtime.add(sender).expect("it starts");
        Stage { runtime, sender }
    }

    fn sender(&self) -> &Sender {
        self.runtime.service(self.sender).expect("it lives")
    }

    fn until(&mut self, mut done: impl FnMut(&Sender) -> bool) {
        let sender = self.sender;
        until(&mut self.runtime, |runtime| done(runtime.service(sender).expect("it lives")));
    }

    fn connect(&mut self) -> TcpStream {
        let peer = TcpStream::connect(self.sender().address.expect("it listens")).expect("it listens");
        peer.set_nonblocking(true).expect("it is a socket");
        peer
    }

    /// Drives the loop, and reads what comes until the end.
    fn read(&mut self, peer: &mut TcpStream, bytes_max: usize) -> Vec<u8> {
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

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 7 % 251) as u8).collect()
}

fn whole(content: &[u8]) -> Vec<u8> {
    [b"head", content, b"tail"].concat()
}

#[test]
fn a_file_leaves_whole_between_what_was_sent_before_and_after_it() {
    for_each_engine(|engine| {
        for len in [0, 1, 65_535, 65_536, 65_537, 3_000_000] {
            let dir = Scratch::new();
            let content = content(len);
            let mut stage = Stage::new(engine, &dir.file("file", &content), false);
            let mut peer = stage.connect();
            assert!(stage.read(&mut peer, usize::MAX) == whole(&content), "{len} bytes");
            // It has its say, too: a graceful close waits for it.
            drop(peer);
            stage.until(|sender| sender.closed.len() == 1);
            assert!(matches!(stage.sender().ended[..], [(Closed::Done, sent)] if sent == len as u64));
            assert_eq!(stage.sender().drained, 0, "the transfer's marks are not the service's");
        }
    });
}

#[test]
fn a_file_is_read_no_faster_than_the_peer_takes_it() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let path = dir.file("sparse", b"");
        let file = fs::OpenOptions::new().write(true).open(&path).expect("it is there");
        file.set_len(1 << 30).expect("sparse");
        let mut stage = Stage::new(engine, &path, false);
        let mut peer = stage.connect();
        stage.until(|sender| !sender.transfers.is_empty());
        // Until the kernel takes no more.
        let mut before = u64::MAX;
        loop {
            common::settle(&mut stage.runtime);
            let sender = stage.sender;
            let (sent, queued) = stage
                .runtime
                .with(sender, |sender, cx| {
                    let sent = cx.get(sender.transfers[0]).expect("it lives").sent();
                    (sent, cx.get(sender.streams[0]).expect("it lives").unsent())
                })
                .expect("it lives");
            assert!(queued <= 2 * (64 << 10), "{queued} bytes wait");
            assert!(sent < 64 << 20, "{sent} bytes were read for nobody");
            if sent == before {
                break;
            }
            before = sent;
        }
        let some = stage.read(&mut peer, 20 << 20).len();
        assert!(some >= 20 << 20, "it goes on when the peer does: {some}");
    });
}

#[test]
fn transfers_keep_within_the_limits_of_files_and_wait_for_each_other() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let content = content(300_000);
        let path = dir.file("file", &content);
        let mut stage = Stage::with_limits(engine, &path, false, |limits| {
            (limits.file_operations, limits.file_bytes) = (1, 1_000);
        });
        let mut peers: Vec<TcpStream> = (0..5).map(|_| stage.connect()).collect();
        for peer in &mut peers {
            assert!(stage.read(peer, usize::MAX) == whole(&content));
        }
        // Where nothing is allowed it is told so, and nobody waits for ever.
        for (operations, bytes) in [(0, 1_000), (1, 0)] {
            let mut stage = Stage::with_limits(engine, &path, false, |limits| {
                (limits.file_operations, limits.file_bytes) = (operations, bytes);
            });
            let mut peer = stage.connect();
            assert_eq!(stage.read(&mut peer, usize::MAX), b"head");
            stage.until(|sender| sender.ended.len() == 1);
            assert!(matches!(stage.sender().ended[..], [(Closed::Failed(_), 0)]));
        }
    });
}

#[test]
fn a_file_that_is_cut_off_while_it_is_served_ends_that_answer_only() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let path = dir.file("file", b"");
        let file = fs::OpenOptions::new().write(true).open(&path).expect("it is there");
        file.set_len(64 << 20).expect("sparse");
        let mut stage = Stage::new(engine, &path, false);
        let mut peer = stage.connect();
        let first = stage.read(&mut peer, 1 << 20).len();
        file.set_len(1 << 20).expect("cut");
        let rest = stage.read(&mut peer, usize::MAX).len();
        assert!(first + rest < 64 << 20, "the body is short, and its end is told");
        drop(peer);
        stage.until(|sender| sender.closed.len() == 1);
        assert!(
            matches!(stage.sender().ended[..], [(Closed::Truncated(_), _)]),
            "{:?}",
            stage.sender().ended
        );
        // The loop lives, and serves what the file is now as far as it was promised.
        let sender = stage.sender;
        stage.runtime.with(sender, |sender, _| sender.len = 1 << 20);
        let mut peer = stage.connect();
        assert_eq!(stage.read(&mut peer, usize::MAX).len(), (1 << 20) + 8);
    });
}

#[test]
fn a_peer_that_goes_ends_the_transfer_once() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let path = dir.file("file", b"");
        fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|file| file.set_len(1 << 30))
            .expect("sparse");
        let mut stage = Stage::new(engine, &path, false);
        let mut peer = stage.connect();
        stage.read(&mut peer, 1 << 20);
        // With bytes unread a close is a reset.
        drop(peer);
        stage.until(|sender| sender.ended.len() == 1 && sender.closed.len() == 1);
        assert!(matches!(stage.sender().ended[..], [(Closed::Aborted, _)]), "{:?}", stage.sender().ended);
    });
}

#[test]
fn a_peer_that_ends_its_side_still_gets_the_whole_file() {
    for_each_engine(|engine| {
        for half_open in [false, true] {
            let dir = Scratch::new();
            let content = content(5_000_000);
            let mut stage = Stage::new(engine, &dir.file("file", &content), half_open);
            let mut peer = stage.connect();
            peer.shutdown(Shutdown::Write).expect("it is up");
            let got = stage.read(&mut peer, usize::MAX);
            // Without `half_open` the stream closes when the transfer is over, and takes no tail.
            let wanted = if half_open { whole(&content) } else { [b"head", &content[..]].concat() };
            assert!(got == wanted, "{half_open}: {} of {}", got.len(), wanted.len());
            stage.until(|sender| sender.closed.len() == 1);
            assert!(stage.sender().closed[0].is_clean());
        }
    });
}

#[test]
fn a_stream_has_one_transfer_and_only_its_own_service_begins_it() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let path = dir.file("file", b"");
        fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|file| file.set_len(1 << 30))
            .expect("sparse");
        let mut stage = Stage::new(engine, &path, false);
        let peer = stage.connect();
        stage.until(|sender| sender.transfers.len() == 1);
        let sender = stage.sender;
        let (is_refused, is_free) = stage
            .runtime
            .with(sender, |sender, cx| {
                let stream = sender.streams[0];
                let second = cx.send_file(stream, sender.file.clone(), 0..1).is_err();
                // Aborted by the service it is over at once, and the stream is free again.
                cx.abort(sender.transfers[0]);
                let id = cx.send_file(stream, sender.file.clone(), 0..1).map_err(|rejected| rejected.error);
                (second, id.map(|id| sender.transfers.push(id)).is_ok())
            })
            .expect("it lives");
        assert!(is_refused && is_free);
        stage.runtime.with(sender, |sender, _| sender.streams.push(sender.streams[0]));
        stage.until(|sender| sender.ended.len() == 2);
        assert!(matches!(stage.sender().ended[0], (Closed::Aborted, _)));
        drop(peer);
        stage.until(|sender| sender.closed.len() == 1);
        let gone = stage
            .runtime
            .with(sender, |sender, cx| cx.send_file(sender.streams[0], sender.file.clone(), 0..1).is_err());
        assert_eq!(gone, Some(true));
    });
}

/// Reads to the end in a thread, so that the runtime can be run.
fn reading(mut peer: TcpStream) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        peer.set_nonblocking(false).expect("it is a socket");
        peer.set_read_timeout(Some(common::LONG)).expect("it is a socket");
        peer.read_to_end(&mut all).expect("an orderly end");
        all
    })
}

#[test]
fn a_stop_lets_a_transfer_finish() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        // More than the kernel holds for a peer that reads nothing yet.
        let content = vec![0; 20_000_000];
        let mut stage = Stage::new(engine, &dir.file("file", &content), false);
        let peer = stage.connect();
        stage.until(|sender| !sender.transfers.is_empty());
        common::settle(&mut stage.runtime);
        assert!(stage.sender().ended.is_empty(), "it is under way");
        stage.runtime.controller(stage.sender).stop(common::LONG);
        stage.runtime.turn(None).expect("the engine is whole");
        let reader = reading(peer);
        let receipt = stage.runtime.run().expect("it stops");
        let got = reader.join().expect("the reader did not panic");
        assert!(got == [b"head", &content[..]].concat(), "{} bytes", got.len());
        assert!(
            matches!(stage.sender().ended[..], [(Closed::Done, 20_000_000)]),
            "{:?}",
            stage.sender().ended
        );
        assert!(matches!(stage.sender().closed[..], [Closed::Done]), "{:?}", stage.sender().closed);
        assert_eq!((receipt.cut, receipt.bytes_dropped), (0, 0));
    });
}

#[test]
fn the_end_of_a_stops_grace_cuts_a_transfer() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let path = dir.file("sparse", b"");
        let sparse = fs::OpenOptions::new().write(true).open(&path).expect("it is there");
        sparse.set_len(1 << 30).expect("sparse");
        let mut stage = Stage::new(engine, &path, false);
        let peer = stage.connect();
        stage.until(|sender| !sender.transfers.is_empty());
        stage.runtime.controller(stage.sender).stop(common::SHORT);
        let receipt = stage.runtime.run().expect("it stops");
        assert_eq!(stage.sender().ended.len(), 1);
        assert!(!stage.sender().ended[0].0.is_clean());
        assert!(matches!(stage.sender().closed[..], [Closed::Stopped]), "{:?}", stage.sender().closed);
        assert!(receipt.cut >= 1);
        drop(peer);
    });
}

#[test]
fn a_stream_that_is_closed_or_finished_meanwhile_ends_behind_the_file() {
    for_each_engine(|engine| {
        for how in ["close", "finish", "close of the transfer, which rests"] {
            let dir = Scratch::new();
            let content = vec![0; 20_000_000];
            let mut stage = Stage::new(engine, &dir.file("file", &content), true);
            let mut peer = stage.connect();
            stage.until(|sender| !sender.transfers.is_empty());
            let sender = stage.sender;
            let flow = stage.runtime.with(sender, |sender, cx| {
                let (stream, transfer) = (sender.streams[0], sender.transfers[0]);
                match how {
                    "close" => cx.close(stream),
                    "finish" => cx.finish(stream),
                    _ => {
                        cx.pause(transfer);
                        cx.close(transfer);
                        return Flow::Gone;
                    }
                }
                cx.send(stream, b"too late")
            });
            assert_eq!(flow, Some(Flow::Gone), "{how}");
            let got = stage.read(&mut peer, usize::MAX);
            let tail = if how.starts_with("close of") { &b"tail"[..] } else { b"" };
            assert!(got == [b"head", &content[..], tail].concat(), "{how}: {} bytes", got.len());
            stage.until(|sender| sender.ended.len() == 1);
            assert!(matches!(stage.sender().ended[..], [(Closed::Done, 20_000_000)]), "{how}");
            drop(peer);
            stage.until(|sender| sender.closed.len() == 1);
            assert!(stage.sender().closed[0].is_clean(), "{how}: {:?}", stage.sender().closed);
        }
    });
}

/// A stage whose peer takes nothing, with a stream that stalls soon.
fn stalling(engine: common::Engine, dir: &Scratch, after: Duration) -> Stage {
    let path = dir.file("sparse", b"");
    let sparse = fs::OpenOptions::new().write(true).open(&path).expect("it is there");
    sparse.set_len(1 << 30).expect("sparse");
    Stage::with(engine, &path, |_| (), |sender| (sender.half_open, sender.write_stall) = (true, after))
}

#[test]
fn a_peer_that_takes_nothing_ends_stream_and_transfer_whether_or_not_it_was_closed() {
    for_each_engine(|engine| {
        for is_closed in [false, true] {
            let dir = Scratch::new();
            let mut stage = stalling(engine, &dir, 3 * common::SHORT);
            let _peer = stage.connect();
            stage.until(|sender| !sender.transfers.is_empty());
            let sender = stage.sender;
            if is_closed {
                stage.runtime.with(sender, |sender, cx| cx.close(sender.streams[0]));
            }
            stage.until(|sender| sender.closed.len() == 1);
            assert!(matches!(stage.sender().closed[..], [Closed::Stalled]), "{:?}", stage.sender().closed);
            assert!(matches!(stage.sender().ended[..], [(Closed::Aborted, _)]), "{:?}", stage.sender().ended);
        }
    });
}

#[test]
fn a_transfer_that_was_aborted_while_it_waited_leaves_no_deadline_behind() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let mut stage = stalling(engine, &dir, 8 * common::SHORT);
        let mut peer = stage.connect();
        stage.until(|sender| !sender.transfers.is_empty());
        let sender = stage.sender;
        // Until the kernel takes no more, so that it waits.
        let (mut before, mut same) = (0, 0);
        until(&mut stage.runtime, |runtime| {
            let sent =
                runtime.with(sender, |sender, cx| cx.get(sender.transfers[0]).expect("it lives").sent());
            let sent = sent.expect("it lives");
            same = if sent > 0 && sent == mem::replace(&mut before, sent) { same + 1 } else { 0 };
            same == 5
        });
        stage.runtime.with(sender, |sender, cx| {
            sender.keeps_open = true;
            cx.abort(sender.transfers[0]);
        });
        stage.until(|sender| sender.ended.len() == 1);
        // Nothing waits here any more. Only what nobody may write past is queued, and then the peer has to take it.
        let is_queued = engine.0 == "io_uring";
        let end = Instant::now() + 10 * common::SHORT;
        let mut buffer = vec![0; 1 << 16];
        until(&mut stage.runtime, |_| {
            while is_queued && matches!(peer.read(&mut buffer), Ok(1..)) {}
            Instant::now() > end
        });
        assert!(stage.sender().closed.is_empty(), "{:?}", stage.sender().closed);
        stage.runtime.with(sender, |sender, cx| cx.send(sender.streams[0], b"still here"));
        let mut last = Vec::new();
        until(&mut stage.runtime, |_| {
            while let Ok(count @ 1..) = peer.read(&mut buffer) {
                last = [&last[last.len().saturating_sub(10)..], &buffer[..count]].concat();
            }
            last.ends_with(b"still here")
        });
    });
}

#[test]
fn a_peer_that_goes_ends_a_closing_stream_and_its_transfer() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let path = dir.file("sparse", b"");
        let sparse = fs::OpenOptions::new().write(true).open(&path).expect("it is there");
        sparse.set_len(1 << 30).expect("sparse");
        let mut stage = Stage::new(engine, &path, false);
        let mut peer = stage.connect();
        stage.read(&mut peer, 1 << 20);
        let sender = stage.sender;
        stage.runtime.with(sender, |sender, cx| cx.close(sender.streams[0]));
        // With bytes unread a close is a reset.
        drop(peer);
        stage.until(|sender| sender.ended.len() == 1 && sender.closed.len() == 1);
        assert!(matches!(stage.sender().ended[..], [(Closed::Aborted, _)]), "{:?}", stage.sender().ended);
    });
}

#[test]
fn what_a_peer_sends_meanwhile_is_seen() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let content = content(3_000_000);
        let mut stage = Stage::new(engine, &dir.file("file", &content), true);
        let mut peer = stage.connect();
        peer.write_all(b"more").expect("it is up");
        let some = stage.read(&mut peer, 4);
        stage.until(|sender| sender.received == b"more");
        assert!([some, stage.read(&mut peer, usize::MAX)].concat() == whole(&content));
    });
}
