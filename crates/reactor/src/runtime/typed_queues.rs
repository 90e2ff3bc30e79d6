//! Typed queues of the loop's own messages: payloads of timers, and messages between services.

use std::{
    any::{Any, TypeId},
    collections::VecDeque,
};

use super::{LoopState, Receive, dispatch::receive, timers::TimerKey};
use crate::{guard::Kept, message::Refused};

/// The name of a timer that was set with [`after`](crate::Context::after). A stale one is harmless.
///
/// ```
/// use reactor::{Context, Receive, Result, Service, TimerId};
/// use std::time::Duration;
///
/// /// Does something two seconds after the last request.
/// struct Lazy(Option<TimerId>);
///
/// struct Quiet;
///
/// impl Service for Lazy {}
///
/// impl Lazy {
///     fn requested(&mut self, cx: &mut Context<Self>) {
///         if let Some(timer) = self.0.take() {
///             cx.cancel(timer);
///         }
///         self.0 = Some(cx.after(Duration::from_secs(2), Quiet));
///     }
/// }
///
/// impl Receive<Quiet> for Lazy {
///     fn receive(&mut self, _: &mut Context<Self>, _: Quiet) -> Result {
///         self.0 = None;
///         Ok(())
///     }
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TimerId {
    pub(crate) queue: u32,
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl TimerId {
    /// Names a timer that was never set.
    pub(crate) const NONE: TimerId = TimerId { queue: u32::MAX, index: 0, generation: 0 };
}

/// Passes a message of a queue to its service: a timer's payload, or the next message from another service.
pub(crate) type DeliverLocalFn = fn(&mut LoopState, &mut dyn Any, u16, u32, Option<u32>);

pub(crate) struct TypedQueues {
    queues: Vec<TypedQueue>,
    /// The queues of each service, by its index. A service has few of them.
    of: Vec<Vec<(TypeId, u32)>>,
    /// The order of messages between services, over all queues, each with its sender.
    messages: VecDeque<(u32, u16)>,
    /// The same of messages to services that are made again.
    held: VecDeque<(u32, u16)>,
    messages_max: usize,
    timers: usize,
    timers_max: usize,
}

struct TypedQueue {
    service: u16,
    store: Box<dyn AnyStore>,
    deliver: DeliverLocalFn,
}

/// The operations on a queue that do not need its type.
trait AnyStore: Any {
    fn is_set(&self, index: u32, generation: u32) -> bool;
    fn armed(&mut self, index: u32, key: TimerKey);
    /// Drops the payload. Returns `None` if there is none, otherwise the timer's key if it was armed already.
    fn cancel(&mut self, index: u32, generation: u32) -> Option<Option<TimerKey>>;
    /// Drops all timers. Returns how many there were, and the keys of the armed ones.
    fn clear_timers(&mut self) -> (usize, Vec<TimerKey>);
    /// Drops one message of another service.
    fn drop_message(&mut self, at: usize);
    /// Returns how many messages and timers are stored, or `None` if a cell is both used and free.
    fn stored(&self) -> Option<(usize, usize)>;
}

struct Store<M> {
    timers: Vec<Cell<M>>,
    free: Vec<u32>,
    messages: VecDeque<Kept<M>>,
}

struct Cell<M> {
    generation: u32,
    payload: Option<Kept<M>>,
    key: Option<TimerKey>,
}

impl<M> Store<M> {
    fn set(&mut self, payload: M) -> (u32, u32) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.timers.push(Cell { generation: 0, payload: None, key: None });
            self.timers.len() as u32 - 1
        });
        let cell = &mut self.timers[index as usize];
        cell.payload = Some(Kept::new(payload));
        (index, cell.generation)
    }

    fn take(&mut self, index: u32) -> Option<(Kept<M>, Option<TimerKey>)> {
        let cell = self.timers.get_mut(index as usize)?;
        let payload = cell.payload.take()?;
        cell.generation = cell.generation.wrapping_add(1);
        self.free.push(index);
        Some((payload, cell.key.take()))
    }
}

