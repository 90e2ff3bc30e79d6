//! H7 at runtime level: streams over the ends of pipes.

use std::{
    io::{Read as _, Write as _, pipe},
    os::{fd::AsFd as _, unix::net::UnixStream},
};

use reactor::stdio;

use super::prelude::*;

pub(super) const ROWS: &[Row] = &[
    row("H7r4", "a stream that is only read takes no output, and closes at once", SOCKETS, read_only),
    row("H7r5", "a stream that is only written flushes before it closes or finishes", SOCKETS, write_only),
    row("H7r6", "two paired pipes pass every byte and the end", SOCKETS, paired),
    row("H7r7", "a socket as standard input and output is left as it was", SOCKETS, shared_socket),
    row("H7r8", "a pipe released and added again goes on where it was", SOCKETS, released),
];

fn add(rig: &mut Rig, probe: ServiceId<Probe>, stream: Stream) -> Result<Id<Stream>, Stop> {
    Ok(rig.with(probe, |_, cx| cx.add(stream)).map_err(|rejected| rejected.error)?)
}

fn read_only(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let probe = rig.add(Probe::quiet())?;
    let (reader, mut writer) = pipe()?;
    let id = add(&mut rig, probe, Stream::new(Bytes).on(reader)?)?;
    rig.until("it is open", |rig| rig.get(probe).of(id) == [What::Open])?;
    let flow = rig.with(probe, |_, cx| cx.send(id, b"against the stream"));
    check!(flow == Flow::Gone, "a send was answered with {flow:?}");
    writer.write_all(b"in")?;
    rig.until("input arrives", |rig| rig.get(probe).received(id) == 2)?;
    // The peer stays alive, and the close would wait for it if there were data to flush.
    let began = rig.now();
    rig.with(probe, |_, cx| cx.close(id));
    rig.until("it has closed", |rig| !rig.get(probe).closed.is_empty())?;
    let took = rig.now() - began;
    check!(took < Duration::from_secs(1), "closing took {took:?}");
    check!(
        rig.get(probe).of(id) == [What::Open, What::got(b"in"), What::closed("Done")],
        "{:?}",
        rig.get(probe).of(id)
    );
    rig.until("the pipe is closed", |_| writer.write_all(b"late").is_err())?;
    rig.finish()
}

fn write_only(fixture: &mut Fixture<'_>) -> Outcome {
    for finishes in [false, true] {
        let mut rig = Rig::new(fixture)?;
        let probe = rig.add(Probe::quiet())?;
        let (mut reader, writer) = pipe()?;
        let id = add(&mut rig, probe, Stream::new(Bytes).on(writer)?)?;
        let bytes = pattern(300_000);
        rig.with(probe, |_, cx| {
            cx.send(id, &bytes);
            if finishes { cx.finish(id) } else { cx.close(id) }
        });
        let to_the_end = std::thread::spawn(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).map(|_| all)
        });
        rig.until("it has closed", |rig| !rig.get(probe).closed.is_empty())?;
        // An engine may close a descriptor later than it reports.
        rig.until("the reader has seen the end", |_| to_the_end.is_finished())?;
        let all = to_the_end.join().map_err(|_| "the reader panicked")??;
        check!(all == bytes, "{} of {} bytes came out", all.len(), bytes.len());
        check!(rig.get(probe).of(id).last() == Some(&What::closed("Done")), "{:?}", rig.get(probe).of(id));
        rig.finish()?;
    }
    Ok(())
}

fn paired(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let probe = rig.add(Probe::quiet())?;
    let (reader, mut into) = pipe()?;
    let (mut out, writer) = pipe()?;
    let input = add(&mut rig, probe, Stream::new(Bytes).on(reader)?)?;
    let output = add(&mut rig, probe, Stream::new(Bytes).on(writer)?)?;
    rig.with(probe, |_, cx| cx.pair(input, output))?;
    rig.get_mut(probe).act(move |cx, id, what| {
        if let (true, What::Got(bytes)) = (id == Some(input), what) {
            cx.send(output, bytes);
        }
        Ok(())
    });
    let bytes = pattern(1 << 20);
    let sent = bytes.clone();
    let writing = std::thread::spawn(move || into.write_all(&sent));
    let reading = std::thread::spawn(move || {
        let mut all = Vec::new();
        out.read_to_end(&mut all).map(|_| all)
    });
    rig.until("both have closed", |rig| rig.get(probe).closed.len() == 2)?;
    rig.until("the reader has seen the end", |_| reading.is_finished())?;
    writing.join().map_err(|_| "the writer panicked")??;
    check!(reading.join().map_err(|_| "the reader panicked")?? == bytes, "other bytes came out");
    rig.finish()
}

fn shared_socket(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let probe = rig.add(Probe::quiet())?;
    let (ours, mut peer) = UnixStream::pair()?;
    let input = add(&mut rig, probe, Stream::new(Bytes).through(stdio::input_from(ours.as_fd())?))?;
    let output = add(&mut rig, probe, Stream::new(Bytes).through(stdio::output_to(ours.as_fd())?))?;
    peer.write_all(b"in")?;
    rig.with(probe, |_, cx| cx.send(output, b"out"));
    rig.until("input arrives", |rig| rig.get(probe).received(input) == 2)?;
    let mut out = [0; 3];
    peer.read_exact(&mut out)?;
    // Input that no stream here reads belongs to another reader, so the runtime must not spin because of it.
    rig.with(probe, |_, cx| cx.close(input));
    rig.until("it has closed", |rig| rig.get(probe).closed.len() == 1)?;
    peer.write_all(b"for another")?;
    rig.settle()?;
    rig.rests()?;
    rig.with(probe, |_, cx| {
        cx.send(output, b"more");
        cx.close(output)
    });
    rig.until("both have closed", |rig| rig.get(probe).closed.len() == 2)?;
    peer.read_exact(&mut [0; 4])?;
    peer.set_nonblocking(true)?;
    let open = peer.read(&mut [0; 1]).err().map(|error| error.kind());
    check!(open == Some(ErrorKind::WouldBlock), "the peer was told an end: {open:?}");
    rig.finish()
}

fn released(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let probe = rig.add(Probe::quiet())?;
    let (reader, mut writer) = pipe()?;
    let id = add(&mut rig, probe, Stream::new(Bytes).on(reader)?)?;
    rig.until("it is open", |rig| !rig.get(probe).open.is_empty())?;
    rig.with(probe, |_, cx| cx.release(id))?;
    rig.until("it was released", |rig| !rig.get(probe).closed.is_empty())?;
    writer.write_all(b"meanwhile")?;
    let (_, stream, _) = rig.get_mut(probe).closed.remove(0);
    let again = rig.with(probe, |_, cx| cx.add(stream)).map_err(|rejected| rejected.error)?;
    rig.until("it goes on", |rig| rig.get(probe).received(again) == 9)?;
    let flow = rig.with(probe, |_, cx| cx.send(again, b"x"));
    check!(flow == Flow::Gone, "it became another medium: {flow:?}");
    drop(writer);
    rig.until("it has ended", |rig| rig.get(probe).of(again).last() == Some(&What::closed("End")))?;
    rig.finish()
}
