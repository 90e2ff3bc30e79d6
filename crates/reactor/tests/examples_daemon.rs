//! The example `daemon` under a supervisor in the test, and under systemd's tools if they are installed.
#![cfg(unix)]
#![allow(unsafe_code)]

mod foreign;

use std::{
    env, fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::{
        fd::AsRawFd,
        unix::{
            net::{UnixDatagram, UnixStream},
            process::CommandExt,
        },
    },
    path::PathBuf,
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// How long a test waits for an expected event, before it fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(30);

fn program() -> PathBuf {
    // Cargo puts the examples beside the folder of the tests: target/debug/{deps,examples}.
    let mut path: PathBuf = env::current_exe().expect("a test knows its own path");
    path.pop();
    path.pop();
    path.push("examples/daemon");
    assert!(path.exists(), "{} was not built: run `cargo build --examples`", path.display());
    path
}

/// A folder for one test, removed on drop.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = env::temp_dir().join(format!("reactor-daemon-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder for a socket");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running daemon. Killed and reaped on drop.
struct Daemon {
    child: Child,
    stdout: BufReader<Box<dyn Read>>,
}

impl Daemon {
    fn start(command: &mut Command) -> Daemon {
        Daemon::of(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts"))
    }

    fn of(mut child: Child) -> Daemon {
        let stdout: Box<dyn Read> = match child.stdout.take() {
            Some(stdout) => Box::new(stdout),
            None => Box::new(std::io::empty()),
        };
        Daemon { child, stdout: BufReader::new(stdout) }
    }

    /// Returns the next line of its output.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("text");
        line.trim_end().to_owned()
    }

    fn kill(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it lives");
    }

    fn ended(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            assert!(Instant::now() < end, "it did not end in {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both calls fail only if the process has already exited, which the test has noticed in other ways.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn receive(supervisor: &UnixDatagram) -> String {
    let mut buffer = [0; 4096];
    let count = loop {
        match supervisor.recv(&mut buffer) {
            // With a timeout, the kernel does not restart the call after a signal, for example when another
            // test's child exits.
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            result => break result.expect("a notice comes"),
        }
    };
    String::from_utf8(buffer[..count].to_vec()).expect("a notice is text")
}

/// Returns the next notice, other than the watchdog's.
fn notice(supervisor: &UnixDatagram) -> String {
    loop {
        match receive(supervisor) {
            text if text == "WATCHDOG=1\n" => continue,
            text => return text,
        }
    }
}

fn supervisor(folder: &Folder) -> (UnixDatagram, PathBuf) {
    let path = folder.0.join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    (socket, path)
}

fn echo(mut client: impl Read + Write) {
    client.write_all(b"hello\n").expect("it is taken");
    let mut line = String::new();
    BufReader::new(client).read_line(&mut line).expect("an answer");
    assert_eq!(line, "hello\n");
}

#[test]
fn a_supervisor_is_told_of_the_start_a_reload_and_the_stop() {
    let folder = Folder::new("notices");
    let (supervisor, path) = supervisor(&folder);
    let mut daemon = Daemon::start(
        Command::new(program()).arg("127.0.0.1:0").env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "20000"),
    );
    let address = daemon.line().strip_prefix("listening on ").expect("where it listens").to_owned();
    assert_eq!(receive(&supervisor), "WATCHDOG=1\n");
    assert_eq!(notice(&supervisor), "READY=1\nSTATUS=0 connected, 0 lines\n");

    let client = TcpStream::connect(&address).expect("it listens");
    assert_eq!(notice(&supervisor), "STATUS=1 connected, 0 lines\n");
    echo(&client);
    daemon.kill(Signal::HUP);
    let text = notice(&supervisor);
    let micros = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("it has its moment").trim();
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let now = now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000;
    let ago = now.checked_sub(micros.parse().expect("a number")).expect("it is of this clock, and past");
    assert!(ago < PATIENCE.as_micros() as u64, "{ago} us ago");
    assert_eq!(notice(&supervisor), "READY=1\nSTATUS=1 connected, 0 lines\n");

    // It keeps notifying the watchdog every 10 ms, which is half of the 20 ms.
    let fed = Instant::now();
    (0..10).for_each(|_| assert_eq!(receive(&supervisor), "WATCHDOG=1\n"));
    assert!(fed.elapsed() < PATIENCE);

    daemon.kill(Signal::TERM);
    assert_eq!(notice(&supervisor), "STOPPING=1\n");
    drop(client);
    assert_eq!(daemon.ended().code(), Some(0));
    assert_eq!(daemon.line(), "stopped, 0 cut");
}

#[test]
#[cfg(target_os = "linux")]
fn an_abstract_name_and_a_watchdog_of_another_process_are_understood() {
    use std::os::{linux::net::SocketAddrExt, unix::net::SocketAddr};
    let name = format!("reactor-daemon-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let supervisor = UnixDatagram::bind_addr(&address).expect("a socket");
    supervisor.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    let daemon = Daemon::start(
        Command::new(program())
            .arg("127.0.0.1:0")
            .env("NOTIFY_SOCKET", format!("@{name}"))
            .envs([("WATCHDOG_USEC", "20000"), ("WATCHDOG_PID", "1")]),
    );
    assert_eq!(receive(&supervisor), "READY=1\nSTATUS=0 connected, 0 lines\n", "no watchdog of ours");
    daemon.kill(Signal::INT);
    assert_eq!(receive(&supervisor), "STOPPING=1\n");
}

#[test]
fn an_answer_under_way_leaves_after_the_first_signal_and_the_second_cuts_it() {
    for is_patient in [true, false] {
        let mut daemon = Daemon::start(Command::new(program()).arg("127.0.0.1:0"));
        let address = daemon.line().strip_prefix("listening on ").expect("where it listens").to_owned();
        let mut client = TcpStream::connect(&address).expect("it listens");
        client.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        // It answers until the sockets are full, because the client does not read. It does not read the
        // lines after that.
        client.set_nonblocking(true).expect("it is a socket");
        let line = [b"x".repeat(4000), b"\n".to_vec()].concat();
        let (mut sent, mut at) = (0, Instant::now());
        while at.elapsed() < Duration::from_millis(200) {
            match client.write(&line[sent % line.len()..]) {
                Ok(count) => (sent, at) = (sent + count, Instant::now()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
        client.set_nonblocking(false).expect("it is a socket");
        daemon.kill(Signal::TERM);
        if is_patient {
            // Whole lines, as many as it had read, and then its end.
            client.shutdown(Shutdown::Write).expect("it is connected");
            let mut all = Vec::new();
            client.read_to_end(&mut all).expect("an orderly end");
            assert!(!all.is_empty() && all.chunks(line.len()).all(|answer| answer == line));
            assert_eq!(daemon.ended().code(), Some(0));
            assert_eq!(daemon.line(), "stopped, 0 cut");
        } else {
            // Send the second signal only after the first was handled, which shows by the closed listener.
            let end = Instant::now() + PATIENCE;
            while TcpStream::connect(&address).is_ok() {
                assert!(Instant::now() < end, "the listener is not closed");
            }
            daemon.kill(Signal::TERM);
            assert_eq!(daemon.ended().code(), Some(0));
            assert_eq!(daemon.line(), "stopped, 1 cut");
        }
    }
}

#[test]
fn a_socket_that_was_passed_is_taken_and_another_processs_is_not() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it has one").to_string();
    for (process, listens_on) in [("$$", Some(&address)), ("1", None)] {
        // The shell puts its own process id there, which is also that of the program.
        let script = format!("LISTEN_PID={process} LISTEN_FDS=1 LISTEN_FDNAMES=web exec \"$0\" 127.0.0.1:0");
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(script).arg(program());
        let number = listener.as_raw_fd();
        let pass = move || {
            // SAFETY: dup2 takes no pointer, and nothing in the new process owns the number that it
            // replaces.
            let copied = unsafe { libc::dup2(number, 3) };
            // SAFETY: fcntl with F_SETFD takes no pointer. The call is needed if the number was already 3.
            let kept = unsafe { libc::fcntl(3, libc::F_SETFD, 0) };
            if copied == 3 && kept == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        };
        // SAFETY: the calls between fork and exec are async-signal-safe.
        unsafe { shell.pre_exec(pass) };
        let mut daemon = Daemon::start(&mut shell);
        let line = daemon.line();
        let own = line.strip_prefix("listening on ").expect("where it listens");
        assert_eq!(own == address, listens_on.is_some(), "{own}");
        echo(TcpStream::connect(own).expect("it listens"));
        daemon.kill(Signal::TERM);
        assert_eq!(daemon.ended().code(), Some(0));
    }
}

#[test]
fn bad_input_is_refused_with_one_line_and_exit_code_2() {
    let refused = |command: &mut Command, says: &str| {
        let Output { status, stdout, stderr } = command.output().expect("it runs");
        let line = String::from_utf8(stderr).expect("text");
        assert_eq!((status.code(), line.lines().count()), (Some(2), 1), "{line}");
        assert!(line.starts_with("daemon: ") && line.contains(says), "{line}");
        assert!(stdout.is_empty());
    };
    refused(Command::new(program()).arg("nowhere"), "`nowhere` is not an address");
    refused(Command::new(program()).env("LISTEN_PID", "me"), "LISTEN_PID=me: it is not a number");
    let script = "LISTEN_PID=$$ LISTEN_FDS=1025 exec \"$0\"";
    refused(Command::new("/bin/sh").arg("-c").arg(script).arg(program()), "LISTEN_FDS=1025");
    let script = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" 3<&-";
    refused(
        Command::new("/bin/sh").arg("-c").arg(script).arg(program()),
        // By then, the process id is the program's own.
        "activation descriptors 3 to 3: descriptor 3 was not inherited",
    );
}

#[test]
fn a_supervisor_that_is_not_there_is_an_error() {
    for (socket, says) in
        [("/nowhere/at/all", "notify unix:/nowhere/at/all"), ("nonsense", "NOTIFY_SOCKET=nonsense")]
    {
        let mut command = Command::new(program());
        let output = command.arg("127.0.0.1:0").env("NOTIFY_SOCKET", socket).output().expect("it runs");
        let line = String::from_utf8(output.stderr).expect("text");
        assert_eq!((output.status.code(), line.lines().count()), (Some(1), 1), "{line}");
        assert!(line.contains(says), "{line}");
    }
}

#[test]
fn systemds_own_tool_activates_it() {
    let folder = Folder::new("activate");
    let path = folder.0.join("socket");
    let Some(mut tool) = foreign::command("systemd-socket-activate") else { return };
    tool.arg("-l").arg(&path).arg("--fdname=web").arg(program()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = Daemon::of(tool.spawn().expect("it starts"));
    // The tool reports on stderr when it listens.
    let mut said = BufReader::new(child.child.stderr.take().expect("stderr is piped"));
    let mut line = String::new();
    while !line.contains("Listening on") {
        line.clear();
        assert!(said.read_line(&mut line).expect("text") > 0, "it ended before it listened");
    }
    echo(UnixStream::connect(&path).expect("it listens"));
    child.kill(Signal::TERM);
    assert_eq!(child.ended().code(), Some(0));
}
