//! The harness runs one or several services of one runtime under a test, without a network. Like nodes and
//! the world, and unlike the engine, it knows services.
//!
//! The services run in a world of one host, with links that take no time and without faults. The other
//! ends of their connections are streams of a second runtime on that host, which the harness drives.

use std::{
    cell::{Ref, RefCell},
    mem::take,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use reactor::{
    Address, Bytes, Call, Closed, Context, Controller, Error, Event, Handle, Id, Limits, Listener, Metrics,
    Receipt, Result as Done, Runtime, Service, ServiceId, Stream, StreamOptions, Time, ToAddress,
};

use crate::{
    engine::SimEngine,
    ids::{EngineId, HostId},
    net::link::Link,
    world::node::NodeId,
    world::state::State,
    world::{World, WorldOptions},
};

/// A test harness for one service: the test controls the virtual time and the bare ends of its connections.
///
/// [`add`](Harness::add) adds more services to the same runtime. They can send each other messages, and a
/// test can look at each of them.
///
/// Every address names the host of the harness, so a service may connect to any address. Each call of the
/// harness runs everything that follows from it at once, and takes 1 microsecond of virtual time. Only
/// [`advance`](Harness::advance) lets more time pass. The seed is 0, and offloaded work ends within 5
/// milliseconds.
///
/// ```
/// use reactor::{Context, Event, Handle, Id, Lines, Receive, Result, Service, Stream};
/// use sim::Harness;
/// use std::time::Duration;
///
/// /// Answers a line a second later.
/// struct Slow;
///
/// impl Service for Slow {
///     fn start(&mut self, cx: &mut Context<Self>) -> Result {
///         cx.listen("0.0.0.0:7007", |_| Some(Stream::new(Lines::new())))?;
///         Ok(())
///     }
/// }
///
/// impl Handle<Stream<Lines>> for Slow {
///     fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream<Lines>>, event: Event<Lines>) -> Result {
///         if let Event::Received(_) = event {
///             cx.after(Duration::from_secs(1), id);
///         }
///         Ok(())
///     }
/// }
///
/// impl Receive<Id<Stream<Lines>>> for Slow {
///     fn receive(&mut self, cx: &mut Context<Self>, id: Id<Stream<Lines>>) -> Result {
///         cx.send(id, "done");
///         cx.close(id);
///         Ok(())
///     }
/// }
///
/// let mut harness = Harness::new(Slow)?;
/// let peer = harness.connect("127.0.0.1:7007")?;
/// peer.send(b"please\n");
/// assert_eq!((peer.received(), harness.timers()), (vec![], 1));
/// harness.advance(Duration::from_secs(1));
/// assert_eq!(peer.received(), b"done\n");
/// assert!(peer.is_ended());
/// # Ok::<(), reactor::Error>(())
/// ```
pub struct Harness<S: Service> {
    stage: Rc<RefCell<Stage>>,
    node: NodeId<S>,
    id: ServiceId<S>,
    /// Keeps the runtime from ending by itself.
    controller: Controller<S>,
    metrics: Arc<Metrics>,
    calls: Rc<RefCell<Vec<Call>>>,
}

/// A test's end of a connection with the service of a [`Harness`].
///
/// Dropping it leaves the connection as it is. See [`Harness`] for an example.
pub struct Peer {
    stage: Rc<RefCell<Stage>>,
    id: Id<Stream>,
    log: Rc<RefCell<Log>>,
}

/// The events of one end so far.
#[derive(Default)]
struct Log {
    received: Vec<u8>,
    is_open: bool,
    is_ended: bool,
    closed: Option<Closed>,
}

/// The world with its two runtimes.
struct Stage {
    world: World,
    hands: Runtime,
    hand: ServiceId<Hands>,
    /// The number of the engine that runs the test's ends.
    engine: EngineId,
}

/// The service that holds the test's ends of the connections.
#[derive(Default)]
struct Hands {
    logs: reactor::IdMap<Stream, Rc<RefCell<Log>>>,
    doors: Vec<Address>,
    /// Accepted connections that the test has not asked for yet, with the address that the service connected
    /// to.
    accepted: Vec<(Address, Id<Stream>)>,
}

impl Service for Hands {}

impl Handle<Stream> for Hands {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Done {
        if !self.logs.contains(id) {
            self.accepted.push((cx.local(id)?, id));
            self.logs.insert(id, Rc::default());
        }
        let Some(log) = self.logs.get(id) else { return Ok(()) };
        let mut log = log.borrow_mut();
        match event {
            Event::Open => log.is_open = true,
            Event::Received(bytes) => log.received.extend_from_slice(bytes),
            Event::End => log.is_ended = true,
            Event::Drained | Event::HungUp => (),
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, id: Id<Stream>, _: Stream, why: Closed) {
        if let Some(log) = self.logs.remove(id) {
            let mut log = log.borrow_mut();
            (log.is_ended, log.closed) = (true, Some(why));
        }
    }
}

impl Hands {
    fn listen(&mut self, cx: &mut Context<Self>, address: &Address) -> Result<(), Error> {
        if !self.doors.contains(address) {
            let _: Id<Listener<Stream>> = cx.listen(address, |_| Some(bare()))?;
            self.doors.push(address.clone());
        }
        Ok(())
    }
}

/// Makes a stream that ends only when the test ends it, and that reads even while much output waits.
fn bare() -> Stream {
    let options = StreamOptions::with(|options| options.backpressure = false);
    Stream::new(Bytes).half_open(true).options(options)
}

impl Stage {
    /// Runs the world up to a moment, and sets the clock to it.
    fn run_to(&mut self, end: Time) {
        let end = end.as_nanos();
        loop {
            while self.world.step_until(end) {
                self.serve_hands();
            }
            // Without a new event, timers of the test's ends may still be due.
            self.turn_hands();
            if !self.is_due(end) {
                break;
            }
        }
        let mut state = self.world.state.borrow_mut();
        state.base.clock.move_to(end);
    }

    fn is_due(&self, end: u64) -> bool {
        let base = &self.world.state.borrow().base;
        base.hosts.is_any_runnable() || base.clock.is_due(end)
    }

    fn serve_hands(&mut self) {
        let is_ready = self.world.state.borrow().base.engines.is_ready(self.engine);
        if is_ready {
            self.turn_hands();
        }
    }

    fn turn_hands(&mut self) {
        self.hands.turn(Some(Duration::ZERO)).expect("a simulated engine does not break");
    }

    fn settle(&mut self) {
        let end = self.world.now() + SETTLE;
        self.run_to(end);
    }

    fn with_hands<T>(&mut self, f: impl FnOnce(&mut Hands, &mut Context<Hands>) -> T) -> T {
        let result = self.hands.with(self.hand, f).expect("the hands do not panic");
        self.turn_hands();
        self.settle();
        result
    }
}

impl<S: Service> Harness<S> {
    /// Makes a harness, and starts the service.
    ///
    /// # Errors
    /// The error of the service's start.
    pub fn new(service: S) -> Result<Harness<S>, Error> {
        Harness::listening(&[], service)
    }

    /// Makes a harness in which the test already listens at these addresses, so that the service can connect
    /// in its start.
    ///
    /// # Errors
    /// The error of the service's start, or an invalid address.
    pub fn listening(addresses: &[&str], service: S) -> Result<Harness<S>, Error> {
        let instant = Link { latency_min: Duration::ZERO, latency_max: Duration::ZERO, ..Link::loopback() };
        let options = WorldOptions {
            link: instant,
            loopback: instant,
            turn_cost: Duration::from_nanos(1),
            ..WorldOptions::default()
        };
        let mut world = World::with_options(0, options);
        let state = world.state.clone();
        state.borrow_mut().base.hosts.is_alone = true;
        let doors: Vec<String> = addresses.iter().map(|address| (*address).to_owned()).collect();
        let calls = Rc::<RefCell<Vec<Call>>>::default();
        let (mut service, mut doors, hands) = (Some(service), Some(doors), Rc::new(RefCell::new(None)));
        let (log, made) = (calls.clone(), hands.clone());
        let node = world.add(move |runtime| {
            let (Some(service), Some(doors)) = (service.take(), doors.take()) else {
                return Err(Error::Misuse { operation: "restart", why: "a harness's service starts once" });
            };
            *made.borrow_mut() = Some(make_hands(&state, &doors)?);
            let log = log.clone();
            runtime.observe(move |call| note(&mut log.borrow_mut(), call));
            runtime.add(service)
        });
        if let Some(Err(error)) = world.nodes[FIRST].ended.take() {
            return Err(error);
        }
        let id =
            *world.nodes[FIRST].made.as_ref().and_then(|made| made.downcast_ref()).expect("it has started");
        let runtime = world.runtime(node).expect("it has started");
        let (controller, metrics) = (runtime.controller(id), runtime.metrics());
        let (hands, hand, engine) = hands.take().expect("made before the service");
        let mut stage = Stage { world, hands, hand, engine };
        stage.settle();
        Ok(Harness { stage: Rc::new(RefCell::new(stage)), node, id, controller, metrics, calls })
    }

    /// Changes the world, and then runs everything that follows at once.
    #[cfg(unix)]
    pub(crate) fn with_world<T>(&mut self, f: impl FnOnce(&mut World) -> T) -> T {
        let stage = &mut *self.stage.borrow_mut();
        let result = f(&mut stage.world);
        stage.settle();
        result
    }

    // Peers.

    /// Connects to a listener of the service. [`Peer::closed`] reports a refused connect.
    ///
    /// # Errors
    /// The address is invalid, or it is a path without a listener.
    pub fn connect(&mut self, address: impl ToAddress) -> Result<Peer, Error> {
        let address = to_address(&address)?;
        let log = Rc::<RefCell<Log>>::default();
        let mine = log.clone();
        let id = self.stage.borrow_mut().with_hands(|hands, cx| {
            let id = cx.connect(&address, bare())?;
            hands.logs.insert(id, mine);
            Ok::<_, Error>(id)
        })?;
        Ok(Peer { stage: self.stage.clone(), id, log })
    }

    /// Listens for connections of the service. One call for each address suffices.
    ///
    /// # Errors
    /// The address is invalid, or it is in use.
    pub fn listen(&mut self, address: impl ToAddress) -> Result<(), Error> {
        let address = to_address(&address)?;
        self.stage.borrow_mut().with_hands(|hands, cx| hands.listen(cx, &address))
    }

    /// Takes the oldest connection that the service made to this address and that was not taken yet. The test
    /// must listen there.
    ///
    /// # Panics
    /// The service made no such connection.
    pub fn expect_connect(&mut self, address: impl ToAddress) -> Peer {
        let address = to_address(&address).expect("an address");
        let found = self.stage.borrow_mut().with_hands(|hands, _| {
            let at = hands.accepted.iter().position(|(local, _)| *local == address)?;
            let (_, id) = hands.accepted.remove(at);
            // The log of a closed connection is gone already, so its peer shows only the end.
            Some((id, hands.logs.get(id).cloned()))
        });
        let Some((id, log)) = found else { panic!("the service made no connection to {address}") };
        let over = || Rc::new(RefCell::new(Log { is_ended: true, ..Log::default() }));
        Peer { stage: self.stage.clone(), id, log: log.unwrap_or_else(over) }
    }

    // The services.

    /// Adds another service to the same runtime, and starts it. All services of a harness can send each other
    /// messages.
    ///
    /// ```
    /// use reactor::{Context, Receive, Result, Service, ServiceId};
    /// use sim::Harness;
    ///
    /// /// Adds up the numbers.
    /// #[derive(Default)]
    /// struct Store(u64);
    /// /// Passes numbers on.
    /// struct Front(ServiceId<Store>);
    ///
    /// impl Service for Store {}
    /// impl Service for Front {}
    ///
    /// impl Receive<u64> for Store {
    ///     fn receive(&mut self, _: &mut Context<Self>, number: u64) -> Result {
    ///         self.0 += number;
    ///         Ok(())
    ///     }
    /// }
    /// impl Receive<u64> for Front {
    ///     fn receive(&mut self, cx: &mut Context<Self>, number: u64) -> Result {
    ///         cx.tell(self.0, number)?;
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let mut harness = Harness::new(Store::default())?;
    /// let front = harness.add(Front(harness.id()))?;
    /// harness.with_service(front, |front, cx| front.receive(cx, 7)).expect("there is room");
    /// assert_eq!(harness.service().0, 7);
    /// # Ok::<(), reactor::Error>(())
    /// ```
    ///
    /// # Errors
    /// The error of the service's start.
    ///
    /// # Panics
    /// The runtime has ended.
    pub fn add<T: Service>(&mut self, service: T) -> Result<ServiceId<T>, Error> {
        let stage = &mut *self.stage.borrow_mut();
        let runtime = stage.world.runtime(self.node).expect("the runtime has ended");
        let added = runtime.add(service);
        stage.world.state.borrow_mut().base.make_runnable(self.node.number);
        stage.settle();
        added
    }

    /// Returns the id of the first service, with which other services can send it messages.
    pub fn id(&self) -> ServiceId<S> {
        self.id
    }

    /// Returns a service of the harness by its id. Drop the guard before the next call of the harness.
    ///
    /// # Panics
    /// The service has ended, by a panic or a stop, or the id is of another harness.
    pub fn service_of<T: Service>(&self, id: ServiceId<T>) -> Ref<'_, T> {
        Ref::map(self.stage.borrow(), |stage| {
            let runtime = stage.world.nodes[FIRST].runtime.as_ref();
            runtime.and_then(|runtime| runtime.service(id)).expect("the service has ended")
        })
    }

    /// Calls a service of the harness with a real context, by its id.
    ///
    /// # Panics
    /// The service has ended, by a panic or a stop, or the id is of another harness.
    pub fn with_service<T: Service, R>(
        &mut self,
        id: ServiceId<T>,
        f: impl FnOnce(&mut T, &mut Context<T>) -> R,
    ) -> R {
        let stage = &mut *self.stage.borrow_mut();
        let runtime = stage.world.runtime(self.node);
        let result = runtime.and_then(|runtime| runtime.with(id, f)).expect("the service has ended");
        stage.world.state.borrow_mut().base.make_runnable(self.node.number);
        stage.settle();
        result
    }

    /// Returns the first service. Drop the guard before the next call of the harness.
    ///
    /// # Panics
    /// The service has ended, by a panic or a stop.
    pub fn service(&self) -> Ref<'_, S> {
        self.service_of(self.id)
    }

    /// Calls the first service with a real context, for example to deliver an event.
    ///
    /// # Panics
    /// The service has ended, by a panic or a stop.
    pub fn with<T>(&mut self, f: impl FnOnce(&mut S, &mut Context<S>) -> T) -> T {
        self.with_service(self.id, f)
    }

    /// Takes the calls of the services since the last call of this method, but at most the first 65,536 of
    /// them.
    pub fn calls(&self) -> Vec<Call> {
        take(&mut self.calls.borrow_mut())
    }

    /// Returns the number of pending timers of all services.
    pub fn timers(&self) -> u64 {
        self.metrics.read().timers
    }

    // Time.

    /// Returns the virtual time.
    pub fn now(&self) -> Time {
        self.stage.borrow().world.now()
    }

    /// Lets this much virtual time pass. Timers fire, and offloaded work ends.
    pub fn advance(&mut self, time: Duration) {
        let mut stage = self.stage.borrow_mut();
        let end = stage.world.now() + time;
        stage.run_to(end);
        stage.settle();
    }

    /// Returns the time until the next deadline of the runtime: a timer, or a deadline of a stream.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.stage.borrow().world.nodes[FIRST].runtime.as_ref()?.next_deadline()
    }

    /// Stops the runtime, and lets time pass until it has ended. That takes the grace at most.
    ///
    /// # Panics
    /// The runtime was stopped before.
    pub fn stop(&mut self, grace: Duration) -> Receipt {
        let mut stage = self.stage.borrow_mut();
        self.controller.stop(grace);
        let end = stage.world.now() + grace + SETTLE;
        loop {
            stage.settle();
            if let Some(ended) = stage.world.nodes[FIRST].ended.take() {
                return ended.expect("a simulated engine does not break");
            }
            assert!(stage.world.is_up(self.node) && stage.world.now() <= end, "it was stopped before");
            // Move to the next event, but not past it.
            let next = stage.world.state.borrow().base.clock.next_at().unwrap_or(u64::MAX);
            stage.run_to(Time::from_nanos(next.min(end.as_nanos())));
        }
    }
}

