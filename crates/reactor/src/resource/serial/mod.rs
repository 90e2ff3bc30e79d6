//! Serial ports: bytes in both directions, settings and modem lines. Unix, with the feature `serial`.

mod options;

use std::{
    fmt,
    io::{self, ErrorKind},
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use serial2::SerialPort;

pub use self::options::{DataBits, FlowControl, Parity, SerialOptions, StopBits};
use super::{Io, Output, QUEUE_HIGH, Resource};
use crate::{
    engine::{Interest, Outgoing, Ready, Source},
    error::{Error, Result},
    sys::{again_if_interrupted, make_exclusive},
};

/// A serial port, or another terminal device in raw mode, as a resource of bytes.
///
/// A device that is unplugged, a modem that hangs up and the end of a pseudo-terminal's other side all end it
/// the same way: what had arrived is told, then `closed` comes once, with [`Closed::Failed`] and EIO.
///
/// What is sent waits in the runtime's queue: above 64 KiB `send` answers [`Flow::High`], and when the
/// queue has shrunk to a quarter of that [`SerialEvent::Drained`] follows; above 4 MiB the resource ends.
///
/// Closing a real port blocks while the kernel's own buffer (some KiB) leaves, up to 30 s where flow control
/// stops it: [`discard_output`](Serial::discard_output) in `closed` avoids that. [`configure`](Serial::configure)
/// waits likewise.
///
/// ```no_run
/// use reactor::{
///     Context, Handle, Id, Result, Service,
///     serial::{Serial, SerialEvent, SerialOptions},
/// };
///
/// struct Meter;
///
/// impl Service for Meter {
///     fn start(&mut self, cx: &mut Context<Self>) -> Result {
///         let options = SerialOptions { speed: 9_600, ..SerialOptions::DEFAULT };
///         let id = cx.add(Serial::open("/dev/ttyUSB0", &options)?)?;
///         cx.send(id, b"MEASURE?\r\n");
///         Ok(())
///     }
/// }
///
/// impl Handle<Serial> for Meter {
///     fn handle(&mut self, _: &mut Context<Self>, _: Id<Serial>, event: SerialEvent<'_>) -> Result {
///         if let SerialEvent::Received(bytes) = event {
///             println!("{}", bytes.escape_ascii());
///         }
///         Ok(())
///     }
/// }
/// # fn main() -> Result { reactor::run(Meter)?; Ok(()) }
/// ```
///
/// [`Closed::Failed`]: crate::Closed::Failed
/// [`Flow::High`]: crate::Flow::High
pub struct Serial {
    port: Port,
    /// The queue was above the high mark, and that it has drained is to be told.
    is_high: bool,
    is_drained: bool,
}

enum Port {
    System(SerialPort),
    Hosted(Source<'static>),
}

/// What a serial port tells.
///
/// ```
/// use reactor::serial::SerialEvent;
/// let event = SerialEvent::Received(b"$GPGGA");
/// assert!(matches!(event, SerialEvent::Received(bytes) if bytes.starts_with(b"$")));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SerialEvent<'a> {
    /// Bytes arrived; never none. Where one message ends is for the service to know.
    Received(&'a [u8]),
    /// The write queue was above its high mark, and has shrunk below the low one.
    Drained,
}

/// The lines of a modem that the other side sets.
///
/// ```
/// let lines = reactor::serial::ModemLines { cts: true, dsr: true, ring: false, carrier: false };
/// assert!(lines.cts && !lines.carrier);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ModemLines {
    /// Clear to send.
    pub cts: bool,
    /// Data set ready.
    pub dsr: bool,
    /// Ring indicator.
    pub ring: bool,
    /// Carrier detect.
    pub carrier: bool,
}

impl Serial {
    /// Opens a device and sets it. Does not wait for a carrier.
    ///
    /// # Errors
    /// As open(2) and tcsetattr(3): EBUSY when somebody has it exclusively, ENOTTY for what is no terminal;
    /// `Other` when the device does not take all the settings.
    pub fn open(path: impl AsRef<Path>, options: &SerialOptions) -> Result<Serial, Error> {
        let path = path.as_ref();
        let open = || {
            let mut port = SerialPort::open(path, serial2::KeepSettings)?;
            set(&mut port, options)?;
            Ok(Serial::of(Port::System(port)))
        };
        open().map_err(|error| Error::os("open", path.display(), error))
    }

    /// Takes a terminal device that is open and non-blocking, with its settings as they are. It should be in raw
    /// mode, with a VMIN of at least 1: an empty read counts as a hang-up.
    pub fn adopt(device: impl Into<OwnedFd>) -> Serial {
        Serial::of(Port::System(device.into().into()))
    }

    /// Opens a pseudo-terminal: two ports connected to each other, to try a service without a device.
    ///
    /// # Errors
    /// As posix_openpt(3) and open(2).
    pub fn pair() -> Result<(Serial, Serial), Error> {
        let (one, other) =
            SerialPort::pair().map_err(|error| Error::os("open", "a pseudo-terminal", error))?;
        Ok((Serial::of(Port::System(one)), Serial::of(Port::System(other))))
    }

    /// The twin for tests: the other side is a virtual source of a simulated engine. Settings are accepted and
    /// change nothing, and there are no modem lines (`Unsupported`).
    pub fn hosted(source: Source<'static>) -> Serial {
        Serial::of(Port::Hosted(source))
    }

    fn of(port: Port) -> Serial {
        Serial { port, is_high: false, is_drained: false }
    }

    /// Sets it anew. May block until the kernel has sent what it took before.
    ///
    /// # Errors
    /// As [`open`](Serial::open).
    pub fn configure(&mut self, options: &SerialOptions) -> io::Result<()> {
        match &mut self.port {
            Port::System(port) => set(port, options),
            Port::Hosted(_) => Ok(()),
        }
    }

    fn system(&self) -> io::Result<&SerialPort> {
        match &self.port {
            Port::System(port) => Ok(port),
            Port::Hosted(_) => Err(ErrorKind::Unsupported.into()),
        }
    }

    /// The lines that the other side sets, as they are now. Their changes are not told.
    ///
    /// # Errors
    /// As ioctl_tty(2): ENOTTY or EINVAL where the device has none.
    pub fn modem_lines(&self) -> io::Result<ModemLines> {
        let port = self.system()?;
        Ok(ModemLines {
            cts: port.read_cts()?,
            dsr: port.read_dsr()?,
            ring: port.read_ri()?,
            carrier: port.read_cd()?,
        })
    }

    /// Sets the line RTS, "request to send".
    ///
    /// # Errors
    /// As [`modem_lines`](Serial::modem_lines).
    pub fn set_rts(&self, is_on: bool) -> io::Result<()> {
        self.system()?.set_rts(is_on)
    }

    /// Sets the line DTR, "data terminal ready".
    ///
    /// # Errors
    /// As [`modem_lines`](Serial::modem_lines).
    pub fn set_dtr(&self, is_on: bool) -> io::Result<()> {
        self.system()?.set_dtr(is_on)
    }

    /// Begins or ends a break: the line stays low until it ends. How long that takes is for a timer.
    ///
    /// # Errors
    /// As ioctl_tty(2).
    pub fn set_break(&self, is_on: bool) -> io::Result<()> {
        self.system()?.set_break(is_on)
    }

    /// Throws away what has arrived and was not read.
    ///
    /// # Errors
    /// As tcflush(3).
    pub fn discard_input(&self) -> io::Result<()> {
        self.system()?.discard_input_buffer()
    }

    /// Throws away what the kernel took and has not sent. What waits in the runtime's queue stays.
    ///
    /// # Errors
    /// As tcflush(3).
    pub fn discard_output(&self) -> io::Result<()> {
        self.system()?.discard_output_buffer()
    }
}

fn set(port: &mut SerialPort, options: &SerialOptions) -> io::Result<()> {
    let mut settings = port.get_configuration()?;
    options.apply(&mut settings)?;
    // It waits for the output to leave, which a signal may interrupt.
    again_if_interrupted(|| port.set_configuration(&settings))?;
    if options.exclusive { make_exclusive(port.as_fd()) } else { Ok(()) }
}

impl Resource for Serial {
    type Event<'a> = SerialEvent<'a>;

    fn source(&self) -> Source<'_> {
        match &self.port {
            Port::System(port) => Source::of(port),
            Port::Hosted(source) => *source,
        }
    }

    fn interest(&self) -> Option<Interest> {
        // Room for output is what calls `step` to tell that the queue has drained.
        Some(if self.is_drained { Interest::Both } else { Interest::Read })
    }

    fn step<'a>(
        &mut self,
        ready: Ready,
        io: &mut Io<'_>,
        buffer: &'a mut [u8],
    ) -> io::Result<Option<SerialEvent<'a>>> {
        if std::mem::take(&mut self.is_drained) {
            if ready.can_read() {
                io.may_have_more();
            }
            return Ok(Some(SerialEvent::Drained));
        }
        if !ready.can_read() {
            return Ok(None);
        }
        match io.read(self.source(), buffer)? {
            // A terminal that was hung up reads as ended; a pseudo-terminal's other end fails with EIO.
            0 => Err(io::Error::from_raw_os_error(libc::EIO)),
            count => Ok(Some(SerialEvent::Received(&buffer[..count]))),
        }
    }
}

#[diagnostic::do_not_recommend]
impl Output for Serial {
    type Item<'a> = &'a [u8];

    fn encode(&mut self, item: &[u8], out: &mut Outgoing) -> Result {
        out.put(item);
        self.is_high |= out.len() > QUEUE_HIGH;
        Ok(())
    }

    fn flush(&mut self, io: &mut Io<'_>, out: &mut Outgoing) -> io::Result<()> {
        let taken = io.write(self.source(), out)?;
        out.advance(taken);
        if self.is_high && out.len() <= QUEUE_LOW {
            (self.is_high, self.is_drained) = (false, true);
        }
        Ok(())
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.port {
            Port::System(port) => write!(f, "Serial({port:?})"),
            Port::Hosted(source) => write!(f, "Serial({source:?})"),
        }
    }
}

/// Below this the service is told that the queue has drained.
const QUEUE_LOW: usize = QUEUE_HIGH / 4;
