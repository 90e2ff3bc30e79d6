//! A keeper of records of eight bytes each. It acknowledges a record when it believes it safe. Each of its
//! beliefs but one is a planted bug.

use std::{cell::RefCell, rc::Rc, time::Duration};

use reactor::{
    Context, Error, Receive, Result, Service,
    file::{File, OpenOptions, Opened, Operation},
};

/// When the keeper believes a record to be safe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Belief {
    /// A sync that started after the completion of the write has completed.
    Sync,
    /// The planted bug: some time has passed since the sync started, more than a fast disk needs.
    Time,
    /// The planted bug: the write completed before a sync did, whenever that sync started.
    Answer,
}

/// The state that outlives the keeper.
#[derive(Default)]
pub(crate) struct Outside {
    /// How many records it acknowledged, counted from the first.
    pub(crate) acknowledged: u64,
    /// How many of them were missing later, over all lives.
    pub(crate) lost: u64,
    /// How often it has read its file.
    pub(crate) lives: u64,
}

/// The keeper of one life.
pub(crate) struct Keeper {
    belief: Belief,
    outside: Rc<RefCell<Outside>>,
    file: Option<File>,
    /// `asked`: records whose write started. `written`: records whose write completed.
    asked: u64,
    written: u64,
    is_syncing: bool,
}

struct Open(Result<Opened, Error>);
struct Named(Result<(), Error>);
struct Recovered(Result<Vec<u8>, Error>);
struct Write;
struct Written(Result<(), Error>);
/// A sync, and the number of records that were written when it started.
struct Synced(u64, Result<(), Error>);
struct TimeIsUp(u64);

impl Keeper {
    pub(crate) fn new(belief: Belief, outside: Rc<RefCell<Outside>>) -> Keeper {
        Keeper { belief, outside, file: None, asked: 0, written: 0, is_syncing: false }
    }

    fn file(&self) -> Result<&File> {
        Ok(self.file.as_ref().ok_or("it was opened first")?)
    }

    fn acknowledge(&self, count: u64) {
        let mut outside = self.outside.borrow_mut();
        outside.acknowledged = outside.acknowledged.max(count);
    }
}

impl Service for Keeper {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let how = OpenOptions::with(|options| {
            options.read = true;
            options.write = true;
            options.create = true;
        });
        cx.file(Operation::open("/records", how), Open)?;
        Ok(())
    }
}

impl Receive<Open> for Keeper {
    fn receive(&mut self, cx: &mut Context<Self>, Open(opened): Open) -> Result {
        self.file = Some(opened?.file);
        cx.file(Operation::sync_directory("/"), Named)?;
        Ok(())
    }
}

impl Receive<Named> for Keeper {
    fn receive(&mut self, cx: &mut Context<Self>, Named(result): Named) -> Result {
        result?;
        cx.file(Operation::read_at(self.file()?, 0, 1 << 20), Recovered)?;
        Ok(())
    }
}

impl Receive<Recovered> for Keeper {
    fn receive(&mut self, cx: &mut Context<Self>, Recovered(bytes): Recovered) -> Result {
        let bytes = bytes?;
        let is_right = |(number, record): &(usize, &[u8])| *record == (*number as u64 + 1).to_le_bytes();
        let found = bytes.chunks(8).enumerate().take_while(is_right).count() as u64;
        let mut outside = self.outside.borrow_mut();
        outside.lost += outside.acknowledged.saturating_sub(found);
        (outside.acknowledged, outside.lives) = (outside.acknowledged.min(found), outside.lives + 1);
        // Only the records that it knows to be safe count. It writes the rest again.
        (self.asked, self.written) = (outside.acknowledged, outside.acknowledged);
        drop(outside);
        let after = Duration::from_micros(cx.random() % 3_000);
        cx.after(after, Write);
        Ok(())
    }
}

impl Receive<Write> for Keeper {
    fn receive(&mut self, cx: &mut Context<Self>, _: Write) -> Result {
        // One write at a time is in flight, perhaps with a sync beside it.
        let record = (self.asked + 1).to_le_bytes();
        cx.file(Operation::write_at(self.file()?, self.asked * 8, record), Written)?;
        self.asked += 1;
        Ok(())
    }
}

impl Receive<Written> for Keeper {
    fn receive(&mut self, cx: &mut Context<Self>, Written(result): Written) -> Result {
        result?;
        self.written = self.asked;
        if !self.is_syncing {
            self.is_syncing = true;
            let written = self.written;
            cx.file(Operation::sync(self.file()?), move |result| Synced(written, result))?;
            if self.belief == Belief::Time {
                cx.after(PATIENCE, TimeIsUp(written));
            }
        }
        let after = Duration::from_micros(cx.random() % 3_000);
        cx.after(after, Write);
        Ok(())
    }
}

impl Receive<Synced> for Keeper {
    fn receive(&mut self, _: &mut Context<Self>, Synced(written, result): Synced) -> Result {
        result?;
        self.is_syncing = false;
        match self.belief {
            Belief::Sync => self.acknowledge(written),
            Belief::Answer => self.acknowledge(self.written),
            Belief::Time => (),
        }
        Ok(())
    }
}

impl Receive<TimeIsUp> for Keeper {
    fn receive(&mut self, _: &mut Context<Self>, TimeIsUp(written): TimeIsUp) -> Result {
        self.acknowledge(written);
        Ok(())
    }
}

/// Many times the time of a disk without faults.
const PATIENCE: Duration = Duration::from_millis(20);
