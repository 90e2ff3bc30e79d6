//! The parsers of the example programs.

use std::path::Component;

use session::kit::codec;

use crate::bytes::Bytes;

#[path = "../../crates/reactor/examples/serve_files/date.rs"]
#[allow(dead_code, reason = "the server also reads the clock")]
pub(crate) mod date;
#[path = "../../crates/sim/examples/gossip_service/facts.rs"]
#[allow(dead_code, reason = "the service uses more of a set")]
mod facts;
#[path = "../../crates/reactor/examples/serve_files/head.rs"]
pub(crate) mod head;
#[path = "../../crates/sim/examples/gossip_service/line.rs"]
#[allow(dead_code, reason = "the service also bounds its lines")]
mod line;
#[path = "../../crates/reactor/examples/c10k/message.rs"]
mod message;
#[path = "../../crates/reactor/examples/serve_files/request.rs"]
#[allow(dead_code, reason = "the server reads every field")]
mod request;

/// Parses the head of a request and its dates. The path must stay within the directory that is served.
pub fn http_request(data: &[u8]) {
    if let request::Parsed::Whole(len, request) = request::parse(data) {
        let is_inside =
            request.path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        assert!(is_inside && !request.path.as_os_str().is_empty(), "{:?} leads elsewhere", request.path);
        assert!(!request.path.as_os_str().as_encoded_bytes().contains(&0));
        let request::Parsed::Whole(again, _) = request::parse(&data[..len]) else {
            panic!("a whole head is not whole without the bytes behind it")
        };
        assert_eq!(again, len);
        assert!(
            !matches!(request::parse(&data[..len - 1]), request::Parsed::Whole(..)),
            "its end was not needed"
        );
    }
    if let Ok(text) = str::from_utf8(data)
        && let Some(seconds) = date::parse(text)
        && seconds < YEAR_10000
    {
        assert_eq!(date::parse(&date::format(seconds)), Some(seconds));
    }
}

/// Parses the lines of the gossip protocol, and parses their text again.
pub fn gossip(data: &[u8]) {
    let mut known = facts::Facts::default();
    for line in data.split(|byte| *byte == b'\n') {
        let Some(line) = str::from_utf8(line).ok().and_then(|line| line::Line::parse(line).ok()) else {
            continue;
        };
        let printed = line.to_string();
        let again = line::Line::parse(&printed);
        assert!(again.is_ok_and(|again| again == line), "{printed:?} is not {line:?}");
        match line {
            line::Line::Sum { first, last, sum } => _ = known.sum_between(first, last) == sum,
            line::Line::Have { first, last, ids } => {
                assert!(ids.len() <= line::PAGE_MAX);
                _ = known.between(first, last).count();
            }
            line::Line::Want(ids) => assert!(ids.len() <= line::PAGE_MAX),
            line::Line::Fact(text) => _ = known.add(text),
            line::Line::Same => (),
        }
    }
}

/// Reads numbered messages, cut everywhere.
pub fn numbered(data: &[u8]) {
    let mut bytes = Bytes(data);
    let size = message::HEADER + bytes.below(20);
    let input = bytes.take(INPUT_MAX);
    let make = || message::Numbered::new(size);
    let own = |message| message;
    let read = codec::every_cut(make, own, input);
    let encode = |codec: &mut message::Numbered, item: &message::Message, out: &mut session::Outgoing| {
        session::Codec::encode(codec, *item, out)
    };
    let wire = codec::round_trip(make, own, &read.items, encode);
    assert!(input.starts_with(&wire), "other bytes than those were read");
}

/// The first second of a year that the format cannot express.
const YEAR_10000: u64 = 253_402_300_800;
/// Every cut of an input is tried, so more bytes would cost their square.
const INPUT_MAX: usize = 160;
