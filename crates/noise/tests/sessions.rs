//! What sessions learn and refuse, and how they agree with other implementations, in memory.

use reactor_noise::{IK, Keypair, NN, Noise, NoiseError, NoiseOptions, Setting, XK, XX};
use session::kit::{Peer, pump};
use session::{Layer, Phase, Truncated};

const NNPSK0: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";

fn options(protocol: &str) -> NoiseOptions {
    NoiseOptions::new(protocol).expect("it exists")
}

fn keys() -> Keypair {
    Keypair::generate().expect("a key")
}

fn connect(client: &NoiseOptions, server: &NoiseOptions) -> (Peer<Noise>, Peer<Noise>) {
    let mut client = Peer::new(client.initiator().expect("whole"));
    let mut server = Peer::new(server.responder().expect("whole"));
    pump(&mut client, &mut server);
    (client, server)
}

fn error(peer: &Peer<Noise>) -> &NoiseError {
    peer.error().expect("it failed").downcast_ref().expect("of Noise")
}

#[test]
fn each_side_learns_the_others_key_and_the_hash() {
    let (a, b) = (keys(), keys());
    for protocol in [XK, IK, XX] {
        let client = options(protocol).keypair(&a);
        let client = if protocol == XX { client } else { client.remote(b.public()) };
        let (client, server) = connect(&client, &options(protocol).keypair(&b));
        let (at_client, at_server) = (client.session().layer(), server.session().layer());
        assert_eq!(at_client.remote_static(), Some(b.public()), "{protocol}");
        assert_eq!(at_server.remote_static(), Some(a.public()), "{protocol}");
        assert_eq!(at_client.handshake_hash(), at_server.handshake_hash());
        assert_eq!(at_client.handshake_hash().expect("open").len(), 32);
    }
    let (client, server) = connect(&options(NN), &options(NN));
    assert_eq!(client.session().layer().remote_static(), None);
    assert!(client.session().layer().handshake_hash() == server.session().layer().handshake_hash());
}

#[test]
fn another_key_secret_or_prologue_is_refused() {
    let (a, b, other) = (keys(), keys(), keys());
    let (client, server) = connect(&options(XK).keypair(&a).remote(other.public()), &options(XK).keypair(&b));
    assert!(matches!(error(&server), NoiseError::Handshake(_)));
    assert_eq!(client.session().phase(), Phase::Handshake);
    let (_, server) = connect(&options(NN).prologue("v1"), &options(NN).prologue("v2"));
    assert!(server.error().is_none(), "with NN the second message shows it");
    let (client, _) = connect(&options(NN).prologue("v1"), &options(NN).prologue("v2"));
    assert!(matches!(error(&client), NoiseError::Handshake(_)));
    let (_, server) = connect(&options(NNPSK0).psk(0, &[1; 32]), &options(NNPSK0).psk(0, &[2; 32]));
    assert!(matches!(error(&server), NoiseError::Handshake(_)));
}

#[test]
fn settings_that_cannot_work_are_refused() {
    assert!(matches!(NoiseOptions::new("Noise_ZZ_25519_ChaChaPoly_SHA256"), Err(NoiseError::Settings(_))));
    assert!(matches!(NoiseOptions::new("Noise_XX_448_ChaChaPoly_SHA256"), Err(NoiseError::Settings(_))));
    let twice = options(NNPSK0).psk(0, &[1; 32]).psk(0, &[1; 32]);
    assert!(matches!(refusals(&twice), [NoiseError::Settings(_), NoiseError::Settings(_)]));
}

/// Returns the errors of both roles.
fn refusals(options: &NoiseOptions) -> [NoiseError; 2] {
    [options.initiator(), options.responder()].map(|made| made.expect_err("these settings cannot work"))
}

#[test]
fn one_way_patterns_are_refused() {
    for pattern in ["N", "K", "X", "Npsk0", "Kpsk0", "Xpsk1"] {
        let protocol = format!("Noise_{pattern}_25519_ChaChaPoly_BLAKE2s");
        assert_eq!(NoiseOptions::new(&protocol).expect_err(pattern), NoiseError::OneWay);
    }
}

