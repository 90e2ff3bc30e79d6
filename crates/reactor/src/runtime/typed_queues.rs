//! Typed lanes of the loop's own messages: payloads of timers, and messages between services.

use std::{
    any::{Any, TypeId},
    collections::VecDeque,
};

use super::{LoopState, Receive, dispatch::receive, timers::TimerKey};
use crate::{guard::Kept, message::Refused};

/// The name of a timer that was set with [`after`](crate::Context::after). A stale one is harmless.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TimerId {
    pub(crate) lane: u32,
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl TimerId {
    /// Names a timer that was never set.
    pub(crate) const NONE: TimerId = TimerId { lane: u32::MAX, index: 0, generation: 0 };
}

/// Passes a message of a lane to its service: a timer's payload, or the next message from another service.
pub(crate) type Hand = fn(&mut LoopState, &mut dyn Any, u16, u32, Option<u32>);

pub(crate) struct Lanes {
    lanes: Vec<Lane>,
    /// The lanes of each service, by its index. A service has few of them.
    of: Vec<Vec<(TypeId, u32)>>,
    /// The order of messages between services, over all lanes, each with its sender.
    told: VecDeque<(u32, u16)>,
    /// The same of messages to services that are made again.
    held: VecDeque<(u32, u16)>,
    told_max: usize,
    timers: usize,
    timers_max: usize,
}

struct Lane {
    service: u16,
    store: Box<dyn Erased>,
    hand: Hand,
}

/// The operations on a lane that do not need its type.
trait Erased: Any {
    fn is_set(&self, index: u32, generation: u32) -> bool;
    fn armed(&mut self, index: u32, key: TimerKey);
    /// Drops the payload. Returns `None` if there is none, otherwise the timer's key if it was armed already.
    fn cancel(&mut self, index: u32, generation: u32) -> Option<Option<TimerKey>>;
    /// Drops all timers. Returns how many there were, and the keys of the armed ones.
    fn clear_timers(&mut self) -> (usize, Vec<TimerKey>);
    /// Drops one message of another service.
    fn drop_told(&mut self, at: usize);
}

struct Store<M> {
    timers: Vec<Cell<M>>,
    free: Vec<u32>,
    told: VecDeque<Kept<M>>,
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

impl<M: 'static> Erased for Store<M> {
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

    fn drop_told(&mut self, at: usize) {
        self.told.remove(at);
    }
}

/// Takes a message out of its lane, and passes it on.
pub(crate) fn hand<S: Receive<M>, M: 'static>(
    core: &mut LoopState,
    erased: &mut dyn Any,
    index: u16,
    lane: u32,
    timer: Option<u32>,
) {
    let Some(store) = core.lanes.store::<M>(lane) else { return };
    let message = match timer {
        Some(timer) => {
            let taken = store.take(timer).map(|(message, _)| message);
            core.lanes.timers -= taken.is_some() as usize;
            taken
        }
        None => store.told.pop_front(),
    };
    if let Some(message) = message {
        core.counters.messages += 1;
        receive::<S, M>(core, erased, index, message.into_inner());
    }
}

impl Lanes {
    pub(crate) fn new(told_max: usize, timers_max: usize) -> Lanes {
        Lanes {
            lanes: Vec::new(),
            of: Vec::new(),
            told: VecDeque::new(),
            held: VecDeque::new(),
            told_max,
            timers: 0,
            timers_max,
        }
    }

