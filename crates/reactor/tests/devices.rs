//! Devices without their own resource: any descriptor, by readiness. Also the size of a terminal.
#![cfg(target_os = "linux")]

mod common;
mod line;

use std::{
    fs::File,
    io::{Read as _, Write as _},
};

use common::{SHORT, for_each_engine, settle, until};
use line::pair;
use reactor::{
    Closed, Context, Fd, Handle, Id, Interest, Ready, Result, Service,
    signals::{Arrived, Signal, Signals},
    terminal::{Size, size},
};
use rustix::{
    process::{getpid, kill_process},
    termios::{Winsize, tcsetwinsize},
};

/// Reads records of a device in whole pieces of one size, as of evdev.
#[derive(Default)]
struct Reader {
    records: Vec<[u8; 24]>,
    told: u32,
    closed: Vec<String>,
}

impl Service for Reader {}

impl Handle<Fd<File>> for Reader {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Fd<File>>, _: Ready) -> Result {
        self.told += 1;
        let Some(device) = cx.get_mut(id) else { return Ok(()) };
        let mut record = [0; 24];
        // An unplugged device returns EIO or ENODEV, and that ends the resource here.
        device.read_exact(&mut record)?;
        self.records.push(record);
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<Fd<File>>, _: Fd<File>, why: Closed) {
        self.closed.push(why.to_string());
    }
}

#[test]
fn a_device_is_read_record_by_record_and_its_hang_up_is_one_end() {
    for_each_engine(|engine| {
        let mut runtime = engine.runtime();
        let service = runtime.add(Reader::default()).expect("it starts");
        let (near, device) = pair();
        let mut far = File::from(line::open(&device));
        let added = runtime.with(service, |_, cx| cx.add(Fd::new(near, Interest::Read)).map(drop));
        added.expect("it lives").expect("the engine takes it");
        for number in 1..=3 {
            far.write_all(&[number; 24]).expect("room");
        }
        until(&mut runtime, |runtime| runtime.service(service).expect("it lives").records.len() == 3);
        settle(&mut runtime);
        let told = runtime.service(service).expect("it lives").told;
        assert_eq!(told, 3, "once for each, since each was read");
        drop(far);
        until(&mut runtime, |runtime| !runtime.service(service).expect("it lives").closed.is_empty());
        settle(&mut runtime);
        let turns = runtime.metrics().read().turns;
        runtime.turn(Some(SHORT)).expect("whole");
        assert_eq!(runtime.metrics().read().turns, turns + 1, "it rests");
        let reader = runtime.service(service).expect("it lives");
        assert_eq!(reader.records, [[1; 24], [2; 24], [3; 24]]);
        assert_eq!((reader.told, reader.closed.len()), (4, 1), "{:?}", reader.closed);
        assert!(reader.closed[0].contains("os error 5"), "{:?}", reader.closed);
    });
}

#[test]
fn a_device_that_always_has_something_does_not_shut_others_out() {
    for_each_engine(|engine| {
        let mut runtime = engine.runtime();
        let service = runtime.add(Reader::default()).expect("it starts");
        let (near, device) = pair();
        let mut far = File::from(line::open(&device));
        let chance = File::open("/dev/urandom").expect("Linux has it");
        let ids = runtime.with(service, |_, cx| -> Result<_> {
            Ok((cx.add(Fd::new(chance, Interest::Read)), cx.add(Fd::new(near, Interest::Read))?))
        });
        let (chance, _) = ids.expect("it lives").expect("the engine takes a terminal");
        // epoll refuses a file that it cannot wait for, while other engines report it as always ready. Both
        // are right.
        match &chance {
            Ok(_) => (),
            Err(rejected) => {
                let number = rejected.error.io().and_then(std::io::Error::raw_os_error);
                assert_eq!(number, Some(libc::EPERM), "{}", rejected.error);
            }
        }
        far.write_all(&[7; 24]).expect("room");
        let has = |reader: &Reader, record| reader.records.contains(&record);
        until(&mut runtime, |runtime| has(runtime.service(service).expect("it lives"), [7; 24]));
        drop(chance);
    });
}

#[test]
fn the_size_of_a_terminal_is_that_of_its_window_and_nothing_else_has_one() {
    let (near, device) = pair();
    let far = line::open(&device);
    for (columns, rows) in [(132, 43), (80, 25)] {
        let window = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&near, window).expect("a terminal");
        assert_eq!(size(&far).expect("a terminal"), Size { columns, rows });
    }
    let error = size(File::open("/dev/null").expect("it is there")).expect_err("no terminal");
    assert_eq!(error.raw_os_error(), Some(libc::ENOTTY));
}

/// Queries the size of its terminal on each signal that it has changed.
struct Screen {
    terminal: std::os::fd::OwnedFd,
    sizes: Vec<Size>,
}

impl Service for Screen {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        cx.signals([Signal::WINCH])?;
        Ok(())
    }
}

impl Handle<Signals> for Screen {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Signals>, arrived: Arrived) -> Result {
        assert_eq!(arrived.signal, Signal::WINCH);
        self.sizes.push(size(&self.terminal)?);
        Ok(())
    }
}

#[test]
fn a_change_of_the_size_is_told_by_its_signal() {
    for_each_engine(|engine| {
        let (near, device) = pair();
        let mut runtime = engine.runtime();
        let screen = Screen { terminal: line::open(&device), sizes: Vec::new() };
        let service = runtime.add(screen).expect("it starts");
        for columns in [132, 80] {
            let window = Winsize { ws_col: columns, ws_row: 25, ws_xpixel: 0, ws_ypixel: 0 };
            tcsetwinsize(&near, window).expect("a terminal");
            // The kernel signals the processes for which this is the controlling terminal. The test has
            // none.
            kill_process(getpid(), rustix::process::Signal::WINCH).expect("it is us");
            let last = Some(Size { columns, rows: 25 });
            let has = |screen: &Screen| screen.sizes.last().copied() == last;
            until(&mut runtime, |runtime| has(runtime.service(service).expect("it lives")));
        }
    });
}