#[test]
fn a_secret_that_the_pattern_does_not_use_is_refused() {
    let secret = &[1; 32];
    for (protocol, place) in [(NN, 0), (NN, 11), (NN, 255), (NNPSK0, 1), (NNPSK0, 2)] {
        let unused = || NoiseError::Unused(Setting::Psk(place));
        assert_eq!(refusals(&options(protocol).psk(place, secret)), [unused(), unused()], "{protocol}");
        let with_the_right_one = options(protocol).psk(0, secret).psk(place, secret);
        assert!(matches!(refusals(&with_the_right_one)[0], NoiseError::Unused(Setting::Psk(_))));
    }
}

#[test]
fn a_secret_that_the_pattern_needs_is_not_forgotten() {
    let missing = |place| NoiseError::Missing(Setting::Psk(place));
    assert_eq!(refusals(&options(NNPSK0)), [missing(0), missing(0)]);
    let two = "Noise_NNpsk0+psk2_25519_ChaChaPoly_BLAKE2s";
    assert_eq!(refusals(&options(two).psk(0, &[1; 32])), [missing(2), missing(2)]);
    let whole = options(two).psk(0, &[1; 32]).psk(2, &[2; 32]);
    assert_eq!(connect(&whole, &whole).0.session().phase(), Phase::Open);
}

#[test]
fn keys_are_set_where_the_pattern_uses_them() {
    let (ours, theirs) = (keys(), keys());
    let unused = |setting| Some(NoiseError::Unused(setting));
    let missing = |setting| Some(NoiseError::Missing(setting));
    // Each pattern, with the need of each side: a key of its own, and the peer's before the handshake.
    for (pattern, own, known) in [
        ("NN", [false, false], [false, false]),
        ("NK", [false, true], [true, false]),
        ("NX", [false, true], [false, false]),
        ("XN", [true, false], [false, false]),
        ("KN", [true, false], [false, true]),
        ("KK", [true, true], [true, true]),
        ("XK", [true, true], [true, false]),
        ("IK", [true, true], [true, false]),
        ("XX", [true, true], [false, false]),
        ("X1X1", [true, true], [false, false]),
    ] {
        for side in [0, 1] {
            let outcome = |keypair: bool, remote: bool| {
                let mut options = options(&format!("Noise_{pattern}_25519_ChaChaPoly_BLAKE2s"));
                if keypair {
                    options = options.keypair(&ours);
                }
                if remote {
                    options = options.remote(theirs.public());
                }
                if side == 0 { options.initiator().err() } else { options.responder().err() }
            };
            let peer_has_one = own[1 - side];
            let wrong_own = if own[side] { missing(Setting::Keypair) } else { unused(Setting::Keypair) };
            assert_eq!(outcome(!own[side], known[side]), wrong_own, "{pattern} {side}");
            let without = if known[side] { missing(Setting::Remote) } else { None };
            assert_eq!(outcome(own[side], false), without, "{pattern} {side}");
            let with = if peer_has_one { None } else { unused(Setting::Remote) };
            assert_eq!(outcome(own[side], true), with, "{pattern} {side}");
        }
    }
}

/// Options of both sides. The responder's key is known before where the pattern needs it.
fn sides(protocol: &str, client: &Keypair, server: &Keypair) -> (NoiseOptions, NoiseOptions) {
    let (mut a, b) = (options(protocol).keypair(client), options(protocol).keypair(server));
    if protocol != XX {
        a = a.remote(server.public());
    }
    (a, b)
}

