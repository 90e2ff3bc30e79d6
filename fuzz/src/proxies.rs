//! The handshakes with proxies, and PROXY headers.

use session::{
    Layer, Phase,
    kit::Peer,
    proxy::{Accepts, Destination, HttpConnect, ProxyHeader, ReceiveHeader, SendHeader, Socks5, Version},
};

use crate::bytes::Bytes;

/// Plays a SOCKS5 proxy that says anything.
pub fn socks5(data: &[u8]) {
    let mut bytes = Bytes(data);
    let has_login = bytes.byte() % 2 == 1;
    let make = || {
        let layer = Socks5::new(destination_of_client());
        if has_login { layer.login("user", "password").expect("a valid login") } else { layer }
    };
    let peer = cut_anywhere(make, &mut bytes);
    assert_eq!(peer.session().phase() == Phase::Open, peer.session().layer().ready());
}

/// Plays an HTTP proxy that says anything.
pub fn http_connect(data: &[u8]) {
    let mut bytes = Bytes(data);
    let make = || HttpConnect::new(destination_of_client());
    cut_anywhere(make, &mut bytes);
}

/// Reads a PROXY header, and reads it back after it was written.
pub fn proxy_header(data: &[u8]) {
    let mut bytes = Bytes(data);
    let accepts = match bytes.byte() % 3 {
        0 => Accepts::V1,
        1 => Accepts::V2,
        _ => Accepts::Either,
    };
    let peer = cut_anywhere(|| ReceiveHeader::new(accepts), &mut bytes);
    let Some(header) = peer.session().layer().header() else { return };
    for version in [Version::V1, Version::V2] {
        // A header may be too long once a checksum is added.
        let Ok(sent) = SendHeader::new(header, version) else { continue };
        let mut written = Peer::new(sent);
        let mut reader = Peer::new(ReceiveHeader::new(Accepts::Either));
        reader.feed(&written.flight());
        let read = reader.session().layer().header();
        assert!(reader.error().is_none() && reader.received().is_empty(), "{:?}", reader.error());
        match version {
            Version::V2 => assert_eq!(read, Some(&expected_v2(header)), "it was not read back"),
            _ => assert!(read.is_some(), "version 1 was not read back"),
        }
    }
}

/// Version 2 expresses everything.
fn expected_v2(header: &ProxyHeader) -> ProxyHeader {
    header.clone()
}

/// Parses a destination of a proxy, and parses its text again.
pub fn destination(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(destination) = text.parse::<Destination>() else { return };
    let printed = destination.to_string();
    let again: Destination = printed.parse().expect("a printed destination is one");
    assert_eq!(again.to_string(), printed);
    assert_eq!((again.host(), again.port()), (destination.host(), destination.port()));
    Peer::new(Socks5::new(destination.clone())).flight();
    let asked = Peer::new(HttpConnect::new(destination)).flight();
    let lines = asked.split(|byte| *byte == b'\n').count();
    assert_eq!(lines, asked.iter().filter(|byte| **byte == b'\r').count() + 1, "a name broke a line");
}

fn destination_of_client() -> Destination {
    Destination::name("example.org", 80).expect("a valid name")
}

/// Feeds an end whole, byte by byte, and cut at one place, which must not matter. Returns the first end.
fn cut_anywhere<L: Layer>(make: impl Fn() -> L, bytes: &mut Bytes<'_>) -> Peer<L> {
    let at = bytes.below(512);
    let input = bytes.0;
    let run = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let (mut peer, mut said) = (Peer::new(make()), Vec::new());
        for piece in pieces {
            said.extend(peer.flight());
            peer.feed(piece);
        }
        said.extend(peer.flight());
        (peer, said)
    };
    let (whole, whole_said) = run(&mut std::iter::once(input));
    let (head, tail) = input.split_at(at.min(input.len()));
    for (cut, said) in [run(&mut input.chunks(1)), run(&mut [head, tail].into_iter())] {
        let (expected, found) = (whole.session(), cut.session());
        assert_eq!(found.phase(), expected.phase(), "{:?}, whole: {:?}", cut.error(), whole.error());
        assert_eq!(cut.received(), whole.received(), "a cut changed the bytes");
        assert_eq!(cut.error().is_some(), whole.error().is_some());
        assert_eq!(said, whole_said, "a cut changed the answers");
    }
    assert!(input.ends_with(whole.received()), "bytes came out that did not go in");
    whole
}
