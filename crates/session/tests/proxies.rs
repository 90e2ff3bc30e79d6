//! The layers for proxies: every cut, every answer, and all input that they must reject.

use session::kit::{self, Peer, Toy};
use session::proxy::{
    Accepts, Destination, DestinationError, HeaderError, HttpConnect, HttpConnectError, LoginError,
    ProxyHeader, ReceiveHeader, Relayed, Reply, SendHeader, Socks5, Socks5Error, Tlv, Version,
};
use session::{Io, Layer, LayerError, Next, Outgoing, Phase, Pool, Result, Step, Truncated};

/// A scripted other end of a handshake. It waits for each text, and answers it.
#[derive(Clone)]
struct Script(Vec<(Vec<u8>, Vec<u8>)>);

impl Layer for Script {
    const TRANSPARENT: bool = true;
    const INPUT_MAX: usize = 4 << 10;

    fn ready(&self) -> bool {
        self.0.is_empty()
    }

    fn open(&mut self, input: &mut [u8], io: &mut Io<'_>) -> Result<Step> {
        let (awaited, answer) = &self.0[0];
        let common = awaited.len().min(input.len());
        assert_eq!(input[..common], awaited[..common]);
        if common < awaited.len() {
            return Ok(Step { used: 0, next: Next::Wait });
        }
        io.down.put(answer);
        self.0.remove(0);
        Ok(Step { used: common, next: if self.ready() { Next::Wait } else { Next::Again } })
    }

    fn seal(&mut self, _: &[u8], _: &mut Io<'_>) -> Result<usize> {
        unreachable!("a transparent layer seals nothing")
    }
}

fn script(steps: &[(&[u8], &[u8])]) -> Script {
    Script(steps.iter().map(|(awaited, answer)| (awaited.to_vec(), answer.to_vec())).collect())
}

fn onion() -> Destination {
    Destination::name("abc.onion", 80).expect("a valid name")
}

fn socks() -> (Socks5, Script) {
    let bound = [&[5, 0, 0, 1], &[127, 0, 0, 1], &[0x1f, 0x90][..]].concat();
    let request = [&[5, 1, 0, 3, 9], &b"abc.onion"[..], &[0, 80]].concat();
    (Socks5::new(onion()), script(&[(&[5, 1, 0], &[5, 0]), (&request, &bound)]))
}

fn socks_with_login() -> (Socks5, Script) {
    let client = Socks5::new(onion()).login("me", "secret").expect("short enough");
    // A reply with the longest possible name.
    let bound = [&[5, 0, 0, 3, 255], &[b'n'; 255][..], &[0, 1]].concat();
    let request = [&[5, 1, 0, 3, 9], &b"abc.onion"[..], &[0, 80]].concat();
    let login = [&[1, 2], &b"me"[..], &[6], b"secret"].concat();
    (client, script(&[(&[5, 2, 0, 2], &[5, 2]), (&login, &[1, 0]), (&request, &bound)]))
}

fn connect() -> (HttpConnect, Script) {
    let client = HttpConnect::new(onion()).login("me", "secret").expect("valid");
    let request = b"CONNECT abc.onion:80 HTTP/1.1\r\nHost: abc.onion:80\r\n\
        Proxy-Authorization: Basic bWU6c2VjcmV0\r\n\r\n";
    let answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 Established\r\nContent-Length: 3\r\n\r\n";
    (client, script(&[(request, answer)]))
}

fn header() -> ProxyHeader {
    let source = "[2001:db8::7]:4711".parse().expect("an address");
    let destination = "192.0.2.1:443".parse().expect("an address");
    ProxyHeader::stream(source, destination)
}

fn headers(version: Version) -> (SendHeader, ReceiveHeader) {
    (SendHeader::new(&header(), version).expect("short"), ReceiveHeader::new(Accepts::Either))
}

/// Puts the toy cipher behind both ends.
fn sealed<A, B>((a, b): (A, B)) -> ((A, Toy), (B, Toy)) {
    ((a, Toy::client(7)), (b, Toy::server(11)))
}