impl Peer {
    /// Sends bytes. A connection that is over drops them.
    pub fn send(&self, bytes: &[u8]) {
        self.act(|cx, id| {
            cx.send(id, bytes);
        });
    }

    /// Takes the bytes that the service sent since the last call of this method.
    pub fn received(&self) -> Vec<u8> {
        take(&mut self.log.borrow_mut().received)
    }

    /// Ends this direction after all queued bytes. The other direction stays open.
    pub fn finish(&self) {
        self.act(|cx, id| cx.finish(id));
    }

    /// Closes in an orderly way. This end reads no more.
    pub fn close(&self) {
        self.act(|cx, id| cx.close(id));
    }

    /// Resets the connection.
    pub fn reset(&self) {
        self.act(|cx, id| cx.abort(id));
    }

    /// Stops reading, so that the service fills the window.
    pub fn pause(&self) {
        self.act(|cx, id| cx.pause(id));
    }

    /// Resumes reading.
    pub fn resume(&self) {
        self.act(|cx, id| cx.resume(id));
    }

    /// Returns whether the connection was established.
    pub fn is_open(&self) -> bool {
        self.log.borrow().is_open
    }

    /// Returns whether the service sends no more, because it finished, closed or reset.
    pub fn is_ended(&self) -> bool {
        self.log.borrow().is_ended
    }