impl<M: 'static> AnyStore for Store<M> {
    fn is_set(&self, index: u32, generation: u32) -> bool {
        let cell = self.timers.get(index as usize);
        cell.is_some_and(|cell| cell.generation == generation && cell.payload.is_some())
    }

    fn armed(&mut self, index: u32, key: TimerKey) {
        if let Some(cell) = self.timers.get_mut(index as usize) {
            cell.key = Some(key);
        }
    }

    fn cancel(&mut self, index: u32, generation: u32) -> Option<Option<TimerKey>> {
        if !self.is_set(index, generation) {
            return None;
        }
        self.take(index).map(|(_, key)| key)
    }

    fn clear_timers(&mut self) -> (usize, Vec<TimerKey>) {
        let indices = 0..self.timers.len() as u32;
        let taken: Vec<Option<TimerKey>> =
            indices.filter_map(|index| self.take(index)).map(|(_, key)| key).collect();
        (taken.len(), taken.into_iter().flatten().collect())
    }

    fn drop_message(&mut self, at: usize) {
        self.messages.remove(at);
    }

    fn stored(&self) -> Option<(usize, usize)> {
        let used = self.timers.iter().filter(|cell| cell.payload.is_some()).count();
        (used + self.free.len() == self.timers.len()).then_some((self.messages.len(), used))
    }
}

/// Takes a message out of its queue, and passes it on.
pub(crate) fn deliver_local<S: Receive<M>, M: 'static>(
    core: &mut LoopState,
    erased: &mut dyn Any,
    index: u16,
    queue: u32,
    timer: Option<u32>,
) {
    let Some(store) = core.typed_queues.store::<M>(queue) else { return };
    let message = match timer {
        Some(timer) => {
            let taken = store.take(timer).map(|(message, _)| message);
            core.typed_queues.timers -= taken.is_some() as usize;
            taken
        }
        None => store.messages.pop_front(),
    };
    if let Some(message) = message {
        core.counters.messages += 1;
        receive::<S, M>(core, erased, index, message.into_inner());
    }
}

impl TypedQueues {
    pub(crate) fn new(messages_max: usize, timers_max: usize) -> TypedQueues {
        TypedQueues {
            queues: Vec::new(),
            of: Vec::new(),
            messages: VecDeque::new(),
            held: VecDeque::new(),
            messages_max,
            timers: 0,
            timers_max,
        }
    }

