//! N: ends of paired streams. An end from one peer reaches the other peer, no matter when the streams are
//! paired.

use super::prelude::*;

pub(super) const ROWS: &[Row] = &[
    row("N17r", "an end that was told before two streams are paired is passed on", &[], told_before),
    row("N17r2", "ends of both that were told before are both passed on", &[], both_told_before),
    row("N17r3", "a pause keeps back an end behind input, and no other", &[], while_paused),
    row("N17r4", "a stream that is not half open is paired at its end, and stays", &[], at_its_end),
    row("N17r5", "a stream that closes when it is paired closes the other as it closes itself", &[], closing),
    row("N17r6", "a stream that is being released is not paired", &[], leaving),
    row("N17r7", "both of a pair are told an end that comes from both peers", &[], told_ends),
    row("N17r8", "the peer of a stream that is refused while the other sends sees a reset", &[], refused),
];

/// A client, a target, and a proxy with a stream to each. The two streams are not paired yet.
struct Relay {
    rig: Rig,
    peers: ServiceId<Probe>,
    proxy: ServiceId<Probe>,
    /// The peers' ends: first the client's, then the target's.
    far: [Id<Stream>; 2],
    /// The proxy's ends of the same connections.
    near: [Id<Stream>; 2],
}

impl Relay {
    fn new(fixture: &mut Fixture<'_>, half_open: bool) -> Result<Relay, Stop> {
        let mut rig = Rig::new(fixture)?;
        let (peers, proxy) = (rig.add(Probe::quiet())?, rig.add(Probe::quiet())?);
        let (_, address) = rig.listen(proxy, move || Stream::new(Bytes).half_open(half_open))?;
        let mut far = Vec::new();
        // Connect one after the other, so that the order at the proxy is known.
        for count in 1..=2 {
            far.push(rig.connect(peers, &address, Stream::new(Bytes).half_open(true))?);
            rig.until("a connection is up", |rig| {
                rig.get(proxy).open.len() == count && rig.get(peers).open.len() == count
            })?;
        }
        let near = [rig.get(proxy).open[0], rig.get(proxy).open[1]];
        Ok(Relay { rig, peers, proxy, far: [far[0], far[1]], near })
    }

    /// Sends a request from the peer with this number, and finishes its side.
    fn end(&mut self, of: usize) {
        let id = self.far[of];
        self.rig.with(self.peers, |_, cx| {
            cx.send(id, b"request");
            cx.finish(id);
        });
    }

    fn until_told(&mut self, of: usize, what: &What) -> Outcome {
        let (proxy, id) = (self.proxy, self.near[of]);
        self.rig.until("the proxy is told", |rig| rig.get(proxy).of(id).last() == Some(what))
    }

    /// Pairs both streams, and makes the proxy forward input from now on.
    fn pair(&mut self, first: usize) -> Outcome {
        let [one, other] = self.near;
        self.rig.get_mut(self.proxy).act(move |cx, id, what| {
            if let What::Got(bytes) = what {
                cx.send(if id == Some(one) { other } else { one }, bytes);
            }
            Ok(())
        });
        let (a, b) = (self.near[first], self.near[1 - first]);
        self.rig.with(self.proxy, |_, cx| cx.pair(a, b))?;
        Ok(())
    }

    fn until_peer(&mut self, of: usize, told: &[What]) -> Outcome {
        let (peers, id) = (self.peers, self.far[of]);
        self.rig.until("a peer is told what it is to be told", |rig| rig.get(peers).of(id) == told)
    }

    /// Checks that both connections close in order.
    fn finish(mut self) -> Outcome {
        let (peers, proxy) = (self.peers, self.proxy);
        self.rig.until("all have closed", |rig| {
            rig.get(peers).closed.len() == 2 && rig.get(proxy).closed.len() == 2
        })?;
        for (id, _, why) in self.rig.get(peers).closed.iter().chain(&self.rig.get(proxy).closed) {
            check!(matches!(why, Closed::End | Closed::Done), "{id:?} closed: {why}");
        }
        self.rig.finish()
    }
}