#[test]
fn every_cut_of_every_handshake_gives_the_same() {
    kit::every_cut(socks);
    kit::every_cut(socks_with_login);
    kit::every_cut(connect);
    kit::every_cut(|| headers(Version::V1));
    kit::every_cut(|| headers(Version::V2));
    kit::every_cut(|| sealed(socks()));
    kit::every_cut(|| sealed(connect()));
    kit::every_cut(|| sealed(headers(Version::V2)));
    assert_eq!(kit::truncations(|| sealed(socks_with_login())), 0);
    assert_eq!(kit::truncations(|| sealed(headers(Version::V1))), 0);
}

#[test]
fn a_proxy_inside_a_proxy_works() {
    kit::every_cut(|| {
        let ((a, b), (c, d), (e, f)) = (socks_with_login(), connect(), headers(Version::V2));
        ((a, (c, e)), (b, (d, f)))
    });
}

#[test]
fn bytes_behind_the_answer_are_delivered() {
    let mut client = Peer::new(socks().0);
    client.feed(&[5, 0]);
    client.feed(b"\x05\0\0\x01\x7f\0\0\x01\x1f\x90SSH-2.0-banner");
    assert_eq!(client.received(), b"SSH-2.0-banner");
    let bound = client.session().layer().bound().expect("the proxy said it").to_string();
    assert_eq!(bound, "127.0.0.1:8080");

    let mut client = Peer::new(socks().0);
    client.feed(&[5, 0]);
    client.feed(&[&[5, 0, 0, 4, 0x20, 1, 0xd, 0xb8], &[0; 11][..], &[1, 0x1f, 0x90], b"banner"].concat());
    assert_eq!(client.received(), b"banner");
    let bound = client.session().layer().bound().expect("the proxy said it").to_string();
    assert_eq!(bound, "[2001:db8::1]:8080");

    let mut client = Peer::new(HttpConnect::new(onion()));
    client.feed(b"HTTP/1.1 200\n\nSSH-2.0-banner");
    assert_eq!(client.received(), b"SSH-2.0-banner");
}

#[test]
fn socks_sends_each_message_after_the_answer_before_it() {
    let (client, proxy) = socks_with_login();
    let mut client = Peer::new(client);
    client.send(b"data");
    for (awaited, answer) in proxy.0 {
        assert_eq!(client.flight(), awaited);
        client.feed(&answer);
    }
    assert_eq!(client.flight(), b"data");
}

#[test]
fn socks_asks_for_each_kind_of_destination() {
    let asked = |to: &str| {
        let mut client = Peer::new(Socks5::new(to.parse::<Destination>().expect(to)));
        client.flight();
        client.feed(&[5, 0]);
        client.flight()
    };
    assert_eq!(asked("192.0.2.1:258"), [5, 1, 0, 1, 192, 0, 2, 1, 1, 2]);
    let mut v6 = vec![5, 1, 0, 4, 0x20, 1, 0xd, 0xb8];
    v6.extend([0; 11]);
    v6.extend([1, 1, 2]);
    assert_eq!(asked("[2001:db8::1]:258"), v6);
    let name = "n".repeat(255);
    let request = [&[5, 1, 0, 3, 255], name.as_bytes(), &[0xff, 0xff]].concat();
    assert_eq!(asked(&format!("{name}:65535")), request);
}

