//! Another codec or layer for a stream that lives: the type changes, the connection and its key stay.
//!
//! The handler that asks for it runs in the middle of the stream's input. What it did not see yet is in the hands of the
//! driver, which finds a link of another type when the handler returns, and hands the rest on through the slot's table.

use std::io;

use session::{Codec, Layer, LayerError, Phase};

use super::{
    Stream, close,
    drive::bound_input,
    link::{Link, State, find},
};
use crate::{
    context::Rejected,
    core::Core,
    error::{Error, Result},
    id::Key,
    resource::{Table, breaking},
};

/// Input that the driver of the old type has left.
#[derive(Clone, Copy)]
pub(crate) enum Rest<'a> {
    /// Behind the layers of the old type.
    Clear(&'a [u8]),
    /// As the wire carried it.
    Wire(&'a [u8]),
    /// There was an authentic end of a layer.
    End,
}

impl<C: Codec, L: Layer, R: 'static> Stream<C, L, R> {
    /// Puts another codec in the place of this one, for a stream outside of a runtime. What is unread is cut into items
    /// by the new one; what was sent keeps the form in which it was sent.
    ///
    /// For a stream in a runtime there is [`Context::map_codec`](crate::Context::map_codec).
    pub fn map_codec<D: Codec>(self, make: impl FnOnce(C) -> D) -> Stream<D, L, R> {
        let Stream { codec, session, options, half_open, outbound, carried, role } = self;
        Stream { codec: make(codec), session, options, half_open, outbound, carried, role }
    }

    /// Puts another layer in the place of this one, for a stream outside of a runtime. What was sent leaves first, as
    /// it was sent; then the new layer begins its handshake. [`Event::Open`](super::Event::Open) tells of its end.
    ///
    /// For a stream in a runtime there is [`Context::map_layer`](crate::Context::map_layer).
    ///
    /// # Errors
    /// [`Rejected`] gives the stream back when bytes are [unread](Stream::unread): they came before the change, and
    /// whoever sent them may not be the one who ends the handshake. A protocol in which nothing may come here ends;
    /// another takes them with [`take_unread`](Stream::take_unread). Also when one of both sides has ended, when the old
    /// layer is in its handshake, or cannot seal what was sent.
    pub fn map_layer<M: Layer>(
        mut self,
        make: impl FnOnce(L) -> M,
    ) -> Result<Stream<C, M, R>, Rejected<Self>> {
        let is_over = self.carried.as_ref().is_some_and(|one| one.ended || one.shut || one.error.is_some());
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
            // The open of the new layer is still to be told.
            carried.opened = false;
        }
        let session = session.change(make);
        Ok(Stream { codec, session, options, half_open, outbound, carried, role })
    }

    /// Takes the bytes that arrived and no handler saw, of a stream that was released: from here on they are the
    /// caller's.
    pub fn take_unread(&mut self) -> Vec<u8> {
        self.carried.as_mut().map(|carried| std::mem::take(&mut carried.unread)).unwrap_or_default()
    }
}

/// Whether a living stream may change at all.
fn check<C: Codec, L: Layer, R: 'static>(
    core: &mut Core,
    key: Key,
    operation: &'static str,
) -> Result<(), Error> {
    let gone = || Error::os(operation, format!("{key:?}"), io::ErrorKind::NotFound.into());
    let link = find::<C, L, R>(core, key).ok_or_else(gone)?;
    let why = if link.closing | link.releasing | link.end_told | link.write_failed | link.detaching {
        OVER
    } else if link.feeding | link.coupled {
        "a file or another stream feeds it, or it is coupled"
    } else {
        return Ok(());
    };
    Err(Error::Misuse { operation, why })
}

/// Gives a living stream another codec, and its slot the table of its new type.
pub(crate) fn map_codec<C: Codec, L: Layer, R: 'static, D: Codec>(
    core: &mut Core,
    key: Key,
    table: &'static Table,
    make: impl FnOnce(&mut C) -> D,
) -> Result<(), Error> {
    check::<C, L, R>(core, key, "map_codec")?;
    // The old one stays in its place until users' code has run.
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
    Ok(())
}

/// Gives a living stream another layer, which begins its handshake behind what was sent.
pub(crate) fn map_layer<C: Codec, L: Layer, R: 'static, M: Layer>(
    core: &mut Core,
    key: Key,
    table: &'static Table,
    make: impl FnOnce(&mut L) -> M,
) -> Result<(), Error> {
    const OPERATION: &str = "map_layer";
    check::<C, L, R>(core, key, OPERATION)?;
    let misuse = |why| Err(Error::Misuse { operation: OPERATION, why });
    let Some(link) = find::<C, L, R>(core, key) else { return Ok(()) };
    if !link.unread.is_empty() {
        return misuse(UNREAD);
    }
    if link.ended || link.finishing {
        return misuse(OVER);
    }
    if link.state != State::Open {
        return misuse(UNSEALED);
    }
    let layer = breaking(core, key, |core| {
        let Core { registry, pool, .. } = core;
        let link = registry.live(key).and_then(|s| s.resource.as_mut()?.downcast_mut::<Link<C, L, R>>())?;
        link.stream.session.prepare_change(pool).ok()?;
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
        // As a stream that was just added: it starts in the next turn.
        (link.state, link.open_due) = (State::Handshake, true);
        link
    });
    Ok(())
}

/// Puts a link of another type into the slot. What was kept goes on in the next turn.
fn replace<C: Codec, L: Layer, R: 'static, D: Codec, M: Layer>(
    core: &mut Core,
    key: Key,
    table: &'static Table,
    change: impl FnOnce(Link<C, L, R>) -> Link<D, M, R>,
) {
    let Some(slot) = core.registry.live(key) else { return };
    let Some(Ok(link)) = slot.resource.take().map(|old| old.downcast::<Link<C, L, R>>()) else { return };
    slot.resource = Some(Box::new(change(*link)));
    slot.table = table;
    core.drive_again(key);
    core.mark(key);
}

/// Keeps what the driver of the old type could not hand over, for the new one.
pub(super) fn keep_rest<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key, rest: Rest<'_>) {
    let Some(slot) = core.registry.live(key) else { return };
    let Some(link) = slot.resource.as_mut().and_then(|r| r.downcast_mut::<Link<C, L, R>>()) else { return };
    let is_new_layer = link.stream.session.phase() == Phase::Idle;
    match rest {
        Rest::End => link.ended = true,
        // Clear bytes from before must never pass for bytes that the new layer has opened.
        Rest::Clear(bytes) if is_new_layer => {
            link.open_due = false;
            link.stream.session.give_up();
            let early = LayerError::Early { len: bytes.len() };
            return close::layer_failed::<C, L, R>(core, key, early.into());
        }
        Rest::Wire(bytes) if !link.stream.session.direct() => link.rare().raw.extend_from_slice(bytes),
        Rest::Clear(bytes) | Rest::Wire(bytes) => link.unread.extend_from_slice(bytes),
    }
    bound_input::<C, L, R>(core, key);
}

const UNREAD: &str = "bytes that came before the change are unread";
const OVER: &str = "one of its sides has ended, or it is closing";
const UNSEALED: &str = "its layer is in a handshake, or cannot seal what was sent";
