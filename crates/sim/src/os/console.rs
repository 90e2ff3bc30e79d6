//! The standard streams of a node, where a test types and reads, and the lines that its runtime prints.

use std::{
    mem::take,
    ops::{Index, IndexMut},
};

use reactor::{
    Service, Time,
    engine::{Ending, Transport},
};

use crate::{
    ids::{EndId, HostId, IdVec},
    net::stream::{Mover, Streams},
    testing::harness::Harness,
    world::{World, base::Base, node::Node},
};

/// The other side of a host's standard streams.
#[derive(Default)]
pub(crate) struct Console {
    /// Typed input that is not in the pipe yet.
    typed: Vec<u8>,
    is_ended: bool,
    /// Set once the readers of the output have closed.
    is_deaf: bool,
    input: Option<EndId>,
    outputs: [Option<EndId>; 2],
    printed: [Vec<u8>; 2],
}

impl Console {
    fn type_in(&mut self, base: &mut Base, streams: &mut Streams, bytes: &[u8]) {
        self.typed.extend_from_slice(bytes);
        self.fill_input(base, streams);
    }

    fn end_input(&mut self, base: &mut Base, streams: &mut Streams) {
        self.is_ended = true;
        self.fill_input(base, streams);
    }

    fn stop_listening(&mut self, base: &mut Base, streams: &mut Streams) {
        self.is_deaf = true;
        for at in take(&mut self.outputs).into_iter().flatten() {
            streams.close_end(base, at, Ending::Orderly);
        }
    }

    /// Opens the standard input for the process that the host runs.
    pub(crate) fn open_input(&mut self, base: &mut Base, streams: &mut Streams, host: HostId) -> Transport {
        let (reader, writer) = streams.add_pipe(host);
        streams.give_end(writer, Mover::Console(host));
        if let Some(before) = self.input.replace(writer) {
            streams.close_end(base, before, Ending::Orderly);
        }
        self.fill_input(base, streams);
        streams.transport(base, reader)
    }

    /// Opens the standard output (0) or standard error (1).
    pub(crate) fn open_output(
        &mut self,
        base: &mut Base,
        streams: &mut Streams,
        host: HostId,
        which: usize,
    ) -> Transport {
        let (reader, writer) = streams.add_pipe(host);
        streams.give_end(reader, Mover::Console(host));
        if let Some(before) = self.outputs[which].replace(reader) {
            streams.close_end(base, before, Ending::Orderly);
        }
        if self.is_deaf {
            self.stop_listening(base, streams);
        }
        streams.transport(base, writer)
    }

    /// Moves typed input into the pipe, as far as it has room.
    fn fill_input(&mut self, base: &mut Base, streams: &mut Streams) {
        let Some(at) = self.input else { return };
        let is_read = streams.write_end(base, at, &mut self.typed);
        let is_written = streams.ends[at].parked.is_none();
        if !is_read || self.is_ended && is_written {
            self.input = None;
            streams.close_end(base, at, Ending::Orderly);
        }
    }

    /// Serves an end of the console that has an event.
    pub(crate) fn serve(&mut self, base: &mut Base, streams: &mut Streams, at: EndId) {
        if self.input == Some(at) {
            return self.fill_input(base, streams);
        }
        let Some(which) = self.outputs.iter().position(|output| *output == Some(at)) else { return };
        let (bytes, has_ended) = streams.read_end_of(base, at);
        self.printed[which].extend_from_slice(&bytes);
        if has_ended {
            self.outputs[which] = None;
            streams.close_end(base, at, Ending::Orderly);
        }
    }

    /// Closes the console's ends when the process of its host has gone. The next process does not get the
    /// unread input.
    pub(crate) fn end_process(&mut self, base: &mut Base, streams: &mut Streams) {
        // The console reads output as soon as it arrives, so nothing is left to read.
        let ends = [self.input.take(), self.outputs[0].take(), self.outputs[1].take()];
        for at in ends.into_iter().flatten() {
            streams.close_end(base, at, Ending::Orderly);
        }
    }
}

/// The consoles of all hosts, and the lines that runtimes wrote to standard error.
pub(crate) struct Consoles {
    all: IdVec<HostId, Console>,
    errors: Vec<(HostId, Time, String)>,
}

impl Consoles {
    pub(crate) fn new() -> Consoles {
        Consoles { all: IdVec::new(), errors: Vec::new() }
    }

    pub(crate) fn add_host(&mut self) {
        self.all.push(Console::default());
    }

    /// Stores a line of standard error. Returns `false` if there is no room for it.
    pub(crate) fn print_error(&mut self, host: HostId, at: Time, line: &str) -> bool {
        let has_room = self.errors.len() < ERRORS_MAX;
        if has_room {
            self.errors.push((host, at, line.trim_end().to_owned()));
        }
        has_room
    }
}

impl Index<HostId> for Consoles {
    type Output = Console;

    fn index(&self, host: HostId) -> &Console {
        &self.all[host]
    }
}

impl IndexMut<HostId> for Consoles {
    fn index_mut(&mut self, host: HostId) -> &mut Console {
        &mut self.all[host]
    }
}

/// Standard streams, on Unix only.
impl World {
    /// Types bytes into a node's standard input, even before the node opens it.
    pub fn type_in(&mut self, node: impl Into<Node>, bytes: &[u8]) {
        let state = &mut *self.state.borrow_mut();
        state.consoles[node.into().0].type_in(&mut state.base, &mut state.streams, bytes);
        state.serve_movers();
    }

    /// Ends a node's standard input after the typed bytes.
    pub fn end_input(&mut self, node: impl Into<Node>) {
        let state = &mut *self.state.borrow_mut();
        state.consoles[node.into().0].end_input(&mut state.base, &mut state.streams);
        state.serve_movers();
    }

    /// Takes the bytes that a node wrote to its standard output and standard error since the last call.
    pub fn printed(&mut self, node: impl Into<Node>) -> (Vec<u8>, Vec<u8>) {
        let [out, errors] = &mut self.state.borrow_mut().consoles[node.into().0].printed;
        (take(out), take(errors))
    }

    /// Closes the readers of a node's standard output and standard error, so that a write meets a broken
    /// pipe.
    pub fn stop_listening(&mut self, node: impl Into<Node>) {
        let state = &mut *self.state.borrow_mut();
        state.consoles[node.into().0].stop_listening(&mut state.base, &mut state.streams);
    }

    /// Returns the lines that a node's runtime wrote to standard error over all its lives, with their times.
    /// They are errors that no service handled. A world keeps the first 1,024 lines.
    pub fn errors(&self, node: impl Into<Node>) -> Vec<(Time, String)> {
        let Node(node) = node.into();
        let state = self.state.borrow();
        let of = state.consoles.errors.iter().filter(|(host, ..)| *host == node);
        of.map(|(_, at, line)| (*at, line.clone())).collect()
    }
}

impl<S: Service> Harness<S> {
    /// Returns the lines that the service's runtime wrote to standard error so far, as [`World::errors`]
    /// does.
    pub fn errors(&mut self) -> Vec<(Time, String)> {
        self.with_world(|world| world.errors(Node(HostId::FIRST)))
    }
}

/// The most lines of standard error that a world keeps.
const ERRORS_MAX: usize = 1024;