#[test]
fn every_refusal_of_socks_is_told_by_type() {
    let refused = |with_login: bool, answers: &[&[u8]]| {
        let mut client = Socks5::new(onion());
        if with_login {
            client = client.login("me", "secret").expect("valid");
        }
        let mut client = Peer::new(client);
        answers.iter().for_each(|answer| client.feed(answer));
        let error = client.error().expect("the proxy refused");
        error.downcast_ref::<Socks5Error>().expect("its error").clone()
    };
    assert_eq!(refused(false, &[b"HTTP/1.1 400"]), Socks5Error::NotSocks5(b'H'));
    assert_eq!(refused(false, &[&[5, 0xff]]), Socks5Error::LoginRequired);
    assert_eq!(refused(false, &[&[5, 2]]), Socks5Error::LoginRequired);
    assert_eq!(refused(true, &[&[5, 0xff]]), Socks5Error::NoMethod);
    assert_eq!(refused(true, &[&[5, 2], &[1, 1]]), Socks5Error::LoginRefused);
    assert!(matches!(refused(true, &[&[5, 1]]), Socks5Error::Malformed(_)));
    assert!(matches!(refused(false, &[&[5, 0], &[5, 0, 0, 2, 0]]), Socks5Error::Malformed(_)));
    let mut texts = std::collections::HashSet::new();
    for code in 1..=255 {
        // Two bytes are enough, because some proxies send no more.
        let error = refused(false, &[&[5, 0], &[5, code]]);
        let Socks5Error::Refused(reply) = &error else { panic!("{code}: {error:?}") };
        let expected = match code {
            1 => Reply::GeneralFailure,
            2 => Reply::NotAllowed,
            3 => Reply::NetworkUnreachable,
            4 => Reply::HostUnreachable,
            5 => Reply::ConnectionRefused,
            6 => Reply::TtlExpired,
            7 => Reply::CommandNotSupported,
            8 => Reply::AddressNotSupported,
            0xf0..=0xf7 => Reply::Onion(code),
            _ => Reply::Other(code),
        };
        assert_eq!(*reply, expected);
        assert!(texts.insert(error.to_string()), "{code}: {error} is said of two codes");
    }
}

#[test]
fn an_end_in_a_handshake_is_a_truncation() {
    let mut client = Peer::new(socks().0);
    client.feed(&[5, 0, 5]);
    assert!(client.end().unwrap_err().is::<Truncated>());
    let mut accepted = Peer::new(ReceiveHeader::new(Accepts::V1));
    accepted.feed(b"PROXY TCP4 192.0.2.1");
    assert!(accepted.end().unwrap_err().is::<Truncated>());
}

