//! The data path: the only file that moves bytes through rustls.
//!
//! rustls gets its input one whole record at a time. So one call opens one record, an incomplete record stays
//! with the caller (who counts it), and the good records before a bad one are delivered before the error.

use std::fmt;
use std::io::{BufRead, Write};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};
use session::{Io, Layer, Next, Result, Step, Truncated};

use crate::error::TlsError;
use crate::negotiated::Negotiated;

/// A TLS session of one connection, as a layer. A [`Connector`](crate::Connector) or an
/// [`Acceptor`](crate::Acceptor) makes it.
///
/// It ends with [`TlsError`], or with [`Truncated`] if the transport ends without the peer's `close_notify`.
/// One record is at most 16 KiB of clear bytes. The peer's handshake may take [`Tls::HANDSHAKE_MAX`] bytes.
pub struct Tls {
    state: State,
    ready: bool,
    /// Our `close_notify` is queued.
    finished: bool,
    /// The peer has sent its `close_notify`.
    ended: bool,
    /// Bytes of input before the layer was ready.
    handshake: usize,
    /// The length of the last record, which rustls' buffer had to hold.
    last: usize,
    /// An error that comes after the clear bytes of the call that found it.
    failed: Option<TlsError>,
}

enum State {
    /// Not started. A session that waits for its transport costs nothing yet.
    Client(Arc<ClientConfig>, ServerName<'static>),
    Server(Arc<ServerConfig>),
    Running(Box<Connection>),
    /// rustls could not make the connection.
    Broken,
}

impl Tls {
    /// The most bytes that the peer may send before its handshake is over: 256 KiB. The handshake fails with
    /// [`TlsError::HandshakeTooLong`] at one more.
    pub const HANDSHAKE_MAX: usize = 256 << 10;

    pub(crate) fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Tls {
        Tls::new(State::Client(config, name))
    }

    pub(crate) fn server(config: Arc<ServerConfig>) -> Tls {
        Tls::new(State::Server(config))
    }

    fn new(state: State) -> Tls {
        Tls { state, ready: false, finished: false, ended: false, handshake: 0, last: 0, failed: None }
    }

    /// Returns what both sides agreed on, or `None` before the stream is open.
    pub fn negotiated(&self) -> Option<Negotiated<'_>> {
        match &self.state {
            State::Running(connection) if self.ready => Negotiated::of(connection),
            _ => None,
        }
    }

    /// Fills `output` with key material that only the two ends can derive, for this label and context (RFC
    /// 5705, RFC 8446 section 7.5). Both ends get the same bytes for the same arguments.
    ///
    /// # Errors
    /// [`TlsError::Protocol`] if the handshake is not over, or if `output` is empty or too long.
    pub fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: Option<&[u8]>,
    ) -> Result<(), TlsError> {
        match &self.state {
            State::Running(connection) => {
                connection.export_keying_material(output, label, context).map(drop).map_err(TlsError::of)
            }
            _ => Err(TlsError::of(rustls::Error::HandshakeNotComplete)),
        }
    }

    /// Replaces the keys of this side, and asks the peer to replace its own (TLS 1.3 only). rustls does so by
    /// itself before a key has encrypted too much, so few programs need it.
    ///
    /// # Errors
    /// [`TlsError::Protocol`] with TLS 1.2, or if the handshake is not over. The session goes on.
    pub fn update_keys(&mut self, io: &mut Io<'_>) -> Result<(), TlsError> {
        match &mut self.state {
            State::Running(connection) if self.ready => {
                connection.refresh_traffic_keys().map_err(TlsError::of)?;
                drain(connection, io);
                Ok(())
            }
            _ => Err(TlsError::of(rustls::Error::HandshakeNotComplete)),
        }
    }

    fn running(&mut self) -> Result<&mut Connection, TlsError> {
        match &mut self.state {
            State::Running(connection) => Ok(connection),
            _ => Err(TlsError::of(rustls::Error::HandshakeNotComplete)),
        }
    }

    /// Counts a record of input.
    fn count(&mut self, record: usize) -> Result<(), TlsError> {
        self.last = record;
        if !self.ready {
            self.handshake += record;
            if self.handshake > Tls::HANDSHAKE_MAX {
                return Err(TlsError::HandshakeTooLong { limit: Tls::HANDSHAKE_MAX });
            }
        }
        Ok(())
    }
}

impl Layer for Tls {
    // An incomplete record.
    const INPUT_MAX: usize = HEADER + BODY_MAX;

    fn start(&mut self, io: &mut Io<'_>) -> Result {
        let made = match std::mem::replace(&mut self.state, State::Broken) {
            State::Client(config, name) => ClientConnection::new(config, name).map(Connection::from),
            State::Server(config) => ServerConnection::new(config).map(Connection::from),
            State::Running(_) | State::Broken => Err(rustls::Error::HandshakeNotComplete),
        };
        let mut connection = made.map_err(TlsError::of)?;
        // The session limits what waits, so that `seal` never takes nothing.
        connection.set_buffer_limit(None);
        drain(&mut connection, io);
        self.state = State::Running(Box::new(connection));
        Ok(())
    }

    fn ready(&self) -> bool {
        self.ready
    }

