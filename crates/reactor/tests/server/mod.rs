//! An example server as its own process: starts it, connects to it, and reaps it.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::{
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpStream},
    process::{Child, ChildStdout, Stdio},
};

use crate::programs::{PATIENCE, example};

/// A running server example. Killed and reaped on drop.
pub struct Server {
    pub child: Child,
    /// The address from its first line.
    pub address: String,
    _stdout: BufReader<ChildStdout>,
}

impl Server {
    /// Starts it, and reads its address from its first line.
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
        Server { child, address: address.to_owned(), _stdout: stdout }
    }

    /// Returns its port.
    pub fn port(&self) -> u16 {
        self.address.parse::<SocketAddr>().expect("an IP address").port()
    }

    pub fn client(&self) -> TcpStream {
        let client = TcpStream::connect(&self.address).expect("the example listens");
        client.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        client
    }

    /// Waits for the next line of its standard error, and returns it.
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
        // Both calls fail only if the process has already exited, which the test has noticed in other ways.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
