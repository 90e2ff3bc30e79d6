//! Datagram sockets on each engine: families, options, and their cost in system calls.
#![cfg(unix)]

mod common;

use std::{io::ErrorKind, net::UdpSocket, path::PathBuf};

use common::{Engine, for_each_engine, settle, until};
use reactor::{
    Address, BindOptions, Closed, Context, DatagramEvent, Datagrams, Ecn, Error, Group, Handle, Id, Outbound,
    Result, Runtime, Service, ServiceId,
};

/// A received datagram.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Seen {
    from: Address,
    ecn: Ecn,
    bytes: Vec<u8>,
}

/// Records its events.
#[derive(Default)]
struct Notes {
    seen: Vec<Seen>,
    /// The source address for an answer to each received datagram.
    to: Vec<Option<std::net::IpAddr>>,
    undelivered: Vec<(Option<Address>, ErrorKind)>,
    closed: Vec<Closed>,
}

impl Service for Notes {}

impl Handle<Datagrams> for Notes {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Datagrams>, event: DatagramEvent) -> Result {
        match event {
            DatagramEvent::Received(datagram) => {
                self.to.push(datagram.to);
                self.seen.push(Seen {
                    from: datagram.from.clone(),
                    ecn: datagram.ecn,
                    bytes: datagram.bytes.to_vec(),
                });
            }
            DatagramEvent::Undelivered { to, error } => self.undelivered.push((to, error.kind())),
            DatagramEvent::Drained => (),
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<Datagrams>, _: Datagrams, why: Closed) {
        self.closed.push(why);
    }
}

struct World {
    runtime: Runtime,
    notes: ServiceId<Notes>,
}

impl World {
    fn new(engine: Engine) -> World {
        let mut runtime = engine.runtime();
        let notes = runtime.add(Notes::default()).expect("it starts");
        World { runtime, notes }
    }

    fn with<T>(&mut self, f: impl FnOnce(&mut Context<Notes>) -> T) -> T {
        self.runtime.with(self.notes, |_, cx| f(cx)).expect("the service lives")
    }

    fn bind(&mut self, address: impl reactor::ToAddress) -> (Id<Datagrams>, Address) {
        self.bind_with(address, &BindOptions::default())
    }

    fn bind_with(
        &mut self,
        address: impl reactor::ToAddress,
        options: &BindOptions,
    ) -> (Id<Datagrams>, Address) {
        self.with(|cx| {
            let id = cx.bind_with(address, options, Datagrams::new()).expect("it is free");
            (id, cx.local(id).expect("it is bound"))
        })
    }

    fn send(&mut self, id: Id<Datagrams>, to: &Address, bytes: &[u8]) {
        self.with(|cx| cx.send(id, Outbound::to(to, bytes)));
    }

    fn notes(&self) -> &Notes {
        self.runtime.service(self.notes).expect("it lives")
    }

    #[track_caller]
    fn until_seen(&mut self, count: usize) {
        let notes = self.notes;
        until(&mut self.runtime, |runtime| runtime.service(notes).expect("it lives").seen.len() >= count);
    }

    #[track_caller]
    fn until_undelivered(&mut self, count: usize) {
        let notes = self.notes;
        until(&mut self.runtime, |runtime| {
            runtime.service(notes).expect("it lives").undelivered.len() >= count
        });
    }
}

/// A folder for one test, removed on drop.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("reactor-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).expect("a folder of our own");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).expect("it is ours");
    }
}

#[test]
fn unix_sockets_have_paths_and_a_sender_may_have_no_name() {
    for_each_engine(|engine| {
        let folder = Folder::new(&format!("datagrams-{}", engine.0));
        let mut world = World::new(engine);
        let (named, path) = world.bind(folder.0.join("named"));
        let (other, other_path) = world.bind(folder.0.join("other"));
        let (unnamed, nothing) = world.bind(Address::Unnamed);
        assert_eq!((&path, nothing), (&Address::Path(folder.0.join("named")), Address::Unnamed));
        world.send(other, &path, b"from a path");
        world.send(unnamed, &path, b"from nobody");
        world.until_seen(2);
        let froms: Vec<Address> = world.notes().seen.iter().map(|seen| seen.from.clone()).collect();
        assert_eq!(froms, [other_path, Address::Unnamed]);
        // A socket without a name cannot be answered, so this send fails.
        world.send(named, &Address::Unnamed, b"whom?");
        world.send(named, &path, b"to itself");
        world.until_seen(3);
        world.until_undelivered(1);
        assert_eq!(world.notes().undelivered, [(Some(Address::Unnamed), ErrorKind::InvalidInput)]);
    });
}

