//! Commands from other threads to the services of one loop: bounded, in order, one wake per sleep.
//!
//! [`Mailbox`] is what the threads share, [`Inbox`] the loop's own end, [`Outside`] a counted handle to the first.
//!
//! * A command travels in the lane of its service and type, a `VecDeque` of just that type; `order` says which
//!   lane is next. So commands of one sender keep their order over all types, and none is boxed. Lanes keep
//!   their capacity, at most `limit` commands each: a steady stream of commands allocates nothing.
//! * [`Inbox::drain`] swaps the queued commands with the inbox's own, empty side, so the lock is held for a swap.
//!   What a budget left in the inbox comes first the next time.
//! * `limit` counts every command that was taken and not yet walked by [`Inbox::next`], on whichever side it is.
//! * The loop says that it goes to sleep, under the lock that guards the commands; the sender that finds it asleep
//!   clears the flag and wakes it after the lock is free. So whatever is sent after [`Inbox::sleep`] answered true is
//!   followed by a wake, and the next senders do without. The flag says nothing of who waits: with a
//!   foreign loop, call `sleep` at the end of each turn, and have the next turn run at once when it answers false.
//! * Stop is a number beside the commands, seen without the lock. It does not refuse commands: the loop first
//!   calls [`Mailbox::close`], then drains once more, so that each command is executed or refused.
//! * Dropping the inbox closes the mailbox and drops what was queued. A loop that panicked leaves no one waiting.

use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex, lock, thread};
use std::any::{Any, TypeId};
use std::collections::VecDeque;
use std::error::Error;
use std::task::Waker;
use std::{fmt, mem, ops};

/// Gives back the message that could not be sent, and says why.
///
/// ```
/// fn retry_later<M>(refused: reactor::Refused<M>) -> Option<M> {
///     match refused {
///         reactor::Refused::Full(message) => Some(message),
///         reactor::Refused::Gone(_) | reactor::Refused::TooLarge { .. } => None,
///     }
/// }
/// assert_eq!(retry_later(reactor::Refused::Full(7)), Some(7));
/// ```
pub enum Refused<M> {
    /// The queue is at its limit; there is room again when the service has taken some.
    Full(M),
    /// The service ended or the loop stopped; no message will be taken any more.
    Gone(M),
    /// It needs more than a limit allows at all, however long one waits: an operation on files only.
    TooLarge {
        /// What was refused.
        message: M,
        /// What the limit counts.
        what: &'static str,
        /// How much of it was asked for.
        asked: usize,
        /// The limit.
        limit: usize,
    },
}

impl<M> Refused<M> {
    /// Gives the message back, whatever the reason was.
    pub fn into_message(self) -> M {
        match self {
            Refused::Full(message) | Refused::Gone(message) | Refused::TooLarge { message, .. } => message,
        }
    }

    /// The same refusal of what the message is made of.
    pub(crate) fn map<T>(self, take: impl FnOnce(M) -> T) -> Refused<T> {
        match self {
            Refused::Full(message) => Refused::Full(take(message)),
            Refused::Gone(message) => Refused::Gone(take(message)),
            Refused::TooLarge { message, what, asked, limit } => {
                Refused::TooLarge { message: take(message), what, asked, limit }
            }
        }
    }
}

impl<M> fmt::Debug for Refused<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Full(_) => f.write_str("Full(..)"),
            Refused::Gone(_) => f.write_str("Gone(..)"),
            Refused::TooLarge { asked, limit, .. } => write!(f, "TooLarge({asked} of {limit})"),
        }
    }
}

impl<M> fmt::Display for Refused<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Full(_) => f.write_str("too much waits already"),
            Refused::Gone(_) => f.write_str("the service has ended"),
            Refused::TooLarge { what, asked, limit, .. } => {
                write!(f, "it needs {asked}, and the limit is {limit} {what}")
            }
        }
    }
}

impl<M> Error for Refused<M> {}

/// Carries commands to one loop; shared by all threads that send.
///
/// `D` is what the loop needs to deliver one command of a lane, in practice a function pointer.
pub(crate) struct Mailbox<D> {
    shared: Mutex<Shared<D>>,
    /// Whether the next sender has to wake the loop. Set under the lock; it may be cleared without.
    asleep: AtomicBool,
    /// Whether commands are queued. Changes under the lock only.
    filled: AtomicBool,
    grace: AtomicU64,
    controllers: AtomicUsize,
    /// How many [`Held`] live.
    holds: AtomicUsize,
    /// How many commands the loop has walked, modulo the range. Only the loop writes.
    walked: Line<AtomicUsize>,
    waker: Waker,
    loop_thread: thread::ThreadId,
    limit: usize,
}

