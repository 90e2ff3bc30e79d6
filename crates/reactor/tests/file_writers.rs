//! Write-behind: the bytes sent to a file, its marks and its ends.
#![cfg(unix)]

mod common;
mod scratch;

use std::{fs, time::Duration};

use common::{for_each_engine, until, until_woken};
use reactor::{
    Closed, Context, Flow, Handle, Id, Receive, Result, Runtime, Service, ServiceId,
    file::{File, FileWriter, Operation, WriterEvent},
};
use rustix::event::{PollFd, PollFlags, poll};
use scratch::{Scratch, hang};

#[derive(Default)]
struct Scribe {
    drained: usize,
    synced: Vec<u64>,
    closed: Vec<(Closed, u64, usize)>,
}

impl Service for Scribe {}

impl Handle<FileWriter> for Scribe {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<FileWriter>, event: WriterEvent) -> Result {
        match event {
            WriterEvent::Drained => self.drained += 1,
            WriterEvent::Synced(bytes) => self.synced.push(bytes),
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<FileWriter>, writer: FileWriter, why: Closed) {
        self.closed.push((why, writer.written(), writer.unwritten()));
    }
}

struct Desk {
    runtime: Runtime,
    scribe: ServiceId<Scribe>,
}

impl Desk {
    fn new(engine: common::Engine) -> Desk {
        Desk::with_limits(engine, |_| ())
    }

    fn with_limits(engine: common::Engine, change: impl FnOnce(&mut reactor::Limits)) -> Desk {
        let mut runtime = engine.with(change);
        let scribe = runtime.add(Scribe::default()).expect("it starts");
        Desk { runtime, scribe }
    }

    fn with<T>(&mut self, f: impl FnOnce(&mut Scribe, &mut Context<Scribe>) -> T) -> T {
        self.runtime.with(self.scribe, f).expect("it lives")
    }

    fn add(&mut self, writer: FileWriter) -> Id<FileWriter> {
        self.with(|_, cx| cx.add(writer).map_err(|rejected| rejected.error)).expect("room")
    }

    fn until(&mut self, mut done: impl FnMut(&Scribe) -> bool) {
        let scribe = self.scribe;
        until(&mut self.runtime, |runtime| done(runtime.service(scribe).expect("it lives")));
    }

    fn closed(&mut self) -> (Closed, u64, usize) {
        self.until(|scribe| !scribe.closed.is_empty());
        self.with(|scribe, _| scribe.closed.remove(0))
    }
}

fn create(dir: &Scratch, name: &str) -> File {
    let path = dir.path(name);
    File::new(fs::File::create(&path).expect("made"), path)
}

#[test]
fn what_is_sent_is_in_the_file_in_order_when_it_has_closed() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let mut desk = Desk::new(engine);
        let content: Vec<u8> = (0..2_000_000_u32).map(|at| (at / 7 % 251) as u8).collect();
        for (name, synced) in [("one", false), ("two", true)] {
            let id = desk.add(FileWriter::new(create(&dir, name)).synced(synced));
            for piece in content.chunks(77_777) {
                assert_ne!(desk.with(|_, cx| cx.send(id, piece)), Flow::Gone);
                desk.runtime.turn(Some(Duration::ZERO)).expect("the engine is whole");
            }
            desk.with(|_, cx| cx.close(id));
            assert_eq!(desk.with(|_, cx| cx.send(id, b"too late")), Flow::Gone);
            assert!(matches!(desk.closed(), (Closed::Done, 2_000_000, 0)));
            assert!(fs::read(dir.path(name)).expect("it is there") == content, "{name}");
        }
    });
}

#[test]
fn a_sync_that_is_asked_for_says_up_to_where_all_is_safe() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let mut desk = Desk::new(engine);
        let id = desk.add(FileWriter::new(create(&dir, "log")));
        let ask =
            |desk: &mut Desk| desk.with(|_, cx| cx.get_mut(id).map(FileWriter::sync)).expect("it lives");
        desk.with(|_, cx| cx.send(id, &[b'a'; 300_000]));
        ask(&mut desk);
        // These bytes are sent after the first request, so the next sync covers them. It is requested while
        // the first one is in flight.
        desk.runtime.turn(Some(Duration::ZERO)).expect("the engine is whole");
        desk.with(|_, cx| cx.send(id, b"bb"));
        ask(&mut desk);
        desk.until(|scribe| scribe.synced.len() == 2);
        assert_eq!(desk.with(|scribe, _| scribe.synced.clone()), [300_000, 300_002]);
        assert_eq!(fs::metadata(dir.path("log")).expect("it is there").len(), 300_002);
        desk.with(|_, cx| {
            cx.get_mut(id).map(FileWriter::sync).expect("it lives");
            cx.close(id);
        });
        assert!(matches!(desk.closed(), (Closed::Done, 300_002, 0)));
        assert_eq!(desk.with(|scribe, _| scribe.synced.len()), 2, "after a close only `closed` comes");
    });
}

