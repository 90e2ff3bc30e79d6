//! Numbered messages of a fixed size, and the codec that checks every byte of them.

use std::{fmt, rc::Rc};

use reactor::{Codec, Decoded, Outgoing, Result};

/// What a message says: which connection it belongs to, and which one of it it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Message {
    pub(crate) connection: u64,
    pub(crate) sequence: u64,
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message {} of connection {}", self.sequence, self.connection)
    }
}

/// Cuts messages of one size. Behind the header comes a piece of a pattern which begins at another place in each
/// message, so that bytes which were lost, doubled or mixed up do not fit.
#[derive(Clone)]
pub(crate) struct Numbered {
    pattern: Rc<[u8]>,
    filling: usize,
}

impl Numbered {
    /// Creates the codec for messages of `size` bytes; clones share the pattern.
    pub(crate) fn new(size: usize) -> Numbered {
        let filling = size - HEADER;
        // A prime number of values: no period of it is a power of two, as those of buffers are.
        let pattern = (0..filling + SHIFTS).map(|at| (at % 251) as u8).collect();
        Numbered { pattern, filling }
    }

    fn filling(&self, message: Message) -> &[u8] {
        let shift = (message.connection.wrapping_add(message.sequence) % SHIFTS as u64) as usize;
        &self.pattern[shift..shift + self.filling]
    }
}

impl Codec for Numbered {
    type In<'a> = Message;
    type Out<'a> = Message;

    fn decode(&mut self, input: &mut [u8]) -> Result<Decoded<Message>> {
        let size = HEADER + self.filling;
        let Some(bytes) = input.get(..size) else { return Ok(Decoded::More) };
        let number =
            |at: usize| u64::from_be_bytes(*bytes[at..].first_chunk().expect("the header is complete"));
        let message = Message { connection: number(0), sequence: number(8) };
        if bytes[HEADER..] != *self.filling(message) {
            return Err(format!("{message} came back with other bytes"))?;
        }
        Ok(Decoded::Item(size, message))
    }

    fn encode(&mut self, message: Message, out: &mut Outgoing) -> Result {
        out.put(&message.connection.to_be_bytes());
        out.put(&message.sequence.to_be_bytes());
        out.put(self.filling(message));
        Ok(())
    }
}

/// The size of the header, and so of the smallest message.
pub(crate) const HEADER: usize = 16;

/// At how many places a piece of the pattern may begin.
const SHIFTS: usize = 64;