    /// Returns the queue of a service and a message type, and opens it on first use.
    fn queue_of<M: 'static>(&mut self, service: u16, deliver: DeliverLocalFn) -> u32 {
        let index = service as usize;
        if self.of.len() <= index {
            self.of.resize_with(index + 1, Vec::new);
        }
        let of = TypeId::of::<M>();
        if let Some((_, queue)) = self.of[index].iter().find(|(message, _)| *message == of) {
            return *queue;
        }
        let queue = self.queues.len() as u32;
        let store = Store::<M> { timers: Vec::new(), free: Vec::new(), messages: VecDeque::new() };
        self.queues.push(TypedQueue { service, store: Box::new(store), deliver });
        self.of[index].push((of, queue));
        queue
    }

    fn store<M: 'static>(&mut self, queue: u32) -> Option<&mut Store<M>> {
        let store: &mut dyn Any = &mut *self.queues.get_mut(queue as usize)?.store;
        store.downcast_mut()
    }

    /// Stores a timer's payload, or returns `None` at the limit.
    pub(crate) fn set<M: 'static>(
        &mut self,
        service: u16,
        payload: M,
        deliver: DeliverLocalFn,
    ) -> Option<TimerId> {
        if self.timers >= self.timers_max {
            return None;
        }
        let queue = self.queue_of::<M>(service, deliver);
        let (index, generation) = self.store::<M>(queue)?.set(payload);
        self.timers += 1;
        Some(TimerId { queue, index, generation })
    }

    pub(crate) fn is_set(&self, queue: u32, index: u32, generation: u32) -> bool {
        self.queues.get(queue as usize).is_some_and(|queue| queue.store.is_set(index, generation))
    }

    pub(crate) fn armed(&mut self, queue: u32, index: u32, key: TimerKey) {
        if let Some(queue) = self.queues.get_mut(queue as usize) {
            queue.store.armed(index, key);
        }
    }

    /// Cancels a timer of this service. Returns `None` if there is none, otherwise the key to take off the
    /// wheel.
    pub(crate) fn cancel(&mut self, service: u16, timer: TimerId) -> Option<Option<TimerKey>> {
        let queue = self.queues.get_mut(timer.queue as usize).filter(|queue| queue.service == service)?;
        let key = queue.store.cancel(timer.index, timer.generation)?;
        self.timers -= 1;
        Some(key)
    }

    /// Queues a message from one service of this runtime to another.
    pub(crate) fn post<M: 'static>(
        &mut self,
        from: u16,
        service: u16,
        message: M,
        deliver: DeliverLocalFn,
    ) -> Result<(), Refused<M>> {
        if self.messages.len() + self.held.len() >= self.messages_max {
            return Err(Refused::Full(message));
        }
        let queue = self.queue_of::<M>(service, deliver);
        match self.store::<M>(queue) {
            Some(store) => store.messages.push_back(Kept::new(message)),
            None => return Err(Refused::Gone(message)),
        }
        self.messages.push_back((queue, from));
        Ok(())
    }

    /// Returns the queue of the next message to a service that can be called. Messages to others are held.
    pub(crate) fn next_message(&mut self, alive: &[bool]) -> Option<(u32, u16, DeliverLocalFn)> {
        while let Some((queue, from)) = self.messages.pop_front() {
            let (service, deliver) = self.of_timer(queue)?;
            if alive[service as usize] {
                return Some((queue, service, deliver));
            }
            self.held.push_back((queue, from));
        }
        None
    }

    /// Lets the messages that are held for a service come next.
    pub(crate) fn release(&mut self, service: u16) {
        let TypedQueues { queues, messages, held, .. } = self;
        let (mut due, rest): (VecDeque<_>, VecDeque<_>) =
            held.drain(..).partition(|(queue, _)| queues[*queue as usize].service == service);
        *held = rest;
        due.append(messages);
        *messages = due;
    }

    /// Returns the service that a timer's queue belongs to, and the function that passes its payload on.
    pub(crate) fn of_timer(&self, queue: u32) -> Option<(u16, DeliverLocalFn)> {
        self.queues.get(queue as usize).map(|queue| (queue.service, queue.deliver))
    }

    /// Returns how many messages between services wait.
    pub(crate) fn messages(&self) -> usize {
        self.messages.len()
    }

    pub(crate) fn timers(&self) -> usize {
        self.timers
    }

    /// Drops all timers and messages of a service that has ended. Returns the keys to take off the wheel.
    pub(crate) fn clear(&mut self, service: u16) -> Vec<TimerKey> {
        self.drop_messages(service, |_| true);
        self.clear_timers(service)
    }

    /// Drops the timers of a service that is made again, and its messages to itself. Returns the keys to take off the
    /// wheel.
    pub(crate) fn renew(&mut self, service: u16) -> Vec<TimerKey> {
        self.drop_messages(service, |from| from == service);
        self.clear_timers(service)
    }

    /// Returns a description of the first invariant that does not hold: the counts and the order are those of
    /// what is stored.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (mut messages, mut timers) = (0, 0);
        for queue in &self.queues {
            let Some(stored) = queue.store.stored() else {
                return Err(format!("a queue of service {} lost a cell", queue.service));
            };
            (messages, timers) = (messages + stored.0, timers + stored.1);
        }
        let counted = (self.messages.len() + self.held.len(), self.timers);
        match counted == (messages, timers) {
            true => Ok(()),
            false => {
                Err(format!("messages and timers: {counted:?} are counted, {:?} stored", (messages, timers)))
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn spoil(&mut self) {
        self.timers += 1;
    }

    fn clear_timers(&mut self, service: u16) -> Vec<TimerKey> {
        let mut keys = Vec::new();
        for queue in self.queues.iter_mut().filter(|queue| queue.service == service) {
            let (count, mut armed) = queue.store.clear_timers();
            self.timers -= count;
            keys.append(&mut armed);
        }
        keys
    }

    /// Drops the messages of certain senders to a service.
    fn drop_messages(&mut self, service: u16, is_dropped: impl Fn(u16) -> bool) {
        let TypedQueues { queues, messages, held, .. } = self;
        // How many messages of each queue are kept, of those that were looked at.
        let mut kept = vec![0; queues.len()];
        for order in [held, messages] {
            order.retain(|(queue, from)| {
                let at = *queue as usize;
                let is_kept = queues[at].service != service || !is_dropped(*from);
                if is_kept {
                    kept[at] += 1;
                } else {
                    queues[at].store.drop_message(kept[at]);
                }
                is_kept
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn messages_to_a_service_that_ended_are_dropped_and_the_rest_keeps_its_order() {
        let deliver: DeliverLocalFn = |_, _, _, _, _| ();
        let mut queues = TypedQueues::new(8, 8);
        let (first, other) = (Rc::new('a'), Rc::new('b'));
        for (service, message) in [(0, &first), (1, &other), (0, &first), (1, &other)] {
            assert!(queues.post(0, service, Rc::clone(message), deliver).is_ok());
            assert!(queues.post(0, service, service, deliver).is_ok());
        }
        assert!(queues.set(0, Rc::clone(&first), deliver).is_some());
        assert_eq!((queues.messages(), queues.timers(), Rc::strong_count(&first)), (8, 1, 4));
        assert!(queues.clear(0).is_empty(), "the timer is not armed");
        assert_eq!((queues.messages(), queues.timers()), (4, 0));
        assert_eq!((Rc::strong_count(&first), Rc::strong_count(&other)), (1, 3));
        let mut next = || queues.next_message(&[true; 3]).map(|(queue, service, _)| (queue, service));
        assert_eq!(
            [next(), next(), next(), next()],
            [Some((2, 1)), Some((3, 1)), Some((2, 1)), Some((3, 1))]
        );
        assert!(next().is_none());
    }

    #[test]
    fn a_service_that_is_made_again_keeps_the_messages_of_others_in_order() {
        let deliver: DeliverLocalFn = |_, _, _, _, _| ();
        let mut queues = TypedQueues::new(8, 8);
        let own = Rc::new('o');
        // By turns from service 0 itself and from service 1, in two queues.
        for (from, number) in [(0, 1_u32), (1, 2), (0, 3), (1, 4)] {
            assert!(queues.post(from, 0, number, deliver).is_ok());
            if from == 0 {
                assert!(queues.post(0, 0, Rc::clone(&own), deliver).is_ok());
            }
        }
        assert!(queues.post(0, 1, 5_u32, deliver).is_ok());
        assert!(queues.set(0, Rc::clone(&own), deliver).is_some());
        assert!(queues.renew(0).is_empty(), "the timer is not armed");
        assert_eq!((queues.messages(), queues.timers(), Rc::strong_count(&own)), (3, 0, 1));
        // Meanwhile only the other one is called, and what is held counts against the limit.
        assert!(queues.next_message(&[false, true]).is_some_and(|(_, service, _)| service == 1));
        assert!(queues.next_message(&[false, true]).is_none() && queues.messages() == 0);
        for number in 6..12_u32 {
            assert!(queues.post(1, 0, number, deliver).is_ok(), "{number}");
        }
        assert!(matches!(queues.post(1, 0, 12_u32, deliver), Err(Refused::Full(12))));
        queues.release(0);
        let mut numbers = Vec::new();
        while let Some((queue, ..)) = queues.next_message(&[true, true]) {
            let message = queues.store::<u32>(queue).and_then(|store| store.messages.pop_front());
            numbers.extend(message.map(Kept::into_inner));
        }
        assert_eq!(numbers, [2, 4, 6, 7, 8, 9, 10, 11]);
    }
}
