//! The names of a disk: the current ones, the durable ones, and the journal between them.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    path::{Component, Path},
};

use crate::faults::chance::Chance;

/// The target of a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Named {
    File(u64),
    Directory,
}

type Table = BTreeMap<String, Named>;

/// Names by their path from the root, `a/b/c`. The root is the empty path, and always exists.
#[derive(Default)]
pub(super) struct Names {
    seen: Table,
    safe: Table,
    /// The changes from the durable names to the current ones, in order. A power cut keeps each one whole or
    /// not at all.
    journal: Vec<Vec<(String, Option<Named>)>>,
}

impl Names {
    pub(super) fn get(&self, path: &str) -> Option<Named> {
        if path.is_empty() { Some(Named::Directory) } else { self.seen.get(path).copied() }
    }

    /// Returns whether any name refers to this file, even one that a power cut may bring back.
    pub(super) fn names(&self, number: u64) -> bool {
        let file = Named::File(number);
        let journal = self.journal.iter().flatten().filter_map(|(_, named)| *named);
        let mut all = self.seen.values().chain(self.safe.values()).copied().chain(journal);
        all.any(|named| named == file)
    }

    /// Returns the parent directory of a path, if it exists.
    pub(super) fn parent_of(&self, path: &str) -> io::Result<String> {
        let parent = parent(path);
        match self.get(parent) {
            Some(Named::Directory) => Ok(parent.to_owned()),
            Some(Named::File(_)) => Err(ErrorKind::NotADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn set(&mut self, path: &str, named: Option<Named>) {
        self.change(vec![(path.to_owned(), named)]);
    }

    /// Moves a name, and all names beneath it.
    pub(super) fn rename(&mut self, from: &str, to: &str) {
        let beneath = format!("{from}/");
        let moved = self.seen.iter().filter(|(path, _)| *path == from || path.starts_with(&beneath));
        let moved: Vec<(String, Named)> = moved.map(|(path, named)| (path.clone(), *named)).collect();
        let gone = moved.iter().map(|(path, _)| (path.clone(), None));
        let come = moved.iter().map(|(path, named)| (format!("{to}{}", &path[from.len()..]), Some(*named)));
        self.change(gone.chain(come).collect());
    }

    fn change(&mut self, change: Vec<(String, Option<Named>)>) {
        apply(&change, &mut self.seen);
        self.journal.push(change);
    }

    /// Lists the entries of a directory.
    pub(super) fn list(&self, directory: &str) -> impl Iterator<Item = (&str, Named)> {
        self.seen
            .iter()
            .filter(move |(path, _)| parent(path) == directory)
            .map(move |(path, named)| (path[directory.len()..].trim_start_matches('/'), *named))
    }

    /// Makes the names of a directory durable, together with all earlier changes, as a journal does.
    pub(super) fn sync(&mut self, directory: &str) {
        let is_in =
            |change: &Vec<(String, Option<Named>)>| change.iter().any(|(path, _)| parent(path) == directory);
        let Some(last) = self.journal.iter().rposition(is_in) else { return };
        for change in self.journal.drain(..=last) {
            apply(&change, &mut self.safe);
        }
    }

    /// Makes all names durable.
    pub(super) fn sync_all(&mut self) {
        for change in self.journal.drain(..) {
            apply(&change, &mut self.safe);
        }
    }

    /// Loses the newest of the changes that are not durable. Returns their number.
    pub(super) fn cut(&mut self, chance: &mut Chance) -> usize {
        let kept = chance.below(self.journal.len() as u64 + 1) as usize;
        let lost = self.journal.len() - kept;
        for change in self.journal.drain(..).take(kept) {
            apply(&change, &mut self.safe);
        }
        self.seen = self.safe.clone();
        lost
    }
}

fn apply(change: &[(String, Option<Named>)], to: &mut Table) {
    for (path, named) in change {
        match named {
            Some(named) => _ = to.insert(path.clone(), *named),
            None => _ = to.remove(path),
        }
    }
}

pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// Returns the path from the root. A relative path begins there, too.
pub(super) fn normal(path: &Path) -> io::Result<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => parts.push(name.to_str().ok_or(ErrorKind::InvalidFilename)?),
            Component::ParentDir => _ = parts.pop(),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => (),
        }
    }
    Ok(parts.join("/"))
}

/// Returns the path from the root of a path beneath a directory. A path that leads out of the directory fails
/// with EXDEV.
pub(super) fn beneath(root: &Path, path: &Path) -> io::Result<String> {
    let mut depth = 0_u32;
    for part in path.components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::ParentDir if depth > 0 => depth -= 1,
            Component::CurDir => (),
            _ => return Err(ErrorKind::CrossesDevices.into()),
        }
    }
    normal(&root.join(path))
}
