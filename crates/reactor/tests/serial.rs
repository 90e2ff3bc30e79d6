//! Serial ports on each engine, over pseudo-terminals: bytes, settings, limits and hang-ups.
#![allow(unsafe_code)]
#![cfg(all(target_os = "linux", feature = "serial"))]

mod common;
mod line;

use std::{fs::File, io::Write as _, os::fd::AsRawFd as _, path::PathBuf};

use common::{Engine, SHORT, for_each_engine, settle, until};
use line::{pair, taken};
use reactor::{
    Closed, Context, Flow, Handle, Id, Pollable as _, Result, Runtime, Service, ServiceId,
    serial::{FlowControl, Parity, Serial, SerialEvent, SerialOptions, StopBits},
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    termios::{ControlModes, InputModes, LocalModes, tcgetattr},
    time::Timespec,
};

/// Records all events.
#[derive(Default)]
struct Noting {
    bytes: Vec<u8>,
    drained: u32,
    closed: Vec<String>,
    errno: Option<i32>,
}

impl Service for Noting {}

impl Handle<Serial> for Noting {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Serial>, event: SerialEvent<'_>) -> Result {
        match event {
            SerialEvent::Received(bytes) => {
                assert!(!bytes.is_empty() && self.closed.is_empty());
                self.bytes.extend_from_slice(bytes);
            }
            SerialEvent::Drained => self.drained += 1,
            other => panic!("{other:?}"),
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<Serial>, _: Serial, why: Closed) {
        self.errno = why.io().and_then(std::io::Error::raw_os_error);
        self.closed.push(format!("{why:?}").split(['(', ' ']).next().expect("a word").to_owned());
    }
}

/// A runtime with a port, and the other side of its line.
struct Rig {
    runtime: Runtime,
    service: ServiceId<Noting>,
    id: Id<Serial>,
}

impl Rig {
    fn of(engine: Engine, port: Serial) -> Rig {
        let mut runtime = engine.runtime();
        let service = runtime.add(Noting::default()).expect("it starts");
        let id = runtime.with(service, |_, cx| cx.add(port).map_err(|rejected| rejected.error));
        Rig { id: id.expect("it lives").expect("the engine takes it"), runtime, service }
    }

    fn new(engine: Engine) -> (Rig, File) {
        Rig::with(engine, &SerialOptions::DEFAULT)
    }

    fn with(engine: Engine, options: &SerialOptions) -> (Rig, File) {
        let (near, device) = pair();
        (Rig::of(engine, Serial::open(device, options).expect("it is free")), near)
    }

    fn noted(&self) -> &Noting {
        self.runtime.service(self.service).expect("it lives")
    }

    fn send(&mut self, bytes: &[u8]) -> Flow {
        let id = self.id;
        self.runtime.with(self.service, |_, cx| cx.send(id, bytes)).expect("it lives")
    }

    fn until(&mut self, done: impl Fn(&Noting) -> bool) {
        let service = self.service;
        until(&mut self.runtime, |runtime| done(runtime.service(service).expect("it lives")));
    }

    fn rests(&mut self) {
        settle(&mut self.runtime);
        let turns = self.runtime.metrics().read().turns;
        self.runtime.turn(Some(SHORT)).expect("whole");
        self.runtime.turn(Some(SHORT)).expect("whole");
        assert_eq!(self.runtime.metrics().read().turns, turns + 2);
    }
}

#[test]
fn every_byte_passes_unchanged_in_both_directions() {
    for_each_engine(|engine| {
        let (mut rig, mut far) = Rig::new(engine);
        let all: Vec<u8> = (0..=255).collect();
        far.write_all(&all).expect("room");
        rig.until(|noted| noted.bytes.len() >= 256);
        assert_eq!(rig.noted().bytes, all);
        assert_eq!(rig.send(&all), Flow::Queued);
        let mut back = Vec::new();
        until(&mut rig.runtime, |_| {
            back.extend(taken(&far));
            back.len() >= 256
        });
        assert_eq!(back, all);
        rig.rests();
    });
}

#[test]
fn above_the_high_mark_the_sender_is_told_and_again_once_when_it_has_drained() {
    const HIGH: usize = 64 << 10;
    for_each_engine(|engine| {
        for (length, flow) in [(HIGH - 1, Flow::Queued), (HIGH, Flow::Queued), (HIGH + 1, Flow::High)] {
            let (mut rig, far) = Rig::new(engine);
            let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            assert_eq!(rig.send(&bytes), flow);
            settle(&mut rig.runtime);
            assert_eq!(rig.noted().drained, 0, "nobody has read yet");
            let mut back = Vec::new();
            until(&mut rig.runtime, |_| {
                back.extend(taken(&far));
                back.len() >= length
            });
            assert!(back == bytes, "{} of {length} bytes, in order", back.len());
            rig.rests();
            assert_eq!(rig.noted().drained, u32::from(flow == Flow::High));
        }
    });
}

