//! The state of the loop: the tables that handlers change through a context, but never while they are
//! borrowed.
//!
//! Invariants. No borrow of a table lives while a handler runs: each step looks its resource up again by key.
//! Code that changes a resource marks it dirty. The end of the turn then writes its output, and passes its
//! wishes to the engine. Code that ends a resource queues its `closed`, and the runtime frees nothing before
//! it has called that.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    time::Duration,
};

use session::Pool;

use crate::{
    address::Address,
    clock::Time,
    engine::Engine,
    error::Closed,
    file::FilesInFlight,
    id::Key,
    log::LineLimit,
    message::{Inbox, Mailbox},
    metrics::Counters,
    panics::Blame,
    runtime::{
        ServiceRecord, TimerId,
        budget::{ByteBudget, HandlerBudget},
        dispatch::{DeliverFn, Observer},
        faults::Faults,
        limits::Limits,
        registry::Registry,
        timers::{TimerKey, Wheel},
        turn_ends::TurnEnds,
        typed_queues::TypedQueues,
    },
    sync::Arc,
    threads::Jobs,
};

/// The size of the buffer lent to a resource's step.
const SCRATCH: usize = 64 << 10;

/// Limits of the empty buffers kept for reuse: this part of the bytes, and a number.
const POOL_SHARE: usize = 16;
const POOL_MAX: usize = 8 << 20;

/// The owner of an expired timer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Due {
    Timer {
        queue: u32,
        index: u32,
    },
    Resource(Key),
    /// A peer may have left an item unfinished for too long.
    Item(Key),
    /// The end of a period in a shortage of bytes.
    Shortage,
    /// The restart of a service that panicked.
    Restart(u16),
}

/// The deadline of an item that a peer has begun.
#[derive(Default)]
pub(crate) struct ItemDeadline {
    /// `None` if the item is complete, or if its completion does not depend on the peer.
    pub(crate) by: Option<Time>,
    /// The timer that checks the deadline. It may be set while no item has begun.
    pub(crate) timer: TimerKey,
}

/// A duration that starts at the end of this turn.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fresh {
    Timer { queue: u32, index: u32, generation: u32, after: Duration },
    Deadline(Key),
}

/// The tables of the loop.
pub struct LoopState {
    pub(crate) engine: Box<dyn Engine>,
    pub(crate) registry: Registry,
    pub(crate) pool: Pool,
    pub(crate) timers: Wheel<Due>,
    pub(crate) typed_queues: TypedQueues,
    pub(crate) mailbox: Arc<Mailbox<DeliverFn>>,
    pub(crate) jobs: Jobs,
    /// Jobs whose service ended before them.
    pub(crate) jobs_abandoned: u32,
    pub(crate) files: FilesInFlight,
    /// Resources to flush at the end of the turn. Each slot is on the list once.
    pub(crate) dirty: Vec<Key>,
    /// Resources to drive again in the next turn.
    pub(crate) again: Vec<Key>,
    /// Live resources that do not by themselves keep the runtime going.
    pub(crate) background: BTreeSet<Key>,
    /// Emptied lists, kept for their memory.
    pub(super) flushing: Vec<Key>,
    pub(super) starting: Vec<Fresh>,
    /// Resources that have ended, and whose `closed` has not been called yet.
    pub(crate) ended: Vec<(Key, Closed)>,
    pub(crate) fresh: Vec<Fresh>,
    /// Resources with an internal deadline that is not in the wheel yet.
    pub(super) unarmed: Vec<Key>,
    /// The earliest of these.
    pub(crate) unarmed_next: Time,
    /// Resources whose deadline has passed. They end in the next turn unless a read moves it.
    pub(crate) in_grace: Vec<Key>,
    /// The messages that services receive when the deadline of a resource passes.
    pub(crate) last_words: HashMap<Key, TimerId>,
    pub(crate) listeners: Vec<Key>,
    /// The addresses with which listeners were requested.
    pub(crate) asked: HashMap<Key, Address>,
    /// Services that panicked and will restart soon.
    pub(crate) remaking: Vec<u16>,
    /// Listeners that rest because descriptors ran out.
    pub(crate) starved: Vec<Key>,
    /// Both ways: two paired streams, or a stream and its transfer.
    pub(crate) partners: HashMap<Key, Key>,
    /// Streams whose peer has recently begun an item.
    pub(crate) items: HashMap<Key, ItemDeadline>,
    pub(crate) budget: ByteBudget,
    pub(crate) handlers: HandlerBudget,
    pub(crate) now: Time,
    pub(crate) random: u64,
    pub(crate) counters: Counters,
    /// Counts activity that has no other counter: expired timers and deadlines, reported ends, refused
    /// commands.
    pub(crate) steps: u64,
    pub(crate) records: Vec<ServiceRecord>,
    /// By service: whether the runtime can still call it.
    pub(crate) alive: Vec<bool>,
    /// Faults found while their service was being called.
    pub(crate) faults_due: Faults,
    /// Resources that close because their handler returned an error: each with its name and the error's text.
    pub(crate) refused: HashMap<Key, String>,
    pub(super) lines: LineLimit,
    /// The services that get a call at the end of a turn.
    pub(crate) turn_ends: TurnEnds,
    /// Services whose code panicked outside of a call of the service, and the text of the panic.
    pub(crate) panics_due: Vec<(u16, String, Blame)>,
    /// Resources whose own code panicked while a handler used it, perhaps the handler of another resource.
    pub(crate) broken: Vec<Key>,
    /// Set if the unwinding panic comes from a handler, and not from its resource's own code.
    pub(crate) has_handler_panicked: bool,
    /// The accepted connection that is being reported now, if any.
    pub(crate) opening: Key,
    pub(crate) limits: Limits,
    pub(crate) scratch: Option<Box<[u8]>>,
    /// The service that is being called.
    pub(crate) calling: u16,
    /// The stream whose input is being handled, or none.
    pub(crate) input: Key,
    pub(crate) stopping: bool,
    /// The observer of each call of a handler.
    pub(crate) observer: Option<Observer>,
}

