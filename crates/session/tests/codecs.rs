//! The codecs at their limits, with input cut anywhere.

use session::codec::{Bytes, Codec, CodecError, Decoded, Delimited, Lines, Prefix, U16, U32, Varint};
use session::{Failure, Outgoing, Result, Shared, Truncated};

/// Feeds `input` in pieces of `piece` bytes, as the runtime would, and collects the items and the error.
fn decode_all<C>(codec: &mut C, input: &[u8], piece: usize) -> (Vec<Vec<u8>>, Option<Failure>)
where
    C: Codec,
    for<'a> C::In<'a>: AsRef<[u8]>,
{
    let (mut items, mut kept) = (Vec::new(), Vec::new());
    for arrived in input.chunks(piece) {
        kept.extend_from_slice(arrived);
        while !kept.is_empty() {
            let given = kept.len();
            let used = match codec.decode(&mut kept) {
                Ok(Decoded::Item(used, item)) => {
                    items.push(item.as_ref().to_vec());
                    used
                }
                Ok(Decoded::Skip(_)) => panic!("none of them skips anything"),
                Ok(Decoded::More) => break,
                Err(error) => return (items, Some(error)),
            };
            assert!(used > 0 && used <= given);
            kept.drain(..used);
        }
    }
    let last = codec.end(&mut kept).map(|some| some.map(|item| item.as_ref().to_vec()));
    items.extend(last.as_ref().ok().cloned().flatten());
    (items, last.err())
}

/// Checks that every piece size gives the same items and the same error as the whole input.
fn same_however_cut<C>(make: impl Fn() -> C, input: &[u8])
where
    C: Codec,
    for<'a> C::In<'a>: AsRef<[u8]>,
{
    let whole = decode_all(&mut make(), input, input.len().max(1));
    for piece in 1..input.len() {
        let cut = decode_all(&mut make(), input, piece);
        assert_eq!(cut.0, whole.0, "pieces of {piece}");
        assert_eq!(
            cut.1.as_ref().map(ToString::to_string),
            whole.1.as_ref().map(ToString::to_string),
            "pieces of {piece}"
        );
    }
}

fn encoded<C: Codec>(codec: &mut C, item: C::Out<'_>) -> Result<Vec<u8>> {
    let mut out = Outgoing::new();
    codec.encode(item, &mut out)?;
    Ok(out.to_vec())
}

fn codec_error(result: Result<impl Sized>) -> CodecError {
    let error = result.err().expect("refused");
    *error.downcast_ref().expect("a codec's error")
}

#[test]
fn bytes_pass_as_they_come() {
    let (items, error) = decode_all(&mut Bytes, b"abc", 2);
    assert_eq!((items, error.is_none()), (vec![b"ab".to_vec(), b"c".to_vec()], true));
    assert_eq!(encoded(&mut Bytes, b"abc").expect("bytes encode"), b"abc");
}

#[test]
fn lines_are_the_same_however_cut() {
    same_however_cut(Lines::new, "one\r\n\ntwo \u{20ac}\n\r\n\rthree\r\r\nlast".as_bytes());
    same_however_cut(Lines::default, b"fine\nnot \xff utf-8\nlost");
    same_however_cut(|| Lines::max(4), b"1234\n1234\r\n12345\nlost");
    same_however_cut(|| Lines::max(4), b"1234\n123456789");
    let (items, error) = decode_all(&mut Lines::new(), b"a\r\nb\r\r\n\nc\r", 1);
    assert!(error.is_none());
    assert_eq!(items, [&b"a"[..], b"b\r", b"", b"c\r"]);
}