#[test]
fn a_queue_without_a_reader_grows_to_its_cap_and_no_further() {
    const CAP: usize = 4 << 20;
    for_each_engine(|engine| {
        for (length, is_alive) in [(CAP - 1, true), (CAP, true), (CAP + 1, false)] {
            let (mut rig, _far) = Rig::new(engine);
            let flow = rig.send(&vec![b'x'; length]);
            assert_eq!(flow != Flow::Gone, is_alive, "{length}");
            settle(&mut rig.runtime);
            let expected: &[&str] = if is_alive { &[] } else { &["Overflow"] };
            assert_eq!(rig.noted().closed, expected);
        }
    });
}

#[test]
fn a_hang_up_ends_it_once_with_eio_on_either_side() {
    for_each_engine(|engine| {
        let (mut rig, far) = Rig::new(engine);
        settle(&mut rig.runtime);
        drop(far);
        rig.until(|noted| !noted.closed.is_empty());
        rig.rests();
        assert_eq!((rig.noted().closed.as_slice(), rig.noted().errno), (&["Failed".to_owned()][..], Some(5)));
        assert_eq!(rig.send(b"late"), Flow::Gone);

        let (near, device) = pair();
        let far = line::open(&device);
        let mut rig = Rig::of(engine, Serial::adopt(near));
        File::from(far).write_all(b"last words").expect("room");
        rig.until(|noted| !noted.closed.is_empty());
        rig.rests();
        assert_eq!(rig.noted().bytes, b"last words", "they come before the end");
        assert_eq!((rig.noted().closed.as_slice(), rig.noted().errno), (&["Failed".to_owned()][..], Some(5)));
    });
}

#[test]
fn a_hang_up_during_a_pause_does_not_spin_and_is_told_after_it() {
    for_each_engine(|engine| {
        let (near, device) = pair();
        let far = line::open(&device);
        let mut rig = Rig::of(engine, Serial::adopt(near));
        let id = rig.id;
        rig.runtime.with(rig.service, |_, cx| cx.pause(id));
        settle(&mut rig.runtime);
        drop(far);
        rig.rests();
        assert!(rig.noted().closed.is_empty());
        rig.runtime.with(rig.service, |_, cx| cx.resume(id));
        rig.until(|noted| noted.closed == ["Failed"]);
    });
}

#[test]
fn a_write_to_a_line_that_was_hung_up_ends_it_once() {
    for_each_engine(|engine| {
        let (mut rig, far) = Rig::new(engine);
        settle(&mut rig.runtime);
        drop(far);
        rig.send(b"into nothing");
        rig.until(|noted| !noted.closed.is_empty());
        rig.rests();
        assert_eq!((rig.noted().closed.as_slice(), rig.noted().errno), (&["Failed".to_owned()][..], Some(5)));
    });
}

#[test]
fn the_other_sides_stop_character_holds_the_output_back() {
    let options = SerialOptions::with(|options| options.flow_control = FlowControl::Software);
    for_each_engine(|engine| {
        let (mut rig, mut far) = Rig::with(engine, &options);
        far.write_all(b"\x13").expect("room");
        settle(&mut rig.runtime);
        rig.send(b"held back");
        settle(&mut rig.runtime);
        assert_eq!(taken(&far), b"");
        far.write_all(b"\x11").expect("room");
        let mut back = Vec::new();
        until(&mut rig.runtime, |_| {
            back.extend(taken(&far));
            back.len() >= 9
        });
        assert_eq!(back, b"held back");
        assert!(rig.noted().bytes.is_empty(), "these characters are no data");
    });
}

/// Returns the device's settings from the system.
fn settings(device: &PathBuf) -> rustix::termios::Termios {
    tcgetattr(line::open(device)).expect("a terminal")
}

