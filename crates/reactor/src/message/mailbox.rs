//! Commands from other threads to the services of one loop: bounded, in order, one wake for each sleep.
//!
//! Threads share the [`Mailbox`]. The [`Inbox`] is the loop's own end, and a [`RemoteSender`] is a counted handle
//! to the mailbox.
//!
//! * A command travels in the typed queue of its service and type, a `VecDeque` of that type. `order` lists the
//!   queue of each command. So one sender's commands keep their order over all types, and none is boxed. Queues keep
//!   their capacity, at most `limit` commands each, so a steady stream of commands allocates nothing.
//! * [`Inbox::drain`] swaps the queued commands with the inbox's own, empty side, so the lock is held only
//!   for a swap. Commands that a budget left in the inbox come first the next time.
//! * `limit` counts every command that was accepted and not yet consumed by [`Inbox::next`], on either side.
//! * The loop announces that it goes to sleep under the lock that guards the commands. A sender that finds it
//!   asleep clears the flag, and wakes it after releasing the lock. So a wake follows any send after
//!   [`Inbox::sleep`] has returned true, and the next senders need not wake. The flag does not depend on who
//!   waits. With a foreign loop, call `sleep` at the end of each turn, and if it returns false, make the next
//!   turn run at once.
//! * A sender that waits for room sets `filled` and waits for `room`. So the loop takes the lock at its next drain,
//!   and the lock orders the wait after everything the loop has consumed. Therefore no command needs a fence,
//!   and no such wait is missed.
//! * A stop is a number beside the commands, which the loop reads without the lock. It does not refuse
//!   commands. The loop first calls [`Mailbox::close`] and then drains once more, so that each command is
//!   either executed or refused.
//! * Dropping the inbox closes the mailbox and drops the queued commands. So nobody waits for a loop that
//!   panicked.
//! * A child of fork(2) has a copy of the mailbox, but not the loop, and another thread of the parent may have held
//!   the lock for ever. So there every command is refused without the lock, nothing wakes the parent, and what is
//!   queued is leaked. The check costs one relaxed load.

use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, lock, thread, wait_while_for};
use crate::sys::Birthplace;
use std::any::{Any, TypeId};
use std::collections::VecDeque;
use std::error::Error;
use std::task::Waker;
use std::time::Duration;
use std::{fmt, mem, ops};

/// Gives back a message that could not be sent, with the reason.
///
/// ```
/// fn retry_later<M>(refused: reactor::Refused<M>) -> Option<M> {
///     match refused {
///         reactor::Refused::Full(message) | reactor::Refused::WouldDeadlock(message) => Some(message),
///         // The others do not pass by waiting.
///         _ => None,
///     }
/// }
/// assert_eq!(retry_later(reactor::Refused::Full(7)), Some(7));
/// ```
#[non_exhaustive]
pub enum Refused<M> {
    /// The queue is at its limit. There is room again once the service has taken some.
    Full(M),
    /// The service ended, the loop stopped, or this process is a child of fork(2) that the loop does not run in. No further
    /// message will be accepted.
    Gone(M),
    /// The queue is at its limit, and waiting would block the very thread that makes room. Only
    /// [`Controller::send_timeout`](crate::Controller::send_timeout) in the loop's own thread returns this.
    WouldDeadlock(M),
    /// It needs more than a limit ever allows, so waiting does not help. Only for operations on files.
    TooLarge {
        /// The refused message.
        message: M,
        /// The unit of the limit.
        what: &'static str,
        /// How much the message needs.
        asked: usize,
        /// The limit.
        limit: usize,
    },
}

impl<M> Refused<M> {
    /// Returns the message, whatever the reason was.
    pub fn into_message(self) -> M {
        match self {
            Refused::Full(message)
            | Refused::Gone(message)
            | Refused::WouldDeadlock(message)
            | Refused::TooLarge { message, .. } => message,
        }
    }

    /// Keeps the refusal, and converts the message.
    pub(crate) fn map<T>(self, take: impl FnOnce(M) -> T) -> Refused<T> {
        match self {
            Refused::Full(message) => Refused::Full(take(message)),
            Refused::Gone(message) => Refused::Gone(take(message)),
            Refused::WouldDeadlock(message) => Refused::WouldDeadlock(take(message)),
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
            Refused::WouldDeadlock(_) => f.write_str("WouldDeadlock(..)"),
            Refused::TooLarge { asked, limit, .. } => write!(f, "TooLarge({asked} of {limit})"),
        }
    }
}

