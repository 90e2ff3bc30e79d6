//! Names of lives: [`Key`] for engines, [`Id`] for services, and side tables by id.
//!
//! Many resources use a slot of the registry, one after the other. A key names *one* of these lives: it holds
//! the slot, the slot's generation and the runtime. So a key that is kept too long never reaches the next
//! tenant of the slot, nor a resource of another runtime. Slots are reused first-in-first-out, and a slot
//! whose generations are used up is retired. Up to 65,536 runtimes that are alive at once have different
//! numbers. The number of a runtime that has ended rests while 65,535 further runtimes are made.

use std::{fmt, hash, marker::PhantomData};

/// The name of one life of one slot of one runtime, for engines.
///
/// Eight bytes: 24 bits of slot, 24 bits of generation, 16 bits of runtime. An engine returns it with each
/// event, and may use [`Key::slot`] as an index into a dense table of its own.
///
/// Keys are ordered by their numbers, for tables that need a fixed order. The order does not reflect age,
/// because slots are reused.
///
/// ```
/// use reactor::{Bytes, Id, Key, Stream};
/// use std::collections::BTreeMap;
///
/// /// The names of streams of any type, in a table that is ordered but not by age.
/// #[derive(Default)]
/// struct Names(BTreeMap<Key, String>);
///
/// impl Names {
///     fn name(&mut self, id: Id<Stream<Bytes>>, name: &str) {
///         self.0.insert(id.key(), name.to_owned());
///     }
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(u64);

impl Key {
    /// The most slots of a runtime.
    pub const SLOTS_MAX: u32 = (1 << 24) - 1;
    /// The last generation of a slot. After it the slot is retired.
    pub const GENERATION_MAX: u32 = (1 << 24) - 1;

    /// The key that names no resource.
    pub(crate) const NONE: Key = Key(u64::MAX);

    /// Composes a key. Bits beyond a field's size are cut off.
    pub const fn new(slot: u32, generation: u32, runtime: u16) -> Key {
        Key((slot & 0xff_ffff) as u64 | ((generation & 0xff_ffff) as u64) << 24 | (runtime as u64) << 48)
    }

    /// Returns the key as a number, for the data of a poll. [`Key::from_bits`] is the inverse.
    #[inline]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// Returns the key from which [`Key::to_bits`] made this number.
    #[inline]
    pub const fn from_bits(bits: u64) -> Key {
        Key(bits)
    }

    /// Returns the same key with a slot that no runtime has: it names nothing, and keeps its generation.
    pub(crate) const fn dead(self) -> Key {
        Key(self.0 | 0xff_ffff)
    }

    /// Returns the slot, which is dense, reused, and below the greatest number of resources alive at once.
    #[inline]
    pub const fn slot(self) -> usize {
        (self.0 & 0xff_ffff) as usize
    }

    /// Returns the number of lives that the slot had before this one.
    #[inline]
    pub const fn generation(self) -> u32 {
        (self.0 >> 24) as u32 & 0xff_ffff
    }

    /// Returns the number of the runtime that this key belongs to.
    #[inline]
    pub const fn runtime(self) -> u16 {
        (self.0 >> 48) as u16
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The runtime's number is left out, because it counts the runtimes of the process, and would make two
        // equal simulated runs print differently.
        write!(f, "#{}.{}", self.slot(), self.generation())
    }
}

/// A typed [`Key`]: names one life of one resource of type `R`.
///
/// `Copy`, eight bytes, and harmless when stale: every call of the context treats a stale id, or one of
/// another runtime or service, as gone.
///
/// Ids have no order, because it would look like an order by age, and slots are reused. Use an [`IdMap`] or a
/// `HashMap` for a table by id. A `BTreeMap` can use the [key](Id::key), whose order is fixed but has no
/// meaning.
///
/// ```compile_fail
/// fn older(a: reactor::Id<reactor::Stream>, b: reactor::Id<reactor::Stream>) -> bool {
///     a < b
/// }
/// ```
pub struct Id<R: ?Sized> {
    key: Key,
    of: PhantomData<fn(&R)>,
}

impl<R: ?Sized> Id<R> {
    pub(crate) const fn new(key: Key) -> Id<R> {
        Id { key, of: PhantomData }
    }

    /// Returns the untyped name, as engines and logs show it.
    #[inline]
    pub const fn key(self) -> Key {
        self.key
    }
}

impl<R: ?Sized> Clone for Id<R> {
    fn clone(&self) -> Id<R> {
        *self
    }
}
impl<R: ?Sized> Copy for Id<R> {}
impl<R: ?Sized> PartialEq for Id<R> {
    fn eq(&self, other: &Id<R>) -> bool {
        self.key == other.key
    }
}
impl<R: ?Sized> Eq for Id<R> {}
impl<R: ?Sized> hash::Hash for Id<R> {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}
impl<R: ?Sized> fmt::Debug for Id<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key.fmt(f)
    }
}

