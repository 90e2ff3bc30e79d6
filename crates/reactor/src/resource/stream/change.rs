//! Another codec or layer for a live stream: the type changes, but the connection and its key stay.
//!
//! The handler that requests it runs in the middle of the stream's input. The driver has the input that the
//! handler has not seen. When the handler returns, the driver finds a link of another type, and hands the
//! rest on through the slot's vtable.

use std::io;

use session::{Codec, Layer, LayerError, Phase};

use super::{
    Stream,
    after::After,
    link::{Link, find},
};
use crate::{
    error::{Error, Result},
    id::Key,
    resource::{Vtable, breaking},
    runtime::{LoopState, Rejected},
};

/// Input that the driver of the old type has not delivered.
#[derive(Clone, Copy)]
pub(crate) enum Undelivered<'a> {
    /// Input behind the layers of the old type.
    Clear(&'a [u8]),
    /// Input from the wire.
    Wire(&'a [u8]),
    /// An authentic end of a layer.
    End,
}

impl<C: Codec, L: Layer, R: 'static> Stream<C, L, R> {
    /// Replaces the codec of a stream outside of a runtime. The new codec cuts unread input into items. Sent
    /// items keep their form.
    ///
    /// For a stream in a runtime use [`Context::map_codec`](crate::Context::map_codec).
    pub fn map_codec<D: Codec>(self, make: impl FnOnce(C) -> D) -> Stream<D, L, R> {
        let Stream { codec, session, options, half_open, outbound, carried, role } = self;
        Stream { codec: make(codec), session, options, half_open, outbound, carried, role }
    }

    /// Replaces the layer of a stream outside of a runtime. Sent output leaves first, in its old form. Then
    /// the new layer begins its handshake. [`Event::Open`](super::Event::Open) reports its end.
    ///
    /// For a stream in a runtime use [`Context::map_layer`](crate::Context::map_layer).
    ///
    /// # Errors
    /// [`Rejected`] gives the stream back if bytes are [unread](Stream::unread), because they came before the
    /// change, and their sender may not be the peer that completes the handshake. If the protocol allows no
    /// bytes here, end the stream. Otherwise take them with [`take_unread`](Stream::take_unread). It also
    /// gives the stream back if either side has ended, if the old layer is in its handshake, or if it cannot
    /// seal the sent output.
    pub fn map_layer<M: Layer>(
        mut self,
        make: impl FnOnce(L) -> M,
    ) -> Result<Stream<C, M, R>, Rejected<Self>> {
        let is_over = self.carried.as_ref().is_some_and(|one| one.conn.is_over() || one.error.is_some());
        let refused = if !self.unread().is_empty() {
            Some(UNREAD)
        } else if is_over {
            Some(OVER)
        } else {
            self.session.prepare_change(&mut session::Pool::new()).err().map(|_| UNSEALED)
        };
        if let Some(why) = refused {
            let error = Error::Misuse { operation: "map_layer", why };
            return Err(Rejected { resource: self, error });
        }
        let Stream { codec, session, options, half_open, outbound, mut carried, role } = self;
        if let Some(carried) = &mut carried {
            // The new layer's `Open` is still due.
            carried.conn.restart(false);
        }
        let session = session.change(make);
        Ok(Stream { codec, session, options, half_open, outbound, carried, role })
    }

    /// Takes bytes that arrived and that no handler saw from a released stream. From here on they are the
    /// caller's.
    pub fn take_unread(&mut self) -> Vec<u8> {
        self.carried.as_mut().map(|carried| std::mem::take(&mut carried.unread)).unwrap_or_default()
    }
}

/// Finds a live stream that may change.
fn changeable<'a, C: Codec, L: Layer, R: 'static>(
    core: &'a mut LoopState,
    key: Key,
    operation: &'static str,
) -> Result<&'a mut Link<C, L, R>, Error> {
    let gone = || Error::os(operation, format!("{key:?}"), io::ErrorKind::NotFound.into());
    let link = find::<C, L, R>(core, key).ok_or_else(gone)?;
    let why = if link.conn.is_leaving() || link.conn.is_end_delivered() || link.conn.is_broken() {
        OVER
    } else if link.conn.has_partner() {
        "a file or another stream feeds it, or it is paired"
    } else {
        return Ok(link);
    };
    Err(Error::Misuse { operation, why })
}

