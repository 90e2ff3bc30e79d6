//! The client: keeps one message in flight on each connection, and checks the returned bytes. It always runs
//! on the best available engine, so that it is the same for all servers.

use std::time::{Duration, Instant};

use reactor::{
    Address, Bytes, Closed, Context, Event, Handle, Id, IdMap, Limits, Result, Runtime, Service, ServiceId,
    Stream, engine::Candidates,
};

use crate::args::Work;

/// Open connections to a server.
pub(crate) struct Talk {
    runtime: Runtime,
    client: ServiceId<Client>,
}

struct Client {
    size: usize,
    lines: IdMap<Stream, Line>,
    open: usize,
    /// The next message follows each returned one.
    talks: bool,
    flying: usize,
    round_trips: u64,
    /// The first failure.
    wrong: Option<String>,
}

/// One connection.
#[derive(Default)]
struct Line {
    /// The message in flight consists of this byte.
    byte: u8,
    /// How many of its bytes have come back.
    back: usize,
}

impl Talk {
    /// Opens the connections.
    ///
    /// # Errors
    /// The machine failed, or they did not open in time.
    pub(crate) fn open(address: &Address, work: &Work) -> Result<Talk> {
        let mut runtime = Runtime::assemble(Candidates::default().open(None)?, Limits::default());
        let client = runtime.add(Client {
            size: work.size,
            lines: IdMap::new(),
            open: 0,
            talks: true,
            flying: 0,
            round_trips: 0,
            wrong: None,
        })?;
        let mut talk = Talk { runtime, client };
        for _ in 0..work.connections {
            let id = talk.with(|_, cx| cx.connect(address, Stream::new(Bytes)))??;
            talk.with(|client, _| client.lines.insert(id, Line::default()))?;
        }
        talk.until("all connections are open", |client| client.open == work.connections)?;
        Ok(talk)
    }

    /// Talks for this long, and then waits for the messages in flight. Returns the round trips per second.
    ///
    /// # Errors
    /// The returned bytes differ from the sent ones, or nothing more returns.
    pub(crate) fn run(&mut self, duration: Duration) -> Result<f64> {
        let began = Instant::now();
        self.with(|client, cx| {
            for (id, line) in client.lines.iter_mut() {
                cx.send(id, &vec![line.byte; client.size]);
                client.flying += 1;
            }
        })?;
        while began.elapsed() < duration {
            self.runtime.turn(Some(duration.saturating_sub(began.elapsed())))?;
        }
        let took = began.elapsed();
        let round_trips = self.with(|client, _| {
            client.talks = false;
            client.round_trips
        })?;
        self.until("all messages are back", |client| client.flying == 0)?;
        Ok(round_trips as f64 / took.as_secs_f64())
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut Client, &mut Context<Client>) -> T) -> Result<T> {
        Ok(self.runtime.with(self.client, act).ok_or("the client has ended")?)
    }

    fn until(&mut self, what: &str, done: impl Fn(&Client) -> bool) -> Result {
        let began = Instant::now();
        loop {
            let client = self.runtime.service(self.client).ok_or("the client has ended")?;
            if let Some(wrong) = &client.wrong {
                return Err(wrong.clone().into());
            }
            if done(client) {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                return Err(format!("after {} s, not yet: {what}", PATIENCE.as_secs()).into());
            }
            self.runtime.turn(Some(PATIENCE / 100))?;
        }
    }
}

impl Client {
    fn heard(&mut self, cx: &mut Context<Self>, id: Id<Stream>, bytes: &[u8]) {
        let Some(line) = self.lines.get_mut(id) else { return };
        line.back += bytes.len();
        if line.back > self.size || bytes.iter().any(|byte| *byte != line.byte) {
            self.wrong.get_or_insert_with(|| "something else came back than was sent".to_owned());
            return;
        }
        if line.back < self.size {
            return;
        }
        self.round_trips += 1;
        (line.back, line.byte) = (0, line.byte.wrapping_add(1));
        if self.talks {
            cx.send(id, &vec![line.byte; self.size]);
        } else {
            self.flying -= 1;
        }
    }
}

impl Service for Client {}

impl Handle<Stream> for Client {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
        match event {
            Event::Open => self.open += 1,
            Event::Received(bytes) => self.heard(cx, id, bytes),
            Event::End | Event::Drained | Event::HungUp => (),
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<Stream>, _: Stream, why: Closed) {
        self.wrong.get_or_insert_with(|| format!("a connection ended: {why}"));
    }
}

/// The longest time for something that should happen at once.
const PATIENCE: Duration = Duration::from_secs(10);
