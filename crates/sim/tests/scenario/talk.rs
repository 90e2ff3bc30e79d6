//! Talks of the strict service: what its clients and servers do on a connection, by its mode.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use reactor::{Address, Bytes, Context, Error, Flow, Id, Stream, StreamOptions};

use crate::scenario::{
    ledger::{MODES, Mode},
    peer::{Abort, Life, Peer, Resume},
};

impl Peer {
    // Beginning.

    pub(super) fn begin_talk(&mut self, cx: &mut Context<Self>) {
        let (draw, size) = (cx.random(), cx.random());
        let (to, is_strict) = {
            let ledger = self.ledger.borrow();
            (ledger.addresses[draw as usize % ledger.addresses.len()], ledger.is_strict())
        };
        let mode = MODES[(draw >> 8) as usize % MODES.len()];
        // Most are small. Some exceed a window and the high marks.
        let size = if size % 8 == 0 { 1 + (size >> 8) % 200_000 } else { (size >> 8) % 3_000 };
        let target = match mode {
            Mode::Refused => SocketAddr::new(to.ip(), NOBODY),
            _ => to,
        };
        let mut options = options();
        options.cap = if mode == Mode::Overflow { CAP } else { StreamOptions::DEFAULT.cap };
        options.backpressure = false;
        let stream = Stream::new(Bytes).options(Arc::new(options));
        let id = match cx.connect(target, stream) {
            Ok(id) => id,
            Err(error) => return self.ledger().violate(|| format!("connect {target}: {error}")),
        };
        let client = cx.local(id).ok().and_then(|address| address.ip());
        let Some(client) = client else { return self.must(id, false, "it has no address of its own") };
        {
            let mut ledger = self.ledger();
            ledger.begin_talk(client, mode, target, size);
            ledger.books[self.me].resources += 1;
            ledger.books[self.me].strict_open += u32::from(is_strict);
        }
        self.add_life(id, client, true);
        let after = match (mode, is_strict) {
            (Mode::Mute, _) => Duration::from_millis(100 + size % 1_000),
            (_, true) => Duration::from_secs(20),
            (_, false) => Duration::from_millis(2_000 + size % 3_000),
        };
        self.deadline(cx, id, after);
    }

    fn add_life(&mut self, id: Id<Stream>, client: SocketAddr, is_client: bool) {
        let life = Life {
            client,
            is_client,
            is_open: false,
            is_ended: false,
            is_closing: false,
            is_paused: false,
            is_hung_up: false,
            is_high: false,
            is_moved: false,
            is_leaving: false,
            deadline: None,
        };
        let before = self.lives.insert(id, life);
        self.must(id, before.is_none(), "two living resources have one id");
    }

    /// Registers an accepted stream. Its peer must be the one that the accept reported, and must have
    /// connected to this address.
    pub(super) fn accepted(&mut self, cx: &mut Context<Self>, id: Id<Stream>) -> Option<Life> {
        let told = self.ledger().accepting.take();
        let (peer, local) = (address(cx.peer(id)), address(cx.local(id)));
        self.must(id, told.is_some(), "an event of a stream that nobody made");
        self.must(id, peer == told, "the accept was told another peer than the stream has");
        let client = told.or(peer)?;
        {
            let mut ledger = self.ledger();
            ledger.books[self.me].resources += 1;
            let Some(talk) = ledger.talks.get(&client) else {
                ledger.violate(|| format!("accepted {client}, which never connected: the wrong peer"));
                return None;
            };
            let (target, is_open) = (talk.target, talk.server.is_open);
            ledger.must(local == Some(target) && !is_open, || {
                format!("accepted {client} at {local:?}, which connected to {target}")
            });
        }
        self.add_life(id, client, false);
        self.deadline(cx, id, Duration::from_secs(10));
        self.lives.get(id).copied()
    }

    // Events.

