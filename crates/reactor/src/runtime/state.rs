//! The state of the loop: the tables that handlers change through a context, but never while they are
//! borrowed.
//!
//! Invariants. No borrow of a table lives while a handler runs: each step looks its resource up again by key.
//! Code that changes a resource marks it dirty. The end of the turn then writes its output, and passes its
//! wishes to the engine. Code that ends a resource queues its `closed`, and the runtime frees nothing before
//! it has called that.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use session::Pool;

use crate::{
    address::Address,
    clock::Time,
    engine::{Ending, Engine},
    error::{Closed, Error, Failure},
    file::Files,
    guard,
    id::Key,
    log::{Lines, short},
    message::{Inbox, Mailbox},
    metrics::Counters,
    panics::{Blame, During},
    resource::Losses,
    runtime::{
        TimerId,
        budget::{Bytes, Handlers},
        dispatch::{Deliver, Observer},
        faults::Faults,
        limits::Limits,
        registry::{Registry, Standing},
        timers::{TimerKey, Wheel},
        turn_ends::TurnEnds,
        typed_queues::Lanes,
    },
    sync::{Arc, atomic::Ordering},
    threads::Jobs,
};

/// The size of the buffer lent to a resource's step.
const SCRATCH: usize = 64 << 10;

/// The most errors of a service whose texts the receipt keeps.
const ERRORS_KEPT: usize = 8;
/// The most bytes of such a text.
const ERROR_BYTES_MAX: usize = 1024;
/// Limits of the empty buffers kept for reuse: this part of the bytes, and a number.
const POOL_SHARE: usize = 16;
const POOL_MAX: usize = 8 << 20;