    /// Returns the lane of a service and a message type, and opens it on first use.
    fn lane<M: 'static>(&mut self, service: u16, hand: Hand) -> u32 {
        let index = service as usize;
        if self.of.len() <= index {
            self.of.resize_with(index + 1, Vec::new);
        }
        let of = TypeId::of::<M>();
        if let Some((_, lane)) = self.of[index].iter().find(|(message, _)| *message == of) {
            return *lane;
        }
        let lane = self.lanes.len() as u32;
        let store = Store::<M> { timers: Vec::new(), free: Vec::new(), told: VecDeque::new() };
        self.lanes.push(Lane { service, store: Box::new(store), hand });
        self.of[index].push((of, lane));
        lane
    }

    fn store<M: 'static>(&mut self, lane: u32) -> Option<&mut Store<M>> {
        let store: &mut dyn Any = &mut *self.lanes.get_mut(lane as usize)?.store;
        store.downcast_mut()
    }

    /// Stores a timer's payload, or returns `None` at the limit.
    pub(crate) fn set<M: 'static>(&mut self, service: u16, payload: M, hand: Hand) -> Option<TimerId> {
        if self.timers >= self.timers_max {
            return None;
        }
        let lane = self.lane::<M>(service, hand);
        let (index, generation) = self.store::<M>(lane)?.set(payload);
        self.timers += 1;
        Some(TimerId { lane, index, generation })
    }

    pub(crate) fn is_set(&self, lane: u32, index: u32, generation: u32) -> bool {
        self.lanes.get(lane as usize).is_some_and(|lane| lane.store.is_set(index, generation))
    }

    pub(crate) fn armed(&mut self, lane: u32, index: u32, key: TimerKey) {
        if let Some(lane) = self.lanes.get_mut(lane as usize) {
            lane.store.armed(index, key);
        }
    }

    /// Cancels a timer of this service. Returns `None` if there is none, otherwise the key to take off the
    /// wheel.
    pub(crate) fn cancel(&mut self, service: u16, timer: TimerId) -> Option<Option<TimerKey>> {
        let lane = self.lanes.get_mut(timer.lane as usize).filter(|lane| lane.service == service)?;
        let key = lane.store.cancel(timer.index, timer.generation)?;
        self.timers -= 1;
        Some(key)
    }

    /// Queues a message from one service of this runtime to another.
    pub(crate) fn tell<M: 'static>(
        &mut self,
        from: u16,
        service: u16,
        message: M,
        hand: Hand,
    ) -> Result<(), Refused<M>> {
        if self.told.len() + self.held.len() >= self.told_max {
            return Err(Refused::Full(message));
        }
        let lane = self.lane::<M>(service, hand);
        match self.store::<M>(lane) {
            Some(store) => store.told.push_back(Kept::new(message)),
            None => return Err(Refused::Gone(message)),
        }
        self.told.push_back((lane, from));
        Ok(())
    }

    /// Returns the lane of the next message to a service that can be called. Messages to others are held.
    pub(crate) fn next_told(&mut self, alive: &[bool]) -> Option<(u32, u16, Hand)> {
        while let Some((lane, from)) = self.told.pop_front() {
            let (service, hand) = self.of_timer(lane)?;
            if alive[service as usize] {
                return Some((lane, service, hand));
            }
            self.held.push_back((lane, from));
        }
        None
    }

    /// Lets the messages that are held for a service come next.
    pub(crate) fn release(&mut self, service: u16) {
        let Lanes { lanes, told, held, .. } = self;
        let (mut due, rest): (VecDeque<_>, VecDeque<_>) =
            held.drain(..).partition(|(lane, _)| lanes[*lane as usize].service == service);
        *held = rest;
        due.append(told);
        *told = due;
    }

    /// Returns the service that a timer's lane belongs to, and the function that passes its payload on.
    pub(crate) fn of_timer(&self, lane: u32) -> Option<(u16, Hand)> {
        self.lanes.get(lane as usize).map(|lane| (lane.service, lane.hand))
    }

    /// Returns how many messages between services wait.
    pub(crate) fn told(&self) -> usize {
        self.told.len()
    }

    pub(crate) fn timers(&self) -> usize {
        self.timers
    }

    /// Drops all timers and messages of a service that has ended. Returns the keys to take off the wheel.
    pub(crate) fn clear(&mut self, service: u16) -> Vec<TimerKey> {
        self.drop_told(service, |_| true);
        self.clear_timers(service)
    }

    /// Drops the timers of a service that is made again, and its messages to itself. Returns the keys to take off the
    /// wheel.
    pub(crate) fn renew(&mut self, service: u16) -> Vec<TimerKey> {
        self.drop_told(service, |from| from == service);
        self.clear_timers(service)
    }

    fn clear_timers(&mut self, service: u16) -> Vec<TimerKey> {
        let mut keys = Vec::new();
        for lane in self.lanes.iter_mut().filter(|lane| lane.service == service) {
            let (count, mut armed) = lane.store.clear_timers();
            self.timers -= count;
            keys.append(&mut armed);
        }
        keys
    }

    /// Drops the messages of certain senders to a service.
    fn drop_told(&mut self, service: u16, is_dropped: impl Fn(u16) -> bool) {
        let Lanes { lanes, told, held, .. } = self;
        // How many messages of each lane are kept, of those that were looked at.
        let mut kept = vec![0; lanes.len()];
        for order in [held, told] {
            order.retain(|(lane, from)| {
                let at = *lane as usize;
                let is_kept = lanes[at].service != service || !is_dropped(*from);
                if is_kept {
                    kept[at] += 1;
                } else {
                    lanes[at].store.drop_told(kept[at]);
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
    fn what_was_told_to_a_service_that_ended_is_dropped_and_the_rest_keeps_its_order() {
        let hand: Hand = |_, _, _, _, _| ();
        let mut lanes = Lanes::new(8, 8);
        let (first, other) = (Rc::new('a'), Rc::new('b'));
        for (service, message) in [(0, &first), (1, &other), (0, &first), (1, &other)] {
            assert!(lanes.tell(0, service, Rc::clone(message), hand).is_ok());
            assert!(lanes.tell(0, service, service, hand).is_ok());
        }
        assert!(lanes.set(0, Rc::clone(&first), hand).is_some());
        assert_eq!((lanes.told(), lanes.timers(), Rc::strong_count(&first)), (8, 1, 4));
        assert!(lanes.clear(0).is_empty(), "the timer is not armed");
        assert_eq!((lanes.told(), lanes.timers()), (4, 0));
        assert_eq!((Rc::strong_count(&first), Rc::strong_count(&other)), (1, 3));
        let mut next = || lanes.next_told(&[true; 3]).map(|(lane, service, _)| (lane, service));
        assert_eq!(
            [next(), next(), next(), next()],
            [Some((2, 1)), Some((3, 1)), Some((2, 1)), Some((3, 1))]
        );
        assert!(next().is_none());
    }

    #[test]
    fn a_service_that_is_made_again_keeps_what_others_told_it_in_order() {
        let hand: Hand = |_, _, _, _, _| ();
        let mut lanes = Lanes::new(8, 8);
        let own = Rc::new('o');
        // By turns from service 0 itself and from service 1, in two lanes.
        for (from, number) in [(0, 1_u32), (1, 2), (0, 3), (1, 4)] {
            assert!(lanes.tell(from, 0, number, hand).is_ok());
            if from == 0 {
                assert!(lanes.tell(0, 0, Rc::clone(&own), hand).is_ok());
            }
        }
        assert!(lanes.tell(0, 1, 5_u32, hand).is_ok());
        assert!(lanes.set(0, Rc::clone(&own), hand).is_some());
        assert!(lanes.renew(0).is_empty(), "the timer is not armed");
        assert_eq!((lanes.told(), lanes.timers(), Rc::strong_count(&own)), (3, 0, 1));
        // Meanwhile only the other one is called, and what is held counts against the limit.
        assert!(lanes.next_told(&[false, true]).is_some_and(|(_, service, _)| service == 1));
        assert!(lanes.next_told(&[false, true]).is_none() && lanes.told() == 0);
        for number in 6..12_u32 {
            assert!(lanes.tell(1, 0, number, hand).is_ok(), "{number}");
        }
        assert!(matches!(lanes.tell(1, 0, 12_u32, hand), Err(Refused::Full(12))));
        lanes.release(0);
        let mut numbers = Vec::new();
        while let Some((lane, ..)) = lanes.next_told(&[true, true]) {
            let told = lanes.store::<u32>(lane).and_then(|store| store.told.pop_front());
            numbers.extend(told.map(Kept::into_inner));
        }
        assert_eq!(numbers, [2, 4, 6, 7, 8, 9, 10, 11]);
    }
}
