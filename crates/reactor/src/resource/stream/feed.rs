//! A stream that is fed from elsewhere: bytes past its codec, and no more than its peer takes.

use session::{Codec, Layer};

use super::{
    close,
    link::{Link, State, find},
    write,
};
use crate::{core::Core, error::Closed, id::Key, resource::Flow};

/// Binds a stream to what feeds it; `false`: it takes nothing more, or is bound already.
pub(super) fn begin<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key) -> bool {
    let Some(link) = find::<C, L, R>(core, key) else { return false };
    let over = link.closing || link.finishing || link.releasing || link.write_failed;
    if over || link.coupled || link.feeding {
        return false;
    }
    link.feeding = true;
    true
}

/// Queues bytes as they are. The queue counts as high until it is at its low mark, and then tells who feeds it.
pub(super) fn feed<C: Codec, L: Layer, R: 'static>(
    core: &mut Core,
    index: u16,
    key: Key,
    bytes: Vec<u8>,
) -> Flow {
    let takes = |link: &Link<C, L, R>| !(link.releasing || link.write_failed || link.mute);
    let flow = write::post_if::<C, L, R>(core, (index, key), takes, |_, out| {
        out.give(bytes);
        Ok(())
    });
    if flow != Flow::Gone {
        set_high::<C, L, R>(core, key, true);
    }
    flow
}

/// How what feeds a stream gets to its peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Straight into the socket: no layer is in between, and nothing is queued.
    Socket,
    /// The same as soon as there is room in it; who feeds the stream is marked then.
    Full,
    /// The same as soon as what is queued, or on its way, has left: an engine may have taken it without having sent it.
    Behind,
    /// By its queue.
    Queue,
}

pub(super) fn way<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key) -> Way {
    let Some(link) = find::<C, L, R>(core, key) else { return Way::Queue };
    let over = link.releasing || link.write_failed || link.shut;
    if link.awaits_room {
        Way::Full
    } else if link.state != State::Open || !link.stream.session.direct() || over {
        Way::Queue
    } else if link.queued() > 0 {
        Way::Behind
    } else {
        Way::Socket
    }
}

/// Has the queue count as high, so that who feeds it is marked when it is at its low mark. Something is queued.
pub(super) fn await_low<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key) {
    set_high::<C, L, R>(core, key, true);
}

/// Waits for room in the socket, as long as a queue would; `false` if the engine does not tell of it.
pub(super) fn await_room<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key) -> bool {
    if !core.engine.await_room(key) {
        return false;
    }
    let Some(link) = find::<C, L, R>(core, key) else { return false };
    link.awaits_room = true;
    if let Some(stall) = link.write_stall() {
        core.set_guard_later(key, stall);
    }
    true
}

/// There is room in the socket.
pub(super) fn room<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key) {
    if stop_waiting::<C, L, R>(core, key)
        && let Some(other) = core.couples.get(&key).copied()
    {
        core.mark(other);
    }
}

/// Nobody waits for room any more; `true` if somebody did.
fn stop_waiting<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key) -> bool {
    let Some(link) = find::<C, L, R>(core, key) else { return false };
    let waited = std::mem::take(&mut link.awaits_room);
    if waited {
        core.set_guard(key, None);
    }
    waited
}

/// Sets the stream free, with all that it was to be fed or without a part. A peer that has ended meanwhile is answered
/// now, and a close that waited goes on.
pub(super) fn end<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key, is_whole: bool) {
    stop_waiting::<C, L, R>(core, key);
    let Some(link) = find::<C, L, R>(core, key) else { return };
    link.feeding = false;
    if !is_whole && (link.closing || link.finishing) {
        // The service has said its last word, and takes the file for a part of it.
        link.rare().is_cut = true;
    }
    let high = link.queued() > link.options().high;
    let ended = link.end_told && !link.stream.half_open && !link.releasing;
    set_high::<C, L, R>(core, key, high);
    close::conclude::<C, L, R>(core, key);
    if ended {
        core.close(key, Closed::End);
    }
    // What the queue held back goes on.
    core.drive_again(key);
    core.mark(key);
}

fn set_high<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key, high: bool) {
    if let Some(link) = find::<C, L, R>(core, key) {
        link.high = high;
    }
    if let Some(slot) = core.registry.live(key) {
        slot.high = high;
    }
}
