//! Typed ids, and the tables that they index.
//!
//! An id of one kind cannot index a table of another. The ids of hosts, engines and other objects that are
//! few in a run are never reused. Ends of connections are many, so their slots are reused, and an [`EndId`]
//! has a generation.

use std::{
    marker::PhantomData,
    ops::{Index, IndexMut},
};

/// An index into a table of one kind of object.
pub(crate) trait Id: Copy + Eq {
    fn new(index: usize) -> Self;
    fn index(self) -> usize;

    /// Returns the number, for a digest or an outer id.
    #[inline]
    fn number(self) -> u32 {
        self.index() as u32
    }
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub(crate) struct $name(u32);

        impl Id for $name {
            fn new(index: usize) -> $name {
                $name(u32::try_from(index).expect("fewer than 2^32 objects of a kind fit in memory"))
            }

            fn index(self) -> usize {
                self.0 as usize
            }
        }
    )*};
}

ids! {
    /// A host. A node has the id of its host.
    HostId
    /// An engine.
    EngineId
    /// A listener.
    ListenerId
    /// A datagram socket.
    SocketId
    /// A virtual source.
    SourceId
    /// Offloaded work.
    JobId
    /// A drawn fault of the world.
    WorldFaultId
}

#[cfg(unix)]
ids! {
    /// A child process.
    ChildId
}

macro_rules! serials {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
        pub(crate) struct $name(u64);

        impl $name {
            /// Returns this number, and moves on to the next one.
            pub(crate) fn take(&mut self) -> $name {
                let taken = *self;
                self.0 += 1;
                taken
            }
        }
    )*};
}

serials! {
    /// A datagram in flight, or a report about one.
    FlightId
    /// A file operation in flight.
    FileJobId
}

impl FileJobId {
    /// Returns the number, for a digest.
    pub(crate) fn number(self) -> u64 {
        self.0
    }
}

impl HostId {
    /// The first host of a world.
    pub(crate) const FIRST: HostId = HostId(0);
}

/// An end of a connection, in one life of its slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct EndId {
    index: u32,
    generation: u32,
}

impl EndId {
    /// Returns the id of the first life of a slot.
    pub(crate) fn first(index: usize) -> EndId {
        EndId { index: u32::try_from(index).expect("fewer than 2^32 ends fit in memory"), generation: 0 }
    }

    /// Returns the id of the slot's next life.
    pub(crate) fn next(self) -> EndId {
        EndId { generation: (self.generation + 1) & GENERATION_MAX, ..self }
    }

    #[inline]
    pub(crate) fn index(self) -> usize {
        self.index as usize
    }

    /// Returns the slot's number, for a digest.
    #[inline]
    pub(crate) fn number(self) -> u32 {
        self.index
    }
}

/// The object behind a transport or a source. It has a 64-bit number, with which the library passes it on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ObjectId {
    End(EndId),
    Listener(ListenerId),
    Socket(SocketId),
    Source(SourceId),
}

impl ObjectId {
    /// Returns the object's number.
    pub(crate) fn number(self) -> u64 {
        match self {
            ObjectId::End(EndId { index, generation }) => u64::from(generation) << 32 | u64::from(index),
            ObjectId::Listener(id) => LISTENER | u64::from(id.0),
            ObjectId::Socket(id) => SOCKET | u64::from(id.0),
            ObjectId::Source(id) => SOURCE | u64::from(id.0),
        }
    }

    /// Returns the object that a number names. It may be gone, or of another world.
    pub(crate) fn of(number: u64) -> ObjectId {
        let (index, generation) = (number as u32, (number >> 32) as u32 & GENERATION_MAX);
        match number {
            _ if number & LISTENER != 0 => ObjectId::Listener(ListenerId(index)),
            _ if number & SOCKET != 0 => ObjectId::Socket(SocketId(index)),
            _ if number & SOURCE != 0 => ObjectId::Source(SourceId(index)),
            _ => ObjectId::End(EndId { index, generation }),
        }
    }
}

/// Objects that stay for the whole run, by id.
pub(crate) struct IdVec<I, T> {
    all: Vec<T>,
    by: PhantomData<I>,
}

impl<I: Id, T> IdVec<I, T> {
    pub(crate) fn new() -> IdVec<I, T> {
        IdVec { all: Vec::new(), by: PhantomData }
    }

