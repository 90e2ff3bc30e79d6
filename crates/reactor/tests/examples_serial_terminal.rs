//! The example `serial_terminal` between two pseudo-terminals: one for the keyboard, one as the device.
#![cfg(all(target_os = "linux", feature = "serial"))]

mod line;
mod program;
mod programs;

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Instant,
};

use line::{cooked_pair, pair, taken};
use program::Program;
use programs::{PATIENCE, example};
use rustix::{
    event::{PollFd, PollFlags, poll},
    termios::{Termios, tcgetattr},
    time::Timespec,
};

/// The example, the user's side of its terminal, and the far side of the device.
struct Rig {
    program: Program,
    keys: File,
    device: File,
    terminal: PathBuf,
}

impl Rig {
    fn new(args: &[&str]) -> Rig {
        let (keys, terminal) = cooked_pair();
        let (device, name) = pair();
        let mut command = example("serial_terminal");
        command.arg(&name).args(args).stdin(Stdio::from(line::open(&terminal)));
        let mut program = Program::with_output(command, line::open(&terminal));
        let greeting = program.complaint();
        assert!(greeting.starts_with(&format!("{}, ", name.display())), "{greeting}");
        Rig { program, keys, device, terminal }
    }
}

/// Waits for this many bytes, and returns them.
fn bytes(from: &File, count: usize) -> Vec<u8> {
    let (mut bytes, end) = (Vec::new(), Instant::now() + PATIENCE);
    while bytes.len() < count {
        assert!(Instant::now() < end, "only {} of {count} bytes came", bytes.len());
        let patience = Timespec { tv_sec: 1, tv_nsec: 0 };
        poll(&mut [PollFd::new(from, PollFlags::IN)], Some(&patience)).expect("it waits");
        bytes.extend(taken(from));
    }
    bytes
}

/// Returns the settings, as `stty -a` would show them.
fn settings(terminal: &Path) -> String {
    let Termios { input_modes, output_modes, local_modes, control_modes, .. } =
        tcgetattr(line::open(&terminal.to_owned())).expect("a terminal");
    format!("{input_modes:?} {output_modes:?} {local_modes:?} {control_modes:?}")
}

#[test]
fn keys_reach_the_device_and_its_answers_the_screen_byte_by_byte() {
    let mut rig = Rig::new(&[]);
    let keys: Vec<u8> = (0..=255).filter(|byte| *byte != 0x1d).collect();
    rig.keys.write_all(&keys).expect("room");
    assert_eq!(bytes(&rig.device, keys.len()), keys, "Ctrl-C, Ctrl-D and Ctrl-Z are bytes here");
    let answer: Vec<u8> = (0..=255).collect();
    rig.device.write_all(&answer).expect("room");
    assert_eq!(bytes(&rig.keys, answer.len()), answer);
    rig.keys.write_all(b"bye\x1dnot this").expect("room");
    assert_eq!(rig.program.wait().code(), Some(0));
    assert_eq!(taken_at_end(&rig.device), b"bye");
}

/// Returns the bytes that arrived before the other side closed.
fn taken_at_end(mut from: &File) -> Vec<u8> {
    let (mut all, mut part) = (Vec::new(), [0; 64]);
    // The near side gets EIO once the far one is closed.
    while let Ok(count) = std::io::Read::read(&mut from, &mut part) {
        all.extend_from_slice(&part[..count]);
    }
    all
}

#[test]
fn the_terminal_is_as_before_when_it_was_left_and_when_the_device_hung_up() {
    for is_left in [true, false] {
        let (keys, terminal) = cooked_pair();
        let before = settings(&terminal);
        drop(keys);
        let mut rig = Rig::new(&["9600"]);
        let raw = settings(&rig.terminal);
        assert!(before != raw, "{before}; {raw}");
        if is_left {
            rig.keys.write_all(b"\x1d").expect("room");
            assert_eq!(rig.program.wait().code(), Some(0));
        } else {
            drop(rig.device);
            assert!(rig.program.complaint().ends_with(": it hung up"));
            assert_eq!(rig.program.wait().code(), Some(1));
        }
        assert_eq!(settings(&rig.terminal), before);
    }
}

#[test]
fn a_signal_ends_it_in_order() {
    let mut rig = Rig::new(&[]);
    let raw = settings(&rig.terminal);
    let process = rustix::process::Pid::from_raw(rig.program.id() as i32).expect("a process");
    rustix::process::kill_process(process, rustix::process::Signal::TERM).expect("it runs");
    assert_eq!(rig.program.wait().code(), Some(0));
    assert_ne!(settings(&rig.terminal), raw);
}

#[test]
fn it_ends_with_its_terminal() {
    let mut rig = Rig::new(&[]);
    drop(rig.keys);
    assert_eq!(rig.program.wait().code(), Some(0));
}

#[test]
fn a_slow_device_lets_the_keys_rest_and_nothing_is_lost() {
    let mut rig = Rig::new(&[]);
    let pasted: Vec<u8> = (0..1 << 20).map(|at| b'a' + (at % 26) as u8).collect();
    let (mut sent, end) = (0, Instant::now() + PATIENCE);
    // Nothing reads at the device, so write to the terminal until it stays full for a while.
    loop {
        assert!(Instant::now() < end && sent < pasted.len(), "it takes without end");
        match rig.keys.write(&pasted[sent..]) {
            Ok(count) => sent += count,
            Err(_) => {
                let patience = Timespec { tv_sec: 0, tv_nsec: 300_000_000 };
                let mut room = [PollFd::new(&rig.keys, PollFlags::OUT)];
                if poll(&mut room, Some(&patience)).expect("it waits") == 0 {
                    break;
                }
            }
        }
    }
    assert_eq!(bytes(&rig.device, sent), pasted[..sent]);
    rig.keys.write_all(b"awake").expect("room again");
    assert_eq!(bytes(&rig.device, 5), b"awake");
    rig.keys.write_all(b"\x1d").expect("room");
    assert_eq!(rig.program.wait().code(), Some(0));
}

#[test]
fn it_refuses_bad_input() {
    let (_keys, terminal) = cooked_pair();
    let refused = |args: &[&str], stdin: Stdio, says: &str| {
        let output = example("serial_terminal").args(args).stdin(stdin).output().expect("it runs");
        let line = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), line.lines().count()), (Some(2), 1), "{line}");
        assert!(line.starts_with("serial_terminal: ") && line.contains(says), "{line}");
        assert!(output.stdout.is_empty());
    };
    let on_terminal = || Stdio::from(line::open(&terminal));
    refused(&[], on_terminal(), "a device is needed");
    refused(&["a", "1", "b"], on_terminal(), "a device is needed");
    refused(&["/dev/null", "fast"], on_terminal(), "`fast` is not a speed");
    refused(&["/dev/null", "0"], on_terminal(), "`0` is not a speed");
    refused(&["/dev/null"], on_terminal(), "open /dev/null: ");
    refused(&["/dev/nowhere"], on_terminal(), "open /dev/nowhere: ");
    refused(&["/dev/null"], Stdio::null(), "no terminal");
}
