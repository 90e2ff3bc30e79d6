//! A stream that is fed from elsewhere: bytes past its codec, and no more than its peer takes.

use session::{Codec, Layer};

use super::{
    link::{State, find},
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
    let flow = write::post::<C, L, R>(core, index, key, |_, out| {
        out.give(bytes);
        Ok(())
    });
    if flow != Flow::Gone {
        set_high::<C, L, R>(core, key, true);
    }
    flow
}

/// What lies between who feeds a stream and its socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Between {
    Nothing,
    /// Bytes that are queued or on their way, which leave by themselves.
    Bytes,
    /// A layer; or the stream is not up, or takes no more.
    Layer,
}

/// What lies between who feeds it and its socket.
pub(super) fn between<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key) -> Between {
    let Some(link) = find::<C, L, R>(core, key) else { return Between::Layer };
    let over = link.closing || link.releasing || link.write_failed || link.shut;
    if link.state != State::Open || !link.stream.session.direct() || over {
        return Between::Layer;
    }
    if link.queued() == 0 { Between::Nothing } else { Between::Bytes }
}

/// Has the queue count as high, so that who feeds it is told when it is at its low mark. Something is queued.
pub(super) fn await_low<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key) {
    set_high::<C, L, R>(core, key, true);
}

/// Sets the stream free. A peer that has ended meanwhile is answered now.
pub(super) fn end<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key) {
    let Some(link) = find::<C, L, R>(core, key) else { return };
    link.feeding = false;
    let high = link.queued() > link.options().high;
    let ended = link.end_told && !link.stream.half_open;
    set_high::<C, L, R>(core, key, high);
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
