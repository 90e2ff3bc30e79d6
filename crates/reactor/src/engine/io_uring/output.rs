//! Output: one send for each stream, queued for the call that ends the turn.
//!
//! The bytes stay in the queue that the runtime handed over. The table keeps it until the kernel is done with
//! it.
#![allow(unsafe_code)]

use std::{
    io::{self, IoSlice},
    mem, ptr,
};

use io_uring::{opcode, squeue, types::Fd};
use session::Outgoing;

use super::{
    IoUring,
    operation::{Kind, Tag},
    ring::Completion,
    table::{AWAITED, CALLED_OUTPUT, CLOSING, DETACHING, Entry, OutputState},
};
use crate::{
    engine::{Event, Sent, entry::EntryKind},
    id::Key,
    sys,
};

impl IoUring {
    /// Begins a send, or refuses it at once.
    #[inline]
    pub(super) fn begin_send(&mut self, key: Key, queue: Box<Outgoing>) -> Option<Sent> {
        let Some(index) = self.table.find(key) else { return refused(queue, io::ErrorKind::NotFound) };
        let Some(entry) = self.table.get_mut(index) else { return refused(queue, io::ErrorKind::NotFound) };
        match entry.kind {
            EntryKind::Listener | EntryKind::Refused => return refused(queue, io::ErrorKind::NotConnected),
            EntryKind::Watched | EntryKind::Datagrams => return refused(queue, io::ErrorKind::InvalidInput),
            _ if entry.queue.is_some() => return refused(queue, io::ErrorKind::InvalidInput),
            _ if queue.is_empty() => return Some(Sent { queue, result: Ok(0) }),
            EntryKind::Connecting | EntryKind::Stream => entry.queue = Some(queue),
        }
        // If a wait for room is in flight, the send follows when there is room.
        if entry.kind == EntryKind::Connecting || entry.output != OutputState::Idle {
            None
        } else {
            self.launch(index)
        }
    }

    /// Hands the entry's queue to the kernel. If the engine must use a call instead, the send may finish at
    /// once.
    #[inline]
    pub(super) fn launch(&mut self, index: u32) -> Option<Sent> {
        let IoUring { table, ring, headers, operations, .. } = self;
        let entry = table.get_mut(index)?;
        if entry.has(CALLED_OUTPUT) || !operations.send {
            return self.call_send(index);
        }
        let operation = headers.send(Fd(entry.number()), entry.queue.as_ref()?);
        entry.output = OutputState::Sending;
        ring.start(operation, Tag::new(Kind::Send, entry.life, index));
        self.stir();
        None
    }

    /// Handles the completion of a send.
    #[inline]
    pub(super) fn sent(&mut self, index: u32, completion: Completion) -> Option<(Key, Event)> {
        self.ring.ended();
        let entry = self.table.get_mut(index)?;
        entry.output = OutputState::Idle;
        let key = entry.key;
        if entry.has(CLOSING) {
            if let (Some(queue), taken @ 1..) = (&mut entry.queue, completion.result) {
                queue.advance(taken as usize);
            }
            self.settle(index);
            return None;
        }
        let is_detaching = entry.has(DETACHING);
        let result = match completion.result {
            taken @ 1.. => {
                let queue = entry.queue.as_mut()?;
                queue.advance(taken as usize);
                Ok(taken as usize)
            }
            0 => Err(io::ErrorKind::WriteZero.into()),
            error => match -error {
                libc::ECANCELED | libc::EINTR | libc::EAGAIN if is_detaching => Ok(0),
                libc::ECANCELED | libc::EINTR | libc::EAGAIN => {
                    return self.launch(index).map(|sent| (key, Event::Sent(sent)));
                }
                libc::ENOTSOCK | libc::EOPNOTSUPP if !is_detaching => {
                    entry.set(CALLED_OUTPUT, true);
                    return self.launch(index).map(|sent| (key, Event::Sent(sent)));
                }
                error => Err(io::Error::from_raw_os_error(error)),
            },
        };
        let sent = self.give_back(index, result)?;
        if is_detaching {
            self.settle(index);
        }
        Some((key, Event::Sent(sent)))
    }

    /// Requests one report of room for a caller that writes past the engine. Refuses it while a send is in
    /// flight.
    pub(super) fn begin_room(&mut self, key: Key) -> bool {
        let Some(index) = self.table.find(key) else { return false };
        let is_free = |entry: &&mut Entry| entry.kind == EntryKind::Stream && entry.queue.is_none();
        let Some(entry) = self.table.get_mut(index).filter(is_free) else { return false };
        entry.set(AWAITED, true);
        if entry.output == OutputState::Idle {
            self.ring.start(entry.poll_output(), Tag::new(Kind::Writable, entry.life, index));
            self.stir();
        }
        true
    }

