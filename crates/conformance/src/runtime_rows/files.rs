//! Files next to the loop: a file is truncated during a transfer, and a disk is full.
//!
//! A virtual engine has its own disk. The others use the system's, whether the engine or a thread performs
//! the operations.

use std::{
    convert::Infallible,
    path::PathBuf,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use reactor::{
    Error, Refused,
    file::{File, FileTransfer, OpenOptions, Opened, Operation},
};

use super::prelude::*;

pub(super) const ROWS: &[Row] = &[
    row("C10r3", "a file cut off while it is served ends that answer, and the next is whole", &[], cut_off),
    row("C10r4", "a close of everything lets a file that is under way leave whole", &[], closed_meanwhile),
    row(
        "O6r6",
        "a stream is released with a file under way, whose rest comes behind the next words",
        &[],
        released,
    ),
    // In virtual time the grace would pass while a real thread works. The simulator has its own test for its
    // disk.
    row("J1r5", "a stop waits for operations on files within its grace", SOCKETS, stopped),
    row("E9r", "a full disk is told to the operation that found it so, and to no other", &[], full),
];

/// Sends a part of a file to each client that connects.
#[derive(Default)]
struct Server {
    file: Option<File>,
    len: u64,
    streams: Vec<Id<Stream>>,
    transfers: Vec<Id<FileTransfer>>,
    ended: Vec<Closed>,
    /// The transfers that have ended, and the streams that were released.
    back: (Vec<FileTransfer>, Vec<Stream>),
    opened: Option<Result<Opened, Error>>,
    done: Option<Result<(), Error>>,
}

impl Service for Server {}

impl Handle<Stream> for Server {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
        if let Event::Open = event {
            let file = self.file.clone().ok_or("the row opens it first")?;
            self.streams.push(id);
            self.transfers.push(cx.send_file(id, file, 0..self.len)?);
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<Stream>, stream: Stream, why: Closed) {
        if matches!(why, Closed::Released) {
            self.back.1.push(stream);
        }
    }
}

impl Handle<FileTransfer> for Server {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<FileTransfer>, event: Infallible) -> Result {
        match event {}
    }

    fn closed(&mut self, cx: &mut Context<Self>, id: Id<FileTransfer>, transfer: FileTransfer, why: Closed) {
        if matches!(why, Closed::Released) {
            self.back.0.push(transfer);
            self.ended.push(why);
            return;
        }
        if let Some(at) = self.transfers.iter().position(|transfer| *transfer == id) {
            cx.close(self.streams[at]);
        }
        self.ended.push(why);
    }
}

impl Receive<Result<Opened, Error>> for Server {
    fn receive(&mut self, _: &mut Context<Self>, result: Result<Opened, Error>) -> Result {
        self.opened = Some(result);
        Ok(())
    }
}

impl Receive<Result<(), Error>> for Server {
    fn receive(&mut self, _: &mut Context<Self>, result: Result<(), Error>) -> Result {
        self.done = Some(result);
        Ok(())
    }
}

/// Makes a path for the row's own file, in a directory that exists on each disk.
fn path(rig: &mut Rig, server: ServiceId<Server>) -> Result<PathBuf, Stop> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let directory = std::env::temp_dir();
    // The engine's own disk is empty at first. On the system's, the directory exists already.
    let _ = done(rig, server, Operation::create_directory(&directory))?;
    Ok(directory.join(format!("reactor-conformance-{}-{number}", process::id())))
}

fn done(
    rig: &mut Rig,
    server: ServiceId<Server>,
    operation: Operation<()>,
) -> Result<Result<(), Error>, Stop> {
    let asked = rig.with(server, |_, cx| cx.file(operation, |result| result));
    check!(asked.is_ok(), "{asked:?}");
    rig.until("the operation is answered", |rig| rig.get(server).done.is_some())?;
    rig.get_mut(server).done.take().ok_or_else(|| "it was there".into())
}

fn open(
    rig: &mut Rig,
    server: ServiceId<Server>,
    path: PathBuf,
    how: OpenOptions,
) -> Result<Result<Opened, Error>, Stop> {
    let operation = Operation::open(path, how);
    let asked = rig.with(server, |_, cx| cx.file(operation, |result| result));
    check!(asked.is_ok(), "{asked:?}");
    rig.until("the file is open", |rig| rig.get(server).opened.is_some())?;
    rig.get_mut(server).opened.take().ok_or_else(|| "it was there".into())
}