impl<M> fmt::Display for Refused<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Full(_) => f.write_str("too much waits already"),
            Refused::Gone(_) => f.write_str("the service has ended"),
            Refused::WouldDeadlock(_) => {
                f.write_str("too much waits already, and waiting on the loop's own thread would block it")
            }
            Refused::TooLarge { what, asked, limit, .. } => {
                write!(f, "it needs {asked}, and the limit is {limit} {what}")
            }
        }
    }
}

impl<M> Error for Refused<M> {}

/// Carries commands to one loop. All sending threads share it.
///
/// `D` is the loop's means to deliver one command of a typed queue, in practice a function pointer.
pub(crate) struct Mailbox<D> {
    shared: Mutex<MailboxState<D>>,
    /// Signals that there may be room, or that no room will be needed.
    room: Condvar,
    /// Whether the next sender has to wake the loop. Set under the lock, but may be cleared without it.
    asleep: AtomicBool,
    /// Whether commands are queued or a sender waits for room. Changes only under the lock.
    filled: AtomicBool,
    grace: AtomicU64,
    controllers: AtomicUsize,
    /// How many [`WorkGuard`]s exist.
    holds: AtomicUsize,
    /// How many commands the loop has consumed, modulo the range. Only the loop writes this.
    consumed: CacheLine<AtomicUsize>,
    waker: Waker,
    loop_thread: thread::ThreadId,
    birthplace: Birthplace,
    limit: usize,
}

