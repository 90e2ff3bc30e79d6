//! An engine with only the required methods: it refuses all optional operations with a clear message.

use std::{io, task::Waker};

use reactor::{
    Context, DatagramEvent, Datagrams, Handle, Id, Result, Runtime, Service, Source, engine::Refused,
};

use super::*;

/// The double without the optional methods of an engine.
struct Bare(Double);

impl Engine for Bare {
    fn name(&self) -> &'static str {
        "bare"
    }

    fn waker(&self) -> Waker {
        self.0.waker()
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.0.wait(timeout)
    }

    fn next(&mut self) -> Option<(Key, Event)> {
        self.0.next()
    }

    fn give(&mut self, chunk: Chunk) {
        self.0.give(chunk);
    }

    fn watch(&mut self, key: Key, source: Source<'_>, interest: Option<Interest>) -> io::Result<()> {
        self.0.watch(key, source, interest)
    }

    fn unwatch(&mut self, key: Key, source: Source<'_>) {
        self.0.unwatch(key, source);
    }

    fn listen(&mut self, address: &Address, options: &ListenOptions) -> io::Result<Transport> {
        self.0.listen(address, options)
    }

    fn connect(&mut self, address: &Address, options: &ConnectOptions) -> io::Result<Transport> {
        self.0.connect(address, options)
    }

    fn attach(&mut self, key: Key, transport: Transport, role: Role) -> std::result::Result<(), Refused> {
        self.0.attach(key, transport, role)
    }

    fn reading(&mut self, key: Key, on: bool) {
        self.0.reading(key, on);
    }

    fn send(&mut self, key: Key, queue: Box<Outgoing>) -> Option<Sent> {
        self.0.send(key, queue)
    }

    fn shutdown(&mut self, key: Key) -> io::Result<()> {
        self.0.shutdown(key)
    }

    fn detach(&mut self, key: Key) {
        self.0.detach(key);
    }

    fn close(&mut self, key: Key, how: Ending) {
        self.0.close(key, how);
    }

    fn local(&self, key: Key) -> io::Result<Address> {
        self.0.local(key)
    }

    fn peer(&self, key: Key) -> io::Result<Address> {
        self.0.peer(key)
    }
}

struct Nobody;

impl Service for Nobody {}

impl Handle<Datagrams> for Nobody {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Datagrams>, _: DatagramEvent) -> Result {
        Ok(())
    }
}

#[test]
fn an_engine_without_datagrams_says_so() {
    let network = Network::new(Tuning::roomy(1));
    let mut runtime = Runtime::with_engine(Bare(network.double()));
    let nobody = runtime.add(Nobody).expect("the service starts");
    let bound = runtime.with(nobody, |_, cx| cx.bind("127.0.0.1:7", Datagrams::new())).expect("it lives");
    let error = bound.expect_err("it has none");
    assert_eq!(error.io().map(io::Error::kind), Some(ErrorKind::Unsupported));
    assert_eq!(error.to_string(), "bind 127.0.0.1:7: the engine `bare` has no datagrams");
}