/// Returns the events of a peer that receives the request, and then the end.
fn request() -> [What; 3] {
    [What::Open, What::got(b"request"), What::End]
}

fn told_before(fixture: &mut Fixture<'_>) -> Outcome {
    for (first, ends) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
        let other = 1 - ends;
        let mut relay = Relay::new(fixture, true)?;
        relay.end(ends);
        relay.until_told(ends, &What::End)?;
        // The proxy has kept the request, and sends it after the call that pairs.
        let (a, b, to) = (relay.near[first], relay.near[1 - first], relay.near[other]);
        let flow = relay.rig.with(relay.proxy, |_, cx| -> Result<_, Stop> {
            cx.pair(a, b)?;
            Ok(cx.send(to, b"request"))
        })?;
        check!(flow == Flow::Queued, "the kept request is {flow:?}");
        relay.until_peer(other, &request())?;
        let back = relay.near[ends];
        relay.rig.get_mut(relay.proxy).act(move |cx, _, what| {
            if let What::Got(bytes) = what {
                cx.send(back, bytes);
            }
            Ok(())
        });
        // The other direction still works.
        relay.end(other);
        relay.until_peer(ends, &[request().as_slice(), &[What::closed("End")]].concat())?;
        relay.finish()?;
    }
    Ok(())
}

fn both_told_before(fixture: &mut Fixture<'_>) -> Outcome {
    let mut relay = Relay::new(fixture, true)?;
    for of in [0, 1] {
        relay.end(of);
        relay.until_told(of, &What::End)?;
    }
    relay.pair(0)?;
    relay.finish()
}

fn while_paused(fixture: &mut Fixture<'_>) -> Outcome {
    // Pair behind unread input. The end follows the input.
    let mut relay = Relay::new(fixture, true)?;
    let (proxy, [paused, _]) = (relay.proxy, relay.near);
    relay.rig.with(proxy, |_, cx| cx.pause(paused));
    relay.end(0);
    relay.rig.settle()?;
    relay.pair(0)?;
    relay.rig.settle()?;
    let told = relay.rig.get(relay.peers).of(relay.far[1]);
    check!(told == [What::Open], "passed on before the resume: {told:?}");
    relay.rig.with(proxy, |_, cx| cx.resume(paused));
    relay.until_peer(1, &request())?;
    relay.end(1);
    relay.finish()?;
    // Pair without input. The proxy saw the end during the pause, and needs no resume.
    let mut relay = Relay::new(fixture, true)?;
    let (proxy, [paused, _]) = (relay.proxy, relay.near);
    let client = relay.far[0];
    relay.rig.with(proxy, |_, cx| cx.pause(paused));
    relay.rig.with(relay.peers, |_, cx| cx.finish(client));
    relay.until_told(0, &What::End)?;
    relay.pair(1)?;
    relay.until_peer(1, &[What::Open, What::End])?;
    relay.end(1);
    relay.finish()
}

fn at_its_end(fixture: &mut Fixture<'_>) -> Outcome {
    let mut relay = Relay::new(fixture, false)?;
    let [one, other] = relay.near;
    relay.rig.get_mut(relay.proxy).act(move |cx, id, what| {
        match what {
            What::End if id == Some(one) => cx.pair(one, other)?,
            What::Got(bytes) => _ = cx.send(if id == Some(one) { other } else { one }, bytes),
            _ => (),
        }
        Ok(())
    });
    relay.end(0);
    relay.until_peer(1, &request())?;
    relay.end(1);
    relay.until_peer(0, &[request().as_slice(), &[What::closed("End")]].concat())?;
    relay.finish()
}