    /// Adds an object, and returns its id.
    pub(crate) fn push(&mut self, object: T) -> I {
        self.all.push(object);
        I::new(self.all.len() - 1)
    }

    pub(crate) fn get(&self, id: I) -> Option<&T> {
        self.all.get(id.index())
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Returns all ids. It borrows nothing, so the objects can change meanwhile.
    pub(crate) fn ids(&self) -> impl Iterator<Item = I> + use<I, T> {
        (0..self.all.len()).map(I::new)
    }

    /// Returns all objects with their ids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (I, &T)> {
        self.all.iter().enumerate().map(|(index, object)| (I::new(index), object))
    }
}

impl<I: Id, T> Index<I> for IdVec<I, T> {
    type Output = T;

    #[inline]
    fn index(&self, id: I) -> &T {
        &self.all[id.index()]
    }
}

impl<I: Id, T> IndexMut<I> for IdVec<I, T> {
    #[inline]
    fn index_mut(&mut self, id: I) -> &mut T {
        &mut self.all[id.index()]
    }
}

/// Objects that come and go, by id. An id is never reused, so a stale one finds nothing.
pub(crate) struct Slots<I, T> {
    all: IdVec<I, Option<T>>,
}

impl<I: Id, T> Default for Slots<I, T> {
    fn default() -> Slots<I, T> {
        Slots::new()
    }
}

impl<I: Id, T> Slots<I, T> {
    pub(crate) fn new() -> Slots<I, T> {
        Slots { all: IdVec::new() }
    }

    /// Adds an object, and returns its id.
    pub(crate) fn push(&mut self, object: T) -> I {
        self.all.push(Some(object))
    }

    #[inline]
    pub(crate) fn get(&self, id: I) -> Option<&T> {
        self.all.get(id)?.as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: I) -> Option<&mut T> {
        self.all.all.get_mut(id.index())?.as_mut()
    }

    /// Removes an object.
    pub(crate) fn take(&mut self, id: I) -> Option<T> {
        self.all.all.get_mut(id.index())?.take()
    }

    /// Removes the objects for which the condition holds.
    pub(crate) fn take_if(&mut self, is_over: impl Fn(&T) -> bool) {
        for slot in &mut self.all.all {
            slot.take_if(|object| is_over(object));
        }
    }

    /// Removes all objects.
    pub(crate) fn clear(&mut self) {
        self.all.all.fill_with(|| None);
    }

    /// Returns the existing objects with their ids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (I, &T)> {
        self.all.iter().filter_map(|(id, object)| Some((id, object.as_ref()?)))
    }
}

/// The greatest generation of an [`EndId`]: as many bits as its number has left.
const GENERATION_MAX: u32 = (1 << 29) - 1;
const LISTENER: u64 = 1 << 63;
const SOCKET: u64 = 1 << 62;
const SOURCE: u64 = 1 << 61;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_read_back_from_its_number() {
        let last = EndId { index: u32::MAX, generation: GENERATION_MAX };
        for object in [
            ObjectId::End(EndId::first(0)),
            ObjectId::End(last),
            ObjectId::Listener(ListenerId(0)),
            ObjectId::Listener(ListenerId(u32::MAX)),
            ObjectId::Socket(SocketId(u32::MAX)),
            ObjectId::Source(SourceId(u32::MAX)),
        ] {
            assert_eq!(ObjectId::of(object.number()), object);
        }
    }

    #[test]
    fn generations_wrap_within_their_bits() {
        let before_last = EndId { index: 7, generation: GENERATION_MAX - 1 };
        assert_eq!(before_last.next(), EndId { index: 7, generation: GENERATION_MAX });
        assert_eq!(before_last.next().next(), EndId::first(7));
    }

    #[test]
    fn a_stale_id_finds_nothing() {
        let mut slots = Slots::<JobId, char>::new();
        let (a, b) = (slots.push('a'), slots.push('b'));
        assert_eq!((slots.take(a), slots.take(a)), (Some('a'), None));
        assert_eq!((slots.get(a), slots.get(b), slots.get(JobId(2))), (None, Some(&'b'), None));
        assert_eq!(slots.push('c').number(), 2);
        assert_eq!(slots.iter().map(|(_, object)| *object).collect::<String>(), "bc");
    }
}
