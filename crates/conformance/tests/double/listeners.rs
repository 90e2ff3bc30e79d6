//! Listeners, connects and watched sources: their events, and the refused calls.

use super::*;

#[test]
fn a_connect_is_over_a_turn_later_and_refused_when_nobody_listens() {
    for seed in SEEDS {
        let network = Network::new(Tuning::tight(seed));
        let (mut server, mut client) = (network.double(), network.double());
        let address = listen(&mut server);
        let nobody: Address = "127.0.0.1:9".parse().expect("an address");
        for (key, to) in [(FIRST, &address), (SECOND, &nobody)] {
            let transport = client.connect(to, &ConnectOptions::default()).expect("it begins");
            client.attach(key, transport, Role::Connecting).expect("a connect of this network");
        }
        assert!(client.next().is_none(), "nothing is told before a wait");
        let mut results = Vec::new();
        for _ in 0..TURNS_MAX {
            for (key, event) in turn(&mut client) {
                match event {
                    Event::Connected(result) => results.push((key, result.map_err(|error| error.kind()))),
                    other => panic!("a connect told {other:?}"),
                }
            }
        }
        results.sort_by_key(|(key, _)| *key);
        assert_eq!(results, [(FIRST, Ok(())), (SECOND, Err(ErrorKind::ConnectionRefused))], "seed {seed}");
        assert_eq!(client.peer(FIRST).ok(), Some(address));
        drop(accepted(&mut server));
    }
}

#[test]
fn a_full_table_rests_the_listener_until_reading_is_asked_for() {
    let network = Network::new(Tuning::roomy(4));
    let mut engine = network.double();
    let address = listen(&mut engine);
    let _peers = [0, 1].map(|_| network.connect(&address).expect("somebody listens"));
    network.limit_transports(Some(2));
    let mut told: Vec<_> = (0..50).flat_map(|_| turn(&mut engine)).collect();
    let Some((LISTENER, Event::NotAccepted(error))) = told.pop() else { panic!("it told {told:?}") };
    assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
    assert!(matches!(told[..], [(LISTENER, Event::Accepted(..))]), "once an episode: {told:?}");
    drop(told);
    assert!((0..20).all(|_| turn(&mut engine).is_empty()), "it rests");
    engine.reading(LISTENER, true);
    drop(accepted(&mut engine));
}

#[test]
fn addresses_are_refused_as_a_kernel_does() {
    let network = Network::new(Tuning::roomy(1));
    let mut engine = network.double();
    let address = listen(&mut engine);
    let mut kind =
        |address: &Address| engine.listen(address, &ListenOptions::default()).expect_err("refused").kind();
    assert_eq!(kind(&address), ErrorKind::AddrInUse);
    assert_eq!(kind(&"192.0.2.1:0".parse().expect("an address")), ErrorKind::AddrNotAvailable);
    assert_eq!(kind(&Address::Unnamed), ErrorKind::InvalidInput);
}

#[test]
fn a_full_backlog_delays_connects_and_loses_none() {
    let network = Network::new(Tuning { defer_percent: 0, ..Tuning::roomy(1) });
    let (mut server, mut client) = (network.double(), network.double());
    let mut options = ListenOptions::default();
    options.backlog = 2;
    let any = "@full".parse().expect("an address");
    let transport = server.listen(&any, &options).expect("a free name");
    server.attach(LISTENER, transport, Role::Listener).expect("a listener of this network");
    for slot in 1..=3 {
        let transport = client.connect(&any, &ConnectOptions::default()).expect("it begins");
        client.attach(key(slot), transport, Role::Connecting).expect("a connect of this network");
    }
    assert_eq!(turn(&mut client).len(), 2, "as many as the queue holds");
    assert_eq!(turn(&mut client).len(), 0);
    let both = (0..TURNS_MAX)
        .flat_map(|_| turn(&mut server))
        .filter(|(_, event)| matches!(event, Event::Accepted(..)));
    assert_eq!(both.take(2).count(), 2);
    let told = turn(&mut client);
    assert!(
        told.iter().any(|(k, event)| *k == key(3) && matches!(event, Event::Connected(Ok(())))),
        "{told:?}"
    );
}

