//! N and O at runtime level: which stream waits for which, and for how long.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use reactor::{
    IdMap, Phase,
    session::{Io, Next, Step},
};

use super::prelude::*;

pub(super) const ROWS: &[Row] = &[
    row("N1r", "two sides that both say much before they read get all of it", &[], both_flood),
    row("N1r2", "two sides that both answer what both ask free each other", &[], both_answer),
    row("N2r", "a side that uploads before it reads gets all through three proxies", &[], upload_first),
    row("N2r2", "a blocking echo behind a proxy returns all", SOCKETS, blocking_echo),
    row("N3r", "an echo keeps peers that write without pause and read in pulses", SOCKETS, pulses_at_echo),
    row("N3r2", "a proxy keeps peers that write without pause and read in pulses", SOCKETS, pulses_at_proxy),
    row("N11r", "output that waits for a handshake makes no turns", &[], silent_handshake),
    row("N11r2", "an end that waits for a handshake makes no turns", &[], silent_handshake_with_end),
];

/// A layer that sends a greeting, and whose handshake waits for an answer.
struct Greeting;

impl Layer for Greeting {
    const INPUT_MAX: usize = 16;

    fn start(&mut self, io: &mut Io<'_>) -> Result {
        io.down.put(b"hello");
        Ok(())
    }

    fn ready(&self) -> bool {
        false
    }

    fn open(&mut self, _: &mut [u8], _: &mut Io<'_>) -> Result<Step> {
        Ok(Step { used: 0, next: Next::Wait })
    }

    fn seal(&mut self, clear: &[u8], _: &mut Io<'_>) -> Result<usize> {
        Ok(clear.len())
    }
}

fn silent_handshake(fixture: &mut Fixture<'_>) -> Outcome {
    silent(fixture, |cx, id| _ = cx.send(id, &pattern(5_000)))
}

fn silent_handshake_with_end(fixture: &mut Fixture<'_>) -> Outcome {
    silent(fixture, |cx, id| {
        cx.send(id, &pattern(5_000));
        cx.finish(id);
    })
}

type Greeted = Probe<Bytes, Greeting>;

fn silent(
    fixture: &mut Fixture<'_>,
    act: impl FnOnce(&mut Context<'_, Greeted>, Id<Stream<Bytes, Greeting>>),
) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let server = rig.add(Probe::<Bytes>::quiet())?;
    let client = rig.add(Greeted::quiet())?;
    let (_, address) = rig.listen(server, || Stream::new(Bytes).half_open(true))?;
    let options = StreamOptions::with(|options| options.handshake = 10 * SHORT);
    let id = rig.connect(client, &address, Stream::over(Bytes, Greeting).options(options))?;
    rig.with(client, |_, cx| act(cx, id));
    rig.until("the greeting has arrived", |rig| {
        rig.get(server).open.first().is_some_and(|id| rig.get(server).received(*id) == 5)
    })?;
    rig.settle()?;
    let before = rig.counters();
    rig.rests()?;
    let empty = rig.counters().turns_empty - before.turns_empty;
    check!(empty == 0, "{empty} turns were asked for, and nothing happened in them");
    rig.until("the handshake has ended", |rig| rig.get(client).closed.len() == 1)?;
    let (_, stream, why) = &rig.get(client).closed[0];
    check!(matches!(why, Closed::TimedOut(Phase::Handshake)), "{why}");
    check!(stream.unsent() == 5_000, "{} bytes are told as unsent", stream.unsent());
    check!(rig.get(client).of(id) == [What::closed("TimedOut")], "{:?}", rig.get(client).of(id));
    let at = rig.get(server).open[0];
    rig.with(server, |_, cx| cx.abort(at));
    rig.finish()
}

fn both_flood(fixture: &mut Fixture<'_>) -> Outcome {
    let count = sized(fixture, 1_024, 150);
    let mut pair = Pair::narrow(fixture)?;
    let item = pattern(1 << 10);
    pair.by_client(|cx, id| (0..count).for_each(|_| _ = cx.send(id, &item)));
    pair.by_server(|cx, id| (0..count).for_each(|_| _ = cx.send(id, &item)));
    pair.until_arrived(count * item.len())?;
    pair.until_returned(count * item.len())?;
    check!(pair.server().closed.is_empty() && pair.client().closed.is_empty(), "a side was ended");
    let bytes = pair.client().bytes(pair.at_client);
    check!(bytes.chunks(item.len()).all(|chunk| chunk == item), "what arrived differs");
    pair.finish()
}

