//! The `echo` example under a tool that observes it, and a client that drives connections in lockstep.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::foreign;

pub const CONNECTIONS: usize = 64;
const MESSAGE: usize = 32;
const PATIENCE: Duration = Duration::from_secs(60);

/// The example under a tool. Killed and reaped on drop.
pub struct Server {
    tool: Child,
    peers: Vec<TcpStream>,
}

impl Server {
    /// Starts the example. If the tool is not installed, prints the reason on standard error and returns
    /// `None`.
    pub fn start(tool: &str, args: &[&str], engine: Option<&str>) -> Option<Server> {
        let mut command = foreign::command(tool)?;
        if let Some(engine) = engine {
            command.env("REACTOR_ENGINE", engine);
        }
        command.args(args).arg(example()).arg("127.0.0.1:0").stdout(Stdio::piped()).stderr(Stdio::null());
        let mut tool = command.spawn().expect("the tool starts");
        let mut line = String::new();
        let stdout = tool.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("text");
        let address = line.trim().strip_prefix("listening on ").expect("the example says where").to_owned();
        let mut server = Server { tool, peers: Vec::new() };
        for _ in 0..CONNECTIONS {
            let peer = TcpStream::connect(&address).expect("it listens");
            peer.set_nodelay(true).expect("TCP");
            peer.set_read_timeout(Some(PATIENCE)).expect("a socket");
            server.peers.push(peer);
        }
        // Once each connection has had an answer, all are accepted.
        server.rounds(2, 1);
        Some(server)
    }

    /// Makes rounds of `depth` messages on each connection.
    pub fn rounds(&mut self, count: usize, depth: usize) {
        self.rounds_with(count, depth, false);
    }

    /// Makes rounds of a message on each connection. The example finds all messages of a round in one turn, because it
    /// is stopped meanwhile: so what it does depends on no other load of the machine. The tool must be its process.
    pub fn rounds_at_once(&mut self, count: usize) {
        self.rounds_with(count, 1, true);
    }

    fn rounds_with(&mut self, count: usize, depth: usize, at_once: bool) {
        for round in 0..count {
            let message = vec![round as u8; MESSAGE * depth];
            if at_once {
                self.kill(Signal::STOP);
                waitpid(Some(self.pid()), WaitOptions::UNTRACED).expect("a child that stops");
            }
            for peer in &mut self.peers {
                peer.write_all(&message).expect("there is room");
            }
            if at_once {
                self.kill(Signal::CONT);
            }
            for peer in &mut self.peers {
                let mut back = vec![0; message.len()];
                peer.read_exact(&mut back).expect("it comes back");
                assert_eq!(back, message);
            }
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.tool)
    }

    fn kill(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it runs");
    }

    /// Sends a word that can be found in a trace.
    pub fn mark(&mut self, word: &str) {
        self.peers[0].write_all(word.as_bytes()).expect("there is room");
        self.peers[0].read_exact(&mut vec![0; word.len()]).expect("it comes back");
    }

    /// Ends the example, so that the tool writes its results.
    pub fn end(mut self) {
        let pid = self.tool.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        // callgrind runs the example in its own process, strace in a child.
        let pid = children.split_whitespace().next().map_or(pid as i32, |pid| pid.parse().expect("a number"));
        kill_process(Pid::from_raw(pid).expect("a process"), Signal::TERM).expect("it runs");
        self.tool.wait().expect("it ends");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The process may already have exited, and nothing can be done about that.
        let _ = self.tool.kill();
        let _ = self.tool.wait();
    }
}

pub fn example() -> PathBuf {
    let mut path = env::current_exe().expect("a test knows its own path");
    path.pop();
    path.pop();
    path.push("examples/echo");
    assert!(path.exists(), "{} was not built: run `cargo build --example echo`", path.display());
    path
}

/// Returns the path of a file that nothing else uses.
pub fn temporary(name: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    env::temp_dir().join(format!("reactor-{}-{count}-{name}", std::process::id()))
}
