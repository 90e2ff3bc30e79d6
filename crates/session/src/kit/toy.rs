//! A cipher layer for tests: it has every feature of a real one, but keeps no secret.
//!
//! ```text
//! hello   'T' | role | nonce 8 | check 8                 one each way, the client first
//! record  kind | length 2 | body, at most 1 KiB | tag 8   data, end, alert, ping, pong
//! ```
//! The layer mixes bodies with a key from both nonces. Tags cover key, direction, sequence and body, so a
//! record that is changed, repeated, lost or reordered is rejected. But the nonces travel in the clear, so
//! anyone can read along.

use std::error::Error;
use std::fmt;

use crate::failure::{Result, Truncated};
use crate::layer::{Io, Layer, Next, Step};
use crate::outgoing::Outgoing;

/// Seals bytes in records with a tag, after a handshake of two messages. For tests only, because it keeps no
/// secret.
#[derive(Debug, Clone)]
pub struct Toy {
    role: u8,
    nonce: u64,
    /// Both nonces, mixed. `None` until the peer's is known.
    key: Option<u64>,
    sealed: u64,
    opened: u64,
    pongs: u32,
}

impl Toy {
    /// Creates the end that sends first.
    pub fn client(nonce: u64) -> Self {
        Toy { role: CLIENT, nonce, key: None, sealed: 0, opened: 0, pongs: 0 }
    }

    /// Creates the end that answers.
    pub fn server(nonce: u64) -> Self {
        Toy { role: SERVER, ..Toy::client(nonce) }
    }

    /// Queues a request that the peer's layer answers by itself. This is a later request, for
    /// [`Session::with_layer`](crate::Session::with_layer).
    ///
    /// # Errors
    /// [`ToyError::NotReady`] before the handshake is done.
    pub fn ping(&mut self, io: &mut Io<'_>) -> Result {
        let key = self.key.ok_or(ToyError::NotReady)?;
        self.put_record(key, PING, &[], io.down);
        Ok(())
    }

    /// Returns how many pings were answered.
    pub fn pongs(&self) -> u32 {
        self.pongs
    }

    fn put_hello(&self, down: &mut Outgoing) {
        let mut hello = [b'T', self.role].to_vec();
        hello.extend_from_slice(&self.nonce.to_be_bytes());
        hello.extend_from_slice(&digest(0, &hello).to_be_bytes());
        down.put(&hello);
    }

    fn open_hello(&mut self, input: &[u8], io: &mut Io<'_>) -> Result<Step> {
        let Some(hello) = input.get(..HELLO) else { return Ok(Step { used: 0, next: Next::Wait }) };
        let (told, check) = hello.split_at(HELLO - 8);
        if told[0] != b'T' || told[1] != self.role ^ 1 || check != digest(0, told).to_be_bytes() {
            return Err(ToyError::Hello.into());
        }
        let theirs = u64::from_be_bytes(*told[2..].first_chunk().expect("a hello holds a nonce"));
        let (client, server) = if self.role == CLIENT { (self.nonce, theirs) } else { (theirs, self.nonce) };
        if self.role == SERVER {
            self.put_hello(io.down);
        }
        self.key = Some(mix(client).wrapping_add(mix(!server)));
        Ok(Step { used: HELLO, next: Next::Again })
    }

    fn open_record(&mut self, key: u64, input: &mut [u8], io: &mut Io<'_>) -> Result<Step> {
        let wait = Step { used: 0, next: Next::Wait };
        let Some([kind, len @ ..]) = input.first_chunk::<HEAD>().copied() else { return Ok(wait) };
        let len = u16::from_be_bytes(len) as usize;
        if len > BODY_MAX {
            return Err(ToyError::TooLong.into());
        }
        let used = HEAD + len + TAG;
        if input.len() < used {
            return Ok(wait);
        }
        let seed = seed(key, self.role ^ 1, self.opened);
        let (covered, tag) = input[..used].split_at_mut(HEAD + len);
        if *tag != digest(seed, covered).to_be_bytes() {
            return Err(ToyError::Tag.into());
        }
        self.opened += 1;
        let body = &mut covered[HEAD..];
        scramble(seed, body);
        match kind {
            DATA => io.up.extend_from_slice(body),
            END => return Ok(Step { used, next: Next::End }),
            ALERT => return Err(ToyError::Alert.into()),
            PING => self.put_record(key, PONG, &[], io.down),
            PONG => self.pongs += 1,
            _ => return Err(ToyError::Kind(kind).into()),
        }
        Ok(Step { used, next: Next::Again })
    }

