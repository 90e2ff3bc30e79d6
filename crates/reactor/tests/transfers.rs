//! File transfers to streams: complete, no faster than the peer reads, and over at the end of the file.
#![cfg(unix)]

mod common;
mod scratch;
mod sending;

use std::{
    fs,
    io::Write,
    net::{Shutdown, TcpStream},
};

use common::for_each_engine;
use reactor::{Closed, Context};
use scratch::Scratch;
use sending::Stage;

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
            // A graceful close waits for the transfer, too.
            drop(peer);
            stage.until(|sender| sender.closed.len() == 1);
            assert!(matches!(stage.sender().ended[..], [(Closed::Done, sent)] if sent == len as u64));
            assert_eq!(stage.sender().drained, 0, "the transfer's marks are not the service's");
        }
    });
}

#[test]
#[cfg(target_os = "linux")]
fn a_file_is_not_copied_because_what_was_sent_before_is_still_on_its_way() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let content = content(8 << 10);
        let mut stage = Stage::new(engine, &dir.file("file", &content), false);
        let mut peer = stage.connect();
        assert!(stage.read(&mut peer, usize::MAX) == whole(&content));
        let read = stage.runtime.metrics().read().bytes_in;
        assert_eq!(read, 0, "bytes were read into this process");
    });
}

#[test]
fn a_file_waits_for_what_was_sent_before_it_and_finds_no_room() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let (head, content) = (vec![b'h'; 12 << 20], content(100_000));
        let path = dir.file("file", &content);
        let mut stage = Stage::made(engine, &path, |_| (), |sender| sender.head = head.clone());
        let mut peer = stage.connect();
        // The kernel takes a part of the head only.
        stage.until(|sender| !sender.transfers.is_empty());
        common::settle(&mut stage.runtime);
        assert!(stage.read(&mut peer, usize::MAX) == [&head[..], &content, b"tail"].concat());
    });
}

#[test]
fn a_stream_that_is_on_its_way_out_takes_no_file() {
    type Leave = fn(&mut Context<sending::Sender>, reactor::Id<reactor::Stream>);
    let ways: [Leave; 3] =
        [|cx, id| cx.close(id), |cx, id| cx.finish(id), |cx, id| cx.release(id).expect("it lives")];
    for_each_engine(|engine| {
        for leave in ways {
            let dir = Scratch::new();
            let path = dir.sparse("sparse", 1 << 30);
            let mut stage = Stage::new(engine, &path, true);
            let peer = stage.connect();
            stage.until(|sender| !sender.transfers.is_empty());
            let refused = stage.with(|sender, cx| {
                let (stream, transfer) = (sender.streams[0], sender.transfers[0]);
                sender.keeps_open = true;
                cx.abort(transfer);
                leave(cx, stream);
                cx.send_file(stream, sender.file.clone(), 0..1).is_err()
            });
            assert!(refused);
            drop(peer);
        }
    });
}

#[test]
fn a_file_is_read_no_faster_than_the_peer_takes_it() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let path = dir.sparse("sparse", 1 << 30);
        let mut stage = Stage::new(engine, &path, false);
        let mut peer = stage.connect();
        stage.until(|sender| !sender.transfers.is_empty());
        // Wait until the kernel takes no more bytes.
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
        // If a limit allows nothing, the transfer fails, and does not wait for ever.
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
fn a_range_that_ends_before_it_begins_is_refused_in_words() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let path = dir.file("file", b"0123456789");
        let mut stage = Stage::made(engine, &path, |_| (), |sender| sender.keeps_open = true);
        let _peer = stage.connect();
        stage.until(|sender| sender.ended.len() == 1);
        let sender = stage.sender;
        let mut send = |begin, end| {
            let send = |sender: &mut sending::Sender, cx: &mut Context<sending::Sender>| {
                let sent = cx.send_file(sender.streams[0], sender.file.clone(), begin..end);
                sender.transfers.extend(sent.as_ref().ok());
                sent
            };
            stage.runtime.with(sender, send).expect("it lives")
        };
        let rejected = send(5, 4).expect_err("backwards");
        assert!(rejected.error.to_string().contains("ends before it begins"), "{}", rejected.error);
        assert_eq!(rejected.resource.left(), 0);
        send(5, 5).expect("nothing is a range, too");
    });
}

#[test]
fn a_transfer_that_is_paused_while_it_waits_leaves_its_turn_to_the_next() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let content = content(300_000);
        let path = dir.file("file", &content);
        let mut stage = Stage::with_limits(engine, &path, false, |limits| limits.file_operations = 1);
        let hung = scratch::hang();
        let sender = stage.sender;
        let operation = reactor::file::Operation::append(&hung.file, *b"x");
        stage.runtime.with(sender, |_, cx| cx.file(operation, |_| sending::HeldUp).expect("room"));
        let mut peers: Vec<TcpStream> = (0..2).map(|_| stage.connect()).collect();
        stage.until(|sender| sender.transfers.len() == 2);
        common::settle(&mut stage.runtime);
        stage.runtime.with(sender, |sender, cx| cx.pause(sender.transfers[0]));
        drop(hung);
        // It begins without anything else that would wake the loop.
        common::until_woken(&mut stage.runtime, |runtime| {
            let sent = |sender: &mut sending::Sender, cx: &mut Context<_>| {
                cx.get(sender.transfers[1]).is_none_or(|transfer| transfer.sent() > 0)
            };
            runtime.with(sender, sent).expect("it lives")
        });
        assert!(stage.read(&mut peers[1], usize::MAX) == whole(&content));
        stage.runtime.with(sender, |sender, cx| cx.resume(sender.transfers[0]));
        assert!(stage.read(&mut peers[0], usize::MAX) == whole(&content));
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
        // The loop lives on, and serves the shorter file as far as it was announced.
        let sender = stage.sender;
        stage.runtime.with(sender, |sender, _| sender.len = 1 << 20);
        let mut peer = stage.connect();
        assert_eq!(stage.read(&mut peer, usize::MAX).len(), (1 << 20) + 8);
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
            // Without `half_open` the stream closes when the transfer is over, and does not send a tail.
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
        let path = dir.sparse("file", 1 << 30);
        let mut stage = Stage::new(engine, &path, false);
        let peer = stage.connect();
        stage.until(|sender| sender.transfers.len() == 1);
        let sender = stage.sender;
        let is_refused = stage.runtime.with(sender, |sender, cx| {
            let second = cx.send_file(sender.streams[0], sender.file.clone(), 0..1).is_err();
            sender.keeps_open = true;
            cx.abort(sender.transfers[0]);
            second
        });
        assert_eq!(is_refused, Some(true));
        // The stream is free again once the transfer has ended and no thread moves a part of it.
        stage.until(|sender| sender.ended.len() == 1);
        let is_free = stage.runtime.with(sender, |sender, cx| {
            let id =
                cx.send_file(sender.streams[0], sender.file.clone(), 0..1).map_err(|rejected| rejected.error);
            id.map(|id| sender.transfers.push(id)).is_ok()
        });
        assert_eq!(is_free, Some(true));
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

#[test]
fn a_stream_with_a_transfer_is_not_paired() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let path = dir.sparse("file", 1 << 30);
        let mut stage = Stage::new(engine, &path, false);
        let _peers = [stage.connect(), stage.connect()];
        stage.until(|sender| sender.transfers.len() == 2);
        let refused = stage
            .runtime
            .with(stage.sender, |sender, cx| cx.pair(sender.streams[0], sender.streams[1]))
            .expect("it lives");
        let text = refused.expect_err("they are bound to transfers").to_string();
        assert_eq!(text, "pair: one is paired, or has a transfer");
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
