//! The echo service over an engine, in its own thread, and the cost of a message there.

use std::{sync::Arc, time::Duration};

use reactor::{
    Address, Bytes, Context, Counters, Event, Handle, Id, Limits, Metrics, Reactor, Receive, Reply, Result,
    Runtime, Service, Stream,
    engine::{Engine, EngineError},
};

use crate::{args::Work, client};

/// The results of the measurement.
pub(crate) struct Measured {
    pub(crate) round_trips_per_second: f64,
    /// The processor time of the serving thread for one message. `None` if the system does not report it.
    pub(crate) processor_time: Option<Duration>,
    pub(crate) calls_per_message: f64,
}

/// Serves over the engine, and talks to it.
///
/// # Errors
/// The engine or the machine failed, or the returned bytes differ from the sent ones.
pub(crate) fn measure(
    open: impl FnOnce() -> std::result::Result<Box<dyn Engine>, EngineError> + Send + 'static,
    work: &Work,
) -> Result<Measured> {
    let reactor = Reactor::spawn_with(
        move || Ok(Runtime::assemble(open()?, Limits::default())),
        |runtime| {
            let metrics = runtime.metrics();
            runtime.add(Server { metrics, address: None })
        },
    )?;
    let controller = reactor.controller();
    let look = || controller.ask(Look).wait_for(PATIENCE).map_err(|_| "the server does not answer");
    let mut talk = client::Talk::open(&look()?.address, work)?;
    let before = look()?;
    let round_trips_per_second = talk.run(work.duration)?;
    let after = look()?;
    drop(talk);
    controller.stop(PATIENCE);
    drop(controller);
    reactor.join()?.check()?;
    let messages = (after.counters.bytes_in - before.counters.bytes_in) / work.size as u64;
    if messages == 0 {
        return Err("not one message came back".into());
    }
    let processor_time = after.processor_time.zip(before.processor_time);
    Ok(Measured {
        round_trips_per_second,
        processor_time: processor_time.map(|(after, before)| (after - before) / messages as u32),
        calls_per_message: (after.counters.engine_calls - before.counters.engine_calls) as f64
            / messages as f64,
    })
}

struct Server {
    metrics: Arc<Metrics>,
    address: Option<Address>,
}

/// A question for the server's own figures.
struct Look(Reply<Known>);

/// The server's figures. The counters are those of the last turn's end.
struct Known {
    address: Address,
    counters: Counters,
    processor_time: Option<Duration>,
}

impl Service for Server {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let listener = cx.listen("127.0.0.1:0", |_| Some(Stream::new(Bytes)))?;
        self.address = Some(cx.local(listener)?);
        Ok(())
    }
}

impl Handle<Stream> for Server {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
        if let Event::Received(bytes) = event {
            cx.send(id, bytes);
        }
        Ok(())
    }
}

impl Receive<Look> for Server {
    fn receive(&mut self, _: &mut Context<Self>, Look(reply): Look) -> Result {
        let address = self.address.clone().ok_or("it listens since its start")?;
        reply.send(Known { address, counters: self.metrics.read(), processor_time: processor_time() });
        Ok(())
    }
}

/// Returns the processor time that this thread has used.
fn processor_time() -> Option<Duration> {
    #[cfg(target_os = "linux")]
    {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Some(Duration::new(u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?))
    }
    #[cfg(not(target_os = "linux"))]
    None
}

/// The longest time that the other thread may take for an immediate answer.
const PATIENCE: Duration = Duration::from_secs(10);
