//! Changes: records of inotify(7), parsed in place, and renames paired by their cookies.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

/// One watch of a [`Watch`](super::Watch): a number that the kernel does not use again soon.
///
/// ```
/// # fn main() -> Result<(), reactor::Error> {
/// let mut watch = reactor::watch::Watch::new()?;
/// let id = watch.add("/")?;
/// assert!(watch.path(id).is_some() && watch.remove(id) && watch.path(id).is_none());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WatchId(pub(super) i32);

/// The subject of a change: an entry of a watched directory, or the watched file or directory itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subject<'a> {
    /// The watch that saw it.
    pub watch: WatchId,
    /// The name in the directory. It is empty for the watched file or directory itself.
    pub name: &'a OsStr,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// One change.
///
/// ```
/// use reactor::watch::Change;
///
/// /// Whether a list of the directory's names is stale after this.
/// fn is_about_names(change: &Change<'_>) -> bool {
///     !matches!(change, Change::Modified(_) | Change::Written(_) | Change::Attributes(_))
/// }
/// assert!(is_about_names(&Change::Overflow));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Change<'a> {
    /// It was created: for example a file, a directory or a link.
    Created(Subject<'a>),
    /// It was written to or truncated. Several changes in a row may come as one.
    Modified(Subject<'a>),
    /// It was closed after it had been open for writing.
    Written(Subject<'a>),
    /// Its owner, mode, times or number of links changed.
    Attributes(Subject<'a>),
    /// It was removed.
    Deleted(Subject<'a>),
    /// It was renamed, or moved from one watched directory to another.
    Moved {
        /// The entry before.
        from: Subject<'a>,
        /// The entry after.
        to: Subject<'a>,
    },
    /// It was moved to a place that is not watched. This is also one half of a rename that was read while it
    /// happened (then [`MovedIn`](Change::MovedIn) follows in a later batch), or of more than 16 interleaved
    /// renames.
    MovedOut(Subject<'a>),
    /// It was moved here from a place that is not watched.
    MovedIn(Subject<'a>),
    /// The watched file or directory was itself renamed or moved. The watch continues, but its path may name
    /// something else.
    Relocated(WatchId),
    /// The kernel's queue was full, and changes were lost. Read everything again.
    Overflow,
    /// A watch has ended. This is its last change.
    Ended {
        /// The watch.
        watch: WatchId,
        /// The reason.
        why: WatchEnd,
    },
}

/// The reason why a watch ended by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum WatchEnd {
    /// The watched file or directory was removed. The kernel reports it when no process has it open any more.
    /// For a directory it also waits while a process has a removed file from it open.
    Deleted,
    /// The file system was unmounted.
    Unmounted,
    /// The kernel dropped the watch without a reason.
    Ignored,
}

/// A batch of changes in the order in which they happened. The runtime lends it for one call of the handler.
///
/// A rename stands at the place of its first half. A batch is never empty.
///
/// ```
/// use reactor::watch::{Change, Changes};
///
/// fn has_lost_some(changes: Changes<'_>) -> bool {
///     changes.into_iter().any(|change| change == Change::Overflow)
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Changes<'a> {
    rest: &'a [u8],
    /// Cookies of renames that were reported, and whose second half is still to come.
    moves: [u32; MOVES_MAX],
    moves_count: usize,
}

impl<'a> Changes<'a> {
    pub(crate) fn new(records: &'a [u8]) -> Changes<'a> {
        Changes { rest: records, moves: [0; MOVES_MAX], moves_count: 0 }
    }

    /// Returns the second half of a rename, if it is in this batch and there is room to remember it.
    fn other_half(&mut self, cookie: u32) -> Option<Subject<'a>> {
        if self.moves_count == MOVES_MAX {
            return None;
        }
        let mut rest = self.rest;
        while let Some(record) = InotifyRecord::first(rest) {
            if record.mask & libc::IN_MOVED_TO != 0 && record.cookie == cookie {
                self.moves[self.moves_count] = cookie;
                self.moves_count += 1;
                return Some(record.entry());
            }
            rest = &rest[record.len..];
        }
        None
    }

    /// Returns whether this second half was reported with the first.
    fn is_known_move(&mut self, cookie: u32) -> bool {
        let at = self.moves[..self.moves_count].iter().position(|known| *known == cookie);
        if let Some(at) = at {
            self.moves_count -= 1;
            self.moves.swap(at, self.moves_count);
        }
        at.is_some()
    }
}

impl<'a> Iterator for Changes<'a> {
    type Item = Change<'a>;

    fn next(&mut self) -> Option<Change<'a>> {
        loop {
            let record = InotifyRecord::first(self.rest)?;
            self.rest = &self.rest[record.len..];
            let (watch, entry) = (record.watch, record.entry());
            let has = |flag: u32| record.mask & flag != 0;
            return Some(match () {
                () if record.is_overflow() => Change::Overflow,
                () if has(libc::IN_UNMOUNT) => Change::Ended { watch, why: WatchEnd::Unmounted },
                () if has(libc::IN_DELETE_SELF) => Change::Ended { watch, why: WatchEnd::Deleted },
                () if has(libc::IN_IGNORED) => Change::Ended { watch, why: WatchEnd::Ignored },
                () if has(libc::IN_MOVE_SELF) => Change::Relocated(watch),
                () if has(libc::IN_CREATE) => Change::Created(entry),
                () if has(libc::IN_DELETE) => Change::Deleted(entry),
                () if has(libc::IN_MODIFY) => Change::Modified(entry),
                () if has(libc::IN_CLOSE_WRITE) => Change::Written(entry),
                () if has(libc::IN_ATTRIB) => Change::Attributes(entry),
                () if has(libc::IN_MOVED_FROM) => match self.other_half(record.cookie) {
                    Some(to) => Change::Moved { from: entry, to },
                    None => Change::MovedOut(entry),
                },
                () if has(libc::IN_MOVED_TO) && !self.is_known_move(record.cookie) => Change::MovedIn(entry),
                // The second half of a reported rename, or an event of a later kernel.
                () => continue,
            });
        }
    }
}

/// One record of the kernel, as in inotify(7).
pub(super) struct InotifyRecord<'a> {
    pub(super) watch: WatchId,
    mask: u32,
    cookie: u32,
    name: &'a [u8],
    /// The length with the head and the padding of the name.
    pub(super) len: usize,
}

impl<'a> InotifyRecord<'a> {
    /// Returns the first of several records. `None` if there is no whole one. The kernel writes only whole
    /// ones.
    pub(super) fn first(bytes: &'a [u8]) -> Option<InotifyRecord<'a>> {
        let (watch, rest) = bytes.split_first_chunk()?;
        let (mask, rest) = rest.split_first_chunk()?;
        let (cookie, rest) = rest.split_first_chunk()?;
        let (padded, rest) = rest.split_first_chunk()?;
        let padded = u32::from_ne_bytes(*padded) as usize;
        let name = rest.get(..padded)?.split(|byte| *byte == 0).next()?;
        Some(InotifyRecord {
            watch: WatchId(i32::from_ne_bytes(*watch)),
            mask: u32::from_ne_bytes(*mask),
            cookie: u32::from_ne_bytes(*cookie),
            name,
            len: HEAD + padded,
        })
    }

    /// Returns whether records were lost here.
    pub(super) fn is_overflow(&self) -> bool {
        self.mask & libc::IN_Q_OVERFLOW != 0
    }

    /// Returns whether it is the last relevant record of its watch.
    pub(super) fn ends(&self) -> bool {
        self.mask & (libc::IN_UNMOUNT | libc::IN_DELETE_SELF | libc::IN_IGNORED) != 0
    }

    fn entry(&self) -> Subject<'a> {
        Subject {
            watch: self.watch,
            name: OsStr::from_bytes(self.name),
            is_dir: self.mask & libc::IN_ISDIR != 0,
        }
    }
}

/// The most renames that are remembered between their halves.
const MOVES_MAX: usize = 16;
/// The length of a record before its name.
const HEAD: usize = 16;
/// The length of a record with the longest name. The kernel refuses to read into less.
pub(super) const BYTES_MIN: usize = HEAD + 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn record(watch: i32, mask: u32, cookie: u32, name: &str) -> Vec<u8> {
        let padded = if name.is_empty() { 0 } else { (name.len() + 1).next_multiple_of(16) };
        let mut bytes = watch.to_ne_bytes().to_vec();
        for part in [mask, cookie, padded as u32] {
            bytes.extend(part.to_ne_bytes());
        }
        bytes.extend(name.as_bytes());
        bytes.resize(HEAD + padded, 0);
        bytes
    }

    fn reported(records: &[Vec<u8>]) -> Vec<String> {
        let name = |entry: Subject<'_>| entry.name.to_string_lossy().into_owned();
        let reported = |change| match change {
            Change::Moved { from, to } => format!("{} to {}", name(from), name(to)),
            Change::MovedOut(entry) => format!("{} out", name(entry)),
            Change::MovedIn(entry) => format!("{} in", name(entry)),
            Change::Created(entry) => format!("{} new", name(entry)),
            other => format!("{other:?}"),
        };
        Changes::new(&records.concat()).map(reported).collect()
    }

    #[test]
    fn a_rename_stands_where_its_first_half_stood_whatever_is_between() {
        let records = [
            record(1, libc::IN_MOVED_FROM, 7, "old"),
            record(1, libc::IN_CREATE, 0, "between"),
            record(2, libc::IN_MOVED_TO, 7, "a name of more than sixteen bytes"),
            record(1, libc::IN_MOVED_TO, 8, "stranger"),
            record(1, libc::IN_MOVED_FROM, 9, "leaver"),
        ];
        let expected =
            ["old to a name of more than sixteen bytes", "between new", "stranger in", "leaver out"];
        assert_eq!(reported(&records), expected);
    }

    #[test]
    fn interleaved_renames_are_paired_up_to_the_limit() {
        for moves in [MOVES_MAX - 1, MOVES_MAX, MOVES_MAX + 1] {
            let half = |mask| (0..moves).map(move |at| record(1, mask, 100 + at as u32, "x"));
            let records: Vec<_> = half(libc::IN_MOVED_FROM).chain(half(libc::IN_MOVED_TO)).collect();
            let reported = reported(&records);
            let count = |what: &str| reported.iter().filter(|reported| *reported == what).count();
            let lone = moves.saturating_sub(MOVES_MAX);
            assert_eq!((count("x to x"), count("x out"), count("x in")), (moves - lone, lone, lone));
            assert_eq!(reported.len(), moves + lone);
        }
    }

    #[test]
    fn remembered_renames_make_room_again() {
        let pair = |at| [record(1, libc::IN_MOVED_FROM, at, "x"), record(1, libc::IN_MOVED_TO, at, "x")];
        let records: Vec<_> = (1..=4 * MOVES_MAX as u32).flat_map(pair).collect();
        assert_eq!(reported(&records), vec!["x to x"; 4 * MOVES_MAX]);
    }

    #[test]
    fn ends_overflow_and_what_is_unknown_are_told_apart() {
        let records = [
            record(-1, libc::IN_Q_OVERFLOW, 0, ""),
            record(3, libc::IN_UNMOUNT, 0, ""),
            record(4, libc::IN_DELETE_SELF, 0, ""),
            record(5, libc::IN_IGNORED, 0, ""),
            record(6, libc::IN_MOVE_SELF, 0, ""),
            record(7, libc::IN_OPEN, 0, "unasked"),
        ];
        let expected = [
            "Overflow",
            "Ended { watch: WatchId(3), why: Unmounted }",
            "Ended { watch: WatchId(4), why: Deleted }",
            "Ended { watch: WatchId(5), why: Ignored }",
            "Relocated(WatchId(6))",
        ];
        assert_eq!(reported(&records), expected);
    }

    #[test]
    fn a_record_that_is_cut_off_anywhere_is_no_record() {
        let whole = record(1, libc::IN_CREATE, 0, "name");
        for len in 0..whole.len() {
            assert!(InotifyRecord::first(&whole[..len]).is_none(), "{len}");
        }
        let record = InotifyRecord::first(&whole).expect("it is whole");
        assert_eq!((record.len, record.name), (whole.len(), b"name".as_slice()));
    }
}
