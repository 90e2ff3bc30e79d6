//! What sessions negotiate, refuse and export, in memory.

mod common;

use std::sync::Arc;

use common::{Authority, pair};
use reactor_tls::{
    Acceptor, ClientAuth, ConfigError, Connector, Identity, Resumption, Roots, Tls, TlsError, Version, rustls,
};
use rustls::{AlertDescription, CertificateError};
use session::kit::{Peer, pump};
use session::{Layer, Phase, Truncated};

fn connect(connector: &Connector, acceptor: &Acceptor, name: &str) -> (Peer<Tls>, Peer<Tls>) {
    let mut client = Peer::new(connector.to(name).expect("a name"));
    let mut server = Peer::new(acceptor.accept());
    pump(&mut client, &mut server);
    (client, server)
}

fn assert_open(peer: &Peer<Tls>) {
    assert!(peer.error().is_none(), "{:?}", peer.error());
    assert_eq!(peer.session().phase(), Phase::Open);
}

fn error(peer: &Peer<Tls>) -> &TlsError {
    peer.error().expect("it failed").downcast_ref().expect("of TLS")
}

#[test]
fn both_sides_learn_what_was_negotiated() {
    let authority = Authority::new();
    let connector = Connector::builder(authority.roots()).alpn(["h2", "http/1.1"]).build().expect("whole");
    let identity = authority.identity(&["example.org"]);
    let acceptor = Acceptor::builder(identity).alpn(["http/1.1"]).build().expect("whole");
    let fresh = connector.to("example.org").expect("a name");
    assert!(fresh.negotiated().is_none(), "nothing is known before the handshake");
    let (client, server) = connect(&connector, &acceptor, "example.org");
    let at_client = client.session().layer().negotiated().expect("it is open");
    let at_server = server.session().layer().negotiated().expect("it is open");
    assert_eq!((at_client.version, at_server.version), (Version::Tls13, Version::Tls13));
    assert_eq!((at_client.alpn, at_server.alpn), (Some(&b"http/1.1"[..]), Some(&b"http/1.1"[..])));
    assert_eq!((at_client.server_name, at_server.server_name), (None, Some("example.org")));
    assert_eq!(at_client.suite, at_server.suite);
    assert_eq!((at_client.peer_certificates.len(), at_server.peer_certificates.len()), (1, 0));
    assert!(!at_client.resumed && !at_server.resumed);
}

#[test]
fn the_certificate_follows_the_name_and_is_replaced_while_running() {
    let authority = Authority::new();
    let connector = Connector::builder(authority.roots()).resumption(0).build().expect("whole");
    let acceptor = Acceptor::builder(authority.identity(&["default.org"]))
        .name("One.example.org", authority.identity(&["one.example.org"]))
        .name("*.example.org", authority.identity(&["*.example.org"]))
        .build()
        .expect("whole");
    let shown = |name: &str| {
        let (client, server) = connect(&connector, &acceptor, name);
        (client.error().is_none(), client, server)
    };
    assert!(shown("default.org").0);
    assert!(shown("one.example.org").0);
    assert!(shown("two.example.org").0);
    let (refused, client, server) = shown("a.b.example.org");
    assert!(!refused, "the default certificate is for another name");
    assert!(matches!(error(&client), TlsError::Certificate(CertificateError::NotValidForNameContext { .. })));
    assert!(
        matches!(error(&server), TlsError::Alert(AlertDescription::BadCertificate)),
        "{:?}",
        server.error()
    );

    let (_, mut old_client, mut old_server) = shown("one.example.org");
    let names = [("three.org".to_owned(), authority.identity(&["three.org"]))];
    acceptor.replace(authority.identity(&["new.org"]), names).expect("they are whole");
    assert!(shown("new.org").0 && shown("three.org").0 && !shown("default.org").0);
    old_client.send(b"still here");
    pump(&mut old_client, &mut old_server);
    assert_eq!(old_server.received(), b"still here");
    // A broken identity changes nothing.
    let (certificate, _) = authority.pem(&["x.org"]);
    let (_, key) = authority.pem(&["y.org"]);
    let mixed = Identity::from_pem(certificate.as_bytes(), key.as_bytes()).expect("each is whole");
    assert!(matches!(acceptor.replace(mixed, []), Err(ConfigError::Refused(_))));
    assert!(shown("new.org").0);
}