/// A server in the middle of a file transfer to a client that has stopped reading.
struct UnderWay {
    path: PathBuf,
    file: File,
    server: ServiceId<Server>,
    client: ServiceId<Probe<Bytes>>,
    address: Address,
    first: Id<Stream>,
}

fn under_way(rig: &mut Rig, content: &[u8]) -> Result<UnderWay, Stop> {
    let len = content.len() as u64;
    let (server, client) = (rig.add(Server::default())?, rig.add(Probe::<Bytes>::quiet())?);
    let path = path(rig, server)?;
    let mut how = OpenOptions::write();
    how.read = true;
    let file = open(rig, server, path.clone(), how)??.file;
    done(rig, server, Operation::write_at(&file, 0, content))??;
    let address = rig.with(server, |server, cx| -> Result<_, Stop> {
        (server.file, server.len) = (Some(file.clone()), len);
        let listener = cx.listen("127.0.0.1:0", |_| Some(Stream::new(Bytes)))?;
        Ok(cx.local(listener)?)
    })?;
    let first = rig.connect(client, &address, Stream::new(Bytes))?;
    rig.until("some bytes came", |rig| rig.get(client).received(first) > 0)?;
    rig.with(client, |_, cx| cx.pause(first));
    rig.settle()?;
    Ok(UnderWay { path, file, server, client, address, first })
}

fn closed_meanwhile(fixture: &mut Fixture<'_>) -> Outcome {
    let len = sized(fixture, 20 << 20, 300_000) as u64;
    let mut rig = Rig::new(fixture)?;
    let UnderWay { path, server, client, first, .. } = under_way(&mut rig, &vec![0; len as usize])?;
    check!(rig.get(server).ended.is_empty(), "the whole file has left to nobody who reads");
    rig.with(server, |_, cx| cx.close_all());
    rig.settle()?;
    rig.with(client, |_, cx| cx.resume(first));
    rig.until("both have ended", |rig| {
        rig.get(client).closed.len() == 1 && rig.get(server).ended.len() == 1
    })?;
    let (ended, got) = (format!("{:?}", rig.get(server).ended), rig.get(client).received(first) as u64);
    check!(ended == "[Done]", "{ended}");
    check!(got == len, "{got} bytes instead of {len}");
    done(&mut rig, server, Operation::remove(path))??;
    rig.finish()
}

fn released(fixture: &mut Fixture<'_>) -> Outcome {
    for round in 0..2 {
        let content = pattern(sized(fixture, 12 << 20, 300_000));
        let mut rig = Rig::new(fixture)?;
        let UnderWay { path, file, server, client, first, .. } = under_way(&mut rig, &content)?;
        rig.with(client, |_, cx| cx.resume(first));
        for _ in 0..round {
            rig.turn(Duration::ZERO)?;
        }
        rig.with(server, |server, cx| cx.release(server.streams[0]))?;
        rig.until("it is released", |rig| !rig.get(server).back.1.is_empty())?;
        let (mut transfers, mut streams) = std::mem::take(&mut rig.get_mut(server).back);
        let (Some(transfer), Some(stream)) = (transfers.pop(), streams.pop()) else {
            return Err("the transfer did not end before its stream was given back".into());
        };
        let rest = transfer.rest();
        check!(rest.start == transfer.sent(), "{rest:?}, and {} were sent", transfer.sent());
        rig.with(server, |server, cx| -> Outcome {
            let id = cx.add(stream).map_err(|rejected| rejected.error)?;
            cx.send(id, WORDS);
            server.streams = vec![id];
            let transfer = cx.send_file(id, file, rest.clone()).map_err(|rejected| rejected.error)?;
            server.transfers = vec![transfer];
            Ok(())
        })?;
        rig.until("all has come", |rig| rig.get(client).closed.len() == 1)?;
        let (before, behind) = content.split_at(rest.start as usize);
        let got = rig.get(client).bytes(first);
        check!(got == [before, WORDS, behind].concat(), "round {round}: {} bytes, {rest:?} late", got.len());
        done(&mut rig, server, Operation::remove(path))??;
        rig.finish()?;
    }
    Ok(())
}

