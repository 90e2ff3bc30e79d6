//! Drives one stack of layers for one connection: what is queued, and in which phase. Sans-IO.
//!
//! The caller moves the bytes. It calls [`start`](Session::start) when the transport is up, [`step`](Session::step)
//! with what was left of earlier input and what is new, lets the codec encode into [`out`](Session::out), and once a
//! turn [`fill`](Session::fill), [`take_wire`](Session::take_wire), one write and [`restore`](Session::restore). Input
//! that a step did not use stays with the caller. A session at rest owns no buffer: all come from the pool and go back.

use crate::failure::{Result, Truncated};
use crate::layer::{Io, Layer, LayerError, Next, Step, check_left, open_once, seal_front};
use crate::outgoing::Outgoing;
use crate::pool::Pool;

/// The phase of a session, as far as our own side goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not started: the transport is not up yet.
    Idle,
    /// Started; the layers are not ready yet. What is encoded waits.
    Handshake,
    /// The layers are ready.
    Open,
    /// Our end was queued or the session failed: nothing is added to the wire any more. Input may still arrive.
    Finished,
}

/// Drives the layer `L`, which may be a whole stack, for one connection.
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
    /// The layer became ready and has not failed.
    open: bool,
    failed: bool,
    closing: bool,
    /// The peer ended its side, authentically.
    ended: bool,
    /// The layer put bytes of its handshake on the wire.
    spoke: bool,
    /// Encoded, not sealed. Always empty while direct.
    clear: Option<Box<Outgoing>>,
    /// Sealed, not taken. Never holds an empty queue after a call that was lent the pool.
    wire: Option<Box<Outgoing>>,
}

impl<L: Layer> Session<L> {
    /// While so many sealed bytes wait for the transport, nothing more is sealed.
    pub const WIRE_MAX: usize = 64 << 10;

    /// Creates a session that waits for its transport.
    pub fn new(layer: L) -> Self {
        Session {
            layer,
            phase: Phase::Idle,
            open: false,
            failed: false,
            closing: false,
            ended: false,
            spoke: false,
            clear: None,
            wire: None,
        }
    }

    /// Returns the layer, to ask what it learned.
    pub fn layer(&self) -> &L {
        &self.layer
    }

    /// Returns the layer for changes that need no [`Io`]; for others there is [`Session::with_layer`].
    pub fn layer_mut(&mut self) -> &mut L {
        &mut self.layer
    }

    /// Gives the layer back; queued bytes are dropped.
    pub fn into_layer(self) -> L {
        self.layer
    }

    /// Returns the phase of our side.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Says whether bytes pass unchanged both ways: the layer is transparent and ready, and is not called any more.
    #[inline]
    pub fn direct(&self) -> bool {
        self.open && self.layer.transparent()
    }

    /// Says whether [`Session::close`] was called.
    pub fn closing(&self) -> bool {
        self.closing
    }

    /// Says whether the layer saw the authentic end of the peer's side.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Returns whether bytes of the handshake may wait for the wire. The caller writes them before it tells anybody
    /// that the session is open: the peer waits for them.
    pub fn spoke(&self) -> bool {
        self.spoke && self.wire.is_some()
    }

    /// Starts the handshake: the transport is up. Called once.
    ///
    /// # Errors
    /// What the layer returned; an alert may wait in the wire. [`LayerError::Misuse`] when called twice.
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

    /// Opens at most one record of `input`, which is what an earlier step left, and behind it what is new.
    ///
    /// Clear bytes are appended to `up`. [`Next::Again`] asks for another step at once, with the rest, even if that is
    /// empty; after [`Next::End`] input is discarded.
    ///
    /// # Errors
    /// What the layer returned, or [`LayerError::TooLong`] when more than [`Layer::INPUT_MAX`] was left after a wait.
    /// `up` is then as before the call, an alert may wait in the wire, and the session is finished: queued clear bytes
    /// are to be [discarded](Session::discard).
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
                // Our end has left: an answer behind it would be a breach of the protocol.
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
    /// What is put there in [`Phase::Finished`] comes too late and is dropped by the next [`Session::fill`].
    #[inline]
    pub fn out(&mut self, pool: &mut Pool) -> &mut Outgoing {
        let direct = self.direct() && self.phase == Phase::Open;
        let queue = if direct { &mut self.wire } else { &mut self.clear };
        queue.get_or_insert_with(|| pool.take_outgoing())
    }

