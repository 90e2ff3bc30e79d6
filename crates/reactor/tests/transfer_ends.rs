//! The end of a transfer when its stream, the peer, the transfer itself or the runtime is about to end.
#![cfg(unix)]

mod common;
mod scratch;
mod sending;

use std::{
    fs,
    io::Read,
    mem,
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use common::{for_each_engine, until};
use reactor::{Closed, Flow};
use scratch::Scratch;
use sending::Stage;

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
        // Closing a socket with unread bytes resets the connection.
        drop(peer);
        stage.until(|sender| sender.ended.len() == 1 && sender.closed.len() == 1);
        assert!(matches!(stage.sender().ended[..], [(Closed::Aborted, _)]), "{:?}", stage.sender().ended);
    });
}

/// Reads to the end on another thread, so that this one can run the runtime.
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
        // More than the kernel buffers for a peer that does not read yet.
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
        let path = dir.sparse("sparse", 1 << 30);
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

/// Makes a stage whose peer reads nothing, with a stream that stalls soon.
fn stalling(engine: common::Engine, dir: &Scratch, after: Duration) -> Stage {
    let path = dir.file("sparse", b"");
    let sparse = fs::OpenOptions::new().write(true).open(&path).expect("it is there");
    sparse.set_len(1 << 30).expect("sparse");
    Stage::made(engine, &path, |_| (), |sender| (sender.half_open, sender.write_stall) = (true, after))
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
        // Wait until the kernel takes no more bytes, so that the transfer has to wait.
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
        // Nothing waits here any more. Only bytes that must leave before all others are still queued, and
        // then the peer has to take them.
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
        let path = dir.sparse("sparse", 1 << 30);
        let mut stage = Stage::new(engine, &path, false);
        let mut peer = stage.connect();
        stage.read(&mut peer, 1 << 20);
        let sender = stage.sender;
        stage.runtime.with(sender, |sender, cx| cx.close(sender.streams[0]));
        // Closing a socket with unread bytes resets the connection.
        drop(peer);
        stage.until(|sender| sender.ended.len() == 1 && sender.closed.len() == 1);
        assert!(matches!(stage.sender().ended[..], [(Closed::Aborted, _)]), "{:?}", stage.sender().ended);
    });
}
