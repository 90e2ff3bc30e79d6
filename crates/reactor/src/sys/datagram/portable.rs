//! Datagrams one by one, where the system has no calls for many: all but Linux.
//!
//! What a datagram's header said is not asked for here: no destination address and no congestion bits.
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

/// Nothing can be asked for.
pub(super) fn has_prepared(_: &SockRef<'_>, _: bool) -> bool {
    false
}

/// Every datagram is a packet of its own.
pub(super) fn set_together(_: &Socket, _: bool) {}

/// Receives what is there, at most [`PACKETS_MAX`] packets, each into its part of the batch's memory. Whether
/// there may be more.
///
/// # Errors
/// As recvmsg(2).
pub(crate) fn receive(from: Borrowed<'_>, batch: &mut Batch) -> io::Result<bool> {
    batch.clear();
    let socket = SockRef::from(&from);
    let room = batch.room() / PACKETS_MAX;
    for n in 0..PACKETS_MAX {
        let slot = &mut batch.buffer()[n * room..(n + 1) * room];
        // SAFETY: nobody writes anything that is not initialised: socket2 passes the slice to the system only.
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

/// Sends from the front of a queue, at most [`PACKETS_MAX`] packets, and takes off what the system took; says
/// how many datagrams that were, and whether it stopped in the middle.
///
/// # Errors
/// As sendto(2), of the first; `InvalidInput` for a name that is none. Then nothing was taken.
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

/// Takes the next report about a datagram that was sent: the socket's own error. To whom it was is not told.
///
/// # Errors
/// As getsockopt(2).
pub(crate) fn undelivered(socket: Borrowed<'_>) -> io::Result<Option<(Option<Address>, io::Error)>> {
    // Windows tells it to the next receive; what it calls the socket's error may stay.
    if cfg!(windows) {
        return Ok(None);
    }
    Ok(SockRef::from(&socket).take_error()?.map(|error| (None, error)))
}