impl<D: Copy + Send + 'static> Mailbox<D> {
    /// Makes a mailbox that holds at most `limit` commands, together with the end of the calling thread's loop.
    pub(crate) fn new(limit: usize, waker: Waker) -> (Arc<Self>, Inbox<D>) {
        let mailbox = Arc::new(Mailbox {
            shared: Mutex::new(Shared {
                commands: Commands::new(),
                taken: 0,
                walked: 0,
                ended: Vec::new(),
                closed: false,
                news: false,
            }),
            asleep: AtomicBool::new(false),
            filled: AtomicBool::new(false),
            grace: AtomicU64::new(NEVER),
            controllers: AtomicUsize::new(0),
            holds: AtomicUsize::new(0),
            walked: Line(AtomicUsize::new(0)),
            waker,
            loop_thread: thread::current().id(),
            limit,
        });
        (mailbox.clone(), Inbox { mailbox, commands: Commands::new(), walked: 0 })
    }

    /// Queues a command for a service and wakes the loop if it sleeps.
    ///
    /// The first `deliver` of a service and message type serves all later ones of the same two.
    ///
    /// # Errors
    /// [`Refused::Gone`] when the service ended or the mailbox is closed, else [`Refused::Full`] at the limit.
    pub(crate) fn send<M: Send + 'static>(
        &self,
        service: u16,
        message: M,
        deliver: D,
    ) -> Result<(), Refused<M>> {
        self.send_within(self.limit, service, message, deliver)
    }

    /// Queues what room was reserved for by another limit: the result of a job, whose number is bounded.
    ///
    /// # Errors
    /// [`Refused::Gone`] when the service ended or the mailbox is closed.
    pub(crate) fn send_reserved<M: Send + 'static>(
        &self,
        service: u16,
        message: M,
        deliver: D,
    ) -> Result<(), Refused<M>> {
        self.send_within(usize::MAX, service, message, deliver)
    }

    fn send_within<M: Send + 'static>(
        &self,
        limit: usize,
        service: u16,
        message: M,
        deliver: D,
    ) -> Result<(), Refused<M>> {
        let mut shared = lock(&self.shared);
        if shared.closed || shared.has_ended(service) {
            return Err(Refused::Gone(message));
        }
        if shared.taken.wrapping_sub(shared.walked) >= limit {
            // Asked only here, so that a sender below the limit leaves the loop's cache line alone.
            shared.walked = self.walked.0.load(Ordering::Acquire);
            if shared.taken.wrapping_sub(shared.walked) >= limit {
                return Err(Refused::Full(message));
            }
        }
        shared.taken = shared.taken.wrapping_add(1);
        if shared.commands.push(service, message, deliver) == 1 {
            self.filled.store(true, Ordering::Release);
        }
        let wake = self.rouse();
        drop(shared);
        if wake {
            self.waker.wake_by_ref();
        }
        Ok(())
    }

    /// Refuses every later command. What is queued stays and is still to be executed.
    pub(crate) fn close(&self) {
        lock(&self.shared).closed = true;
    }

    /// Asks the loop to stop within this grace, in nanoseconds from when it sees it, and wakes it.
    ///
    /// The shortest of several is kept. A span and not a moment: only the loop's engine knows its clock.
    pub(crate) fn stop(&self, grace: u64) {
        self.grace.fetch_min(grace.min(NEVER - 1), Ordering::AcqRel);
        self.announce();
    }

    /// Returns the grace within which the loop was asked to stop, if it was. One load.
    pub(crate) fn grace(&self) -> Option<u64> {
        let grace = self.grace.load(Ordering::Acquire);
        (grace != NEVER).then_some(grace)
    }

    /// Counts the [`Outside`] handles. When it is 0, all that was sent through them is seen by [`Inbox::is_empty`].
    pub(crate) fn controllers(&self) -> usize {
        self.controllers.load(Ordering::Acquire)
    }

    /// Counts the [`Held`] that live.
    pub(crate) fn holds(&self) -> usize {
        self.holds.load(Ordering::Acquire)
    }

    /// Returns the thread of the loop: the one that made the mailbox.
    pub(crate) fn loop_thread(&self) -> thread::ThreadId {
        self.loop_thread
    }

    /// Tells the loop of what is not a command: by a wake if it sleeps, else by refusing its next sleep.
    pub(crate) fn announce(&self) {
        let mut shared = lock(&self.shared);
        let wake = self.rouse();
        shared.news |= !wake;
        drop(shared);
        if wake {
            self.waker.wake_by_ref();
        }
    }

    /// Clears the flag and returns whether it was set; the lock is held. Relaxed, as the lock orders it after `sleep`.
    fn rouse(&self) -> bool {
        let asleep = self.asleep.load(Ordering::Relaxed);
        if asleep {
            self.asleep.store(false, Ordering::Relaxed);
        }
        asleep
    }
}

