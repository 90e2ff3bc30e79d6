//! `socks5` behaves as its header describes, with the library's own client and with curl.

mod foreign;
mod programs;
mod server;

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    thread,
};

use programs::{PATIENCE, assert_refused};
use reactor::session::{
    Phase,
    kit::Peer,
    proxy::{Destination, Reply, Socks5, Socks5Error},
};
use server::Server;

fn proxy() -> Server {
    Server::start("socks5", &["127.0.0.1:0"])
}

/// Reads once. A read with a time limit returns EINTR if the process was stopped meanwhile (signal(7)).
fn read(socket: &mut TcpStream, into: &mut [u8]) -> io::Result<usize> {
    loop {
        match socket.read(into) {
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            result => return result,
        }
    }
}

/// A client of the proxy: the library's layer, over a socket that the test drives.
struct Client {
    peer: Peer<Socks5>,
    socket: TcpStream,
}

impl Client {
    fn connect(proxy: &Server, to: Destination) -> Client {
        let mut client = Client { peer: Peer::new(Socks5::new(to)), socket: proxy.client() };
        while client.peer.session().phase() == Phase::Handshake && client.peer.error().is_none() {
            client.flush();
            assert!(client.read() > 0, "the proxy ended before it replied");
        }
        client
    }

    fn flush(&mut self) {
        let flight = self.peer.flight();
        self.socket.write_all(&flight).expect("there is room");
    }

    fn read(&mut self) -> usize {
        let mut buffer = [0; 4096];
        let count = read(&mut self.socket, &mut buffer).expect("in time");
        self.peer.feed(&buffer[..count]);
        count
    }

    fn refusal(&self) -> Option<&Socks5Error> {
        self.peer.error().map(|error| error.downcast_ref().expect("of SOCKS5"))
    }
}

/// Accepts one connection, sends back what it reads, and ends after the other side.
fn echo_once() -> (u16, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    let thread = thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("the proxy connects");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        let mut all = Vec::new();
        socket.read_to_end(&mut all).expect("in time");
        socket.write_all(&all).expect("there is room");
    });
    (port, thread)
}

#[test]
fn addresses_and_names_are_connected() {
    for host in ["127.0.0.1", "localhost"] {
        let proxy = proxy();
        let (port, backend) = echo_once();
        let to = match host.parse::<std::net::IpAddr>() {
            Ok(ip) => Destination::Address((ip, port).into()),
            Err(_) => Destination::name(host, port).expect("a name"),
        };
        let mut client = Client::connect(&proxy, to);
        assert!(client.peer.error().is_none(), "{host}: {:?}", client.peer.error());
        let sent = vec![7; 300_000];
        client.peer.send(&sent);
        client.flush();
        client.socket.shutdown(Shutdown::Write).expect("connected");
        while client.read() > 0 {}
        assert!(client.peer.received() == sent, "{host}: {} bytes came back", client.peer.received().len());
        backend.join().expect("the backend is content");
    }
}

#[test]
fn refusals_say_why() {
    let proxy = proxy();
    // Nobody listens on a port that was just given back.
    let port =
        TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let client = Client::connect(&proxy, Destination::Address(([127, 0, 0, 1], port).into()));
    assert!(
        matches!(client.refusal(), Some(Socks5Error::Refused(Reply::ConnectionRefused))),
        "{:?}",
        client.refusal()
    );
    // No label of a name is that long, so the system's resolver asks nobody.
    let client = Client::connect(&proxy, Destination::name("x".repeat(64), 80).expect("short enough"));
    assert!(
        matches!(client.refusal(), Some(Socks5Error::Refused(Reply::HostUnreachable))),
        "{:?}",
        client.refusal()
    );
}

#[test]
fn bad_messages_end_only_their_connection() {
    let mut proxy = proxy();
    for (bytes, says) in [
        (&b"GET / HTTP/1.1\r\n"[..], "does not speak SOCKS5"),
        (&[5, 1, 0, 4, 1, 0, 1], "its request is not of SOCKS5"),
        (&[5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1, 0, 9, 9], "sent data before it got a reply"),
    ] {
        let mut client = proxy.client();
        client.write_all(bytes).expect("there is room");
        // It ends, with or without the answer to its greeting.
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest);
        // The proxy reports it when our side has ended, too.
        drop(client);
        let complaint = proxy.complaint();
        assert!(complaint.contains(says), "{complaint}");
    }
}