#[test]
fn a_unix_peer_that_is_full_or_gone_is_an_error_of_that_send() {
    for_each_engine(|engine| {
        let folder = Folder::new(&format!("full-{}", engine.0));
        let mut world = World::new(engine);
        let full = std::os::unix::net::UnixDatagram::bind(folder.0.join("full")).expect("it is bound");
        let (sender, _) = world.bind(Address::Unnamed);
        let (living, living_path) = world.bind(folder.0.join("living"));
        let full_path = Address::Path(folder.0.join("full"));
        // More than any system queues for a receiver that does not read.
        (0..3_000).for_each(|_| world.send(sender, &full_path, &[7; 1_000]));
        world.send(sender, &Address::Path(folder.0.join("nobody")), b"lost");
        world.send(sender, &living_path, b"here");
        world.until_seen(1);
        world.until_undelivered(2);
        settle(&mut world.runtime);
        let kinds: Vec<ErrorKind> = world.notes().undelivered.iter().map(|(_, kind)| *kind).collect();
        let (last, others) = kinds.split_last().expect("at least two");
        assert_eq!(*last, ErrorKind::NotFound);
        // A full receiver causes EAGAIN on Linux, and ENOBUFS elsewhere.
        assert!(
            !others.is_empty()
                && (cfg!(not(target_os = "linux")) || others.iter().all(|k| *k == ErrorKind::WouldBlock))
        );
        let counts = world.with(|cx| cx.get(sender).map(Datagrams::counts)).expect("it lives");
        assert_eq!(counts.undelivered as usize, kinds.len());
        assert_eq!(counts.sent + counts.undelivered, 3_002);
        let _ = (full, living);
    });
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[test]
fn an_abstract_name_is_no_file() {
    for_each_engine(|engine| {
        let mut world = World::new(engine);
        let name = format!("@reactor-datagrams-{}-{}", engine.0, std::process::id());
        let (_, address) = world.bind(name.as_str());
        assert_eq!(address.to_string(), format!("unix:{name}"));
        let (sender, _) = world.bind(Address::Unnamed);
        world.send(sender, &address, b"hello");
        world.until_seen(1);
    });
}

#[test]
fn a_deserted_socket_file_is_replaced_only_if_that_is_allowed() {
    for_each_engine(|engine| {
        let folder = Folder::new(&format!("deserted-{}", engine.0));
        let path = folder.0.join("socket");
        drop(std::os::unix::net::UnixDatagram::bind(&path).expect("it is bound"));
        let mut world = World::new(engine);
        let mut options = BindOptions::default();
        let refused = world.with(|cx| cx.bind_with(&path, &options, Datagrams::new()));
        let refused = refused.expect_err("the file is there");
        assert_eq!(refused.io().map(std::io::Error::kind), Some(ErrorKind::AddrInUse), "{refused}");
        options.reuse_address = true;
        world.bind_with(&path, &options);
        let living = world.with(|cx| cx.bind_with(&path, &options, Datagrams::new()));
        assert!(living.is_err(), "somebody is bound to it now");
        let file = folder.0.join("file");
        std::fs::write(&file, "text").expect("the folder is ours");
        assert!(world.with(|cx| cx.bind_with(&file, &options, Datagrams::new())).is_err(), "no socket");
        assert_eq!(std::fs::read(&file).expect("it is still there"), b"text");
    });
}

#[test]
fn ipv6_has_marks_and_destinations_too() {
    if UdpSocket::bind("[::1]:0").is_err() {
        eprintln!("skipped: this machine has no IPv6");
        return;
    }
    for_each_engine(|engine| {
        let mut world = World::new(engine);
        let (one, from) = world.bind("[::1]:0");
        let mut options = BindOptions::default();
        options.only_v6 = Some(false);
        let (_, any) = world.bind_with("[::]:0", &options);
        let port = any.ip().expect("an IP address").port();
        let to: Address = format!("[::1]:{port}").parse().expect("an address");
        world.with(|cx| cx.send(one, Outbound::to(&to, b"marked").ecn(Ecn::Capable1)));
        world.until_seen(1);
        let ecn = if cfg!(target_os = "linux") { Ecn::Capable1 } else { Ecn::NotCapable };
        assert_eq!(world.notes().seen[0], Seen { from, ecn, bytes: b"marked".to_vec() });
        // IPv4 datagrams arrive, too, and keep their marks.
        let (four, _) = world.bind("127.0.0.1:0");
        let to: Address = format!("127.0.0.1:{port}").parse().expect("an address");
        world.with(|cx| cx.send(four, Outbound::to(&to, b"old").ecn(Ecn::Experienced)));
        world.until_seen(2);
        let ecn = if cfg!(target_os = "linux") { Ecn::Experienced } else { Ecn::NotCapable };
        assert_eq!((world.notes().seen[1].ecn, &world.notes().seen[1].bytes[..]), (ecn, &b"old"[..]));
    });
}

#[test]
fn a_group_of_ipv6_is_joined_and_left() {
    let group = Group::V6 { group: "ff01::4d:e7".parse().expect("an address"), interface: loopback() };
    let try_out = UdpSocket::bind("[::]:0")
        .and_then(|socket| socket.join_multicast_v6(&"ff01::4d:e7".parse().expect("an address"), loopback()));
    if let Err(error) = try_out {
        eprintln!("skipped: this machine has no multicast over IPv6: {error}");
        return;
    }
    for_each_engine(|engine| {
        let mut world = World::new(engine);
        let (id, _) = world.bind("[::]:0");
        world.with(|cx| {
            cx.join(id, &group).expect("there is such an interface");
            cx.leave(id, &group).expect("it is in it");
            let kind = |error: &Error| error.io().map(std::io::Error::kind);
            let twice = cx.leave(id, &group).expect_err("it is not in it");
            assert_eq!(kind(&twice), Some(ErrorKind::AddrNotAvailable));
            let named = format!("leave ff01::4d:e7 on Datagrams {id:?}: ");
            assert!(twice.to_string().starts_with(&named), "{twice}");
            cx.abort(id);
            let gone = cx.join(id, &group).expect_err("it is gone");
            assert_eq!(kind(&gone), Some(ErrorKind::NotFound));
            assert!(gone.to_string().starts_with("join ff01::4d:e7 on "), "{gone}");
        });
    });
}

/// Returns the index of the loopback interface.
fn loopback() -> u32 {
    let text = std::fs::read_to_string("/sys/class/net/lo/ifindex").unwrap_or_default();
    text.trim().parse().unwrap_or(1)
}

#[cfg(target_os = "linux")]
#[test]
fn broadcast_is_for_those_who_asked_for_it() {
    for_each_engine(|engine| {
        let mut world = World::new(engine);
        let (at_any, any) = world.bind("0.0.0.0:0");
        let to: Address = format!("127.255.255.255:{}", any.ip().expect("an IP address").port())
            .parse()
            .expect("an address");
        let (plain, _) = world.bind("127.0.0.1:0");
        world.send(plain, &to, b"not allowed");
        world.until_undelivered(1);
        assert_eq!(world.notes().undelivered, [(Some(to.clone()), ErrorKind::PermissionDenied)]);
        let mut options = BindOptions::default();
        options.broadcast = true;
        let (allowed, _) = world.bind_with("127.0.0.1:0", &options);
        world.send(allowed, &to, b"allowed");
        world.until_seen(1);
        assert_eq!(world.notes().seen[0].bytes, b"allowed");
        // The answer comes from the address of the interface, not from the broadcast address.
        let (from, own) = (world.notes().seen[0].from.clone(), world.notes().to[0].expect("Linux tells"));
        assert_eq!(own, std::net::Ipv4Addr::LOCALHOST);
        world.with(|cx| cx.send(at_any, Outbound::to(&from, b"answer").from(own)));
        world.until_seen(2);
        assert_eq!(world.notes().seen[1].bytes, b"answer");
        assert_eq!(world.notes().undelivered.len(), 1, "only what was not allowed");
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_socket_hears_the_groups_it_joined_unless_it_asks_for_all() {
    let lo = std::net::Ipv4Addr::LOCALHOST;
    let (theirs, ours) = ([239, 77, 1, 1].into(), [239, 77, 1, 2].into());
    let other = UdpSocket::bind("0.0.0.0:0").expect("free");
    let sender = UdpSocket::bind("127.0.0.1:0").expect("free");
    socket2::SockRef::from(&sender).set_multicast_if_v4(&lo).expect("the loopback is there");
    if let Err(error) = other.join_multicast_v4(&theirs, &lo) {
        return eprintln!("skipped: this machine has no multicast: {error}");
    }
    for_each_engine(|engine| {
        for all in [false, true] {
            let mut world = World::new(engine);
            let mut options = BindOptions::default();
            assert!(!options.multicast_all, "off by default");
            options.multicast_all = all;
            let (id, any) = world.bind_with("0.0.0.0:0", &options);
            let group = Group::V4 { group: ours, interface: lo };
            world.with(|cx| cx.join(id, &group)).expect("the loopback is there");
            let port = any.ip().expect("an IP address").port();
            sender.send_to(b"theirs", (theirs, port)).expect("there is room");
            sender.send_to(b"ours", (ours, port)).expect("there is room");
            let expected: &[&[u8]] = if all { &[b"theirs", b"ours"] } else { &[b"ours"] };
            world.until_seen(expected.len());
            let seen = world.notes().seen.iter().map(|seen| &seen.bytes[..]).collect::<Vec<_>>();
            assert_eq!(seen, expected, "{all}");
            assert!(world.notes().to.iter().all(|to| *to == Some(lo.into())), "{:?}", world.notes().to);
        }
    });
}

#[test]
fn a_socket_of_somebody_else_is_taken_and_one_of_another_type_is_not() {
    for_each_engine(|engine| {
        let mut world = World::new(engine);
        let (theirs, peer) =
            (UdpSocket::bind("127.0.0.1:0").expect("free"), UdpSocket::bind("127.0.0.1:0").expect("free"));
        let to = theirs.local_addr().expect("it is bound");
        let datagrams = Datagrams::new().on(theirs).expect("a socket");
        world.with(|cx| cx.add(datagrams).map_err(|rejected| rejected.error)).expect("it is taken");
        peer.send_to(b"hello", to).expect("there is room");
        world.until_seen(1);
        let stream = std::net::TcpListener::bind("127.0.0.1:0").expect("free");
        let datagrams = Datagrams::new().on(stream).expect("a socket");
        let rejected = world.with(|cx| cx.add(datagrams)).expect_err("a stream's socket");
        assert_eq!(rejected.error.io().map(std::io::Error::kind), Some(ErrorKind::InvalidInput));
        let without = world.with(|cx| cx.add(Datagrams::new())).expect_err("there is no socket");
        assert!(without.error.to_string().contains("use bind"), "{}", without.error);
    });
}

/// Sends datagrams of these lengths at once. Returns the engine's calls until all have arrived.
fn calls_for(engine: Engine, options: &BindOptions, lengths: &[usize]) -> u64 {
    let mut world = World::new(engine);
    let (one, _) = world.bind_with("127.0.0.1:0", options);
    let (_, to) = world.bind_with("127.0.0.1:0", options);
    settle(&mut world.runtime);
    let metrics = world.runtime.metrics();
    let before = metrics.read().engine_calls;
    let bytes = vec![7; lengths.iter().copied().max().unwrap_or(0)];
    world.with(|cx| lengths.iter().for_each(|len| _ = cx.send(one, Outbound::to(&to, &bytes[..*len]))));
    world.until_seen(lengths.len());
    let seen: Vec<usize> = world.notes().seen.iter().map(|seen| seen.bytes.len()).collect();
    assert_eq!(seen, lengths);
    metrics.read().engine_calls - before
}

#[cfg(target_os = "linux")]
#[test]
fn many_datagrams_leave_and_arrive_with_few_calls() {
    for_each_engine(|engine| {
        let mut apart = BindOptions::default();
        apart.together = false;
        let different: Vec<usize> = (1..=96).collect();
        let calls = calls_for(engine, &BindOptions::default(), &different);
        assert!(calls <= 24, "{calls} calls for 96 datagrams of many lengths");
        let calls = calls_for(engine, &apart, &[100; 96]);
        assert!(calls <= 24, "{calls} calls for 96 datagrams apart");
        let calls = calls_for(engine, &BindOptions::default(), &[100; 1_000]);
        assert!(calls <= 16, "{calls} calls for 1,000 equal datagrams");
    });
}

#[test]
fn as_many_as_one_call_takes_and_one_more() {
    for_each_engine(|engine| {
        let mut apart = BindOptions::default();
        apart.together = false;
        for count in [31, 32, 33, 63, 64, 65] {
            calls_for(engine, &apart, &vec![10; count]);
            calls_for(engine, &BindOptions::default(), &vec![10; count]);
        }
    });
}