/// Replaces the codec of a live stream, and the vtable of its slot.
pub(crate) fn map_codec<C: Codec, L: Layer, R: 'static, D: Codec>(
    core: &mut LoopState,
    key: Key,
    table: &'static Vtable,
    make: impl FnOnce(&mut C) -> D,
) -> Result<(), Error> {
    changeable::<C, L, R>(core, key, "map_codec")?;
    // The old codec stays in its place until user code has run.
    let codec =
        breaking(core, key, |core| find::<C, L, R>(core, key).map(|link| make(&mut link.stream.codec)));
    let Some(codec) = codec else { return Ok(()) };
    let mut old = None;
    replace(core, key, table, |link: Link<C, L, R>| {
        link.with(|stream| {
            stream.map_codec(|codec_before| {
                old = Some(codec_before);
                codec
            })
        })
    });
    breaking(core, key, |_| drop(old));
    Ok(())
}

/// Replaces the layer of a live stream. The new layer begins its handshake behind the sent output.
pub(crate) fn map_layer<C: Codec, L: Layer, R: 'static, M: Layer>(
    core: &mut LoopState,
    key: Key,
    table: &'static Vtable,
    make: impl FnOnce(&mut L) -> M,
) -> Result<(), Error> {
    const OPERATION: &str = "map_layer";
    let misuse = |why| Err(Error::Misuse { operation: OPERATION, why });
    let link = changeable::<C, L, R>(core, key, OPERATION)?;
    if !link.unread.is_empty() {
        return misuse(UNREAD);
    }
    if link.conn.has_ended() || link.conn.ends_output() {
        return misuse(OVER);
    }
    if !link.conn.is_open() {
        return misuse(UNSEALED);
    }
    let layer = breaking(core, key, |core| {
        let (link, ports) = core.enter::<Link<C, L, R>>(key)?;
        link.stream.session.prepare_change(ports.pool).ok()?;
        Some(make(link.stream.session.layer_mut()))
    });
    let Some(layer) = layer else { return misuse(UNSEALED) };
    let mut old = None;
    replace(core, key, table, |link: Link<C, L, R>| {
        let mut link = link.with(|stream| {
            let Stream { codec, session, options, half_open, outbound, carried, role } = stream;
            let session = session.change(|layer_before| {
                old = Some(layer_before);
                layer
            });
            Stream { codec, session, options, half_open, outbound, carried, role }
        });
        // It starts in the next turn, like a stream that was just added.
        link.conn.restart(true);
        link
    });
    breaking(core, key, |_| drop(old));
    Ok(())
}

/// Puts a link of another type into the slot. Kept work resumes in the next turn.
fn replace<C: Codec, L: Layer, R: 'static, D: Codec, M: Layer>(
    core: &mut LoopState,
    key: Key,
    table: &'static Vtable,
    change: impl FnOnce(Link<C, L, R>) -> Link<D, M, R>,
) {
    let Some(slot) = core.registry.get_mut(key) else { return };
    let Some(Ok(link)) = slot.resource.take().map(|old| old.downcast::<Link<C, L, R>>()) else { return };
    slot.resource = Some(Box::new(change(*link)));
    slot.table = table;
    core.drive_again(key);
    core.mark(key);
}

/// Keeps the input that the driver of the old type could not deliver, for the new type.
pub(super) fn keep_rest<C: Codec, L: Layer, R: 'static>(
    core: &mut LoopState,
    key: Key,
    rest: Undelivered<'_>,
) {
    let Some((link, mut ports)) = core.enter::<Link<C, L, R>>(key) else { return };
    let mut after = After::default();
    let is_new_layer = link.stream.session.phase() == Phase::Idle;
    match rest {
        Undelivered::End => link.conn.end_input(),
        // Earlier clear bytes must never pass for bytes that the new layer has opened.
        Undelivered::Clear(bytes) if is_new_layer => {
            link.conn.forget_start();
            link.stream.session.give_up();
            let early = LayerError::Early { len: bytes.len() };
            link.layer_failed(&mut ports, early.into(), &mut after);
            return after.apply(core, key);
        }
        Undelivered::Wire(bytes) if !link.stream.session.direct() => link.rare().raw.extend_from_slice(bytes),
        Undelivered::Clear(bytes) | Undelivered::Wire(bytes) => link.unread.extend_from_slice(bytes),
    }
    link.bound_input(&mut ports, &mut after);
    after.apply(core, key);
}

const UNREAD: &str = "bytes that came before the change are unread";
const OVER: &str = "one of its sides has ended, or it is closing";
const UNSEALED: &str = "its layer is in a handshake, or cannot seal what was sent";