    /// Handles the end of a wait for room.
    pub(super) fn writable(&mut self, index: u32) -> Option<(Key, Event)> {
        self.ring.ended();
        let entry = self.table.get_mut(index)?;
        let is_queued = entry.kind == EntryKind::Datagrams || entry.has(AWAITED);
        entry.output = OutputState::Idle;
        entry.set(AWAITED, false);
        let key = entry.key;
        if entry.has(CLOSING) {
            self.settle(index);
            return None;
        }
        if entry.has(DETACHING) {
            let sent = self.give_back(index, Ok(0));
            self.settle(index);
            return sent.map(|sent| (key, Event::Sent(sent)));
        }
        let sent = self.call_send(index).map(|sent| (key, Event::Sent(sent)));
        if is_queued {
            self.queued.extend(sent);
            return Some((key, Event::Room));
        }
        sent
    }

    /// Sends by a call, once. If there is no room, waits for it.
    fn call_send(&mut self, index: u32) -> Option<Sent> {
        self.count_call();
        let IoUring { table, ring, .. } = self;
        let entry = table.get_mut(index)?;
        let result = match sys::offer(sys::borrow(entry.owned()?), entry.medium, entry.queue.as_ref()?) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                ring.start(entry.poll_output(), Tag::new(Kind::Writable, entry.life, index));
                self.stir();
                return None;
            }
            Ok(written) => {
                entry.queue.as_mut()?.advance(written.taken);
                Ok(written.taken)
            }
            Err(e) => Err(e),
        };
        self.give_back(index, result)
    }

    /// Returns the queue with the result. Records a failure that the system will not report to the read side
    /// again.
    fn give_back(&mut self, index: u32, result: io::Result<usize>) -> Option<Sent> {
        let entry = self.table.get_mut(index)?;
        if let Err(error) = &result
            // A broken pipe does not concern the read side. Any other error is the stream's end.
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            entry.failed = error_number(Some(error));
        }
        Some(Sent { queue: entry.queue.take()?, result })
    }
}

/// Returns the system's number of an error, or zero if there is none.
pub(super) fn error_number(error: Option<&io::Error>) -> u16 {
    error.and_then(io::Error::raw_os_error).and_then(|number| u16::try_from(number).ok()).unwrap_or(0)
}

fn refused(queue: Box<Outgoing>, kind: io::ErrorKind) -> Option<Sent> {
    Some(Sent { queue, result: Err(kind.into()) })
}

/// The headers of sends with many parts. Each is kept until the kernel has read it, which is when it has
/// taken the operation.
#[derive(Default)]
#[expect(clippy::vec_box, reason = "the kernel has their addresses")]
pub(super) struct Headers {
    used: Vec<Box<Header>>,
    free: Vec<Box<Header>>,
}

struct Header {
    message: libc::msghdr,
    parts: [libc::iovec; PARTS_MAX],
}

impl Headers {
    /// Builds the operation that sends the front of a queue: all of it, up to a limit of parts.
    #[inline]
    fn send(&mut self, to: Fd, queue: &Outgoing) -> squeue::Entry {
        let front = queue.front();
        if front.len() == queue.len() {
            let len = front.len().min(BYTES_MAX) as u32;
            return opcode::Send::new(to, front.as_ptr(), len).flags(libc::MSG_NOSIGNAL).build();
        }
        let message = self.message(queue);
        opcode::SendMsg::new(to, message).flags(libc::MSG_NOSIGNAL as u32).build()
    }

    fn message(&mut self, queue: &Outgoing) -> *const libc::msghdr {
        let mut slices = [IoSlice::new(&[]); PARTS_MAX];
        let count = queue.slices(&mut slices);
        let mut header = self.free.pop().unwrap_or_else(|| Box::new(Header::new()));
        for (part, slice) in header.parts.iter_mut().zip(&slices[..count]) {
            *part = libc::iovec { iov_base: slice.as_ptr().cast_mut().cast(), iov_len: slice.len() };
        }
        header.message.msg_iov = header.parts.as_mut_ptr();
        header.message.msg_iovlen = count as _;
        let message = &raw const header.message;
        self.used.push(header);
        message
    }

    /// Takes the headers back, because the kernel has taken all queued operations.
    pub(super) fn release(&mut self) {
        if !self.used.is_empty() {
            self.free.append(&mut self.used);
            self.free.truncate(HEADERS_MAX);
        }
    }

    /// Leaks the headers that the kernel may still read.
    pub(super) fn leak(&mut self) {
        mem::take(&mut self.used).into_iter().for_each(mem::forget);
    }
}

impl Header {
    fn new() -> Header {
        // SAFETY: all zeroes is a valid msghdr: null pointers with lengths of zero.
        let message = unsafe { mem::zeroed() };
        Header { message, parts: [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; PARTS_MAX] }
    }
}

/// The most parts of a queue that one send takes: a page of the kernel's memory for their addresses.
const PARTS_MAX: usize = 64;
/// The most bytes that one send takes.
const BYTES_MAX: usize = 1 << 30;
/// The most headers that are kept.
const HEADERS_MAX: usize = 64;
