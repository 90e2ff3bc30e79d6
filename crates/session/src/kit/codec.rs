//! Tests any codec in memory: every cut, every end, garbage, and whether it decodes its own output.
//!
//! Each suite takes a function that makes the codec, and one that converts an item so that it outlives the
//! call, because items may borrow from the input. Inputs of some hundred bytes are enough, because each suite
//! plays them once for each byte.
//!
//! ```
//! use session::{Lines, Outgoing, kit::codec};
//!
//! let own = |line: &str| line.to_owned();
//! let read = codec::every_cut(Lines::new, own, b"one\ntwo\r\nrest");
//! assert_eq!((read.items.len(), read.error), (3, None));
//! // Lines may end anywhere.
//! assert_eq!(codec::ends(Lines::new, own, b"a\nbc"), [0, 1, 2, 3, 4]);
//! codec::garbage(|| Lines::max(100), own, b"one\ntwo\n", 101);
//! let items = ["one".to_owned(), String::new()];
//! codec::round_trip(Lines::new, own, &items, |lines, item, out| session::Codec::encode(lines, item, out));
//! ```

use std::fmt::Debug;

use super::garbage::{Chance, Name};
use crate::codec::{Codec, Decoded};
use crate::failure::Result;
use crate::outgoing::Outgoing;

/// A codec's output for an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read<T> {
    /// The items, in order.
    pub items: Vec<T>,
    /// The text of the error that ended it, whether in the input or at its end.
    pub error: Option<String>,
}

/// Makes the codec read the input whole, byte by byte, and cut once at every byte. Each run must yield the
/// same items and the same end. Returns them.
///
/// # Panics
/// If the runs differ, or if the codec claims to have used no bytes, or more than there were.
pub fn every_cut<C: Codec, T: PartialEq + Debug>(
    make: impl Fn() -> C,
    own: impl Fn(C::In<'_>) -> T,
    input: &[u8],
) -> Read<T> {
    let whole = read(&mut make(), &own, [input], Asks::once());
    let bytes = read(&mut make(), &own, input.chunks(1), Asks::once());
    same("byte by byte", &whole, &bytes);
    for at in 1..input.len() {
        let (head, tail) = input.split_at(at);
        same(
            &format!("cut at {at}"),
            &whole,
            &read(&mut make(), &own, [head, tail], Asks { again: true, ..Asks::once() }),
        );
    }
    whole
}

/// Ends the input after each of its bytes, and returns the lengths after which the codec accepts the end.
///
/// # Panics
/// As [`every_cut`], for the whole input and for single bytes.
pub fn ends<C: Codec, T: PartialEq + Debug>(
    make: impl Fn() -> C,
    own: impl Fn(C::In<'_>) -> T,
    input: &[u8],
) -> Vec<usize> {
    let is_end = |len: &usize| {
        let input = &input[..*len];
        let whole = read(&mut make(), &own, [input], Asks::once());
        same(
            &format!("the end after {len}"),
            &whole,
            &read(&mut make(), &own, input.chunks(1), Asks::once()),
        );
        whole.error.is_none()
    };
    (0..=input.len()).filter(is_end).collect()
}

/// Feeds the codec random bytes, and the input with parts lost, doubled, moved or replaced. It plays each
/// whole and in pieces, with the same outcome. Returns how many of the 500 inputs the codec rejected.
///
/// # Panics
/// If the codec panics, if the runs differ, or if the codec leaves more than `rest_max` bytes and asks for
/// more.
pub fn garbage<C: Codec, T: PartialEq + Debug>(
    make: impl Fn() -> C,
    own: impl Fn(C::In<'_>) -> T,
    input: &[u8],
    rest_max: usize,
) -> usize {
    let mut refused = 0;
    for run in 0..RUNS {
        let _name = Name(run);
        let mut chance = Chance(run as u64);
        let spoilt = chance.spoil(input.to_vec(), (2 * rest_max).min(TAIL_MAX));
        let asks = Asks { again: run % 2 == 0, rest_max };
        let whole = read(&mut make(), &own, [&spoilt[..]], asks);
        let piece = chance.below(spoilt.len()) + 1;
        same(&format!("pieces of {piece}"), &whole, &read(&mut make(), &own, spoilt.chunks(piece), asks));
        refused += usize::from(whole.error.is_some());
    }
    refused
}

/// Encodes the items one after the other, and reads them back in every cut. Returns their bytes on the wire.
///
/// # Panics
/// If an item cannot be encoded, or if other items come back. As [`every_cut`].
pub fn round_trip<C: Codec, T: PartialEq + Debug>(
    make: impl Fn() -> C,
    own: impl Fn(C::In<'_>) -> T,
    items: &[T],
    encode: impl Fn(&mut C, &T, &mut Outgoing) -> Result,
) -> Vec<u8> {
    let (mut codec, mut out) = (make(), Outgoing::new());
    for item in items {
        let encoded = encode(&mut codec, item, &mut out);
        assert!(encoded.is_ok(), "{item:?} was not encoded: {encoded:?}");
    }
    let wire = out.to_vec();
    let read = every_cut(make, own, &wire);
    assert!(read.items == items, "sent {items:?}, and read {:?}", read.items);
    assert!(read.error.is_none(), "what was encoded is refused: {:?}", read.error);
    wire
}

/// How to call a codec.
#[derive(Clone, Copy)]
struct Asks {
    /// Whether to call it once more with the same input, as after a pause. Not done in all runs, because two
    /// changes to the input may undo each other.
    again: bool,
    /// The most bytes that the codec may leave.
    rest_max: usize,
}

impl Asks {
    fn once() -> Asks {
        Asks { again: false, rest_max: usize::MAX }
    }
}

/// Feeds a codec as the runtime does.
fn read<'i, C: Codec, T>(
    codec: &mut C,
    own: &impl Fn(C::In<'_>) -> T,
    pieces: impl IntoIterator<Item = &'i [u8]>,
    asks: Asks,
) -> Read<T> {
    let (mut items, mut rest) = (Vec::new(), Vec::new());
    for piece in pieces {
        rest.extend_from_slice(piece);
        while !rest.is_empty() {
            let given = rest.len();
            let used = match codec.decode(&mut rest) {
                Ok(Decoded::Item(used, item)) => {
                    items.push(own(item));
                    Some(used)
                }
                Ok(Decoded::Skip(used)) => Some(used),
                Ok(Decoded::More) => None,
                Err(error) => return Read { items, error: Some(error.to_string()) },
            };
            let Some(used) = used else {
                assert!(given <= asks.rest_max, "the codec leaves {given} bytes and asks for more");
                let more = !asks.again || matches!(codec.decode(&mut rest), Ok(Decoded::More));
                assert!(more, "asked again with the same {given} bytes the codec says something else");
                break;
            };
            assert!(used > 0, "the codec used nothing of {given} bytes");
            assert!(used <= given, "the codec used {used} of {given} bytes");
            rest.drain(..used);
        }
    }
    let error = match codec.end(&mut rest) {
        Ok(last) => {
            items.extend(last.map(own));
            None
        }
        Err(error) => Some(error.to_string()),
    };
    Read { items, error }
}

#[track_caller]
fn same<T: PartialEq + Debug>(how: &str, whole: &Read<T>, cut: &Read<T>) {
    assert!(whole == cut, "{how}: {cut:?}, but in one piece: {whole:?}");
}

const RUNS: usize = 500;
/// The most garbage in one input, in bytes.
const TAIL_MAX: usize = 10_000;
