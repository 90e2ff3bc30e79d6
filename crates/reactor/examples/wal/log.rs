//! A write-ahead log as a service: records with a checksum, acknowledged when they are safe.

use reactor::file::{File, FileWriter, OpenOptions, Opened, Operation, WriterEvent};
use reactor::{Closed, Context, Error, Fault, Flow, Handle, Id, Receive, Reply, Result, Service};
use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    time::Duration,
};

/// The log. It starts with the records that it finds in its file.
pub(crate) struct Log {
    path: PathBuf,
    file: Option<File>,
    /// The records of earlier lives, and their bytes in the file.
    records: Vec<Vec<u8>>,
    end: usize,
    writer: Option<Id<FileWriter>>,
    /// Requests and questions that came before the log was open.
    early: Vec<Append>,
    readers: Vec<Found>,
    next: u64,
    /// How many bytes of this life were sent to the writer.
    sent: u64,
    /// Where each record ends that is not safe yet, its number, and its caller.
    waiting: VecDeque<(u64, u64, Reply<u64>)>,
    is_full: bool,
}

/// Asks to append a record. The answer is its number, once it is safe.
pub(crate) struct Append {
    pub(crate) body: Vec<u8>,
    pub(crate) reply: Reply<u64>,
}

/// Asks for the records that the log found when it was opened.
pub(crate) struct Found(pub(crate) Reply<Vec<Vec<u8>>>);

struct Open(Result<Opened, Error>);
struct Read(Result<Vec<u8>, Error>);
struct Done(Step, Result<(), Error>);

/// The steps that make a log ready that was read.
#[derive(Clone, Copy)]
enum Step {
    Rewritten,
    Cut,
    Synced,
    Named,
}

impl Log {
    /// Makes a log in this file, which need not exist. Its directory must.
    pub(crate) fn new(path: &Path) -> Log {
        Log {
            path: path.to_owned(),
            file: None,
            records: Vec::new(),
            end: 0,
            writer: None,
            early: Vec::new(),
            readers: Vec::new(),
            next: 0,
            sent: 0,
            waiting: VecDeque::new(),
            is_full: false,
        }
    }

    fn file(&self) -> Result<&File> {
        Ok(self.file.as_ref().ok_or("the log is not open")?)
    }

    fn append(&mut self, cx: &mut Context<Self>, Append { body, reply }: Append) {
        let Some(writer) = self.writer else {
            if self.early.len() < EARLY_MAX {
                self.early.push(Append { body, reply });
            }
            return;
        };
        // A dropped reply is an answer, too: the caller gets `Unanswered`.
        if self.is_full || body.is_empty() || body.len() > BODY_MAX {
            return;
        }
        let record = record(self.next, &body);
        let flow = cx.send(writer, &record);
        if flow == Flow::Gone {
            return;
        }
        self.is_full = flow == Flow::High;
        cx.get_mut(writer).map(FileWriter::sync);
        self.sent += record.len() as u64;
        self.waiting.push_back((self.sent, self.next, reply));
        self.next += 1;
    }

    /// Answers for everything up to this byte of this life.
    fn acknowledge(&mut self, safe: u64) {
        let count = self.waiting.partition_point(|(end, ..)| *end <= safe);
        for (_, number, reply) in self.waiting.drain(..count) {
            reply.send(number);
        }
    }

    /// Ends the program. Dropped replies tell the callers that there is no answer.
    fn fail(&mut self, cx: &mut Context<Self>, why: &dyn std::fmt::Display) {
        eprintln!("the log has failed: {why}");
        self.waiting.clear();
        self.early.clear();
        self.readers.clear();
        cx.stop(Duration::ZERO);
    }
}

impl Service for Log {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let options = OpenOptions::with(|options| {
            options.read = true;
            options.write = true;
            options.create = true;
        });
        cx.file(Operation::open(&self.path, options), Open)?;
        Ok(())
    }

    /// The errors of the receivers below come here.
    fn fault(&mut self, cx: &mut Context<Self>, fault: Fault) {
        self.fail(cx, &fault);
    }
}