fn stopped(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let server = rig.add(Server::default())?;
    let path = path(&mut rig, server)?;
    let content = pattern(4 << 20);
    let operation = Operation::replace(&path, content.clone());
    let asked = rig.with(server, |_, cx| cx.file(operation, |result| result));
    check!(asked.is_ok(), "{asked:?}");
    rig.stop(Duration::from_secs(9));
    let receipt = rig.run()?.check()?;
    let left = receipt.file_operations_dropped + receipt.file_operations_running;
    check!(left == 0, "{receipt:?}");
    match rig.get_mut(server).done.take() {
        Some(result) => result?,
        None => return Err("the operation was not answered".into()),
    }
    check!(std::fs::read(&path)? == content, "not what was written");
    std::fs::remove_file(path)?;
    // The runtime refuses an operation above the limit, because it could never perform it.
    let mut rig = Rig::limited(fixture, |limits| limits.file_bytes = 100)?;
    let server = rig.add(Server::default())?;
    let asked = [100, 101].map(|len| {
        let operation = Operation::replace("/nowhere/at/all", vec![0; len]);
        rig.with(server, |_, cx| cx.file(operation, |result| result))
    });
    check!(asked[0].is_ok(), "{asked:?}");
    let told = matches!(asked[1], Err(Refused::TooLarge { asked: 101, limit: 100, .. }));
    check!(told, "{asked:?}");
    rig.until("the one that fits is answered", |rig| rig.get(server).done.is_some())?;
    rig.finish()
}

fn cut_off(fixture: &mut Fixture<'_>) -> Outcome {
    let len = sized(fixture, 64 << 20, 4 << 20) as u64;
    let mut rig = Rig::new(fixture)?;
    let UnderWay { path, file, server, client, address, first } =
        under_way(&mut rig, &vec![0; len as usize])?;
    done(&mut rig, server, Operation::set_len(&file, SHORT_LEN))??;
    rig.with(client, |_, cx| cx.resume(first));
    rig.until("the short answer has ended", |rig| {
        rig.get(client).closed.len() == 1 && rig.get(server).ended.len() == 1
    })?;
    let (ended, got) = (format!("{:?}", rig.get(server).ended), rig.get(client).received(first) as u64);
    check!(ended.starts_with("[Truncated"), "{ended}");
    check!(got < len, "{got} bytes of a file that was cut off");
    // The rest of the truncated file is served whole.
    rig.get_mut(server).len = SHORT_LEN;
    let second = rig.connect(client, &address, Stream::new(Bytes))?;
    rig.until("the whole answer has ended", |rig| rig.get(client).closed.len() == 2)?;
    let (ended, got) = (format!("{:?}", rig.get(server).ended), rig.get(client).received(second) as u64);
    check!(ended.ends_with(", Done]") && got == SHORT_LEN, "{ended}, {got} bytes");
    done(&mut rig, server, Operation::remove(path))??;
    rig.finish()
}

fn full(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let server = rig.add(Server::default())?;
    let path = path(&mut rig, server)?;
    let good = open(&mut rig, server, path.clone(), OpenOptions::write())??.file;
    let write = OpenOptions::with(|options| options.write = true);
    // Use full(4) of the system, or write beyond the end of the engine's own disk.
    let (bad, offset) = match open(&mut rig, server, "/dev/full".into(), write)? {
        Ok(opened) => (opened.file, 0),
        Err(_) if fixture.is_virtual() => (good.clone(), 1 << 40),
        Err(_) => {
            done(&mut rig, server, Operation::remove(path))??;
            return Err(Stop::Skipped("needs /dev/full, or a disk of the engine's own".to_owned()));
        }
    };
    let refused = done(&mut rig, server, Operation::write_at(&bad, offset, *b"x"))?;
    let kind = refused.as_ref().err().and_then(Error::io).map(std::io::Error::kind);
    check!(kind == Some(ErrorKind::StorageFull), "{refused:?}");
    done(&mut rig, server, Operation::write_at(&good, 0, *b"x"))??;
    done(&mut rig, server, Operation::remove(path))??;
    rig.finish()
}

const WORDS: &[u8] = b"the next owner's words";
/// The length of the file after the cut, in bytes.
const SHORT_LEN: u64 = 1_000;
