//! Datagrams that the kernel receives by itself: one multishot recvmsg for each socket, into a separate group
//! of buffers.
//!
//! A buffer can hold the longest packet with its sender's name and the control messages. So there are few of
//! them, and the first socket makes them. A packet lies in its buffer until its datagrams have been handed
//! over. If all are lent, the engine waits for a socket and reads it by a call into other memory.
#![allow(unsafe_code)]

use std::{io, mem, rc::Rc};

use io_uring::{
    cqueue, opcode, squeue,
    types::{Fd, RecvMsgOut},
};

use super::{
    IoUring,
    buffers::{self, Provided, SharedBuffers},
    ring::{Completion, Ring},
    table::{CALLED_INPUT, CLOSING, InputState, STARVED},
};
use crate::{
    engine::Event,
    id::Key,
    sys::{
        self,
        datagram::{CONTROL_BYTES, NAME_BYTES, is_report, packet},
    },
};

/// The buffers of datagrams, and the header by which the kernel lays them out.
pub(super) struct RecvMsg {
    pool: Rc<SharedBuffers>,
    /// The kernel uses only the lengths of name and control. It reads the header when it takes an operation.
    header: Box<libc::msghdr>,
}

impl RecvMsg {
    /// Makes this many buffers, a power of two, if the kernel takes them.
    pub(super) fn open(ring: &Ring, buffers: u16) -> Option<RecvMsg> {
        let pool = SharedBuffers::new(buffers, BUFFER_BYTES, 1).ok()?;
        ring.register_mail(pool.address(), pool.buffers()).ok()?;
        // SAFETY: all zeroes is a valid msghdr: null pointers with lengths of zero.
        let mut header: Box<libc::msghdr> = Box::new(unsafe { mem::zeroed() });
        header.msg_namelen = NAME_BYTES as libc::socklen_t;
        header.msg_controllen = CONTROL_BYTES as _;
        Some(RecvMsg { pool, header })
    }

    /// Builds the operation that receives from a socket until it is cancelled.
    pub(super) fn receive(&self, from: Fd) -> squeue::Entry {
        opcode::RecvMsgMulti::new(from, &raw const *self.header, GROUP).build()
    }

    /// Shows the kernel the buffers that were given back.
    pub(super) fn publish(&self) {
        self.pool.publish();
    }

    /// Leaks the memory that the kernel may still write to.
    pub(super) fn leak(self) {
        mem::forget(self);
    }
}

/// Rounds the requested number of buffers to the number that is made.
pub(super) fn rounded(buffers: u16) -> u16 {
    if buffers == 0 { 0 } else { buffers.min(BUFFERS_MAX).next_power_of_two() }
}

/// Returns the number of bytes mapped for these buffers.
pub(super) fn memory(buffers: u16) -> usize {
    if buffers == 0 { 0 } else { buffers::mapped(buffers, BUFFER_BYTES) }
}

impl IoUring {
    /// Handles one completion of a multishot recvmsg.
    pub(super) fn on_recvmsg(&mut self, index: u32, completion: Completion) -> Option<(Key, Event)> {
        let Completion { result, flags, .. } = completion;
        // Take the buffer first, so that it goes back in every case.
        let provided = match (cqueue::buffer_select(flags), &self.recvmsg) {
            (Some(buffer), Some(recvmsg)) => Some(recvmsg.pool.lend(buffer, result.max(0) as usize, false)),
            _ => None,
        };
        let is_last = !cqueue::more(flags);
        let entry = self.table.get_mut(index)?;
        let key = entry.key;
        if is_last {
            self.ring.ended();
            entry.input = InputState::Idle;
        }
        let is_closing = entry.has(CLOSING);
        if is_last && !is_closing {
            self.list(index);
        }
        let event = match provided {
            _ if is_closing => None,
            Some(provided) if result >= 0 => self.open_mail(provided),
            _ => self.not_received_mail(index, -result),
        };
        if is_last {
            self.settle(index);
        }
        event.map(|event| (key, event))
    }

    /// Makes a batch from a buffer that the kernel filled.
    fn open_mail(&mut self, mut provided: Provided) -> Option<Event> {
        let header = &self.recvmsg.as_ref()?.header;
        let parsed = RecvMsgOut::parse(provided.bytes(), header).ok()?;
        let at = RECORD_BYTES + NAME_BYTES + CONTROL_BYTES;
        let (len, is_cut) = (parsed.payload_data().len(), parsed.is_payload_truncated());
        // SAFETY: the kernel wrote name and control. The buffer begins at a multiple of 8, and so does the
        // part behind the record and the name.
        let packet = unsafe { packet(parsed.name_data(), parsed.control_data(), at, len, is_cut) };
        let mut batch = self.batches.shell();
        batch.hold(provided, packet);
        Some(Event::Datagrams(batch))
    }

    /// Handles a recvmsg that ended without a datagram.
    fn not_received_mail(&mut self, index: u32, error: i32) -> Option<Event> {
        let IoUring { table, queued, calls, .. } = self;
        let entry = table.get_mut(index)?;
        match error {
            libc::ENOBUFS => entry.set(STARVED, true),
            libc::ECANCELED | libc::EINTR | libc::EAGAIN => (),
            // The kernel has no multishot. The call will return the error.
            libc::ENOTSOCK | libc::EINVAL | libc::EOPNOTSUPP => entry.set(CALLED_INPUT, true),
            error => {
                let error = io::Error::from_raw_os_error(error);
                if !is_report(&error) {
                    entry.input = InputState::Ended;
                    return Some(Event::Broken(error));
                }
                let (key, facts) = (entry.key, entry.facts());
                let is_queued =
                    super::datagram::queue_reports(key, sys::borrow(entry.owned()?), calls, queued);
                // On a socket with an error queue, an error without its report was reported already, after a
                // send that met it.
                if !is_queued && !facts.has_reports() {
                    return Some(Event::Undelivered(None, error));
                }
            }
        }
        None
    }
}

/// The name of the group of these buffers.
pub(super) const GROUP: u16 = 1;
/// The most buffers.
const BUFFERS_MAX: u16 = 1 << 12;
/// The four numbers that the kernel puts before name, control and bytes (io_uring_recvmsg_out).
const RECORD_BYTES: usize = 16;
/// A packet of 64 KiB with all of that.
const BUFFER_BYTES: usize = RECORD_BYTES + NAME_BYTES + CONTROL_BYTES + (64 << 10);
const _: () = assert!(BUFFER_BYTES.is_multiple_of(8) && (RECORD_BYTES + NAME_BYTES).is_multiple_of(8));