/// The loop's own end of a [`Mailbox`]: takes the commands and says when the loop sleeps.
pub(crate) struct Inbox<D: Copy + Send + 'static> {
    mailbox: Arc<Mailbox<D>>,
    commands: Commands<D>,
    walked: usize,
}

impl<D: Copy + Send + 'static> Inbox<D> {
    /// Returns the shared end.
    #[cfg(all(test, loom))]
    pub(crate) fn mailbox(&self) -> &Arc<Mailbox<D>> {
        &self.mailbox
    }

    /// Takes over all queued commands, unless some taken earlier were not walked yet; returns how many are to walk.
    pub(crate) fn drain(&mut self) -> usize {
        if self.commands.order.is_empty() && self.mailbox.filled.load(Ordering::Acquire) {
            let mut shared = lock(&self.mailbox.shared);
            mem::swap(&mut shared.commands, &mut self.commands);
            self.mailbox.filled.store(false, Ordering::Release);
        }
        self.commands.order.len()
    }

    /// Walks to the next command: its service, the queue whose front it is, and how to deliver it.
    ///
    /// The queue is a `VecDeque<M>`, and the caller takes exactly one message from its front.
    pub(crate) fn next(&mut self) -> Option<(u16, &mut dyn Any, D)> {
        let lane = self.commands.order.pop_front()?;
        self.count_walked(1);
        let lane = &mut self.commands.lanes[lane as usize];
        Some((lane.service, lane.queue.as_mut(), lane.deliver))
    }

    /// Returns whether nothing is queued, neither here nor in the mailbox, without taking the lock.
    ///
    /// A command whose `send` has not returned may not be seen yet; only [`Inbox::sleep`] decides whether to wait.
    pub(crate) fn is_empty(&self) -> bool {
        self.commands.order.is_empty() && !self.mailbox.filled.load(Ordering::Acquire)
    }

    /// Announces that the loop is about to wait. When it answers false the loop must not wait.
    ///
    /// False means: commands are left here or in the mailbox, or since the last call `stop` was asked for or the last
    /// [`Outside`] went while the loop was awake. True means: whatever of this comes from now on wakes the loop, once.
    pub(crate) fn sleep(&self) -> bool {
        if !self.is_empty() {
            return false;
        }
        let mut shared = lock(&self.mailbox.shared);
        let news = mem::take(&mut shared.news);
        let asleep = shared.commands.order.is_empty() && !news;
        self.mailbox.asleep.store(asleep, Ordering::Relaxed);
        asleep
    }

    /// Announces that the loop no longer waits, so that senders save the wake. It may be called at any time.
    pub(crate) fn awake(&self) {
        self.mailbox.asleep.store(false, Ordering::Relaxed);
    }

    /// Refuses every later command for this service, whose number is never used again, and drops the queued ones.
    ///
    /// Returns how many were dropped.
    pub(crate) fn end_service(&mut self, service: u16) -> usize {
        let (here, walked) = self.commands.remove(service);
        self.count_walked(walked);
        let mut shared = lock(&self.mailbox.shared);
        shared.end(service);
        let (there, untaken) = shared.commands.remove(service);
        shared.taken = shared.taken.wrapping_sub(untaken);
        self.mailbox.filled.store(!shared.commands.order.is_empty(), Ordering::Release);
        // Dropping a command may run anything, sending included: not under the lock.
        drop(shared);
        drop((here, there));
        walked + untaken
    }

    /// Makes room for as many commands; a store, since no other thread writes it.
    fn count_walked(&mut self, commands: usize) {
        self.walked = self.walked.wrapping_add(commands);
        self.mailbox.walked.0.store(self.walked, Ordering::Release);
    }
}

impl<D: Copy + Send + 'static> Drop for Inbox<D> {
    fn drop(&mut self) {
        let mut shared = lock(&self.mailbox.shared);
        shared.closed = true;
        let left = mem::replace(&mut shared.commands, Commands::new());
        self.mailbox.filled.store(false, Ordering::Release);
        drop(shared);
        drop(left);
    }
}

/// Counts as work that is under way, until it is dropped: then the loop is told.
pub(crate) struct Held<D: Copy + Send + 'static> {
    mailbox: Arc<Mailbox<D>>,
}

impl<D: Copy + Send + 'static> Held<D> {
    /// Makes one, and counts it.
    pub(crate) fn new(mailbox: &Arc<Mailbox<D>>) -> Self {
        mailbox.holds.fetch_add(1, Ordering::Relaxed);
        Held { mailbox: mailbox.clone() }
    }
}

