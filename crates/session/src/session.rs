//! Drives one stack of layers for one connection, and knows its phase and its queued bytes. Sans-IO.
//!
//! The caller moves the bytes. It calls [`start`](Session::start) when the transport is up, and
//! [`step`](Session::step) with unused earlier input followed by new input. It lets the codec encode into
//! [`out`](Session::out). Once a turn it calls [`fill`](Session::fill) and [`take_wire`](Session::take_wire),
//! writes once, and calls [`restore`](Session::restore). Input that a step did not use stays with the caller.
//! An idle session owns no buffer, because all buffers come from the pool and go back to it.

use crate::failure::{Result, Truncated};
use crate::layer::{Io, Layer, LayerError, Next, Step, check_left, open_once, seal_front};
use crate::outgoing::Outgoing;
use crate::pool::Pool;

/// The phase of a session's own side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not started: the transport is not up yet.
    Idle,
    /// Started, but the layers are not ready yet. Encoded bytes wait.
    Handshake,
    /// The layers are ready.
    Open,
    /// Our end was queued, or the session failed. Nothing more is added to the wire. Input may still arrive.
    Finished,
}

/// Drives the layer `L`, which may be a stack of layers, for one connection.
///
/// ```
/// use session::{Pool, Session};
///
/// let mut pool = Pool::new();
/// let mut session = Session::new(());
/// session.start(&mut pool)?;
/// session.out(&mut pool).put(b"hello");
/// session.fill(&mut pool)?;
/// let wire = session.take_wire().expect("five bytes were encoded");
/// assert_eq!(wire.front(), b"hello");
/// # Ok::<(), session::Failure>(())
/// ```
#[derive(Debug)]
pub struct Session<L> {
    layer: L,
    phase: Phase,
    /// The layer is ready and has not failed.
    open: bool,
    /// The layer is ready, has not failed, and passes bytes unchanged. It is asked at most once, when it is
    /// ready, so that no look at a session runs its code.
    direct: bool,
    failed: bool,
    closing: bool,
    /// The peer ended its side, with an authentic end.
    ended: bool,
    /// The layer put bytes of its handshake on the wire.
    spoke: bool,
    /// Encoded, but not sealed. Always empty while the session is direct.
    clear: Option<Box<Outgoing>>,
    /// Sealed, but not taken. After a call with the pool, this is never an empty queue.
    wire: Option<Box<Outgoing>>,
}

impl<L: Layer> Session<L> {
    /// The most sealed bytes that may wait for the transport before sealing pauses.
    pub const WIRE_MAX: usize = 64 << 10;

    /// Creates a session that waits for its transport.
    pub fn new(layer: L) -> Self {
        Session {
            layer,
            phase: Phase::Idle,
            open: false,
            direct: false,
            failed: false,
            closing: false,
            ended: false,
            spoke: false,
            clear: None,
            wire: None,
        }
    }

    /// Returns the layer, for example to ask for results of its handshake.
    pub fn layer(&self) -> &L {
        &self.layer
    }

    /// Returns the layer for changes that need no [`Io`]. For others there is [`Session::with_layer`].
    pub fn layer_mut(&mut self) -> &mut L {
        &mut self.layer
    }

    /// Returns the layer. Queued bytes are dropped.
    pub fn into_layer(self) -> L {
        self.layer
    }

    /// Returns the phase of our side.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Returns whether bytes pass unchanged both ways: the layer is transparent and ready, and is no longer
    /// called.
    #[inline]
    pub fn direct(&self) -> bool {
        // For most layers the compiler knows the answer.
        if L::TRANSPARENT { self.open } else { self.direct }
    }

    /// Returns whether [`Session::close`] was called.
    pub fn closing(&self) -> bool {
        self.closing
    }

    /// Returns whether the layer saw the authentic end of the peer's side.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Returns whether handshake bytes may wait for the wire. The caller writes them before it reports the
    /// session as open, because the peer waits for them.
    pub fn spoke(&self) -> bool {
        self.spoke && self.wire.is_some()
    }

    /// Starts the handshake, because the transport is up. Called once.
    ///
    /// # Errors
    /// The layer's error; an alert may wait in the wire. [`LayerError::Misuse`] on a second call.
    pub fn start(&mut self, pool: &mut Pool) -> Result {
        if self.phase != Phase::Idle {
            return Err(LayerError::Misuse("it was started before").into());
        }
        self.phase = Phase::Handshake;
        let started = self.call(&mut Vec::new(), pool, |layer, io| layer.start(io));
        if started.is_ok() {
            self.open_if_ready(pool);
        }
        self.settle(started)
    }