#[test]
fn every_refusal_of_connect_is_told_by_type() {
    let refused = |answer: &[u8]| {
        let mut client = Peer::new(HttpConnect::new(onion()));
        client.feed(answer);
        let error = client.error().unwrap_or_else(|| panic!("accepted {}", answer.escape_ascii()));
        error.downcast_ref::<HttpConnectError>().expect("its error").clone()
    };
    assert_eq!(
        refused(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"),
        HttpConnectError::Refused { status: 407, reason: "Proxy Authentication Required".into() }
    );
    assert_eq!(
        refused(b"HTTP/1.0 502\n\n"),
        HttpConnectError::Refused { status: 502, reason: String::new() }
    );
    let long = [b"HTTP/1.1 503 \x1b[31m", &[b'x'; 200][..], b"\r\n\r\n"].concat();
    let HttpConnectError::Refused { reason, .. } = refused(&long) else { panic!("it has a status") };
    assert_eq!((reason.len(), reason.starts_with("[31mx")), (100, true));
    for other in ["\u{5}\0", "SSH-2.0", "HTTP/2 200\r\n\r\n", "HTTP/1.1 20\r\n\r\n", "HTTP/1.1 2000\r\n\r\n"]
    {
        assert_eq!(refused(other.as_bytes()), HttpConnectError::NotHttp, "{other:?}");
    }
    assert_eq!(refused(b"HTTP/1.1 099 x\r\n\r\n"), HttpConnectError::NotHttp);
    assert_eq!(refused(b"HTTP/1.1 -20 x\r\n\r\n"), HttpConnectError::NotHttp);
    assert_eq!(refused(b"HTTP/1.\n\n"), HttpConnectError::NotHttp);
}

#[test]
fn the_head_of_an_answer_has_a_limit() {
    let limit = HttpConnect::INPUT_MAX;
    let head = |len: usize| {
        let mut head = b"HTTP/1.1 200 OK\r\nX: ".to_vec();
        head.resize(len - 4, b'x');
        head.extend_from_slice(b"\r\n\r\n");
        head
    };
    for (len, is_open) in [(limit - 1, true), (limit, true), (limit + 1, false)] {
        for cut in [0, len - 1] {
            let mut client = Peer::new(HttpConnect::new(onion()));
            let head = head(len);
            client.feed(&head[..cut]);
            client.feed(&head[cut..]);
            assert_eq!(client.session().phase() == Phase::Open, is_open, "{len} cut at {cut}");
            assert_eq!(client.error().is_some_and(|error| error.is::<LayerError>()), !is_open);
        }
    }
    // A head that never ends.
    let mut client = Peer::new(HttpConnect::new(onion()));
    client.feed(&head(limit + 6)[..limit + 1]);
    assert!(client.error().expect("too long").is::<LayerError>());
}

#[test]
fn logins_are_checked_and_not_shown() {
    let long = "x".repeat(256);
    let valid = "x".repeat(255);
    for (user, password, is_valid) in
        [(&valid[..], &valid[..], true), (&long, "p", false), ("u", &long, false), ("", "p", false)]
    {
        let result = Socks5::new(onion()).login(user, password);
        assert_eq!(result.is_ok(), is_valid, "{user}:{password}");
    }
    let refused: LoginError = HttpConnect::new(onion()).login("a:b", "hunter2").expect_err("a colon");
    assert_eq!(refused.to_string(), "the proxy's login cannot be sent: the user has a colon");
    assert!(HttpConnect::new(onion()).login("a", "b\r\nX: y").is_err());
    for shown in [format!("{:?}", socks_with_login().0), format!("{:?}", connect().0)] {
        assert!(shown.contains("hidden") && !shown.contains("secret") && !shown.contains("bWU6"), "{shown}");
    }
}

#[test]
fn destinations_read_back_what_they_write() {
    for text in ["example.org:443", "192.0.2.1:0", "[2001:db8::1]:65535", "a_b-c.xn--p1ai:1", "localhost:80"]
    {
        let destination: Destination = text.parse().expect(text);
        assert_eq!(destination.to_string(), text);
        assert_eq!(Destination::name(destination.host(), destination.port()), Ok(destination));
    }
    let long = format!("{}:1", "n".repeat(256));
    for text in
        ["", "x", ":80", "x:", "x:+1", "x:65536", "::1:80", "a b:1", "a\r\nb:1", "a/b:1", "u@h:1", &long]
    {
        let error: DestinationError = text.parse::<Destination>().expect_err(text);
        assert!(error.to_string().contains(" is no destination: "), "{error}");
    }
}

fn received(accepts: Accepts, bytes: &[u8]) -> Result<ProxyHeader, HeaderError> {
    let mut peer = Peer::new(ReceiveHeader::new(accepts));
    peer.feed(bytes);
    match peer.error() {
        Some(error) => Err(*error.downcast_ref().expect("its error")),
        None => Ok(peer.session().layer().header().expect("the whole header was fed").clone()),
    }
}

fn written(header: &ProxyHeader, version: Version) -> Vec<u8> {
    Peer::new(SendHeader::new(header, version).expect("short")).flight()
}

#[test]
fn headers_of_version_1_are_read_as_their_document_says() {
    let relayed = |line: &str| received(Accepts::V1, line.as_bytes()).map(|header| header.relayed);
    let stream = |source: &str, destination: &str| Relayed::Stream {
        source: source.parse().expect(source),
        destination: destination.parse().expect(destination),
    };
    assert_eq!(
        relayed("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"),
        Ok(stream("255.255.255.255:65535", "255.255.255.255:65535"))
    );
    assert_eq!(relayed("PROXY TCP6 ::1 2001:db8::1 1 0\r\n"), Ok(stream("[::1]:1", "[2001:db8::1]:0")));
    assert_eq!(relayed("PROXY UNKNOWN\r\n"), Ok(Relayed::Unknown));
    assert_eq!(relayed("PROXY UNKNOWN ffff:: whatever 1 2\r\n"), Ok(Relayed::Unknown));
    for line in [
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
        "PROXY TCP4 1.2.3.4  1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n",
        "PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n",
    ] {
        assert!(matches!(relayed(line), Err(HeaderError::Malformed(_))), "{line:?}");
    }
    assert_eq!(relayed("GET / HTTP/1.1\r\n"), Err(HeaderError::Absent));
    assert_eq!(relayed("PROXYING"), Err(HeaderError::Absent));
    // A header has at most 107 bytes, including CR and LF, so the layer waits for no more.
    for (len, is_waiting) in [(106, true), (107, false)] {
        let mut peer = Peer::new(ReceiveHeader::new(Accepts::V1));
        peer.feed(format!("PROXY UNKNOWN {}", "x".repeat(len - 14)).as_bytes());
        assert_eq!(peer.error().is_none(), is_waiting, "{len}");
    }
    for (len, expected) in
        [(106, Ok(Relayed::Unknown)), (107, Ok(Relayed::Unknown)), (108, Err(HeaderError::TooLong))]
    {
        let line = format!("PROXY UNKNOWN {}\r\n", "x".repeat(len - 16));
        assert_eq!(line.len(), len);
        assert_eq!(relayed(&line), expected, "{len}");
    }
}

#[test]
fn headers_of_version_2_are_read_as_they_were_written() {
    let end = |text: &str| text.parse().expect(text);
    let unix = Relayed::Unix { source: b"\0abstract".to_vec(), destination: vec![b'/'; 108] };
    let (source, destination) = (end("192.0.2.1:1"), end("192.0.2.2:2"));
    for relayed in [
        Relayed::Local,
        Relayed::Unknown,
        unix,
        Relayed::Stream { source, destination },
        Relayed::Datagrams { source: end("[2001:db8::1]:1"), destination: end("[2001:db8::2]:2") },
    ] {
        let header = ProxyHeader::new(relayed).with(1, *b"h2").with(2, *b"example.org").with(5, Vec::new());
        assert_eq!(received(Accepts::V2, &written(&header, Version::V2)), Ok(header.clone()));
        assert_eq!(header.value(2), Some(&b"example.org"[..]));
    }
    // Addresses of two families become one family.
    let mixed = received(Accepts::Either, &written(&header(), Version::V2)).expect("valid").relayed;
    let expected =
        Relayed::Stream { source: end("[2001:db8::7]:4711"), destination: end("[::ffff:192.0.2.1]:443") };
    assert_eq!(mixed, expected);
}

/// A header as HAProxy writes it: TCP over IPv4, the name `a.example` and a checksum.
const HAPROXY: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x1f\
    \xc0\x00\x02\x01\xc6\x33\x64\x01\x12\x67\x01\xbb\
    \x02\x00\x09a.example\x03\x00\x04";

#[test]
fn a_flipped_bit_of_version_2_is_noticed() {
    let header = header().with(2, *b"a.example");
    let bytes = written(&header, Version::V2);
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            let mut peer = Peer::new(ReceiveHeader::new(Accepts::V2));
            peer.feed(&flipped);
            // A longer length makes the layer wait for bytes that never come.
            let noticed = peer.error().is_some() || peer.session().phase() == Phase::Handshake;
            // If the type of the checksum itself changes, it is no longer a checksum.
            let is_type = at == bytes.len() - 7;
            assert!(noticed || is_type, "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn the_checksum_is_the_one_of_its_rfc() {
    // The layer must accept the checksum of a second implementation, which is checked against RFC 3720, B.4.
    let mut header = HAPROXY.to_vec();
    let begin = header.len();
    header.extend_from_slice(&[0; 4]);
    let checksum = crc32c_by_table(&header);
    header[begin..].copy_from_slice(&checksum.to_be_bytes());
    let read = received(Accepts::Either, &header).expect("valid");
    assert_eq!(read.values, [Tlv { kind: 2, value: b"a.example".to_vec() }]);
    assert_eq!(crc32c_by_table(&[0; 32]), 0x8a91_36aa);
    let ascending: Vec<u8> = (0..32).collect();
    assert_eq!(crc32c_by_table(&ascending), 0x46dd_794e);
    header[20] ^= 1;
    assert_eq!(received(Accepts::Either, &header), Err(HeaderError::Checksum));
}

/// Computes the same checksum in another way.
fn crc32c_by_table(bytes: &[u8]) -> u32 {
    let table: Vec<u32> =
        (0..256_u32).map(|byte| (0..8).fold(byte, |crc, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1)))).collect();
    !bytes.iter().fold(!0_u32, |crc, byte| table[(crc as u8 ^ byte) as usize] ^ (crc >> 8))
}

