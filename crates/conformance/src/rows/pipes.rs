//! Transports of one direction: the two ends of a pipe, and transports that are not sockets.

use std::{
    fs::{File, OpenOptions},
    io::{PipeReader, PipeWriter, Read as _, Write as _, pipe},
    os::{fd::AsFd as _, unix::fs::OpenOptionsExt as _},
    process::Command,
};

use reactor::{engine::Medium, stdio};

use super::prelude::*;

pub(super) const ROWS: &[Row] = &[
    row("H7c", "a pipe is read to its end, and nothing is told before its time", SOCKETS, read_to_the_end),
    row("H7d", "what a pipe cannot take waits, and leaves byte for byte", SOCKETS, written_whole),
    row("H7e", "a pipe with nothing in it and no writer has ended", SOCKETS, ended_before),
    row("H7f", "a pipe's end is of one direction: the other is refused", SOCKETS, one_direction),
    row("H7g", "a pipe given back is the same pipe, with the rest of its bytes", SOCKETS, given_back),
    row("H7a", "the reader's leaving is told, and a write fails with EPIPE", SOCKETS, reader_leaves),
    row("H7b", "a write that waits for room fails when the reader leaves", SOCKETS, reader_leaves_while_full),
    row("A6b", "input from a file and output to one are whole, and end", SOCKETS, files),
    row("H7h", "an open file that others share is not made non-blocking", SOCKETS, shared_stays),
];

/// Makes a pipe whose reading end belongs to the engine.
fn reading(driver: &mut EngineDriver) -> Result<(Key, PipeWriter), Stop> {
    let (reader, writer) = pipe()?;
    Ok((driver.attach(Transport::adopt(reader)?, Role::Stream)?, writer))
}

/// Makes a pipe whose writing end belongs to the engine.
fn writing(driver: &mut EngineDriver) -> Result<(Key, PipeReader), Stop> {
    let (reader, writer) = pipe()?;
    Ok((driver.attach(Transport::adopt(writer)?, Role::Stream)?, reader))
}

fn read_to_the_end(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let (key, mut writer) = reading(driver)?;
    driver.settle(2)?;
    driver.rests()?;
    // Nobody else reads, but as many bytes as a pipe holds leave without waiting.
    let bytes = pattern(20_000);
    for part in bytes.chunks(5_000) {
        writer.write_all(part)?;
        let before = driver.events(key).bytes.len();
        driver.until("the part arrives", |driver| driver.events(key).bytes.len() >= before + part.len())?;
    }
    driver.settle(2)?;
    driver.rests()?;
    writer.write_all(b"last")?;
    drop(writer);
    driver.until("the end is told", |driver| driver.events(key).is_over())?;
    let told = driver.events(key);
    check!(told.ends == 1 && told.bytes[..bytes.len()] == bytes, "{} ends, other bytes", told.ends);
    check!(told.bytes[bytes.len()..] == *b"last", "what came before the end is told before it");
    driver.rests()
}

fn written_whole(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let (key, mut reader) = writing(driver)?;
    let bytes = pattern(1 << 20);
    driver.send(key, &bytes);
    let mut got = Vec::new();
    let mut buffer = [0; 3_000];
    while got.len() < bytes.len() {
        driver.turn(Duration::ZERO)?;
        driver.send_rest(key);
        // The sent bytes have arrived, so this read does not wait.
        while got.len() < driver.events(key).sent {
            let count = reader.read(&mut buffer)?;
            got.extend_from_slice(&buffer[..count]);
        }
    }
    check!(got == bytes, "what arrived differs");
    check!(driver.events(key).is_sent(), "something is left");
    driver.settle(2)?;
    driver.rests()?;
    driver.close(key);
    drop(driver.engine.next());
    driver.settle(2)?;
    check!(reader.read(&mut buffer)? == 0, "the reader sees the end");
    Ok(())
}