    pub(super) fn open(&mut self, cx: &mut Context<Self>, id: Id<Stream>, life: Life) {
        self.must(id, !life.is_open && !life.is_closing, "it opened twice");
        if let Some(life) = self.lives.get_mut(id) {
            life.is_open = true;
        }
        let (mode, size, target) = {
            let mut ledger = self.ledger();
            let Some(talk) = ledger.talks.get_mut(&life.client) else { return };
            talk.side(life.is_client).is_open = true;
            (talk.mode, talk.size, talk.target)
        };
        if life.is_client {
            self.must(id, address(cx.peer(id)) == Some(target), "it has another peer than it connected to");
        }
        match (mode, life.is_client) {
            (Mode::Echo, true) => {
                self.send(cx, id, size);
                if size % 2 == 0 || size == 0 {
                    self.finish(cx, id);
                }
            }
            (Mode::Push, true) | (Mode::Pull, false) => {
                self.send(cx, id, size);
                self.close(cx, id);
            }
            (Mode::Abort, true) => {
                self.send(cx, id, size);
                let after = Duration::from_micros(1 + size % 3_000);
                self.timer(cx.after(after, Abort(id)));
            }
            (Mode::Overflow, true) => self.overflow(cx, id),
            (Mode::Refused, _) => self.must(id, false, "it opened where nobody listens"),
            _ => (),
        }
    }

    /// Sends more bytes of a stream. Returns whether the stream took all of them.
    fn send(&mut self, cx: &mut Context<Self>, id: Id<Stream>, mut count: u64) {
        let Some(life) = self.lives.get(id).copied() else { return };
        let mut piece = [0; 4096];
        while count > 0 {
            let len = count.min(piece.len() as u64);
            let bytes = &mut piece[..len as usize];
            let from = self.sent(life);
            self.ledger().bytes(life.client, life.is_client, from, bytes);
            match cx.send(id, &bytes[..]) {
                Flow::Gone => return self.ledger().sometimes("a send to a stream that is gone"),
                flow => self.note_sent(id, life, len, flow),
            }
            count -= len;
        }
    }

    fn sent(&self, life: Life) -> u64 {
        let ledger = self.ledger.borrow();
        let talk = ledger.talks.get(&life.client);
        talk.map_or(0, |talk| if life.is_client { talk.client.sent } else { talk.server.sent })
    }

    fn note_sent(&mut self, id: Id<Stream>, life: Life, len: u64, flow: Flow) {
        if let Some(life) = self.lives.get_mut(id) {
            life.is_high |= flow == Flow::High;
        }
        let mut ledger = self.ledger();
        if flow == Flow::High {
            ledger.sometimes("a queue above its high mark");
        }
        if let Some(talk) = ledger.talks.get_mut(&life.client) {
            talk.side(life.is_client).sent += len;
        }
    }

    /// Sends up to the cap, and checks each answer against the marks.
    fn overflow(&mut self, cx: &mut Context<Self>, id: Id<Stream>) {
        let Some(life) = self.lives.get(id).copied() else { return };
        let options = options();
        let piece = [0; 5_000];
        for count in 1.. {
            let queued = count * piece.len();
            let mut bytes = piece;
            let from = self.sent(life);
            self.ledger().bytes(life.client, true, from, &mut bytes);
            let due = match queued {
                queued if queued > CAP => Flow::Gone,
                queued if queued > options.high => Flow::High,
                _ => Flow::Queued,
            };
            let flow = cx.send(id, &bytes[..]);
            self.must(id, flow == due, &format!("{flow:?} with {queued} bytes queued, not {due:?}: the cap"));
            if flow == Flow::Gone || queued > 4 * CAP {
                return self.ledger().sometimes("a queue above its cap");
            }
            self.note_sent(id, life, piece.len() as u64, flow);
        }
    }

    fn finish(&mut self, cx: &mut Context<Self>, id: Id<Stream>) {
        self.mark_finished(id);
        cx.finish(id);
    }