/// A dense side table of a service: its data for each of its resources, without hashing.
///
/// A lookup is O(1), and a stale id finds nothing. Iteration runs over a dense vector, in an order that
/// depends only on the inserts and removes. Remove the entry in `closed`, because the table does not watch
/// the resources.
///
/// ```
/// # use reactor::{IdMap, Stream};
/// let map: IdMap<Stream, String> = IdMap::new();
/// assert!(map.is_empty());
/// ```
pub struct IdMap<R: ?Sized, T> {
    /// By slot: the position in `entries` plus one, or zero for none.
    positions: Vec<u32>,
    entries: Vec<(Id<R>, T)>,
}

impl<R: ?Sized, T> IdMap<R, T> {
    /// Creates an empty table. It allocates nothing before the first insert.
    pub const fn new() -> IdMap<R, T> {
        IdMap { positions: Vec::new(), entries: Vec::new() }
    }

    fn position(&self, id: Id<R>) -> Option<usize> {
        let position = (*self.positions.get(id.key.slot())? as usize).checked_sub(1)?;
        (self.entries[position].0 == id).then_some(position)
    }

    /// Stores `value` for `id`. Returns the value stored for the same slot before, if any.
    pub fn insert(&mut self, id: Id<R>, value: T) -> Option<T> {
        let slot = id.key.slot();
        if self.positions.len() <= slot {
            self.positions.resize(slot + 1, 0);
        }
        match self.positions[slot] as usize {
            0 => {
                self.entries.push((id, value));
                self.positions[slot] = self.entries.len() as u32;
                None
            }
            position => Some(std::mem::replace(&mut self.entries[position - 1], (id, value)).1),
        }
    }

    /// Returns the value of `id`.
    pub fn get(&self, id: Id<R>) -> Option<&T> {
        self.position(id).map(|at| &self.entries[at].1)
    }

    /// Returns the mutable value of `id`.
    pub fn get_mut(&mut self, id: Id<R>) -> Option<&mut T> {
        self.position(id).map(|at| &mut self.entries[at].1)
    }

    /// Returns whether there is a value for `id`.
    pub fn contains(&self, id: Id<R>) -> bool {
        self.position(id).is_some()
    }

    /// Removes and returns the value of `id`. The last entry moves into its place.
    pub fn remove(&mut self, id: Id<R>) -> Option<T> {
        let position = self.position(id)?;
        let (_, value) = self.entries.swap_remove(position);
        self.positions[id.key.slot()] = 0;
        if let Some((moved, _)) = self.entries.get(position) {
            self.positions[moved.key.slot()] = position as u32 + 1;
        }
        Some(value)
    }

    /// Returns all entries.
    pub fn iter(&self) -> impl Iterator<Item = (Id<R>, &T)> {
        self.entries.iter().map(|(id, value)| (*id, value))
    }

    /// Returns all entries, with mutable values.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Id<R>, &mut T)> {
        self.entries.iter_mut().map(|(id, value)| (*id, value))
    }

    /// Returns all ids.
    pub fn ids(&self) -> impl Iterator<Item = Id<R>> {
        self.entries.iter().map(|(id, _)| *id)
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl<R: ?Sized, T> Default for IdMap<R, T> {
    fn default() -> IdMap<R, T> {
        IdMap::new()
    }
}

impl<R: ?Sized, T: fmt::Debug> fmt::Debug for IdMap<R, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.entries.iter().map(|(id, value)| (id, value))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(slot: u32, generation: u32) -> Id<str> {
        Id::new(Key::new(slot, generation, 7))
    }

    #[test]
    fn a_key_keeps_its_three_parts_at_their_limits() {
        let key = Key::new(Key::SLOTS_MAX - 1, Key::GENERATION_MAX, u16::MAX);
        assert_eq!(
            (key.slot(), key.generation(), key.runtime()),
            (Key::SLOTS_MAX as usize - 1, Key::GENERATION_MAX, u16::MAX)
        );
        assert_eq!(Key::new(3, 2, 1).slot(), 3);
        assert_ne!(Key::new(3, 2, 1), Key::new(3, 2, 2));
    }

    #[test]
    fn a_stale_id_misses_and_is_not_removed_by_its_successor() {
        let mut map = IdMap::new();
        assert_eq!(map.insert(id(4, 1), "first"), None);
        assert_eq!(map.get(id(4, 2)), None);
        assert_eq!(map.insert(id(4, 2), "second"), Some("first"));
        assert_eq!(map.remove(id(4, 1)), None);
        assert_eq!(map.get(id(4, 2)), Some(&"second"));
    }

    #[test]
    fn the_entry_that_fills_a_gap_is_still_found() {
        let mut map = IdMap::new();
        for slot in 0..5 {
            map.insert(id(slot, 0), slot);
        }
        assert_eq!(map.remove(id(1, 0)), Some(1));
        assert_eq!(map.remove(id(4, 0)), Some(4));
        assert_eq!(map.iter().map(|(_, v)| *v).collect::<Vec<_>>(), [0, 3, 2]);
        assert_eq!((map.len(), map.get(id(3, 0)), map.contains(id(4, 0))), (3, Some(&3), false));
    }
}
