//! N and O at runtime level: who waits for whom, and for how long.

use reactor::{
    Bytes, Closed, Context, Id, Layer, Phase, Result, Stream, StreamOptions,
    session::{Io, Next, Step},
};

use super::{
    SHORT,
    probe::{Probe, What},
    rig::Rig,
    row,
};
use crate::{
    rows::pattern,
    suite::{Outcome, Row, check},
    world::World,
};

pub(super) const ROWS: &[Row] = &[
    row("N11r", "output that waits for a handshake makes no turns", &[], silent_handshake),
    row("N11r2", "an end that waits for a handshake makes no turns", &[], silent_handshake_with_end),
];

/// A layer that greets, and whose handshake waits for an answer.
struct Greeting;

impl Layer for Greeting {
    const INPUT_MAX: usize = 16;

    fn start(&mut self, io: &mut Io<'_>) -> Result {
        io.down.put(b"hello");
        Ok(())
    }

    fn ready(&self) -> bool {
        false
    }

    fn open(&mut self, _: &mut [u8], _: &mut Io<'_>) -> Result<Step> {
        Ok(Step { used: 0, next: Next::Wait })
    }

    fn seal(&mut self, clear: &[u8], _: &mut Io<'_>) -> Result<usize> {
        Ok(clear.len())
    }
}

fn silent_handshake(world: &mut World<'_>) -> Outcome {
    silent(world, |cx, id| _ = cx.send(id, &pattern(5_000)))
}

fn silent_handshake_with_end(world: &mut World<'_>) -> Outcome {
    silent(world, |cx, id| {
        cx.send(id, &pattern(5_000));
        cx.finish(id);
    })
}

type Greeted = Probe<Bytes, Greeting>;

fn silent(
    world: &mut World<'_>,
    act: impl FnOnce(&mut Context<'_, Greeted>, Id<Stream<Bytes, Greeting>>),
) -> Outcome {
    let mut rig = Rig::new(world)?;
    let server = rig.add(Probe::<Bytes>::quiet())?;
    let client = rig.add(Greeted::quiet())?;
    let (_, address) = rig.listen(server, || Stream::new(Bytes).half_open(true))?;
    let options = StreamOptions { handshake: 10 * SHORT, ..StreamOptions::DEFAULT };
    let id = rig.connect(client, &address, Stream::over(Bytes, Greeting).options(options))?;
    rig.with(client, |_, cx| act(cx, id));
    rig.until("the greeting has arrived", |rig| {
        rig.get(server).open.first().is_some_and(|id| rig.get(server).received(*id) == 5)
    })?;
    rig.settle()?;
    let before = rig.counters();
    rig.rests()?;
    let empty = rig.counters().turns_empty - before.turns_empty;
    check!(empty == 0, "{empty} turns were asked for, and nothing happened in them");
    rig.until("the handshake has ended", |rig| rig.get(client).closed.len() == 1)?;
    let (_, stream, why) = &rig.get(client).closed[0];
    check!(matches!(why, Closed::TimedOut(Phase::Handshake)), "{why}");
    check!(stream.unsent() == 5_000, "{} bytes are told as unsent", stream.unsent());
    check!(rig.get(client).of(id) == [What::closed("TimedOut")], "{:?}", rig.get(client).of(id));
    let at = rig.get(server).open[0];
    rig.with(server, |_, cx| cx.abort(at));
    rig.finish()
}