#[test]
fn malformed_headers_of_version_2_are_refused() {
    let with = |version: u8, family: u8, body: &[u8]| {
        let mut header = HAPROXY[..12].to_vec();
        header.extend_from_slice(&[version, family]);
        header.extend_from_slice(&(body.len() as u16).to_be_bytes());
        header.extend_from_slice(body);
        received(Accepts::V2, &header).map(|header| header.relayed)
    };
    let malformed = |result| matches!(result, Err(HeaderError::Malformed(_)));
    assert!(malformed(with(0x11, 0x11, &[0; 12])));
    assert!(malformed(with(0x22, 0x11, &[0; 12])));
    assert!(malformed(with(0x21, 0x11, &[0; 11])));
    assert!(malformed(with(0x21, 0x11, &[0; 14])));
    assert!(malformed(with(0x21, 0x31, &[0; 215])));
    assert!(malformed(with(0x21, 0, &[3, 0, 3, 0, 0, 0])));
    assert!(malformed(with(0x21, 0, &[4, 0, 3, 0, 0])));
    // The proxy speaks for itself, whatever addresses it sends. An unknown family is ignored.
    assert_eq!(with(0x20, 0x11, &[0; 12]), Ok(Relayed::Local));
    assert_eq!(with(0x20, 0, &[]), Ok(Relayed::Local));
    assert_eq!(with(0x21, 0, &[]), Ok(Relayed::Unknown));
    assert_eq!(with(0x21, 0x10, &[0; 12]), Ok(Relayed::Unknown));
}

