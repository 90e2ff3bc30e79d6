//! The example `udp_echo` behaves as its header describes, with plain sockets and with common tools.
#![cfg(unix)]

mod foreign;
mod programs;
mod server;

use std::{
    env,
    io::{BufRead, BufReader, Write},
    net::UdpSocket,
    os::unix::net::UnixDatagram,
    process::Stdio,
};

use programs::{PATIENCE, assert_refused, output};
use server::Server;

fn echo(address: &str) -> Server {
    Server::start("udp_echo", &[address])
}

fn client(echo: &Server) -> UdpSocket {
    let client = UdpSocket::bind("127.0.0.1:0").expect("the loopback is there");
    client.connect(&echo.address).expect("it is connected");
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    client
}

#[test]
fn each_datagram_returns_whole_and_by_itself() {
    let echo = echo("127.0.0.1:0");
    let (one, other) = (client(&echo), client(&echo));
    let mut buffer = vec![0; 65_536];
    for length in [0, 1, 1_472, 1_473, 9_000, 65_507, 0, 3] {
        let sent: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        for client in [&one, &other] {
            client.send(&sent).expect("there is room");
            client.send(b"next").expect("there is room");
        }
        for client in [&one, &other] {
            let count = client.recv(&mut buffer).expect("it returns");
            assert!(buffer[..count] == sent, "{count} of {length} bytes");
            assert_eq!(client.recv(&mut buffer).expect("the next one"), 4);
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_client_that_has_gone_is_told_of_and_the_others_go_on() {
    use rustix::process::{Pid, Signal, kill_process};
    let mut echo = echo("127.0.0.1:0");
    let (gone, living) = (client(&echo), client(&echo));
    let name = gone.local_addr().expect("it is bound");
    // Stop the example until the client has gone, so that its answer finds no receiver.
    let pid = Pid::from_child(&echo.child);
    kill_process(pid, Signal::STOP).expect("it is ours");
    gone.send(b"first").expect("there is room");
    drop(gone);
    living.send(b"here").expect("there is room");
    kill_process(pid, Signal::CONT).expect("it is ours");
    let mut buffer = [0; 16];
    assert_eq!(living.recv(&mut buffer).expect("it returns"), 4);
    let line = echo.complaint();
    assert!(line.starts_with(&format!("udp_echo: to {name}: ")) && line.contains("refused"), "{line}");
}

#[test]
fn a_unix_socket_echoes_too() {
    let folder = env::temp_dir().join(format!("udp-echo-{}", std::process::id()));
    std::fs::create_dir(&folder).expect("a folder of our own");
    let path = folder.join("echo");
    let echo = echo(path.to_str().expect("text"));
    assert_eq!(echo.address, format!("unix:{}", path.display()));
    let client = UnixDatagram::bind(folder.join("client")).expect("it is bound");
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    client.connect(&path).expect("it is connected");
    let mut buffer = [0; 16];
    for sent in [&b"one"[..], b"", b"three"] {
        client.send(sent).expect("there is room");
        let count = client.recv(&mut buffer).expect("it returns");
        assert_eq!(&buffer[..count], sent);
    }
    drop(echo);
    std::fs::remove_dir_all(&folder).expect("it is ours");
}

#[test]
fn bad_input_is_one_line_and_exit_code_2() {
    for (address, says) in [("nowhere", "`nowhere` is not an address"), ("localhost:7", "not resolved")] {
        assert_refused("udp_echo", &[address], says);
    }
}

#[test]
fn an_address_in_use_is_one_line_that_names_it() {
    let echo = echo("127.0.0.1:0");
    let output = output("udp_echo", &[&echo.address]);
    let line = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), line.lines().count()), (Some(1), 1), "{line}");
    assert!(line.contains(&echo.address) && line.contains("in use"), "{line}");
}

/// Sends `line` to the echo through a tool, and keeps the tool's input open until the answer has arrived.
fn through(tool: &str, args: &[&str], line: &str) -> Option<String> {
    let mut command = foreign::command(tool)?;
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("the tool starts");
    let mut input = child.stdin.take().expect("stdin is piped");
    input.write_all(line.as_bytes()).expect("the tool reads");
    let mut answer = String::new();
    BufReader::new(child.stdout.take().expect("stdout is piped")).read_line(&mut answer).expect("text");
    drop(input);
    // The tool may wait for more input, although its answer is complete.
    let _ = child.kill();
    child.wait().expect("it is ours");
    Some(answer)
}

#[test]
fn nc_sees_its_line_again() {
    let echo = echo("127.0.0.1:0");
    let port = echo.port().to_string();
    if let Some(answer) = through("nc", &["-u", "127.0.0.1", &port], "typed into nc\n") {
        assert_eq!(answer, "typed into nc\n");
    }
}

#[test]
fn socat_sees_its_line_again() {
    let echo = echo("127.0.0.1:0");
    let target = format!("udp:{}", echo.address);
    if let Some(answer) = through("socat", &["-", &target], "typed into socat\n") {
        assert_eq!(answer, "typed into socat\n");
    }
}
