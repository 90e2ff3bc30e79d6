//! The service: finds the files that a change concerns, and looks at them one after the other.

use std::{ffi::OsString, io, path::PathBuf, process::ExitCode, time::Duration};

use reactor::{
    Context, Handle, Id, Receive, Result, Service,
    watch::{Change, Changes, Subject, Watch, WatchFor, WatchId},
};

use crate::follow::{Followed, Found};

/// Follows files. Ends when standard output fails.
struct Tail {
    slots: Vec<Slot>,
    watch: Option<Id<Watch>>,
    is_looking: bool,
    /// The file whose header was shown last.
    shown: Option<usize>,
    /// A folder is not watched, and the timer for the next attempt is set.
    is_retrying: bool,
    status: Option<ExitCode>,
}

struct Slot {
    /// The place of the path, and the place to which a symbolic link leads.
    places: Vec<Place>,
    /// The watch of the file itself. It covers the target of a symbolic link, and a renamed file to its end.
    file: Option<WatchId>,
    /// `None` during a look.
    followed: Option<Followed>,
    is_due: bool,
}

struct Place {
    folder: PathBuf,
    name: OsString,
    watch: Option<WatchId>,
    /// The path may name another folder by now.
    is_stale: bool,
}

/// A finished look.
struct Looked {
    number: usize,
    followed: Followed,
    found: Found,
}

/// Timer: try again to watch missing folders.
struct Retry;

impl Slot {
    fn new(path: PathBuf) -> Option<Slot> {
        let (folder, name) = Followed::place(&path)?;
        Some(Slot {
            places: vec![Place { folder, name, watch: None, is_stale: true }],
            file: None,
            followed: Some(Followed::new(path)),
            is_due: true,
        })
    }

    fn is_about(&self, entry: Subject<'_>) -> bool {
        let here = |place: &Place| place.watch == Some(entry.watch) && place.name == entry.name;
        self.file == Some(entry.watch) || self.places.iter().any(here)
    }

    fn uses(&self, watch: WatchId) -> bool {
        self.file == Some(watch) || self.places.iter().any(|place| place.watch == Some(watch))
    }
}

impl Place {
    fn is_same(&self, other: &Place) -> bool {
        (&self.folder, &self.name) == (&other.folder, &other.name)
    }
}

impl Tail {
    /// Begins the next look that is due, if none is running.
    fn go(&mut self, cx: &mut Context<Self>) -> Result {
        let due = self.slots.iter().position(|slot| slot.is_due && slot.followed.is_some());
        let (Some(number), false) = (due, self.is_looking) else { return Ok(()) };
        let slot = &mut self.slots[number];
        let Some(mut followed) = slot.followed.take() else { return Ok(()) };
        slot.is_due = false;
        let with_header = self.slots.len() > 1 && self.shown != Some(number);
        self.is_looking = true;
        cx.offload(move || {
            let found = followed.look(with_header);
            Looked { number, followed, found }
        })
        .map_err(|_| "the pool is full, with one job")?;
        Ok(())
    }

    fn note(&mut self, change: Change<'_>) {
        match change {
            Change::Overflow => self.slots.iter_mut().for_each(|slot| slot.is_due = true),
            Change::Moved { from, to } => [from, to].into_iter().for_each(|entry| self.note_entry(entry)),
            Change::Ended { watch, .. } => self.forget(watch, true),
            Change::Relocated(watch) => self.forget(watch, false),
            Change::Created(entry)
            | Change::Modified(entry)
            | Change::Attributes(entry)
            | Change::Deleted(entry)
            | Change::MovedOut(entry)
            | Change::MovedIn(entry) => self.note_entry(entry),
            _ => (),
        }
    }

    fn note_entry(&mut self, entry: Subject<'_>) {
        for slot in &mut self.slots {
            slot.is_due |= slot.is_about(entry);
        }
    }

    /// Forgets the watch of a folder that has gone or moved. A renamed file is still watched.
    fn forget(&mut self, watch: WatchId, is_over: bool) {
        for slot in &mut self.slots {
            slot.is_due |= slot.file == Some(watch);
            if is_over && slot.file == Some(watch) {
                slot.file = None;
            }
            for place in slot.places.iter_mut().filter(|place| place.watch == Some(watch)) {
                (place.watch, place.is_stale, slot.is_due) = (None, true, true);
            }
        }
    }

    /// Watches each folder that may have been replaced. Tries missing folders again from time to time.
    fn watch_folders(&mut self, cx: &mut Context<Self>) {
        let Some(watch) = self.watch.and_then(|id| cx.get_mut(id)) else { return };
        // Attributes, because a file may also become readable.
        let names = WatchFor { entries: true, attributes: true, ..WatchFor::NOTHING };
        let (mut is_missing, mut left) = (false, Vec::new());
        for slot in &mut self.slots {
            for place in slot.places.iter_mut().filter(|place| place.is_stale) {
                let now = watch.add_for(&place.folder, names).ok();
                if now != place.watch {
                    left.extend(std::mem::replace(&mut place.watch, now));
                    slot.is_due = true;
                }
                place.is_stale = now.is_none();
                is_missing |= now.is_none();
            }
        }
        self.remove_unused(watch, left);
        if is_missing && !std::mem::replace(&mut self.is_retrying, true) {
            cx.after(RETRY, Retry);
        }
    }

