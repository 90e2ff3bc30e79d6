//! Calls that few services need: paired streams, released resources, new codecs and layers, the ends of turns
//! and of the runtime.

use session::{Codec, Layer};

use super::{Context, name_of};
use crate::{
    error::{Error, Result},
    id::Id,
    message::WorkGuard,
    resource::{AnyStream, Resource, Stream, map_codec, map_layer, with_layer},
    runtime::{Handled, Hold},
};

/// # Rarely needed
///
/// Proxies, protocols that change in the middle of a connection, resources that move to another runtime, and
/// services that decide when the runtime may end.
impl<S> Context<'_, S> {
    /// Makes a proxy of two streams. Reads of one rest while the other's queue is above its high mark. An end
    /// of one is passed on as a half-close of the other. When one has closed, the other closes: in order if
    /// the first did, and otherwise with a reset once the output passed on so far has left
    /// ([`Closed::Partner`](crate::Closed::Partner)). Both streams belong to this service. Nothing happens if one is gone.
    ///
    /// The runtime passes no bytes. The handler gets them as before, and sends them to the other stream.
    ///
    /// An end that the runtime reported before the service paired the two is passed on, too, after this
    /// handler. Until then the service may send the other stream the bytes that it has kept. A stream that
    /// may end before it is paired must be [`half_open`](Stream::half_open), because otherwise it closes at
    /// its end.
    ///
    /// ```
    /// # use reactor::{Bytes, Context, Event, Handle, Id, IdMap, Result, Service, Stream};
    /// /// The example `proxy` has the rest: `start`, and `closed`, which removes from the map.
    /// struct Proxy(String, IdMap<Stream, Id<Stream>>);
    /// # impl Service for Proxy {}
    /// impl Handle<Stream> for Proxy {
    ///     fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
    ///         match event {
    ///             Event::Open if !cx.get(id).is_some_and(Stream::is_outbound) => {
    ///                 let other = cx.connect(&self.0, Stream::new(Bytes))?;
    ///                 cx.pair(id, other)?;
    ///                 _ = (self.1.insert(id, other), self.1.insert(other, id));
    ///             }
    ///             Event::Received(bytes) => _ = self.1.get(id).map(|other| cx.send(*other, bytes)),
    ///             _ => (),
    ///         }
    ///         Ok(())
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Error::Misuse`] if one of them is paired, is being released or has a transfer already, or if both
    /// are the same. Nothing changes then.
    pub fn pair<A: AnyStream, B: AnyStream>(&mut self, a: Id<A>, b: Id<B>) -> Result<(), Error> {
        let (a, b) = (a.key(), b.key());
        if !self.owns(a) || !self.owns(b) {
            return Ok(());
        }
        if a == b {
            return Err(Error::Misuse { operation: "pair", why: "both are the same stream" });
        }
        if [a, b].iter().any(|key| self.core.partners.contains_key(key)) {
            return Err(Error::Misuse { operation: "pair", why: "one is paired, or has a transfer" });
        }
        if A::is_leaving(self.core, a) || B::is_leaving(self.core, b) {
            return Err(Error::Misuse { operation: "pair", why: "one is being released" });
        }
        self.core.partners.insert(a, b);
        self.core.partners.insert(b, a);
        A::pair(self.core, a);
        B::pair(self.core, b);
        for key in [a, b] {
            if self.core.registry.get(key).is_some_and(|slot| slot.look().is_high) {
                self.core.hold_partner(key, true);
            }
        }
        Ok(())
    }

    /// Stops reading. Once nothing of the resource is in flight, gives it back through `closed`, with
    /// [`Closed::Released`](crate::Closed::Released). It can be added again, here or in another runtime.
    ///
    /// A stream continues in its next life as it was: with its transport, codec and layer, the unread bytes,
    /// the unsent bytes (including those sent between this call and `closed`), and the rest of its deadline.
    /// If it was paused or between its marks, it still is. The runtime does not repeat `Open` and `End`. A
    /// stream that still connects is given back once it is connected.
    ///
    /// * A [transfer](Context::send_file) ends before its stream is given back, also as `Released`, and
    ///   reports the unsent rest.
    /// * The other stream of a [pair](Context::pair) stays open, and is no longer paired.
    /// * A [`FileWriter`](crate::file::FileWriter) first writes everything that was sent to it, and so does a
    ///   resource of your own. Neither takes more output.
    /// * [`Datagrams`](crate::Datagrams) also continue as they were: with their queue, their pause and the rest of
    ///   their deadline. The deadline and the pause of any other resource end with the id.
    /// * The message of [`deadline_with`](Context::deadline_with) always ends with the id.
    ///
    /// # Errors
    /// [`Error::Misuse`] if it is closing already, because `closed` then comes with another reason, and if it
    /// is a listener, because listeners are not given back. An id that is gone is no error: its `closed` was
    /// called, or will be soon.
    pub fn release<R: Resource>(&mut self, id: Id<R>) -> Result<(), Error> {
        match self.table_of(id.key()) {
            Some(table) => (table.release)(self.core, id.key())?,
            None => return Ok(()),
        }
        self.core.release_deadline(id.key());
        Ok(())
    }

    /// Replaces a stream's codec, for example when HTTP becomes WebSocket. `make` borrows the old one.
    ///
    /// The connection, its layer, queue, deadline and pause stay, and no event reports the change. Output
    /// sent before leaves in its old form. The new codec cuts the unread input into items, including the rest
    /// of the input that the calling handler is being called for, and they go to the handler of the new type.
    /// The old id no longer finds the stream in calls that know its type, for example [`get`](Context::get)
    /// and [`send`](Context::send). `closed` comes for the new type.
    ///
    /// # Errors
    /// [`Error::Os`] with `NotFound` if it is gone. [`Error::Misuse`] if it is closing, is released, has
    /// ended, or is bound to a file or another stream. The stream is then unchanged, and `make` was not
    /// called.
    pub fn map_codec<C: Codec, L: Layer, R: 'static, D: Codec>(
        &mut self,
        id: Id<Stream<C, L, R>>,
        make: impl FnOnce(&mut C) -> D,
    ) -> Result<Id<Stream<D, L, R>>, Error>
    where
        Stream<D, L, R>: Handled<S>,
    {
        self.find(id.key()).map_err(|error| Error::os("map_codec", name_of(id), error))?;
        map_codec::<C, L, R, D>(self.core, id.key(), <Stream<D, L, R> as Handled<S>>::table_for(), make)?;
        Ok(Id::new(id.key()))
    }

    /// Replaces a stream's layer, for example for STARTTLS. `make` borrows the old one, and must not break
    /// it.
    ///
    /// Output sent before leaves first, sealed by the old layer. The handshake of the new layer follows,
    /// under the stream's deadline for handshakes. [`Event::Open`](crate::Event::Open) notifies the handler
    /// of the new type when it has finished. Items sent meanwhile wait. For the ids see
    /// [`map_codec`](Context::map_codec).
    ///
    /// Clear bytes that came before the change never pass for bytes of the new layer, because an attacker on
    /// the path may have put them there. If any follow in the input that the calling handler is being called
    /// for, the stream ends as [`Closed::Refused`](crate::Closed::Refused) with [`LayerError::Early`](session::LayerError::Early). If
    /// you expect such bytes, [`release`](Context::release) the stream, [take](Stream::take_unread) them, and
    /// use [`Stream::map_layer`].
    ///
    /// # Errors
    /// As [`map_codec`](Context::map_codec), and [`Error::Misuse`] if clear bytes are unread, or the old
    /// layer is in its handshake.
    pub fn map_layer<C: Codec, L: Layer, R: 'static, M: Layer>(
        &mut self,
        id: Id<Stream<C, L, R>>,
        make: impl FnOnce(&mut L) -> M,
    ) -> Result<Id<Stream<C, M, R>>, Error>
    where
        Stream<C, M, R>: Handled<S>,
    {
        self.find(id.key()).map_err(|error| Error::os("map_layer", name_of(id), error))?;
        map_layer::<C, L, R, M>(self.core, id.key(), <Stream<C, M, R> as Handled<S>>::table_for(), make)?;
        Ok(Id::new(id.key()))
    }

    /// Calls a function of a stream's layer that needs the layer's buffers, for example for a key update.
    /// Bytes that it puts on the wire leave at the end of the turn. `None` when the stream is gone.
    pub fn layer<C: Codec, L: Layer, R: 'static, T>(
        &mut self,
        id: Id<Stream<C, L, R>>,
        ask: impl FnOnce(&mut L, &mut session::Io<'_>) -> Result<T>,
    ) -> Option<Result<T>> {
        if !self.owns(id.key()) {
            return None;
        }
        with_layer::<C, L, R, T>(self.core, id.key(), ask)
    }

    /// Requests one call of [`Service::end_of_turn`](crate::Service::end_of_turn) at the end of this turn. Further requests before the
    /// call change nothing.
    ///
    /// A request from a handler that runs after that, namely [`closed`](crate::Handle::closed), or from
    /// outside a turn ([`Service::start`](crate::Service::start), [`Runtime::with`](crate::Runtime::with)), is met at the end of the
    /// next turn, which then does not wait.
    ///
    /// A request from within `end_of_turn` is also met at the end of the next turn, but does not cause one.
    /// So a service that makes a request in each call gets one call in each turn, and an idle loop still
    /// rests. A service that has more to do at once should [send](Context::tell) itself a message instead.
    pub fn at_end_of_turn(&mut self) {
        self.core.turn_ends.ask(self.index);
    }

    /// Keeps a resource in the background from now on: when nothing else is left to do, the runtime closes it
    /// and ends.
    pub fn background<R: Resource>(&mut self, id: Id<R>) {
        if self.owns(id.key()) {
            self.core.keep_in_background(id.key());
        }
    }

    /// Keeps the runtime from ending by itself, and a stop from finishing before its grace, until the
    /// returned value is dropped. See [`Hold`] for the cases that need none.
    pub fn hold(&self) -> Hold {
        Hold::new(WorkGuard::new(&self.core.mailbox))
    }
}
