//! Transports of one direction: the two ends of a pipe, and transports that are not sockets.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, PipeReader, PipeWriter, Read as _, Write as _, pipe},
    os::{fd::AsFd as _, unix::fs::OpenOptionsExt as _},
    process::Command,
    time::Duration,
};

use reactor::{
    engine::{Medium, Role, Transport},
    stdio,
};

use super::pattern;
use crate::{
    drive::Drive,
    suite::{Need, Outcome, Row, Stop, check},
    world::World,
};

pub(super) const ROWS: &[Row] = &[
    row("H7c", "a pipe is read to its end, and nothing is told before its time", read_to_the_end),
    row("H7d", "what a pipe cannot take waits, and leaves byte for byte", written_whole),
    row("H7e", "a pipe with nothing in it and no writer has ended", ended_before),
    row("H7f", "a pipe's end is of one direction: the other is refused", one_direction),
    row("H7g", "a pipe given back is the same pipe, with the rest of its bytes", given_back),
    row("H7a", "the reader's leaving is told, and a write fails with EPIPE", reader_leaves),
    row("H7b", "a write that waits for room fails when the reader leaves", reader_leaves_while_full),
    row("A6b", "input from a file and output to one are whole, and end", files),
    row("H7h", "an open file that others share is not made non-blocking", shared_stays),
];