#[test]
fn clients_are_asked_for_certificates() {
    let (authority, other) = (Authority::new(), Authority::named("another authority"));
    let plain = Connector::builder(authority.roots()).build().expect("whole");
    let known = Connector::builder(authority.roots())
        .identity(authority.identity(&["client"]))
        .build()
        .expect("whole");
    let stranger =
        Connector::builder(authority.roots()).identity(other.identity(&["client"])).build().expect("whole");
    let acceptor = |auth| {
        Acceptor::builder(authority.identity(&["example.org"])).client_auth(auth).build().expect("whole")
    };
    let required = acceptor(ClientAuth::Required(authority.roots()));
    let optional = acceptor(ClientAuth::Optional(authority.roots()));

    let (client, server) = connect(&known, &required, "example.org");
    assert_open(&client);
    assert_open(&server);
    assert_eq!(server.session().layer().negotiated().expect("open").peer_certificates.len(), 1);
    let (client, server) = connect(&plain, &required, "example.org");
    assert!(matches!(error(&client), TlsError::Alert(AlertDescription::CertificateRequired)));
    assert!(matches!(error(&server), TlsError::Protocol(rustls::Error::NoCertificatesPresented)));
    let (client, server) = connect(&plain, &optional, "example.org");
    assert_open(&client);
    assert_open(&server);
    for acceptor in [&required, &optional] {
        let (client, server) = connect(&stranger, acceptor, "example.org");
        assert!(matches!(error(&client), TlsError::Alert(_)));
        assert!(matches!(error(&server), TlsError::Certificate(CertificateError::UnknownIssuer)));
    }
}

#[test]
fn a_server_of_another_authority_is_refused() {
    let (trusted, other) = (Authority::new(), Authority::named("another authority"));
    let connector = Connector::builder(trusted.roots()).build().expect("whole");
    let acceptor = Acceptor::builder(other.identity(&["example.org"])).build().expect("whole");
    let (client, _) = connect(&connector, &acceptor, "example.org");
    assert!(matches!(error(&client), TlsError::Certificate(CertificateError::UnknownIssuer)));
    let both = Connector::builder(trusted.roots().and(other.roots())).build().expect("whole");
    assert_open(&connect(&both, &acceptor, "example.org").0);
}

#[test]
fn protocols_without_one_in_common_are_refused() {
    let authority = Authority::new();
    let connector = Connector::builder(authority.roots()).alpn(["h2"]).build().expect("whole");
    let acceptor =
        Acceptor::builder(authority.identity(&["example.org"])).alpn(["http/1.1"]).build().expect("whole");
    let (client, _) = connect(&connector, &acceptor, "example.org");
    assert!(matches!(error(&client), TlsError::Alert(AlertDescription::NoApplicationProtocol)));
}

#[test]
fn sessions_resume_in_each_way() {
    for (resumption, resumes) in [
        (Resumption::Memory(16), true),
        (Resumption::Tickets, true),
        (Resumption::Off, false),
        (Resumption::Memory(0), false),
    ] {
        let authority = Authority::new();
        let connector = Connector::builder(authority.roots()).build().expect("whole");
        let acceptor = Acceptor::builder(authority.identity(&["example.org"]))
            .resumption(resumption)
            .build()
            .expect("whole");
        let resumed = || {
            let (client, server) = connect(&connector, &acceptor, "example.org");
            let at = |peer: &Peer<Tls>| peer.session().layer().negotiated().expect("it is open").resumed;
            assert_eq!(at(&client), at(&server));
            at(&client)
        };
        assert!(!resumed(), "the first is new");
        assert_eq!(resumed(), resumes, "{resumption:?}");
    }
}

#[test]
fn both_ends_export_the_same_keys() {
    let (connector, acceptor) = pair();
    let (client, server) = connect(&connector, &acceptor, "example.org");
    let export = |peer: &Peer<Tls>, label: &[u8]| {
        let mut key = [0; 32];
        peer.session().layer().export_keying_material(&mut key, label, Some(b"context")).expect("open");
        key
    };
    assert_eq!(export(&client, b"EXPORTER-a"), export(&server, b"EXPORTER-a"));
    assert_ne!(export(&client, b"EXPORTER-a"), export(&client, b"EXPORTER-b"));
    let fresh = acceptor.accept();
    assert!(fresh.export_keying_material(&mut [0; 32], b"x", None).is_err(), "there is no session yet");
}

#[test]
fn keys_are_replaced_while_data_flows() {
    let (connector, acceptor) = pair();
    let (mut client, mut server) = connect(&connector, &acceptor, "example.org");
    for round in 0..3 {
        let (session, pool) = client.session_mut();
        session.with_layer(pool, |tls, io| Ok(tls.update_keys(io)?)).expect("TLS 1.3 has it");
        client.send(b"ping");
        pump(&mut client, &mut server);
        server.send(b"pong");
        pump(&mut client, &mut server);
        assert_eq!((server.received().len(), client.received().len()), (4 * (round + 1), 4 * (round + 1)));
    }
    assert_open(&client);
    assert_open(&server);
    let mut fresh = Peer::new(acceptor.accept());
    let (session, pool) = fresh.session_mut();
    assert!(session.with_layer(pool, |tls, io| Ok(tls.update_keys(io)?)).is_err());
}

#[test]
fn the_good_records_before_a_bad_one_are_delivered() {
    let (connector, acceptor) = pair();
    let (mut client, mut server) = connect(&connector, &acceptor, "example.org");
    let mut records: Vec<Vec<u8>> = ["one", "two", "three"]
        .map(|text| {
            client.send(text.as_bytes());
            client.flight()
        })
        .to_vec();
    let last = records[1].len() - 1;
    records[1][last] ^= 1;
    server.feed(&records.concat());
    assert_eq!(server.received(), b"one");
    assert!(matches!(error(&server), TlsError::Protocol(rustls::Error::DecryptError)));
    client.feed(&server.flight());
    assert!(matches!(error(&client), TlsError::Alert(AlertDescription::BadRecordMac)));
}

