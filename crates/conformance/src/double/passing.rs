//! Descriptors over Unix links: ends that a resource drives, and which descriptors arrive with which byte.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, IoSlice},
};

use reactor::{
    Address, Credentials, Descriptor, Interest, Key, Ready,
    engine::{Delivery, Event},
};

use super::{
    engine::Double,
    fault,
    state::{Holder, Input, State},
};

/// Descriptors in flight to an end. Each message has the number of the byte with which its descriptors
/// arrive.
#[derive(Default)]
pub(super) struct Passed(VecDeque<(u64, Vec<Descriptor>)>);

impl Passed {
    /// Takes out the descriptors that arrive with a byte from `first` up to, but not including, `end`.
    pub(super) fn between(&mut self, first: u64, end: u64) -> Vec<Descriptor> {
        let (out, rest) =
            std::mem::take(&mut self.0).into_iter().partition(|(at, _)| (first..end).contains(at));
        self.0 = rest;
        let out: VecDeque<(u64, Vec<Descriptor>)> = out;
        out.into_iter().flat_map(|(_, descriptors)| descriptors).collect()
    }

    /// Returns the byte before which a read from `at` must stop, because no read returns the descriptors of
    /// two messages.
    fn stop(&self, at: u64) -> u64 {
        let mut after = self.0.iter().map(|(begin, _)| *begin).filter(|begin| *begin >= at);
        after.nth(1).unwrap_or(u64::MAX)
    }
}

impl State {
    /// Reports whether a resource may watch this end. The double supports that only for Unix links.
    pub(super) fn is_unix_link(&self, number: u64) -> bool {
        let is_unix = |address: &Address| !matches!(address, Address::Ip(_));
        self.ends.get(&number).is_some_and(|end| is_unix(&end.local) && is_unix(&end.peer))
    }

    /// Returns the readiness of a watched end.
    fn ready_of(&self, number: u64) -> Ready {
        let room = self.room(number, self.tuning.send_bytes);
        let input = self.input(number);
        let is_connecting = matches!(&room, Err(error) if error.kind() == ErrorKind::NotConnected);
        Ready {
            readable: input != Input::Nothing,
            writable: matches!(room, Ok(1..)),
            hangup: matches!(input, Input::End | Input::Reset),
            error: room.is_err() && !is_connecting,
        }
    }

    /// Sends up to `most` bytes, with the descriptors attached to the first.
    fn pass(
        &mut self,
        number: u64,
        bytes: &[IoSlice<'_>],
        with: &mut Vec<Descriptor>,
        most: usize,
    ) -> io::Result<usize> {
        if with.len() > PASSED_MAX {
            return Err(fault::error(ErrorKind::InvalidInput));
        }
        let room = match self.room(number, self.tuning.send_bytes) {
            Err(error) if error.kind() == ErrorKind::NotConnected => 0,
            room => room?,
        };
        let other = self.ends.get(&number).and_then(|end| end.other);
        // A Unix socket knows at once that its peer is gone.
        if other.is_some_and(|other| self.ends[&other].holder == Holder::Nobody) {
            return Err(fault::error(ErrorKind::BrokenPipe));
        }
        let total: usize = bytes.iter().map(|part| part.len()).sum();
        let mut left = total.min(room).min(most);
        let taken = left;
        if taken == 0 {
            return Err(fault::error(ErrorKind::WouldBlock));
        }
        if let Some(other) = other.and_then(|other| self.ends.get_mut(&other)).filter(|_| !with.is_empty()) {
            other.passed.0.push_back((other.put, std::mem::take(with)));
        }
        for part in bytes {
            let part = &part[..part.len().min(left)];
            self.put(number, part);
            left -= part.len();
        }
        Ok(taken)
    }

    /// Receives up to `most` bytes, with their descriptors.
    fn receive(&mut self, number: u64, into: &mut [u8], most: usize) -> io::Result<Delivery> {
        let nothing = Delivery { bytes: 0, descriptors: Vec::new(), is_cut: false, truncated: false };
        match self.input(number) {
            Input::Bytes(_) => {
                let Some(end) = self.ends.get_mut(&number) else { return Err(fault::bad_descriptor()) };
                let first = end.read;
                let stop = usize::try_from(end.passed.stop(first) - first).unwrap_or(usize::MAX);
                let count = into.len().min(most).min(stop);
                let count = count.min(end.arrived.len());
                let descriptors = end.passed.between(first, first + count as u64);
                let bytes = self.take(number, &mut into[..count]);
                Ok(Delivery { bytes, descriptors, is_cut: false, truncated: false })
            }
            Input::End => Ok(nothing),
            Input::Reset => Err(fault::error(ErrorKind::ConnectionReset)),
            Input::Nothing if !self.ends.contains_key(&number) => Err(fault::bad_descriptor()),
            // The connect may have failed.
            Input::Nothing => match self.room(number, 1) {
                Err(error) if error.kind() != ErrorKind::NotConnected => Err(error),
                _ => Err(fault::error(ErrorKind::WouldBlock)),
            },
        }
    }
}

impl Double {
    pub(super) fn pass_on(
        &mut self,
        number: u64,
        bytes: &[IoSlice<'_>],
        with: &mut Vec<Descriptor>,
    ) -> io::Result<usize> {
        let most = self.chance.up_to(self.tuning.cut_bytes);
        self.network.shared.change(|state| state.pass(number, bytes, with, most))
    }

    pub(super) fn receive_from(&mut self, number: u64, into: &mut [u8]) -> io::Result<Delivery> {
        let most = self.chance.up_to(self.tuning.window_bytes);
        self.network.shared.change(|state| state.receive(number, into, most))
    }

    /// Moves data on a watched end, and reports its readiness. Returns true if anything moved.
    pub(super) fn step_link(&mut self, state: &mut State, key: Key, number: u64, interest: Interest) -> bool {
        if state.ends.get(&number).is_some_and(|end| end.failed.is_none())
            && let Err(error) = state.establish(number)
            && let Some(end) = state.ends.get_mut(&number)
        {
            end.failed = Some(error.kind());
        }
        let most = self.chance.up_to(self.tuning.window_bytes);
        let moved = state.flow(number, self.tuning.window_bytes, most) > 0;
        let ready = state.ready_of(number).masked(interest);
        if ready != Ready::default() {
            self.events.push_back((key, Event::Ready(ready)));
        }
        moved
    }

    /// Returns the same credentials for every peer, because all doubles are in one process.
    pub(super) fn credentials_of_peer(&self, number: u64) -> io::Result<Credentials> {
        if !self.network.shared.lock().is_unix_link(number) {
            return Err(ErrorKind::Unsupported.into());
        }
        Ok(Credentials { process: Some(PROCESS), user: USER, group: USER })
    }
}

/// The most descriptors in one message: SCM_MAX_FD of Linux.
const PASSED_MAX: usize = 253;
const PROCESS: u32 = 1;
const USER: u32 = 1000;
