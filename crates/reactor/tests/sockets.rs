//! Listening and connecting: addresses, roles, options.
#![cfg(unix)]
#![allow(unsafe_code)]

mod common;

use std::{
    io::Write,
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    time::Duration,
};

use common::{Probe, Seen, for_each_engine, is_ended, listen, settle, until};
use reactor::{
    Address, Bytes, ConnectOptions, Context, Event, Handle, Id, Keepalive, ListenOptions, Result, Runtime,
    Service, ServiceId, SocketOptions, Stream,
};

fn started(runtime: &mut Runtime) -> ServiceId<Probe> {
    runtime.add(Probe::quiet()).expect("it starts")
}

#[test]
fn a_unix_path_and_an_abstract_name_serve_and_connect() {
    for_each_engine(|engine| {
        let folder = std::env::temp_dir();
        let path = folder.join(format!("reactor-{}-{}", std::process::id(), engine.0));
        let name = format!("@reactor-{}-{}", std::process::id(), engine.0);
        for address in [path.to_str().expect("text").to_owned(), name] {
            if address.starts_with('@') && !cfg!(any(target_os = "linux", target_os = "android")) {
                continue;
            }
            let mut runtime = engine.runtime();
            let service = started(&mut runtime);
            let (listener, client) = runtime
                .with(service, |_, cx| {
                    let listener = cx.listen(&address, |_| Some(Stream::new(Bytes))).expect("it is free");
                    let client = cx.connect(&address, Stream::new(Bytes)).expect("it listens");
                    cx.send(client, &b"over unix"[..]);
                    (listener, client)
                })
                .expect("it lives");
            until(&mut runtime, |runtime| {
                runtime.service(service).expect("it lives").saw(&Seen::got("over unix"))
            });
            runtime.with(service, |_, cx| {
                let expected: Address = address.parse().expect("an address");
                assert_eq!(cx.local(listener).expect("bound"), expected);
                assert_eq!(cx.peer(client).expect("connected"), expected);
                cx.close_all();
            });
            until(&mut runtime, |runtime| runtime.service(service).expect("it lives").closed.len() == 2);
            // The runtime replaces a socket file that has no listener.
            if !address.starts_with('@') {
                assert!(path.exists());
                runtime.with(service, |_, cx| {
                    _ = cx.listen(&address, |_| Some(Stream::new(Bytes))).expect("again")
                });
                UnixStream::connect(&path).expect("it listens");
                std::fs::remove_file(&path).expect("it is there");
            }
        }
    });
}

#[test]
fn a_listener_may_refuse_a_peer() {
    for_each_engine(|engine| {
        let mut runtime = engine.runtime();
        let service = started(&mut runtime);
        let mut first = true;
        let address = listen(&mut runtime, service, move || {
            (!std::mem::replace(&mut first, false)).then(|| Stream::new(Bytes))
        });
        let mut refused = TcpStream::connect(address).expect("the kernel takes it");
        until(&mut runtime, |_| is_ended(&mut refused));
        let mut taken = TcpStream::connect(address).expect("it listens");
        taken.write_all(b"x").expect("room");
        until(&mut runtime, |runtime| runtime.service(service).expect("it lives").saw(&Seen::got("x")));
        assert_eq!(runtime.service(service).expect("it lives").count(&Seen::Open), 1);
    });
}

