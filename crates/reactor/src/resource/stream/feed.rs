//! A stream that a transfer feeds: the bytes bypass its codec, and are limited to the pace of its peer.

use session::{Codec, Layer};

use super::{
    after::After,
    link::{Link, find},
    output,
};
use crate::{
    error::Closed,
    id::Key,
    resource::Flow,
    runtime::{LoopState, ports::Ports},
};

/// Binds a stream to a transfer. Returns `false` if it takes no more output, or is already bound.
pub(super) fn begin<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key) -> bool {
    let Some(link) = find::<C, L, R>(core, key) else { return false };
    link.conn.begin_feed()
}

/// Queues bytes unchanged. The queue counts as high until it is at its low mark. Then the transfer continues.
pub(super) fn feed<C: Codec, L: Layer, R: 'static>(
    core: &mut LoopState,
    index: u16,
    key: Key,
    bytes: Vec<u8>,
) -> Flow {
    let takes = |link: &Link<C, L, R>| link.conn.takes_feed();
    let flow = output::post_if::<C, L, R>(core, (index, key), takes, |_, out| {
        out.give(bytes);
        Ok(())
    });
    if flow != Flow::Gone {
        await_low::<C, L, R>(core, key);
    }
    flow
}

/// The path from a transfer to the stream's peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendPath {
    /// Straight into the socket, because there is no layer and nothing is queued.
    Socket,
    /// The same, as soon as the socket has room. The runtime then marks the transfer.
    Full,
    /// The same, as soon as queued output and output in flight have left, because an engine may have taken it
    /// without having sent it.
    Behind,
    /// Through the stream's queue.
    Queue,
}

pub(super) fn send_path<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key) -> SendPath {
    let Some(link) = find::<C, L, R>(core, key) else { return SendPath::Queue };
    if link.conn.awaits_room() {
        SendPath::Full
    } else if !link.conn.takes_direct_writes() || !link.stream.session.direct() {
        SendPath::Queue
    } else if link.queued() > 0 {
        SendPath::Behind
    } else {
        SendPath::Socket
    }
}

/// Lets the non-empty queue count as high, so that the runtime marks the transfer when it is at its low mark.
pub(super) fn await_low<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key) {
    if let Some(link) = find::<C, L, R>(core, key) {
        link.conn.set_high(true);
    }
}

/// Waits for room in the socket, as long as for a queue. Returns `false` if the engine does not report room.
pub(super) fn await_room<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key) -> bool {
    let Some((link, mut ports)) = core.enter::<Link<C, L, R>>(key) else { return false };
    if !ports.engine.await_room(key) {
        return false;
    }
    link.conn.await_room(true);
    if let Some(stall) = link.write_stall() {
        ports.set_internal_deadline_later(stall);
    }
    true
}

/// Marks the waiting transfer, because the socket has room.
pub(super) fn room<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key) {
    let Some((link, mut ports)) = core.enter::<Link<C, L, R>>(key) else { return };
    if link.stop_waiting(&mut ports)
        && let Some(other) = core.partners.get(&key).copied()
    {
        core.mark(other);
    }
}

/// Frees the stream after all of the transfer's output, or only a part of it. If the peer has ended
/// meanwhile, the stream now closes, and a waiting close continues.
pub(super) fn end<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key, is_whole: bool) {
    let Some((link, mut ports)) = core.enter::<Link<C, L, R>>(key) else { return };
    let mut after = After::default();
    link.stop_waiting(&mut ports);
    let has_ended = link.conn.end_feed() && !link.stream.half_open;
    if !is_whole && link.conn.ends_output() {
        // The service has already closed or finished the stream, so the peer would take a part of the file
        // for the whole.
        link.rare().is_cut = true;
    }
    let high = link.queued() > link.options().high;
    link.conn.set_high(high);
    link.conclude(&mut ports);
    if has_ended {
        link.close(&mut ports, Closed::End, &mut after);
    }
    // Resume the input that the queue held back.
    ports.drive_again();
    ports.mark();
    after.apply(core, key);
}

impl<C: Codec, L: Layer, R: 'static> Link<C, L, R> {
    /// Stops waiting for room. Returns `true` if the stream waited.
    fn stop_waiting(&mut self, ports: &mut Ports<'_>) -> bool {
        let waited = self.conn.await_room(false);
        if waited {
            ports.set_internal_deadline(None);
        }
        waited
    }
}