impl<D: Copy + Send + 'static> Mailbox<D> {
    /// Makes a mailbox for at most `limit` commands, and the inbox for the calling thread's loop.
    pub(crate) fn new(limit: usize, waker: Waker) -> (Arc<Self>, Inbox<D>) {
        let mailbox = Arc::new(Mailbox {
            shared: Mutex::new(MailboxState {
                commands: Commands::new(),
                taken: 0,
                consumed: 0,
                ended: Vec::new(),
                holding: 0,
                waiting: 0,
                closed: false,
                news: false,
            }),
            room: Condvar::new(),
            asleep: AtomicBool::new(false),
            filled: AtomicBool::new(false),
            grace: AtomicU64::new(NEVER),
            controllers: AtomicUsize::new(0),
            holds: AtomicUsize::new(0),
            consumed: CacheLine(AtomicUsize::new(0)),
            waker,
            loop_thread: thread::current().id(),
            birthplace: Birthplace::here(),
            limit,
        });
        (
            mailbox.clone(),
            Inbox {
                mailbox,
                commands: Commands::new(),
                held: Vec::new(),
                released: VecDeque::new(),
                consumed: 0,
            },
        )
    }

    /// Queues a command for a service and wakes the loop if it sleeps.
    ///
    /// The first `deliver` for a pair of service and message type serves all later commands of that pair.
    ///
    /// # Errors
    /// [`Refused::Gone`] if the service ended or the mailbox is closed, otherwise [`Refused::Full`] at the
    /// limit.
    pub(crate) fn send<M: Send + 'static>(
        &self,
        service: u16,
        message: M,
        deliver: D,
    ) -> Result<(), Refused<M>> {
        match self.open() {
            Some(shared) => self.queue(shared, self.limit, service, message, deliver),
            None => Err(Refused::Gone(message)),
        }
    }

    /// Takes the lock, unless this is a child of the loop's process.
    fn open(&self) -> Option<MutexGuard<'_, MailboxState<D>>> {
        self.birthplace.is_here().then(|| lock(&self.shared))
    }

    /// Queues a command as [`send`](Mailbox::send) does, but waits up to this long while the queue is full.
    ///
    /// # Errors
    /// As for [`send`](Mailbox::send), and at once [`Refused::WouldDeadlock`] in the loop's own thread.
    pub(crate) fn send_timeout<M: Send + 'static>(
        &self,
        up_to: Duration,
        service: u16,
        message: M,
        deliver: D,
    ) -> Result<(), Refused<M>> {
        let Some(mut shared) = self.open() else { return Err(Refused::Gone(message)) };
        let must_wait = |shared: &MailboxState<D>| !shared.refuses(service) && self.is_full(shared);
        // With a limit of 0 there is never room.
        if self.limit > 0 && !up_to.is_zero() && must_wait(&shared) {
            if thread::current().id() == self.loop_thread {
                return Err(Refused::WouldDeadlock(message));
            }
            shared.waiting += 1;
            shared = wait_while_for(&self.room, shared, up_to, |shared| {
                let waits = must_wait(shared);
                // While commands are held the loop cannot make room at once; it looks for this sender later.
                if waits && shared.holding == 0 {
                    self.filled.store(true, Ordering::Release);
                }
                waits
            });
            shared.waiting -= 1;
        }
        self.queue(shared, self.limit, service, message, deliver)
    }

    /// Returns whether the limit is reached, as far as the holder of the lock knows.
    fn is_full(&self, shared: &MailboxState<D>) -> bool {
        shared.taken.wrapping_sub(self.consumed.0.load(Ordering::Acquire)) >= self.limit
    }

    /// Counts the senders that wait for room.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn waiting(&self) -> usize {
        lock(&self.shared).waiting
    }

    /// Wakes the senders that wait for room, so that they look again. The caller holds the lock.
    fn notify_waiting(&self, shared: &MailboxState<D>) {
        if shared.waiting > 0 {
            self.room.notify_all();
        }
    }

    /// Queues a command for which another limit has reserved room: the result of a job, because the number of
    /// jobs is bounded.
    ///
    /// # Errors
    /// [`Refused::Gone`] if the service ended or the mailbox is closed.
    pub(crate) fn send_reserved<M: Send + 'static>(
        &self,
        service: u16,
        message: M,
        deliver: D,
    ) -> Result<(), Refused<M>> {
        match self.open() {
            Some(shared) => self.queue(shared, usize::MAX, service, message, deliver),
            None => Err(Refused::Gone(message)),
        }
    }

    fn queue<M: Send + 'static>(
        &self,
        mut shared: MutexGuard<'_, MailboxState<D>>,
        limit: usize,
        service: u16,
        message: M,
        deliver: D,
    ) -> Result<(), Refused<M>> {
        if shared.refuses(service) {
            return Err(Refused::Gone(message));
        }
        if shared.taken.wrapping_sub(shared.consumed) >= limit {
            // Read the loop's counter only here, so that a sender below the limit leaves the loop's cache
            // line alone.
            shared.consumed = self.consumed.0.load(Ordering::Acquire);
            if shared.taken.wrapping_sub(shared.consumed) >= limit {
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

    /// Refuses every later command. Queued commands stay, and the loop still executes them.
    pub(crate) fn close(&self) {
        let Some(mut shared) = self.open() else { return };
        shared.closed = true;
        self.notify_waiting(&shared);
    }

    /// Asks the loop to stop, and wakes it. The grace is in nanoseconds, counted from when the loop sees the
    /// request.
    ///
    /// The shortest of several graces applies. It is a duration and not a time, because only the loop's
    /// engine knows its clock.
    pub(crate) fn stop(&self, grace: u64) {
        self.grace.fetch_min(grace.min(NEVER - 1), Ordering::AcqRel);
        self.announce();
    }

    /// Returns the grace of the requested stop, if there is one. Costs one load.
    pub(crate) fn grace(&self) -> Option<u64> {
        let grace = self.grace.load(Ordering::Acquire);
        (grace != NEVER).then_some(grace)
    }

    /// Returns the number of [`RemoteSender`] handles. When it is 0, [`Inbox::is_empty`] sees everything that was
    /// sent through them.
    pub(crate) fn controllers(&self) -> usize {
        self.controllers.load(Ordering::Acquire)
    }

    /// Returns the number of [`WorkGuard`]s that exist.
    pub(crate) fn holds(&self) -> usize {
        self.holds.load(Ordering::Acquire)
    }

    /// Returns the loop's thread, which made the mailbox.
    pub(crate) fn loop_thread(&self) -> thread::ThreadId {
        self.loop_thread
    }

    /// Notifies the loop of something other than a command. Wakes it if it sleeps, and otherwise makes its
    /// next `sleep` return false.
    pub(crate) fn announce(&self) {
        let Some(mut shared) = self.open() else { return };
        let wake = self.rouse();
        shared.news |= !wake;
        drop(shared);
        if wake {
            self.waker.wake_by_ref();
        }
    }

    /// Clears the flag and returns whether it was set. The caller holds the lock. Relaxed is enough, because
    /// the lock orders this after `sleep`.
    fn rouse(&self) -> bool {
        let asleep = self.asleep.load(Ordering::Relaxed);
        if asleep {
            self.asleep.store(false, Ordering::Relaxed);
        }
        asleep
    }
}

/// The loop's own end of a [`Mailbox`]. It takes the commands, and announces when the loop sleeps.
pub(crate) struct Inbox<D: Copy + Send + 'static> {
    mailbox: Arc<Mailbox<D>>,
    commands: Commands<D>,
    /// Commands for services that are made again, in order. They still count against the limit.
    held: Vec<(u16, Vec<Commands<D>>)>,
    /// Commands for services that were made again: these come first.
    released: VecDeque<Commands<D>>,
    consumed: usize,
}

impl<D: Copy + Send + 'static> Inbox<D> {
    /// Returns the shared end.
    #[cfg(all(test, loom))]
    pub(crate) fn mailbox(&self) -> &Arc<Mailbox<D>> {
        &self.mailbox
    }

    /// Takes over all queued commands, unless some from earlier are not yet consumed. Returns how many there
    /// are to consume.
    pub(crate) fn drain(&mut self) -> usize {
        if self.commands.order.is_empty() && self.mailbox.filled.load(Ordering::Acquire) {
            let Some(mut shared) = self.mailbox.open() else { return 0 };
            mem::swap(&mut shared.commands, &mut self.commands);
            self.mailbox.filled.store(false, Ordering::Release);
            self.mailbox.notify_waiting(&shared);
            drop(shared);
            self.set_aside();
        }
        self.commands.order.len()
    }

    /// Keeps the commands for a service from now on, until [`release`](Inbox::release) or
    /// [`end_service`](Inbox::end_service).
    pub(crate) fn hold(&mut self, service: u16) {
        lock(&self.mailbox.shared).holding += 1;
        let before = self.released.iter_mut().map(|commands| commands.split(service));
        let before = before.filter(|commands| !commands.order.is_empty()).collect();
        self.held.push((service, before));
        self.set_aside();
    }

    /// Has the commands that were kept for a service consumed next.
    pub(crate) fn release(&mut self, service: u16) {
        let held = self.take_held(service);
        self.released.extend(held);
    }

    fn take_held(&mut self, service: u16) -> Vec<Commands<D>> {
        let Some(at) = self.held.iter().position(|(held, _)| *held == service) else { return Vec::new() };
        let mut shared = lock(&self.mailbox.shared);
        shared.holding -= 1;
        if shared.waiting > 0 {
            self.mailbox.filled.store(true, Ordering::Release);
        }
        drop(shared);
        self.held.swap_remove(at).1
    }

    fn set_aside(&mut self) {
        for (service, held) in &mut self.held {
            let commands = self.commands.split(*service);
            if !commands.order.is_empty() {
                held.push(commands);
            }
        }
    }

    /// Consumes the next command. Returns its service, the queue that has it at its front, and the means to
    /// deliver it.
    ///
    /// The queue is a `VecDeque<M>`, and the caller must take exactly one message from its front.
    pub(crate) fn next(&mut self) -> Option<(u16, &mut dyn Any, D)> {
        while self.released.front().is_some_and(|commands| commands.order.is_empty()) {
            self.released.pop_front();
        }
        let is_released = !self.released.is_empty();
        let order =
            self.released.front_mut().map_or(&mut self.commands.order, |commands| &mut commands.order);
        let at = order.pop_front()?;
        self.count_consumed(1);
        let commands = if is_released { &mut self.released[0] } else { &mut self.commands };
        let queue = &mut commands.queues[at as usize];
        Some((queue.service, queue.commands.as_mut(), queue.deliver))
    }

    /// Returns whether no command is queued, neither here nor in the mailbox, and no sender waits for room.
    /// Does not take the lock.
    ///
    /// It may miss a command whose `send` has not returned yet. Only [`Inbox::sleep`] decides whether to
    /// wait.
    pub(crate) fn is_empty(&self) -> bool {
        self.commands.order.is_empty()
            && self.released.iter().all(|commands| commands.order.is_empty())
            && !self.mailbox.filled.load(Ordering::Acquire)
    }

    /// Announces that the loop is about to wait. If this returns false, the loop must not wait.
    ///
    /// False means that commands are left here or in the mailbox, that a sender waits for room, or that an
    /// announcement came since the last call, while the loop was awake: a stop, or the drop of the last
    /// [`RemoteSender`] or [`WorkGuard`]. True means that any of these wakes the loop from now on, once.
    pub(crate) fn sleep(&self) -> bool {
        if !self.is_empty() {
            return false;
        }
        let Some(mut shared) = self.mailbox.open() else { return false };
        let news = mem::take(&mut shared.news);
        // Read again, because only under the lock is it certain that no sender has begun to wait for room.
        let asleep = !self.mailbox.filled.load(Ordering::Relaxed) && !news;
        self.mailbox.asleep.store(asleep, Ordering::Relaxed);
        asleep
    }

    /// Announces that the loop no longer waits, so that senders need not wake it. May be called at any time.
    pub(crate) fn awake(&self) {
        self.mailbox.asleep.store(false, Ordering::Relaxed);
    }

    /// Refuses every later command for this service, and drops the queued ones. The service's number is never
    /// reused.
    ///
    /// Returns how many commands were dropped.
    pub(crate) fn end_service(&mut self, service: u16) -> usize {
        let mut here = self.take_held(service);
        here.extend(self.released.iter_mut().map(|commands| commands.split(service)));
        here.push(self.commands.split(service));
        let consumed = here.iter().map(|commands| commands.order.len()).sum();
        self.count_consumed(consumed);
        let Some(mut shared) = self.mailbox.open() else { return consumed };
        shared.end(service);
        let there = shared.commands.split(service);
        let untaken = there.order.len();
        shared.taken = shared.taken.wrapping_sub(untaken);
        self.mailbox.filled.store(!shared.commands.order.is_empty(), Ordering::Release);
        self.mailbox.notify_waiting(&shared);
        // Not under the lock, because dropping a command may run any code, which may even send.
        drop(shared);
        drop((here, there));
        consumed + untaken
    }

    /// Makes room for this many commands. A store is enough, because no other thread writes the counter.
    fn count_consumed(&mut self, commands: usize) {
        self.consumed = self.consumed.wrapping_add(commands);
        self.mailbox.consumed.0.store(self.consumed, Ordering::Release);
    }
}