#[test]
fn a_header_of_version_2_has_a_limit() {
    // 16 fixed bytes, 36 of addresses, 3 of the value and 7 of the checksum.
    let around = 16 + 36 + 3 + 7;
    for (len, fits) in [(4095, true), (4096, true), (4097, false)] {
        let header = header().with(0xe0, vec![7; len - around]);
        let sender = SendHeader::new(&header, Version::V2);
        assert_eq!(sender.is_ok(), fits, "{len}");
        let mut bytes = HAPROXY[..12].to_vec();
        bytes.extend_from_slice(&[0x21, 0]);
        bytes.extend_from_slice(&(len as u16 - 16).to_be_bytes());
        bytes.extend_from_slice(&[0xe0]);
        bytes.extend_from_slice(&(len as u16 - 19).to_be_bytes());
        bytes.resize(len, 7);
        let expected = if fits { Ok(Relayed::Unknown) } else { Err(HeaderError::TooLong) };
        assert_eq!(received(Accepts::V2, &bytes).map(|header| header.relayed), expected, "{len}");
    }
    let long = Relayed::Unix { source: vec![b'/'; 109], destination: Vec::new() };
    let refused = SendHeader::new(&ProxyHeader::new(long), Version::V2);
    assert_eq!(refused.err(), Some(HeaderError::Path));
}

#[test]
fn a_header_is_sent_before_the_layer_is_ready() {
    let layer = headers(Version::V2).0;
    assert!(!layer.ready());
    assert!(Peer::new(layer).session().layer().ready());
}

#[test]
fn only_the_versions_asked_for_are_accepted() {
    let (v1, v2) = (written(&header(), Version::V1), written(&header(), Version::V2));
    assert_eq!(received(Accepts::V1, &v2), Err(HeaderError::Absent));
    assert_eq!(received(Accepts::V2, &v1), Err(HeaderError::Absent));
    assert!(received(Accepts::Either, &v1).is_ok() && received(Accepts::Either, &v2).is_ok());
}