const fn row(id: &'static str, name: &'static str, run: fn(&mut World<'_>) -> Outcome) -> Row {
    Row { id, name, needs: &[Need::Sockets], slow: false, run }
}

/// Makes a pipe whose reading end belongs to the engine.
fn reading(drive: &mut Drive) -> Result<(reactor::Key, PipeWriter), Stop> {
    let (reader, writer) = pipe()?;
    Ok((drive.attach(Transport::adopt(reader)?, Role::Stream)?, writer))
}

/// Makes a pipe whose writing end belongs to the engine.
fn writing(drive: &mut Drive) -> Result<(reactor::Key, PipeReader), Stop> {
    let (reader, writer) = pipe()?;
    Ok((drive.attach(Transport::adopt(writer)?, Role::Stream)?, reader))
}

fn read_to_the_end(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let (key, mut writer) = reading(drive)?;
    drive.settle(2)?;
    drive.rests()?;
    // Nobody else reads, but as many bytes as a pipe holds leave without waiting.
    let bytes = pattern(20_000);
    for part in bytes.chunks(5_000) {
        writer.write_all(part)?;
        let before = drive.told(key).bytes.len();
        drive.until("the part arrives", |drive| drive.told(key).bytes.len() >= before + part.len())?;
    }
    drive.settle(2)?;
    drive.rests()?;
    writer.write_all(b"last")?;
    drop(writer);
    drive.until("the end is told", |drive| drive.told(key).is_over())?;
    let told = drive.told(key);
    check!(told.ends == 1 && told.bytes[..bytes.len()] == bytes, "{} ends, other bytes", told.ends);
    check!(told.bytes[bytes.len()..] == *b"last", "what came before the end is told before it");
    drive.rests()
}

fn written_whole(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let (key, mut reader) = writing(drive)?;
    let bytes = pattern(1 << 20);
    drive.send(key, &bytes);
    let mut got = Vec::new();
    let mut buffer = [0; 3_000];
    while got.len() < bytes.len() {
        drive.turn(Duration::ZERO)?;
        drive.send_rest(key);
        // The sent bytes have arrived, so this read does not wait.
        while got.len() < drive.told(key).sent {
            let count = reader.read(&mut buffer)?;
            got.extend_from_slice(&buffer[..count]);
        }
    }
    check!(got == bytes, "what arrived differs");
    check!(drive.told(key).is_sent(), "something is left");
    drive.settle(2)?;
    drive.rests()?;
    drive.close(key);
    drop(drive.engine.next());
    drive.settle(2)?;
    check!(reader.read(&mut buffer)? == 0, "the reader sees the end");
    Ok(())
}

fn ended_before(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let (reader, writer) = pipe()?;
    drop(writer);
    // A named pipe that is opened anew after its last writer left would never report the end.
    let named = named_without_writer()?;
    let transports = [
        Transport::adopt(reader.try_clone()?)?,
        stdio::input_from(reader.as_fd())?,
        stdio::input_from(named.as_fd())?,
    ];
    for transport in transports {
        let key = drive.attach(transport, Role::Stream)?;
        drive.until("the end is told", |drive| drive.told(key).is_over())?;
        check!(drive.told(key).ends == 1, "{:?}", drive.told(key));
    }
    Ok(())
}

/// Opens the reading end of a named pipe that had a writer.
fn named_without_writer() -> Result<File, Stop> {
    let path = std::env::temp_dir().join(format!("reactor-row-pipe-{}", std::process::id()));
    check!(Command::new("mkfifo").arg(&path).status()?.success(), "there is no pipe with a name");
    let open = |read: bool| {
        let flags = if read { libc::O_NONBLOCK } else { 0 };
        OpenOptions::new().read(read).write(!read).custom_flags(flags).open(&path)
    };
    let reader = open(true)?;
    drop(open(false)?);
    std::fs::remove_file(&path)?;
    Ok(reader)
}

fn one_direction(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let (read, _writer) = reading(drive)?;
    let (written, _reader) = writing(drive)?;
    drive.send(read, b"against the stream");
    drive.until("the send is over", |drive| !drive.told(read).is_sending())?;
    check!(drive.told(read).send_failed.is_some(), "an end that is read took output");
    for key in [read, written] {
        check!(drive.engine.shutdown(key).is_err(), "half of a pipe was shut down");
        check!(!drive.told(key).is_over(), "and that ended it");
    }
    drive.settle(2)?;
    drive.rests()
}

fn given_back(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let (read, mut writer) = reading(drive)?;
    let (written, _reader) = writing(drive)?;
    writer.write_all(b"before")?;
    drive.until("it arrives", |drive| drive.told(read).bytes.len() == 6)?;
    for (key, medium) in [(read, Medium::READER), (written, Medium::WRITER)] {
        drive.detach(key);
        drive.until("it is given back", |drive| drive.told(key).detached.is_some())?;
        let transport = drive.note(key).detached.take().ok_or("it was given back")?;
        check!(transport.medium() == medium, "{:?} became {:?}", medium, transport.medium());
        writer.write_all(b"behind")?;
        // This also holds if the engine refuses the transport.
        let key = drive.key();
        let refused =
            drive.engine.attach(key, transport, Role::Datagrams).err().ok_or("it has no datagrams")?;
        let transport = refused.transport;
        check!(transport.medium() == medium, "{:?} became {:?}", medium, transport.medium());
        let again = drive.attach(transport, Role::Stream)?;
        if medium == Medium::READER {
            drive.until("the rest arrives", |drive| drive.told(again).bytes == b"behind")?;
        }
    }
    Ok(())
}

fn reader_leaves(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let (key, reader) = writing(drive)?;
    drive.settle(2)?;
    check!(!drive.told(key).is_over(), "the reader is there");
    drop(reader);
    drive.until("its leaving is told", |drive| drive.told(key).is_over())?;
    check!(drive.told(key).ends == 1, "{:?}", drive.told(key).broken);
    drive.rests()?;
    drive.send(key, b"to nobody");
    drive.until("the send is over", |drive| !drive.told(key).is_sending())?;
    let failed = drive.told(key).send_failed.as_ref().map(std::io::Error::kind);
    check!(failed == Some(ErrorKind::BrokenPipe), "the send ended with {failed:?}");
    Ok(())
}

fn reader_leaves_while_full(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let (key, reader) = writing(drive)?;
    // The runtime wants no input. The engine must nevertheless report the failure of a send that waits for
    // room.
    drive.engine.reading(key, false);
    drive.send(key, &pattern(1 << 20));
    for _ in 0..4 {
        drive.turn(Duration::ZERO)?;
        drive.send_rest(key);
    }
    check!(drive.told(key).is_sending(), "a pipe takes no megabyte");
    drive.rests()?;
    drop(reader);
    drive.until("the send is over", |drive| !drive.told(key).is_sending())?;
    let failed = drive.told(key).send_failed.as_ref().map(std::io::Error::kind);
    check!(failed == Some(ErrorKind::BrokenPipe), "the send ended with {failed:?}");
    Ok(())
}

fn files(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let bytes = pattern(300_000);
    let file = Unnamed::new()?;
    let written = drive.attach(stdio::output_to(file.0.as_fd())?, Role::Stream)?;
    drive.send(written, &bytes);
    drive.until("all is written", |drive| {
        drive.send_rest(written);
        drive.told(written).is_sent()
    })?;
    drive.rests()?;
    drive.close(written);
    let mut input = file.again()?;
    let read = drive.attach(stdio::input_from(input.as_fd())?, Role::Stream)?;
    drive.until("the end is told", |drive| drive.told(read).is_over())?;
    check!(drive.told(read).bytes == bytes, "{} bytes came", drive.told(read).bytes.len());
    check!(input.read(&mut [0])? == 0, "it was read through the file that was given");
    drive.close(read);
    let nothing = File::open("/dev/null")?;
    let read = drive.attach(stdio::input_from(nothing.as_fd())?, Role::Stream)?;
    drive.until("the end is told", |drive| drive.told(read).is_over())?;
    check!(drive.told(read).bytes.is_empty() && drive.told(read).ends == 1, "{:?}", drive.told(read));
    #[cfg(any(target_os = "linux", target_os = "android"))]
    unreadable(drive)?;
    let folder = File::open("/")?;
    check!(stdio::input_from(folder.as_fd()).is_err(), "a folder was taken for input");
    Ok(())
}

/// Checks that the engine reports a read error of a file as a failure, and not as an end. The file is this
/// process's own memory, which is unmapped at its beginning and behind the stack.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn unreadable(drive: &mut Drive) -> Outcome {
    use std::io::{Seek as _, SeekFrom};

    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let stack = maps.lines().find(|line| line.ends_with("[stack]"));
    let end = stack.and_then(|line| line.split(['-', ' ']).nth(1));
    let end = u64::from_str_radix(end.unwrap_or("0"), 16).map_err(|error| error.to_string())?;
    for (at, least) in [(0, 0), (end.saturating_sub(1_000), 1_000)] {
        let mut memory = File::open("/proc/self/mem")?;
        memory.seek(SeekFrom::Start(at))?;
        let read = drive.attach(stdio::input_from(memory.as_fd())?, Role::Stream)?;
        drive.until("the end is told", |drive| drive.told(read).is_over())?;
        let told = drive.told(read);
        check!(told.ends == 0 && told.broken.len() == 1, "a read error was told as an end");
        check!(told.bytes.len() >= least, "{} bytes came before it", told.bytes.len());
        drive.close(read);
    }
    Ok(())
}