#[test]
fn an_end_without_a_notice_is_a_cut() {
    let (connector, acceptor) = pair();
    let (mut client, mut server) = connect(&connector, &acceptor, "example.org");
    client.send(b"hello");
    server.feed(&client.flight());
    assert!(server.end().expect_err("nobody ended the session").is::<Truncated>());

    let mut silent = Peer::new(acceptor.accept());
    assert!(silent.end().expect_err("there was no handshake").is::<Truncated>());

    // A peer that ends in the middle of the handshake.
    let mut half = Peer::new(connector.to("example.org").expect("a name"));
    half.flight();
    half.close();
    let notice = half.flight();
    let mut server = Peer::new(acceptor.accept());
    server.feed(&notice);
    assert!(server.error().is_some() || server.end().is_err());
}

#[test]
fn a_request_in_another_protocol_is_refused_at_once() {
    let (_, acceptor) = pair();
    let mut server = Peer::new(acceptor.accept());
    server.feed(b"GET /");
    assert!(matches!(error(&server), TlsError::Protocol(rustls::Error::InvalidMessage(_))));
}

#[test]
fn a_handshake_has_a_limit_of_bytes() {
    let (_, acceptor) = pair();
    // Each is one record of 16 KiB in a handshake message that never ends.
    let record = |len: usize| {
        let mut record = vec![22, 3, 3];
        record.extend_from_slice(&u16::try_from(len).expect("it fits").to_be_bytes());
        record.resize(5 + len, 0);
        record
    };
    let mut server = Peer::new(acceptor.accept());
    let mut first = record(16 << 10);
    first[5..9].copy_from_slice(&[1, 0, 255, 255]);
    server.feed(&first);
    assert!(server.error().is_none(), "it is the beginning of a hello: {:?}", server.error());
    assert!(server.session().layer().held() > 16 << 10, "what is held is counted");
    for _ in 0..4 {
        server.feed(&record(16 << 10));
    }
    assert!(server.error().is_some(), "no hello is that long");
}

#[test]
fn nothing_secret_is_shown() {
    let authority = Authority::new();
    let (certificate, key) = authority.pem(&["example.org"]);
    let identity = Identity::from_pem(certificate.as_bytes(), key.as_bytes()).expect("whole");
    let shown = format!("{identity:?}");
    assert_eq!(shown, "Identity { certificates: 1, .. }");
    let acceptor =
        Acceptor::builder(identity).name("a.org", authority.identity(&["a.org"])).build().expect("whole");
    let shown = format!("{acceptor:?}");
    assert!(shown.contains("a.org") && shown.len() < 120, "{shown}");
    let tls = acceptor.accept();
    assert_eq!(format!("{tls:?}"), r#"Tls { side: "server", ready: false, ended: false }"#);
}

#[test]
fn settings_that_cannot_work_are_refused() {
    assert!(matches!(Roots::from_der([]), Err(ConfigError::NoRoots)));
    assert!(matches!(Roots::from_pem(b"hello"), Err(ConfigError::Pem { .. })));
    let missing = Roots::from_file("/nonexistent/roots.pem").expect_err("there is no such file");
    assert!(missing.to_string().starts_with("cannot read /nonexistent/roots.pem: "), "{missing}");
    let (connector, _) = pair();
    assert!(matches!(connector.to("not a name"), Err(ConfigError::Name(_))));
    assert!(connector.to("::1").is_ok() && connector.to("127.0.0.1").is_ok());
    let authority = Authority::new();
    let (certificate, key) = authority.pem(&["a.org"]);
    let swapped = Identity::from_pem(key.as_bytes(), certificate.as_bytes());
    assert_eq!(swapped.expect_err("swapped").to_string(), "the text has not a certificate in PEM");
}

#[test]
fn time_comes_from_the_given_source() {
    #[derive(Debug)]
    struct Long(u64);
    impl rustls::time_provider::TimeProvider for Long {
        fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
            Some(rustls::pki_types::UnixTime::since_unix_epoch(std::time::Duration::from_secs(self.0)))
        }
    }
    let authority = Authority::new();
    let acceptor = Acceptor::builder(authority.identity(&["example.org"])).build().expect("whole");
    let at = |seconds| {
        let time = Arc::new(Long(seconds));
        Connector::builder(authority.roots()).time(time).build().expect("whole")
    };
    // The certificates of these tests are valid from 1975 to 4096.
    assert_open(&connect(&at(1_800_000_000), &acceptor, "example.org").0);
    let (client, _) = connect(&at(100), &acceptor, "example.org");
    assert!(matches!(
        error(&client),
        TlsError::Certificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. })
    ));
}
