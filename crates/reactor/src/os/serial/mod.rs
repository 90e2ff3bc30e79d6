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
use crate::{
    engine::{Interest, Outgoing, Ready, Source},
    error::{Error, Result},
    resource::{Io, Pollable, QUEUE_HIGH, Writable},
    sys::{again_if_interrupted, make_exclusive},
};

/// A serial port, or another terminal device in raw mode, as a resource of bytes.
///
/// An unplugged device, a modem that hangs up and the end of a pseudo-terminal's other side all end it the
/// same way: the service gets the input that had arrived, then `closed` once, with [`Closed::Failed`] and
/// EIO.
///
/// Output waits in the runtime's queue. Above 64 KiB `send` answers [`Flow::High`]. When the queue has shrunk
/// to a quarter of that, [`SerialEvent::Drained`] follows. Above 4 MiB the resource ends.
///
/// Closing a real port blocks while the kernel's own buffer (some KiB) leaves, up to 30 s if flow control
/// stops it. Call [`discard_output`](Serial::discard_output) in `closed` to avoid that.
/// [`configure`](Serial::configure) also waits.
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
///         let options = SerialOptions::with(|options| options.speed = 9_600);
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
    /// The queue was above the high mark, and `Drained` is due after it has drained.
    is_high: bool,
    is_drained: bool,
}

enum Port {
    System(SerialPort),
    Hosted(Source<'static>),
}

/// An event of a serial port.
///
/// ```
/// use reactor::serial::SerialEvent;
/// let event = SerialEvent::Received(b"$GPGGA");
/// assert!(matches!(event, SerialEvent::Received(bytes) if bytes.starts_with(b"$")));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SerialEvent<'a> {
    /// Bytes arrived, at least one. The service has to find the ends of messages.
    Received(&'a [u8]),
    /// The write queue was above its high mark, and has shrunk below the low one.
    Drained,
}

/// The modem lines that the other side sets.
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
    /// The errors of open(2) and tcsetattr(3). For example EBUSY if another process has it exclusively, and
    /// ENOTTY if it is no terminal. `Other` if the device does not accept all settings.
    pub fn open(path: impl AsRef<Path>, options: &SerialOptions) -> Result<Serial, Error> {
        let path = path.as_ref();
        let open = || {
            let mut port = SerialPort::open(path, serial2::KeepSettings)?;
            set(&mut port, options)?;
            Ok(Serial::of(Port::System(port)))
        };
        open().map_err(|error| Error::os("open", path.display(), error))
    }

    /// Takes an open, non-blocking terminal device with its present settings. It should be in raw mode, with
    /// a VMIN of at least 1, because an empty read counts as a hang-up.
    pub fn adopt(device: impl Into<OwnedFd>) -> Serial {
        Serial::of(Port::System(device.into().into()))
    }

    /// Opens a pseudo-terminal: two connected ports, to try a service without a device.
    ///
    /// # Errors
    /// The errors of posix_openpt(3) and open(2).
    pub fn pair() -> Result<(Serial, Serial), Error> {
        let (one, other) =
            SerialPort::pair().map_err(|error| Error::os("open", "a pseudo-terminal", error))?;
        Ok((Serial::of(Port::System(one)), Serial::of(Port::System(other))))
    }

    /// Creates a twin for tests, whose other side is a virtual source of a simulated engine. It accepts
    /// settings, which change nothing, and has no modem lines (`Unsupported`).
    pub fn hosted(source: Source<'static>) -> Serial {
        Serial::of(Port::Hosted(source))
    }

    fn of(port: Port) -> Serial {
        Serial { port, is_high: false, is_drained: false }
    }

    /// Sets it again. May block until the kernel has sent the output that it took before.
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

    /// Returns the present state of the lines that the other side sets. The port does not report their
    /// changes.
    ///
    /// # Errors
    /// The errors of ioctl_tty(2), for example ENOTTY or EINVAL if the device has no such lines.
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

    /// Begins or ends a break, during which the line stays low. Use a timer for its length.
    ///
    /// # Errors
    /// The errors of ioctl_tty(2).
    pub fn set_break(&self, is_on: bool) -> io::Result<()> {
        self.system()?.set_break(is_on)
    }

    /// Discards input that has arrived and was not read.
    ///
    /// # Errors
    /// The errors of tcflush(3).
    pub fn discard_input(&self) -> io::Result<()> {
        self.system()?.discard_input_buffer()
    }

    /// Discards output that the kernel took and has not sent. The runtime's queue stays.
    ///
    /// # Errors
    /// The errors of tcflush(3).
    pub fn discard_output(&self) -> io::Result<()> {
        self.system()?.discard_output_buffer()
    }
}

fn set(port: &mut SerialPort, options: &SerialOptions) -> io::Result<()> {
    let mut settings = port.get_configuration()?;
    options.apply(&mut settings)?;
    // The call waits for the output to leave, and a signal may interrupt it.
    again_if_interrupted(|| port.set_configuration(&settings))?;
    if options.exclusive { make_exclusive(port.as_fd()) } else { Ok(()) }
}

impl Pollable for Serial {
    type Event<'a> = SerialEvent<'a>;

    fn source(&self) -> Source<'_> {
        match &self.port {
            Port::System(port) => Source::of(port),
            Port::Hosted(source) => *source,
        }
    }

    fn interest(&self) -> Option<Interest> {
        // Writability makes the runtime call `step`, which then reports that the queue has drained.
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
            // A read from a hung-up terminal returns the end. The other end of a pseudo-terminal fails with
            // EIO.
            0 => Err(io::Error::from_raw_os_error(libc::EIO)),
            count => Ok(Some(SerialEvent::Received(&buffer[..count]))),
        }
    }
}

#[diagnostic::do_not_recommend]
impl Writable for Serial {
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

/// The queue length below which the service gets `Drained`.
const QUEUE_LOW: usize = QUEUE_HIGH / 4;