#[test]
fn what_it_does_not_serve_is_answered() {
    let proxy = proxy();
    for (bytes, expected) in [
        // Only authentication, no method at all, BIND, and an unknown kind of address.
        (&[5, 1, 2][..], &[5, 0xff][..]),
        (&[5, 0], &[5, 0xff]),
        (&[5, 1, 0, 5, 2, 0, 1, 127, 0, 0, 1, 0, 9], &[5, 0, 5, 7, 0, 1, 0, 0, 0, 0, 0, 0]),
        (&[5, 1, 0, 5, 1, 0, 9, 1, 2, 3], &[5, 0, 5, 8, 0, 1, 0, 0, 0, 0, 0, 0]),
    ] {
        let mut client = proxy.client();
        client.write_all(bytes).expect("there is room");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).expect("an orderly end");
        assert_eq!(answer, expected, "{bytes:?}");
    }
}

/// Greets the proxy, asks it for this port of the loopback, and does not read the answer to the greeting.
fn ask(proxy: &Server, port: u16) -> TcpStream {
    let mut client = proxy.client();
    client.write_all(&[5, 1, 0]).expect("there is room");
    client.peek(&mut [0; 2]).expect("in time");
    let [high, low] = port.to_be_bytes();
    client.write_all(&[5, 1, 0, 1, 127, 0, 0, 1, high, low]).expect("there is room");
    client
}

#[test]
fn the_target_of_a_client_that_died_meanwhile_is_ended() {
    // A new proxy each time, because nobody reads its complaints, and a pipe has an end.
    (0..20).for_each(|_| targets_of_dead_clients_end(&proxy()));
}

/// Lets 100 clients die, some of them in the very turn in which their targets are connected.
fn targets_of_dead_clients_end(proxy: &Server) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    for attempt in 0..100 {
        let client = ask(proxy, port);
        // A little later each time.
        (0..30 * attempt).for_each(|_| std::hint::spin_loop());
        // The unread answer makes this a reset.
        drop(client);
    }
    // The target of a living client is the last one.
    let mut last = ask(proxy, port);
    let mut answer = [0; 12];
    last.read_exact(&mut answer).expect("in time");
    assert_eq!(answer[..4], [5, 0, 5, 0]);
    last.write_all(b"last").expect("there is room");
    loop {
        let (mut target, _) = listener.accept().expect("the proxy connects");
        target.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        let mut bytes = [0; 4];
        match read(&mut target, &mut bytes) {
            Ok(0) => (),
            Ok(count) => {
                assert_eq!(bytes[..count], b"last"[..count]);
                return;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "it was left alone"),
        }
    }
}

#[test]
fn curl_goes_through_it() {
    let Some(mut curl) = foreign::command("curl") else { return };
    let proxy = proxy();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    let backend = thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("the proxy connects");
        let mut request = [0; 4096];
        let len = socket.read(&mut request).expect("a request");
        assert!(request[..len].starts_with(b"GET / HTTP/1.1\r\n"));
        socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").expect("there is room");
    });
    let url = format!("http://localhost:{port}/");
    let output = curl
        .args(["-s", "--max-time", "30", "--noproxy", "", "--socks5-hostname", &proxy.address, &url])
        .output()
        .expect("curl runs");
    assert_eq!(output.stdout, b"hello", "{output:?}");
    backend.join().expect("the backend is content");
}

#[test]
fn bad_arguments_are_refused() {
    assert_refused("socks5", &["nowhere"], "nowhere");
    assert_refused("socks5", &["127.0.0.1:0", "127.0.0.1:0"], "at most one address");
    let help = programs::output("socks5", &["--help"]);
    assert!(help.status.success() && help.stdout.starts_with(b"A SOCKS5 proxy server"));
}
