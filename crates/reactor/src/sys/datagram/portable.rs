//! Datagrams one by one, for systems without batch calls: all but Linux.
//!
//! Header fields are not requested here, so there are no destination addresses and no congestion bits.
#![allow(unsafe_code)]

use std::{io, mem::MaybeUninit};

use socket2::{MaybeUninitSlice, SockRef, Socket};

use super::{Gone, PACKETS_MAX};
use crate::{
    address::Address,
    engine::{Batch, DatagramQueue, Ecn, Packet},
    sys::{
        Borrowed,
        address::{from_system, to_system},
        io::again_if_interrupted,
    },
};

/// Requests nothing, because there is nothing to request.
pub(super) fn has_prepared(_: &SockRef<'_>, _: bool) -> bool {
    false
}

/// Does nothing, because each datagram is a packet of its own.
pub(super) fn set_together(_: &Socket, _: bool) {}

/// Receives at most [`PACKETS_MAX`] packets without waiting, each into `room` bytes of the batch's memory.
/// Returns whether there may be more.
///
/// # Errors
/// As recvmsg(2).
pub(crate) fn receive(from: Borrowed<'_>, batch: &mut Batch, room: usize) -> io::Result<bool> {
    batch.clear();
    let socket = SockRef::from(&from);
    for n in 0..(batch.room() / room).min(PACKETS_MAX) {
        let slot = &mut batch.buffer()[n * room..(n + 1) * room];
        // SAFETY: socket2 only passes the slice to the system, so nobody writes uninitialised bytes into it.
        let slot = unsafe { &mut *(&raw mut *slot as *mut [MaybeUninit<u8>]) };
        let received =
            again_if_interrupted(|| socket.recv_from_vectored(&mut [MaybeUninitSlice::new(&mut *slot)]));
        match received {
            Ok((len, flags, name)) => batch.note(Packet {
                at: n * room,
                len,
                segment: None,
                from: from_system(&name),
                to: None,
                ecn: Ecn::NotCapable,
                truncated: flags.is_truncated(),
            }),
            Err(error) if n == 0 => return Err(error),
            Err(error) => return Ok(error.kind() != io::ErrorKind::WouldBlock),
        }
    }
    Ok(true)
}

/// Sends at most [`PACKETS_MAX`] packets from the front of a queue, and removes the packets that the system
/// took. Returns how many datagrams those were, and whether the send stopped early.
///
/// # Errors
/// As sendto(2), for the first packet. `InvalidInput` if its address is not valid. Then nothing was sent.
pub(crate) fn send(to: Borrowed<'_>, queue: &mut DatagramQueue, _: bool) -> io::Result<Gone> {
    let socket = SockRef::from(&to);
    let (mut count, mut is_stopped) = (0, false);
    for run in queue.runs(1).take(PACKETS_MAX) {
        let sent = match &run.head.to {
            Some(to) => {
                to_system(to).and_then(|name| again_if_interrupted(|| socket.send_to(run.bytes, &name)))
            }
            None => again_if_interrupted(|| socket.send(run.bytes)),
        };
        match sent {
            Ok(_) => count += run.count,
            Err(error) if count == 0 => return Err(error),
            Err(_) => {
                is_stopped = true;
                break;
            }
        }
    }
    (0..count).for_each(|_| drop(queue.pop()));
    Ok(Gone { datagrams: count, is_stopped })
}

/// Takes the next report about a sent datagram, which is the socket's own error. It does not name the
/// receiver.
///
/// # Errors
/// As getsockopt(2).
pub(crate) fn undelivered(socket: Borrowed<'_>) -> io::Result<Option<(Option<Address>, io::Error)>> {
    // Windows reports it to the next receive, and its socket error may stay set.
    if cfg!(windows) {
        return Ok(None);
    }
    Ok(SockRef::from(&socket).take_error()?.map(|error| (None, error)))
}