impl<D: Copy + Send + 'static> Drop for Held<D> {
    fn drop(&mut self) {
        if self.mailbox.holds.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.mailbox.announce();
        }
    }
}

/// A counted handle to a [`Mailbox`] for use outside the loop: when the last one goes, the loop is told.
pub(crate) struct Outside<D: Copy + Send + 'static> {
    mailbox: Arc<Mailbox<D>>,
}

impl<D: Copy + Send + 'static> Outside<D> {
    /// Makes a handle and counts it.
    pub(crate) fn new(mailbox: &Arc<Mailbox<D>>) -> Self {
        mailbox.controllers.fetch_add(1, Ordering::Relaxed);
        Outside { mailbox: mailbox.clone() }
    }
}

impl<D: Copy + Send + 'static> Clone for Outside<D> {
    fn clone(&self) -> Self {
        Outside::new(&self.mailbox)
    }
}

impl<D: Copy + Send + 'static> Drop for Outside<D> {
    fn drop(&mut self) {
        // Release what this handle sent to whoever reads 0.
        if self.mailbox.controllers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.mailbox.announce();
        }
    }
}

impl<D: Copy + Send + 'static> ops::Deref for Outside<D> {
    type Target = Mailbox<D>;

    fn deref(&self) -> &Mailbox<D> {
        &self.mailbox
    }
}

/// What the lock guards.
struct Shared<D> {
    commands: Commands<D>,
    /// How many commands were taken in, modulo the range.
    taken: usize,
    /// How many of them the loop had walked when last asked; never ahead of it.
    walked: usize,
    /// One bit for each service that ended.
    ended: Vec<u64>,
    closed: bool,
    /// Something else than a command came while the loop was awake.
    news: bool,
}

impl<D> Shared<D> {
    fn has_ended(&self, service: u16) -> bool {
        self.ended.get(usize::from(service / 64)).is_some_and(|bits| bits & (1 << (service % 64)) != 0)
    }

    fn end(&mut self, service: u16) {
        let word = usize::from(service / 64);
        if self.ended.len() <= word {
            self.ended.resize(word + 1, 0);
        }
        self.ended[word] |= 1 << (service % 64);
    }
}

/// Commands in the order they came: for each one the lane whose front it is.
struct Commands<D> {
    order: VecDeque<u32>,
    lanes: Vec<Lane<D>>,
}

struct Lane<D> {
    service: u16,
    message: TypeId,
    /// A `VecDeque` of the message type.
    queue: Box<dyn Any + Send>,
    deliver: D,
}

impl<D: Copy> Commands<D> {
    fn new() -> Self {
        Commands { order: VecDeque::new(), lanes: Vec::new() }
    }

    /// Appends one command and returns how many there are.
    fn push<M: Send + 'static>(&mut self, service: u16, message: M, deliver: D) -> usize {
        let at = self.lane::<M>(service, deliver);
        let queue = self.lanes[at as usize].queue.downcast_mut::<VecDeque<M>>();
        queue.expect("a lane's queue has the lane's message type").push_back(message);
        self.order.push_back(at);
        self.order.len()
    }

    /// Finds or makes the lane of a service and message type. Often it is the lane of the command before.
    fn lane<M: Send + 'static>(&mut self, service: u16, deliver: D) -> u32 {
        let is_it = |lane: &Lane<D>| lane.service == service && lane.message == TypeId::of::<M>();
        if let Some(&last) = self.order.back()
            && is_it(&self.lanes[last as usize])
        {
            return last;
        }
        let at = self.lanes.iter().position(is_it).unwrap_or_else(|| {
            let queue = Box::new(VecDeque::<M>::new());
            self.lanes.push(Lane { service, message: TypeId::of::<M>(), queue, deliver });
            self.lanes.len() - 1
        });
        at as u32
    }

    /// Takes out the lanes of a service, for the caller to drop, and says how many commands are in them.
    fn remove(&mut self, service: u16) -> (Vec<Lane<D>>, usize) {
        let before = self.order.len();
        self.order.retain(|&lane| self.lanes[lane as usize].service != service);
        let mut removed = Vec::new();
        let mut at = 0;
        while at < self.lanes.len() {
            if self.lanes[at].service != service {
                at += 1;
                continue;
            }
            removed.push(self.lanes.swap_remove(at));
            let moved = self.lanes.len() as u32;
            for lane in self.order.iter_mut().filter(|lane| **lane == moved) {
                *lane = at as u32;
            }
        }
        (removed, before - self.order.len())
    }
}

/// Keeps what one thread writes often out of the cache lines that others read often.
#[repr(align(128))]
struct Line<T>(T);

/// Stands for no request to stop.
const NEVER: u64 = u64::MAX;