#[test]
fn a_line_may_be_as_long_as_the_limit_and_no_longer() {
    for end in ["\n", "\r\n", ""] {
        for (len, fits) in [(7, true), (8, true), (9, false)] {
            let input = "x".repeat(len) + end;
            for piece in [1, input.len()] {
                let (items, error) = decode_all(&mut Lines::max(8), input.as_bytes(), piece);
                assert_eq!((items.len(), error.is_none()), (fits as usize, fits), "{len} {end:?} {piece}");
                if let Some(error) = error {
                    assert_eq!(error.downcast_ref(), Some(&CodecError::TooLong { limit: 8, len: 9 }));
                }
            }
            assert_eq!(encoded(&mut Lines::max(8), &"x".repeat(len)).is_ok(), fits);
        }
    }
    let refused = codec_error(Lines::max(8).decode(&mut [b'x'; 10]));
    assert_eq!(refused, CodecError::TooLong { limit: 8, len: 9 });
    assert_eq!(
        codec_error(Lines::new().decode(&mut [b'x'; 8195])),
        CodecError::TooLong { limit: 8192, len: 8193 }
    );
    assert_eq!(Lines::max(8).decode(&mut b"xxxxxxxx\r".to_vec()).expect("may still end"), Decoded::More);
    assert_eq!(Lines::max(usize::MAX).decode(&mut [b'x']).expect("no overflow"), Decoded::More);
}

#[test]
fn a_line_to_be_sent_holds_no_newline_and_must_be_text_when_it_arrives() {
    assert_eq!(codec_error(encoded(&mut Lines::new(), "a\nb")), CodecError::Newline);
    assert_eq!(encoded(&mut Lines::new(), "a\r").expect("a carriage return may"), b"a\r\n");
    let error = codec_error(Lines::new().decode(&mut b"\xff\n".to_vec()));
    assert!(matches!(error, CodecError::NotUtf8(_)));
    assert!(std::error::Error::source(&error).is_some());
}

#[test]
fn a_long_line_in_small_pieces_is_looked_at_once() {
    // 4 MiB byte by byte: a codec that began anew each time would look at 8 TiB.
    let mut lines = Lines::max(4 << 20);
    let mut input = vec![b'x'; 4 << 20];
    for len in 1..=input.len() {
        assert_eq!(lines.decode(&mut input[..len]).expect("not too long"), Decoded::More);
    }
}

fn limits_of<P: Prefix>() {
    for (len, fits) in [(99, true), (100, true), (101, false)] {
        let item = vec![b'x'; len];
        let sent = encoded(&mut Delimited::<P>::max(100), &item[..]);
        assert_eq!(sent.is_ok(), fits);
        let wire = encoded(&mut Delimited::<P>::new(), &item[..]).expect("within the default");
        for piece in [1, wire.len()] {
            let (items, error) = decode_all(&mut Delimited::<P>::max(100), &wire, piece);
            assert_eq!((items.len(), error.is_none()), (fits as usize, fits));
            if let Some(error) = error {
                assert_eq!(error.downcast_ref(), Some(&CodecError::TooLong { limit: 100, len }));
            }
        }
    }
    let mut wire = Vec::new();
    for len in [0, 1, 127, 128, 300, 0] {
        wire.extend(encoded(&mut Delimited::<P>::default(), &vec![len as u8; len]).expect("short"));
    }
    same_however_cut(Delimited::<P>::new, &wire);
    same_however_cut(Delimited::<P>::new, &wire[..wire.len() - 3]);
    same_however_cut(|| Delimited::<P>::max(128), &wire);
    let (items, error) = decode_all(&mut Delimited::<P>::new(), &wire, 1);
    assert!(error.is_none());
    assert_eq!(items.iter().map(Vec::len).collect::<Vec<_>>(), [0, 1, 127, 128, 300, 0]);
    assert!(
        decode_all(&mut Delimited::<P>::new(), &wire[..wire.len() - 3], 1).1.expect("cut").is::<Truncated>()
    );
}

#[test]
fn items_behind_a_length_at_their_limits() {
    limits_of::<U16>();
    limits_of::<U32>();
    limits_of::<Varint>();
}

