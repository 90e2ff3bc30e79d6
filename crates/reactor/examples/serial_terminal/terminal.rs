//! The service: a terminal and a device, each the output of the other.

use std::{
    cell::RefCell,
    ffi::OsStr,
    fs::File,
    io,
    os::unix::{ffi::OsStrExt as _, fs::OpenOptionsExt as _},
    process::ExitCode,
    rc::Rc,
    time::Duration,
};

use reactor::{
    Closed, Context, Flow, Handle, Id, Result, Runtime, Service,
    serial::{Serial, SerialEvent, SerialOptions},
    signals::Graceful,
    stdio::Raw,
};

/// Passes bytes between two ports until one of them ends, or the user presses the key that leaves.
struct Between {
    ports: Option<(Serial, Serial)>,
    ids: Option<(Id<Serial>, Id<Serial>)>,
    /// The user pressed the key, or one of the two has ended, so later events do not matter.
    is_over: bool,
    /// Why it ended, if that was not intended.
    ended: Rc<RefCell<Option<String>>>,
}

impl Service for Between {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        if let Some((terminal, device)) = self.ports.take() {
            self.ids = Some((cx.add(terminal)?, cx.add(device)?));
        }
        Ok(())
    }

    fn stop(&mut self, cx: &mut Context<Self>) {
        self.is_over = true;
        cx.close_all();
    }
}

impl Handle<Serial> for Between {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Serial>, event: SerialEvent<'_>) -> Result {
        let Some((terminal, device)) = self.ids else { return Ok(()) };
        let other = if id == terminal { device } else { terminal };
        match event {
            SerialEvent::Received(bytes) => {
                let leave = bytes.iter().position(|byte| id == terminal && *byte == LEAVE);
                let flow = cx.send(other, &bytes[..leave.unwrap_or(bytes.len())]);
                if leave.is_some() {
                    self.is_over = true;
                    cx.close_all();
                } else if flow == Flow::High {
                    cx.pause(id);
                }
            }
            SerialEvent::Drained => cx.resume(other),
            _ => (),
        }
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<Self>, id: Id<Serial>, _: Serial, why: Closed) {
        let is_terminal = self.ids.is_some_and(|(terminal, _)| id == terminal);
        if !std::mem::replace(&mut self.is_over, true) && !is_terminal {
            *self.ended.borrow_mut() = Some(match why.io().and_then(io::Error::raw_os_error) {
                Some(EIO) => "it hung up".to_owned(),
                _ => why.to_string(),
            });
        }
        cx.close_all();
    }
}

/// Runs until the end, and returns the exit code for it.
pub(crate) fn run(args: Vec<String>) -> ExitCode {
    let refuse = |why: &str| {
        eprintln!("serial_terminal: {why}");
        ExitCode::from(2)
    };
    let (name, speed) = match &args[..] {
        [name] => (name, Ok(SerialOptions::DEFAULT.speed)),
        [name, speed] => (name, speed.parse()),
        _ => return refuse("a device is needed, and perhaps a speed: serial_terminal DEVICE [SPEED]"),
    };
    let Some(speed) = speed.ok().filter(|speed| *speed > 0) else {
        return refuse(&format!("`{}` is not a speed: write bits per second, as 9600", args[1]));
    };
    let terminal = match open_terminal() {
        Ok(terminal) => terminal,
        Err(error) => return refuse(&format!("standard input is no terminal: {error}")),
    };
    let device = match Serial::open(name, &SerialOptions::with(|options| options.speed = speed)) {
        Ok(device) => device,
        Err(error) => return refuse(&error.to_string()),
    };
    match talk(name, speed, terminal, device) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(ended)) => {
            eprintln!("serial_terminal: {name}: {ended}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("serial_terminal: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Opens the terminal behind the standard input anew, because the non-blocking flag belongs to the open
/// file, which the shell and others share.
fn open_terminal() -> io::Result<File> {
    let name = rustix::termios::ttyname(io::stdin(), Vec::new())?;
    let flags = (rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY).bits();
    let mut options = File::options();
    options.read(true).write(true).custom_flags(flags as i32).open(OsStr::from_bytes(name.as_bytes()))
}

fn talk(
    name: &str,
    speed: u32,
    terminal: File,
    device: Serial,
) -> Result<Option<String>, Box<dyn std::error::Error>> {
    let mut runtime = Runtime::new()?;
    // Before the terminal becomes raw, so that SIGTERM never leaves it raw.
    runtime.add(Graceful::within(Duration::from_secs(1)))?;
    // Restores the terminal at the end of this function, however it ends.
    let _raw = Raw::enter(&terminal)?;
    eprint!("{name}, {speed} bits per second; Ctrl-] leaves\r\n");
    let ended = Rc::default();
    let ports = Some((Serial::adopt(terminal), device));
    runtime.add(Between { ports, ids: None, is_over: false, ended: Rc::clone(&ended) })?;
    runtime.run()?;
    Ok(ended.take())
}

/// Ctrl-]
const LEAVE: u8 = 0x1d;
const EIO: i32 = rustix::io::Errno::IO.raw_os_error();
