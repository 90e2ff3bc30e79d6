//! An example as a process. The tests wait for its lines, with a limit.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::{
    io::{BufRead as _, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, sync_channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::programs::PATIENCE;

/// A running example. Killed and reaped on drop.
pub struct Program {
    child: Child,
    output: Option<Lines>,
    complaints: Option<Lines>,
}

/// A thread that reads lines, because a read from a pipe has no timeout.
struct Lines {
    lines: Receiver<String>,
    thread: JoinHandle<()>,
}

impl Lines {
    fn of(from: impl Read + Send + 'static) -> Lines {
        let (sender, lines) = sync_channel(1024);
        let thread = thread::spawn(move || {
            for line in BufReader::new(from).lines() {
                // The test needs no more lines.
                let Ok(()) = sender.send(line.expect("text")) else { return };
            }
        });
        Lines { lines, thread }
    }

    #[track_caller]
    fn next(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line in time")
    }
}

impl Program {
    /// Starts it with both outputs connected to the test.
    pub fn start(command: Command) -> Program {
        Program::with_output(command, Stdio::piped())
    }

    /// Starts it with its standard output elsewhere.
    pub fn with_output(mut command: Command, output: impl Into<Stdio>) -> Program {
        let mut child = command.stdout(output).stderr(Stdio::piped()).spawn().expect("the example starts");
        let output = child.stdout.take().map(Lines::of);
        let complaints = child.stderr.take().map(Lines::of);
        Program { child, output, complaints }
    }

    /// Returns the next line of its standard output.
    #[track_caller]
    pub fn line(&mut self) -> String {
        self.output.as_ref().expect("it is read").next()
    }

    /// Returns the next line of its standard error.
    #[track_caller]
    pub fn complaint(&mut self) -> String {
        self.complaints.as_ref().expect("it is read").next()
    }

    /// Returns its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for it to exit.
    pub fn wait(&mut self) -> ExitStatus {
        self.wait_while(|| ())
    }

    /// Waits for it to exit, and performs an action repeatedly meanwhile.
    pub fn wait_while(&mut self, mut act: impl FnMut()) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            assert!(Instant::now() < end, "it did not end in {PATIENCE:?}");
            act();
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both calls fail only if the process has already exited, which the test has noticed in other ways.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for Lines { lines, thread } in [self.output.take(), self.complaints.take()].into_iter().flatten() {
            drop(lines);
            if thread.join().is_err() && !thread::panicking() {
                panic!("a reader of the program's output panicked");
            }
        }
    }
}