#[test]
fn no_input_panics_a_layer_or_makes_it_spin() {
    let mut seed: u64 = 0x5eed;
    println!("seed {seed:#x}");
    let mut draw = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize
    };
    let (v1, v2) = (written(&header(), Version::V1), written(&header().with(1, *b"h2"), Version::V2));
    let socks = b"\x05\x02\x01\x00\x05\x00\x00\x03\x09localhost\x1f\x90".to_vec();
    let http = b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\n".to_vec();
    for round in 0..20_000 {
        let mut bytes = [&v1, &v2, &socks, &http][round % 4].clone();
        for _ in 0..draw() % 4 {
            let at = draw() % bytes.len();
            match draw() % 3 {
                0 => bytes[at] = draw() as u8,
                1 => bytes.truncate(at + 1),
                _ => bytes.insert(at, draw() as u8),
            }
        }
        let cut = draw() % (bytes.len() + 1);
        match round % 4 {
            0 | 1 => mutated(ReceiveHeader::new(Accepts::Either), &bytes, cut),
            2 => mutated(Socks5::new(onion()).login("u", "p").expect("valid"), &bytes, cut),
            _ => mutated(HttpConnect::new(onion()), &bytes, cut),
        }
    }
}

/// Checks that whole and cut input lead to the same outcome.
fn mutated<L: Layer + Clone>(layer: L, bytes: &[u8], cut: usize) {
    let (mut whole, mut parts) = (Peer::new(layer.clone()), Peer::new(layer));
    whole.feed(bytes);
    parts.feed(&bytes[..cut]);
    parts.feed(&bytes[cut..]);
    let outcome = |peer: &Peer<L>| {
        let error = peer.error().map(ToString::to_string);
        (peer.session().phase(), peer.received().to_vec(), error)
    };
    assert_eq!(outcome(&whole), outcome(&parts), "{} cut at {cut}", bytes.escape_ascii());
}

#[test]
fn padding_between_values_is_passed_over() {
    let header = header().with(4, vec![0; 5]).with(2, *b"a.example");
    let read = received(Accepts::V2, &written(&header, Version::V2)).expect("valid");
    assert_eq!(read.values, [Tlv { kind: 2, value: b"a.example".to_vec() }]);
}

#[test]
fn a_transparent_layer_that_is_asked_to_seal_passes_the_bytes_on() {
    fn sealed(mut layer: impl Layer) -> (usize, Vec<u8>) {
        let (mut up, mut down, mut pool) = (Vec::new(), Outgoing::new(), Pool::new());
        let mut io = Io { up: &mut up, down: &mut down, pool: &mut pool };
        (layer.seal(b"clear", &mut io).expect("nothing to fail"), down.to_vec())
    }
    let passed = (5, b"clear".to_vec());
    assert_eq!(sealed(socks().0), passed);
    assert_eq!(sealed(connect().0), passed);
    let (sender, receiver) = headers(Version::V1);
    assert_eq!((sealed(sender), sealed(receiver)), (passed.clone(), passed));
}

#[test]
fn a_refusal_of_connect_shows_its_reason_if_there_is_one() {
    let shown = |reason: &str| HttpConnectError::Refused { status: 502, reason: reason.into() }.to_string();
    assert_eq!(shown(""), "the HTTP proxy refused with status 502");
    assert_eq!(shown("Bad Gateway"), "the HTTP proxy refused with status 502 (Bad Gateway)");
}

#[test]
fn what_a_header_lacks_is_said() {
    for (error, text) in [
        (HeaderError::Absent, "the connection does not begin with a PROXY header"),
        (HeaderError::Malformed("why"), "the PROXY header is malformed: why"),
        (HeaderError::Checksum, "the PROXY header has a wrong checksum"),
        (HeaderError::TooLong, "the PROXY header is too long"),
        (HeaderError::Path, "a PROXY header carries paths of at most 108 bytes"),
    ] {
        assert_eq!(error.to_string(), text);
    }
}