#[test]
fn an_empty_item_is_nothing_to_write_and_no_sync() {
    for_each_engine(|engine| {
        for items in [&[&b""[..], b""][..], &[b"important", b""], &[b"", b"important"]] {
            // A pipe cannot be synced: the end of the writer says whether it was asked to.
            let (reader, pipe) = std::io::pipe().expect("a pipe");
            let mut desk = Desk::new(engine);
            let file = File::new(fs::File::from(std::os::fd::OwnedFd::from(pipe)), "pipe");
            let id = desk.add(FileWriter::new(file).append().synced(true));
            for item in items {
                assert_eq!(desk.with(|_, cx| cx.send(id, item)), Flow::Queued);
                until(&mut desk.runtime, |runtime| {
                    let unwritten = runtime.with(desk.scribe, |_, cx| cx.get(id).map(FileWriter::unwritten));
                    unwritten == Some(Some(0))
                });
            }
            desk.with(|_, cx| cx.close(id));
            let (why, ..) = desk.closed();
            assert!(matches!(why, Closed::Failed(_)), "it was not synced: {items:?}: {why:?}");
            drop(reader);
        }
    });
}

#[test]
fn the_cap_is_what_the_service_says() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        for (bytes, fits) in [(99, true), (100, true), (101, false)] {
            let mut desk = Desk::new(engine);
            let id = desk.add(FileWriter::new(create(&dir, "small")).cap(100));
            let flow = desk.with(|_, cx| cx.send(id, &vec![0; bytes]));
            assert_eq!(flow != Flow::Gone, fits, "{bytes} bytes");
            desk.with(|_, cx| cx.close(id));
            let (why, ..) = desk.closed();
            assert_eq!(matches!(why, Closed::Overflow), !fits, "{why:?}");
        }
    });
}

#[test]
fn places_and_ends_are_where_they_were_asked_for() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let path = dir.file("file", b"0123456789");
        let mut desk = Desk::new(engine);
        let file = fs::OpenOptions::new().write(true).open(&path).expect("it is there");
        let id = desk.add(FileWriter::new(File::new(file, &path)).at(3));
        desk.with(|_, cx| (cx.send(id, b"ab"), cx.send(id, b"c"), cx.close(id)));
        desk.closed();
        let file = fs::OpenOptions::new().append(true).open(&path).expect("it is there");
        let id = desk.add(FileWriter::new(File::new(file, &path)).append());
        desk.with(|_, cx| (cx.send(id, b"end"), cx.close(id)));
        desk.closed();
        assert_eq!(fs::read(&path).expect("it is there"), b"012abc6789end");
        // Writing nothing is not an error either.
        let id = desk.add(FileWriter::new(create(&dir, "empty")).synced(true));
        desk.with(|_, cx| cx.close(id));
        assert!(matches!(desk.closed(), (Closed::Done, 0, 0)));
    });
}

/// Adds a writer for a file that takes nothing.
fn stuck(desk: &mut Desk) -> (scratch::Hung, Id<FileWriter>) {
    let hung = hang();
    let id = desk.add(FileWriter::new(hung.file.clone()).append());
    (hung, id)
}

#[test]
fn the_marks_hold_at_their_edges() {
    for_each_engine(|engine| {
        let mut desk = Desk::new(engine);
        let (hung, id) = stuck(&mut desk);
        let mut send = |bytes| desk.with(|_, cx| cx.send(id, &vec![7; bytes]));
        assert_eq!(send((256 << 10) - 1), Flow::Queued, "limit - 1");
        assert_eq!(send(1), Flow::Queued, "limit");
        assert_eq!(send(1), Flow::High, "limit + 1");
        assert_eq!(send((4 << 20) - (256 << 10) - 1), Flow::High, "the cap fits");
        assert_eq!(send(1), Flow::Gone, "the cap + 1");
        let (why, written, unwritten) = desk.closed();
        assert!(matches!(why, Closed::Overflow), "{why:?}");
        assert_eq!((written, unwritten), (0, (4 << 20) + 1));
        drop(hung);
    });
}