impl fmt::Debug for LoopState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoopState").finish_non_exhaustive()
    }
}

impl LoopState {
    pub(crate) fn new(
        mut engine: Box<dyn Engine>,
        runtime: u16,
        limits: Limits,
    ) -> (LoopState, Inbox<DeliverFn>) {
        let (mailbox, inbox) = Mailbox::new(limits.commands, engine.waker());
        let random = engine.host_mut().entropy();
        // Memory that the engine keeps for all streams counts for no single one.
        let bytes = limits.bytes.saturating_sub(engine.memory());
        let pool_bytes = (bytes / POOL_SHARE).min(POOL_MAX);
        let now = engine.host().now();
        let core = LoopState {
            registry: Registry::new(runtime, limits.resources),
            pool: Pool::with_limit(pool_bytes),
            // Deadlines of resources never fail, because they have room beside the users' timers.
            timers: Wheel::new(
                limits
                    .timers
                    .saturating_add(limits.resources.saturating_mul(2))
                    .saturating_add(1 + usize::from(u16::MAX)),
            ),
            typed_queues: TypedQueues::new(limits.messages, limits.timers),
            mailbox,
            jobs: Jobs::new(limits.job_threads, limits.jobs),
            jobs_abandoned: 0,
            files: FilesInFlight::new(&limits),
            dirty: Vec::new(),
            again: Vec::new(),
            background: BTreeSet::new(),
            flushing: Vec::new(),
            starting: Vec::new(),
            ended: Vec::new(),
            fresh: Vec::new(),
            unarmed: Vec::new(),
            unarmed_next: Time::NEVER,
            in_grace: Vec::new(),
            last_words: HashMap::new(),
            listeners: Vec::new(),
            asked: HashMap::new(),
            remaking: Vec::new(),
            starved: Vec::new(),
            partners: HashMap::new(),
            items: HashMap::new(),
            budget: ByteBudget::new(bytes - pool_bytes),
            handlers: HandlerBudget::new(now),
            now,
            random,
            counters: Counters::default(),
            steps: 0,
            records: Vec::new(),
            alive: Vec::new(),
            faults_due: Faults::default(),
            refused: HashMap::new(),
            lines: LineLimit::new(now),
            turn_ends: TurnEnds::default(),
            panics_due: Vec::new(),
            broken: Vec::new(),
            has_handler_panicked: false,
            opening: Key::NONE,
            scratch: None,
            calling: 0,
            input: Key::NONE,
            stopping: false,
            observer: None,
            engine,
            limits,
        };
        (core, inbox)
    }

    /// Takes the buffer that is lent to a step. `self.scratch = Some(..)` gives it back.
    pub(crate) fn take_scratch(&mut self) -> Box<[u8]> {
        self.scratch.take().unwrap_or_else(|| vec![0; SCRATCH].into_boxed_slice())
    }

    /// Advances SplitMix64 (Steele, Lea, Flood 2014): small, seedable, good enough for jitter and sampling.
    pub(crate) fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