    fn put_record(&mut self, key: u64, kind: u8, body: &[u8], down: &mut Outgoing) {
        let seed = seed(key, self.role, self.sealed);
        self.sealed += 1;
        let mut record = vec![kind];
        record.extend_from_slice(&(body.len() as u16).to_be_bytes());
        record.extend_from_slice(body);
        scramble(seed, &mut record[HEAD..]);
        record.extend_from_slice(&digest(seed, &record).to_be_bytes());
        down.put(&record);
    }
}

impl Layer for Toy {
    const INPUT_MAX: usize = HEAD + BODY_MAX + TAG - 1;

    fn start(&mut self, io: &mut Io<'_>) -> Result {
        if self.role == CLIENT {
            self.put_hello(io.down);
        }
        Ok(())
    }

    fn ready(&self) -> bool {
        self.key.is_some()
    }

    fn open(&mut self, input: &mut [u8], io: &mut Io<'_>) -> Result<Step> {
        let Some(key) = self.key else { return self.open_hello(input, io) };
        let result = self.open_record(key, input, io);
        if result.as_ref().is_err_and(|error| error.downcast_ref() != Some(&ToyError::Alert)) {
            self.put_record(key, ALERT, &[], io.down);
        }
        result
    }

    fn seal(&mut self, clear: &[u8], io: &mut Io<'_>) -> Result<usize> {
        let key = self.key.ok_or(ToyError::NotReady)?;
        let taken = clear.len().min(BODY_MAX);
        self.put_record(key, DATA, &clear[..taken], io.down);
        Ok(taken)
    }

    fn finish(&mut self, io: &mut Io<'_>) -> Result {
        if let Some(key) = self.key {
            self.put_record(key, END, &[], io.down);
        }
        Ok(())
    }

    /// Returns an error, because the authentic end is a record of its own and any other end is a cut.
    fn end(&mut self, _: &[u8]) -> Result {
        Err(Truncated.into())
    }
}

/// The reason why a [`Toy`] rejected something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ToyError {
    /// The peer's hello is malformed.
    Hello,
    /// A record is not as the peer sealed it, or not the next one.
    Tag,
    /// A record is of an unknown kind.
    Kind(u8),
    /// A record is longer than allowed.
    TooLong,
    /// The peer rejected our bytes.
    Alert,
    /// The handshake is not done.
    NotReady,
}

impl fmt::Display for ToyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ToyError::Hello => f.write_str("not a hello"),
            ToyError::Tag => f.write_str("a record with a wrong tag"),
            ToyError::Kind(kind) => write!(f, "a record of unknown kind {kind}"),
            ToyError::TooLong => write!(f, "a record of more than {BODY_MAX} bytes"),
            ToyError::Alert => f.write_str("the peer sent an alert"),
            ToyError::NotReady => f.write_str("the handshake is not done"),
        }
    }
}

impl Error for ToyError {}

/// Returns the seed that seals one record in one direction.
fn seed(key: u64, role: u8, sequence: u64) -> u64 {
    mix(key ^ mix(sequence * 2 + role as u64))
}

fn scramble(seed: u64, body: &mut [u8]) {
    for (block, bytes) in body.chunks_mut(8).enumerate() {
        let stream = mix(seed.wrapping_add(block as u64)).to_be_bytes();
        bytes.iter_mut().zip(stream).for_each(|(byte, key)| *byte ^= key);
    }
}

/// Computes FNV-1a, keyed by its start value. One flipped bit always changes the digest, because each round
/// is a bijection.
fn digest(seed: u64, bytes: &[u8]) -> u64 {
    let round = |hash: u64, byte: &u8| (hash ^ *byte as u64).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.iter().fold(seed ^ 0xcbf2_9ce4_8422_2325, round)
}

/// Applies the finalizer of SplitMix64.
fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

const CLIENT: u8 = 0;
const SERVER: u8 = 1;
const DATA: u8 = 1;
const END: u8 = 2;
const ALERT: u8 = 3;
const PING: u8 = 4;
const PONG: u8 = 5;
/// Bytes of a hello: mark, role, nonce, check.
const HELLO: usize = 2 + 8 + 8;
/// Bytes before a body: kind and length.
const HEAD: usize = 3;
/// Bytes after a body.
const TAG: usize = 8;
/// The longest body, in bytes.
const BODY_MAX: usize = 1 << 10;