#[test]
fn a_writer_that_was_high_is_drained_once() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let mut desk = Desk::new(engine);
        let id = desk.add(FileWriter::new(create(&dir, "file")));
        assert_eq!(desk.with(|_, cx| cx.send(id, &[7; 300 << 10])), Flow::High);
        desk.until(|scribe| scribe.drained == 1);
        assert_eq!(desk.with(|_, cx| cx.send(id, b"more")), Flow::Queued);
        desk.with(|_, cx| cx.close(id));
        assert!(matches!(desk.closed(), (Closed::Done, ..)));
        assert_eq!(desk.with(|scribe, _| scribe.drained), 1);
    });
}

#[test]
fn a_full_disk_ends_that_writer_only_and_says_what_is_missing() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let mut desk = Desk::new(engine);
        let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
        let bad = desk.add(FileWriter::new(File::new(full, "/dev/full")));
        let good = desk.add(FileWriter::new(create(&dir, "good")));
        desk.with(|_, cx| (cx.send(bad, b"12345"), cx.send(good, b"12345")));
        let (why, written, unwritten) = desk.closed();
        assert_eq!(why.io().map(std::io::Error::kind), Some(std::io::ErrorKind::StorageFull));
        assert_eq!((written, unwritten), (0, 5));
        desk.with(|_, cx| cx.close(good));
        assert!(matches!(desk.closed(), (Closed::Done, 5, 0)));
    });
}

#[test]
fn a_write_that_hangs_does_not_hold_an_abort_or_the_stop() {
    for_each_engine(|engine| {
        let mut desk = Desk::new(engine);
        let (hung, id) = stuck(&mut desk);
        let (other, left) = stuck(&mut desk);
        desk.with(|_, cx| (cx.send(id, b"x"), cx.send(left, b"yz")));
        common::settle(&mut desk.runtime);
        desk.with(|_, cx| cx.abort(id));
        assert!(matches!(desk.closed(), (Closed::Aborted, 0, 1)));
        desk.with(|_, cx| cx.stop(common::SHORT));
        let receipt = desk.runtime.run().expect("it ends");
        assert_eq!((receipt.file_operations_running, receipt.cut, receipt.bytes_dropped), (2, 1, 3));
        drop((hung, other));
    });
}

#[test]
fn writers_that_find_no_room_wait_for_it_and_keep_their_order() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let mut desk =
            Desk::with_limits(engine, |limits| (limits.file_operations, limits.file_bytes) = (1, 100_000));
        let content: Vec<u8> = (0..600_000_u32).map(|at| (at / 7 % 251) as u8).collect();
        for number in 0..10 {
            let id = desk.add(FileWriter::new(create(&dir, &format!("file {number}"))).synced(true));
            for piece in content.chunks(50_000) {
                desk.with(|_, cx| cx.send(id, piece));
            }
            desk.with(|_, cx| cx.close(id));
        }
        desk.until(|scribe| scribe.closed.len() == 10);
        for number in 0..10 {
            assert!(fs::read(dir.path(format!("file {number}"))).expect("it is there") == content);
        }
    });
}

#[test]
fn a_writer_that_is_paused_while_it_waits_leaves_its_turn_to_the_next() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        // One, and more than the loop would call in one turn.
        for paused in [1, 200] {
            let mut desk = Desk::with_limits(engine, |limits| limits.file_operations = 1);
            let (hung, id) = stuck(&mut desk);
            desk.with(|_, cx| cx.send(id, b"x"));
            common::settle(&mut desk.runtime);
            let ids: Vec<_> = (0..=paused)
                .map(|number| desk.add(FileWriter::new(create(&dir, &format!("file {number}")))))
                .collect();
            let queued =
                |cx: &mut Context<Scribe>, id: &Id<FileWriter>| cx.send(*id, b"text") == Flow::Queued;
            assert!(desk.with(|_, cx| ids.iter().all(|id| queued(cx, id))));
            common::settle(&mut desk.runtime);
            desk.with(|_, cx| ids[..paused].iter().for_each(|id| cx.pause(*id)));
            drop(hung);
            desk.with(|_, cx| cx.close(ids[paused]));
            let scribe = desk.scribe;
            until_woken(&mut desk.runtime, |runtime| {
                runtime.service(scribe).is_some_and(|scribe| scribe.closed.len() == 2)
            });
            desk.with(|_, cx| ids[..paused].iter().for_each(|id| cx.close(*id)));
            desk.until(|scribe| scribe.closed.len() == paused + 2);
            let whole = (0..=paused)
                .all(|number| fs::read(dir.path(format!("file {number}"))).expect("it is there") == b"text");
            assert!(whole, "a pause loses nothing");
        }
    });
}