    /// Opens at most one record of `input`: first the bytes that an earlier step left, then new ones.
    ///
    /// Appends clear bytes to `up`. [`Next::Again`] asks for another step at once with the rest, even if that
    /// is empty. After [`Next::End`] input is discarded.
    ///
    /// # Errors
    /// The layer's error, or [`LayerError::TooLong`] if more than [`Layer::INPUT_MAX`] bytes were left after
    /// a wait. `up` is then as before the call, an alert may wait in the wire, and the session is finished.
    /// The caller must [discard](Session::discard) the queued clear bytes.
    pub fn step(&mut self, input: &mut [u8], up: &mut Vec<u8>, pool: &mut Pool) -> Result<Step> {
        if self.direct() {
            up.extend_from_slice(input);
            return Ok(Step { used: input.len(), next: Next::Wait });
        }
        if self.phase == Phase::Idle || self.failed {
            return Err(LayerError::Misuse("it was not started or has failed").into());
        }
        let finished = self.phase == Phase::Finished;
        if self.ended || (finished && !self.open) {
            let next = if self.ended { Next::End } else { Next::Wait };
            return Ok(Step { used: input.len(), next });
        }
        let had = up.len();
        let stepped = self.call(up, pool, |layer, io| {
            let mark = io.down.mark();
            let step = open_once(layer, input, io);
            if finished {
                // We have already sent our end, so an answer after it would violate the protocol.
                io.down.rollback(mark);
            }
            step
        });
        let stepped = stepped.and_then(|step| self.judge(step, input.len(), pool));
        if stepped.is_err() {
            up.truncate(had);
        }
        self.settle(stepped)
    }

    /// Returns the queue into which the codec encodes.
    ///
    /// Bytes that are put there in [`Phase::Finished`] come too late, and the next [`Session::fill`] drops
    /// them.
    #[inline]
    pub fn out(&mut self, pool: &mut Pool) -> &mut Outgoing {
        let direct = self.direct() && self.phase == Phase::Open;
        let queue = if direct { &mut self.wire } else { &mut self.clear };
        queue.get_or_insert_with(|| pool.take_outgoing())
    }

    /// Seals as many bytes as the wire has room for. If the session is closing and all bytes are sealed, it
    /// also seals the end. Called once a turn, before the write, and again whenever the transport took bytes.
    ///
    /// # Errors
    /// The layer's error. The session is then finished, as after an error of [`Session::step`].
    pub fn fill(&mut self, pool: &mut Pool) -> Result {
        if self.phase == Phase::Finished {
            self.discard(pool);
        } else if self.phase == Phase::Open && !self.direct() && self.clear.is_some() {
            let sealed = self.seal(pool, Self::WIRE_MAX);
            self.settle(sealed)?;
        }
        give_empty(&mut self.clear, pool);
        give_empty(&mut self.wire, pool);
        let started = matches!(self.phase, Phase::Handshake | Phase::Open);
        if self.closing && started && self.clear.is_none() {
            self.phase = Phase::Finished;
            if !self.direct() {
                let finished = self.call(&mut Vec::new(), pool, |layer, io| layer.finish(io));
                self.settle(finished)?;
            }
        }
        Ok(())
    }

    /// Ends our side: after all queued bytes are sealed, the layer's end follows, once.
    ///
    /// An unfinished handshake continues while bytes are queued. If there are none, the next fill gives it
    /// up.
    pub fn close(&mut self) {
        self.closing = true;
    }

    /// Takes the bytes to write, or returns `None` if there are none.
    #[inline]
    pub fn take_wire(&mut self) -> Option<Box<Outgoing>> {
        self.wire.take_if(|wire| !wire.is_empty())
    }

    /// Returns whether the next [`fill`](Session::fill) and [`take_wire`](Session::take_wire) yield bytes to
    /// write. Bytes that wait for a handshake do not count, because only input from the peer can complete it.
    #[inline]
    pub fn has_output(&self) -> bool {
        let waits = |queue: &Option<Box<Outgoing>>| queue.as_ref().is_some_and(|queue| !queue.is_empty());
        waits(&self.wire) || self.phase == Phase::Open && waits(&self.clear)
    }

