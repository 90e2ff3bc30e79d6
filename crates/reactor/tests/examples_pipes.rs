//! The examples with standard streams and child processes behave as their headers describe, together with
//! programs of POSIX: the shell, cat, head.
#![cfg(unix)]
#![allow(unsafe_code)]

mod programs;

use std::{
    ffi::OsStr,
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::ffi::OsStrExt,
    path::PathBuf,
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc,
    thread,
    time::Instant,
};

use programs::{PATIENCE, assert_refused, assert_refused_raw, example};
use rustix::process::{Pid, Signal, kill_process};

/// Returns bytes that reveal lost, repeated or reordered ones.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect()
}

/// Runs a shell command in which `$PROGRAM` is the example. Returns its output and exit code, and fails
/// after a timeout.
fn shell(program: &str, script: &str) -> (String, Option<i32>) {
    let path = PathBuf::from(example(program).get_program());
    let limit = PATIENCE.as_secs().to_string();
    let mut command = Command::new("timeout");
    command.args([&limit, "/bin/sh", "-c", script]).env("PROGRAM", path).stdin(Stdio::null());
    let output = command.output().expect("there is a shell");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_ne!(
        output.status.code(),
        Some(124),
        "it hangs: {said} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    (said, output.status.code())
}

/// A running example with its three streams. Killed and reaped on drop.
struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
}

impl Running {
    fn start(command: &mut Command) -> Running {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the example starts");
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let stdout = BufReader::new(stdout.expect("it is piped"));
        Running { child, stdin, stdout, stderr: BufReader::new(stderr.expect("it is piped")) }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("text");
        line.trim_end().to_owned()
    }

