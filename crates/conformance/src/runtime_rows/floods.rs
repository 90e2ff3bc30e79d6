//! D at runtime level: peers that send much at once, and datagrams that nobody takes.

use std::{io::ErrorKind, net::UdpSocket};

use reactor::{
    Bytes, Context, Fd, Flow, Handle, Id, Interest, Lines, Ready, Result, Service, Stream, StreamOptions,
};

use super::{
    SOCKETS,
    probe::{Echo, Probe, What},
    rig::{Pair, Rig},
    row, sized,
};
use crate::{
    rows::pattern,
    suite::{Outcome, Row, check},
    world::World,
};

pub(super) const ROWS: &[Row] = &[
    row("D11r", "thousands of items in one piece keep their order, and others are served", &[], pipelined),
    row("D12r", "an unreachable datagram is an error of that send only", SOCKETS, unreachable),
    row("D13r", "a peer that floods an echo is held back", &[], flood),
];

fn pipelined(world: &mut World<'_>) -> Outcome {
    let count = sized(world, 10_000, 1_500);
    let mut pair = Pair::of(world, || Stream::new(Lines::new()))?;
    let other = pair.rig.connect(pair.client, &pair.address, Stream::new(Lines::new()))?;
    let (server, id) = (pair.server, pair.at_server);
    pair.rig.until("the other is open", |rig| rig.get(server).open.len() == 2)?;
    let small = pair.server().open[1];
    let (client, at_client) = (pair.client, pair.at_client);
    pair.rig.with(client, |_, cx| {
        (0..count).for_each(|at| _ = cx.send(at_client, &at.to_string()));
        cx.send(other, "me");
    });
    let (mut most, mut before) = (0, 0);
    let mut served_at = None;
    let total: usize = (0..count).map(|at| at.to_string().len()).sum();
    pair.rig.until("all items have arrived", |rig| {
        let log = rig.get(server).log.len();
        most = most.max(log - std::mem::replace(&mut before, log));
        if rig.get(server).received(small) > 0 && served_at.is_none() {
            served_at = Some(log);
        }
        rig.get(server).received(id) >= total && served_at.is_some()
    })?;
    check!(most <= 2 * 1_024 + 8, "{most} items in one turn");
    check!(served_at.is_some_and(|at| at < count), "the other was served after all items");
    let mut expected = 0;
    for (of, what) in &pair.server().log {
        if let (true, What::Got(line)) = (*of == Some(id), what) {
            check!(*line == expected.to_string().as_bytes(), "item {expected} is {line:?}");
            expected += 1;
        }
    }
    check!(expected == count, "{expected} of {count} items");
    pair.rig.with(client, |_, cx| cx.abort(other));
    pair.finish()
}

/// Notes what receiving from a datagram socket answers.
#[derive(Default)]
struct Datagrams {
    answers: Vec<std::io::Result<usize>>,
}

impl Service for Datagrams {}

impl Handle<Fd<UdpSocket>> for Datagrams {
    fn handle(&mut self, cx: &mut Context<'_, Self>, id: Id<Fd<UdpSocket>>, _: Ready) -> Result {
        let Some(socket) = cx.get_mut(id) else { return Ok(()) };
        match socket.recv(&mut [0; 64]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => (),
            answer => self.answers.push(answer),
        }
        Ok(())
    }
}

fn unreachable(world: &mut World<'_>) -> Outcome {
    let mut rig = Rig::new(world)?;
    let service = rig.add(Datagrams::default())?;
    let (ours, peer) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    ours.set_nonblocking(true)?;
    peer.connect(ours.local_addr()?)?;
    let nobody = UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
    ours.connect(nobody)?;
    let id = rig
        .with(service, |_, cx| cx.add(Fd::new(ours, Interest::Read)))
        .map_err(|rejected| rejected.error)?;
    rig.with(service, |_, cx| cx.get(id).map(|socket| socket.send(b"anyone?"))).transpose()?;
    rig.until("the refusal is told", |rig| !rig.get(service).answers.is_empty())?;
    rig.rests()?;
    // The socket lives: connected to somebody who is there, it goes on.
    rig.with(service, |_, cx| cx.get(id).map(|socket| socket.connect(peer.local_addr()?))).transpose()?;
    rig.with(service, |_, cx| cx.resume(id));
    peer.send(b"here")?;
    rig.until("a datagram comes", |rig| matches!(rig.get(service).answers.last(), Some(Ok(4))))?;
    let refused = &rig.get(service).answers[0];
    check!(refused.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused), "{refused:?}");
    rig.with(service, |_, cx| cx.close(id));
    rig.finish()
}

fn flood(world: &mut World<'_>) -> Outcome {
    let mut rig = Rig::new(world)?;
    let (echo, client) = (rig.add(Echo::default())?, rig.add(Probe::quiet())?);
    let options = StreamOptions { backpressure: false, ..StreamOptions::DEFAULT };
    let address = rig.with(echo, |_, cx| {
        let listener = cx.listen("127.0.0.1:0", |_| Some(Stream::new(Bytes)))?;
        Ok::<_, reactor::Failure>(cx.local(listener)?)
    });
    let address = address.map_err(|failure| failure.to_string())?;
    let id = rig.connect(client, &address, Stream::new(Bytes).options(options))?;
    rig.until("it is open", |rig| !rig.get(client).open.is_empty())?;
    rig.with(client, |_, cx| cx.pause(id));
    let item = pattern(sized(world, 64 << 10, 2_000));
    let (mut most, mut sent, mut held, mut drained) = (0, 0, 0, None);
    // It floods, and does not read: soon both ends' queues are above their marks, and stay there.
    rig.until("the echo is held back", |rig| {
        let count = rig.get(client).count(&What::Drained);
        if drained.is_none_or(|before| count > before) {
            let flow = rig.with(client, |_, cx| cx.send(id, &item));
            drained = (flow == Flow::High).then_some(count);
            (sent, held) = (sent + item.len(), if flow == Flow::High { 1 } else { 0 });
        }
        held += 1;
        most = most.max(rig.counters().queue_bytes);
        held > 40
    })?;
    let bound = 1 << 20;
    check!(most < bound, "{most} bytes were queued");
    rig.with(client, |_, cx| cx.resume(id));
    rig.until("all has returned", |rig| rig.get(client).received(id) == sent)?;
    check!(rig.get(echo).bytes == sent, "{} of {sent} bytes were echoed", rig.get(echo).bytes);
    rig.with(client, |_, cx| cx.abort(id));
    rig.finish()
}