    fn remove_unused(&self, watch: &mut Watch, ids: impl IntoIterator<Item = WatchId>) {
        for id in ids {
            if !self.slots.iter().any(|slot| slot.uses(id)) {
                watch.remove(id);
            }
        }
    }

    /// Watches a newly opened file instead of the old one, and also the folder that really contains it.
    fn opened(&mut self, cx: &mut Context<Self>, number: usize, real: PathBuf) {
        let Some(watch) = self.watch.and_then(|id| cx.get_mut(id)) else { return };
        let slot = &mut self.slots[number];
        let old = slot.file.take();
        let content = WatchFor { modified: true, attributes: true, ..WatchFor::NOTHING };
        let open = slot.followed.as_ref().and_then(Followed::open_path);
        slot.file = open.and_then(|open| watch.add_for(open, content).ok());
        let place =
            Followed::place(&real).map(|(folder, name)| Place { folder, name, watch: None, is_stale: true });
        let left = match place {
            Some(place) if slot.places.get(1).is_none_or(|old| !old.is_same(&place)) => {
                let left = slot.places.drain(1..).next().and_then(|old| old.watch);
                slot.places.push(place);
                left
            }
            _ => None,
        };
        // Look once more for changes from before the new watch.
        slot.is_due = true;
        self.remove_unused(watch, old.into_iter().chain(left));
        self.watch_folders(cx);
    }
}

impl Service for Tail {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        self.watch = Some(cx.add(Watch::new()?)?);
        self.watch_folders(cx);
        self.go(cx)
    }
}

impl Handle<Watch> for Tail {
    fn handle(&mut self, cx: &mut Context<Self>, _: Id<Watch>, changes: Changes<'_>) -> Result {
        changes.for_each(|change| self.note(change));
        self.watch_folders(cx);
        self.go(cx)
    }
}

impl Receive<Looked> for Tail {
    fn receive(&mut self, cx: &mut Context<Self>, looked: Looked) -> Result {
        let Looked { number, followed, found } = looked;
        self.is_looking = false;
        let slot = &mut self.slots[number];
        slot.followed = Some(followed);
        slot.is_due |= found.more;
        if found.has_printed {
            self.shown = Some(number);
        }
        if let Some(error) = found.failed {
            let is_reader_gone = error.kind() == io::ErrorKind::BrokenPipe;
            if !is_reader_gone {
                eprintln!("tail_follow: standard output: {error}");
            }
            self.status = Some(if is_reader_gone { ExitCode::SUCCESS } else { ExitCode::FAILURE });
            cx.stop(Duration::ZERO);
            return Ok(());
        }
        let slot = &mut self.slots[number];
        slot.places.iter_mut().for_each(|place| place.is_stale |= found.is_missing);
        self.watch_folders(cx);
        if let Some(real) = found.opened {
            self.opened(cx, number, real);
        }
        self.go(cx)
    }
}

impl Receive<Retry> for Tail {
    fn receive(&mut self, cx: &mut Context<Self>, _: Retry) -> Result {
        self.is_retrying = false;
        self.watch_folders(cx);
        self.go(cx)
    }
}

/// Follows these files until standard output ends.
pub(crate) fn run(paths: Vec<PathBuf>) -> ExitCode {
    if paths.is_empty() {
        eprintln!("tail_follow: at least one file is needed: tail_follow FILE...");
        return ExitCode::from(2);
    }
    let mut slots = Vec::new();
    for path in paths {
        let Some(slot) = Slot::new(path.clone()).filter(|slot| slot.places[0].folder.is_dir()) else {
            eprintln!("tail_follow: {}: its folder is not there", path.display());
            return ExitCode::from(2);
        };
        slots.push(slot);
    }
    let tail = Tail { slots, watch: None, is_looking: false, shown: None, is_retrying: false, status: None };
    match follow(tail) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("tail_follow: {error}");
            ExitCode::FAILURE
        }
    }
}

fn follow(tail: Tail) -> Result<ExitCode, reactor::Error> {
    let mut runtime = reactor::Runtime::new()?;
    let id = runtime.add(tail)?;
    while !runtime.is_over() {
        runtime.turn(None)?;
    }
    let status = runtime.service(id).and_then(|tail| tail.status);
    Ok(status.unwrap_or(ExitCode::FAILURE))
}

/// How often to look for a missing folder, because no event reports that it exists again.
const RETRY: Duration = Duration::from_secs(1);
