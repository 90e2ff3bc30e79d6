//! The stage for a script: a runtime under torture, and the checks after its end.
//!
//! A stage has one runtime whose engine fails its n-th call. After the script, whatever its result, the stage
//! stops the runtime and checks: no service panicked; every opened resource was reported closed exactly once,
//! and no event followed that; the registry and the queues are empty; the process has as many descriptors as
//! before; a world holds nothing, and has all its buffers back. Every loop here is bounded, so a runtime that hangs or spins
//! fails the run.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fmt, fs,
    rc::Rc,
    time::{Duration, Instant},
};

use conformance::torture::FailNth;
use reactor::{
    Address, Codec, Id, Key, Layer, Limits, Receipt, Resource, Runtime, Service, ServiceId, Stream,
    engine::Candidates,
};
use sim::{Leaks, World};

use crate::player::Player;

/// The engine below a runtime under torture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ground {
    /// An engine of the system, by name.
    System(&'static str),
    /// The simulator, in a harsh world.
    Harsh,
}

/// The reason why a script did not finish. Allowed only if a call failed.
pub struct Spoiled(pub String);

impl<E: std::error::Error> From<E> for Spoiled {
    fn from(error: E) -> Spoiled {
        Spoiled(error.to_string())
    }
}

pub type Played = Result<(), Spoiled>;

/// The record of the resources of a run.
#[derive(Default)]
pub struct Ledger {
    /// How often `closed` was called, by key.
    closed: RefCell<BTreeMap<Key, u32>>,
    listeners: Cell<u64>,
    violation: RefCell<Option<String>>,
}

impl Ledger {
    /// Records that the resource is alive, because it was made or has an event.
    pub fn lives<R: Resource>(&self, id: Id<R>) {
        if *self.closed.borrow_mut().entry(id.key()).or_default() > 0 {
            self.violate(format!("{id:?} was told of after its end"));
        }
    }

    pub fn closed<R: Resource>(&self, id: Id<R>) {
        let mut closed = self.closed.borrow_mut();
        let count = closed.entry(id.key()).or_default();
        *count += 1;
        if *count > 1 {
            self.violate(format!("{id:?} was closed twice"));
        }
    }

    pub fn violate(&self, text: String) {
        self.violation.borrow_mut().get_or_insert(text);
    }

    fn check(&self, receipt: Option<&Receipt>) {
        if let Some(violation) = self.violation.borrow().as_ref() {
            panic!("{violation}");
        }
        let closed = self.closed.borrow();
        for (key, count) in closed.iter() {
            assert_eq!(*count, 1, "{key:?} was opened, and not told closed");
        }
        if let Some(receipt) = receipt {
            let counted: u64 = receipt.services.iter().map(|service| service.closed).sum();
            let told = closed.len() as u64 + self.listeners.get();
            assert_eq!(counted, told, "the receipt counts other ends than were told: {receipt:?}");
            let panicked = receipt.services.iter().find_map(|service| service.panicked.as_ref());
            assert_eq!(panicked, None);
        }
    }
}

/// A function that requests the stop through the context of the first service.
type AskToStop = Box<dyn FnOnce(&mut Runtime)>;

/// One run of a script.
pub struct Stage {
    pub runtime: Runtime,
    pub ground: Ground,
    pub ledger: Rc<Ledger>,
    torture: FailNth,
    world: Option<World>,
    stop: Option<AskToStop>,
    addresses: u32,
}

impl Stage {
    fn new(ground: Ground, torture: FailNth, seed: u64) -> Stage {
        let (engine, world): (Box<dyn reactor::engine::Engine>, _) = match ground {
            Ground::System(name) => {
                (Candidates::default().open(Some(name)).expect("the platform has it"), None)
            }
            Ground::Harsh => {
                let mut world = conformance::harsh(seed);
                (Box::new(world.engine()), Some(world))
            }
        };
        let runtime = Runtime::assemble(torture.engine(engine), Limits::default());
        let ledger = Rc::default();
        Stage { runtime, ground, ledger, torture, world, stop: None, addresses: 0 }
    }

    pub fn world(&mut self) -> Option<&mut World> {
        self.world.as_mut()
    }

    /// Adds a service. The first one also stops the runtime.
    pub fn add<S: Service>(&mut self, service: S) -> Result<ServiceId<S>, Spoiled> {
        let id = self.runtime.add(service)?;
        self.stop.get_or_insert_with(|| {
            Box::new(move |runtime| {
                runtime.with(id, |_, cx| cx.stop(GRACE));
            })
        });
        Ok(id)
    }

    /// Returns an address to listen at, with any free port.
    pub fn port(&self) -> Address {
        "127.0.0.1:0".parse().expect("an address")
    }

