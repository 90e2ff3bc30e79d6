//! Pipes: two ends of one direction each, and the ends without an engine: of a test's console, or of a child.

use std::mem::take;

use reactor::{
    Address,
    engine::{Medium, Outgoing},
};

use crate::{
    error,
    ids::{ChildId, EndId, HostId},
    net::stream::{Streams, end::Holder},
    world::base::Base,
};

/// The part of the world that reads and writes an end without an engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mover {
    /// The console of a host.
    Console(HostId),
    /// A child process.
    Child(ChildId),
}

impl Streams {
    /// Takes the next end without an engine that has an event, with its mover.
    pub(crate) fn next_to_serve(&mut self) -> Option<(EndId, Mover)> {
        self.to_serve.pop_front()
    }

    /// Makes a pipe within a host. Returns the read end and the write end.
    pub(crate) fn add_pipe(&mut self, host: HostId) -> (EndId, EndId) {
        let mut end = |medium| {
            let at = self.ends.add(host, Address::Unnamed, Address::Unnamed, Holder::Transport);
            self.ends[at].medium = medium;
            at
        };
        let (reader, writer) = (end(Medium::READER), end(Medium::WRITER));
        self.ends[reader].other = Some(writer);
        self.ends[writer].other = Some(reader);
        (reader, writer)
    }

    /// Gives an end to a mover, which reads and writes it without an engine.
    pub(crate) fn give_end(&mut self, at: EndId, mover: Mover) {
        let end = &mut self.ends[at];
        (end.mover, end.wants) = (Some(mover), true);
    }

    /// Breaks the write end of a pipe whose reader has closed.
    pub(crate) fn reader_left(&mut self, at: EndId) {
        let end = &mut self.ends[at];
        end.finished = true;
        end.failed.get_or_insert(error::BROKEN_PIPE);
        if let Some(queue) = end.parked.take() {
            end.sent = Some(reactor::engine::Sent { queue, result: Err(error::os(error::BROKEN_PIPE)) });
        }
    }

    /// Writes as much as there is room for. The rest waits in the pipe's queue. Returns `false` if the reader
    /// has closed.
    pub(crate) fn write_end(&mut self, base: &mut Base, at: EndId, bytes: &mut Vec<u8>) -> bool {
        let end = &mut self.ends[at];
        let mut queue = match end.sent.take() {
            Some(sent) if sent.result.is_err() => return false,
            Some(sent) => sent.queue,
            None if end.parked.is_some() => return true,
            None => Box::new(Outgoing::new()),
        };
        queue.put(&take(bytes));
        while !queue.is_empty() {
            match self.send(base, at, queue) {
                None => return true,
                Some(sent) if sent.result.is_err() => return false,
                Some(sent) => queue = sent.queue,
            }
        }
        true
    }

    /// Takes all input of an end, and returns it with whether the input has ended.
    pub(crate) fn read_end_of(&mut self, base: &mut Base, at: EndId) -> (Vec<u8>, bool) {
        let mut bytes = Vec::new();
        while let Some(segment) = self.ends[at].input.pop_front() {
            bytes.extend_from_slice(&segment.buffer[segment.start..segment.end]);
            self.ends[at].input_bytes -= segment.len();
            self.buffers.give(segment.buffer);
        }
        if !bytes.is_empty() {
            self.freed(base, at);
        }
        let end = &mut self.ends[at];
        let has_ended = end.finished && !std::mem::replace(&mut end.end_delivered, end.finished);
        (bytes, has_ended)
    }
}
