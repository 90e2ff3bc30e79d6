//! An example as a process of its own: started, talked to, and reaped.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::{
    env,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, ChildStdout, Command, Output, Stdio},
    time::Duration,
};

/// How long a test waits for what should come at once, before it fails instead of hanging.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn example(name: &str) -> Command {
    // Cargo puts the examples beside the folder of the tests: target/debug/{deps,examples}.
    let mut path: PathBuf = env::current_exe().expect("a test knows its own path");
    path.pop();
    path.pop();
    path.push("examples");
    path.push(name);
    assert!(path.exists(), "{} was not built: run `cargo build --examples`", path.display());
    Command::new(path)
}

pub fn output(name: &str, args: &[&str]) -> Output {
    example(name).args(args).stdin(Stdio::null()).output().expect("the example runs")
}

/// Bad input: exit code 2, and one line which names the program and what was wrong.
#[track_caller]
pub fn assert_refused(name: &str, args: &[&str], says: &str) {
    let output = output(name, args);
    let line = String::from_utf8_lossy(&output.stderr);
    let own: Vec<&str> = line.lines().filter(|line| line.starts_with(&format!("{name}: "))).collect();
    assert_eq!(output.status.code(), Some(2), "{name} {args:?}: {line}");
    assert_eq!(own.len(), 1, "{name} {args:?}: {line}");
    assert!(own[0].contains(says), "{name} {args:?} says {says:?}: {line}");
    assert!(output.stdout.is_empty(), "{name} {args:?}");
}

/// A running server example, killed and reaped when it is dropped.
pub struct Server {
    pub child: Child,
    pub address: SocketAddr,
    _stdout: BufReader<ChildStdout>,
}

impl Server {
    /// Starts it, and learns from its first line where it listens.
    pub fn start(name: &str, args: &[&str]) -> Server {
        let mut command = example(name);
        let mut child = command
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the example starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("stdout is text");
        let address = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{name}: {line:?}"));
        let address = address.parse().expect("an address with the port it got");
        Server { child, address, _stdout: stdout }
    }

    pub fn client(&self) -> TcpStream {
        let client = TcpStream::connect(self.address).expect("the example listens");
        client.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        client
    }

    /// The next line it says on stderr; waits for it.
    pub fn complaint(&mut self) -> String {
        let mut line = String::new();
        BufReader::new(self.child.stderr.as_mut().expect("stderr is piped"))
            .read_line(&mut line)
            .expect("text");
        line
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it is gone already, which the test has noticed by other means.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
