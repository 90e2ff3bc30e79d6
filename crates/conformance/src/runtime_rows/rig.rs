//! A runtime that a row drives within bounds, with a check for leaks at the end.

use std::{
    slice,
    sync::Arc,
    time::{Duration, Instant},
};

use reactor::{
    Address, Closed, Codec, ConnectOptions, Context, Counters, Id, Layer, Limits, ListenOptions, Listener,
    Metrics, Receipt, Runtime, Service, ServiceId, Stream, Time, engine::Engine,
};

use super::probe::{Echo, Items, Probe};
use crate::{
    fixture::Fixture,
    suite::{Outcome, Stop, check},
};

/// A runtime over the engine under test.
pub(super) struct Rig {
    pub(super) runtime: Runtime,
    metrics: Arc<Metrics>,
    warden: ServiceId<Warden>,
}

/// The id of a listener whose connections are such streams.
type ListenerOf<C, L> = Id<Listener<Stream<C, L>>>;

/// A service without work of its own. Through it a row reads the time and requests the stop.
struct Warden;

impl Service for Warden {}

impl Rig {
    /// Makes a runtime with default limits.
    pub(super) fn new(fixture: &mut Fixture<'_>) -> Result<Rig, Stop> {
        Rig::limited(fixture, |_| ())
    }

    /// Makes a runtime with changed limits.
    pub(super) fn limited(fixture: &mut Fixture<'_>, change: impl FnOnce(&mut Limits)) -> Result<Rig, Stop> {
        let mut limits = Limits::default();
        change(&mut limits);
        Rig::over(fixture.engine(), limits)
    }

    /// Makes a runtime over this engine.
    pub(super) fn over(engine: Box<dyn Engine>, limits: Limits) -> Result<Rig, Stop> {
        let mut runtime = Runtime::assemble(engine, limits);
        let warden = runtime.add(Warden)?;
        Ok(Rig { metrics: runtime.metrics(), runtime, warden })
    }

    /// Adds a service.
    pub(super) fn add<S: Service>(&mut self, service: S) -> Result<ServiceId<S>, Stop> {
        Ok(self.runtime.add(service)?)
    }

    /// Returns a service, which must be alive.
    pub(super) fn get<S: Service>(&self, id: ServiceId<S>) -> &S {
        self.runtime.service(id).expect("the service lives")
    }

    /// Returns a service mutably. It must be alive.
    pub(super) fn get_mut<S: Service>(&mut self, id: ServiceId<S>) -> &mut S {
        self.runtime.service_mut(id).expect("the service lives")
    }