fn ended_before(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
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
        let key = driver.attach(transport, Role::Stream)?;
        driver.until("the end is told", |driver| driver.events(key).is_over())?;
        check!(driver.events(key).ends == 1, "{:?}", driver.events(key));
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

fn one_direction(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let (read, _writer) = reading(driver)?;
    let (written, _reader) = writing(driver)?;
    driver.send(read, b"against the stream");
    driver.until("the send is over", |driver| !driver.events(read).is_sending())?;
    check!(driver.events(read).send_failed.is_some(), "an end that is read took output");
    for key in [read, written] {
        check!(driver.engine.shutdown(key).is_err(), "half of a pipe was shut down");
        check!(!driver.events(key).is_over(), "and that ended it");
    }
    driver.settle(2)?;
    driver.rests()
}

fn given_back(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let (read, mut writer) = reading(driver)?;
    let (written, _reader) = writing(driver)?;
    writer.write_all(b"before")?;
    driver.until("it arrives", |driver| driver.events(read).bytes.len() == 6)?;
    for (key, medium) in [(read, Medium::READER), (written, Medium::WRITER)] {
        driver.detach(key);
        driver.until("it is given back", |driver| driver.events(key).detached.is_some())?;
        let transport = driver.events_mut(key).detached.take().ok_or("it was given back")?;
        check!(transport.medium() == medium, "{:?} became {:?}", medium, transport.medium());
        writer.write_all(b"behind")?;
        // This also holds if the engine refuses the transport.
        let key = driver.key();
        let refused =
            driver.engine.attach(key, transport, Role::Datagrams).err().ok_or("it has no datagrams")?;
        let transport = refused.transport;
        check!(transport.medium() == medium, "{:?} became {:?}", medium, transport.medium());
        let again = driver.attach(transport, Role::Stream)?;
        if medium == Medium::READER {
            driver.until("the rest arrives", |driver| driver.events(again).bytes == b"behind")?;
        }
    }
    Ok(())
}

fn reader_leaves(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let (key, reader) = writing(driver)?;
    driver.settle(2)?;
    check!(!driver.events(key).is_over(), "the reader is there");
    drop(reader);
    driver.until("its leaving is told", |driver| driver.events(key).is_over())?;
    check!(driver.events(key).ends == 1, "{:?}", driver.events(key).broken);
    driver.rests()?;
    driver.send(key, b"to nobody");
    driver.until("the send is over", |driver| !driver.events(key).is_sending())?;
    let failed = driver.events(key).send_failed.as_ref().map(std::io::Error::kind);
    check!(failed == Some(ErrorKind::BrokenPipe), "the send ended with {failed:?}");
    Ok(())
}

fn reader_leaves_while_full(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let (key, reader) = writing(driver)?;
    // The runtime wants no input. The engine must nevertheless report the failure of a send that waits for
    // room.
    driver.engine.reading(key, false);
    driver.send(key, &pattern(1 << 20));
    for _ in 0..4 {
        driver.turn(Duration::ZERO)?;
        driver.send_rest(key);
    }
    check!(driver.events(key).is_sending(), "a pipe takes no megabyte");
    driver.rests()?;
    drop(reader);
    driver.until("the send is over", |driver| !driver.events(key).is_sending())?;
    let failed = driver.events(key).send_failed.as_ref().map(std::io::Error::kind);
    check!(failed == Some(ErrorKind::BrokenPipe), "the send ended with {failed:?}");
    Ok(())
}

fn files(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let bytes = pattern(300_000);
    let file = Unnamed::new()?;
    let written = driver.attach(stdio::output_to(file.0.as_fd())?, Role::Stream)?;
    driver.send(written, &bytes);
    driver.until("all is written", |driver| {
        driver.send_rest(written);
        driver.events(written).is_sent()
    })?;
    driver.rests()?;
    driver.close(written);
    let mut input = file.again()?;
    let read = driver.attach(stdio::input_from(input.as_fd())?, Role::Stream)?;
    driver.until("the end is told", |driver| driver.events(read).is_over())?;
    check!(driver.events(read).bytes == bytes, "{} bytes came", driver.events(read).bytes.len());
    check!(input.read(&mut [0])? == 0, "it was read through the file that was given");
    driver.close(read);
    let nothing = File::open("/dev/null")?;
    let read = driver.attach(stdio::input_from(nothing.as_fd())?, Role::Stream)?;
    driver.until("the end is told", |driver| driver.events(read).is_over())?;
    check!(
        driver.events(read).bytes.is_empty() && driver.events(read).ends == 1,
        "{:?}",
        driver.events(read)
    );
    #[cfg(any(target_os = "linux", target_os = "android"))]
    unreadable(driver)?;
    let folder = File::open("/")?;
    check!(stdio::input_from(folder.as_fd()).is_err(), "a folder was taken for input");
    Ok(())
}

/// Checks that the engine reports a read error of a file as a failure, and not as an end. The file is this
/// process's own memory, which is unmapped at its beginning and behind the stack.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn unreadable(driver: &mut EngineDriver) -> Outcome {
    use std::io::{Seek as _, SeekFrom};

    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let stack = maps.lines().find(|line| line.ends_with("[stack]"));
    let end = stack.and_then(|line| line.split(['-', ' ']).nth(1));
    let end = u64::from_str_radix(end.unwrap_or("0"), 16).map_err(|error| error.to_string())?;
    for (at, least) in [(0, 0), (end.saturating_sub(1_000), 1_000)] {
        let mut memory = File::open("/proc/self/mem")?;
        memory.seek(SeekFrom::Start(at))?;
        let read = driver.attach(stdio::input_from(memory.as_fd())?, Role::Stream)?;
        driver.until("the end is told", |driver| driver.events(read).is_over())?;
        let told = driver.events(read);
        check!(told.ends == 0 && told.broken.len() == 1, "a read error was told as an end");
        check!(told.bytes.len() >= least, "{} bytes came before it", told.bytes.len());
        driver.close(read);
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

fn shared_stays(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let (mut reader, writer) = pipe()?;
    let (theirs, mut input) = pipe()?;
    let written = driver.attach(stdio::output_to(writer.as_fd())?, Role::Stream)?;
    let read = driver.attach(stdio::input_from(theirs.as_fd())?, Role::Stream)?;
    for descriptor in [writer.as_fd(), theirs.as_fd()] {
        check!(!is_nonblocking(descriptor)?, "whoever shares it would find it non-blocking");
    }
    input.write_all(b"in")?;
    driver.send(written, b"out");
    driver.until("both have moved", |driver| {
        driver.events(read).bytes == b"in" && driver.events(written).is_sent()
    })?;
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