    /// Seals what the wire has room for, and the end when closing and all is sealed. Called once a turn, before the
    /// write, and again whenever the transport took bytes.
    ///
    /// # Errors
    /// What the layer returned; the session is then finished as after an error of [`Session::step`].
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

    /// Ends our side: once everything that is queued was sealed, the layer's end follows, once.
    ///
    /// An unfinished handshake is driven on while bytes are queued; without any the next fill gives it up.
    pub fn close(&mut self) {
        self.closing = true;
    }

    /// Takes what is to be written; `None` when nothing is.
    #[inline]
    pub fn take_wire(&mut self) -> Option<Box<Outgoing>> {
        self.wire.take_if(|wire| !wire.is_empty())
    }

    /// Returns whether the next [`fill`](Session::fill) and [`take_wire`](Session::take_wire) give something to write. What
    /// waits for a handshake does not count, because only the peer's input makes it go on.
    #[inline]
    pub fn has_output(&self) -> bool {
        let waits = |queue: &Option<Box<Outgoing>>| queue.as_ref().is_some_and(|queue| !queue.is_empty());
        waits(&self.wire) || self.phase == Phase::Open && waits(&self.clear)
    }

    /// Gives back what the transport did not take: it stands in front of whatever was queued since.
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

    /// Judges the end of the transport, with `left` not used by the last step. Called once. While direct every end is
    /// clean: nothing marks it.
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

    /// Returns how many bytes wait, clear and sealed; what was taken for writing does not count.
    #[inline]
    pub fn queued(&self) -> usize {
        let len = |queue: &Option<Box<Outgoing>>| queue.as_ref().map_or(0, |queue| queue.len());
        len(&self.clear) + len(&self.wire)
    }

    /// Drops the clear bytes that no layer will seal any more and returns how many they were. Called after an error, so
    /// that the caller learns how much of its output is lost; what is not discarded the next [`Session::fill`] drops.
    pub fn discard(&mut self, pool: &mut Pool) -> usize {
        let Some(clear) = self.clear.take_if(|_| self.phase == Phase::Finished) else { return 0 };
        let lost = clear.len();
        pool.give_outgoing(clear);
        lost
    }

    /// Lets the caller ask something of the layer that makes bytes for the wire: a key update, a ping.
    ///
    /// Such a request has no clear bytes to deliver: what it puts into `up` is discarded. Its error is the caller's;
    /// the session goes on.
    ///
    /// # Errors
    /// What `call` returned. [`LayerError::Misuse`] before the start and after the end of our side.
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

    /// Returns the bytes of memory the session owns on the heap, as far as it knows: its queues and what the layer says
    /// it holds.
    pub fn capacity(&self) -> usize {
        self.queues() + self.layer.held()
    }

    /// Returns the memory of its queues.
    pub fn queues(&self) -> usize {
        let own = |queue: &Option<Box<Outgoing>>| queue.as_ref().map_or(0, |queue| queue.memory());
        own(&self.clear) + own(&self.wire)
    }

    /// Returns the memory of its queues, and counts it: what [`Outgoing::count`] says next of a queue begins here.
    pub fn count_queues(&mut self) -> usize {
        for queue in [&mut self.clear, &mut self.wire].into_iter().flatten() {
            queue.count();
        }
        self.queues()
    }

    /// Gives memory back to the allocator that the queues hardly use; each keeps up to 4 KiB of its buffer.
    pub fn trim(&mut self) {
        for queue in [&mut self.clear, &mut self.wire].into_iter().flatten() {
            queue.trim(TRIMMED);
        }
    }

