//! The kit for codecs: the codecs of this crate pass it, and it fails wrong ones.

use std::panic::{AssertUnwindSafe, catch_unwind};

use session::kit::codec;
use session::{Codec, CodecError, Decoded, Delimited, Lines, Outgoing, Result, U16, U32, Varint};

fn text(line: &str) -> String {
    line.to_owned()
}

fn bytes(item: &[u8]) -> Vec<u8> {
    item.to_vec()
}

#[test]
fn the_codecs_of_the_crate_pass() {
    let read = codec::every_cut(Lines::new, text, "one\r\n\ntwo \u{20ac}\n\rthree\r\r\nlast".as_bytes());
    assert_eq!((read.items.len(), read.error), (5, None));
    assert!(codec::every_cut(|| Lines::max(4), text, b"1234\n12345\nlost").error.is_some());
    assert!(codec::garbage(|| Lines::max(40), text, b"one\ntwo\nthree", 41) > 100);
    let items: Vec<Vec<u8>> = [0, 1, 127, 128, 300].map(|len| vec![len as u8; len]).into();
    fn delimited<P: session::Prefix>(items: &[Vec<u8>]) {
        let make = || Delimited::<P>::max(300);
        let wire = codec::round_trip(make, bytes, items, |codec, item, out| codec.encode(item, out));
        // An end is clean only between two items.
        assert_eq!(codec::ends(make, bytes, &wire).len(), items.len() + 1);
        codec::garbage(make, bytes, &wire, 310);
    }
    delimited::<U16>(&items);
    delimited::<U32>(&items);
    delimited::<Varint>(&items);
}

/// Frames as in WebSocket: a kind, a length, a mask, and a body that is unmasked in place. A pad is not an
/// item.
#[derive(Default)]
struct Masked {
    wrong: Option<Wrong>,
    /// How many bytes of an incomplete body are unmasked so far.
    unmasked: usize,
    asked: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    UsesNothing,
    UsesMore,
    SkipsNothing,
    SkipsMore,
    ForgetsTheMask,
    CutsItemsByChance,
    SaysAnotherThing,
    Indexes,
    WaitsForEver,
    EndsAnyhow,
    EncodesLess,
}

impl Masked {
    fn of(wrong: Wrong) -> impl Fn() -> Masked {
        move || Masked { wrong: Some(wrong), ..Masked::default() }
    }
}

const PAD: u8 = 0;
const BODY: u8 = 1;
const BODY_MAX: usize = 50;

impl Codec for Masked {
    type In<'a> = &'a [u8];
    type Out<'a> = &'a [u8];

    fn decode<'a>(&mut self, input: &'a mut [u8]) -> Result<Decoded<&'a [u8]>> {
        if self.wrong == Some(Wrong::Indexes) {
            let _ = &input[..3 + input[1] as usize];
        }
        if input[0] == PAD {
            return Ok(Decoded::Skip(match self.wrong {
                Some(Wrong::SkipsNothing) => 0,
                Some(Wrong::SkipsMore) => input.len() + 1,
                _ => 1,
            }));
        }
        if input[0] != BODY {
            return Err(CodecError::Malformed("neither pad nor body").into());
        }
        let [_, len, mask, ..] = *input else { return Ok(Decoded::More) };
        let len = len as usize;
        if len > BODY_MAX && self.wrong != Some(Wrong::WaitsForEver) {
            return Err(CodecError::TooLong { limit: BODY_MAX, len }.into());
        }
        let there = (input.len() - 3).min(len);
        let from = if self.wrong == Some(Wrong::ForgetsTheMask) { 0 } else { self.unmasked };
        input[3..3 + there].iter_mut().skip(from).for_each(|byte| *byte ^= mask);
        self.unmasked = there;
        self.asked += 1;
        if self.wrong == Some(Wrong::SaysAnotherThing) && self.asked == 2 {
            return Err(CodecError::Malformed("asked twice").into());
        }
        if there < len && self.wrong != Some(Wrong::CutsItemsByChance)
            || self.wrong == Some(Wrong::WaitsForEver)
        {
            return Ok(Decoded::More);
        }
        (self.unmasked, self.asked) = (0, 0);
        let used = match self.wrong {
            Some(Wrong::UsesNothing) => 0,
            Some(Wrong::UsesMore) => input.len() + 1,
            _ => 3 + there,
        };
        Ok(Decoded::Item(used, &input[3..3 + there]))
    }

    fn encode(&mut self, item: &[u8], out: &mut Outgoing) -> Result {
        let item = if self.wrong == Some(Wrong::EncodesLess) { &item[..item.len().min(3)] } else { item };
        out.put(&[PAD, BODY, item.len() as u8, 0x55]);
        out.put(&item.iter().map(|byte| byte ^ 0x55).collect::<Vec<_>>());
        Ok(())
    }

    fn end<'a>(&mut self, left: &'a mut [u8]) -> Result<Option<&'a [u8]>> {
        if self.wrong == Some(Wrong::EndsAnyhow) || left.is_empty() {
            return Ok(None);
        }
        Err(session::Truncated.into())
    }
}

fn items() -> Vec<Vec<u8>> {
    vec![b"first".to_vec(), Vec::new(), b"the second".to_vec()]
}

fn trip(make: impl Fn() -> Masked) -> Vec<u8> {
    codec::round_trip(make, bytes, &items(), |codec, item, out| codec.encode(item, out))
}

#[test]
fn a_codec_may_skip_bytes_and_change_its_input_in_place() {
    let wire = trip(Masked::default);
    // After each item, and after each pad.
    assert_eq!(codec::ends(Masked::default, bytes, &wire), [0, 1, 9, 10, 13, 14, 27]);
    assert!(codec::garbage(Masked::default, bytes, &wire, BODY_MAX + 3) > 250);
}

#[test]
fn the_kit_fails_codecs_that_are_wrong() {
    let wire = trip(Masked::default);
    let notices = |suite: &mut dyn FnMut()| catch_unwind(AssertUnwindSafe(suite)).is_err();
    use Wrong::*;
    for wrong in [
        UsesNothing,
        UsesMore,
        SkipsNothing,
        SkipsMore,
        ForgetsTheMask,
        CutsItemsByChance,
        SaysAnotherThing,
        Indexes,
        EncodesLess,
    ] {
        assert!(notices(&mut || _ = trip(Masked::of(wrong))), "{wrong:?}");
    }
    for wrong in [WaitsForEver, Indexes, UsesMore] {
        assert!(
            notices(&mut || _ = codec::garbage(Masked::of(wrong), bytes, &wire, BODY_MAX + 3)),
            "{wrong:?}"
        );
    }
    assert_eq!(codec::ends(Masked::of(EndsAnyhow), bytes, &wire).len(), wire.len() + 1);
}