/// Keeps the first few texts, each cut to a limit.
fn keep_first(kept: &mut Vec<String>, text: &str) {
    if kept.len() < ERRORS_KEPT {
        let end = (0..=ERROR_BYTES_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
        kept.push(text[..end.unwrap_or(0)].to_owned());
    }
}

/// The owner of an expired timer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Due {
    Timer {
        lane: u32,
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
pub(crate) struct Item {
    /// `None` if the item is complete, or if its completion does not depend on the peer.
    pub(crate) by: Option<Time>,
    /// The timer that checks the deadline. It may be set while no item has begun.
    pub(crate) timer: TimerKey,
}

/// A duration that starts at the end of this turn.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fresh {
    Timer { lane: u32, index: u32, generation: u32, after: Duration },
    Deadline(Key),
}

/// The record of a service, for its receipt.
#[derive(Default)]
pub(crate) struct Record {
    /// The type of the service.
    pub(crate) name: &'static str,
    pub(crate) faults: u64,
    pub(crate) first_faults: Vec<String>,
    pub(crate) closed: u64,
    pub(crate) cut: u64,
    pub(crate) bytes_dropped: u64,
    /// Bytes of released streams that were dropped later, in any thread.
    pub(crate) losses: Option<Losses>,
    pub(crate) jobs: u32,
    /// Errors that no code took, and the texts of the first of them.
    pub(crate) errors: u64,
    pub(crate) first_errors: Vec<String>,
    pub(crate) panics: u64,
    pub(crate) first_panics: Vec<String>,
    /// The number of restarts.
    pub(crate) restarts: u64,
    /// The number of the service's present life. The runtime discards requests of an earlier life.
    pub(crate) life: u32,
}

impl Record {
    /// Returns the bytes of the service's streams that have not left, so far.
    pub(crate) fn bytes_dropped(&self) -> u64 {
        let released = self.losses.as_ref().map_or(0, |losses| losses.load(Ordering::Relaxed));
        self.bytes_dropped + released
    }
}

/// The tables of the loop.
pub struct Core {
    pub(crate) engine: Box<dyn Engine>,
    pub(crate) registry: Registry,
    pub(crate) pool: Pool,
    pub(crate) timers: Wheel<Due>,
    pub(crate) lanes: Lanes,
    pub(crate) mailbox: Arc<Mailbox<Deliver>>,
    pub(crate) jobs: Jobs,
    /// Jobs whose service ended before them.
    pub(crate) jobs_abandoned: u32,
    pub(crate) files: Files,
    /// Resources to flush at the end of the turn. Each slot is on the list once.
    pub(crate) dirty: Vec<Key>,
    /// Resources to drive again in the next turn.
    pub(crate) again: Vec<Key>,
    /// Live resources that do not by themselves keep the runtime going.
    pub(crate) background: BTreeSet<Key>,
    /// Emptied lists, kept for their memory.
    flushing: Vec<Key>,
    starting: Vec<Fresh>,
    /// Resources that have ended, and whose `closed` has not been called yet.
    pub(crate) ended: Vec<(Key, Closed)>,
    pub(crate) fresh: Vec<Fresh>,
    /// Resources with an internal deadline that is not in the wheel yet.
    unarmed: Vec<Key>,
    /// The earliest of these.
    pub(crate) unarmed_next: Time,
    /// Resources whose deadline has passed. They end in the next turn unless a read moves it.
    pub(crate) lapsed: Vec<Key>,
    /// The messages that services receive when the deadline of a resource passes.
    pub(crate) last_words: HashMap<Key, TimerId>,
    pub(crate) listeners: Vec<Key>,
    /// The addresses with which listeners were requested.
    pub(crate) asked: HashMap<Key, Address>,
    /// Services that panicked and will restart soon.
    pub(crate) remaking: Vec<u16>,
    /// Listeners that rest because descriptors ran out.
    pub(crate) starved: Vec<Key>,
    pub(crate) couples: HashMap<Key, Key>,
    /// Streams whose peer has recently begun an item.
    pub(crate) items: HashMap<Key, Item>,
    pub(crate) budget: Bytes,
    pub(crate) handlers: Handlers,
    pub(crate) now: Time,
    pub(crate) random: u64,
    pub(crate) counters: Counters,
    /// Counts activity that has no other counter: expired timers and deadlines, reported ends, refused
    /// commands.
    pub(crate) steps: u64,
    pub(crate) records: Vec<Record>,
    /// By service: whether the runtime can still call it.
    pub(crate) alive: Vec<bool>,
    /// Faults found while their service was being called.
    pub(crate) faults_due: Faults,
    /// Resources that close because their handler returned an error: each with its name and the error's text.
    pub(crate) refused: HashMap<Key, String>,
    lines: Lines,
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

impl Core {
    pub(crate) fn new(mut engine: Box<dyn Engine>, runtime: u16, limits: Limits) -> (Core, Inbox<Deliver>) {
        let (mailbox, inbox) = Mailbox::new(limits.commands, engine.waker());
        let random = engine.entropy();
        // Memory that the engine keeps for all streams counts for no single one.
        let bytes = limits.bytes.saturating_sub(engine.memory());
        let pool_bytes = (bytes / POOL_SHARE).min(POOL_MAX);
        let now = engine.now();
        let core = Core {
            registry: Registry::new(runtime, limits.resources),
            pool: Pool::with_limit(pool_bytes),
            // Deadlines of resources never fail, because they have room beside the users' timers.
            timers: Wheel::new(
                limits
                    .timers
                    .saturating_add(limits.resources.saturating_mul(2))
                    .saturating_add(1 + usize::from(u16::MAX)),
            ),
            lanes: Lanes::new(limits.messages, limits.timers),
            mailbox,
            jobs: Jobs::new(limits.job_threads, limits.jobs),
            jobs_abandoned: 0,
            files: Files::new(&limits),
            dirty: Vec::new(),
            again: Vec::new(),
            background: BTreeSet::new(),
            flushing: Vec::new(),
            starting: Vec::new(),
            ended: Vec::new(),
            fresh: Vec::new(),
            unarmed: Vec::new(),
            unarmed_next: Time::NEVER,
            lapsed: Vec::new(),
            last_words: HashMap::new(),
            listeners: Vec::new(),
            asked: HashMap::new(),
            remaking: Vec::new(),
            starved: Vec::new(),
            couples: HashMap::new(),
            items: HashMap::new(),
            budget: Bytes::new(bytes - pool_bytes),
            handlers: Handlers::new(now),
            now,
            random,
            counters: Counters::default(),
            steps: 0,
            records: Vec::new(),
            alive: Vec::new(),
            faults_due: Faults::default(),
            refused: HashMap::new(),
            lines: Lines::new(now),
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

    // Marks and ends.

    /// Puts a resource on the list to flush, once.
    #[inline]
    pub(crate) fn mark(&mut self, key: Key) {
        if let Some(slot) = self.registry.live(key)
            && !std::mem::replace(&mut slot.dirty, true)
        {
            self.dirty.push(key);
        }
    }

    /// Puts a resource on the list to drive again in the next turn, once.
    pub(crate) fn drive_again(&mut self, key: Key) {
        if let Some(slot) = self.registry.live(key)
            && !std::mem::replace(&mut slot.again, true)
        {
            self.again.push(key);
        }
    }

    /// Holds or resumes the stream that is coupled to this one, and marks it, so that its wishes are checked.
    pub(crate) fn hold_partner(&mut self, key: Key, held: bool) {
        let Some(partner) = self.couples.get(&key).copied() else { return };
        let Some(slot) = self.registry.live(partner) else { return };
        let table = slot.table;
        (table.hold)(self, partner, held);
        self.mark(partner);
    }

    /// Ends the write side of a stream after what is queued.
    pub(crate) fn finish(&mut self, key: Key) {
        if let Some(slot) = self.registry.live(key) {
            let table = slot.table;
            (table.finish)(self, key);
        }
    }

    /// Begins a graceful close of a resource.
    pub(crate) fn close(&mut self, key: Key, why: Closed) {
        self.drop_last_words(key);
        if let Some(slot) = self.registry.live(key) {
            let table = slot.table;
            (table.close)(self, key, why);
        }
    }

    /// Ends a resource now; `closed` follows at the end of the turn.
    pub(crate) fn end(&mut self, key: Key, why: Closed, how: Ending) {
        let Some(slot) = self.registry.live(key) else { return };
        let (table, service) = (slot.table, slot.service);
        let why = match table.defer {
            None => why,
            Some(defer) => match defer(self, key, why) {
                Some(why) => why,
                None => return,
            },
        };
        let is_cut = matches!(why, Closed::Stopped);
        let why = match (table.noted)(self, key, &why) {
            Some(noted) => noted,
            None => why,
        };
        let Some(timer) = self.registry.live(key).map(|slot| slot.timer) else { return };
        self.timers.cancel(timer);
        (table.leave)(self, key, how);
        self.files.forget(key);
        self.registry.end(key);
        self.count_end(service, &why, is_cut);
        if table.listener {
            self.listeners.retain(|listener| *listener != key);
            self.asked.remove(&key);
        }
        if let Some(other) = self.couples.remove(&key) {
            self.couples.remove(&other);
            let passed = match why {
                Closed::End => Closed::End,
                _ if why.is_clean() => Closed::Done,
                _ => Closed::Partner,
            };
            self.close(other, passed);
        }
        self.background.remove(&key);
        self.drop_last_words(key);
        self.ended.push((key, why));
        self.feed_listeners();
    }

    /// Ends a resource because of a system error.
    pub(crate) fn fail(&mut self, key: Key, operation: &'static str, error: std::io::Error) {
        let error = Error::os(operation, self.name(key), error);
        self.end(key, Closed::Failed(error), Ending::Orderly);
    }

    /// Closes a resource because its handler returned an error. Keeps the text of the error, in case the
    /// service does not handle it in `closed` either.
    #[cold]
    pub(crate) fn refuse(&mut self, key: Key, failure: Failure) {
        let text = format!("{}: {}", self.name(key), guard::text(&failure));
        self.refused.insert(key, text);
        self.close(key, Closed::Refused(failure));
    }

    /// Returns the name of a live resource: its peer's address, a listener's own address, or else its type.
    pub(crate) fn name(&self, key: Key) -> String {
        let Some(slot) = self.registry.peek(key) else { return format!("{key:?}") };
        let address = if slot.table.listener { self.engine.local(key) } else { self.engine.peer(key) };
        match address {
            Ok(address) if address != Address::Unnamed => address.to_string(),
            _ => format!("{} {key:?}", short((slot.table.name)())),
        }
    }

    /// Records an error of a service that no code took: in the receipt, and as a line on standard error.
    #[cold]
    pub(crate) fn note_error(&mut self, service: u16, text: String) {
        self.complain(service, &text);
        self.record_error(service, text);
    }

    /// Counts an error of a service that its caller receives, and keeps it for the receipt.
    pub(crate) fn record_error(&mut self, service: u16, text: String) {
        let Some(record) = self.records.get_mut(service as usize) else { return };
        record.errors += 1;
        keep_first(&mut record.first_errors, &text);
    }

    /// Counts a panic of a service, and keeps its text for the receipt.
    pub(crate) fn record_panic(&mut self, service: u16, text: &str) {
        let Some(record) = self.records.get_mut(service as usize) else { return };
        record.panics += 1;
        keep_first(&mut record.first_panics, text);
    }

    /// Writes a line about a service to standard error, unless there were too many.
    #[cold]
    pub(crate) fn complain(&mut self, service: u16, text: &str) {
        let name = self.records.get(service as usize).map_or("", |record| record.name);
        if crate::log::error(name, text) {
            return;
        }
        let line = self.lines.line(self.now, &format!("service {}: {text}", short(name)));
        if line.is_some_and(|line| !self.engine.print_error(&line)) {
            self.lines.keep_back();
        }
    }

    /// Writes the number of lines that were left out since the last one.
    pub(crate) fn end_complaints(&mut self) {
        if let Some(line) = self.lines.last() {
            self.engine.print_error(&line);
        }
    }

    /// Frees the slot of a resource that has ended, after its `closed`.
    pub(crate) fn forget(&mut self, key: Key) {
        self.registry.free(key);
        if !self.refused.is_empty() {
            self.refused.remove(&key);
        }
    }

    fn count_end(&mut self, service: u16, why: &Closed, is_cut: bool) {
        match why {
            Closed::Failed(_) => self.counters.errors_os += 1,
            Closed::Refused(_) | Closed::Truncated(_) | Closed::Misuse(_) => {
                self.counters.errors_refused += 1
            }
            Closed::Overflow
            | Closed::Unread
            | Closed::OverBudget
            | Closed::Stalled
            | Closed::Deadline
            | Closed::TimedOut(_) => self.counters.errors_limit += 1,
            _ => (),
        }
        if let Some(record) = self.records.get_mut(service as usize) {
            record.closed += 1;
            record.cut += is_cut as u64;
        }
    }

    /// Lets listeners that ran out of descriptors try again, because one was freed.
    fn feed_listeners(&mut self) {
        for key in std::mem::take(&mut self.starved) {
            self.mark(key);
        }
    }

    pub(crate) fn full_of_resources(&self) -> Error {
        Error::Full { what: "resources", limit: self.registry.limit() }
    }

    /// Takes the buffer that is lent to a step. `self.scratch = Some(..)` gives it back.
    pub(crate) fn take_scratch(&mut self) -> Box<[u8]> {
        self.scratch.take().unwrap_or_else(|| vec![0; SCRATCH].into_boxed_slice())
    }

    // Time.

    /// Sets the internal deadline of a resource, counted from this turn's time.
    pub(crate) fn set_guard(&mut self, key: Key, after: Option<Duration>) {
        self.set_guard_at(key, after.map_or(Time::NEVER, |after| self.now + after));
    }

    /// Sets the internal deadline of a resource to this moment.
    pub(crate) fn set_guard_at(&mut self, key: Key, at: Time) {
        let Some(slot) = self.registry.live(key) else { return };
        if slot.guard != at {
            slot.guard = at;
            self.arm(key);
        }
    }

    /// Sets the internal deadline for something that is likely to finish by the next turn. The deadline
    /// enters the wheel only if it does not.
    pub(crate) fn set_guard_later(&mut self, key: Key, after: Duration) {
        let at = self.now + after;
        let Some(slot) = self.registry.live(key) else { return };
        slot.guard = at;
        self.unarmed.push(key);
        self.unarmed_next = self.unarmed_next.min(at);
    }

    /// Arms the deadlines of resources that have not finished.
    pub(crate) fn arm_unarmed(&mut self) {
        if self.unarmed.is_empty() {
            return;
        }
        self.unarmed_next = Time::NEVER;
        let mut unarmed = std::mem::take(&mut self.unarmed);
        unarmed.drain(..).for_each(|key| self.arm(key));
        self.unarmed = unarmed;
    }

    /// Sets the service's deadline of a resource, counted from the end of this turn.
    pub(crate) fn set_deadline(&mut self, key: Key, after: Option<Duration>) {
        let Some(slot) = self.registry.live(key) else { return };
        let Some(after) = after else {
            self.drop_last_words(key);
            let Some(slot) = self.registry.live(key) else { return };
            (slot.deadline, slot.standing) = (Time::NEVER, Standing::Set);
            // While the deadline had lapsed, no timer was armed.
            return self.arm(key);
        };
        slot.deadline = Time::ZERO + after;
        if std::mem::replace(&mut slot.standing, Standing::Fresh) != Standing::Fresh {
            self.fresh.push(Fresh::Deadline(key));
        }
    }

    /// Returns the rest of the service's deadline of a resource.
    pub(crate) fn deadline_left(&self, key: Key) -> Option<Duration> {
        let slot = self.registry.peek(key)?;
        match slot.standing {
            Standing::Set if slot.deadline == Time::NEVER => None,
            Standing::Set => Some(slot.deadline.since(self.now)),
            Standing::Fresh => Some(slot.deadline.since(Time::ZERO)),
            Standing::Lapsed | Standing::Told => Some(Duration::ZERO),
        }
    }

    /// Arms the wheel for the earlier of both deadlines. A deadline that moved later costs nothing: its timer
    /// fires early, and is armed again.
    pub(crate) fn arm(&mut self, key: Key) {
        let Some(slot) = self.registry.live(key) else { return };
        let deadline = if slot.standing == Standing::Set { slot.deadline } else { Time::NEVER };
        let at = deadline.min(slot.guard);
        if at == Time::NEVER {
            return;
        }
        let later = self.timers.deadline(slot.timer).is_none_or(|armed| armed > at);
        if later && !self.timers.reset(slot.timer, at) {
            slot.timer = self.timers.set(at, Due::Resource(key)).unwrap_or(TimerKey::NONE);
        }
    }

    /// Handles the timer of a resource. One of its deadlines may have passed.
    pub(crate) fn resource_due(&mut self, key: Key) {
        let now = self.now;
        let Some(slot) = self.registry.live(key) else { return };
        slot.timer = TimerKey::NONE;
        if slot.guard <= now {
            slot.guard = Time::NEVER;
            let table = slot.table;
            (table.expired)(self, key);
        } else if slot.standing == Standing::Set && slot.deadline <= now {
            // A slow handler elsewhere must not kill a healthy peer, so the engine tries one more read first.
            slot.standing = Standing::Lapsed;
            self.lapsed.push(key);
            self.engine.probe(key);
        }
        self.arm(key);
    }

    /// Handles the timer of an item, which may have been unfinished for too long.
    pub(crate) fn item_due(&mut self, key: Key) {
        if let Some(slot) = self.registry.live(key) {
            let table = slot.table;
            (table.item_due)(self, key);
        }
    }

    /// Starts the timers and deadlines that were set in this turn. They count from `end`, the only clock read
    /// at its end.
    pub(crate) fn start_fresh(&mut self, end: Time) {
        let mut starting = std::mem::replace(&mut self.fresh, std::mem::take(&mut self.starting));
        for fresh in starting.drain(..) {
            match fresh {
                Fresh::Timer { lane, index, generation, after } => {
                    if self.lanes.is_set(lane, index, generation)
                        && let Ok(key) = self.timers.set(end + after, Due::Timer { lane, index })
                    {
                        self.lanes.armed(lane, index, key);
                    }
                }
                Fresh::Deadline(key) => {
                    if let Some(slot) = self.registry.live(key)
                        && slot.standing == Standing::Fresh
                    {
                        slot.standing = Standing::Set;
                        slot.deadline = end + slot.deadline.since(Time::ZERO);
                        self.arm(key);
                    }
                }
            }
        }
        self.starting = starting;
    }

    #[cold]
    pub(super) fn spent(&mut self) {
        if self.handlers.is_over(self.engine.now()) {
            self.flush();
        }
    }

    /// Writes every stream with queued output, once, and begins the requested file operations.
    pub(crate) fn flush(&mut self) {
        if self.budget.has_begun() {
            self.begin_shortage();
        }
        // Resources that this flush marks belong to the next one.
        let mut dirty = std::mem::replace(&mut self.dirty, std::mem::take(&mut self.flushing));
        let mut at = 0;
        while at < dirty.len() {
            // A panic of a layer or a resource costs only its service. The other streams are still written.
            let written = guard::call(|| {
                while let Some(key) = dirty.get(at) {
                    at += 1;
                    self.flush_one(*key);
                }
            });
            if let Err(text) = written
                && let key = dirty[at - 1]
                && let Some(service) = self.registry.service_of(key)
            {
                self.note_panic(service, text, Blame::on(During::Output, key));
            }
        }
        dirty.clear();
        self.flushing = dirty;
        self.give_files();
        // Layers may have made more bytes than the budget admitted.
        self.make_room();
        if self.budget.is_relieved() {
            self.wake_resting();
        }
    }

    /// Wakes resources that rest for want of bytes, so that they check again.
    pub(crate) fn wake_resting(&mut self) {
        for key in self.budget.take_resting() {
            if let Some(slot) = self.registry.live(key) {
                slot.resting = false;
            }
            self.mark(key);
        }
        self.mark_listeners();
    }

    pub(crate) fn mark_listeners(&mut self) {
        for index in 0..self.listeners.len() {
            self.mark(self.listeners[index]);
        }
    }

    #[inline]
    fn flush_one(&mut self, key: Key) {
        if let Some(slot) = self.registry.live(key) {
            slot.dirty = false;
            let table = slot.table;
            (table.flush)(self, key);
        }
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
