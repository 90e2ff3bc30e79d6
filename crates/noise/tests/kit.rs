//! Every cut, flip and truncation of sessions in memory, with each pattern, and inside other layers.

use reactor_noise::{IK, Keypair, NN, Noise, NoiseOptions, XK, XX};
use session::{Stack, kit};

/// Both ends of a session with this pattern.
fn ends(protocol: &'static str) -> impl Fn() -> (Noise, Noise) {
    let (a, b) = (Keypair::generate().expect("a key"), Keypair::generate().expect("a key"));
    move || {
        let options = || NoiseOptions::new(protocol).expect("it exists").prologue("a test").rekey_every(3);
        let (mut client, mut server) = (options(), options());
        if protocol != NN && !protocol.contains("psk") {
            (client, server) = (client.keypair(&a), server.keypair(&b));
        }
        if protocol == XK || protocol == IK {
            client = client.remote(b.public());
        }
        if protocol.contains("psk0") {
            (client, server) = (client.psk(0, &[7; 32]), server.psk(0, &[7; 32]));
        }
        (client.initiator().expect("whole"), server.responder().expect("whole"))
    }
}

const ALL: [&str; 5] = [XK, XX, IK, NN, "Noise_NNpsk0_25519_AESGCM_SHA256"];

#[test]
fn every_cut_is_right() {
    for protocol in ALL {
        kit::every_cut(ends(protocol));
    }
}

#[test]
fn much_data_arrives_whole() {
    for protocol in ALL {
        kit::bulk(ends(protocol));
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    for protocol in ALL {
        let flips = kit::flips(ends(protocol));
        assert_eq!((flips.harmless, flips.noticed), (0, flips.runs), "{protocol}: {flips:?}");
    }
}

#[test]
fn only_the_authentic_end_is_clean() {
    for protocol in ALL {
        assert_eq!(kit::truncations(ends(protocol)), 0, "{protocol}");
    }
}

#[test]
fn garbage_is_never_taken_for_data() {
    for protocol in ALL {
        assert_eq!(kit::garbage(ends(protocol)).forged, 0, "{protocol}");
    }
}

#[test]
fn sessions_run_inside_sessions() {
    let (outer, inner) = (ends(NN), ends(XX));
    let make = || {
        let ((outer_client, outer_server), (client, server)) = (outer(), inner());
        (Stack::new(outer_client, client), Stack::new(outer_server, server))
    };
    kit::every_cut(make);
    kit::bulk(make);
    assert_eq!(kit::garbage(make).forged, 0);
}