fn closing(fixture: &mut Fixture<'_>) -> Outcome {
    // The stream closes in order, with or without an earlier end.
    for ends in [true, false] {
        let mut relay = Relay::new(fixture, true)?;
        let [one, other] = relay.near;
        if ends {
            relay.end(0);
            relay.until_told(0, &What::End)?;
        }
        relay.rig.with(relay.proxy, |_, cx| {
            cx.close(one);
            cx.pair(one, other)
        })?;
        if !ends {
            relay.end(0);
        }
        relay.until_peer(1, &[What::Open, What::End])?;
        relay.end(1);
        relay.finish()?;
    }
    // The handler refuses the end. The target must not take the forwarded part for the whole.
    let mut relay = Relay::new(fixture, true)?;
    let [one, other] = relay.near;
    relay.rig.get_mut(relay.proxy).act(move |cx, id, what| {
        if (id, what) == (Some(one), &What::End) {
            cx.pair(one, other)?;
            return Err("a refusal of the suite".into());
        }
        Ok(())
    });
    relay.end(0);
    let (peers, proxy, target) = (relay.peers, relay.proxy, relay.far[1]);
    relay.rig.until("the target is told", |rig| {
        rig.get(peers).closed.iter().any(|(id, ..)| *id == target) && rig.get(proxy).closed.len() == 2
    })?;
    let told = relay.rig.get(peers).of(target);
    check!(!told.contains(&What::End), "the target takes a part for the whole: {told:?}");
    let why = relay.rig.get(proxy).closed.iter().find(|(id, ..)| *id == other).map(|(.., why)| why);
    check!(matches!(why, Some(Closed::Partner)), "the proxy was told {why:?}");
    relay.rig.finish()
}

fn refused(fixture: &mut Fixture<'_>) -> Outcome {
    // A handler refuses one stream, or says last words before its deadline, while the other still sends.
    for has_deadline in [false, true] {
        let mut relay = Relay::new(fixture, true)?;
        relay.pair(0)?;
        let (peers, proxy, [one, other], far) = (relay.peers, relay.proxy, relay.near, relay.far);
        relay.rig.with(peers, |_, cx| cx.send(far[1], b"first half"));
        relay.rig.until("the half has come", |rig| rig.get(peers).received(far[0]) == 10)?;
        if has_deadline {
            relay.rig.with(proxy, |_, cx| cx.deadline_with(one, Duration::ZERO, 1));
        } else {
            relay.rig.get_mut(proxy).act(move |_, id, what| match what {
                What::Got(_) if id == Some(one) => Err("a refusal of the suite".into()),
                _ => Ok(()),
            });
            relay.rig.with(peers, |_, cx| cx.send(far[0], b"refuse this"));
        }
        relay.rig.until("all have closed", |rig| {
            let has_ended = rig.get(peers).count(&What::End) > 0;
            has_ended || rig.get(peers).closed.len() == 2 && rig.get(proxy).closed.len() == 2
        })?;
        check!(relay.rig.get(peers).count(&What::End) == 0, "a peer takes a part for the whole");
        for (id, _, why) in &relay.rig.get(peers).closed {
            let is_reset = why.io().is_some_and(|error| error.kind() == ErrorKind::ConnectionReset);
            check!(is_reset, "deadline {has_deadline}: {id:?} was told `{why}`");
        }
        let why = |of| relay.rig.get(proxy).closed.iter().find(|(id, ..)| *id == of).map(|(.., why)| why);
        let is_named = matches!(why(one), Some(Closed::Refused(_) | Closed::Deadline));
        check!(is_named && matches!(why(other), Some(Closed::Partner)), "{:?}, {:?}", why(one), why(other));
        relay.rig.finish()?;
    }
    Ok(())
}