#[test]
fn two_roles_of_one_stack_have_two_handlers() {
    struct Admin;
    #[derive(Default)]
    struct Both(Vec<&'static str>);
    impl Service for Both {}
    impl Handle<Stream> for Both {
        fn handle(&mut self, _: &mut Context<Self>, _: Id<Stream>, _: Event<Bytes>) -> Result {
            self.0.push("public");
            Ok(())
        }
    }
    impl Handle<Stream<Bytes, (), Admin>> for Both {
        fn handle(
            &mut self,
            _: &mut Context<Self>,
            _: Id<Stream<Bytes, (), Admin>>,
            _: Event<Bytes>,
        ) -> Result {
            self.0.push("admin");
            Ok(())
        }
    }
    for_each_engine(|engine| {
        let mut runtime = engine.runtime();
        let service = runtime.add(Both::default()).expect("it starts");
        let address = runtime
            .with(service, |_, cx| {
                let id =
                    cx.listen("127.0.0.1:0", |_| Some(Stream::new(Bytes).role::<Admin>())).expect("a port");
                cx.local(id).expect("bound")
            })
            .expect("it lives");
        runtime.with(service, |_, cx| _ = cx.connect(address, Stream::new(Bytes)).expect("it begins"));
        until(&mut runtime, |runtime| runtime.service(service).expect("it lives").0.len() == 2);
        let mut seen = runtime.service(service).expect("it lives").0.clone();
        seen.sort();
        assert_eq!(seen, ["admin", "public"]);
    });
}

/// Returns whether IP_BIND_ADDRESS_NO_PORT is set.
#[cfg(target_os = "linux")]
fn is_port_chosen_late(socket: &impl std::os::fd::AsRawFd) -> bool {
    let (mut on, mut length): (libc::c_int, _) = (0, size_of::<libc::c_int>() as libc::socklen_t);
    let (level, name) = (libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT);
    // SAFETY: both pointers are to live values, and the second holds the size of the first.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut on).cast(), &raw mut length) };
    assert_eq!(result, 0, "Linux has it since 4.2");
    on != 0
}

#[test]
fn a_socket_whose_connect_is_under_way_opens_when_it_is_connected() {
    for_each_engine(|engine| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let target = listener.local_addr().expect("bound");
        let kind = socket2::Type::STREAM;
        let socket = socket2::Socket::new(socket2::Domain::IPV4, kind, None).expect("a socket");
        socket.set_nonblocking(true).expect("a socket");
        let begun = socket.connect(&target.into()).expect_err("a non-blocking connect goes on by itself");
        assert_eq!(begun.raw_os_error(), Some(libc::EINPROGRESS));
        let mut runtime = engine.runtime();
        let service = started(&mut runtime);
        let stream = Stream::new(Bytes).connecting(socket, Address::Ip(target)).expect("a socket");
        let id = runtime
            .with(service, |_, cx| {
                let id = cx.add(stream).expect("there is room");
                cx.send(id, &b"early"[..]);
                id
            })
            .expect("it lives");
        until(&mut runtime, |runtime| runtime.service(service).expect("it lives").saw(&Seen::Open));
        let (mut peer, _) = listener.accept().expect("it is connected");
        let mut early = [0; 5];
        until(&mut runtime, |_| {
            peer.set_nonblocking(true).expect("a socket");
            peer.peek(&mut early).is_ok_and(|count| count == 5)
        });
        assert_eq!(&early, b"early");
        peer.write_all(b"answer").expect("there is room");
        until(&mut runtime, |runtime| runtime.service(service).expect("it lives").bytes(id) == b"answer");
        assert_eq!(runtime.service(service).expect("it lives").count(&Seen::Open), 1);
        runtime.with(service, |_, cx| {
            assert!(cx.get(id).expect("it lives").is_outbound());
            assert_eq!(cx.peer(id).expect("connected"), Address::Ip(target));
        });
    });
}

#[test]
fn a_keepalive_that_the_system_cannot_count_is_refused_in_words() {
    for_each_engine(|engine| {
        let mut runtime = engine.runtime();
        let service = started(&mut runtime);
        let second = Duration::from_secs(1);
        let short = second - Duration::from_nanos(1);
        let good = Keepalive { idle: second, interval: second, probes: 1 };
        for (keepalive, says) in [
            (good, None),
            (Keepalive { idle: short, ..good }, Some("whole seconds, at least one")),
            (Keepalive { interval: short, ..good }, Some("whole seconds, at least one")),
            (Keepalive { probes: 0, ..good }, Some("at least one probe")),
        ] {
            let mut options = ListenOptions::default();
            options.socket.keepalive = Some(keepalive);
            let accept = |_: &Address| Some(Stream::new(Bytes));
            let listening = runtime
                .with(service, |_, cx| cx.listen_with("127.0.0.1:0", &options, accept))
                .expect("it lives");
            match says {
                None => _ = listening.expect("it can be counted"),
                Some(says) => {
                    let error = listening.expect_err("it cannot be counted");
                    assert_eq!(error.io().map(std::io::Error::kind), Some(std::io::ErrorKind::InvalidInput));
                    assert!(error.to_string().contains(says), "{error}");
                }
            }
        }
    });
}

