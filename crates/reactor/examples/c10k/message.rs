//! Numbered messages of a fixed size, and a codec that checks each of their bytes.

use std::{fmt, rc::Rc};

use reactor::{Codec, Decoded, Outgoing, Result};

/// The contents of a message: the number of its connection, and its own number on that connection.
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

/// Cuts messages of one size. After the header comes a piece of a pattern. It begins at a different offset
/// in each message, so lost, repeated or reordered bytes do not match.
#[derive(Clone)]
pub(crate) struct Numbered {
    pattern: Rc<[u8]>,
    filling: usize,
}

impl Numbered {
    /// Creates the codec for messages of `size` bytes. Clones share the pattern.
    pub(crate) fn new(size: usize) -> Numbered {
        let filling = size - HEADER;
        // The pattern repeats after a prime number of bytes, so no power of two (the size of a buffer) is a
        // period of it.
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

/// The size of the header, which is also the smallest message.
pub(crate) const HEADER: usize = 16;

/// The number of offsets at which a piece of the pattern may begin.
const SHIFTS: usize = 64;