impl<D: Copy + Send + 'static> Drop for Inbox<D> {
    fn drop(&mut self) {
        let Some(mut shared) = self.mailbox.open() else {
            // Both would drop the users' messages.
            mem::forget(mem::replace(&mut self.commands, Commands::new()));
            return mem::forget(self.mailbox.clone());
        };
        shared.closed = true;
        let left = mem::replace(&mut shared.commands, Commands::new());
        self.mailbox.filled.store(false, Ordering::Release);
        self.mailbox.notify_waiting(&shared);
        drop(shared);
        drop(left);
    }
}

/// Counts as pending work until it is dropped. The last drop notifies the loop.
pub(crate) struct WorkGuard<D: Copy + Send + 'static> {
    mailbox: Arc<Mailbox<D>>,
}

impl<D: Copy + Send + 'static> WorkGuard<D> {
    /// Makes one, and counts it.
    pub(crate) fn new(mailbox: &Arc<Mailbox<D>>) -> Self {
        mailbox.holds.fetch_add(1, Ordering::Relaxed);
        WorkGuard { mailbox: mailbox.clone() }
    }
}

impl<D: Copy + Send + 'static> Drop for WorkGuard<D> {
    fn drop(&mut self) {
        if self.mailbox.holds.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.mailbox.announce();
        }
    }
}

