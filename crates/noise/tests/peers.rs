//! Sessions with another implementation, the Python package `noiseprotocol`, in both roles.

use std::{
    env,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use reactor_noise::{IK, Keypair, NN, Noise, NoiseOptions, XK, XX};
use session::{Phase, kit::Peer};

/// How long a test waits for the peer, before it fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(30);

/// Returns the Python that has the package, or says that the test is skipped. `NOISE_PYTHON` names it.
fn python() -> Option<String> {
    let python = env::var("NOISE_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let check = Command::new(&python).args(["-c", "import noise.connection"]).stderr(Stdio::null()).status();
    if check.is_ok_and(|status| status.success()) {
        return Some(python);
    }
    let test = thread::current().name().unwrap_or_default().to_owned();
    let line = format!("SKIPPED: {test}: {python} has no package noiseprotocol\n");
    // One write, which the test harness does not hide.
    let _ = io::stderr().write_all(line.as_bytes());
    None
}

/// The peer's process, killed at the end.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has exited, as it should.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
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

/// Our end of a connection.
struct End {
    peer: Peer<Noise>,
    socket: TcpStream,
}

impl End {
    fn flush(&mut self) {
        let flight = self.peer.flight();
        self.socket.write_all(&flight).expect("there is room");
    }

    fn until(&mut self, what: &str, done: impl Fn(&Peer<Noise>) -> bool) {
        self.flush();
        let mut buffer = [0; 4096];
        while !done(&self.peer) {
            let count = read(&mut self.socket, &mut buffer).expect("in time");
            assert!(count > 0, "the peer ended before {what}: {:?}", self.peer.error());
            self.peer.feed(&buffer[..count]);
            assert!(self.peer.error().is_none(), "{what}: {:?}", self.peer.error());
            self.flush();
        }
    }
}

fn hex(key: &[u8; 32]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Talks to the peer. `initiates` says whether we begin.
fn talk(python: &str, protocol: &str, initiates: bool) {
    let (ours, theirs) = (Keypair::generate().expect("a key"), Keypair::generate().expect("a key"));
    let mut options = NoiseOptions::new(protocol).expect("it exists").prologue("a test");
    let mut keys = Vec::new();
    if protocol != NN {
        options = options.keypair(&ours);
        keys.push(hex(theirs.private()));
    }
    if protocol == XK || protocol == IK {
        // The side that begins knows the other's key.
        if initiates {
            options = options.remote(theirs.public());
        } else {
            keys.push(hex(ours.public()));
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("it is bound").port().to_string();
    let (layer, role) =
        if initiates { (options.initiator(), "responder") } else { (options.responder(), "initiator") };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/peer.py");
    let child = Command::new(python).args([script, &port, protocol, role]).args(&keys).spawn();
    let mut child = Process(child.expect("python runs"));
    let (socket, _) = listener.accept().expect("the peer connects");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");

    let mut end = End { peer: Peer::new(layer.expect("whole")), socket };
    end.until("the handshake", |peer| peer.session().phase() == Phase::Open);
    if protocol != NN {
        assert_eq!(end.peer.session().layer().remote_static(), Some(theirs.public()), "{protocol}");
    }
    // More than one message of the greatest length.
    let sent: Vec<u8> = (0..150_000_u32).map(|at| (at % 251) as u8).collect();
    end.peer.send(&sent);
    end.until("the answer", |peer| peer.received().len() == sent.len());
    assert!(end.peer.received() == sent, "{protocol}: the answer differs");
    end.peer.close();
    end.until("the end", |peer| peer.session().ended());
    assert!(child.0.wait().expect("it is ours").success(), "{protocol}");
}

#[test]
fn a_foreign_responder_understands_us() {
    let Some(python) = python() else { return };
    for protocol in [XK, XX, IK, NN, "Noise_XX_25519_AESGCM_SHA256"] {
        talk(&python, protocol, true);
    }
}

#[test]
fn a_foreign_initiator_understands_us() {
    let Some(python) = python() else { return };
    for protocol in [XK, XX, IK, NN, "Noise_XX_25519_AESGCM_SHA256"] {
        talk(&python, protocol, false);
    }
}
