//! Sessions with OpenSSL over real sockets, in both roles.
#![cfg(unix)]

mod common;
#[path = "../../reactor/tests/foreign/mod.rs"]
mod foreign;
#[path = "../../reactor/tests/programs/mod.rs"]
mod programs;
#[path = "../../reactor/tests/server/mod.rs"]
mod server;

use std::{
    fs,
    io::{self, BufRead, BufReader, PipeReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread,
    time::Instant,
};

use common::Authority;
use programs::assert_refused;
use reactor_tls::{Connector, Roots, Tls, TlsError, Version};
use server::Server;
use session::{
    Phase, Truncated,
    kit::Peer,
    proxy::{self, ProxyHeader, SendHeader},
};

/// A folder with certificates, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("reactor-tls-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a new folder");
        Folder(path)
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, content).expect("written");
        path.to_str().expect("text").to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An authority and one certificate of it, in files.
struct Files {
    authority: Authority,
    folder: Folder,
    roots: String,
    cert: String,
    key: String,
}

impl Files {
    fn new() -> Files {
        let (authority, folder) = (Authority::new(), Folder::new());
        let (cert, key) = authority.pem_for_openssl(&["example.org"]);
        let (roots, cert, key) = (
            folder.file("roots", &authority.root_pem()),
            folder.file("cert", &cert),
            folder.file("key", &key),
        );
        Files { authority, folder, roots, cert, key }
    }

    fn echo(&self) -> Server {
        Server::start("tls_echo", &["127.0.0.1:0", "--cert", &self.cert, "--key", &self.key])
    }
}

/// `openssl s_client`, which sends what it gets and prints what arrives.
struct SClient {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<PipeReader>,
}

impl SClient {
    fn start(openssl: Command, files: &Files, address: &str, more: &[&str]) -> SClient {
        let (reader, writer) = io::pipe().expect("a pipe");
        // The command keeps its ends of the pipe, so it must go for the output to end.
        let mut openssl = openssl;
        let mut child = openssl
            .args(["s_client", "-connect", address, "-servername", "example.org", "-CAfile", &files.roots])
            .args(["-verify_return_error", "-verify_hostname", "example.org"])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(writer.try_clone().expect("a descriptor"))
            .stderr(writer)
            .spawn()
            .expect("openssl runs");
        SClient { input: child.stdin.take(), output: BufReader::new(reader), child }
    }

    fn say(&mut self, text: &str) {
        self.input.as_mut().expect("it is open").write_all(text.as_bytes()).expect("openssl reads");
    }

    /// Reads lines up to this one.
    fn until(&mut self, wanted: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            let len = self.output.read_line(&mut line).expect("text");
            assert!(len > 0, "openssl ended without {wanted:?}: {lines:?}");
            // A command's answer may stand before it on the same line.
            let found = line.trim_end().ends_with(wanted);
            lines.push(line.trim_end().to_owned());
            if found {
                return lines;
            }
        }
    }

    /// Ends the input, and returns the rest of the output and whether openssl succeeded.
    fn end(mut self) -> (String, bool) {
        drop(self.input.take());
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).expect("text");
        (rest, self.child.wait().expect("it is ours").success())
    }
}