fn both_answer(fixture: &mut Fixture<'_>) -> Outcome {
    let count = sized(fixture, 1_500, 150);
    let options = StreamOptions::with(|options| options.rest = SHORT);
    let mut pair = Pair::of(fixture, move || Stream::new(Lines::new()).options(options.clone()))?;
    let answer = "a".repeat(1_000);
    for service in [pair.server, pair.client] {
        let answer = answer.clone();
        pair.rig.get_mut(service).act(move |cx, id, what| {
            if let (Some(id), What::Got(line)) = (id, what)
                && line == b"question"
            {
                cx.send(id, &answer);
            }
            Ok(())
        });
    }
    pair.by_client(|cx, id| (0..count).for_each(|_| _ = cx.send(id, "question")));
    pair.by_server(|cx, id| (0..count).for_each(|_| _ = cx.send(id, "question")));
    let total = count * ("question".len() + answer.len());
    pair.until_arrived(total)?;
    pair.until_returned(total)?;
    check!(pair.server().closed.is_empty() && pair.client().closed.is_empty(), "a side was ended");
    pair.finish()
}

/// A proxy like the example of that name. It pairs each connection to a second one that leads to the
/// target.
struct Proxy {
    target: Address,
    targets: IdMap<Client, Id<Target>>,
    clients: IdMap<Target, Id<Client>>,
    closed: usize,
}

struct Inbound;
struct Outbound;
type Client = Stream<Bytes, (), Inbound>;
type Target = Stream<Bytes, (), Outbound>;

impl Service for Proxy {}

impl Handle<Client> for Proxy {
    fn handle(&mut self, cx: &mut Context<'_, Self>, client: Id<Client>, event: Event<'_, Bytes>) -> Result {
        match event {
            Event::Open => {
                let target = cx.connect(&self.target, Stream::new(Bytes).role::<Outbound>())?;
                cx.pair(client, target)?;
                self.targets.insert(client, target);
                self.clients.insert(target, client);
            }
            Event::Received(bytes) => {
                if let Some(target) = self.targets.get(client) {
                    cx.send(*target, bytes);
                }
            }
            Event::End | Event::Drained | Event::HungUp => (),
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, Self>, _: Id<Client>, _: Client, _: Closed) {
        self.closed += 1;
    }
}

impl Handle<Target> for Proxy {
    fn handle(&mut self, cx: &mut Context<'_, Self>, target: Id<Target>, event: Event<'_, Bytes>) -> Result {
        if let Event::Received(bytes) = event
            && let Some(client) = self.clients.get(target)
        {
            cx.send(*client, bytes);
        }
        Ok(())
    }
}

/// Adds a proxy in front of the target, and returns its address.
fn proxy(rig: &mut Rig, target: Address) -> Result<Address, Stop> {
    let proxy = rig.add(Proxy { target, targets: IdMap::new(), clients: IdMap::new(), closed: 0 })?;
    rig.with(proxy, |_, cx| {
        let listener = cx.listen("127.0.0.1:0", |_| Some(Stream::new(Bytes).role::<Inbound>()))?;
        Ok(cx.local(listener)?)
    })
}

/// Sends pieces until the queue is above its high mark, or nothing is left to send.
fn pump(cx: &mut Context<'_, Probe>, id: Id<Stream>, left: &mut usize) {
    let piece = pattern(8 << 10);
    while *left > 0 {
        let len = piece.len().min(*left);
        *left -= len;
        if cx.send(id, &piece[..len]) != Flow::Queued {
            return;
        }
    }
}

fn upload_first(fixture: &mut Fixture<'_>) -> Outcome {
    let total = moved(fixture, 8 << 20, 300_000);
    let mut rig = Rig::new(fixture)?;
    let mut left = total;
    // The server answers at once, with as many bytes as it will receive, and reads all the time.
    let server = rig.add(Probe::acting(move |cx, id, what| {
        if let (Some(id), What::Open | What::Drained) = (id, what) {
            pump(cx, id, &mut left);
        }
        Ok(())
    }))?;
    rig.get_mut(server).forget();
    let (_, mut address) = rig.listen(server, || Stream::new(Bytes))?;
    for _ in 0..3 {
        address = proxy(&mut rig, address)?;
    }
    let mut left = total;
    let client = rig.add(Probe::acting(move |cx, id, what| {
        if let (Some(id), What::Open | What::Drained) = (id, what) {
            cx.pause(id);
            pump(cx, id, &mut left);
            if left == 0 && *what == What::Drained {
                cx.resume(id);
            }
        }
        Ok(())
    }))?;
    rig.get_mut(client).forget();
    let id = rig.connect(client, &address, Stream::new(Bytes))?;
    let mut most = 0;
    rig.until("both have all", |rig| {
        most = most.max(rig.counters().queue_bytes);
        let at = rig.get(server).open.first().copied();
        rig.get(client).received(id) == total && at.is_some_and(|at| rig.get(server).received(at) == total)
    })?;
    check!(most < 4 << 20, "{most} bytes were queued");
    check!(rig.get(client).closed.is_empty() && rig.get(server).closed.is_empty(), "a side was ended");
    rig.with(client, |_, cx| cx.abort(id));
    rig.finish()
}

fn blocking_echo(fixture: &mut Fixture<'_>) -> Outcome {
    const TOTAL: usize = 8 << 20;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let at = listener.local_addr()?;
    let echo = thread::spawn(move || -> std::io::Result<()> {
        let (mut socket, _) = listener.accept()?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = socket.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            // This reads nothing until the peer has taken these bytes.
            socket.write_all(&buffer[..count])?;
        }
    });
    let mut rig = Rig::new(fixture)?;
    let address = proxy(&mut rig, Address::Ip(at))?;
    let mut left = TOTAL;
    let client = rig.add(Probe::acting(move |cx, id, what| {
        if let (Some(id), What::Open | What::Drained) = (id, what) {
            pump(cx, id, &mut left);
        }
        Ok(())
    }))?;
    rig.get_mut(client).forget();
    let id = rig.connect(client, &address, Stream::new(Bytes))?;
    let returned = rig.until("all has returned", |rig| rig.get(client).received(id) == TOTAL);
    rig.with(client, |_, cx| cx.finish(id));
    let ended = rig.until("the echo has ended", |_| echo.is_finished());
    returned.and(ended)?;
    echo.join().expect("the echo did not panic")?;
    rig.with(client, |_, cx| cx.abort(id));
    rig.finish()
}