#[test]
fn each_of_many_ready_sources_is_told_within_its_share_of_turns() {
    let network = Network::new(Tuning { defer_percent: 0, spurious_percent: 0, ..Tuning::tight(2) });
    let mut engine = network.double();
    let feeds: Vec<Feed> = (0..50).map(|_| network.source()).collect();
    for (slot, feed) in feeds.iter().enumerate() {
        feed.put(b"x");
        engine.watch(key(slot as u32), feed.source(), Some(Interest::Read)).expect("it is open");
    }
    let mut told = std::collections::BTreeSet::new();
    for _ in 0..50_usize.div_ceil(8) {
        let events = turn(&mut engine);
        assert!(events.len() <= 8, "{}", events.len());
        told.extend(events.into_iter().map(|(key, _)| key));
    }
    assert_eq!(told.len(), 50);
    for (slot, feed) in feeds.iter().enumerate() {
        engine.unwatch(key(slot as u32), feed.source());
    }
    assert!(turn(&mut engine).is_empty());
    assert!(network.leaks().is_clean());
}

#[test]
fn a_watched_source_is_told_level_triggered_and_not_while_it_rests() {
    let network = Network::new(Tuning { spurious_percent: 0, ..Tuning::tight(2) });
    let mut engine = network.double();
    let feed = network.source();
    engine.watch(FIRST, feed.source(), Some(Interest::Both)).expect("it is open");
    assert_eq!(
        engine.watch(SECOND, feed.source(), None).expect_err("watched already").kind(),
        ErrorKind::AlreadyExists
    );
    assert!(turn(&mut engine).is_empty());
    feed.put(b"abc");
    for _ in 0..3 {
        let told = turn(&mut engine);
        assert!(
            matches!(told[..], [(FIRST, Event::Ready(ready))] if ready.readable && !ready.writable),
            "{told:?}"
        );
    }
    engine.watch(FIRST, feed.source(), None).expect("it is open");
    assert!(turn(&mut engine).is_empty());
    let mut bytes = [0; 8];
    assert_eq!(engine.read(feed.source(), &mut bytes).ok(), Some(3));
    assert_eq!(engine.read(feed.source(), &mut bytes).expect_err("empty").kind(), ErrorKind::WouldBlock);
    feed.end();
    assert_eq!(engine.read(feed.source(), &mut bytes).ok(), Some(0));
    let out = queue(b"hello");
    assert_eq!(engine.write(feed.source(), &out).expect_err("full").kind(), ErrorKind::WouldBlock);
    feed.allow(4);
    engine.watch(FIRST, feed.source(), Some(Interest::Write)).expect("it is open");
    assert!(
        matches!(turn(&mut engine)[..], [(FIRST, Event::Ready(ready))] if ready.writable && ready.hangup)
    );
    assert_eq!(engine.write(feed.source(), &out).ok(), Some(4));
    assert_eq!(feed.taken(), b"hell");
    let source = feed.source();
    drop(feed);
    assert_eq!(engine.read(source, &mut bytes).expect_err("gone").raw_os_error(), Some(libc::EBADF));
}

#[test]
fn a_real_descriptor_comes_back_refused() {
    let (ours, _theirs) = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| Ok((std::net::TcpStream::connect(listener.local_addr()?)?, listener)))
        .expect("a socket");
    let mut engine = Network::new(Tuning::roomy(1)).double();
    let refused =
        engine.attach(FIRST, Transport::new(ours), Role::Stream).expect_err("it has no descriptors");
    assert_eq!(refused.error.kind(), ErrorKind::Unsupported);
    assert!(refused.transport.into_descriptor().is_ok(), "it is given back");
}