impl Drop for SClient {
    fn drop(&mut self) {
        // With -quiet it ignores the end of its input. Both calls fail only if it has exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn openssl_talks_to_our_server_in_both_versions() {
    for version in ["-tls1_3", "-tls1_2"] {
        let Some(openssl) = foreign::command("openssl") else { return };
        let files = Files::new();
        let server = files.echo();
        let mut client = SClient::start(openssl, &files, &server.address, &["-quiet", version]);
        client.say("hello\n");
        client.until("hello");
        // Longer than a record.
        let long = format!("{}\n", "x".repeat(40_000));
        client.say(&long);
        client.until(long.trim_end());
    }
}

#[test]
fn openssl_updates_its_keys_and_asks_us_to_update_ours() {
    let Some(openssl) = foreign::command("openssl") else { return };
    let files = Files::new();
    let server = files.echo();
    // Without -quiet a line "K" is a command: update the keys, and request the same.
    let mut client = SClient::start(openssl, &files, &server.address, &["-tls1_3"]);
    client.say("before\n");
    client.until("before");
    for command in ["K\n", "k\n"] {
        client.say(command);
        // It takes a command only if nothing follows it in the same read.
        client.until("KEYUPDATE");
        client.say("after\n");
        client.until("after");
    }
    assert!(client.end().1);
}

#[test]
fn openssl_resumes_sessions() {
    for version in ["-tls1_3", "-tls1_2"] {
        let (Some(first), Some(second)) = (foreign::command("openssl"), foreign::command("openssl")) else {
            return;
        };
        let files = Files::new();
        let server = files.echo();
        let ticket = files.folder.0.join("ticket").to_str().expect("text").to_owned();
        let mut client = SClient::start(first, &files, &server.address, &[version, "-sess_out", &ticket]);
        client.say("one\n");
        client.until("one");
        let _ = client.end();
        let mut client = SClient::start(second, &files, &server.address, &[version, "-sess_in", &ticket]);
        client.say("two\n");
        let lines = client.until("two");
        assert!(lines.iter().any(|line| line.starts_with("Reused, ")), "{version}: {lines:#?}");
        let _ = client.end();
    }
}

#[test]
fn openssl_refuses_a_certificate_for_another_name() {
    let Some(openssl) = foreign::command("openssl") else { return };
    let files = Files::new();
    let (cert, key) = files.authority.pem(&["other.org"]);
    let (cert, key) = (files.folder.file("cert2", &cert), files.folder.file("key2", &key));
    let mut server = Server::start("tls_echo", &["127.0.0.1:0", "--cert", &cert, "--key", &key]);
    let client = SClient::start(openssl, &files, &server.address, &["-quiet"]);
    let complaint = server.complaint();
    assert!(complaint.contains("the peer refused the session: BadCertificate"), "{complaint}");
    assert!(!client.end().1, "openssl fails");
}

/// Reads once. A read with a time limit returns EINTR if the process was stopped meanwhile (signal(7)).
fn read(socket: &mut TcpStream, into: &mut [u8]) -> io::Result<usize> {
    loop {
        match socket.read(into) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            result => return result,
        }
    }
}

/// Our client, over a socket of the standard library.
struct Client {
    peer: Peer<Tls>,
    socket: TcpStream,
    ended: bool,
}

impl Client {
    fn connect(connector: &Connector, socket: TcpStream) -> Client {
        socket.set_read_timeout(Some(programs::PATIENCE)).expect("a timeout can be set");
        let mut client =
            Client { peer: Peer::new(connector.to("example.org").expect("a name")), socket, ended: false };
        client.flush();
        client
    }

    fn flush(&mut self) {
        let flight = self.peer.flight();
        self.socket.write_all(&flight).expect("there is room");
    }

    fn read(&mut self) {
        let mut buffer = [0; 4096];
        let count = read(&mut self.socket, &mut buffer).expect("in time");
        self.ended = count == 0;
        self.peer.feed(&buffer[..count]);
        self.flush();
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&Client) -> bool) {
        while !done(self) {
            assert!(!self.ended, "the transport ended before {what}: {:?}", self.peer.error());
            self.read();
        }
    }
}

/// `openssl s_server`, killed at the end, and its port.
struct SServer(Child, u16);

impl SServer {
    fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.1)).expect("it listens")
    }
}

impl Drop for SServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns whether somebody listens on this port.
fn is_listening(port: u16) -> bool {
    // Without a listener, one attempt in some ten thousand gets this very port as its own, and connects to itself.
    let reached = TcpStream::connect(("127.0.0.1", port));
    reached.is_ok_and(|socket| socket.local_addr().is_ok_and(|own| own.port() != port))
}

fn s_server(mut openssl: Command, files: &Files, more: &[&str]) -> SServer {
    // The system gives a free port, which openssl takes over.
    let port =
        TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
    let child = openssl
        .args(["s_server", "-accept", &format!("127.0.0.1:{port}"), "-cert", &files.cert, "-key", &files.key])
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl runs");
    let server = SServer(child, port);
    // It does not say when it listens. The probe is a session that ends before its first byte.
    let begun = Instant::now();
    while !is_listening(port) {
        assert!(begun.elapsed() < programs::PATIENCE, "openssl does not listen");
        thread::yield_now();
    }
    server
}