#[test]
fn a_key_that_the_peer_shows_must_be_the_required_one() {
    let (a, b, other) = (keys(), keys(), keys());
    for protocol in [XX, XK, IK] {
        let (client, server) = sides(protocol, &a, &b);
        let (_, at_server) = connect(&client, &server.clone().remote(a.public()));
        assert_eq!(at_server.session().phase(), Phase::Open, "{protocol}");

        let (mut client, mut server) = connect(&client, &server.remote(other.public()));
        assert_eq!(error(&server), &NoiseError::WrongKey { key: *a.public() }, "{protocol}");
        assert!(!server.session().layer().ready(), "{protocol}");
        client.send(b"trust me");
        server.feed(&client.flight());
        assert!(server.received().is_empty(), "{protocol}");
        assert!(server.flight().is_empty(), "{protocol}: it answers nobody");
    }
}

#[test]
fn an_initiator_does_not_show_its_key_to_a_peer_with_another() {
    let (a, b, other) = (keys(), keys(), keys());
    let (client, server) = sides(XX, &a, &b);
    let (at_client, _) = connect(&client.clone().remote(b.public()), &server);
    assert_eq!(at_client.session().phase(), Phase::Open);

    let mut client = Peer::new(client.remote(other.public()).initiator().expect("whole"));
    let mut server = Peer::new(server.responder().expect("whole"));
    server.feed(&client.flight());
    client.feed(&server.flight());
    let wrong = NoiseError::WrongKey { key: *b.public() };
    assert_eq!(error(&client), &wrong);
    assert!(client.flight().is_empty(), "its key stays here");
    assert_eq!(client.session().layer().remote_static(), None);
    let hex: String = b.public().iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(wrong.to_string().ends_with(&hex), "{wrong}");
}