    /// Makes a unique name for a Unix socket.
    pub fn unix(&mut self) -> Address {
        self.addresses += 1;
        let began = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos());
        let name = format!("@torture-{}-{began}-{}", std::process::id(), self.addresses);
        name.parse().expect("an address")
    }

    pub fn listen<C: Codec, L: Layer>(
        &mut self,
        service: ServiceId<Player<C, L>>,
        at: &Address,
        mut make: impl FnMut() -> Option<Stream<C, L>> + 'static,
    ) -> Result<Address, Spoiled>
    where
        for<'a> C::In<'a>: AsRef<[u8]>,
    {
        let ledger = self.ledger.clone();
        let listen = |_: &mut Player<C, L>, cx: &mut reactor::Context<Player<C, L>>| {
            let listener = cx.listen(at, move |_| make())?;
            ledger.listeners.set(ledger.listeners.get() + 1);
            Ok(cx.local(listener)?)
        };
        self.runtime.with(service, listen).ok_or_else(gone)?
    }

    /// Listens at any free port.
    pub fn serve<C: Codec, L: Layer>(
        &mut self,
        service: ServiceId<Player<C, L>>,
        mut make: impl FnMut() -> Stream<C, L> + 'static,
    ) -> Result<Address, Spoiled>
    where
        for<'a> C::In<'a>: AsRef<[u8]>,
    {
        let at = self.port();
        self.listen(service, &at, move || Some(make()))
    }

    pub fn connect<C: Codec, L: Layer>(
        &mut self,
        service: ServiceId<Player<C, L>>,
        to: &Address,
        stream: Stream<C, L>,
    ) -> Result<Id<Stream<C, L>>, Spoiled>
    where
        for<'a> C::In<'a>: AsRef<[u8]>,
    {
        let id = self.runtime.with(service, |_, cx| cx.connect(to, stream)).ok_or_else(gone)??;
        self.ledger.lives(id);
        Ok(id)
    }

    /// Turns until the condition holds. Gives up once nothing happens any more after a failed call.
    pub fn until(&mut self, mut done: impl FnMut() -> bool) -> Played {
        let (quiet_max, began) = match self.ground {
            Ground::System(_) => (4, Instant::now()),
            Ground::Harsh => (30, Instant::now()),
        };
        let mut quiet = 0;
        for turn in 0_u64.. {
            if done() {
                return Ok(());
            }
            let late = turn > TURNS_MAX && began.elapsed() > LONG;
            assert!(!late, "it hangs: {turn} turns, a call has failed: {}", self.torture.has_failed());
            quiet = if self.runtime.turn(Some(STEP))? { 0 } else { quiet + 1 };
            let deadline = self.runtime.next_deadline().is_some_and(|next| next < LONG);
            if self.torture.has_failed() && quiet > quiet_max && (!deadline || quiet > 10 * quiet_max) {
                return Err(Spoiled("nothing happens any more".to_owned()));
            }
        }
        Ok(())
    }

    /// Makes this many turns, whatever they do.
    pub fn turns(&mut self, count: usize) -> Played {
        for _ in 0..count {
            self.runtime.turn(Some(Duration::ZERO))?;
        }
        Ok(())
    }

    fn end(mut self) {
        if let Some(stop) = self.stop.take() {
            stop(&mut self.runtime);
        }
        let mut failed = false;
        for turn in 0.. {
            if self.runtime.is_over() {
                break;
            }
            assert!(turn < STOP_TURNS_MAX, "the stop takes more than {STOP_TURNS_MAX} turns");
            if self.runtime.turn(Some(10 * STEP)).is_err() {
                failed = true;
                break;
            }
        }
        assert!(!failed || self.torture.has_failed(), "a wait failed by itself");
        let metrics = self.runtime.metrics();
        let receipt = self.runtime.run();
        let counters = metrics.read();
        assert_eq!((counters.resources, counters.queue_bytes), (0, 0), "what is left after the stop");
        if let Err(error) = &receipt {
            assert!(self.torture.has_failed(), "{error}");
        }
        drop(self.runtime);
        self.ledger.check(receipt.as_ref().ok());
        if let Some(world) = self.world {
            assert_eq!(world.leaks(), Leaks::default());
        }
    }
}

/// Fails the script if its result is not the expected one.
pub fn should(holds: bool, what: &str) -> Played {
    if holds { Ok(()) } else { Err(Spoiled(format!("not so: {what}"))) }
}

fn gone() -> Spoiled {
    Spoiled("the service has ended".to_owned())
}

/// A script: it plays on a stage, and returns whether it finished.
#[derive(Clone, Copy)]
pub struct Script {
    pub name: &'static str,
    pub play: fn(&mut Stage) -> Played,
    /// Reports whether the script can play there.
    pub on: fn(Ground) -> bool,
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Plays a script with its n-th engine call failing, for every n until a run has no failure left. Returns the
/// number of runs with a failure.
pub fn sweep(script: &Script, ground: Ground, seed: u64, times: u64) -> u64 {
    for nth in 1..=CALLS_MAX {
        let torture = FailNth::drawn(nth, seed).times(times);
        // The test harness prints this if the code below panics.
        println!(
            "{script:?} on {ground:?}: call {nth} fails {times} times, errno {}, seed {seed}",
            torture.errno()
        );
        let before = descriptors();
        let mut stage = Stage::new(ground, torture.clone(), seed);
        let played = (script.play)(&mut stage);
        stage.end();
        // The thread of a job drops the waker a moment after its result has arrived.
        let ended = Instant::now();
        while descriptors() != before {
            assert!(ended.elapsed() < LONG, "descriptors are left open: {} of {before}", descriptors());
            std::thread::yield_now();
        }
        if !torture.has_failed() {
            if let Err(Spoiled(why)) = played {
                panic!("nothing has failed, but {why}");
            }
            return nth - 1;
        }
    }
    panic!("{script:?} makes more than {CALLS_MAX} calls");
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

pub const STEP: Duration = Duration::from_millis(1);
const GRACE: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(20);
const TURNS_MAX: u64 = 20_000;
const STOP_TURNS_MAX: u32 = 3_000;
const CALLS_MAX: u64 = 3_000;

/// Makes a script for every ground.
pub const fn script(name: &'static str, play: fn(&mut Stage) -> Played) -> Script {
    Script { name, play, on: |_| true }
}

/// Makes a script that needs descriptors, or real time.
pub const fn on_systems(name: &'static str, play: fn(&mut Stage) -> Played) -> Script {
    Script { name, play, on: |ground| ground != Ground::Harsh }
}