#[test]
fn our_client_talks_to_openssl_in_both_versions() {
    for (argument, version) in [("-tls1_3", Version::Tls13), ("-tls1_2", Version::Tls12)] {
        let Some(openssl) = foreign::command("openssl") else { return };
        let files = Files::new();
        // It sends each line back, reversed.
        let server = s_server(openssl, &files, &[argument, "-rev", "-alpn", "http/1.1"]);
        let connector = Connector::builder(Roots::from_file(&files.roots).expect("roots"))
            .alpn(["h2", "http/1.1"])
            .build()
            .expect("whole");
        let socket = server.connect();
        let mut client = Client::connect(&connector, socket);
        client.peer.send(b"stressed\n");
        client.until("the answer", |client| client.peer.received() == b"desserts\n");
        let negotiated = client.peer.session().layer().negotiated().expect("it is open");
        assert_eq!((negotiated.version, negotiated.alpn), (version, Some(&b"http/1.1"[..])));
        client.peer.close();
        client.flush();
    }
}

#[test]
fn openssl_asks_our_client_for_a_certificate() {
    let Some(openssl) = foreign::command("openssl") else { return };
    let files = Files::new();
    let server = s_server(
        openssl,
        &files,
        &["-tls1_2", "-rev", "-Verify", "1", "-verify_return_error", "-CAfile", &files.roots],
    );
    let roots = || Roots::from_file(&files.roots).expect("roots");
    let connect = |connector: &Connector| Client::connect(connector, server.connect());
    let mut stranger = connect(&Connector::builder(roots()).build().expect("whole"));
    stranger.until("the refusal", |client| client.peer.error().is_some());
    let error = stranger.peer.error().expect("it failed").downcast_ref::<TlsError>();
    assert!(matches!(error, Some(TlsError::Alert(_))), "{error:?}");
    let identity = files.authority.identity(&["client"]);
    let mut known = connect(&Connector::builder(roots()).identity(identity).build().expect("whole"));
    known.peer.send(b"live\n");
    known.until("the answer", |client| client.peer.received() == b"evil\n");
}

#[test]
fn a_killed_server_is_a_cut() {
    let Some(openssl) = foreign::command("openssl") else { return };
    let files = Files::new();
    let server = s_server(openssl, &files, &["-rev"]);
    let connector =
        Connector::builder(Roots::from_file(&files.roots).expect("roots")).build().expect("whole");
    let mut client = Client::connect(&connector, server.connect());
    client.peer.send(b"ab\n");
    client.until("the answer", |client| client.peer.received() == b"ba\n");
    drop(server);
    let mut byte = [0; 64];
    // The kernel ends the connection, with a FIN or a reset, and nobody sent a close_notify.
    while let Ok(1..) = read(&mut client.socket, &mut byte) {}
    assert!(client.peer.end().expect_err("it was cut").is::<Truncated>());
}

#[test]
fn the_certificate_is_read_again_at_sighup() {
    let Some(openssl) = foreign::command("openssl") else { return };
    let Some(second) = foreign::command("openssl") else { return };
    let Some(mut kill) = foreign::command("kill") else { return };
    let files = Files::new();
    let (other, other_key) = files.authority.pem(&["other.org"]);
    let (cert, key) =
        (fs::read_to_string(&files.cert).expect("read"), fs::read_to_string(&files.key).expect("read"));
    fs::write(&files.cert, other).expect("written");
    fs::write(&files.key, other_key).expect("written");
    let mut server = files.echo();
    assert!(!SClient::start(openssl, &files, &server.address, &["-quiet"]).end().1, "it is for another name");
    server.complaint();
    fs::write(&files.cert, cert).expect("written");
    fs::write(&files.key, key).expect("written");
    assert!(kill.args(["-HUP", &server.child.id().to_string()]).status().expect("it runs").success());
    // The signal is pending before the next connection is, and the service reads the files at once.
    let mut client = SClient::start(second, &files, &server.address, &["-quiet"]);
    client.say("hello\n");
    client.until("hello");
}

/// Reads exactly so many bytes of a backend's connection.
fn read_exactly(socket: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    socket.read_exact(&mut bytes).expect("in time");
    bytes
}