    /// Returns the bytes that the transport did not take. They go in front of any bytes queued since.
    #[inline]
    pub fn restore(&mut self, mut left: Box<Outgoing>, pool: &mut Pool) {
        if left.is_empty() {
            return pool.give_outgoing(left);
        }
        if let Some(mut newer) = self.wire.take() {
            left.append(&mut newer);
            pool.give_outgoing(newer);
        }
        self.wire = Some(left);
    }

    /// Checks the end of the transport, with the bytes that the last step left in `left`. Called once. While
    /// the session is direct every end is clean, because nothing marks it.
    ///
    /// # Errors
    /// [`Truncated`] or the layer's own error, unless the end is authentic.
    pub fn end(&mut self, left: &[u8]) -> Result {
        if self.ended || self.direct() {
            Ok(())
        } else if self.open {
            self.layer.end(left)
        } else {
            Err(Truncated.into())
        }
    }

    /// Returns how many bytes wait, clear and sealed. Bytes that were taken for writing do not count.
    #[inline]
    pub fn queued(&self) -> usize {
        let len = |queue: &Option<Box<Outgoing>>| queue.as_ref().map_or(0, |queue| queue.len());
        len(&self.clear) + len(&self.wire)
    }

    /// Drops the clear bytes that no layer will seal any more, and returns how many there were. Called after
    /// an error, so that the caller learns how much output is lost. Otherwise the next [`Session::fill`]
    /// drops them.
    pub fn discard(&mut self, pool: &mut Pool) -> usize {
        let Some(clear) = self.clear.take_if(|_| self.phase == Phase::Finished) else { return 0 };
        let lost = clear.len();
        pool.give_outgoing(clear);
        lost
    }

