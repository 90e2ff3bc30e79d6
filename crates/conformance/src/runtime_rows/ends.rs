//! N: ends. A peer can distinguish a part from the whole, and a service learns of every end at once.

use std::{io::Write as _, net::TcpListener};

use reactor::{ConnectOptions, Phase, session, session::kit::Toy};

use super::{prelude::*, sealed::Sealed};

pub(super) const ROWS: &[Row] = &[
    row("N4r", "whatever drops output, its peer sees a reset and the receipt counts it", &[], dropped_output),
    row(
        "N4r2",
        "a layer that fails takes unsealed output along, and the peer sees a reset",
        &[],
        failed_layer,
    ),
    row("N4r3", "output that has left whole ends in order, whatever ends its stream", &[], whole_output),
    row("N4r4", "behind a FIN without the layer's end, no end vouches for half an answer", &[], forged_end),
    row("N4r5", "nor behind half of what a paired stream sends, for either peer", &[], forged_end_of_pair),
    row("N4r6", "an output that its service has ended is whole, whoever sends the FIN", &[], ended_output),
    row("N5r", "a proxy whose target resets passes on what came, then resets its client", &[], reset_target),
    row("N6r", "a slow reader that still reads gets all of it during a graceful close", &[], |fixture| {
        if fixture.is_virtual() { slow_reader(fixture) } else { Err(Stop::Skipped("slow: N6r2".to_owned())) }
    }),
    slow("N6r2", "the same by the system's clock", SOCKETS, slow_reader),
    row("N6r3", "a reader slower than the speed asked for is cut", &[], too_slow_reader),
    row(
        "N9r",
        "a reset behind data, before the connect is looked at: open, the data, the failure",
        SOCKETS,
        early_reset,
    ),
    row("N9r2", "the same between two runtimes", &[], early_abort),
];

/// The reason why a runtime drops output.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cause {
    Close,
    Overflow,
    Stop,
    Deadline,
    Stall,
    Budget,
    Abort,
    Panic,
    /// The owner drops the released stream.
    Release,
    /// The service panics in the call that returns the stream.
    ClosedPanic,
    /// The service panics before it gets the stream back.
    ReleasePanic,
    Drop,
}

const CAUSES: [Cause; 12] = [
    Cause::Close,
    Cause::Overflow,
    Cause::Stop,
    Cause::Deadline,
    Cause::Stall,
    Cause::Budget,
    Cause::Abort,
    Cause::Panic,
    Cause::Release,
    Cause::ClosedPanic,
    Cause::ReleasePanic,
    Cause::Drop,
];

/// A client's runtime, a server's runtime, and a connection between them.
struct Halves {
    /// The client's comes first, because it outlives the server's.
    rigs: Vec<Rig>,
    client: ServiceId<Probe>,
    server: ServiceId<Probe>,
    at_client: Id<Stream>,
    at_server: Id<Stream>,
}

impl Halves {
    /// Connects both runtimes. The server's sockets take little at a time. Message 0 makes the server panic,
    /// and a higher one makes it send itself the next lower one.
    fn new(fixture: &mut Fixture<'_>, options: StreamOptions) -> std::result::Result<Halves, Stop> {
        let mut rigs = vec![Rig::new(fixture)?, Rig::limited(fixture, |limits| limits.bytes = BUDGET)?];
        let client = rigs[0].add(Probe::quiet())?;
        let server = rigs[1].add(Probe::quiet())?;
        rigs[1].get_mut(server).act(move |cx, _, what| match what {
            What::Message(0) => panic!("a panic of the suite"),
            What::Message(more) => cx.tell(server, more - 1).map_err(|refused| format!("{refused:?}").into()),
            _ => Ok(()),
        });
        let mut narrow = ListenOptions::default();
        narrow.socket.send_buffer = Some(1);
        let (_, address) =
            rigs[1].listen_with(server, &narrow, move || Stream::new(Bytes).options(options.clone()))?;
        let at_client =
            rigs[0].connect_with(client, &address, &ConnectOptions::default(), Stream::new(Bytes))?;
        rig::until(&mut rigs, "both ends are open", |rigs| {
            rigs[0].get(client).open.len() == 1 && rigs[1].get(server).open.len() == 1
        })?;
        let at_server = rigs[1].get(server).open[0];
        Ok(Halves { rigs, client, server, at_client, at_server })
    }