#[test]
fn the_proxy_forwards_and_tells_who_the_client_is() {
    let files = Files::new();
    let backend = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = backend.local_addr().expect("it is bound").to_string();
    let arguments = ["127.0.0.1:0", &address, "--cert", &files.cert, "--key", &files.key, "--proxy-protocol"];
    let server = Server::start("tls_proxy", &arguments);
    let roots = Roots::from_file(&files.roots).expect("roots");
    let connector = Connector::builder(roots).build().expect("whole");
    let socket = server.client();
    let (source, destination) =
        (socket.local_addr().expect("its end"), socket.peer_addr().expect("connected"));
    let mut client = Client::connect(&connector, socket);
    client.until("the session", |client| client.peer.session().phase() == Phase::Open);
    let (mut target, _) = backend.accept().expect("the proxy connects");
    target.set_read_timeout(Some(programs::PATIENCE)).expect("a timeout can be set");

    let header = ProxyHeader::stream(source, destination);
    let header = Peer::new(SendHeader::new(&header, proxy::Version::V2).expect("it is short")).flight();
    assert_eq!(read_exactly(&mut target, header.len()), header);
    let request: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8).collect();
    client.peer.send(&request);
    client.flush();
    assert_eq!(read_exactly(&mut target, request.len()), request);
    target.write_all(&request).expect("there is room");
    client.until("the answer", |client| client.peer.received() == request);
    // Each end passes on: our close_notify as a FIN, and the server's FIN as a close_notify.
    client.peer.close();
    client.flush();
    assert_eq!(read(&mut target, &mut [0; 1]).expect("in time"), 0, "the end passes on");
    drop(target);
    client.until("the end", |client| client.peer.session().ended());
}

#[test]
fn a_forged_fin_gets_no_close_notify_behind_half_an_answer() {
    let files = Files::new();
    let backend = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = backend.local_addr().expect("it is bound").to_string();
    let arguments = ["127.0.0.1:0", &address, "--cert", &files.cert, "--key", &files.key];
    let proxy = Server::start("tls_proxy", &arguments);
    let connector =
        Connector::builder(Roots::from_file(&files.roots).expect("roots")).build().expect("whole");
    let mut client = Client::connect(&connector, proxy.client());
    client.until("the session", |client| client.peer.session().phase() == Phase::Open);
    let (mut target, _) = backend.accept().expect("the proxy connects");
    target.write_all(b"half").expect("there is room");
    client.until("the half", |client| client.peer.received() == b"half");
    assert_forged_fin_cuts(client);
    // Without a pair: the service has answered, and could answer more.
    let echo = files.echo();
    let mut client = Client::connect(&connector, echo.client());
    client.peer.send(b"half");
    client.flush();
    client.until("the half", |client| client.peer.received() == b"half");
    assert_forged_fin_cuts(client);
}

/// Ends the transport as anybody on the path can, and checks that the other end does not vouch for its own.
#[track_caller]
fn assert_forged_fin_cuts(mut client: Client) {
    client.socket.shutdown(Shutdown::Write).expect("it is connected");
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = read(&mut client.socket, &mut buffer) {
        client.peer.feed(&buffer[..count]);
    }
    assert!(!client.peer.session().ended(), "a close_notify stands behind a half");
    assert!(client.peer.end().expect_err("it was cut").is::<Truncated>());
}

#[test]
fn the_proxy_refuses_bad_arguments() {
    let files = Files::new();
    let (cert, key) = (&*files.cert, &*files.key);
    assert_refused("tls_proxy", &["--cert", cert, "--key", key], "two addresses are needed");
    assert_refused("tls_proxy", &["127.0.0.1:0", "--cert", cert, "--key", key], "two addresses are needed");
    assert_refused("tls_proxy", &["127.0.0.1:0", "127.0.0.1:9", "--cert", cert], "--key is missing");
    assert_refused("tls_proxy", &["127.0.0.1:0", "x", "--cert", cert, "--key", key], "x");
    assert_refused("tls_proxy", &["--proxy"], "unexpected argument");
    let help = programs::output("tls_proxy", &["--help"]);
    assert!(help.status.success() && help.stdout.starts_with(b"Takes TLS in front of"));
}

#[test]
fn the_example_refuses_bad_arguments() {
    let files = Files::new();
    let (cert, key) = (&*files.cert, &*files.key);
    assert_refused("tls_echo", &[], "--cert is missing");
    assert_refused("tls_echo", &["--cert", cert], "--key is missing");
    assert_refused("tls_echo", &["--cert"], "--cert needs a file");
    assert_refused("tls_echo", &["nowhere", "--cert", cert, "--key", key], "nowhere");
    assert_refused("tls_echo", &["--cert", "/nonexistent", "--key", key], "cannot read /nonexistent");
    assert_refused("tls_echo", &["--cert", key, "--key", key], "has not a certificate");
    assert_refused("tls_echo", &["--cert", cert, "--key", cert], "has not a private key");
    assert_refused("tls_echo", &["--more"], "unexpected argument");
    let help = programs::output("tls_echo", &["--help"]);
    assert!(help.status.success() && help.stdout.starts_with(b"Echoes bytes over TLS."));
}
