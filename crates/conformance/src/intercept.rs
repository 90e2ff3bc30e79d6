//! A wrapper around an engine, with hooks to interfere.

use std::{
    collections::VecDeque,
    io,
    task::Waker,
    time::{Duration, SystemTime},
};

use reactor::{
    Address, BindOptions, ConnectOptions, Group, Interest, Key, ListenOptions, Outgoing, Source, Time,
    engine::{AttachError, Batch, Chunk, DatagramQueue, Ending, Engine, Event, Role, Sent, Transport},
    file::FileJob,
    host::{Host, Job},
};

/// The hooks of a wrapper. Every method's default changes nothing.
pub(crate) trait Intercept {
    /// Returns an error to make a call fail. The wrapper calls this before each call that can fail.
    fn fails(&mut self) -> Option<io::Error> {
        None
    }

    /// Handles each event. It may add events to it, drop it, or change it.
    fn event(&mut self, key: Key, event: Event, out: &mut VecDeque<(Key, Event)>, _: &mut dyn Engine) {
        out.push_back((key, event));
    }

    /// Handles the close or unwatch of a key.
    fn closed(&mut self, _: Key, _: &mut VecDeque<(Key, Event)>) {}

    fn waker(&self, waker: Waker) -> Waker {
        waker
    }

    fn now(&self, now: Time) -> Time {
        now
    }

    fn timeout(&mut self, timeout: Option<Duration>) -> Option<Duration> {
        timeout
    }

    fn wait(&mut self, timeout: Option<Duration>, inner: &mut dyn Engine) -> io::Result<()> {
        inner.wait(timeout)
    }

    /// Changes the result of a send that completed at once.
    fn sent(&mut self, sent: Sent) -> Sent {
        sent
    }
}

/// An engine with its hooks.
pub(crate) struct Intercepted<T> {
    inner: Box<dyn Engine>,
    intercept: T,
    pending: VecDeque<(Key, Event)>,
}

impl<T: Intercept> Intercepted<T> {
    pub(crate) fn new(inner: Box<dyn Engine>, intercept: T) -> Intercepted<T> {
        Intercepted { inner, intercept, pending: VecDeque::new() }
    }

    fn may_fail(&mut self) -> io::Result<()> {
        self.intercept.fails().map_or(Ok(()), Err)
    }
}

#[deny(clippy::missing_trait_methods)]
impl<T: Intercept> Host for Intercepted<T> {
    fn now(&self) -> Time {
        self.intercept.now(self.inner.host().now())
    }

    fn wall(&self) -> SystemTime {
        self.inner.host().wall()
    }

    fn entropy(&mut self) -> u64 {
        self.inner.host_mut().entropy()
    }

    fn print_error(&mut self, line: &str) -> bool {
        self.inner.host_mut().print_error(line)
    }

    fn run_blocking(&mut self, job: Job) -> Option<Job> {
        self.inner.host_mut().run_blocking(job)
    }

    fn run_file(&mut self, job: FileJob) -> Option<FileJob> {
        self.inner.host_mut().run_file(job)
    }

    fn left_file(&mut self) -> Option<FileJob> {
        self.inner.host_mut().left_file()
    }

    #[cfg(unix)]
    fn spawn(
        &mut self,
        command: &mut std::process::Command,
        options: &reactor::process::SpawnOptions,
    ) -> io::Result<reactor::process::Child> {
        self.inner.host_mut().spawn(command, options)
    }

    #[cfg(unix)]
    fn activated(&mut self) -> Option<Vec<reactor::systemd::Activated>> {
        self.inner.host_mut().activated()
    }

    #[cfg(unix)]
    fn stand_in(&mut self, of: reactor::host::StandIn) -> Option<io::Result<Transport>> {
        self.inner.host_mut().stand_in(of)
    }
}