    /// Calls a service, which must be alive.
    pub(super) fn with<S: Service, T>(
        &mut self,
        id: ServiceId<S>,
        f: impl FnOnce(&mut S, &mut Context<'_, S>) -> T,
    ) -> T {
        self.runtime.with(id, f).expect("the service lives")
    }

    /// Returns the engine's time.
    pub(super) fn now(&mut self) -> Time {
        self.with(self.warden, |_, cx| cx.now())
    }

    /// Returns the counters of the last turn.
    pub(super) fn counters(&self) -> Counters {
        self.metrics.read()
    }

    /// Requests a stop.
    pub(super) fn stop(&mut self, grace: Duration) {
        self.with(self.warden, |_, cx| cx.stop(grace));
    }

    /// Listens on any port of the loopback.
    pub(super) fn listen<C: Items, L: Layer>(
        &mut self,
        service: ServiceId<Probe<C, L>>,
        make: impl FnMut() -> Stream<C, L> + 'static,
    ) -> Result<(ListenerOf<C, L>, Address), Stop> {
        self.listen_with(service, &ListenOptions::default(), make)
    }

    /// Listens on any port of the loopback, with options.
    pub(super) fn listen_with<C: Items, L: Layer>(
        &mut self,
        service: ServiceId<Probe<C, L>>,
        options: &ListenOptions,
        mut make: impl FnMut() -> Stream<C, L> + 'static,
    ) -> Result<(ListenerOf<C, L>, Address), Stop> {
        self.with(service, |_, cx| {
            let listener = cx.listen_with("127.0.0.1:0", options, move |_| Some(make()))?;
            Ok((listener, cx.local(listener)?))
        })
    }

    /// Adds an echo service that listens.
    pub(super) fn echo(&mut self) -> Result<(ServiceId<Echo>, Address), Stop> {
        let echo = self.add(Echo::default())?;
        let address = self.with(echo, |_, cx| -> Result<Address, Stop> {
            let listener = cx.listen("127.0.0.1:0", |_| Some(Stream::new(reactor::Bytes)))?;
            Ok(cx.local(listener)?)
        })?;
        Ok((echo, address))
    }

    /// Begins to connect.
    pub(super) fn connect<C: Items, L: Layer>(
        &mut self,
        service: ServiceId<Probe<C, L>>,
        address: &Address,
        stream: Stream<C, L>,
    ) -> Result<Id<Stream<C, L>>, Stop> {
        self.connect_with(service, address, &ConnectOptions::default(), stream)
    }

    /// Begins to connect, with options.
    pub(super) fn connect_with<C: Items, L: Layer>(
        &mut self,
        service: ServiceId<Probe<C, L>>,
        address: &Address,
        options: &ConnectOptions,
        stream: Stream<C, L>,
    ) -> Result<Id<Stream<C, L>>, Stop> {
        Ok(self.with(service, |_, cx| cx.connect_with(address, options, stream))?)
    }

    /// Makes one turn. Returns true if it called a handler.
    pub(super) fn turn(&mut self, max_wait: Duration) -> Result<bool, Stop> {
        Ok(self.runtime.turn(Some(max_wait))?)
    }

    /// Turns until the condition holds.
    pub(super) fn until(&mut self, what: &str, mut done: impl FnMut(&mut Rig) -> bool) -> Outcome {
        until(slice::from_mut(self), what, |rigs| done(&mut rigs[0]))
    }

    /// Turns until the runtime is over, and returns its receipt.
    pub(super) fn run(&mut self) -> Result<Receipt, Stop> {
        self.until("the runtime is over", |rig| rig.runtime.is_over())?;
        Ok(self.runtime.run()?)
    }

    /// Turns without waiting until several turns in a row call no handler.
    pub(super) fn settle(&mut self) -> Outcome {
        let mut idle = 0;
        for _ in 0..SETTLE_TURNS_MAX {
            idle = if self.turn(Duration::ZERO)? { 0 } else { idle + 1 };
            if idle > SETTLED {
                return Ok(());
            }
        }
        Err(format!("after {SETTLE_TURNS_MAX} turns handlers are still called").into())
    }

    /// Checks that for 25 ms the runtime calls no handler, and that the turns take their time. A turn may end
    /// early because input arrives that no handler receives, for example at a stream that closes. Then the
    /// time starts anew.
    pub(super) fn rests(&mut self) -> Outcome {
        let (mut end, mut early) = (self.now() + REST, 0);
        for _ in 0..SETTLE_TURNS_MAX {
            let left = end.since(self.now());
            if left.is_zero() {
                return Ok(());
            }
            check!(early < REST_TURNS_MAX, "it spins: {REST_TURNS_MAX} turns did not fill {REST:?}");
            let before = self.counters().bytes_in;
            check!(!self.turn(left)?, "a handler is called where nothing happens");
            early += 1;
            if self.counters().bytes_in > before {
                (end, early) = (self.now() + REST, 0);
            }
        }
        Err(format!("after {SETTLE_TURNS_MAX} turns input still arrives").into())
    }

    /// Checks that the runtime rests, stops it gracefully, and checks that nothing is left.
    pub(super) fn finish(self) -> Outcome {
        finish([self])
    }
}

/// Drives several runtimes, one turn each, until the condition holds.
pub(super) fn until(rigs: &mut [Rig], what: &str, mut done: impl FnMut(&mut [Rig]) -> bool) -> Outcome {
    let end = Instant::now() + LIMIT;
    let alone = rigs.len() == 1;
    let (mut idle, mut since) = (0, Instant::now());
    for round in 0_u64.. {
        if done(rigs) {
            return Ok(());
        }
        check!(Instant::now() < end, "after {LIMIT:?} and {round} turns, not yet: {what}");
        // Virtual time passes quickly, but the work of other threads takes real time.
        let is_stuck = idle > IDLE_TURNS_MAX && since.elapsed() > IDLE_MAX;
        check!(!is_stuck, "nobody is called any more, but not yet: {what}");
        // With several runtimes, wait only in one round of sixteen, because another runtime may have the
        // awaited data.
        let wait = if alone || round % 16 == 15 { STEP } else { Duration::ZERO };
        let mut handled = false;
        for rig in &mut *rigs {
            handled |= rig.turn(wait)?;
        }
        (idle, since) = if handled { (0, Instant::now()) } else { (idle + 1, since) };
    }
    Ok(())
}

/// Checks that the runtimes rest, stops them gracefully, and checks that nothing is left.
pub(super) fn finish(rigs: impl IntoIterator<Item = Rig>) -> Outcome {
    let mut rigs: Vec<Rig> = rigs.into_iter().collect();
    for rig in &mut rigs {
        rig.settle()?;
        rig.rests()?;
        rig.stop(GRACE);
    }
    until(&mut rigs, "each runtime is over", |rigs| rigs.iter().all(|rig| rig.runtime.is_over()))?;
    for mut rig in rigs {
        let receipt = rig.runtime.run()?;
        let counters = rig.counters();
        check!(receipt.cut == 0, "{} resources did not close within the grace", receipt.cut);
        check!(counters.resources == 0, "{} resources are left", counters.resources);
        check!(counters.queue_bytes == 0, "{} bytes are left in queues", counters.queue_bytes);
        receipt.check()?;
    }
    Ok(())
}

/// Two streams of one runtime, connected to each other.
pub(super) struct Pair<C: Codec = reactor::Bytes, L: Layer = ()> {
    pub(super) rig: Rig,
    pub(super) server: ServiceId<Probe<C, L>>,
    pub(super) client: ServiceId<Probe<C, L>>,
    pub(super) address: Address,
    pub(super) at_server: Id<Stream<C, L>>,
    pub(super) at_client: Id<Stream<C, L>>,
}

impl Pair {
    /// Makes a pair that passes bytes unchanged.
    pub(super) fn new(fixture: &mut Fixture<'_>) -> Result<Pair, Stop> {
        Pair::of(fixture, || Stream::new(reactor::Bytes))
    }