    fn close(&mut self, cx: &mut Context<Self>, id: Id<Stream>) {
        self.mark_finished(id);
        if let Some(life) = self.lives.get_mut(id) {
            (life.is_closing, life.deadline) = (true, None);
        }
        cx.close(id);
    }

    fn mark_finished(&mut self, id: Id<Stream>) {
        let Some(life) = self.lives.get(id).copied() else { return };
        if let Some(talk) = self.ledger().talks.get_mut(&life.client) {
            talk.side(life.is_client).has_finished = true;
        }
    }

    pub(super) fn received(&mut self, cx: &mut Context<Self>, id: Id<Stream>, life: Life, bytes: &[u8]) {
        self.must(id, life.is_open && !life.is_ended, "input before it opened, or after its end");
        let rests = life.is_closing || life.is_paused || life.is_leaving;
        self.must(id, !rests, "input while it is closing, paused or about to be given back");
        self.ledger().received(life.client, life.is_client, bytes);
        let Some((mode, size, got)) = ({
            let mut ledger = self.ledger();
            ledger
                .talks
                .get_mut(&life.client)
                .map(|talk| (talk.mode, talk.size, talk.side(life.is_client).got))
        }) else {
            return;
        };
        match (mode, life.is_client) {
            (Mode::Echo, false) => self.send(cx, id, bytes.len() as u64),
            (Mode::Echo, true) if got == size && size % 2 == 1 => self.finish(cx, id),
            _ => (),
        }
        let draw = cx.random();
        if mode == Mode::Echo && life.is_client && !life.is_moved && draw.is_multiple_of(16) {
            if let Some(life) = self.lives.get_mut(id) {
                life.is_leaving = true;
            }
            let released = cx.release(id);
            return self.must(id, released.is_ok(), "its release was refused");
        }
        if draw.is_multiple_of(8) {
            cx.pause(id);
            let after = Duration::from_micros(cx.random() % 20_000);
            self.timer(cx.after(after, Resume(id)));
            if let Some(life) = self.lives.get_mut(id) {
                life.is_paused = true;
            }
        }
        if !life.is_client {
            self.deadline(cx, id, Duration::from_secs(10));
        }
    }

    /// Adds a returned stream again, under another id. Returns whether there was room for it.
    pub(super) fn add_again(&mut self, cx: &mut Context<Self>, stream: Stream, life: Life) -> bool {
        let Ok(id) = cx.add(stream) else {
            self.ledger().sometimes("a stream could not be added again");
            return false;
        };
        let is_strict = self.ledger().is_strict();
        let fresh = Life { is_moved: true, is_leaving: false, ..life };
        let before = self.lives.insert(id, fresh);
        self.must(id, before.is_none(), "two living resources have one id");
        self.deadline(cx, id, Duration::from_secs(if is_strict { 20 } else { 3 }));
        self.ledger().sometimes("a stream went on under another id");
        true
    }

    pub(super) fn end(&mut self, cx: &mut Context<Self>, id: Id<Stream>, life: Life) {
        self.must(id, life.is_open && !life.is_ended, "its end before it opened, or twice");
        self.must(id, !life.is_closing, "its end while it is closing");
        if let Some(life) = self.lives.get_mut(id) {
            life.is_ended = true;
        }
        self.ledger().ended(life.client, life.is_client);
        if !life.is_client {
            self.close(cx, id);
        }
    }
}

fn address(address: Result<Address, Error>) -> Option<SocketAddr> {
    address.ok().and_then(|address| address.ip())
}

/// Low marks, so that the queue crosses them, and short timeouts, so that faults outlast them.
pub(super) fn options() -> StreamOptions {
    StreamOptions::with(|options| {
        options.high = 16 << 10;
        options.low = 4 << 10;
        options.connect = Duration::from_millis(1_500);
        options.close = Duration::from_millis(600);
        options.write_stall = Some(Duration::from_millis(400));
    })
}

const CAP: usize = 48 << 10;
/// A port without a listener.
const NOBODY: u16 = 9;
