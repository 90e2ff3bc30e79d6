//! Pipes: two ends of one direction each, and the ends without an engine: of a test's console, or of a child.

use std::mem::take;

use reactor::{
    Address,
    engine::{Ending, Medium, Outgoing, Transport},
};

use crate::{
    error,
    ids::{ChildId, EndId, HostId, ObjectId},
    net::end::Holder,
    world::state::State,
};

/// The part of the world that reads and writes an end without an engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mover {
    /// The console of a host.
    Console(HostId),
    /// A child process.
    Child(ChildId),
}

/// The other side of a host's standard streams, where a test types and reads.
#[derive(Default)]
pub(crate) struct Console {
    /// Typed input that is not in the pipe yet.
    typed: Vec<u8>,
    is_ended: bool,
    is_deaf: bool,
    input: Option<EndId>,
    outputs: [Option<EndId>; 2],
    pub(crate) printed: [Vec<u8>; 2],
}

impl State {
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

    /// Returns the transport of an end.
    pub(crate) fn transport_of_end(&self, at: EndId) -> Transport {
        self.transport(ObjectId::End(at))
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

    /// Serves an end without an engine that has an event.
    pub(crate) fn moved(&mut self, at: EndId, mover: Mover) {
        match mover {
            Mover::Console(host) => self.serve_console(host, at),
            Mover::Child(child) => self.wake_child(child),
        }
    }

    /// Writes as much as there is room for. The rest waits in the pipe's queue. Returns `false` if the reader
    /// has closed.
    pub(crate) fn write_end(&mut self, at: EndId, bytes: &mut Vec<u8>) -> bool {
        let end = &mut self.ends[at];
        let mut queue = match end.sent.take() {
            Some(sent) if sent.result.is_err() => return false,
            Some(sent) => sent.queue,
            None if end.parked.is_some() => return true,
            None => Box::new(Outgoing::new()),
        };
        queue.put(&take(bytes));
        while !queue.is_empty() {
            match self.send(at, queue) {
                None => return true,
                Some(sent) if sent.result.is_err() => return false,
                Some(sent) => queue = sent.queue,
            }
        }
        true
    }

    /// Takes all input of an end, and returns it with whether the input has ended.
    pub(crate) fn read_end_of(&mut self, at: EndId) -> (Vec<u8>, bool) {
        let mut bytes = Vec::new();
        while let Some(segment) = self.ends[at].input.pop_front() {
            bytes.extend_from_slice(&segment.buffer[segment.start..segment.end]);
            self.ends[at].input_bytes -= segment.len();
            self.buffers.give(segment.buffer);
        }
        if !bytes.is_empty() {
            self.freed(at);
        }
        let end = &mut self.ends[at];
        let has_ended = end.finished && !std::mem::replace(&mut end.end_told, end.finished);
        (bytes, has_ended)
    }

    // The console.

    pub(crate) fn type_in(&mut self, host: HostId, bytes: &[u8]) {
        self.consoles[host].typed.extend_from_slice(bytes);
        self.feed_console(host);
    }

    pub(crate) fn end_input(&mut self, host: HostId) {
        self.consoles[host].is_ended = true;
        self.feed_console(host);
    }

    pub(crate) fn stop_listening(&mut self, host: HostId) {
        self.consoles[host].is_deaf = true;
        for at in take(&mut self.consoles[host].outputs).into_iter().flatten() {
            self.close_end(at, Ending::Orderly);
        }
    }

    /// Opens a host's standard input for the process that it runs.
    pub(crate) fn open_input(&mut self, host: HostId) -> Transport {
        let (reader, writer) = self.add_pipe(host);
        self.give_end(writer, Mover::Console(host));
        if let Some(before) = self.consoles[host].input.replace(writer) {
            self.close_end(before, Ending::Orderly);
        }
        self.feed_console(host);
        self.transport_of_end(reader)
    }

    /// Opens a host's standard output (0) or standard error (1).
    pub(crate) fn open_output(&mut self, host: HostId, which: usize) -> Transport {
        let (reader, writer) = self.add_pipe(host);
        self.give_end(reader, Mover::Console(host));
        let console = &mut self.consoles[host];
        let (before, is_deaf) = (console.outputs[which].replace(reader), console.is_deaf);
        if let Some(before) = before {
            self.close_end(before, Ending::Orderly);
        }
        if is_deaf {
            self.stop_listening(host);
        }
        self.transport_of_end(writer)
    }

    fn feed_console(&mut self, host: HostId) {
        let Some(at) = self.consoles[host].input else { return };
        let mut typed = take(&mut self.consoles[host].typed);
        let is_read = self.write_end(at, &mut typed);
        self.consoles[host].typed = typed;
        let is_written = self.ends[at].parked.is_none();
        if !is_read || self.consoles[host].is_ended && is_written {
            self.consoles[host].input = None;
            self.close_end(at, Ending::Orderly);
        }
    }

    fn serve_console(&mut self, host: HostId, at: EndId) {
        if self.consoles[host].input == Some(at) {
            return self.feed_console(host);
        }
        let which = self.consoles[host].outputs.iter().position(|output| *output == Some(at));
        let Some(which) = which else { return };
        let (bytes, has_ended) = self.read_end_of(at);
        let console = &mut self.consoles[host];
        console.printed[which].extend_from_slice(&bytes);
        if has_ended {
            console.outputs[which] = None;
            self.close_end(at, Ending::Orderly);
        }
    }

    /// Closes the console's ends of a host whose process has gone. The next process does not get the unread
    /// input.
    pub(crate) fn console_gone(&mut self, host: HostId) {
        let console = &mut self.consoles[host];
        let ends = [console.input.take(), console.outputs[0].take(), console.outputs[1].take()];
        for at in ends.into_iter().flatten() {
            if let Some(mut rest) = Some(self.read_end_of(at).0).filter(|rest| !rest.is_empty()) {
                self.consoles[host].printed[0].append(&mut rest);
            }
            self.close_end(at, Ending::Orderly);
        }
    }
}