    fn open(&mut self, input: &mut [u8], io: &mut Io<'_>) -> Result<Step> {
        if let Some(error) = self.failed.take() {
            return Err(error.into());
        }
        let Some(used) = first_record(input) else { return Ok(Step { used: 0, next: Next::Wait }) };
        self.count(used)?;
        let finished = self.finished;
        let connection = self.running()?;
        let processed = feed(connection, &input[..used], finished);
        let opened = take_clear(connection, io);
        drain(connection, io);
        self.ready |= !connection.is_handshaking();
        match processed {
            Ok(ended) => self.ended |= ended,
            // Bytes of a call that fails would be thrown away, but these are authentic.
            Err(error) if opened > 0 => self.failed = Some(error),
            Err(error) => return Err(error.into()),
        }
        let next = match used < input.len() || self.failed.is_some() {
            _ if self.ended => Next::End,
            true => Next::Again,
            false => Next::Wait,
        };
        Ok(Step { used, next })
    }

    fn seal(&mut self, clear: &[u8], io: &mut Io<'_>) -> Result<usize> {
        let connection = self.running()?;
        let taken = connection.writer().write(&clear[..clear.len().min(RECORD_MAX)])?;
        drain(connection, io);
        Ok(taken)
    }

    fn finish(&mut self, io: &mut Io<'_>) -> Result {
        self.finished = true;
        let connection = self.running()?;
        connection.send_close_notify();
        drain(connection, io);
        Ok(())
    }

    fn end(&mut self, _left: &[u8]) -> Result {
        // Called only before the authentic end.
        Err(Truncated.into())
    }

    fn held(&self) -> usize {
        match &self.state {
            // rustls joins the pieces of a handshake message, and nobody sees how many it has.
            State::Running(_) if !self.ready => self.handshake.min(MESSAGE_MAX),
            State::Running(_) => self.last.next_multiple_of(READ),
            _ => 0,
        }
    }
}

/// Returns the length of the record at the front, or `None` while it is incomplete. A header that no record
/// has counts as a record by itself, so that rustls refuses it at once.
fn first_record(input: &[u8]) -> Option<usize> {
    let [kind, _, _, high, low] = *input.first_chunk()?;
    let body = usize::from(u16::from_be_bytes([high, low]));
    if !KINDS.contains(&kind) || body > BODY_MAX {
        return Some(HEADER);
    }
    (input.len() >= HEADER + body).then_some(HEADER + body)
}

/// Lets rustls process one record, and returns whether it was the peer's authentic end.
fn feed(connection: &mut Connection, mut record: &[u8], finished: bool) -> Result<bool, TlsError> {
    while !record.is_empty() {
        // It takes some at once. Nothing is left in its buffer from earlier records, so there is room.
        match connection.read_tls(&mut record) {
            Ok(1..) => (),
            Ok(0) | Err(_) => return Err(TlsError::of(rustls::Error::PeerSentOversizedRecord)),
        }
    }
    let mut process = || connection.process_new_packets().map(|state| state.peer_has_closed());
    let processed = if finished {
        // After our end, rustls answers a bad record with a second alert, and asserts in debug builds that
        // there is no second one. The peer could panic us. The connection is not used after this error.
        panic::catch_unwind(AssertUnwindSafe(process)).unwrap_or(Err(rustls::Error::DecryptError))
    } else {
        process()
    };
    processed.map_err(TlsError::of)
}

/// Moves the bytes that rustls has for the wire into the queue, which takes everything.
fn drain(connection: &mut Connection, io: &mut Io<'_>) {
    while connection.wants_write() {
        let written = connection.write_tls(&mut *io.down);
        debug_assert!(written.is_ok_and(|count| count > 0), "the queue takes everything");
    }
}

/// Moves the clear bytes that rustls has into `up`, and returns how many there were.
fn take_clear(connection: &mut Connection, io: &mut Io<'_>) -> usize {
    let had = io.up.len();
    let mut reader = connection.reader();
    while let Ok(chunk) = reader.fill_buf()
        && !chunk.is_empty()
    {
        io.up.extend_from_slice(chunk);
        let len = chunk.len();
        reader.consume(len);
    }
    io.up.len() - had
}

/// Shows the state, and neither keys nor data.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match &self.state {
            State::Client(..) => "client",
            State::Server(_) => "server",
            State::Running(connection) => match &**connection {
                Connection::Client(_) => "client",
                Connection::Server(_) => "server",
            },
            State::Broken => "broken",
        };
        f.debug_struct("Tls")
            .field("side", &side)
            .field("ready", &self.ready)
            .field("ended", &self.ended)
            .finish()
    }
}

/// The content types of records: change of cipher, alert, handshake and data.
const KINDS: std::ops::RangeInclusive<u8> = 20..=23;
/// The length of a record's header.
const HEADER: usize = 5;
/// The most bytes in the body of a record (RFC 5246, section 6.2.3; TLS 1.3 allows fewer).
const BODY_MAX: usize = (16 << 10) + 2048;
/// The most clear bytes in one record (RFC 8446, section 5.1).
const RECORD_MAX: usize = 16 << 10;
/// The longest handshake message that rustls takes.
const MESSAGE_MAX: usize = 64 << 10;
/// rustls' buffer for input grows by this.
const READ: usize = 4 << 10;