    /// Returns how the connection ended from the view of this end, or `None` while it is open.
    pub fn closed(&self) -> Option<Ref<'_, Closed>> {
        Ref::filter_map(self.log.borrow(), |log| log.closed.as_ref()).ok()
    }

    fn act(&self, f: impl FnOnce(&mut Context<Hands>, Id<Stream>)) {
        self.stage.borrow_mut().with_hands(|_, cx| f(cx, self.id));
    }
}

impl<S: Service> std::fmt::Debug for Harness<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Harness").field("node", &self.node).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let log = self.log.borrow();
        f.debug_struct("Peer").field("is_open", &log.is_open).field("is_ended", &log.is_ended).finish()
    }
}

type Made = (Runtime, ServiceId<Hands>, EngineId);

/// Makes the runtime of the test's ends, on the harness's host.
fn make_hands(state: &Rc<RefCell<State>>, doors: &[String]) -> Result<Made, Error> {
    let engine = SimEngine::new(state, FIRST, None).still();
    let id = engine.engine;
    let mut hands = Runtime::assemble(Box::new(engine), Limits::default());
    let hand = hands.add(Hands::default())?;
    for address in doors {
        let address = to_address(address)?;
        hands.with(hand, |hands, cx| hands.listen(cx, &address)).expect("the hands do not panic")?;
    }
    Ok((hands, hand, id))
}

fn note(calls: &mut Vec<Call>, call: Call) {
    if calls.len() < CALLS_MAX {
        calls.push(call);
    }
}

fn to_address(address: &impl ToAddress) -> Result<Address, Error> {
    address.to_address().map_err(|source| Error::Os {
        operation: "address",
        resource: "a harness's peer".to_owned(),
        source,
    })
}

const FIRST: HostId = HostId::FIRST;
const SETTLE: Duration = Duration::from_micros(1);
const CALLS_MAX: usize = 1 << 16;
