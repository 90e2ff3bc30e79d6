//! The service: one request at a time on each connection. Files are opened outside the loop.

use std::{convert::Infallible, io::ErrorKind, mem, time::Duration};

use reactor::{
    Address, Bytes, Closed, Context, Error, Event, Handle, Id, IdMap, Receive, Result, Service, Stream, Time,
    TimerId,
    file::{File, FileKind, FileTransfer, OpenOptions, Opened, Operation},
};

use crate::{
    answer, date,
    request::{self, Parsed, Request},
};

/// The longest head of a request. Also limits the input that is kept while a request is being answered.
const HEAD_MAX: usize = 8 << 10;
/// How long a head may take, from its first byte.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// How long a connection may stay without a request.
const IDLE_TIME: Duration = Duration::from_secs(60);
/// A file up to this size is opened and read in one operation.
const SMALL: usize = 16 << 10;

pub(crate) struct Server {
    address: Address,
    root: File,
    clients: IdMap<Stream, Client>,
    transfers: IdMap<FileTransfer, Id<Stream>>,
    is_stopping: bool,
}

/// A connection.
struct Client {
    /// Input that belongs to no answered request yet.
    input: Vec<u8>,
    /// The request that is being answered.
    request: Option<Request>,
    /// The beginning of the current wait for input.
    since: Time,
    timer: TimerId,
    is_paused: bool,
    /// The client sends nothing more.
    has_ended: bool,
}

/// Timer: check whether a client is late.
struct Look(Id<Stream>);

/// The result of opening the requested file.
struct Found(Id<Stream>, Result<Opened, Error>);

impl Server {
    pub(crate) fn new(address: Address, root: File) -> Server {
        Server { address, root, clients: IdMap::new(), transfers: IdMap::new(), is_stopping: false }
    }

    /// Answers the next request if it is complete and no other is being answered.
    fn next(&mut self, cx: &mut Context<Self>, id: Id<Stream>) {
        let Some(client) = self.clients.get_mut(id).filter(|client| client.request.is_none()) else { return };
        if mem::take(&mut client.is_paused) {
            cx.resume(id);
        }
        client.since = cx.now();
        match request::parse(&client.input) {
            Parsed::Partial if client.input.len() >= HEAD_MAX => self.refuse(cx, id, 431),
            Parsed::Partial if client.has_ended => cx.close(id),
            Parsed::Partial => (),
            Parsed::Bad(status) => self.refuse(cx, id, status),
            Parsed::Whole(len, _) if len > HEAD_MAX => self.refuse(cx, id, 431),
            Parsed::Whole(len, mut request) => {
                client.input.drain(..len);
                request.keep &= !self.is_stopping;
                let mut how = OpenOptions::read();
                how.beneath = Some(self.root.clone());
                how.prefetch = SMALL;
                let operation = Operation::open(&request.path, how);
                client.request = Some(request);
                if cx.file(operation, move |result| Found(id, result)).is_err() {
                    self.refuse(cx, id, 503);
                }
            }
        }
    }

    /// Rejects a request and closes the connection, because the input after it has no known meaning.
    fn refuse(&mut self, cx: &mut Context<Self>, id: Id<Stream>, status: u16) {
        let more = if status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
        let text = answer::refusal(status, false, false, more, date::seconds(cx.wall()));
        cx.send(id, text.as_bytes());
        cx.close(id);
    }

    /// Goes on to the next request, because the response is queued completely.
    fn answered(&mut self, cx: &mut Context<Self>, id: Id<Stream>) {
        let Some(client) = self.clients.get_mut(id) else { return };
        if client.request.take().is_some_and(|request| request.keep) {
            self.next(cx, id);
        } else {
            cx.close(id);
        }
    }

    /// Answers a request whose file cannot be served.
    fn fail(&mut self, cx: &mut Context<Self>, id: Id<Stream>, status: u16, more: &str) {
        let Some(request) = self.clients.get(id).and_then(|client| client.request.as_ref()) else { return };
        let now = date::seconds(cx.wall());
        let text = answer::refusal(status, request.keep, request.is_head, more, now);
        cx.send(id, text.as_bytes());
        self.answered(cx, id);
    }
}

impl Service for Server {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        // Half-open, because a client may end its side right after its request and still expects the
        // response.
        let listener = cx.listen(&self.address, |_| Some(Stream::new(Bytes).half_open(true)))?;
        println!("listening on {}", cx.local(listener)?);
        Ok(())
    }

    /// Lets each response in flight be the last of its connection, and closes connections without one.
    fn stop(&mut self, cx: &mut Context<Self>) {
        self.is_stopping = true;
        for (id, client) in self.clients.iter_mut() {
            match &mut client.request {
                Some(request) => request.keep = false,
                None => cx.close(id),
            }
        }
    }
}

