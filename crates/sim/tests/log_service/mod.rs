//! A small write-ahead log: records with a checksum, appended and synced, and read back at the start.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
    rc::Rc,
};

use reactor::{
    Context, Error, Fault, Receive, Result, Service,
    file::{File, OpenOptions, Opened, Operation},
};

/// The state that outlives the log: its promises, and the findings of its lives.
#[derive(Default)]
pub(crate) struct Outside {
    /// How many records were acknowledged, counted from the first.
    pub(crate) acknowledged: u64,
    /// How often it started and had read its log.
    pub(crate) recovered: u64,
    /// Acknowledged records that were missing later.
    pub(crate) lost: u64,
    /// Lives that found the end of the log torn.
    pub(crate) torn: u64,
    pub(crate) faults: Vec<String>,
    /// The log rests after this many records.
    pub(crate) enough: Option<u64>,
}

/// The log of one life.
pub(crate) struct Log {
    outside: Rc<RefCell<Outside>>,
    directory: PathBuf,
    /// Whether its acknowledged records are synced. The test must notice a log that does not sync.
    syncs: bool,
    file: Option<File>,
    /// The position and the number of the next record.
    end: u64,
    next: u64,
    /// The number of records in the write that is in flight.
    batch: u64,
}

struct Opening(Result<Opened, Error>);
struct Named(Result<(), Error>);
struct Recovered(Result<Vec<u8>, Error>);
struct Rewritten(Result<(), Error>);
struct Cut(Result<(), Error>);
struct Written(Result<(), Error>);
struct Synced(Result<(), Error>);

impl Log {
    pub(crate) fn new(outside: Rc<RefCell<Outside>>, directory: &Path, syncs: bool) -> Log {
        Log { outside, directory: directory.to_owned(), syncs, file: None, end: 0, next: 0, batch: 0 }
    }

    fn file(&self) -> Result<&File> {
        Ok(self.file.as_ref().ok_or("the log is not open")?)
    }

    fn write_some(&mut self, cx: &mut Context<Self>) -> Result {
        self.batch = cx.random() % 4 + 1;
        let mut bytes = Vec::new();
        for number in self.next..self.next + self.batch {
            // Records differ in length, so that a write may end anywhere.
            let body = format!("record {number}").repeat((number % 3) as usize + 1);
            bytes.extend((body.len() as u32).to_le_bytes());
            bytes.extend(checksum(number, body.as_bytes()).to_le_bytes());
            bytes.extend(body.as_bytes());
        }
        let (offset, len) = (self.end, bytes.len() as u64);
        self.end += len;
        cx.file(Operation::write_at(self.file()?, offset, bytes), Written)?;
        Ok(())
    }

    fn acknowledge(&mut self, cx: &mut Context<Self>) -> Result {
        self.next += self.batch;
        self.outside.borrow_mut().acknowledged = self.next;
        let enough = self.outside.borrow().enough;
        if enough.is_some_and(|enough| self.next >= enough) { Ok(()) } else { self.write_some(cx) }
    }
}

impl Service for Log {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let how = OpenOptions::with(|options| {
            options.read = true;
            options.write = true;
            options.create = true;
        });
        cx.file(Operation::open(self.directory.join("log"), how), Opening)?;
        Ok(())
    }

    fn fault(&mut self, _: &mut Context<Self>, fault: Fault) {
        self.outside.borrow_mut().faults.push(fault.to_string());
    }
}

impl Receive<Opening> for Log {
    fn receive(&mut self, cx: &mut Context<Self>, Opening(opened): Opening) -> Result {
        self.file = Some(opened?.file);
        // The name must be as durable as the content will be.
        match self.syncs {
            true => cx.file(Operation::sync_directory(&self.directory), Named)?,
            false => self.receive(cx, Named(Ok(())))?,
        }
        Ok(())
    }
}

impl Receive<Named> for Log {
    fn receive(&mut self, cx: &mut Context<Self>, Named(result): Named) -> Result {
        result?;
        cx.file(Operation::read_at(self.file()?, 0, 1 << 24), Recovered)?;
        Ok(())
    }
}

impl Receive<Recovered> for Log {
    fn receive(&mut self, cx: &mut Context<Self>, Recovered(bytes): Recovered) -> Result {
        let mut bytes = bytes?;
        (self.next, self.end) = replay(&bytes);
        let mut outside = self.outside.borrow_mut();
        outside.recovered += 1;
        outside.torn += u64::from(self.end < bytes.len() as u64);
        // Records that were written but not acknowledged may exist. Acknowledged ones must.
        outside.lost += outside.acknowledged.saturating_sub(self.next);
        outside.acknowledged = outside.acknowledged.min(self.next);
        drop(outside);
        // Write the log again, because readable data is not always safe after a crash or a failed sync.
        bytes.truncate(self.end as usize);
        cx.file(Operation::write_at(self.file()?, 0, bytes), Rewritten)?;
        Ok(())
    }
}

impl Receive<Rewritten> for Log {
    fn receive(&mut self, cx: &mut Context<Self>, Rewritten(result): Rewritten) -> Result {
        result?;
        cx.file(Operation::set_len(self.file()?, self.end), Cut)?;
        Ok(())
    }
}

impl Receive<Cut> for Log {
    fn receive(&mut self, cx: &mut Context<Self>, Cut(result): Cut) -> Result {
        result?;
        self.batch = 0;
        self.receive(cx, Written(Ok(())))
    }
}

impl Receive<Written> for Log {
    fn receive(&mut self, cx: &mut Context<Self>, Written(result): Written) -> Result {
        result?;
        if !self.syncs {
            return self.acknowledge(cx);
        }
        cx.file(Operation::sync(self.file()?), Synced)?;
        Ok(())
    }
}

impl Receive<Synced> for Log {
    fn receive(&mut self, cx: &mut Context<Self>, Synced(result): Synced) -> Result {
        // After a failed sync, only a new read shows the state of the log, so this life ends.
        result?;
        self.acknowledge(cx)
    }
}

/// Counts the whole records at the beginning, and their bytes.
fn replay(bytes: &[u8]) -> (u64, u64) {
    let (mut count, mut end) = (0, 0);
    while let Some((head, rest)) = bytes[end..].split_at_checked(12) {
        let len = u32::from_le_bytes(head[..4].try_into().expect("four bytes")) as usize;
        let sum = u64::from_le_bytes(head[4..].try_into().expect("eight bytes"));
        match rest.get(..len) {
            Some(body) if len > 0 && checksum(count, body) == sum => {
                (count, end) = (count + 1, end + 12 + len)
            }
            _ => break,
        }
    }
    (count, end as u64)
}

/// Hashes a record and its number by FNV-1a, so that a record from another position is invalid.
fn checksum(number: u64, body: &[u8]) -> u64 {
    let all = number.to_le_bytes().into_iter().chain(body.iter().copied());
    all.fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