fn leaving(fixture: &mut Fixture<'_>) -> Outcome {
    let mut relay = Relay::new(fixture, true)?;
    let (proxy, [one, other]) = (relay.proxy, relay.near);
    let refused = relay.rig.with(proxy, |_, cx| -> Result<_, Stop> {
        cx.release(one)?;
        Ok([cx.pair(one, other), cx.pair(other, one)])
    })?;
    check!(refused.iter().all(|refused| refused.is_err()), "{refused:?}");
    relay.rig.until("it was released", |rig| !rig.get(proxy).closed.is_empty())?;
    let (_, stream, why) = relay.rig.get_mut(proxy).closed.remove(0);
    check!(matches!(why, Closed::Released), "{why}");
    relay.rig.settle()?;
    check!(relay.rig.get(proxy).closed.is_empty(), "the other one closed with it");
    // Both streams work again, as a pair of which one had a life before.
    relay.near[0] = relay.rig.with(proxy, |_, cx| cx.add(stream)).map_err(|rejected| rejected.error)?;
    relay.pair(1)?;
    relay.end(0);
    relay.until_peer(1, &request())?;
    relay.end(1);
    relay.finish()
}

fn told_ends(fixture: &mut Fixture<'_>) -> Outcome {
    for (first, answer) in [(0, &b"answer"[..]), (1, b"answer"), (0, b""), (1, b"")] {
        told_ends_of(fixture, first, answer)?;
    }
    // `Done` is for what the service closed.
    let mut relay = Relay::new(fixture, true)?;
    let (proxy, [one, _]) = (relay.proxy, relay.near);
    relay.pair(0)?;
    relay.rig.with(proxy, |_, cx| cx.close(one));
    for of in [0, 1] {
        relay.until_peer(of, &[What::Open, What::End])?;
        let id = relay.far[of];
        relay.rig.with(relay.peers, |_, cx| cx.close(id));
    }
    relay.rig.until("both of the pair have closed", |rig| rig.get(proxy).closed.len() == 2)?;
    let why = relay.rig.get(proxy).closed.iter().find(|(id, ..)| *id == one).map(|(.., why)| why);
    check!(matches!(why, Some(Closed::Done)), "the service was told {why:?}");
    relay.finish()
}

/// Has one peer end first. The other one answers and closes while the proxy makes no turn, so that the answer is still in
/// the engine's hands when the proxy is told the end behind it.
fn told_ends_of(fixture: &mut Fixture<'_>, first: usize, answer: &[u8]) -> Outcome {
    let mut rigs = [Rig::new(fixture)?, Rig::new(fixture)?];
    let peers = rigs[0].add(Probe::quiet())?;
    let proxy = rigs[1].add(Probe::quiet())?;
    let (_, address) = rigs[1].listen(proxy, || Stream::new(Bytes))?;
    let mut far = Vec::new();
    for count in 1..=2 {
        far.push(rigs[0].connect(peers, &address, Stream::new(Bytes).half_open(true))?);
        rig::until(&mut rigs, "a connection is up", |rigs| {
            rigs[1].get(proxy).open.len() == count && rigs[0].get(peers).open.len() == count
        })?;
    }
    let near = [rigs[1].get(proxy).open[0], rigs[1].get(proxy).open[1]];
    rigs[1].get_mut(proxy).act(move |cx, id, what| {
        if let What::Got(bytes) = what {
            cx.send(if id == Some(near[0]) { near[1] } else { near[0] }, bytes);
        }
        Ok(())
    });
    rigs[1].with(proxy, |_, cx| cx.pair(near[0], near[1]))?;
    let (begins, ends) = (far[first], far[1 - first]);
    rigs[0].with(peers, |_, cx| {
        cx.send(begins, b"request");
        cx.finish(begins);
    });
    rig::until(&mut rigs, "the request is passed on", |rigs| rigs[0].get(peers).of(ends) == request())?;
    rigs[0].with(peers, |_, cx| {
        cx.send(ends, answer);
        cx.close(ends);
    });
    rigs[0].settle()?;
    rig::until(&mut rigs, "all have closed", |rigs| {
        rigs[0].get(peers).closed.len() == 2 && rigs[1].get(proxy).closed.len() == 2
    })?;
    for (id, _, why) in &rigs[1].get(proxy).closed {
        check!(matches!(why, Closed::End), "first {first}, answer {answer:?}: {id:?} was told {why:?}");
    }
    check!(rigs[0].get(peers).bytes(begins) == answer, "the answer is not whole");
    rig::finish(rigs)
}
