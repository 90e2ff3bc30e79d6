//! Terminals: raw mode and its end, input and output, and a process in the background. A pseudo-terminal
//! takes the place of the screen. If the end of a process matters, this binary starts itself.
#![cfg(target_os = "linux")]
#![allow(unsafe_code)]

mod common;

use std::{
    fs::File,
    io::{self, BufRead, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Child, Command, Stdio},
    time::Instant,
};

use common::{LONG, Probe, Seen, for_each_engine, until};
use reactor::{
    Bytes, Id, Runtime, ServiceId, Stream,
    engine::Candidates,
    stdio::{self, Raw},
    terminal,
};

/// Names the part for this binary when it runs itself.
const PART_VARIABLE: &str = "TERMINAL_TEST_PART";

/// Returns the two sides of a pseudo-terminal: the screen's and the program's.
fn terminal() -> (File, OwnedFd) {
    let (mut screen, mut program) = (-1, -1);
    let (name, attributes, size) = (std::ptr::null_mut(), std::ptr::null(), std::ptr::null());
    // SAFETY: the first two pointers are to live numbers that the call fills. The others may be null.
    let result = unsafe { libc::openpty(&mut screen, &mut program, name, attributes, size) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    // SAFETY: the call has just created both descriptors, so nothing else owns them.
    let (screen, program) = unsafe { (OwnedFd::from_raw_fd(screen), OwnedFd::from_raw_fd(program)) };
    for descriptor in [&screen, &program] {
        // SAFETY: the descriptor is open, and the command takes a number.
        unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    (screen.into(), program)
}

fn attributes(of: impl AsFd) -> libc::termios {
    // SAFETY: all zeros is a valid termios.
    let mut attributes: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live value of the type that the call fills.
    let result = unsafe { libc::tcgetattr(of.as_fd().as_raw_fd(), &mut attributes) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    attributes
}

/// Returns the comparable part of the settings.
fn flags(of: impl AsFd) -> [libc::tcflag_t; 4] {
    let libc::termios { c_iflag, c_oflag, c_cflag, c_lflag, .. } = attributes(of);
    [c_iflag, c_oflag, c_cflag, c_lflag]
}

fn is_raw(terminal: impl AsFd) -> bool {
    attributes(terminal).c_lflag & (libc::ICANON | libc::ECHO | libc::ISIG) == 0
}

/// Makes a command that runs this binary as one part, on a terminal.
fn play(part: &str, terminal: BorrowedFd<'_>) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a test knows its own path"));
    command.args(["--exact", "plays_a_part", "--ignored", "--nocapture"]).env(PART_VARIABLE, part);
    let stdio = || Stdio::from(terminal.try_clone_to_owned().expect("a second handle"));
    command.stdin(stdio()).stdout(stdio()).stderr(Stdio::inherit());
    command
}

/// Waits for a child to exit. Fails the test after a timeout.
fn ended(mut child: Child) -> std::process::ExitStatus {
    let end = Instant::now() + LONG;
    loop {
        if let Some(status) = child.try_wait().expect("it is a child") {
            return status;
        }
        if Instant::now() > end {
            let state = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
            let _ = child.kill();
            let _ = child.wait();
            panic!("it did not end in {LONG:?}: {}", state.lines().nth(2).unwrap_or_default());
        }
        std::thread::yield_now();
    }
}

/// Reads the screen until it has shown a text. Reads nothing after it, because that is for the next call.
fn shown(screen: &mut File, text: &str) -> String {
    let mut all = String::new();
    let mut buffer = [0; 1];
    while !all.contains(text) {
        let mut waited = [libc::pollfd { fd: screen.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
        // SAFETY: the pointer is to one live entry.
        let count = unsafe { libc::poll(waited.as_mut_ptr(), 1, LONG.as_millis() as i32) };
        assert_eq!(count, 1, "{text:?} was not shown in {LONG:?}, but {all:?}");
        let count = screen.read(&mut buffer).expect("the terminal is there");
        all.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    all
}

#[test]
fn a_terminal_is_raw_while_its_guard_lives() {
    let (_screen, program) = terminal();
    let before = flags(&program);
    let raw = Raw::enter(&program).expect("it is a terminal");
    assert!(is_raw(&program));
    // A second guard restores the settings that it found, whichever guard goes first.
    let second = Raw::enter(&program).expect("it is a terminal");
    drop(second);
    assert!(is_raw(&program));
    raw.leave().expect("it is restored");
    assert_eq!(flags(&program), before);
    let caught = std::panic::catch_unwind(|| {
        let _raw = Raw::enter(&program).expect("it is a terminal");
        assert!(is_raw(&program));
        panic!("in raw mode");
    });
    assert!(caught.is_err());
    assert_eq!(flags(&program), before);
    let error = Raw::enter(File::open("/dev/null").expect("it opens")).expect_err("no terminal");
    assert_eq!(error.raw_os_error(), Some(libc::ENOTTY));
}

#[test]
fn a_terminal_is_restored_however_the_process_ends() {
    let (mut screen, program) = terminal();
    let before = flags(&program);
    for (part, code) in [("exits", Some(7)), ("panics", Some(101)), ("panics in a handler", Some(0))] {
        let child = play(part, program.as_fd()).spawn().expect("it starts");
        shown(&mut screen, "raw");
        // The program waits for a key, so that the test can see the raw mode.
        assert!(is_raw(&program), "{part}");
        screen.write_all(b"x").expect("it is read");
        let status = ended(child);
        assert_eq!(status.code(), code, "{part}");
        assert_eq!(flags(&program), before, "{part}");
    }
}

#[test]
fn a_terminal_gives_lines_and_takes_output_on_each_engine() {
    for_each_engine(|engine| {
        let (mut screen, program) = terminal();
        let mut runtime = engine.runtime();
        let probe = runtime.add(Probe::<Bytes>::quiet()).expect("it starts");
        let input = stdio::input_from(program.as_fd()).expect("it is a terminal");
        let output = stdio::output_to(program.as_fd()).expect("it is a terminal");
        let (input, output) = runtime
            .with(probe, |_, cx| {
                (cx.add(Stream::new(Bytes).through(input)), cx.add(Stream::new(Bytes).through(output)))
            })
            .expect("it lives");
        let (input, output) = (input.expect("it is added"), output.expect("it is added"));
        // Three lines arrive at once. One read returns one line, although others wait.
        screen.write_all(b"one\ntwo\nthree\n").expect("it is a terminal");
        let got = |runtime: &mut Runtime| {
            let seen = &runtime.service(probe).expect("it lives").seen;
            let of_input = seen.iter().filter(|(id, _)| *id == input);
            let bytes = of_input
                .filter_map(|(_, seen)| if let Seen::Got(bytes) = seen { Some(&bytes[..]) } else { None });
            bytes.collect::<Vec<_>>().concat()
        };
        until(&mut runtime, |runtime| got(runtime) == b"one\ntwo\nthree\n");
        runtime.with(probe, |_, cx| cx.send(output, b"said")).expect("it lives");
        until(&mut runtime, |runtime| {
            runtime.with(probe, |_, cx| cx.get(output).map(Stream::unsent)) == Some(Some(0))
        });
        shown(&mut screen, "said");
        // Closing the screen is the end of the input, and no failure.
        drop(screen);
        until(&mut runtime, |runtime| {
            let seen = &runtime.service(probe).expect("it lives").seen;
            seen.contains(&(input, Seen::closed("End")))
                && seen.iter().any(|(id, seen)| *id == output && matches!(seen, Seen::Closed(_)))
        });
    });
}

#[test]
fn a_process_in_the_background_of_its_terminal_is_not_stopped_and_reads_on_in_the_foreground() {
    let (mut screen, program) = terminal();
    // With this flag, output from the background stops a process, too.
    let mut flags = attributes(&program);
    flags.c_lflag |= libc::TOSTOP;
    // SAFETY: the pointer is to a live value that tcgetattr has filled.
    assert_eq!(unsafe { libc::tcsetattr(program.as_raw_fd(), libc::TCSANOW, &flags) }, 0);
    let mut leader = play("leads", program.as_fd());
    // SAFETY: both calls are allowed between fork and exec, and descriptor 0 is the terminal by then.
    unsafe {
        leader.pre_exec(|| match libc::setsid() >= 0 && libc::ioctl(0, libc::TIOCSCTTY, 0) == 0 {
            true => Ok(()),
            false => Err(io::Error::last_os_error()),
        });
    }
    let leader = leader.spawn().expect("it starts");
    for (number, engine) in Candidates::default().names().enumerate() {
        shown(&mut screen, &format!("{engine} is in the background"));
        if number == 0 {
            screen.write_all(b"for the foreground\n").expect("it is a terminal");
        }
        shown(&mut screen, &format!("{engine}: input ended: EIO; the loop goes on"));
    }
    // No typed input is lost. It arrives once the leader has put the program in the foreground.
    shown(&mut screen, "read in the foreground");
    assert_eq!(ended(leader).code(), Some(0));
}

#[test]
#[ignore = "run by the other tests, as a process of its own"]
fn plays_a_part() {
    // As one of the ignored tests it runs without a part.
    let Ok(part) = std::env::var(PART_VARIABLE) else { return eprintln!("no part to play") };
    match &*part {
        "exits" => {
            let _raw = raw_until_a_key();
            std::process::exit(7)
        }
        "panics" => {
            let _raw = raw_until_a_key();
            panic!("in raw mode")
        }
        "panics in a handler" => {
            let raw = raw_until_a_key();
            let mut runtime = Runtime::new().expect("an engine opens");
            let service = runtime.add(Probe::<Bytes>::quiet()).expect("it starts");
            runtime.with(service, |_, _| {
                let _kept = raw;
                panic!("in raw mode")
            });
            assert!(!is_raw(io::stdin()), "the loop goes on without it");
            std::process::exit(0)
        }
        "leads" => {
            // The harness of this binary writes to standard output itself, and that would stop the process.
            let mut child = play("reads in the background", io::stdin().as_fd());
            let mut child = child.stdout(Stdio::piped()).process_group(0).spawn().expect("it starts");
            assert!(terminal::is_foreground(io::stdin()).expect("it is our terminal"));
            let lines = io::BufReader::new(child.stdout.take().expect("it is piped")).lines();
            lines.map_while(Result::ok).find(|line| line.ends_with(REFUSED)).expect("it says so");
            let group = libc::pid_t::try_from(child.id()).expect("a process");
            // SAFETY: the call takes no pointer.
            assert_eq!(unsafe { libc::tcsetpgrp(0, group) }, 0);
            std::process::exit(ended(child).code().unwrap_or(1))
        }
        _ => read_in_the_background(),
    }
}

fn raw_until_a_key() -> Raw {
    let raw = Raw::enter(io::stdin()).expect("it is a terminal");
    println!("raw");
    io::stdin().read_exact(&mut [0]).expect("a key");
    raw
}

fn read_in_the_background() -> ! {
    let is_foreground = || terminal::is_foreground(io::stdin()).expect("it is our terminal");
    assert!(!is_foreground(), "the leader's group is");
    // Input that one engine is refused remains for the next.
    for name in Candidates::default().names() {
        let mut typist = Typist::new(name);
        typist.say(&format!("{name} is in the background"));
        let input = typist.read();
        let probe = typist.probe;
        let why = |runtime: &Runtime| {
            let closed = &runtime.service(probe).expect("it lives").closed;
            let why = closed.iter().find(|(id, ..)| *id == input).map(|(.., why)| why);
            why.map(|why| why.io().and_then(io::Error::raw_os_error))
        };
        until(&mut typist.runtime, |runtime| why(runtime).is_some());
        assert_eq!(why(&typist.runtime), Some(Some(libc::EIO)));
        typist.say(&format!("{name}: input ended: EIO; the loop goes on"));
    }
    println!("{REFUSED}");
    let mut typist = Typist::new("poll");
    until(&mut typist.runtime, |_| is_foreground());
    let (input, probe) = (typist.read(), typist.probe);
    until(&mut typist.runtime, |runtime| {
        let seen = &runtime.service(probe).expect("it lives").seen;
        seen.contains(&(input, Seen::got("for the foreground\n")))
    });
    typist.say("read in the foreground");
    std::process::exit(0)
}

/// A runtime with the terminal's input and output.
struct Typist {
    runtime: Runtime,
    probe: ServiceId<Probe<Bytes>>,
    output: Id<Stream>,
}

impl Typist {
    fn new(engine: &'static str) -> Typist {
        let mut runtime = common::Engine(engine).runtime();
        let probe = runtime.add(Probe::<Bytes>::quiet()).expect("it starts");
        let output = stdio::output_to(io::stdin().as_fd()).expect("it is a terminal");
        let output = runtime.with(probe, |_, cx| cx.add(Stream::new(Bytes).through(output)));
        let output = output.expect("it lives").map_err(|rejected| rejected.error).expect("it is watched");
        Typist { runtime, probe, output }
    }

    fn read(&mut self) -> Id<Stream> {
        let input = self.runtime.with(self.probe, |_, cx| {
            let input = Stream::new(Bytes).through(cx.stdin()?);
            cx.add(input).map_err(|rejected| rejected.error)
        });
        input.expect("it lives").expect("it is a terminal")
    }

    fn say(&mut self, text: &str) {
        let (probe, output) = (self.probe, self.output);
        self.runtime.with(probe, |_, cx| cx.send(output, text.as_bytes())).expect("it lives");
        until(&mut self.runtime, |runtime| {
            runtime.with(probe, |_, cx| cx.get(output).map(Stream::unsent)) == Some(Some(0))
        });
    }
}

/// The message of the program in the background to its leader.
const REFUSED: &str = "the terminal was refused";
