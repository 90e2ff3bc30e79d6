//! The examples behave as their headers describe. Each runs as its own process, and the test connects plain
//! sockets.
#![cfg(unix)]

mod programs;
mod server;

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::PathBuf,
    time::Duration,
};

use programs::{PATIENCE, assert_refused, output};
use server::Server;

fn rest_of(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("an orderly end");
    rest
}

#[test]
fn echo_returns_every_byte_and_then_the_end() {
    let server = Server::start("echo", &["127.0.0.1:0"]);
    let mut client = server.client();
    let sent: Vec<u8> = (0..1 << 20).map(|at| (at % 251) as u8).collect();
    let mut writer = client.try_clone().expect("a second handle");
    let writing = {
        let sent = sent.clone();
        std::thread::spawn(move || {
            writer.write_all(&sent).expect("all is taken");
            writer.shutdown(Shutdown::Write).expect("the end is told");
        })
    };
    assert!(rest_of(&mut client) == sent, "the same bytes come back");
    writing.join().expect("the writer does not panic");
}

#[test]
fn echo_refuses_what_is_no_address_and_names_an_address_in_use() {
    assert_refused("echo", &["nowhere"], "`nowhere` is not an address");
    let server = Server::start("echo", &["127.0.0.1:0"]);
    let taken = output("echo", &[&server.address]);
    let said = String::from_utf8_lossy(&taken.stderr).into_owned();
    assert_eq!((taken.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    assert_eq!(said.matches("in use").count(), 1, "once, and clearly: {said}");
    assert!(said.contains(&server.address), "{said}");
}

#[test]
fn echo_and_chat_keep_to_their_promised_length() {
    for (name, lines_max) in [("echo", 25), ("chat", 60)] {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("examples/{name}.rs"));
        let lines = fs::read_to_string(path).expect("the source is there").lines().count();
        assert!(lines <= lines_max, "{name} has {lines} lines");
    }
}

/// A user in the chat.
struct Guest {
    stream: TcpStream,
    lines: BufReader<TcpStream>,
}

impl Guest {
    fn come(server: &Server, name: &str) -> Guest {
        let stream = server.client();
        let lines = BufReader::new(stream.try_clone().expect("a second handle"));
        let mut guest = Guest { stream, lines };
        assert_eq!(guest.hear(), "your name?");
        guest.say(name);
        guest
    }

    fn say(&mut self, line: &str) {
        self.stream.write_all(format!("{line}\r\n").as_bytes()).expect("the chat listens");
    }

    /// Reads the next line. Returns an empty one at the end.
    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line in time");
        line.trim_end().to_owned()
    }
}

#[test]
fn chat_knows_names_and_tells_all_what_one_says() {
    let server = Server::start("chat", &["127.0.0.1:0"]);
    let mut ada = Guest::come(&server, "ada");
    assert_eq!(ada.hear(), "ada is here");
    let mut bob = Guest::come(&server, "ada");
    assert_eq!(bob.hear(), "not that one; your name?", "it is taken");
    bob.say("bob");
    for guest in [&mut ada, &mut bob] {
        assert_eq!(guest.hear(), "bob is here");
    }
    bob.say("hello");
    for guest in [&mut ada, &mut bob] {
        assert_eq!(guest.hear(), "bob: hello");
    }
    bob.say("/quit");
    assert_eq!(bob.hear(), "", "the end");
    assert_eq!(ada.hear(), "bob has left (closed)");
}

#[test]
fn chat_ends_who_is_silent_for_too_long() {
    let server = Server::start("chat", &["127.0.0.1:0", "1"]);
    let mut ada = Guest::come(&server, "ada");
    assert_eq!(ada.hear(), "ada is here");
    assert_eq!(ada.hear(), "", "the end comes by itself");
}

#[test]
fn chat_cuts_a_slow_reader_and_the_others_go_on() {
    let server = Server::start("chat", &["127.0.0.1:0"]);
    let mut ada = Guest::come(&server, "ada");
    assert_eq!(ada.hear(), "ada is here");
    let slow = Guest::come(&server, "slow");
    assert_eq!(ada.hear(), "slow is here");
    let line = "x".repeat(500);
    // Send many times the capacity of the sockets and the queue, until the chat cuts off the slow reader.
    for _ in 0..1 << 17 {
        ada.say(&line);
        let heard = ada.hear();
        if heard.starts_with("slow has left") {
            assert_eq!(heard, "slow has left (more was sent than could leave: the queue of output is full)");
            drop(slow);
            return;
        }
        assert_eq!(heard.len(), "ada: ".len() + line.len());
    }
    panic!("the slow reader was never cut");
}

#[test]
fn chat_refuses_bad_input() {
    assert_refused("chat", &["nowhere"], "nowhere");
    assert_refused("chat", &["127.0.0.1:0", "soon"], "soon");
}

/// Makes a target for the proxy, and the proxy in front of it.
fn proxied() -> (Server, TcpListener) {
    let target = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = target.local_addr().expect("it is bound").to_string();
    (Server::start("proxy", &["127.0.0.1:0", &address]), target)
}

