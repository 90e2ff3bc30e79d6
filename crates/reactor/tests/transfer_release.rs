//! A stream that leaves its runtime, or loses its transfer, while a thread moves a part of a file to its
//! socket.
#![cfg(target_os = "linux")]

mod common;
mod scratch;
mod sending;

use std::{
    io::{ErrorKind, Read},
    mem,
    sync::OnceLock,
};

use common::for_each_engine;
use reactor::{Closed, Phase};
use scratch::Scratch;
use sending::Stage;

fn content() -> &'static [u8] {
    static CONTENT: OnceLock<Vec<u8>> = OnceLock::new();
    CONTENT.get_or_init(|| (0..LEN).map(|at| (at / 7 % 251) as u8).collect())
}

/// Makes a stage whose only thread for files is held up, with a part of a file queued behind.
fn with_a_part_out(
    engine: common::Engine,
    dir: &Scratch,
) -> (Stage, std::sync::mpsc::Sender<()>, std::net::TcpStream) {
    let path = dir.file("file", content());
    let change = |limits: &mut reactor::Limits| limits.file_threads = 1;
    let mut stage = Stage::made(engine, &path, change, |sender| {
        (sender.keeps_open, sender.close) = (true, 4 * common::SHORT);
    });
    let held = stage.hold_up();
    let mut peer = stage.connect();
    assert_eq!(stage.read(&mut peer, 4), b"head");
    common::settle(&mut stage.runtime);
    let sent = stage.with(|sender, cx| cx.get(sender.transfers[0]).map(|transfer| transfer.sent()));
    assert_eq!(sent, Some(0), "the only thread is held up");
    (stage, held, peer)
}

#[test]
fn a_released_stream_is_given_back_when_nobody_writes_to_it_any_more() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let (mut stage, held, mut peer) = with_a_part_out(engine, &dir);
        stage.with(|sender, cx| cx.release(sender.streams[0]).expect("it is not closing"));
        for _ in 0..50 {
            stage.runtime.turn(Some(std::time::Duration::ZERO)).expect("the engine is whole");
        }
        assert!(stage.sender().closed.is_empty(), "a thread may still write to it");
        drop(held);
        stage.until(|sender| sender.closed.len() == 1);
        assert!(matches!(stage.sender().closed[..], [Closed::Released]));
        let (transfers, streams) = mem::take(&mut stage.service().back);
        let [transfer] = &transfers[..] else { panic!("{transfers:?}") };
        let sent = transfer.sent();
        assert!(matches!(stage.sender().ended[..], [(Closed::Released, _)]), "{:?}", stage.sender().ended);
        assert!(sent > 0 && transfer.rest() == (sent..LEN as u64), "{sent}");
        // The next owner sends something else first, and then goes on with the file.
        let stream = streams.into_iter().next().expect("it was given back");
        stage.with(|sender, cx| {
            let id = cx.add(stream).expect("room");
            sender.streams = vec![id];
            cx.send(id, b"between");
            let rest = cx.send_file(id, transfer.file().clone(), transfer.rest());
            sender.transfers = vec![rest.expect("it is free")];
            sender.keeps_open = false;
        });
        let got = stage.read(&mut peer, usize::MAX);
        let content = content();
        let (first, second) = content.split_at(sent as usize);
        let expected = [first, b"between", second, b"tail"].concat();
        let differs = got.iter().zip(&expected).position(|(one, other)| one != other);
        assert!(got == expected, "{} bytes, {sent} before, {differs:?}", got.len());
    });
}

#[test]
fn a_transfer_that_is_aborted_ends_when_nobody_writes_for_it_any_more() {
    for_each_engine(|engine| {
        for how in ["abort", "deadline"] {
            let dir = Scratch::new();
            let (mut stage, held, mut peer) = with_a_part_out(engine, &dir);
            stage.with(|sender, cx| match how {
                "abort" => cx.abort(sender.transfers[0]),
                _ => cx.deadline(sender.transfers[0], std::time::Duration::ZERO),
            });
            for _ in 0..50 {
                stage.runtime.turn(Some(std::time::Duration::ZERO)).expect("the engine is whole");
            }
            assert!(stage.sender().ended.is_empty(), "{how}: it has not ended");
            drop(held);
            stage.until(|sender| sender.ended.len() == 1);
            let sent = stage.sender().ended[0].1 as usize;
            assert!(sent > 0 && sent < LEN, "{how}: {sent}");
            stage.with(|sender, cx| {
                cx.send(sender.streams[0], b"behind");
                cx.close(sender.streams[0]);
            });
            let got = stage.read(&mut peer, usize::MAX);
            assert!(got == [&content()[..sent], b"behind"].concat(), "{how}: {} bytes", got.len());
        }
    });
}

#[test]
fn a_part_that_hangs_ends_the_stream_by_a_reset() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let (mut stage, held, mut peer) = with_a_part_out(engine, &dir);
        stage.with(|sender, cx| cx.release(sender.streams[0]).expect("it is not closing"));
        stage.until(|sender| sender.closed.len() == 1 && sender.ended.len() == 1);
        let closed = &stage.sender().closed;
        assert!(matches!(closed[..], [Closed::TimedOut(Phase::File)]), "{closed:?}");
        // The thread may do anything from now on, but the peer gets nothing.
        drop(held);
        common::settle(&mut stage.runtime);
        peer.set_nonblocking(false).expect("it is a socket");
        peer.set_read_timeout(Some(common::LONG)).expect("it is a socket");
        let end = peer.read(&mut [0; 8]);
        assert!(end.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset), "{end:?}");
    });
}

/// More than a socket takes.
const LEN: usize = 20_000_000;