/// A file with a path, which is removed at the end.
struct Unnamed(File, std::path::PathBuf);

impl Unnamed {
    fn new() -> Result<Unnamed, Stop> {
        let path = std::env::temp_dir().join(format!("reactor-row-{}", std::process::id()));
        let file = File::create(&path)?;
        Ok(Unnamed(file, path))
    }

    fn again(&self) -> Result<File, Stop> {
        Ok(File::open(&self.1)?)
    }
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        // A failing row has already reported its reason.
        let _ = std::fs::remove_file(&self.1);
    }
}

fn shared_stays(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let (mut reader, writer) = pipe()?;
    let (theirs, mut input) = pipe()?;
    let written = drive.attach(stdio::output_to(writer.as_fd())?, Role::Stream)?;
    let read = drive.attach(stdio::input_from(theirs.as_fd())?, Role::Stream)?;
    for descriptor in [writer.as_fd(), theirs.as_fd()] {
        check!(!is_nonblocking(descriptor)?, "whoever shares it would find it non-blocking");
    }
    input.write_all(b"in")?;
    drive.send(written, b"out");
    drive
        .until("both have moved", |drive| drive.told(read).bytes == b"in" && drive.told(written).is_sent())?;
    let mut out = [0; 3];
    reader.read_exact(&mut out)?;
    check!(&out == b"out", "{out:?} came out");
    Ok(())
}

fn is_nonblocking(descriptor: std::os::fd::BorrowedFd<'_>) -> Result<bool, Stop> {
    // /proc shows the flags of the open file in octal.
    let number = std::os::fd::AsRawFd::as_raw_fd(&descriptor);
    let Ok(info) = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")) else {
        return Err(Stop::Skipped("needs /proc/self/fdinfo".to_owned()));
    };
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or("0");
    let flags = i32::from_str_radix(flags.trim(), 8).map_err(|error| error.to_string())?;
    Ok(flags & libc::O_NONBLOCK != 0)
}