    fn ask<T>(&mut self, f: impl FnOnce(&mut Context<'_, Probe>, Id<Stream>) -> T) -> T {
        let id = self.at_client;
        self.rigs[0].with(self.client, |_, cx| f(cx, id))
    }

    fn serve<T>(&mut self, f: impl FnOnce(&mut Context<'_, Probe>, Id<Stream>) -> T) -> T {
        let id = self.at_server;
        self.rigs[1].with(self.server, |_, cx| f(cx, id))
    }

    fn settle(&mut self) -> Outcome {
        self.rigs.iter_mut().try_for_each(Rig::settle)
    }

    /// Turns until the server's stream has closed, and checks the name of the reason.
    fn until_server_closed(&mut self, name: &str) -> Outcome {
        let server = self.server;
        rig::until(&mut self.rigs, "the server's stream has closed", |rigs| {
            rigs[1].get(server).closed.len() == 1
        })?;
        let why = &self.rigs[1].get(server).closed[0].2;
        check!(format!("{why:?}").starts_with(name), "the server's stream ended as {why:?}");
        Ok(())
    }

    fn until_panicked(&mut self) -> Outcome {
        let panicked = |rigs: &mut [Rig]| rigs[1].counters().panics == 1;
        rig::until(&mut self.rigs, "the service has panicked", panicked)
    }

    fn until_client_closed(&mut self) -> Outcome {
        let client = self.client;
        rig::until(&mut self.rigs, "the client's stream has closed", |rigs| {
            rigs[0].get(client).closed.len() == 1
        })
    }
}

fn dropped_output(fixture: &mut Fixture<'_>) -> Outcome {
    for cause in CAUSES {
        drop_output(fixture, cause).map_err(|stop| match stop {
            Stop::Failed(how) => Stop::Failed(format!("{cause:?}: {how}")),
            skipped => skipped,
        })?;
    }
    Ok(())
}

fn drop_output(fixture: &mut Fixture<'_>, cause: Cause) -> Outcome {
    let size = sized(fixture, 3_500_000, 200_000);
    let of = |this: Cause| if cause == this { SHORT } else { Duration::from_secs(3600) };
    let cap = if cause == Cause::Overflow { size } else { usize::MAX };
    let (close, write_stall) = (of(Cause::Close), Some(of(Cause::Stall)));
    let options = StreamOptions::with(|options| {
        options.close = close;
        options.write_stall = write_stall;
        options.cap = cap;
        options.item = cap;
    });
    let mut halves = Halves::new(fixture, options)?;
    halves.ask(|cx, id| cx.pause(id));
    let output = pattern(size);
    halves.serve(|cx, id| cx.send(id, &output));
    halves.settle()?;
    provoke(&mut halves, cause, &output)?;
    let receipt = if cause == Cause::Drop { None } else { Some(halves.rigs[1].run()?) };
    halves.rigs.truncate(1);
    halves.ask(|cx, id| cx.resume(id));
    halves.until_client_closed()?;
    let Halves { mut rigs, client, at_client, .. } = halves;
    let probe = rigs[0].get(client);
    check_reset(probe, &probe.closed[0].2)?;
    let received = probe.received(at_client);
    check!(received < size && output.starts_with(&probe.bytes(at_client)), "{received} bytes came");
    if let Some(receipt) = receipt {
        let dropped = receipt.bytes_dropped;
        let of_services: u64 = receipt.services.iter().map(|service| service.bytes_dropped).sum();
        check!(dropped > 0 && dropped == of_services, "the receipt says {dropped} bytes were dropped");
    }
    rigs.remove(0).finish()
}

/// Checks that a peer whose connection was cut saw a reset, and no end.
fn check_reset(probe: &Probe, why: &Closed) -> Outcome {
    let is_reset = why.io().is_some_and(|error| error.kind() == ErrorKind::ConnectionReset);
    check!(is_reset && probe.count(&What::End) == 0, "the peer was told `{why}` and {:?}", probe.log.last());
    Ok(())
}

/// Makes the server drop its output, and requests its runtime's stop.
fn provoke(halves: &mut Halves, cause: Cause, output: &[u8]) -> Outcome {
    match cause {
        Cause::Close => {
            halves.serve(|cx, id| cx.close(id));
            halves.until_server_closed("TimedOut")?;
        }
        Cause::Overflow | Cause::Budget => {
            let sends = BUDGET / output.len() + 1;
            halves.serve(|cx, id| (0..sends).for_each(|_| _ = cx.send(id, output)));
            halves.until_server_closed(if cause == Cause::Budget { "OverBudget" } else { "Overflow" })?;
        }
        Cause::Deadline => {
            halves.serve(|cx, id| cx.deadline(id, SHORT));
            halves.until_server_closed("Deadline")?;
        }
        Cause::Stall => halves.until_server_closed("Stalled")?,
        Cause::Abort => {
            halves.serve(|cx, id| cx.abort(id));
            halves.until_server_closed("Aborted")?;
        }
        Cause::Panic => {
            let server = halves.server;
            halves.serve(|cx, _| cx.tell(server, 0)).map_err(|refused| format!("{refused:?}"))?;
            halves.until_panicked()?;
        }
        Cause::Release => {
            halves.serve(|cx, id| cx.release(id))?;
            halves.until_server_closed("Released")?;
            halves.rigs[1].get_mut(halves.server).closed.clear();
        }
        Cause::ClosedPanic => {
            halves.rigs[1].get_mut(halves.server).act(|_, _, what| match what {
                What::Closed(_) => panic!("a panic of the suite"),
                _ => Ok(()),
            });
            halves.serve(|cx, id| cx.release(id))?;
            halves.until_panicked()?;
        }
        Cause::ReleasePanic => {
            let server = halves.server;
            halves.serve(|cx, id| cx.release(id))?;
            // Panic in the turn after the runtime asked the engine for the transport.
            halves.serve(|cx, _| cx.tell(server, 1)).map_err(|refused| format!("{refused:?}"))?;
            halves.until_panicked()?;
        }
        // The stream's own deadline is far away, so the grace period ends first.
        Cause::Stop => {}
        Cause::Drop => return Ok(()),
    }
    halves.rigs[1].stop(SHORT);
    Ok(())
}

/// Passes output through, and fails at the first input.
struct Failing;

impl Layer for Failing {
    const INPUT_MAX: usize = 16;

    fn ready(&self) -> bool {
        true
    }

    fn open(&mut self, _: &mut [u8], _: &mut session::Io<'_>) -> Result<session::Step> {
        Err("no input is right")?
    }

    fn seal(&mut self, clear: &[u8], io: &mut session::Io<'_>) -> Result<usize> {
        let record = &clear[..clear.len().min(16 << 10)];
        io.down.put(record);
        Ok(record.len())
    }
}

fn failed_layer(fixture: &mut Fixture<'_>) -> Outcome {
    let size = sized(fixture, 3_500_000, 400_000);
    let mut rig = Rig::new(fixture)?;
    let server = rig.add(Probe::<Bytes, Failing>::quiet())?;
    let client = rig.add(Probe::quiet())?;
    let mut narrow = ListenOptions::default();
    narrow.socket.send_buffer = Some(1);
    // Backpressure would keep the wrong input from the layer.
    let options = StreamOptions::with(|options| {
        options.item = size;
        options.backpressure = false;
    });
    let make = move || Stream::over(Bytes, Failing).options(options.clone());
    let (_, address) = rig.listen_with(server, &narrow, make)?;
    let at_client = rig.connect(client, &address, Stream::new(Bytes))?;
    rig.until("the stream is open", |rig| rig.get(server).open.len() == 1)?;
    let at_server = rig.get(server).open[0];
    rig.with(client, |_, cx| cx.pause(at_client));
    rig.with(server, |_, cx| cx.send(at_server, &pattern(size)));
    rig.with(client, |_, cx| cx.send(at_client, b"wrong"));
    rig.settle()?;
    rig.with(client, |_, cx| cx.resume(at_client));
    rig.until("both have closed", |rig| {
        rig.get(server).closed.len() == 1 && rig.get(client).closed.len() == 1
    })?;
    let (_, stream, why) = &rig.get(server).closed[0];
    check!(matches!(why, Closed::Refused(_)), "{why}");
    let unsent = stream.unsent();
    check_reset(rig.get(client), &rig.get(client).closed[0].2)?;
    let received = rig.get(client).received(at_client);
    check!(unsent > 0 && received <= size - unsent, "{unsent} were lost, {received} came");
    rig.stop(SHORT);
    let receipt = rig.run()?;
    check!(receipt.bytes_dropped as usize == unsent, "{} of {unsent} are counted", receipt.bytes_dropped);
    Ok(())
}

fn whole_output(fixture: &mut Fixture<'_>) -> Outcome {
    for cause in
        [Cause::Deadline, Cause::Panic, Cause::Stop, Cause::Release, Cause::ReleasePanic, Cause::Drop]
    {
        let mut halves = Halves::new(fixture, StreamOptions::DEFAULT)?;
        halves.serve(|cx, id| cx.send(id, b"all there is"));
        let (client, at_client) = (halves.client, halves.at_client);
        rig::until(&mut halves.rigs, "the output has come", |rigs| {
            rigs[0].get(client).received(at_client) == 12
        })?;
        provoke(&mut halves, cause, b"")?;
        let receipt = if cause == Cause::Drop { None } else { Some(halves.rigs[1].run()?) };
        halves.rigs.truncate(1);
        halves.until_client_closed()?;
        let probe = halves.rigs[0].get(client);
        let why = &probe.closed[0].2;
        check!(matches!(why, Closed::End) && probe.count(&What::End) == 1, "{cause:?}: {why}");
        check!(receipt.is_none_or(|receipt| receipt.bytes_dropped == 0), "{cause:?}: bytes are counted");
        halves.rigs.remove(0).finish()?;
    }
    Ok(())
}

/// A server under a layer, and a connection to it.
struct Forged {
    rig: Rig,
    server: ServiceId<Probe<Bytes, Toy>>,
    peers: ServiceId<Probe>,
    address: Address,
}

impl Forged {
    fn new(fixture: &mut Fixture<'_>, half_open: bool) -> Result<Forged, Stop> {
        let mut rig = Rig::new(fixture)?;
        let (server, peers) = (rig.add(Probe::<Bytes, Toy>::quiet())?, rig.add(Probe::quiet())?);
        let make = move || Stream::over(Bytes, Toy::server(2)).half_open(half_open);
        let (_, address) = rig.listen(server, make)?;
        Ok(Forged { rig, server, peers, address })
    }

    /// Connects a peer. Returns it and the server's end.
    fn connect(&mut self) -> Result<(Sealed, Id<Stream<Bytes, Toy>>), Stop> {
        let count = self.rig.get(self.server).open.len();
        let mut sealed = Sealed::connect(&mut self.rig, self.peers, &self.address)?;
        let server = self.server;
        sealed.until(&mut self.rig, "both ends are open", |rig, peer| {
            rig.get(server).open.len() > count && peer.is_open()
        })?;
        Ok((sealed, self.rig.get(server).open[count]))
    }

    /// Turns until all has closed. Returns the reason of the server's stream.
    fn until_closed(
        &mut self,
        peer: &mut Sealed,
        at_server: Id<Stream<Bytes, Toy>>,
    ) -> Result<&Closed, Stop> {
        let (server, peers, id) = (self.server, self.peers, peer.id());
        peer.until(&mut self.rig, "both ends have closed", |rig, _| {
            let is_over = rig.get(server).closed.iter().any(|(id, ..)| *id == at_server);
            is_over && rig.get(peers).closed.iter().any(|(of, ..)| *of == id)
        })?;
        let ended = self.rig.get(server).closed.iter().find(|(id, ..)| *id == at_server);
        ended.map(|(.., why)| why).ok_or_else(|| "it has not closed".into())
    }
}

fn forged_end(fixture: &mut Fixture<'_>) -> Outcome {
    for half_open in [false, true] {
        // The first half is with the peer, or still queued, when the FIN arrives.
        for is_queued in [false, true] {
            let mut forged = Forged::new(fixture, half_open)?;
            let (mut peer, at_server) = forged.connect()?;
            if is_queued {
                forged.rig.get_mut(forged.server).act(|cx, id, what| {
                    if let (Some(id), What::Got(_)) = (id, what) {
                        cx.send(id, b"first half");
                    }
                    Ok(())
                });
                peer.send(&mut forged.rig, b"request");
            } else {
                forged.rig.with(forged.server, |_, cx| cx.send(at_server, b"first half"));
                peer.until(&mut forged.rig, "the half has come", |_, peer| peer.received() == b"first half")?;
            }
            peer.forge_end(&mut forged.rig);
            let why = forged.until_closed(&mut peer, at_server)?;
            check!(matches!(why, Closed::Truncated(_)), "the server's stream ended as {why}");
            check!(!peer.has_ended(), "half_open {half_open}, queued {is_queued}: an end vouches for a half");
            check_reset(forged.rig.get(forged.peers), peer.why(&forged.rig)?)?;
            forged.rig.finish()?;
        }
    }
    Ok(())
}

fn forged_end_of_pair(fixture: &mut Fixture<'_>) -> Outcome {
    for half_open in [false, true] {
        let mut forged = Forged::new(fixture, half_open)?;
        let (mut client, near) = forged.connect()?;
        let (mut target, out) = forged.connect()?;
        forged.rig.with(forged.server, |_, cx| cx.pair(near, out))?;
        forged.rig.get_mut(forged.server).act(move |cx, id, what| {
            if let What::Got(bytes) = what {
                cx.send(if id == Some(near) { out } else { near }, bytes);
            }
            Ok(())
        });
        target.send(&mut forged.rig, b"first half");
        client.until(&mut forged.rig, "the half has come", |_, peer| peer.received() == b"first half")?;
        client.forge_end(&mut forged.rig);
        let why = forged.until_closed(&mut client, near)?;
        check!(matches!(why, Closed::Truncated(_)), "the client's stream ended as {why}");
        let why = forged.until_closed(&mut target, out)?;
        check!(matches!(why, Closed::Partner), "the target's stream ended as {why}");
        for peer in [&client, &target] {
            check!(!peer.has_ended(), "half_open {half_open}: an end vouches for a half");
            check_reset(forged.rig.get(forged.peers), peer.why(&forged.rig)?)?;
        }
        forged.rig.finish()?;
    }
    Ok(())
}

fn ended_output(fixture: &mut Fixture<'_>) -> Outcome {
    let mut forged = Forged::new(fixture, true)?;
    let (mut peer, at_server) = forged.connect()?;
    forged.rig.with(forged.server, |_, cx| {
        cx.send(at_server, b"all of it");
        cx.finish(at_server);
    });
    peer.until(&mut forged.rig, "the end has come", |_, peer| peer.has_ended())?;
    check!(peer.received() == b"all of it", "{:?}", peer.received());
    peer.forge_end(&mut forged.rig);
    let why = forged.until_closed(&mut peer, at_server)?;
    check!(matches!(why, Closed::Truncated(_)), "the server's stream ended as {why}");
    check!(peer.why(&forged.rig)?.is_clean(), "the peer was told {}", peer.why(&forged.rig)?);
    forged.rig.finish()
}

fn reset_target(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let (client, proxy, target) =
        (rig.add(Probe::quiet())?, rig.add(Probe::quiet())?, rig.add(Probe::quiet())?);
    let (_, address) = rig.listen(target, || Stream::new(Bytes))?;
    let (_, front) = rig.listen(proxy, || Stream::new(Bytes))?;
    let at_client = rig.connect(client, &front, Stream::new(Bytes))?;
    let out = rig.connect(proxy, &address, Stream::new(Bytes))?;
    rig.until("both connections are up", |rig| {
        rig.get(proxy).open.len() == 2 && rig.get(target).open.len() == 1
    })?;
    let at_target = rig.get(target).open[0];
    let inward = rig.get(proxy).open.iter().copied().find(|id| *id != out).ok_or("nothing was accepted")?;
    rig.with(proxy, |_, cx| cx.pair(inward, out))?;
    rig.get_mut(proxy).act(move |cx, id, what| {
        if let What::Got(bytes) = what {
            cx.send(if id == Some(out) { inward } else { out }, bytes);
        }
        Ok(())
    });
    rig.with(target, |_, cx| cx.send(at_target, b"a part"));
    rig.until("the part has come", |rig| rig.get(client).received(at_client) == 6)?;
    rig.with(target, |_, cx| cx.abort(at_target));
    rig.until("all have closed", |rig| {
        rig.get(client).closed.len() == 1 && rig.get(proxy).closed.len() == 2
    })?;
    check_reset(rig.get(client), &rig.get(client).closed[0].2)?;
    let why = rig.get(proxy).closed.iter().find(|(id, ..)| *id == inward).map(|(.., why)| why);
    check!(matches!(why, Some(Closed::Partner)), "the proxy was told {why:?}");
    rig.finish()
}

/// Closes a server's stream behind much output, whose reader rests for `every` after each piece. Returns the
/// reason of the close.
fn read_slowly(halves: &mut Halves, every: Duration, output: &[u8]) -> std::result::Result<Closed, Stop> {
    let (client, server, id) = (halves.client, halves.server, halves.at_client);
    let mut got = 0;
    halves.rigs[0].get_mut(client).act(move |cx, _, what| {
        match what {
            What::Got(bytes) => {
                got += bytes.len();
                if got >= PIECE {
                    got = 0;
                    cx.pause(id);
                    cx.after(every, 1);
                }
            }
            What::Message(_) => cx.resume(id),
            _ => (),
        }
        Ok(())
    });
    halves.serve(|cx, id| {
        cx.send(id, output);
        cx.close(id);
    });
    let both = |rigs: &mut [Rig]| {
        let [at_client, at_server] = rigs else { return false };
        at_server.get(server).closed.len() == 1 && at_client.get(client).closed.len() == 1
    };
    rig::until(&mut halves.rigs, "both have closed", both)?;
    // The last resume may arrive after the stream has closed.
    rig::until(&mut halves.rigs, "no timer is left", |rigs| rigs[0].counters().timers == 0)?;
    Ok(halves.rigs[1].get_mut(server).closed.remove(0).2)
}

fn slow_reader(fixture: &mut Fixture<'_>) -> Outcome {
    let close = Duration::from_secs(1);
    let output = pattern(sized(fixture, 3_500_000, 600_000));
    let every = close / if fixture.is_virtual() { 4 } else { 20 };
    let options = StreamOptions::with(|options| {
        options.close = close;
        options.item = output.len();
    });
    let mut halves = Halves::new(fixture, options)?;
    let begun = halves.rigs[0].now();
    let why = read_slowly(&mut halves, every, &output)?;
    let took = halves.rigs[0].now().since(begun);
    check!(took > close, "it took {took:?}: too little to tell");
    let received = halves.rigs[0].get(halves.client).received(halves.at_client);
    check!(received == output.len() && why.is_clean(), "{received} bytes came in {took:?}, then {why}");
    rig::finish(halves.rigs)
}

fn too_slow_reader(fixture: &mut Fixture<'_>) -> Outcome {
    // With more output than the reader reads, a byte buys almost no time. So the close ends with its first
    // deadline.
    let output = pattern(sized(fixture, 3_500_000, 400_000));
    let (close, item) = (2 * SHORT, output.len());
    let options = StreamOptions::with(|options| {
        options.close = close;
        options.close_speed = u32::MAX;
        options.item = item;
    });
    let mut halves = Halves::new(fixture, options)?;
    let why = read_slowly(&mut halves, SHORT, &output)?;
    check!(matches!(why, Closed::TimedOut(Phase::Close)), "{why}");
    let probe = halves.rigs[0].get(halves.client);
    check_reset(probe, &probe.closed[0].2)?;
    rig::finish(halves.rigs)
}

/// Checks that the stream opened, received the banner, and then saw the reset.
fn check_early(probe: &Probe, id: Id<Stream>) -> Outcome {
    let told = probe.of(id);
    let expected = [What::Open, What::got(BANNER), What::closed("Failed")];
    check!(told == expected, "told {told:?}, because of {:?}", probe.closed.first().map(|(.., why)| why));
    check_reset(probe, &probe.closed[0].2)
}

fn early_reset(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let client = rig.add(Probe::quiet())?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let id = rig.connect(client, &Address::Ip(listener.local_addr()?), Stream::new(Bytes))?;
    // The loop makes no turn in the meantime.
    let (mut peer, _) = listener.accept()?;
    peer.write_all(BANNER)?;
    socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO))?;
    drop(peer);
    rig.until("the connection has closed", |rig| rig.get(client).closed.len() == 1)?;
    check_early(rig.get(client), id)?;
    rig.finish()
}

