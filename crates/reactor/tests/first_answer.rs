//! How long the first peer of a large batch waits for its answer, in calls of handlers.
#![cfg(unix)]

mod common;

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
};

use common::for_each_engine;
use reactor::{Context, Event, Handle, Id, Lines, Result, Runtime, Service, Stream};

const STREAMS: usize = 64;
/// The calls of handlers after which a turn writes what is queued.
const CALLS_MAX: usize = 1_024;

/// Answers each line, and looks whether the peer of the first one has got its answer.
#[derive(Default)]
struct Answers {
    /// The streams and their peers.
    pairs: Vec<(Id<Stream<Lines>>, UnixStream)>,
    first: Option<Id<Stream<Lines>>>,
    handled: usize,
    /// How many lines had been handled when the first answer was there.
    answered_at: Option<usize>,
}

impl Service for Answers {}

impl Handle<Stream<Lines>> for Answers {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream<Lines>>, event: Event<'_, Lines>) -> Result {
        let Event::Received(line) = event else { return Ok(()) };
        let first = *self.first.get_or_insert(id);
        let (_, peer) = self.pairs.iter_mut().find(|(of, _)| *of == first).expect("it was added");
        if self.answered_at.is_none() && peer.read(&mut [0; 16]).is_ok_and(|len| len > 0) {
            self.answered_at = Some(self.handled);
        }
        self.handled += 1;
        cx.send(id, line);
        Ok(())
    }
}

/// Returns after how many lines the first answer was there, of so many lines on each stream.
fn answered_at(mut runtime: Runtime, lines: usize) -> usize {
    let service = runtime.add(Answers::default()).expect("it starts");
    let text = "x\n".repeat(lines);
    for _ in 0..STREAMS {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let added = runtime.with(service, |service, cx| {
            let stream = Stream::new(Lines::new()).on(ours).expect("a socket");
            let id = cx.add(stream).map_err(|rejected| rejected.error).expect("there is room");
            service.pairs.push((id, theirs.try_clone().expect("a double")));
        });
        added.expect("it lives");
        theirs.set_nonblocking(true).expect("a socket");
        // `Open` is a call, too, and shall not count.
        runtime.turn(Some(std::time::Duration::ZERO)).expect("the engine is whole");
    }
    runtime
        .with(service, |service, _| {
            for (_, peer) in &mut service.pairs {
                peer.write_all(text.as_bytes()).expect("there is room");
            }
        })
        .expect("it lives");
    common::until(&mut runtime, |runtime| {
        runtime.service(service).expect("it lives").handled == STREAMS * lines
    });
    let service = runtime.service(service).expect("it lives");
    service.answered_at.unwrap_or(service.handled)
}

#[test]
fn the_first_answer_of_a_large_batch_leaves_after_at_most_1024_calls() {
    for_each_engine(|engine| {
        // A turn of few calls, of many on each stream, and of more on one stream than a turn takes.
        for lines in [1, 16, 100, 3_000] {
            let at = answered_at(engine.runtime(), lines);
            println!("{engine:?}: {lines} lines on each of {STREAMS} streams, answered after {at}");
            assert!(at <= CALLS_MAX.min(STREAMS * lines), "the first answer waited for {at} calls");
        }
    });
}