/// Submits an operation that hangs, and panics on command.
struct Doomed(File);

struct Answered;

impl Service for Doomed {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        cx.file(Operation::append(&self.0, *b"x"), |_| Answered)?;
        Ok(())
    }
}

impl Receive<Answered> for Doomed {
    fn receive(&mut self, _: &mut Context<Self>, Answered: Answered) -> Result {
        unreachable!("it has ended before")
    }
}

impl Receive<u8> for Doomed {
    fn receive(&mut self, _: &mut Context<Self>, _: u8) -> Result {
        std::panic::resume_unwind(Box::new("doomed"))
    }
}

#[test]
fn what_a_service_left_behind_gives_its_place_back_and_wakes_who_waits_for_it() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let hung = hang();
        let mut desk = Desk::with_limits(engine, |limits| limits.file_operations = 1);
        let doomed = desk.runtime.add(Doomed(hung.file.clone())).expect("it starts");
        let id = desk.add(FileWriter::new(create(&dir, "file")));
        desk.with(|_, cx| {
            cx.send(id, b"late");
            cx.close(id);
            cx.tell(doomed, 1_u8).map_err(|_| "gone").expect("it lives");
        });
        until(&mut desk.runtime, |runtime| runtime.service(doomed).is_none());
        common::settle(&mut desk.runtime);
        assert!(desk.with(|scribe, _| scribe.closed.is_empty()), "the only place is taken");
        // From here on the loop counts as asleep, so each event has to wake it.
        assert!(desk.runtime.next_deadline().is_none_or(|until| until > common::LONG));
        drop(hung);
        if let Some(fd) = desk.runtime.fd() {
            let patience = common::LONG.try_into().expect("it fits");
            let mut entry = [PollFd::new(&fd, PollFlags::IN)];
            assert_eq!(poll(&mut entry, Some(&patience)), Ok(1), "nobody woke the loop");
        }
        let receipt = desk.runtime.run().expect("it ends by itself");
        assert_eq!(receipt.file_operations_running, 0);
        let scribe = desk.runtime.service(desk.scribe).expect("it is there");
        assert!(matches!(scribe.closed[..], [(Closed::Done, 4, 0)]));
    });
}

/// Acknowledges what is safe, also what was sent shortly before a stop.
#[derive(Default)]
struct Log {
    file: Option<Id<FileWriter>>,
    safe: u64,
    is_stopping: bool,
    closed: Option<(Closed, u64)>,
}

impl Service for Log {
    fn stop(&mut self, cx: &mut Context<Self>) {
        self.is_stopping = true;
        self.file.and_then(|file| cx.get_mut(file).map(FileWriter::sync)).expect("it lives");
    }
}

impl Handle<FileWriter> for Log {
    fn handle(&mut self, cx: &mut Context<Self>, _: Id<FileWriter>, event: WriterEvent) -> Result {
        if let WriterEvent::Synced(safe) = event {
            assert!(self.is_stopping);
            self.safe = safe;
            cx.close_all();
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<FileWriter>, writer: FileWriter, why: Closed) {
        self.closed = Some((why, writer.written()));
    }
}

#[test]
fn a_stop_may_sync_and_acknowledge_before_it_closes() {
    for_each_engine(|engine| {
        for sent in [0, 300_000] {
            let dir = Scratch::new();
            let mut runtime = engine.runtime();
            let log = runtime.add(Log::default()).expect("it starts");
            let writer = FileWriter::new(create(&dir, "log"));
            runtime.with(log, |log, cx| {
                let file = cx.add(writer).expect("room");
                cx.send(file, &vec![7; sent]);
                cx.stop(common::LONG);
                log.file = Some(file);
            });
            let receipt = runtime.run().expect("the engine is whole").check().expect("nothing failed");
            assert_eq!((receipt.cut, receipt.bytes_dropped), (0, 0));
            let log = runtime.service(log).expect("it lives");
            assert_eq!(log.safe, sent as u64);
            assert!(matches!(log.closed, Some((Closed::Done, written)) if written == sent as u64));
        }
    });
}
