//! Notes on a node's disk: each operation completes once, and every later life finds the synced notes.

use reactor::{
    Context, Error, Receive, Result,
    file::{File, OpenOptions, Opened, Operation},
};

use crate::scenario::peer::Peer;

/// The notes of one life: numbers of eight bytes, in order.
#[derive(Default)]
pub(crate) struct Notes {
    file: Option<File>,
    /// It has read its notes, and no operation is in flight.
    is_idle: bool,
}

pub(crate) struct Open(Result<Opened, Error>);
pub(crate) struct Named(Result<(), Error>);
pub(crate) struct Found(Result<Vec<u8>, Error>);
pub(crate) struct Written(Result<(), Error>);
/// A note that was read while its sync was in flight, and its number.
pub(crate) struct Seen(u64, Result<Vec<u8>, Error>);
pub(crate) struct Synced(Result<(), Error>);

impl Peer {
    /// Opens the notes of former lives.
    pub(crate) fn open_notes(&mut self, cx: &mut Context<Self>) -> Result {
        let how = OpenOptions::with(|options| {
            options.read = true;
            options.write = true;
            options.create = true;
        });
        cx.file(Operation::open("/notes", how), Open)?;
        self.ledger().books[self.me].operations += 1;
        Ok(())
    }

    /// Writes the next note, if the one before is safe.
    pub(crate) fn note(&mut self, cx: &mut Context<Self>) -> Result {
        let Some(file) = self.notes.file.as_ref().filter(|_| self.notes.is_idle) else { return Ok(()) };
        let next = self.ledger().books[self.me].notes;
        cx.file(Operation::write_at(file, next * 8, (next + 1).to_le_bytes()), Written)?;
        self.notes.is_idle = false;
        self.ledger().books[self.me].operations += 1;
        Ok(())
    }

    /// Counts a completion, and returns its result.
    fn answered<T>(&mut self, what: &str, result: Result<T, Error>) -> Result<T> {
        let me = self.me;
        let mut ledger = self.ledger();
        let operations = &mut ledger.books[me].operations;
        let (is_due, left) = (*operations > 0, operations.saturating_sub(1));
        *operations = left;
        ledger.must(is_due, || format!("node {me}: the answer to a {what} that nobody asked for"));
        if let Err(error) = &result {
            ledger.violate(|| format!("node {me}: {error}, of a disk that does not fail"));
        }
        Ok(result?)
    }

    fn notes_file(&self) -> Result<&File> {
        Ok(self.notes.file.as_ref().ok_or("the notes were opened first")?)
    }
}

impl Receive<Open> for Peer {
    fn receive(&mut self, cx: &mut Context<Self>, Open(opened): Open) -> Result {
        self.notes.file = Some(self.answered("open", opened)?.file);
        cx.file(Operation::sync_directory("/"), Named)?;
        self.ledger().books[self.me].operations += 1;
        Ok(())
    }
}

impl Receive<Named> for Peer {
    fn receive(&mut self, cx: &mut Context<Self>, Named(result): Named) -> Result {
        self.answered("sync of a directory", result)?;
        cx.file(Operation::read_at(self.notes_file()?, 0, NOTES_MAX), Found)?;
        self.ledger().books[self.me].operations += 1;
        Ok(())
    }
}

impl Receive<Found> for Peer {
    fn receive(&mut self, _: &mut Context<Self>, Found(result): Found) -> Result {
        let bytes = self.answered("read", result)?;
        let me = self.me;
        let mut ledger = self.ledger();
        let notes = ledger.books[me].notes;
        let found =
            (1..).zip(bytes.chunks(8)).take_while(|(number, note)| *note == u64::to_le_bytes(*number));
        let found = found.count() as u64;
        ledger.must(found >= notes, || format!("node {me}: {found} of {notes} notes that were synced"));
        if found > notes {
            ledger.sometimes("a note was there that nobody had waited for");
        }
        drop(ledger);
        self.notes.is_idle = true;
        Ok(())
    }
}

impl Receive<Written> for Peer {
    fn receive(&mut self, cx: &mut Context<Self>, Written(result): Written) -> Result {
        self.answered("write", result)?;
        let number = self.ledger().books[self.me].notes + 1;
        cx.file(Operation::sync(self.notes_file()?), Synced)?;
        let read = Operation::read_at(self.notes_file()?, number * 8 - 8, 8);
        cx.file(read, move |result| Seen(number, result))?;
        self.ledger().books[self.me].operations += 2;
        Ok(())
    }
}

impl Receive<Seen> for Peer {
    fn receive(&mut self, _: &mut Context<Self>, Seen(number, result): Seen) -> Result {
        let bytes = self.answered("read", result)?;
        let me = self.me;
        let mut ledger = self.ledger();
        ledger.must(*bytes == number.to_le_bytes(), || {
            format!("node {me}: {bytes:?} where note {number} was written")
        });
        if ledger.books[me].notes >= number {
            ledger.sometimes("a read was overtaken by a sync");
        }
        Ok(())
    }
}

impl Receive<Synced> for Peer {
    fn receive(&mut self, _: &mut Context<Self>, Synced(result): Synced) -> Result {
        self.answered("sync", result)?;
        self.ledger().books[self.me].notes += 1;
        self.notes.is_idle = true;
        Ok(())
    }
}

/// More notes than a run makes.
const NOTES_MAX: usize = 1 << 20;