impl Receive<Open> for Log {
    fn receive(&mut self, cx: &mut Context<Self>, Open(opened): Open) -> Result {
        let Opened { file, metadata, .. } = opened?;
        cx.file(Operation::read_at(&file, 0, usize::try_from(metadata.len)?), Read)?;
        self.file = Some(file);
        Ok(())
    }
}

impl Receive<Read> for Log {
    fn receive(&mut self, cx: &mut Context<Self>, Read(bytes): Read) -> Result {
        let mut bytes = bytes?;
        (self.records, self.end) = replay(&bytes);
        self.next = self.records.len() as u64;
        bytes.truncate(self.end);
        let write = Operation::write_at(self.file()?, 0, bytes);
        cx.file(write, |result| Done(Step::Rewritten, result))?;
        Ok(())
    }
}

impl Receive<Done> for Log {
    fn receive(&mut self, cx: &mut Context<Self>, Done(step, result): Done) -> Result {
        result?;
        let (operation, next) = match step {
            Step::Rewritten => (Operation::set_len(self.file()?, self.end as u64), Step::Cut),
            Step::Cut => (Operation::sync(self.file()?), Step::Synced),
            Step::Synced => {
                let directory = self.path.parent().ok_or("a log lies in a directory")?;
                (Operation::sync_directory(directory), Step::Named)
            }
            Step::Named => {
                let writer = FileWriter::new(self.file()?.clone()).at(self.end as u64).synced(true);
                self.writer = Some(cx.add(writer)?);
                for early in std::mem::take(&mut self.early) {
                    self.append(cx, early);
                }
                for Found(reply) in std::mem::take(&mut self.readers) {
                    reply.send(self.records.clone());
                }
                return Ok(());
            }
        };
        cx.file(operation, move |result| Done(next, result))?;
        Ok(())
    }
}

impl Receive<Append> for Log {
    fn receive(&mut self, cx: &mut Context<Self>, append: Append) -> Result {
        self.append(cx, append);
        Ok(())
    }
}

impl Handle<FileWriter> for Log {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<FileWriter>, event: WriterEvent) -> Result {
        match event {
            WriterEvent::Synced(safe) => self.acknowledge(safe),
            WriterEvent::Drained => self.is_full = false,
        }
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<Self>, _: Id<FileWriter>, _: FileWriter, why: Closed) {
        match why {
            // A stop closed the writer: all is written and synced.
            Closed::Done => self.acknowledge(u64::MAX),
            why => self.fail(cx, &why),
        }
    }
}

impl Receive<Found> for Log {
    fn receive(&mut self, _: &mut Context<Self>, Found(reply): Found) -> Result {
        if self.writer.is_some() {
            reply.send(self.records.clone());
        } else if self.readers.len() < EARLY_MAX {
            self.readers.push(Found(reply));
        }
        Ok(())
    }
}

/// Returns the bytes of a record: its length, its checksum, its body.
fn record(number: u64, body: &[u8]) -> Vec<u8> {
    let mut record = (body.len() as u32).to_le_bytes().to_vec();
    record.extend(checksum(number, body).to_le_bytes());
    record.extend_from_slice(body);
    record
}

/// Returns the whole records at the beginning, and where they end.
fn replay(log: &[u8]) -> (Vec<Vec<u8>>, usize) {
    let (mut records, mut end) = (Vec::new(), 0);
    while let Some((len, sum)) = head(&log[end..]) {
        let Some(body) = log[end + HEAD..].get(..len) else { break };
        // Zeros are no record: a file may end in them after a power cut.
        if len == 0 || len > BODY_MAX || checksum(records.len() as u64, body) != sum {
            break;
        }
        records.push(body.to_vec());
        end += HEAD + len;
    }
    (records, end)
}

fn head(log: &[u8]) -> Option<(usize, u32)> {
    let (len, rest) = log.split_first_chunk::<4>()?;
    let (sum, _) = rest.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*len) as usize, u32::from_le_bytes(*sum)))
}

/// CRC-32 of the number and the body.
fn checksum(number: u64, body: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
    let byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), step);
    !number.to_le_bytes().iter().chain(body).fold(!0, byte)
}

/// The most bytes of a record.
const BODY_MAX: usize = 1 << 20;
const HEAD: usize = 8;
/// How many requests, and how many questions, may come before the log is open.
const EARLY_MAX: usize = 1_024;