/// A counted handle to a [`Mailbox`] for use outside the loop. The drop of the last one notifies the loop.
pub(crate) struct RemoteSender<D: Copy + Send + 'static> {
    mailbox: Arc<Mailbox<D>>,
}

impl<D: Copy + Send + 'static> RemoteSender<D> {
    /// Makes a handle and counts it.
    pub(crate) fn new(mailbox: &Arc<Mailbox<D>>) -> Self {
        mailbox.controllers.fetch_add(1, Ordering::Relaxed);
        RemoteSender { mailbox: mailbox.clone() }
    }
}

impl<D: Copy + Send + 'static> Clone for RemoteSender<D> {
    fn clone(&self) -> Self {
        RemoteSender::new(&self.mailbox)
    }
}

impl<D: Copy + Send + 'static> Drop for RemoteSender<D> {
    fn drop(&mut self) {
        // AcqRel publishes this handle's sends to a thread that reads 0.
        if self.mailbox.controllers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.mailbox.announce();
        }
    }
}

impl<D: Copy + Send + 'static> ops::Deref for RemoteSender<D> {
    type Target = Mailbox<D>;

    fn deref(&self) -> &Mailbox<D> {
        &self.mailbox
    }
}

/// The state that the lock guards.
struct MailboxState<D> {
    commands: Commands<D>,
    /// How many commands were accepted, modulo the range.
    taken: usize,
    /// How many of them the loop had consumed at the last look. Never ahead of the loop's own counter.
    consumed: usize,
    /// One bit for each service that has ended.
    ended: Vec<u64>,
    /// How many senders wait for room.
    waiting: usize,
    /// For how many services the loop keeps the commands, because they are made again.
    holding: usize,
    closed: bool,
    /// An event other than a command came while the loop was awake.
    news: bool,
}