    /// Says whether it owns no queue, not even an empty one.
    #[inline]
    pub fn has_no_queue(&self) -> bool {
        self.clear.is_none() && self.wire.is_none()
    }

    /// Ends the session as an error of its layer does: clear bytes that wait are never sealed, sealed ones still leave.
    pub fn give_up(&mut self) {
        self.phase = Phase::Finished;
        self.failed = true;
        self.open = false;
    }

    /// Seals everything that waits, however much it is: what follows on the wire is another layer's. To be called
    /// before [`Session::change`].
    ///
    /// # Errors
    /// [`LayerError::Misuse`] in a handshake and after one of both sides has ended; what the layer returned, and then the
    /// session is finished.
    pub fn prepare_change(&mut self, pool: &mut Pool) -> Result {
        if self.phase == Phase::Idle {
            return Ok(());
        }
        if self.phase != Phase::Open || self.closing || self.ended {
            return Err(LayerError::Misuse("only an open session takes another layer").into());
        }
        if !self.direct() && self.clear.is_some() {
            let sealed = self.seal(pool, usize::MAX);
            self.settle(sealed)?;
        }
        give_empty(&mut self.clear, pool);
        Ok(())
    }

    /// Puts another layer in the place of this one: a session that is to be started. Its handshake follows what waits for
    /// the wire. Clear bytes that the old layer has not sealed are sealed by the new one.
    pub fn change<M: Layer>(self, make: impl FnOnce(L) -> M) -> Session<M> {
        let Session { layer, clear, wire, .. } = self;
        Session { clear, wire, ..Session::new(make(layer)) }
    }

    /// Calls the layer with the wire's queue, lent if there is none.
    fn call<T>(
        &mut self,
        up: &mut Vec<u8>,
        pool: &mut Pool,
        call: impl FnOnce(&mut L, &mut Io<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut wire = self.wire.take().unwrap_or_else(|| pool.take_outgoing());
        let had = wire.len();
        let result = call(&mut self.layer, &mut Io { up, down: &mut wire, pool });
        self.spoke |= self.phase == Phase::Handshake && wire.len() > had;
        self.wire = Some(wire);
        give_empty(&mut self.wire, pool);
        result
    }

    /// Checks what is left after a step, and notes what the step changed.
    fn judge(&mut self, step: Step, given: usize, pool: &mut Pool) -> Result<Step> {
        let was_direct = self.direct();
        self.open_if_ready(pool);
        if step.next == Next::End {
            if !self.open {
                // An end inside the handshake, however well it was said, leaves a connection that never was.
                return Err(Truncated.into());
            }
            self.ended = true;
        }
        let left = given - step.used;
        if step.next == Next::Wait && left > 0 && self.direct() != was_direct {
            // What follows the last message of a transparent layer passes beside it.
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
        self.phase = Phase::Open;
        self.open = true;
        if !self.direct() {
            return;
        }
        // What waited for the handshake follows its last flight.
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

    /// Seals records until so many bytes wait for the wire, or nothing is left.
    fn seal(&mut self, pool: &mut Pool, wire_max: usize) -> Result {
        let Some(mut clear) = self.clear.take() else { return Ok(()) };
        let sealed = self.call(&mut Vec::new(), pool, |layer, io| {
            while !clear.is_empty() && io.down.len() < wire_max {
                seal_front(layer, &mut clear, io)?;
            }
            Ok(())
        });
        self.clear = Some(clear);
        sealed
    }

    /// Passes a result of the layer on, after an error with the session finished.
    fn settle<T>(&mut self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            self.give_up();
        }
        result
    }
}

/// What a queue that is trimmed keeps of its buffer.
const TRIMMED: usize = 4 << 10;

/// Gives an empty queue back to the pool.
fn give_empty(queue: &mut Option<Box<Outgoing>>, pool: &mut Pool) {
    if let Some(empty) = queue.take_if(|queue| queue.is_empty()) {
        pool.give_outgoing(empty);
    }
}
