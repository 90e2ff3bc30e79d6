//! The runtime reports a stream's input in order: `Open` first, and the end last.
#![cfg(unix)]

use std::{io::Write, os::unix::net::UnixStream};

use reactor::{
    Bytes, Closed, Context, Event, Handle, Id, Layer, Lines, Result, Runtime, RuntimeOptions, Service,
    Stream,
    engine::Candidates,
    session::layer::{Io, Next, Step},
};

/// Records its events. Releases a stream when it opens for the first time, and adds it again.
#[derive(Default)]
struct Diary {
    told: Vec<String>,
    release: bool,
}

impl Service for Diary {}

impl<L: Layer> Handle<Stream<Bytes, L>> for Diary {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream<Bytes, L>>, event: Event<Bytes>) -> Result {
        self.told.push(match event {
            Event::Open => "open".to_owned(),
            Event::Received(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Event::End => "end".to_owned(),
            Event::Drained => "drained".to_owned(),
            Event::HungUp => "hung up".to_owned(),
        });
        if std::mem::take(&mut self.release) {
            cx.release(id)?;
        }
        Ok(())
    }

    fn closed(
        &mut self,
        cx: &mut Context<Self>,
        _: Id<Stream<Bytes, L>>,
        stream: Stream<Bytes, L>,
        why: Closed,
    ) {
        self.told.push(why.to_string());
        if let Closed::Released = why {
            cx.add(stream).map(drop).unwrap_or_else(|rejected| self.told.push(rejected.error.to_string()));
        }
    }
}

/// A layer that passes all bytes through, but is not transparent.
struct Identity;

impl Layer for Identity {
    const INPUT_MAX: usize = 1 << 20;

    fn start(&mut self, _: &mut Io<'_>) -> Result {
        Ok(())
    }

    fn ready(&self) -> bool {
        true
    }

    fn open(&mut self, input: &mut [u8], io: &mut Io<'_>) -> Result<Step> {
        io.up.extend_from_slice(input);
        Ok(Step { used: input.len(), next: Next::Wait })
    }

    fn seal(&mut self, clear: &[u8], io: &mut Io<'_>) -> Result<usize> {
        io.down.put(clear);
        Ok(clear.len())
    }

    fn finish(&mut self, _: &mut Io<'_>) -> Result {
        Ok(())
    }

    fn end(&mut self, _: &[u8]) -> Result {
        Ok(())
    }
}

/// Returns our end of a connection whose peer has written and ended its side.
fn written(bytes: &[u8]) -> UnixStream {
    let (ours, mut theirs) = UnixStream::pair().expect("a pair of sockets");
    theirs.write_all(bytes).expect("the peer writes");
    ours
}

/// Returns the events of a stream whose peer had written and ended its side before the stream was added.
fn told<L: Layer>(engine: &str, layer: L, release: bool) -> Vec<String> {
    let ours = written(b"early");
    let mut options = RuntimeOptions::default();
    options.engine = Some(engine.to_owned());
    let mut runtime = Runtime::with_options(options).expect("the engine opens");
    let diary = runtime.add(Diary { told: Vec::new(), release }).expect("it starts");
    let stream = Stream::over(Bytes, layer).on(ours).expect("a socket is a transport");
    let added = runtime.with(diary, |_, cx| cx.add(stream).map(drop).map_err(|rejected| rejected.error));
    added.expect("the service lives").expect("the stream is taken");
    runtime.run().expect("the engine works");
    runtime.service(diary).expect("it lives").told.clone()
}

#[test]
fn a_stream_added_with_input_opens_before_it_receives() {
    let expected = ["open", "early", "end", "ended by the peer"];
    for engine in Candidates::default().names() {
        assert_eq!(told(engine, (), false), expected, "{engine}");
        assert_eq!(told(engine, Identity, false), expected, "{engine}, with a layer");
    }
}

#[test]
fn a_stream_added_again_with_input_goes_on_with_it() {
    let expected = ["open", "released", "early", "end", "ended by the peer"];
    for engine in Candidates::default().names() {
        assert_eq!(told(engine, (), true), expected, "{engine}");
        assert_eq!(told(engine, Identity, true), expected, "{engine}, with a layer");
    }
}

/// Counts lines.
#[derive(Default)]
struct Count {
    lines: usize,
    ended_at: Option<usize>,
}

impl Service for Count {}

impl Handle<Stream<Lines>> for Count {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Stream<Lines>>, event: Event<Lines>) -> Result {
        match event {
            Event::Received(line) => {
                assert_eq!(line, "x", "line {}", self.lines);
                self.lines += 1;
            }
            Event::End => self.ended_at = Some(self.lines),
            Event::Open | Event::Drained | Event::HungUp => (),
        }
        Ok(())
    }
}

#[test]
fn items_beyond_the_share_of_one_turn_come_before_the_end() {
    // The share is 1024, so test both sides of it, and of twice its value.
    for lines in [1023, 1024, 1025, 2047, 2048, 2049, 5000] {
        for engine in Candidates::default().names() {
            let mut options = RuntimeOptions::default();
            options.engine = Some(engine.to_owned());
            let mut runtime = Runtime::with_options(options).expect("the engine opens");
            let count = runtime.add(Count::default()).expect("it starts");
            let stream = Stream::new(Lines::new()).on(written(&b"x\n".repeat(lines))).expect("a transport");
            let added =
                runtime.with(count, |_, cx| cx.add(stream).map(drop).map_err(|rejected| rejected.error));
            added.expect("the service lives").expect("the stream is taken");
            runtime.run().expect("the engine works").check().expect("no line is wrong");
            assert_eq!(runtime.service(count).expect("it lives").ended_at, Some(lines), "{engine}");
        }
    }
}