#[test]
fn options_reach_the_sockets() {
    for_each_engine(|engine| {
        let mut socket = SocketOptions::default();
        socket.keepalive = Some(Keepalive::default());
        socket.receive_buffer = Some(8 << 10);
        let mut listen_options = ListenOptions::default();
        listen_options.socket = socket;
        let mut connect_options = ConnectOptions::default();
        connect_options.socket = socket;
        connect_options.local = Some("127.0.0.2:0".parse().expect("an address"));
        let mut runtime = engine.runtime();
        let service = started(&mut runtime);
        let client = runtime
            .with(service, |_, cx| {
                let id = cx
                    .listen_with("127.0.0.1:0", &listen_options, |peer| {
                        let ip = peer.ip().expect("IP").ip().to_string();
                        (ip == "127.0.0.2").then(|| Stream::new(Bytes))
                    })
                    .expect("a port");
                let address = cx.local(id).expect("bound");
                cx.connect_with(address, &connect_options, Stream::new(Bytes)).expect("it begins")
            })
            .expect("it lives");
        until(&mut runtime, |runtime| runtime.service(service).expect("it lives").count(&Seen::Open) == 2);
        let ids: Vec<_> =
            runtime.service(service).expect("it lives").seen.iter().map(|(id, _)| *id).collect();
        assert!(ids.contains(&client));
        runtime.with(service, |_, cx| {
            ids.iter().for_each(|id| cx.release(*id).expect("it is not closing"));
        });
        until(&mut runtime, |runtime| runtime.service(service).expect("it lives").closed.len() == 2);
        let closed = runtime.with(service, |service, _| std::mem::take(&mut service.closed));
        for (_, stream, _) in closed.expect("it lives") {
            #[cfg(target_os = "linux")]
            let is_outbound = stream.is_outbound();
            let transport = stream.into_transport().expect("a released stream has its socket");
            let descriptor = transport.source().descriptor().expect("of the system");
            let socket = socket2::SockRef::from(&descriptor);
            assert!(socket.tcp_nodelay().expect("TCP") && socket.keepalive().expect("TCP"));
            assert_eq!(socket.tcp_keepalive_time().expect("TCP"), Duration::from_secs(60));
            assert!(socket.recv_buffer_size().expect("a socket") <= 32 << 10);
            assert!(socket.nonblocking().expect("a socket"));
            #[cfg(target_os = "linux")]
            assert!(is_port_chosen_late(&descriptor) == is_outbound, "IP_BIND_ADDRESS_NO_PORT");
            let flags = rustix::io::fcntl_getfd(descriptor).expect("a descriptor");
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        }
    });
}

#[test]
fn a_paused_listener_accepts_nobody_until_it_is_resumed() {
    for_each_engine(|engine| {
        let mut runtime = engine.runtime();
        let service = started(&mut runtime);
        let (listener, address) = runtime
            .with(service, |_, cx| {
                let id = cx.listen("127.0.0.1:0", |_| Some(Stream::new(Bytes))).expect("a port");
                cx.pause(id);
                (id, cx.local(id).expect("bound").ip().expect("IP"))
            })
            .expect("it lives");
        let _peer = TcpStream::connect(address).expect("the backlog takes it");
        settle(&mut runtime);
        assert!(!runtime.service(service).expect("it lives").saw(&Seen::Open));
        runtime.with(service, |_, cx| cx.resume(listener));
        until(&mut runtime, |runtime| runtime.service(service).expect("it lives").saw(&Seen::Open));
        runtime.with(service, |_, cx| cx.close(listener));
        runtime.turn(Some(Duration::ZERO)).expect("whole");
        assert!(TcpStream::connect(address).is_err());
    });
}
