//! Every cut, flip and truncation of sessions in memory, with both versions, and inside other layers.

mod common;

use std::sync::Arc;

use common::Authority;
use reactor_tls::{Acceptor, ClientAuth, Connector, Resumption, Tls, Version, rustls};
use session::proxy::{Destination, Socks5};
use session::{Layer, Stack, kit};

/// A client and a server, whose handshakes have the same length each time.
fn ends(version: Version, client_auth: bool) -> impl Fn() -> (Tls, Tls) {
    let authority = Authority::new();
    let (client, server) = (authority.identity(&["client"]), authority.identity(&["example.org"]));
    let mut connector = Connector::builder(authority.roots()).resumption(0);
    let mut acceptor = Acceptor::builder(server).resumption(Resumption::Off);
    if version == Version::Tls13 {
        connector = connector.least(Version::Tls13);
    } else {
        acceptor = acceptor.provider(Arc::new(only_tls12()));
        connector = connector.provider(Arc::new(only_tls12()));
    }
    if client_auth {
        connector = connector.identity(client);
        acceptor = acceptor.client_auth(ClientAuth::Required(authority.roots()));
    }
    let (connector, acceptor) = (connector.build().expect("whole"), acceptor.build().expect("whole"));
    move || (connector.to("example.org").expect("a name"), acceptor.accept())
}

/// Only the suites of TLS 1.2, so that this version is negotiated.
fn only_tls12() -> rustls::crypto::CryptoProvider {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.retain(|suite| suite.tls13().is_none());
    provider
}

#[test]
fn every_cut_of_tls_1_3_is_right() {
    kit::every_cut(ends(Version::Tls13, false));
    kit::every_cut(ends(Version::Tls13, true));
}

#[test]
fn every_cut_of_tls_1_2_is_right() {
    kit::every_cut(ends(Version::Tls12, false));
    kit::every_cut(ends(Version::Tls12, true));
}

#[test]
fn much_data_arrives_whole() {
    kit::bulk(ends(Version::Tls13, false));
    kit::bulk(ends(Version::Tls12, false));
}

#[test]
fn a_flipped_bit_never_delivers_wrong_bytes() {
    // Only the outer version of a record is not authenticated, and rustls ignores it: 2 bytes of a record. A
    // flipped bit in the record of the middlebox mode (change of cipher) may also be ignored.
    let flips = kit::flips(ends(Version::Tls13, false));
    assert!(flips.harmless <= 2 * RECORDS_MAX, "{flips:?}");
    let flips = kit::flips(ends(Version::Tls12, false));
    assert!(flips.harmless <= 2 * RECORDS_MAX, "{flips:?}");
}

/// More records than a dialogue of the kit has.
const RECORDS_MAX: usize = 16;

#[test]
fn only_the_authentic_end_is_clean() {
    assert_eq!(kit::truncations(ends(Version::Tls13, false)), 0);
    assert_eq!(kit::truncations(ends(Version::Tls12, false)), 0);
}

#[test]
fn garbage_is_never_taken_for_data() {
    assert_eq!(kit::garbage(ends(Version::Tls13, false)).forged, 0);
    assert_eq!(kit::garbage(ends(Version::Tls12, false)).forged, 0);
}

#[test]
fn sessions_run_inside_sessions() {
    let (outer, inner) = (ends(Version::Tls13, false), ends(Version::Tls13, false));
    let make = || {
        let ((outer_client, outer_server), (client, server)) = (outer(), inner());
        (Stack::new(outer_client, client), Stack::new(outer_server, server))
    };
    kit::bulk(make);
    kit::truncations(make);
    assert_eq!(kit::garbage(make).forged, 0);
}

#[test]
fn a_session_follows_a_proxy_handshake_at_every_cut() {
    let ends = ends(Version::Tls13, false);
    kit::every_cut(|| {
        let (client, server) = ends();
        let to = Destination::name("example.org", 443).expect("a name");
        ((Socks5::new(to), client), (ToyProxy::default(), server))
    });
}

/// The side of a SOCKS5 proxy that grants everything: enough to be the peer of a client in memory.
#[derive(Default)]
struct ToyProxy {
    greeted: bool,
    granted: bool,
}

impl Layer for ToyProxy {
    const TRANSPARENT: bool = true;
    const INPUT_MAX: usize = 512;

    fn ready(&self) -> bool {
        self.granted
    }

    fn open(&mut self, input: &mut [u8], io: &mut session::Io<'_>) -> session::Result<session::Step> {
        let len = match (self.greeted, &*input) {
            (false, [_, methods, rest @ ..]) if rest.len() >= usize::from(*methods) => {
                2 + usize::from(*methods)
            }
            (true, [_, _, _, 3, name, rest @ ..]) if rest.len() >= usize::from(*name) + 2 => {
                5 + usize::from(*name) + 2
            }
            _ => return Ok(session::Step { used: 0, next: session::Next::Wait }),
        };
        if self.greeted {
            io.down.put(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
            self.granted = true;
        } else {
            io.down.put(&[5, 0]);
            self.greeted = true;
        }
        Ok(session::Step { used: len, next: session::Next::Wait })
    }

    fn seal(&mut self, clear: &[u8], io: &mut session::Io<'_>) -> session::Result<usize> {
        io.down.put(clear);
        Ok(clear.len())
    }
}