impl Handle<Stream> for Server {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
        match event {
            Event::Open if self.is_stopping => cx.close(id),
            Event::Open => {
                let timer = cx.after(HEAD_TIME, Look(id));
                let client = Client {
                    input: Vec::new(),
                    request: None,
                    since: cx.now(),
                    timer,
                    is_paused: false,
                    has_ended: false,
                };
                self.clients.insert(id, client);
            }
            Event::Received(bytes) => {
                let Some(client) = self.clients.get_mut(id) else { return Ok(()) };
                let is_first = client.input.is_empty();
                client.input.extend_from_slice(bytes);
                if client.request.is_some() {
                    if client.input.len() > HEAD_MAX && !mem::replace(&mut client.is_paused, true) {
                        cx.pause(id);
                    }
                    return Ok(());
                }
                let since = if is_first { cx.now() } else { client.since };
                self.next(cx, id);
                // A head that arrives byte by byte keeps the time of its first byte.
                if let Some(client) = self.clients.get_mut(id).filter(|client| client.request.is_none()) {
                    client.since = since;
                }
            }
            Event::End => {
                let Some(client) = self.clients.get_mut(id) else { return Ok(()) };
                client.has_ended = true;
                self.next(cx, id);
            }
            Event::Drained | Event::HungUp => (),
        }
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<Self>, id: Id<Stream>, _: Stream, _: Closed) {
        if let Some(client) = self.clients.remove(id) {
            cx.cancel(client.timer);
        }
    }
}

impl Receive<Look> for Server {
    fn receive(&mut self, cx: &mut Context<Self>, Look(id): Look) -> Result {
        let Some(client) = self.clients.get_mut(id) else { return Ok(()) };
        let limit = if client.input.is_empty() { IDLE_TIME } else { HEAD_TIME };
        let waited = cx.now() - client.since;
        if client.request.is_some() || waited < limit {
            // Look again soon, because the client may become late before the full limit has passed.
            client.timer = cx.after(limit.saturating_sub(waited).clamp(HEAD_TIME / 10, HEAD_TIME), Look(id));
        } else if client.input.is_empty() {
            cx.close(id);
        } else {
            self.refuse(cx, id, 408);
        }
        Ok(())
    }
}

impl Receive<Found> for Server {
    fn receive(&mut self, cx: &mut Context<Self>, Found(id, result): Found) -> Result {
        let Some(request) = self.clients.get(id).and_then(|client| client.request.as_ref()) else {
            return Ok(());
        };
        let opened = match result {
            Ok(opened) => opened,
            Err(error) => {
                let status = status_of(&error);
                self.fail(cx, id, status, "");
                return Ok(());
            }
        };
        match opened.metadata.kind {
            FileKind::Regular => (),
            FileKind::Directory => {
                let path = request.target.split(['?', '#']).next().unwrap_or_default();
                // Two leading slashes would name another host.
                let more = format!("Location: /{}/\r\n", path.trim_matches('/'));
                self.fail(cx, id, 301, &more);
                return Ok(());
            }
            FileKind::Link | FileKind::Other => {
                self.fail(cx, id, 403, "");
                return Ok(());
            }
        }
        let (head, part) = answer::file(request, &opened.metadata, date::seconds(cx.wall()));
        cx.send(id, head.as_bytes());
        let small = usize::try_from(part.start).ok().zip(usize::try_from(part.end).ok());
        if let Some(bytes) = small.and_then(|(start, end)| opened.prefetched.get(start..end)) {
            cx.send(id, bytes);
            self.answered(cx, id);
        } else {
            match cx.send_file(id, opened.file, part) {
                Ok(transfer) => _ = self.transfers.insert(transfer, id),
                // The stream has ended, or there are too many resources.
                Err(_) => cx.abort(id),
            }
        }
        Ok(())
    }
}

impl Handle<FileTransfer> for Server {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<FileTransfer>, event: Infallible) -> Result {
        match event {}
    }

    fn closed(&mut self, cx: &mut Context<Self>, id: Id<FileTransfer>, _: FileTransfer, why: Closed) {
        let Some(client) = self.transfers.remove(id) else { return };
        if why.is_clean() {
            self.answered(cx, client);
        } else {
            // The head has announced a length, so only the end of the connection shows that the body is too
            // short.
            cx.close(client);
        }
    }
}

fn status_of(error: &Error) -> u16 {
    match error.io().map(std::io::Error::kind) {
        Some(ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename) => 404,
        // The path leads out of the directory or in circles, or we may not read the file.
        Some(ErrorKind::PermissionDenied | ErrorKind::CrossesDevices) => 403,
        _ => match error.io().and_then(std::io::Error::raw_os_error) {
            Some(LOOP | NO_SUCH_DEVICE) => 403,
            _ => 500,
        },
    }
}

/// ELOOP on Linux, for which there is no stable `ErrorKind`.
const LOOP: i32 = 40;
/// ENXIO: a socket, or a device that does not exist. Neither is a file to serve.
const NO_SUCH_DEVICE: i32 = 6;