#[test]
fn the_same_ephemeral_keys_give_the_same_bytes() {
    let (a, b) = (keys(), keys());
    let (client, server) = (options(XX).keypair(&a), options(XX).keypair(&b));
    let run = |secret: u8| {
        let mut client = Peer::new(client.initiator_with([secret; 32]).expect("whole"));
        let mut server = Peer::new(server.responder_with([secret + 1; 32]).expect("whole"));
        let mut wire = Vec::new();
        client.send(b"hello");
        for _ in 0..4 {
            let flight = client.flight();
            server.feed(&flight);
            let answer = server.flight();
            client.feed(&answer);
            wire.extend([flight, answer].concat());
        }
        assert_eq!(server.received(), b"hello");
        wire
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn the_first_message_is_the_public_key_of_the_ephemeral_one() {
    let secret = [0x20; 32];
    let public = *Keypair::from_private(secret).expect("a key").public();
    let mut client = Peer::new(options(NN).initiator_with(secret).expect("whole"));
    assert_eq!(client.flight(), [&[0, 32][..], &public].concat());
}

#[test]
fn the_public_key_is_that_of_rfc_7748() {
    let hex = |text: &str| -> [u8; 32] {
        std::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hex"))
    };
    // Alice's key of section 6.1.
    let private = hex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
    let public = hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
    let keys = Keypair::from_private(private).expect("a key");
    assert_eq!((keys.private(), keys.public()), (&private, &public));
}

#[test]
fn handshake_messages_with_a_payload_are_refused() {
    let mut server = Peer::new(options(NN).responder().expect("whole"));
    let mut message = vec![0, 35];
    message.extend_from_slice(Keypair::from_private([9; 32]).expect("a key").public());
    message.extend_from_slice(b"hi!");
    server.feed(&message);
    assert_eq!(error(&server), &NoiseError::Payload { len: 3 });
}

#[test]
fn the_length_of_handshake_messages_is_bounded() {
    for (len, refused) in [(255_u16, false), (256, false), (257, true), (65_535, true)] {
        let mut server = Peer::new(options(NN).responder().expect("whole"));
        server.feed(&len.to_be_bytes());
        assert_eq!(server.error().is_some(), refused, "{len}");
        if refused {
            assert_eq!(error(&server), &NoiseError::HandshakeTooLong { limit: 256, len: len.into() });
        }
    }
}

#[test]
fn the_good_messages_before_a_bad_one_are_delivered() {
    let (mut client, mut server) = connect(&options(NN), &options(NN));
    let mut messages: Vec<Vec<u8>> = ["one", "two", "three"]
        .map(|text| {
            client.send(text.as_bytes());
            client.flight()
        })
        .to_vec();
    messages[1][4] ^= 1;
    server.feed(&messages.concat());
    assert_eq!((server.received(), error(&server)), (&b"one"[..], &NoiseError::Forged));

    let (_, mut server) = connect(&options(NN), &options(NN));
    server.feed(&[0, 15]);
    assert!(server.error().is_none(), "it is not complete");
    server.feed(&[0; 15]);
    assert_eq!(error(&server), &NoiseError::TooShort { len: 15 });
}

#[test]
fn a_message_is_taken_once() {
    let (mut client, mut server) = connect(&options(NN), &options(NN));
    client.send(b"pay 5");
    let message = client.flight();
    server.feed(&message);
    server.feed(&message);
    assert_eq!((server.received(), error(&server)), (&b"pay 5"[..], &NoiseError::Forged));
}

#[test]
fn the_longest_message_is_full() {
    let (mut client, mut server) = connect(&options(NN), &options(NN));
    for (len, messages) in [(65_518, 1), (65_519, 1), (65_520, 2)] {
        client.send(&vec![7; len]);
        let flight = client.flight();
        assert_eq!(flight.len(), len + messages * 18, "{len}");
        let before = server.received().len();
        server.feed(&flight);
        assert_eq!(server.received().len() - before, len);
    }
}

#[test]
fn an_end_without_the_marker_is_a_cut_unless_it_is_off() {
    let (mut client, mut server) = connect(&options(NN), &options(NN));
    client.send(b"hello");
    server.feed(&client.flight());
    assert!(server.end().expect_err("there was no marker").is::<Truncated>());

    let (mut client, mut server) = connect(&options(NN).unmarked(), &options(NN).unmarked());
    client.send(b"hello");
    client.close();
    server.feed(&client.flight());
    assert_eq!(server.received(), b"hello");
    server.end().expect("an end between two messages is all there is");

    let (mut client, mut server) = connect(&options(NN).unmarked(), &options(NN).unmarked());
    client.send(b"hello");
    let flight = client.flight();
    server.feed(&flight[..flight.len() - 1]);
    assert!(server.end().expect_err("in the middle of a message").is::<Truncated>());
}

#[test]
fn keys_are_replaced_by_hand_and_by_count() {
    let rekeyed = || options(NN).rekey_every(2);
    let (mut client, mut server) = connect(&rekeyed(), &rekeyed());
    for round in 1..=9 {
        client.send(b"x");
        pump(&mut client, &mut server);
        assert_eq!(server.received().len(), round, "{:?}", server.error());
    }
    let (mut client, mut server) = connect(&rekeyed(), &options(NN));
    for _ in 0..3 {
        client.send(b"x");
        pump(&mut client, &mut server);
    }
    assert_eq!((server.received(), error(&server)), (&b"xx"[..], &NoiseError::Forged));

    let (mut client, mut server) = connect(&options(NN), &options(NN));
    client.session_mut().0.layer_mut().rekey_outgoing().expect("it is open");
    server.session_mut().0.layer_mut().rekey_incoming().expect("it is open");
    client.send(b"new key");
    pump(&mut client, &mut server);
    assert_eq!(server.received(), b"new key");
    let mut fresh = options(NN).responder().expect("whole");
    assert_eq!(fresh.rekey_outgoing(), Err(NoiseError::Early));
}

#[test]
fn nothing_secret_is_shown() {
    let keys = Keypair::from_private([0x5a; 32]).expect("a key");
    let options = options(XX).keypair(&keys).psk(0, &[0x5a; 32]);
    for shown in [format!("{keys:?}"), format!("{options:?}")] {
        assert!(!shown.contains("5a5a") && !shown.contains("90, 90"), "{shown}");
    }
    let noise = NoiseOptions::new(NN).expect("it exists").initiator().expect("whole");
    assert_eq!(format!("{noise:?}"), r#"Noise { state: "handshake", ended: false, .. }"#);
    assert!(!noise.ready());
}