    /// Returns the next line with this beginning.
    fn line_of(&mut self, beginning: &str) -> String {
        loop {
            let line = self.line();
            assert!(!line.is_empty(), "it ended before it said {beginning:?}");
            if line.starts_with(beginning) {
                return line;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Waits for its exit. Fails the test after a timeout.
    fn ended(&mut self) -> Option<i32> {
        let (done, over) = mpsc::channel();
        let pid = Pid::from_child(&self.child);
        let guard = thread::spawn(move || {
            if over.recv_timeout(PATIENCE).is_err() {
                // Then `wait` below reports a signal.
                let _ = kill_process(pid, Signal::KILL);
            }
        });
        let status = self.child.wait().expect("it is a child");
        let _ = done.send(());
        guard.join().expect("the guard does not panic");
        status.code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both calls fail only if the process has already exited, which the test has noticed in other ways.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn broadcast() -> (Running, String) {
    let mut running = Running::start(example("broadcast").arg("127.0.0.1:0"));
    let mut line = String::new();
    running.stderr.read_line(&mut line).expect("text");
    let address = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{line:?}")).to_owned();
    (running, address)
}

/// A client of the broadcast.
struct Guest(BufReader<TcpStream>);

impl Guest {
    fn come(address: &str) -> Guest {
        let stream = TcpStream::connect(address).expect("the program listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        Guest(BufReader::new(stream))
    }

    fn say(&self, line: &str) {
        writeln!(self.0.get_ref(), "{line}").expect("it is read");
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("text");
        line.trim_end().to_owned()
    }
}

#[test]
fn broadcast_passes_what_one_says_to_all_others() {
    let (mut program, address) = broadcast();
    let mut guests = Vec::new();
    for at in 0..2 {
        let guest = Guest::come(&address);
        // The program has received the line, so this client is connected and gets all later lines.
        guest.say(&format!("guest {at}"));
        assert_eq!(program.line(), format!("guest {at}"));
        guests.push(guest);
    }
    assert_eq!(guests[0].hear(), "guest 1", "and not what it said itself");
    writeln!(program.stdin.as_mut().expect("it is open"), "hello all").expect("it is read");
    for guest in &mut guests {
        assert_eq!(guest.hear(), "hello all");
    }
    program.stdin = None;
    for guest in &mut guests {
        let mut rest = String::new();
        guest.0.read_to_string(&mut rest).expect("an orderly end");
        assert_eq!(rest, "", "the end is passed on");
    }
    assert_eq!(program.ended(), Some(0));
}

#[test]
fn broadcast_serves_every_byte_of_its_input_to_a_slow_client() {
    let (mut program, address) = broadcast();
    let mut guest = Guest::come(&address);
    guest.say("here");
    assert_eq!(program.line(), "here");
    let bytes = pattern(8 << 20);
    let mut stdin = program.stdin.take().expect("it is open");
    let sent = bytes.clone();
    // More than all buffers and the cap of a queue, so the input has to wait for the client.
    let writer = thread::spawn(move || stdin.write_all(&sent));
    let mut got = vec![0; bytes.len()];
    guest.0.read_exact(&mut got).expect("all of it comes");
    assert!(got == bytes, "the same bytes come out");
    writer.join().expect("the writer does not panic").expect("all of it is read");
    drop(guest);
    assert_eq!(program.ended(), Some(0));
}

#[test]
fn broadcast_takes_a_file_and_nothing_as_input_and_ends_with_its_reader() {
    for script in [
        "$PROGRAM 127.0.0.1:0 </dev/null",
        "$PROGRAM 127.0.0.1:0 <$PROGRAM",
        "true | $PROGRAM 127.0.0.1:0",
        "cat $PROGRAM | $PROGRAM 127.0.0.1:0 >/dev/full",
        // Its input never ends, and its output has no reader. So it exits by itself, and not by a signal.
        "exit $({ yes | { $PROGRAM 127.0.0.1:0; echo $? >&3; } | true; } 3>&1)",
    ] {
        let (said, code) = shell("broadcast", &format!("{{ {script}; }} 2>/dev/null"));
        assert_eq!(code, Some(0), "{script}: {said}");
    }
}

#[test]
fn broadcast_leaves_the_open_file_that_others_share_as_it_was() {
    // The flags of the program's standard input and output, as the next user of them sees them.
    let script = "{ echo x; exec sleep 0.2; } | { $PROGRAM 127.0.0.1:0 2>/dev/null; exec 5<&0; \
                  cat /proc/self/fdinfo/5 /proc/self/fdinfo/1; }";
    let (said, _) = shell("broadcast", script);
    let flags: Vec<_> = said
        .lines()
        .filter_map(|line| i32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok())
        .collect();
    assert_eq!(flags.len(), 2, "{said}");
    assert!(flags.iter().all(|flags| flags & libc::O_NONBLOCK == 0), "{said}");
}

#[test]
fn an_address_that_is_no_text_is_refused_as_any_other() {
    let address = OsStr::from_bytes(b"\xff:1");
    for name in ["broadcast", "chat", "daemon", "echo", "select", "udp_echo"] {
        assert_refused_raw(name, &[address], "`\u{fffd}:1`");
    }
    assert_refused_raw("proxy", &[address, address], "`\u{fffd}:1`");
}

/// Returns whether a process has these arguments, each followed by a zero byte.
fn is_running(arguments: &[u8]) -> bool {
    let mut processes = std::fs::read_dir("/proc").expect("Linux has it").flatten();
    processes.any(|of| std::fs::read(of.path().join("cmdline")).is_ok_and(|all| all == arguments))
}

#[test]
fn broadcast_and_supervise_refuse_bad_input() {
    assert_refused("broadcast", &["nowhere"], "`nowhere` is not an address");
    assert_refused("supervise", &[], "a command is missing");
    assert_refused("supervise", &["true", "--"], "a command is missing");
    assert_refused("supervise", &["/no/such/program"], "/no/such/program: No such file");
    assert_refused("supervise", &["/etc/passwd"], "Permission denied");
    // The commands that had already started end with it.
    let (said, code) = shell("supervise", "$PROGRAM sleep 4711 -- /no/such 2>&1");
    assert_eq!((said.lines().count(), code), (1, Some(2)), "{said}");
    // The command was killed, but the kernel may need a moment to remove it.
    let end = Instant::now() + PATIENCE;
    while cfg!(target_os = "linux") && is_running(b"sleep\x004711\0") {
        assert!(Instant::now() < end, "it outlives the program that started it");
        thread::yield_now();
    }
}

#[test]
fn supervise_prefixes_each_line_and_begins_again_later_and_later() {
    let mut program =
        Running::start(example("supervise").args(["/bin/sh", "-c", "echo out; printf err >&2; exit 3"]));
    let mut pauses = Vec::new();
    let (mut outs, mut errors) = (0, 0);
    while pauses.len() < 3 {
        let line = program.line();
        let (who, what) = line.split_once(' ').expect("a prefix");
        match who.as_bytes() {
            b"supervise:" => {
                assert!(what.starts_with("sh: exit status: 3; again in "), "{line}");
                pauses.push(what.rsplit(' ').nth(1).and_then(|pause| pause.parse::<u64>().ok()));
            }
            [b's', b'h', b'[', .., b']', b':'] => outs += i32::from(what == "out"),
            [b's', b'h', b'[', .., b']', b'!'] => errors += i32::from(what == "err"),
            _ => panic!("{line}"),
        }
    }
    assert_eq!(pauses, [Some(100), Some(200), Some(400)]);
    assert!(outs >= 2 && errors >= 2, "{outs} lines and {errors} errors");
}

#[test]
fn supervise_passes_signals_on_and_ends_its_children_by_sigterm() {
    let script =
        "trap 'echo told' HUP; trap 'echo bye; exit 0' TERM; echo up; sleep 60 & while :; do wait; done";
    let mut program = Running::start(example("supervise").args(["/bin/sh", "-c", script]));
    let up = program.line_of("sh[");
    assert!(up.ends_with(": up"), "{up}");
    program.signal(Signal::HUP);
    assert!(program.line_of("sh[").ends_with(": told"));
    program.signal(Signal::TERM);
    assert!(program.line_of("sh[").ends_with(": bye"));
    assert_eq!(program.line_of("supervise:"), "supervise: sh: exit status: 0");
    assert_eq!(program.ended(), Some(0));
    let pid = up.trim_start_matches("sh[").split(']').next().expect("its number").to_owned();
    assert!(!PathBuf::from(format!("/proc/{pid}")).exists(), "no zombie is left");
}

#[test]
fn supervise_kills_who_does_not_end_at_the_second_signal() {
    let mut program =
        Running::start(example("supervise").args(["/bin/sh", "-c", "trap '' TERM; echo up; exec sleep 60"]));
    assert!(program.line().ends_with(": up"));
    program.signal(Signal::TERM);
    program.signal(Signal::INT);
    assert!(program.line_of("supervise:").contains("SIGKILL"));
    assert_eq!(program.ended(), Some(0));
}

#[cfg(target_os = "linux")]
#[test]
fn supervise_reaps_the_orphans_that_it_is_given() {
    use std::os::unix::process::CommandExt as _;
    let mut command = example("supervise");
    // Each is orphaned at once, and exits soon, because its input ends.
    let script = "for n in 1 2 3; do (/bin/sh -c 'echo orphan $$; read word' <&0 &); done; exec sleep 60";
    command.args(["/bin/sh", "-c", script]);
    let subreaper = || {
        // SAFETY: the call takes only numbers. The calls between fork and exec are async-signal-safe.
        match unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: as above.
    unsafe { command.pre_exec(subreaper) };
    let mut program = Running::start(&mut command);
    for _ in 0..3 {
        let line = program.line_of("sh[");
        let pid = line.rsplit(' ').next().expect("its number").to_owned();
        let end = Instant::now() + PATIENCE;
        while PathBuf::from(format!("/proc/{pid}")).exists() {
            assert!(Instant::now() < end, "{line}: it stays a zombie");
            thread::yield_now();
        }
    }
    program.signal(Signal::TERM);
    assert_eq!(program.ended(), Some(0));
}

#[test]
fn supervise_ends_cleanly_with_the_reader_of_its_output() {
    let script = "exec 4>&1; exit $({ { $PROGRAM yes; echo $? >&3; } | head -n 2 >&4; } 3>&1)";
    let (said, code) = shell("supervise", script);
    assert_eq!((said.lines().count(), code), (2, Some(0)), "{said}");
    assert!(said.lines().all(|line| line.starts_with("yes[") && line.ends_with("]: y")), "{said}");
}

#[test]
fn supervise_writes_to_a_file_to_its_last_byte() {
    let path = std::env::temp_dir().join(format!("supervise-{}", std::process::id()));
    let output = File::create(&path).expect("it can be made");
    let mut child = example("supervise")
        .args(["/bin/sh", "-c", "seq 1 20000; kill $PPID; sleep 60"])
        .stdout(output)
        .spawn()
        .expect("it starts");
    assert_eq!(child.wait().expect("a child").code(), Some(0));
    let said = std::fs::read_to_string(&path).expect("text");
    std::fs::remove_file(&path).expect("it is there");
    let numbers = said.lines().filter_map(|line| line.split_once("]: ")?.1.parse::<u32>().ok());
    assert!(numbers.eq(1..=20_000), "{} bytes", said.len());
}