    /// Makes a pair whose sockets take little at a time.
    pub(super) fn narrow(fixture: &mut Fixture<'_>) -> Result<Pair, Stop> {
        let (mut listen, mut connect) = (ListenOptions::default(), ConnectOptions::default());
        // A narrow receive buffer would start TCP's timers against silly windows.
        (listen.socket.send_buffer, connect.socket.send_buffer) = (Some(1), Some(1));
        Pair::with(Rig::new(fixture)?, &listen, &connect, || Stream::new(reactor::Bytes))
    }
}

impl<C: Items, L: Layer> Pair<C, L> {
    /// Makes a pair of these streams.
    pub(super) fn of(
        fixture: &mut Fixture<'_>,
        make: impl FnMut() -> Stream<C, L> + 'static,
    ) -> Result<Pair<C, L>, Stop> {
        Pair::with(Rig::new(fixture)?, &ListenOptions::default(), &ConnectOptions::default(), make)
    }

    /// Makes a pair over this rig, with these options and streams.
    pub(super) fn with(
        mut rig: Rig,
        listen: &ListenOptions,
        connect: &ConnectOptions,
        mut make: impl FnMut() -> Stream<C, L> + 'static,
    ) -> Result<Pair<C, L>, Stop> {
        let (server, client) = (rig.add(Probe::quiet())?, rig.add(Probe::quiet())?);
        let ours = make();
        let (_, address) = rig.listen_with(server, listen, make)?;
        let at_client = rig.connect_with(client, &address, connect, ours)?;
        rig.until("both ends are open", |rig| {
            rig.get(server).open.len() == 1 && rig.get(client).open.len() == 1
        })?;
        let at_server = rig.get(server).open[0];
        Ok(Pair { rig, server, client, address, at_server, at_client })
    }

    /// Returns the probe that accepted.
    pub(super) fn server(&self) -> &Probe<C, L> {
        self.rig.get(self.server)
    }

    /// Returns the probe that connected.
    pub(super) fn client(&self) -> &Probe<C, L> {
        self.rig.get(self.client)
    }

    /// Calls the accepting service with its stream.
    pub(super) fn by_server<T>(
        &mut self,
        f: impl FnOnce(&mut Context<'_, Probe<C, L>>, Id<Stream<C, L>>) -> T,
    ) -> T {
        let id = self.at_server;
        self.rig.with(self.server, |_, cx| f(cx, id))
    }

    /// Calls the connecting service with its stream.
    pub(super) fn by_client<T>(
        &mut self,
        f: impl FnOnce(&mut Context<'_, Probe<C, L>>, Id<Stream<C, L>>) -> T,
    ) -> T {
        let id = self.at_client;
        self.rig.with(self.client, |_, cx| f(cx, id))
    }

    /// Turns until the server has received this many bytes on its stream.
    pub(super) fn until_arrived(&mut self, count: usize) -> Outcome {
        let (server, id) = (self.server, self.at_server);
        self.rig.until("all bytes have arrived", |rig| rig.get(server).received(id) >= count)
    }

    /// Turns until the client has received this many bytes on its stream.
    pub(super) fn until_returned(&mut self, count: usize) -> Outcome {
        let (client, id) = (self.client, self.at_client);
        self.rig.until("all bytes have returned", |rig| rig.get(client).received(id) >= count)
    }

    /// Returns the reason of the `at`-th close at the server, counted from 0.
    pub(super) fn why(&self, at: usize) -> &Closed {
        &self.server().closed[at].2
    }

    /// Turns until the server's stream has closed.
    pub(super) fn until_server_closed(&mut self) -> Outcome {
        let server = self.server;
        self.rig.until("the accepted stream has closed", |rig| !rig.get(server).closed.is_empty())
    }

    /// Aborts both streams, and finishes the runtime.
    pub(super) fn finish(mut self) -> Outcome {
        self.by_client(|cx, id| cx.abort(id));
        self.by_server(|cx, id| cx.abort(id));
        self.rig.finish()
    }
}

/// The condition must hold within this time.
const LIMIT: Duration = Duration::from_secs(20);
/// How many turns in a row may call no handler, and for how long. On a real engine `LIMIT` passes before.
const IDLE_TURNS_MAX: u32 = 20_000;
const IDLE_MAX: Duration = Duration::from_secs(5);
/// The longest wait of one turn.
const STEP: Duration = Duration::from_millis(2);
const SETTLED: u32 = 8;
const SETTLE_TURNS_MAX: u32 = 100_000;
const REST: Duration = Duration::from_millis(25);
/// Allows a few early returns. A spinning loop makes thousands.
const REST_TURNS_MAX: u32 = 20;
const GRACE: Duration = Duration::from_secs(3);