/// Peers of the standard library that write whenever there is room. They read only in some of the rounds, and
/// then much.
struct Pulses {
    peers: Vec<TcpStream>,
    written: Vec<usize>,
    read: Vec<usize>,
    round: usize,
}

impl Pulses {
    fn connect(address: &Address, count: usize) -> Result<Pulses, Stop> {
        let at = address.ip().ok_or_else(|| Stop::Failed(format!("{address} is not IP")))?;
        let mut peers = Vec::new();
        for _ in 0..count {
            let peer = TcpStream::connect(at)?;
            peer.set_nonblocking(true)?;
            peers.push(peer);
        }
        Ok(Pulses { peers, written: vec![0; count], read: vec![0; count], round: 0 })
    }

    /// Plays one round. Returns true once each peer has read this many bytes.
    ///
    /// # Errors
    /// One of the peers cannot continue.
    fn go_on(&mut self, block: &mut [u8], total: usize) -> std::io::Result<bool> {
        self.round += 1;
        for (at, peer) in self.peers.iter_mut().enumerate() {
            while self.written[at] < 2 * total {
                match peer.write(block) {
                    Ok(count) => self.written[at] += count,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
            if !self.round.is_multiple_of(64 + 8 * at) {
                continue;
            }
            let mut pulse = 1_usize << 20;
            while pulse > 0 {
                match peer.read(block) {
                    Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                    Ok(count) => {
                        (self.read[at], pulse) = (self.read[at] + count, pulse.saturating_sub(count))
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(self.read.iter().all(|read| *read >= total))
    }
}

fn pulses(rig: &mut Rig, address: &Address, count: usize, total: usize) -> Outcome {
    let mut pulses = Pulses::connect(address, count)?;
    let mut block = vec![7; 64 << 10];
    let (mut most, mut failure) = (0, None);
    rig.until("each has read in pulses what it wrote", |rig| {
        most = most.max(rig.counters().queue_bytes);
        match pulses.go_on(&mut block, total) {
            Ok(done) => done,
            Err(error) => {
                failure = Some(error);
                true
            }
        }
    })?;
    check!(failure.is_none(), "a peer was cut: {failure:?}");
    // The bound is the sum of the marks and of the bytes that an engine may read before it learns of the
    // pause.
    let bound = (count as u64) * (1 << 20) + (8 << 20);
    check!(most < bound, "{most} bytes were queued for {count} peers");
    Ok(())
}

/// Adds an echo service with a small cap, which a few chunks sent at once would exceed.
fn tight_echo(rig: &mut Rig) -> Result<Address, Stop> {
    let echo = rig.add(Probe::<Bytes>::echo())?;
    rig.get_mut(echo).forget();
    let options = StreamOptions::with(|options| {
        options.cap = 256 << 10;
        options.item = 256 << 10;
    });
    Ok(rig.listen(echo, move || Stream::new(Bytes).options(options.clone()))?.1)
}

fn pulses_at_echo(fixture: &mut Fixture<'_>) -> Outcome {
    for count in [2, 5, 8] {
        let mut rig = Rig::new(fixture)?;
        let address = tight_echo(&mut rig)?;
        pulses(&mut rig, &address, count, moved(fixture, 6 << 20, 300_000))?;
        rig.finish()?;
    }
    Ok(())
}

fn pulses_at_proxy(fixture: &mut Fixture<'_>) -> Outcome {
    for count in [2, 8] {
        let mut rig = Rig::new(fixture)?;
        let address = tight_echo(&mut rig)?;
        let address = proxy(&mut rig, address)?;
        pulses(&mut rig, &address, count, moved(fixture, 6 << 20, 300_000))?;
        rig.finish()?;
    }
    Ok(())
}