    /// Lets the caller make a request of the layer that produces bytes for the wire, for example a key update
    /// or a ping.
    ///
    /// Such a request delivers no clear bytes: anything that it puts into `up` is discarded. The caller
    /// handles its error, and the session goes on.
    ///
    /// # Errors
    /// The error of `call`. [`LayerError::Misuse`] before the start and after the end of our side.
    pub fn with_layer<T>(
        &mut self,
        pool: &mut Pool,
        call: impl FnOnce(&mut L, &mut Io<'_>) -> Result<T>,
    ) -> Result<T> {
        match self.phase {
            Phase::Handshake | Phase::Open => self.call(&mut Vec::new(), pool, call),
            Phase::Idle | Phase::Finished => Err(LayerError::Misuse("it is not open").into()),
        }
    }

    /// Returns the heap memory of the session in bytes, as far as it knows: its queues, and the layer's
    /// [`held`](Layer::held) bytes.
    pub fn capacity(&self) -> usize {
        self.queues() + self.layer.held()
    }

    /// Returns the memory of the session's queues.
    pub fn queues(&self) -> usize {
        let own = |queue: &Option<Box<Outgoing>>| queue.as_ref().map_or(0, |queue| queue.memory());
        own(&self.clear) + own(&self.wire)
    }

    /// Returns the memory of the session's queues, and counts it: the next [`Outgoing::count`] of a queue
    /// starts from here.
    pub fn count_queues(&mut self) -> usize {
        for queue in [&mut self.clear, &mut self.wire].into_iter().flatten() {
            queue.count();
        }
        self.queues()
    }

    /// Returns memory to the allocator that the queues hardly use. Each queue keeps up to 4 KiB of its
    /// buffer.
    pub fn trim(&mut self) {
        for queue in [&mut self.clear, &mut self.wire].into_iter().flatten() {
            queue.trim(TRIMMED);
        }
    }

    /// Returns whether the session owns no queue, not even an empty one.
    #[inline]
    pub fn has_no_queue(&self) -> bool {
        self.clear.is_none() && self.wire.is_none()
    }

    /// Ends the session as a layer's error does: waiting clear bytes are never sealed, and sealed ones are
    /// still sent.
    pub fn give_up(&mut self) {
        self.phase = Phase::Finished;
        self.failed = true;
        (self.open, self.direct) = (false, false);
    }

    /// Seals all waiting bytes, however many there are, because the next bytes on the wire belong to another
    /// layer. To be called before [`Session::change`].
    ///
    /// # Errors
    /// [`LayerError::Misuse`] during a handshake, and after either side has ended. Otherwise the layer's
    /// error, and then the session is finished.
    pub fn prepare_change(&mut self, pool: &mut Pool) -> Result {
        if self.phase == Phase::Idle {
            return Ok(());
        }
        if self.phase != Phase::Open || self.closing || self.ended {
            return Err(LayerError::Misuse("only an open session takes another layer").into());
        }
        let sealed = self.seal(pool, usize::MAX);
        self.settle(sealed)?;
        give_empty(&mut self.clear, pool);
        Ok(())
    }

    /// Replaces the layer. The new session must be started, and its handshake follows the bytes that wait for
    /// the wire. The new layer seals the clear bytes that the old one has not sealed.
    pub fn change<M: Layer>(self, make: impl FnOnce(L) -> M) -> Session<M> {
        let Session { layer, clear, wire, .. } = self;
        Session { clear, wire, ..Session::new(make(layer)) }
    }

    /// Calls the layer with the wire's queue, or with one from the pool if there is none.
    fn call<T>(
        &mut self,
        up: &mut Vec<u8>,
        pool: &mut Pool,
        call: impl FnOnce(&mut L, &mut Io<'_>) -> Result<T>,
    ) -> Result<T> {
        // It stays in its place, so that a panic of the layer loses none of it.
        let wire = self.wire.get_or_insert_with(|| pool.take_outgoing());
        let had = wire.len();
        let result = call(&mut self.layer, &mut Io { up, down: wire, pool });
        self.spoke |= self.phase == Phase::Handshake && wire.len() > had;
        give_empty(&mut self.wire, pool);
        result
    }

    /// Checks the rest of the input after a step, and records the step's effects.
    fn judge(&mut self, step: Step, given: usize, pool: &mut Pool) -> Result<Step> {
        let was_direct = self.direct();
        self.open_if_ready(pool);
        if step.next == Next::End {
            if !self.open {
                // During the handshake even an authentic end means that there never was a connection.
                return Err(Truncated.into());
            }
            self.ended = true;
        }
        let left = given - step.used;
        if step.next == Next::Wait && self.direct() != was_direct {
            // Input after a transparent layer's last message bypasses the layer.
            return Ok(Step { used: step.used, next: Next::Again });
        }
        if step.next == Next::Wait {
            check_left(&self.layer, left)?;
        }
        Ok(step)
    }

    fn open_if_ready(&mut self, pool: &mut Pool) {
        if self.phase != Phase::Handshake || !self.layer.ready() {
            return;
        }
        let direct = L::TRANSPARENT || self.layer.transparent();
        self.phase = Phase::Open;
        (self.open, self.direct) = (true, direct);
        if !direct {
            return;
        }
        // Bytes that waited for the handshake follow its last flight.
        if let Some(clear) = self.clear.take() {
            match self.wire.take() {
                None => self.wire = Some(clear),
                Some(wire) => {
                    self.wire = Some(clear);
                    self.restore(wire, pool);
                }
            }
        }
    }

    /// Seals records until `wire_max` bytes wait for the wire, or nothing is left.
    fn seal(&mut self, pool: &mut Pool, wire_max: usize) -> Result {
        let Session { layer, clear, wire, .. } = self;
        let Some(clear) = clear else { return Ok(()) };
        // Both stay in their places, so that a panic of the layer loses none of them.
        let down = wire.get_or_insert_with(|| pool.take_outgoing());
        let mut io = Io { up: &mut Vec::new(), down, pool };
        let mut sealed = Ok(());
        while sealed.is_ok() && !clear.is_empty() && io.down.len() < wire_max {
            sealed = seal_front(layer, clear, &mut io);
        }
        give_empty(wire, pool);
        sealed
    }

    /// Passes a result of the layer on. On an error, it first finishes the session.
    fn settle<T>(&mut self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            self.give_up();
        }
        result
    }
}

/// How much of its buffer a trimmed queue keeps.
const TRIMMED: usize = 4 << 10;

/// Returns an empty queue to the pool.
fn give_empty(queue: &mut Option<Box<Outgoing>>, pool: &mut Pool) {
    if let Some(empty) = queue.take_if(|queue| queue.is_empty()) {
        pool.give_outgoing(empty);
    }
}