impl<D> MailboxState<D> {
    /// Whether no command for this service will be taken any more.
    fn refuses(&self, service: u16) -> bool {
        self.closed || self.has_ended(service)
    }

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

/// Commands in order of arrival: for each one, the typed queue that has it at its front.
struct Commands<D> {
    order: VecDeque<u32>,
    queues: Vec<CommandQueue<D>>,
}

struct CommandQueue<D> {
    service: u16,
    message: TypeId,
    /// A `VecDeque` of the message type.
    commands: Box<dyn Any + Send>,
    deliver: D,
}

impl<D: Copy> Commands<D> {
    fn new() -> Self {
        Commands { order: VecDeque::new(), queues: Vec::new() }
    }

    /// Appends one command, and returns the new number of commands.
    fn push<M: Send + 'static>(&mut self, service: u16, message: M, deliver: D) -> usize {
        let at = self.queue_of::<M>(service, deliver);
        let queue = self.queues[at as usize].commands.downcast_mut::<VecDeque<M>>();
        queue.expect("a typed queue keeps the type it was made for").push_back(message);
        self.order.push_back(at);
        self.order.len()
    }

    /// Finds or makes the queue of a service and message type. Often that is the previous command's queue.
    fn queue_of<M: Send + 'static>(&mut self, service: u16, deliver: D) -> u32 {
        let is_it = |queue: &CommandQueue<D>| queue.service == service && queue.message == TypeId::of::<M>();
        if let Some(&last) = self.order.back()
            && is_it(&self.queues[last as usize])
        {
            return last;
        }
        let at = self.queues.iter().position(is_it).unwrap_or_else(|| {
            let commands = Box::new(VecDeque::<M>::new());
            self.queues.push(CommandQueue { service, message: TypeId::of::<M>(), commands, deliver });
            self.queues.len() - 1
        });
        at as u32
    }

    /// Takes out the commands for a service, in order.
    fn split(&mut self, service: u16) -> Self {
        let mut taken = Commands::new();
        if self.queues.iter().all(|queue| queue.service != service) {
            return taken;
        }
        // Where each queue stands from now on, there or here.
        let mut places = Vec::new();
        for queue in mem::take(&mut self.queues) {
            let is_taken = queue.service == service;
            let queues = if is_taken { &mut taken.queues } else { &mut self.queues };
            places.push((is_taken, queues.len() as u32));
            queues.push(queue);
        }
        for at in mem::take(&mut self.order) {
            let (is_taken, place) = places[at as usize];
            if is_taken { &mut taken.order } else { &mut self.order }.push_back(place);
        }
        taken
    }
}

/// Keeps a value that one thread writes often out of the cache lines that others read often.
#[repr(align(128))]
struct CacheLine<T>(T);

/// Means that no stop is requested.
const NEVER: u64 = u64::MAX;