impl<T: Intercept> Engine for Intercepted<T> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn host(&self) -> &dyn Host {
        self
    }

    fn host_mut(&mut self) -> &mut dyn Host {
        self
    }

    fn direct_sink(&self, key: Key) -> Option<Source<'_>> {
        self.inner.direct_sink(key)
    }

    fn await_room(&mut self, key: Key) -> bool {
        self.inner.await_room(key)
    }

    fn waker(&self) -> Waker {
        self.intercept.waker(self.inner.waker())
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.may_fail()?;
        let timeout = self.intercept.timeout(timeout);
        self.intercept.wait(timeout, &mut *self.inner)
    }

    fn submit(&mut self) {
        self.inner.submit();
    }

    fn finish_closes(&mut self) {
        self.inner.finish_closes();
    }

    fn next(&mut self) -> Option<(Key, Event)> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            let (key, event) = self.inner.next()?;
            self.intercept.event(key, event, &mut self.pending, &mut *self.inner);
        }
    }

    fn give(&mut self, chunk: Chunk) {
        self.inner.give(chunk);
    }

    fn watch(&mut self, key: Key, source: Source<'_>, interest: Option<Interest>) -> io::Result<()> {
        if let Err(error) = self.may_fail() {
            // By the contract, a resource whose watch failed is not watched.
            self.inner.unwatch(key, source);
            return Err(error);
        }
        self.inner.watch(key, source, interest)
    }

    fn unwatch(&mut self, key: Key, source: Source<'_>) {
        self.inner.unwatch(key, source);
        self.intercept.closed(key, &mut self.pending);
    }

    fn read(&mut self, source: Source<'_>, into: &mut [u8]) -> io::Result<usize> {
        self.may_fail()?;
        self.inner.read(source, into)
    }

    fn write(&mut self, source: Source<'_>, from: &Outgoing) -> io::Result<usize> {
        self.may_fail()?;
        self.inner.write(source, from)
    }

    fn listen(&mut self, address: &Address, options: &ListenOptions) -> io::Result<Transport> {
        self.may_fail()?;
        self.inner.listen(address, options)
    }

    fn connect(&mut self, address: &Address, options: &ConnectOptions) -> io::Result<Transport> {
        self.may_fail()?;
        self.inner.connect(address, options)
    }

    fn bind(&mut self, address: &Address, options: &BindOptions) -> io::Result<Transport> {
        self.may_fail()?;
        self.inner.bind(address, options)
    }

    fn send_datagrams(&mut self, key: Key, queue: &mut DatagramQueue) -> usize {
        self.inner.send_datagrams(key, queue)
    }

    fn give_batch(&mut self, batch: Batch) {
        self.inner.give_batch(batch);
    }

    fn set_longest(&mut self, key: Key, bytes: usize) {
        self.inner.set_longest(key, bytes);
    }

    fn set_member(&mut self, key: Key, group: &Group, member: bool) -> io::Result<()> {
        self.may_fail()?;
        self.inner.set_member(key, group, member)
    }

    fn attach(&mut self, key: Key, transport: Transport, role: Role) -> Result<(), AttachError> {
        match self.may_fail() {
            Ok(()) => self.inner.attach(key, transport, role),
            Err(error) => Err(AttachError { transport, error }),
        }
    }

    fn reading(&mut self, key: Key, on: bool) {
        self.inner.reading(key, on);
    }

    fn turn_away(&mut self, key: Key) -> bool {
        self.inner.turn_away(key)
    }

    fn probe(&mut self, key: Key) {
        self.inner.probe(key);
    }

    fn send(&mut self, key: Key, queue: Box<Outgoing>) -> Option<Sent> {
        let sent = self.inner.send(key, queue)?;
        Some(self.intercept.sent(sent))
    }

    fn shutdown(&mut self, key: Key) -> io::Result<()> {
        self.may_fail()?;
        self.inner.shutdown(key)
    }

    fn detach(&mut self, key: Key) {
        self.inner.detach(key);
    }

    fn close(&mut self, key: Key, how: Ending) {
        self.inner.close(key, how);
        self.intercept.closed(key, &mut self.pending);
    }

    fn local(&self, key: Key) -> io::Result<Address> {
        self.inner.local(key)
    }

    fn peer(&self, key: Key) -> io::Result<Address> {
        self.inner.peer(key)
    }

    fn peer_credentials(&self, key: Key) -> io::Result<reactor::Credentials> {
        self.inner.peer_credentials(key)
    }

    #[cfg(unix)]
    fn pass(
        &mut self,
        to: Source<'_>,
        bytes: &[io::IoSlice<'_>],
        with: &mut Vec<reactor::Descriptor>,
    ) -> io::Result<usize> {
        self.may_fail()?;
        self.inner.pass(to, bytes, with)
    }

    #[cfg(unix)]
    fn receive(&mut self, from: Source<'_>, into: &mut [u8]) -> io::Result<reactor::engine::Delivery> {
        self.may_fail()?;
        self.inner.receive(from, into)
    }

    fn calls(&self) -> u64 {
        self.inner.calls()
    }

    fn memory(&self) -> usize {
        self.inner.memory()
    }

    #[cfg(unix)]
    fn fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.inner.fd()
    }
}