#[test]
fn defaults_hold_what_the_prefix_can_say_or_a_mebibyte() {
    let most = vec![0; u16::MAX as usize + 1];
    assert!(encoded(&mut Delimited::<U16>::new(), &most[1..]).is_ok());
    let error = codec_error(encoded(&mut Delimited::<U16>::max(1 << 30), &most[..]));
    assert_eq!(error, CodecError::TooLong { limit: 65_535, len: 65_536 });
    let most = vec![0; (1 << 20) + 1];
    assert_eq!(encoded(&mut Delimited::<U32>::new(), &most[1..]).expect("a mebibyte").len(), (1 << 20) + 4);
    assert!(encoded(&mut Delimited::<U32>::new(), &most[..]).is_err());
    assert!(encoded(&mut Delimited::<Varint>::new(), &most[..]).is_err());
}

#[test]
fn a_huge_announcement_is_refused_before_anything_is_kept() {
    let mut wire = 1_000_000_000u32.to_be_bytes();
    let error = codec_error(Delimited::<U32>::new().decode(&mut wire));
    assert_eq!(error, CodecError::TooLong { limit: 1 << 20, len: 1_000_000_000 });
    let error = codec_error(Delimited::<Varint>::new().decode(&mut b"\x80\x94\xeb\xdc\x03".to_vec()));
    assert_eq!(error, CodecError::TooLong { limit: 1 << 20, len: 1_000_000_000 });
}

#[test]
fn varints_are_short_and_of_32_bits() {
    let read = |bytes: &[u8]| Varint::read(bytes);
    assert_eq!(read(b"\x00"), Ok(Some((1, 0))));
    assert_eq!(read(b"\xac\x02"), Ok(Some((2, 300))));
    assert_eq!(read(b"\xff\xff\xff\xff\x0f"), Ok(Some((5, u32::MAX as usize))));
    assert_eq!(read(b"\xff\xff\xff\xff"), Ok(None));
    for wide in [&b"\xff\xff\xff\xff\x1f"[..], b"\x80\x80\x80\x80\x80", b"\x80\x80\x80\x80\x10"] {
        assert!(matches!(read(wide), Err(CodecError::Malformed(_))), "{wide:x?}");
    }
    for overlong in [&b"\x80\x00"[..], b"\x81\x80\x00", b"\xff\xff\xff\xff\x00"] {
        assert!(matches!(read(overlong), Err(CodecError::Malformed(_))), "{overlong:x?}");
    }
    // A length over the limit is truncated, without a panic.
    let mut out = Outgoing::new();
    Varint::write(usize::MAX, &mut out);
    assert_eq!(out.len(), 5);
    for len in (0..32).flat_map(|bits| [(1usize << bits) - 1, 1 << bits]).chain([u32::MAX as usize]) {
        let mut out = Outgoing::new();
        Varint::write(len, &mut out);
        assert_eq!(Varint::read(&out.to_vec()), Ok(Some((out.len(), len))));
    }
}

#[test]
fn shared_items_are_what_encode_writes() {
    let large = vec![7; 200_000];
    let shared = Shared::encode(&mut Delimited::<U32>::new(), &large[..]).expect("it fits");
    assert_eq!(shared.to_vec(), encoded(&mut Delimited::<U32>::new(), &large[..]).expect("it fits"));
    assert!(Shared::encode(&mut Lines::new(), "a\nb").is_err());
}

#[test]
fn a_codec_shows_its_limit_and_a_copy_keeps_it() {
    assert_eq!(format!("{:?}", Delimited::<U16>::max(100).clone()), "Delimited { max: 100 }");
}

#[test]
fn what_a_codec_refuses_is_said() {
    let not_utf8 = codec_error(Lines::new().decode(&mut b"\xff\n".to_vec()));
    for (error, text) in [
        (CodecError::TooLong { limit: 8, len: 9 }, "an item of 9 bytes or more, where at most 8 are allowed"),
        (not_utf8, "a line is not UTF-8"),
        (CodecError::Malformed("why"), "malformed length: why"),
        (CodecError::Newline, "a line to be sent contains a newline"),
        (CodecError::Contract { codec: "C", what: "why" }, "the codec C broke its contract: why"),
    ] {
        assert_eq!(error.to_string(), text);
    }
}