fn early_abort(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rigs = vec![Rig::new(fixture)?, Rig::new(fixture)?];
    let client = rigs[0].add(Probe::quiet())?;
    let server = rigs[1].add(Probe::acting(|cx, id, what| {
        if let (Some(id), What::Open) = (id, what) {
            cx.send(id, BANNER);
        }
        Ok(())
    }))?;
    let (_, address) = rigs[1].listen(server, || Stream::new(Bytes))?;
    let id = rigs[0].connect(client, &address, Stream::new(Bytes))?;
    rigs[1].until("the server has accepted", |rig| rig.get(server).open.len() == 1)?;
    rigs[1].settle()?;
    rigs[1].with(server, |probe, cx| cx.abort(probe.open[0]));
    rigs[1].settle()?;
    rig::until(&mut rigs, "the connection has closed", |rigs| rigs[0].get(client).closed.len() == 1)?;
    let told = rigs[0].get(client).of(id);
    // On a virtual network a reset may overtake data, and then destroys it.
    let has_lost = rigs[0].get(client).received(id) == 0 && told == [What::Open, What::closed("Failed")];
    check!(has_lost || check_early(rigs[0].get(client), id).is_ok(), "told {told:?}");
    rig::finish(rigs)
}

/// The number of bytes that a slow reader reads before it rests.
const PIECE: usize = 40 << 10;
const BANNER: &[u8] = b"a banner of 26 bytes, says";

/// The budget of the server's runtime. It includes the engine's own memory.
const BUDGET: usize = 40 << 20;
