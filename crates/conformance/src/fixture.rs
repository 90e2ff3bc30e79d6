//! The fixture of a row: fresh engines, random numbers, and ready-made connections.

use std::{fmt, io::ErrorKind, net::TcpListener};

use reactor::{
    Address, BindOptions, ConnectOptions, Key, ListenOptions,
    engine::{Engine, Role, Source, Transport},
};
use sim::Chance;

use crate::{
    driver::EngineDriver,
    suite::{Stop, check},
};

/// The fixture of one row. It makes as many engines as the row needs.
pub struct Fixture<'a> {
    make: &'a mut dyn FnMut() -> Box<dyn Engine>,
    chance: Chance,
    is_virtual: bool,
    has_datagrams: bool,
    passes_descriptors: bool,
    descriptors_max: usize,
    moves_little: bool,
}

impl fmt::Debug for Fixture<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fixture").field("is_virtual", &self.is_virtual).finish_non_exhaustive()
    }
}

/// The two ends of one connection, both streams of one engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pair {
    /// The end that connected.
    pub client: Key,
    /// The end that was accepted.
    pub server: Key,
}

impl<'a> Fixture<'a> {
    pub(crate) fn new(make: &'a mut dyn FnMut() -> Box<dyn Engine>, seed: u64) -> Fixture<'a> {
        let is_virtual = TcpListener::bind("127.0.0.1:0").is_ok_and(|listener| {
            let mut engine = make();
            let (key, source) = (Key::new(0, 0, 0), Source::of(&listener));
            match engine.watch(key, source, None) {
                Ok(()) => {
                    engine.unwatch(key, source);
                    false
                }
                Err(error) => error.kind() == ErrorKind::Unsupported,
            }
        });
        let bound = make().bind(&Address::Ip(([127, 0, 0, 1], 0).into()), &BindOptions::default());
        let has_datagrams = !bound.is_err_and(|error| error.kind() == ErrorKind::Unsupported);
        let passes_descriptors = passes_descriptors(&mut *make(), is_virtual);
        Fixture {
            make,
            chance: Chance::new(seed),
            is_virtual,
            has_datagrams,
            passes_descriptors,
            descriptors_max: usize::MAX,
            moves_little: false,
        }
    }

    /// Reports whether the engine has datagrams.
    pub fn has_datagrams(&self) -> bool {
        self.has_datagrams
    }

    /// Reports whether the engine can pass descriptors over its Unix links.
    pub fn passes_descriptors(&self) -> bool {
        self.passes_descriptors
    }

    /// Makes a fresh engine.
    pub fn engine(&mut self) -> Box<dyn Engine> {
        (self.make)()
    }

    /// Makes a fresh engine with a driver.
    pub fn driver(&mut self) -> EngineDriver {
        EngineDriver::new(self.engine())
    }

    pub(crate) fn with_descriptors_max(mut self, descriptors: usize) -> Fixture<'a> {
        self.descriptors_max = descriptors;
        self
    }

    pub(crate) fn with_little_moved(mut self, moves_little: bool) -> Fixture<'a> {
        self.moves_little = moves_little;
        self
    }

    /// Reports whether the engine moves so little at a time that a row of megabytes would not end in time.
    pub fn moves_little(&self) -> bool {
        self.moves_little
    }

    /// Returns the number below which descriptors must stay for the engine to take them.
    pub fn descriptors_max(&self) -> usize {
        self.descriptors_max
    }

    /// Reports whether the engine refuses real descriptors as unsupported.
    pub fn is_virtual(&self) -> bool {
        self.is_virtual
    }

    /// Draws a seeded number from 1 to `most`, or 0 if `most` is 0.
    pub fn up_to(&mut self, most: usize) -> usize {
        self.chance.up_to(most)
    }

    /// Returns an address on the loopback with any free port.
    pub fn any_address(&self) -> Address {
        Address::Ip(([127, 0, 0, 1], 0).into())
    }
}

/// Reports whether the engine can pass descriptors. A virtual engine refuses this as unsupported even for a
/// link that it does not have.
#[cfg(unix)]
fn passes_descriptors(engine: &mut dyn Engine, is_virtual: bool) -> bool {
    let asked = engine.receive(Source::hosted(u64::MAX), &mut []);
    !is_virtual || asked.is_err_and(|error| error.kind() != ErrorKind::Unsupported)
}

#[cfg(not(unix))]
fn passes_descriptors(_: &mut dyn Engine, _: bool) -> bool {
    false
}

/// Opens a listener and attaches it.
pub(crate) fn listen(driver: &mut EngineDriver, address: &Address) -> Result<(Key, Address), Stop> {
    let transport = driver.engine.listen(address, &ListenOptions::default())?;
    let listener = driver.attach(transport, Role::Listener)?;
    let address = driver.engine.local(listener)?;
    Ok((listener, address))
}

/// Begins to connect.
pub(crate) fn connect(driver: &mut EngineDriver, address: &Address) -> Result<Key, Stop> {
    connect_with(driver, address, &ConnectOptions::default())
}

pub(crate) fn connect_with(
    driver: &mut EngineDriver,
    address: &Address,
    options: &ConnectOptions,
) -> Result<Key, Stop> {
    let transport = driver.engine.connect(address, options)?;
    driver.attach(transport, Role::Connecting)
}

/// Turns until the listener has accepted a connection and the client is connected. Returns the accepted
/// transport.
pub(crate) fn accept(driver: &mut EngineDriver, listener: Key, client: Key) -> Result<Transport, Stop> {
    driver.until("a connection is accepted", |driver| {
        !driver.events(listener).accepted.is_empty() && !driver.events(client).connected.is_empty()
    })?;
    check!(matches!(driver.events(client).connected[..], [Ok(())]), "{:?}", driver.events(client).connected);
    let (transport, _) = driver.events_mut(listener).accepted.remove(0);
    Ok(transport)
}

/// Makes a connection whose two ends are streams of this engine.
pub(crate) fn pair(driver: &mut EngineDriver) -> Result<Pair, Stop> {
    Ok(pairs(driver, 1, &ConnectOptions::default())?[0])
}

/// Makes `count` connections whose two ends are streams of this engine.
pub(crate) fn pairs(
    driver: &mut EngineDriver,
    count: usize,
    options: &ConnectOptions,
) -> Result<Vec<Pair>, Stop> {
    let (listener, address) = listen(driver, &Address::Ip(([127, 0, 0, 1], 0).into()))?;
    let mut made = Vec::with_capacity(count);
    for _ in 0..count {
        let client = connect_with(driver, &address, options)?;
        let transport = accept(driver, listener, client)?;
        let server = driver.attach(transport, Role::Stream)?;
        made.push(Pair { client, server });
    }
    driver.close(listener);
    Ok(made)
}