#[test]
fn a_port_is_set_as_asked_for_when_opened_and_later() {
    let (_near, device) = pair();
    let options = SerialOptions::with(|options| {
        options.speed = 4_800;
        options.stop_bits = StopBits::Two;
        options.flow_control = FlowControl::Hardware;
        options.exclusive = false;
    });
    let mut port = Serial::open(&device, &options).expect("it is free");
    let set = settings(&device);
    assert_eq!((set.input_speed(), set.output_speed()), (4_800, 4_800));
    assert!(set.control_modes.contains(ControlModes::CSTOPB | ControlModes::CRTSCTS));
    assert!(!set.local_modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG));
    // This speed has no name in termios(3).
    let options = SerialOptions::with(|options| {
        options.speed = 74_880;
        options.flow_control = FlowControl::Software;
    });
    port.configure(&options).expect("it takes all of it");
    assert!(!settings(&device).control_modes.intersects(ControlModes::CSTOPB | ControlModes::CRTSCTS));
    assert!(settings(&device).input_modes.contains(InputModes::IXON | InputModes::IXOFF));
    assert_eq!(settings(&device).output_speed(), 74_880);
}

#[test]
fn a_setting_that_the_device_does_not_take_is_an_error() {
    let (_near, device) = pair();
    let even = SerialOptions::with(|options| options.parity = Parity::Even);
    let error = Serial::open(&device, &even).expect_err("a pseudo-terminal has no parity");
    assert!(error.to_string().starts_with(&format!("open {}: ", device.display())), "{error}");
}

#[test]
fn a_port_is_exclusive_if_that_is_wanted() {
    for exclusive in [true, false] {
        let (_near, device) = pair();
        let options = SerialOptions::with(|options| options.exclusive = exclusive);
        let _port = Serial::open(&device, &options).expect("it is free");
        // The kernel does not refuse the superuser, who may be running this. So check the flag itself.
        let mut is_exclusive = 0;
        let second = match File::open(&device) {
            Ok(second) => second,
            Err(error) if exclusive && error.raw_os_error() == Some(libc::EBUSY) => continue,
            Err(error) => panic!("{error}"),
        };
        // SAFETY: the pointer is to a live integer, which this request fills.
        let result = unsafe { libc::ioctl(second.as_raw_fd(), libc::TIOCGEXCL, &mut is_exclusive) };
        assert_eq!((result, is_exclusive != 0), (0, exclusive));
    }
}

#[test]
fn what_is_no_port_is_refused_with_its_path() {
    let error = Serial::open("/dev/nowhere", &SerialOptions::DEFAULT).expect_err("it is not there");
    assert!(error.to_string().starts_with("open /dev/nowhere: "), "{error}");
    let error = Serial::open("/dev/null", &SerialOptions::DEFAULT).expect_err("no terminal");
    assert_eq!(error.io().and_then(std::io::Error::raw_os_error), Some(libc::ENOTTY));
}

#[test]
fn lines_and_breaks_are_answered_by_the_device() {
    let (_near, device) = pair();
    let port = Serial::open(&device, &SerialOptions::DEFAULT).expect("it is free");
    // A pseudo-terminal has no modem lines. Its error shows that the request reached the device.
    for result in [port.modem_lines().map(drop), port.set_rts(true), port.set_dtr(false)] {
        assert!(result.expect_err("it has none").raw_os_error().is_some());
    }
    port.set_break(true).expect("it is taken, and means nothing here");
    port.set_break(false).expect("the same");
}

#[test]
fn what_arrived_can_be_thrown_away_before_it_is_read() {
    for_each_engine(|engine| {
        let (mut near, device) = pair();
        let port = Serial::open(&device, &SerialOptions::DEFAULT).expect("it is free");
        near.write_all(b"unread").expect("room");
        let descriptor = port.source().descriptor().expect("a device has one");
        let mut waited = [PollFd::from_borrowed_fd(descriptor, PollFlags::IN)];
        let patience = Timespec { tv_sec: 20, tv_nsec: 0 };
        assert_eq!(poll(&mut waited, Some(&patience)).expect("it waits"), 1, "it has arrived");
        port.discard_input().expect("a terminal");
        port.discard_output().expect("a terminal");
        let mut rig = Rig::of(engine, port);
        near.write_all(b"read").expect("room");
        rig.until(|noted| noted.bytes == b"read");
    });
}

#[test]
fn a_pair_is_connected_to_each_other() {
    for_each_engine(|engine| {
        let (one, other) = Serial::pair().expect("one is free");
        let (mut here, mut there) = (Rig::of(engine, one), Rig::of(engine, other));
        here.send(b"over the line");
        settle(&mut here.runtime);
        there.until(|noted| noted.bytes == b"over the line");
        there.send(b"and back");
        settle(&mut there.runtime);
        here.until(|noted| noted.bytes == b"and back");
    });
}