#[test]
fn proxy_passes_first_bytes_and_half_closes_both_ways() {
    let (proxy, target) = proxied();
    let mut client = proxy.client();
    // Sent before the other side has accepted.
    client.write_all(b"question").expect("it is taken");
    let (mut served, _) = target.accept().expect("the proxy connects");
    served.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    client.shutdown(Shutdown::Write).expect("the end is told");
    assert_eq!(rest_of(&mut served), b"question", "with the end behind it");
    served.write_all(b"answer, after the end of the question").expect("this way is still open");
    drop(served);
    assert_eq!(rest_of(&mut client), b"answer, after the end of the question");
}

#[test]
fn proxy_holds_a_bounded_number_of_bytes_and_loses_none() {
    let (proxy, target) = proxied();
    let mut client = proxy.client();
    let (mut served, _) = target.accept().expect("the proxy connects");
    client.set_write_timeout(Some(Duration::from_millis(500))).expect("a timeout can be set");
    let chunk: Vec<u8> = (0..251u8).cycle().take(251 << 8).collect();
    let mut taken = 0;
    // Nothing reads at the other end, so the proxy must stop reading, too.
    loop {
        let at = taken % chunk.len();
        match client.write(&chunk[at..]) {
            Ok(count) => taken += count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => panic!("{error}"),
        }
        assert!(taken < 64 << 20, "the proxy takes without end");
    }
    client.shutdown(Shutdown::Write).expect("the end is told");
    let arrived = rest_of(&mut served);
    assert_eq!(arrived.len(), taken);
    assert!(arrived.iter().zip(chunk.iter().cycle()).all(|(got, sent)| got == sent), "in their order");
}

#[test]
fn proxy_ends_the_client_when_the_target_refuses() {
    let (mut proxy, target) = proxied();
    drop(target);
    let mut client = proxy.client();
    let mut rest = Vec::new();
    // An end or a reset, because there was nothing to deliver.
    let _ = client.read_to_end(&mut rest);
    assert_eq!(rest, b"");
    let complaint = proxy.complaint();
    assert!(complaint.starts_with("proxy: target: ") && complaint.contains("refused"), "{complaint}");
}

#[test]
fn proxy_refuses_bad_input() {
    assert_refused("proxy", &["127.0.0.1:0"], "two addresses");
    assert_refused("proxy", &["nowhere", "127.0.0.1:1"], "nowhere");
    assert_refused("proxy", &["127.0.0.1:0", "nowhere"], "nowhere");
}

#[cfg(target_os = "linux")]
#[test]
fn timerfd_counts_both_timers_and_ends() {
    let output = output("timerfd", &["3"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    for name in ["ticker", "descriptor"] {
        // A busy machine may combine two ticks, but the last one is always printed.
        assert_eq!(said.matches(&format!("{name}: 3 of 3\n")).count(), 1, "{said}");
    }
    assert_refused("timerfd", &["0"], "`0`");
    assert_refused("timerfd", &["soon"], "`soon`");
}

#[test]
fn services_count_the_lines_of_files() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let lines = fs::read_to_string(manifest).expect("it is there").matches('\n').count();
    let good = output("services", &[manifest, manifest]);
    let said = String::from_utf8_lossy(&good.stdout).into_owned();
    let expected =
        format!("{lines:>8} {manifest}\n{lines:>8} {manifest}\nstopped: 2 services, 0 jobs still running\n");
    assert_eq!((good.status.code(), said), (Some(0), expected));

    let bad = output("services", &[manifest, "/nowhere"]);
    let complaint = String::from_utf8_lossy(&bad.stderr).into_owned();
    assert_eq!((bad.status.code(), complaint.lines().count()), (Some(1), 1), "{complaint}");
    assert!(complaint.starts_with("services: /nowhere: "), "{complaint}");
    assert_refused("services", &[], "at least one file");
}

#[test]
fn no_example_ignores_an_argument_too_many() {
    for name in ["broadcast", "daemon", "echo", "select", "udp_echo"] {
        for address in ["127.0.0.1:0", "[::1]:0", "/no/such/folder/a", "@a"] {
            let says = format!("`[{address}, more]` is not an address");
            assert_refused(name, &[address, "more"], &says);
        }
        assert_refused(name, &["127.0.0.1:0", "and", "more"], "and], more]` is not an address");
        assert_refused(name, &["127.0.0.1:0", ""], "`[127.0.0.1:0, ]` is not an address");
    }
    for (name, args, says) in [
        ("c10k", &["more"][..], "`more`"),
        ("chat", &["127.0.0.1:0", "5", "more"], "`5 more`"),
        ("chat", &["127.0.0.1:0", "5", ""], "`5 `"),
        ("proxy", &["127.0.0.1:0", "127.0.0.1:1", "more"], "two addresses"),
        ("serve_files", &["/tmp", "127.0.0.1:0", "more"], "usage"),
    ] {
        assert_refused(name, args, says);
    }
    #[cfg(target_os = "linux")]
    assert_refused("timerfd", &["3", "more"], "`3 more`");
}
