//! The service that talks to the supervisor: it sends notices and feeds the watchdog.

use std::{io, os::unix::net::UnixDatagram, time::Duration};

use super::{Environment, Notice, bad};
use crate::{
    address::Address,
    engine::{Descriptor, Engine, Interest, Outgoing, Ready, Source, Transport},
    error::{Closed, Error, Result},
    host::StandIn,
    id::Id,
    os::{Descriptors, Message},
    resource::{Io, Pollable, Writable},
    runtime::{Context, Handle, Receive, Service},
    sys,
};

/// A service that forwards notices to the supervisor, and feeds the watchdog.
///
/// Other services send it [`Notice`]s by [`Context::tell`](crate::Context::tell). It sends `STOPPING=1` by
/// itself when the runtime begins to stop. It also sends `WATCHDOG=1` at the start and then twice in each
/// watchdog interval. These come from the loop, so the supervisor notices a loop that hangs. Without a
/// supervisor (`NOTIFY_SOCKET` is not set) it accepts the notices and drops them.
///
/// Sending never blocks. Notices wait while the supervisor's socket is full. A notice has at most 4,096
/// bytes. If the supervisor becomes unreachable, [`Supervised::failure`] gives the reason, and the runtime
/// goes on.
///
/// The link is in the background, but feeding a watchdog counts as work, so a runtime with a watchdog does
/// not end until it is stopped.
///
/// ```
/// use reactor::{Context, Result, Runtime, Service, ServiceId, systemd::{Notice, Supervised}};
///
/// struct Server(ServiceId<Supervised>);
///
/// impl Service for Server {
///     fn start(&mut self, cx: &mut Context<Self>) -> Result {
///         // Here it would listen.
///         cx.tell(self.0, Notice::ready().and(Notice::status("listening")))?;
///         Ok(())
///     }
/// }
///
/// let mut runtime = Runtime::new()?;
/// let supervised = runtime.add(Supervised::new())?;
/// runtime.add(Server(supervised))?;
/// runtime.run()?.check()?;
/// # Ok::<(), reactor::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Supervised {
    link: Option<Id<SupervisorLink>>,
    interval: Option<Duration>,
    sent: u64,
    failure: Option<String>,
}

/// The timer that feeds the watchdog.
// Hidden and public, because the public type `Supervised` receives it.
#[doc(hidden)]
#[derive(Debug)]
pub struct WatchdogFeed(());

impl Supervised {
    /// Creates the service for the supervisor that the environment names.
    pub fn new() -> Supervised {
        Supervised::default()
    }

    /// Returns whether there is a supervisor that can be reached.
    pub fn is_heard(&self) -> bool {
        self.link.is_some()
    }

    /// Returns the interval within which the watchdog must be fed, or `None` without a watchdog.
    pub fn watchdog(&self) -> Option<Duration> {
        self.interval
    }

    /// Returns how many notices were sent, including those for the watchdog.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Returns why the supervisor is no longer reachable.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    fn send(&mut self, cx: &mut Context<Self>, notice: Notice) -> Result {
        let Some(link) = self.link else { return Ok(()) };
        if notice.text().len() > NOTICE_MAX {
            return Err(format!("a notice of {} bytes, of at most {NOTICE_MAX}", notice.text().len()).into());
        }
        let is_virtual = cx.get(link).is_some_and(|link| link.source().number().is_some());
        let micros =
            if is_virtual { cx.now().as_nanos() / 1000 } else { sys::inherited::monotonic_micros()? };
        cx.send(link, notice.at(micros));
        self.sent += 1;
        Ok(())
    }
}

// Here and below: a user who forgot an `impl` gains nothing from a compiler hint about this one.
#[diagnostic::do_not_recommend]
impl Service for Supervised {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let Some((link, interval)) = open(&mut *cx.core.engine)? else { return Ok(()) };
        let link = cx.add(link)?;
        cx.background(link);
        (self.link, self.interval) = (Some(link), interval);
        self.receive(cx, WatchdogFeed(()))
    }

    fn stop(&mut self, cx: &mut Context<Self>) {
        // The only possible error is a failure to read the clock, and `STOPPING` has no timestamp.
        let _ = self.send(cx, Notice::stopping());
    }
}

#[diagnostic::do_not_recommend]
impl Receive<Notice> for Supervised {
    fn receive(&mut self, cx: &mut Context<Self>, notice: Notice) -> Result {
        self.send(cx, notice)
    }
}

#[diagnostic::do_not_recommend]
impl Receive<WatchdogFeed> for Supervised {
    fn receive(&mut self, cx: &mut Context<Self>, feed: WatchdogFeed) -> Result {
        let (Some(interval), true) = (self.interval, self.link.is_some()) else { return Ok(()) };
        cx.after(interval / 2, feed);
        self.send(cx, Notice::watchdog())
    }
}

#[diagnostic::do_not_recommend]
impl Handle<SupervisorLink> for Supervised {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<SupervisorLink>, _: ()) -> Result {
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<SupervisorLink>, _: SupervisorLink, why: Closed) {
        self.link = None;
        self.failure = (!why.is_clean()).then(|| why.to_string());
    }
}

/// The connection to the supervisor.
#[derive(Debug)]
pub struct SupervisorLink(Descriptors);

/// Connects to the supervisor, if there is one, and returns the watchdog's interval.
fn open(engine: &mut dyn Engine) -> Result<Option<(SupervisorLink, Option<Duration>)>, Error> {
    match engine.host_mut().stand_in(StandIn::Supervisor) {
        None => of_process(&Environment::of_process()),
        Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Some(found) => {
            let found = found.and_then(|transport| of_world(engine, transport));
            found.map(Some).map_err(|error| Error::os("notify", "supervisor", error))
        }
    }
}

/// Connects to the supervisor of a virtual world. It first sends the interval in microseconds, lowest byte
/// first.
fn of_world(engine: &mut dyn Engine, transport: Transport) -> io::Result<(SupervisorLink, Option<Duration>)> {
    let mut micros = [0; 8];
    if engine.read(transport.source(), &mut micros)? < micros.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((SupervisorLink(Descriptors::through_packets(transport)), interval(u64::from_le_bytes(micros))))
}

fn of_process(environment: &Environment<'_>) -> Result<Option<(SupervisorLink, Option<Duration>)>, Error> {
    let Some(name) = environment.text("NOTIFY_SOCKET")? else { return Ok(None) };
    let address = match name.strip_prefix('@') {
        Some(name) if !name.is_empty() => Address::Abstract(name.as_bytes().to_vec()),
        None if name.starts_with('/') => Address::Path(name.clone().into()),
        _ => return Err(bad("NOTIFY_SOCKET", name, "it is neither a path nor an abstract name")),
    };
    let socket = UnixDatagram::unbound().and_then(|socket| {
        sys::connect_datagram(&socket, &address)?;
        Descriptors::new().on(socket)
    });
    let socket = socket.map_err(|error| Error::os("notify", &address, error))?;
    let micros = match (environment.number("WATCHDOG_USEC")?, environment.is_for_us("WATCHDOG_PID")?) {
        (Some(0), _) => return Err(bad("WATCHDOG_USEC", 0, "it is not a number in its range")),
        (Some(micros), None | Some(true)) => micros,
        _ => 0,
    };
    Ok(Some((SupervisorLink(socket), interval(micros))))
}

fn interval(micros: u64) -> Option<Duration> {
    (micros > 0).then(|| Duration::from_micros(micros))
}

impl Pollable for SupervisorLink {
    type Event<'a> = ();

    fn source(&self) -> Source<'_> {
        self.0.source()
    }

    fn interest(&self) -> Option<Interest> {
        None
    }

    fn step(&mut self, _: Ready, _: &mut Io<'_>, _: &mut [u8]) -> io::Result<Option<()>> {
        Ok(None)
    }
}

#[diagnostic::do_not_recommend]
impl Writable for SupervisorLink {
    type Item<'a> = (String, Vec<Descriptor>);

    fn encode(&mut self, (text, descriptors): Self::Item<'_>, out: &mut Outgoing) -> Result {
        self.0.encode(Message { bytes: text.as_bytes(), descriptors }, out)
    }

    fn flush(&mut self, io: &mut Io<'_>, out: &mut Outgoing) -> io::Result<()> {
        self.0.flush(io, out)
    }
}

/// The most bytes of a datagram that systemd reads.
const NOTICE_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use std::{ffi::OsString, io::Write as _};

    use super::*;
    use crate::{
        engine::Candidates,
        runtime::{Runtime, ServiceId},
        sys::rights,
    };

    /// Makes a runtime with the service on a socket of the test, and returns the other end, too.
    struct Supervisor {
        runtime: Runtime,
        service: ServiceId<Supervised>,
        socket: UnixDatagram,
    }

    impl Supervisor {
        fn new() -> Supervisor {
            let (ours, socket) = UnixDatagram::pair().expect("a pair");
            let link = SupervisorLink(Descriptors::new().on(ours).expect("a Unix socket"));
            let mut runtime = Runtime::new().expect("an engine");
            let service = runtime.add(Supervised::new()).expect("it starts");
            let linked = runtime.with(service, |service, cx| {
                service.link = Some(cx.add(link).expect("it is watched"));
            });
            linked.expect("it lives");
            Supervisor { runtime, service, socket }
        }

        fn tell(&mut self, notice: Notice) -> Result {
            let told = self.runtime.with(self.service, |service, cx| service.receive(cx, notice));
            self.runtime.turn(Some(Duration::ZERO)).expect("the engine is whole");
            told.expect("it lives")
        }

        fn receive(&self) -> io::Result<(String, Vec<Descriptor>)> {
            let mut buffer = vec![0; 2 * NOTICE_MAX];
            let got = rights::receive(Source::of(&self.socket), &mut buffer)?;
            buffer.truncate(got.bytes);
            Ok((String::from_utf8(buffer).expect("text"), got.descriptors))
        }
    }

    #[test]
    fn a_descriptor_to_be_stored_passes_with_its_name() {
        let mut supervisor = Supervisor::new();
        let (reader, writer) = io::pipe().expect("a pipe");
        supervisor.tell(Notice::store("state", Descriptor::new(writer))).expect("it is told");
        let (text, descriptors) = supervisor.receive().expect("it came");
        assert_eq!((&text[..], descriptors.len()), ("FDSTORE=1\nFDNAME=state\n", 1));
        drop(descriptors);
        // The runtime closed its own copy after sending, so no other copy is open.
        assert_eq!(io::read_to_string(reader).expect("an end"), "");
    }

    #[test]
    fn a_notice_has_so_many_bytes_and_no_more() {
        // Three complete statuses, and one that fills the notice up to the length.
        let of = |length: usize| {
            let full = || Notice::status(&"x".repeat(1020));
            let rest = length - 3 * full().text().len() - "STATUS=\n".len();
            full().and(full()).and(full()).and(Notice::status(&"y".repeat(rest)))
        };
        for (length, fits) in [(NOTICE_MAX - 1, true), (NOTICE_MAX, true), (NOTICE_MAX + 1, false)] {
            let mut supervisor = Supervisor::new();
            let notice = of(length);
            assert_eq!(notice.text().len(), length);
            assert_eq!(supervisor.tell(notice).is_ok(), fits, "{length} bytes");
            let came = supervisor.receive().map(|(text, _)| text.len()).map_err(|error| error.kind());
            assert_eq!(came, if fits { Ok(length) } else { Err(io::ErrorKind::WouldBlock) });
        }
    }

    #[test]
    fn a_supervisor_that_does_not_read_delays_nobody_and_loses_nothing() {
        let mut supervisor = Supervisor::new();
        // Far more than the socket can hold.
        for number in 0..2000 {
            supervisor.tell(Notice::status(&number.to_string())).expect("it is told");
        }
        for number in 0..2000 {
            let text = loop {
                match supervisor.receive() {
                    Ok((text, _)) => break text,
                    Err(_) => _ = supervisor.runtime.turn(None).expect("the engine is whole"),
                }
            };
            assert_eq!(text, format!("STATUS={number}\n"));
        }
    }

    #[test]
    fn one_that_is_gone_is_a_failure_that_ends_nothing_else() {
        let Supervisor { mut runtime, service, socket } = Supervisor::new();
        drop(socket);
        let tell =
            |service: &mut Supervised, cx: &mut Context<Supervised>| service.receive(cx, Notice::ready());
        for _ in 0..2 {
            runtime.with(service, tell).expect("it lives").expect("it is taken");
            runtime.turn(Some(Duration::ZERO)).expect("the engine is whole");
        }
        let service = runtime.service(service).expect("it lives");
        assert!(!service.is_heard() && service.failure().is_some(), "{service:?}");
    }

    #[test]
    fn an_interval_of_a_virtual_world_that_is_cut_short_is_an_error() {
        let interval = 20_u64.to_le_bytes();
        for length in 0..=interval.len() {
            let (reader, mut writer) = io::pipe().expect("a pipe");
            writer.write_all(&interval[..length]).expect("room");
            drop(writer);
            let mut engine = Candidates::default().open(None).expect("there is one");
            let found = of_world(&mut *engine, Transport::new(reader)).map(|(_, interval)| interval);
            let whole = Some(Duration::from_micros(20));
            let expected =
                if length == interval.len() { Ok(whole) } else { Err(io::ErrorKind::UnexpectedEof) };
            assert_eq!(found.map_err(|error| error.kind()), expected, "{length} bytes");
        }
    }

    #[test]
    fn what_the_environment_says_is_understood_or_refused() {
        let theirs = std::env::temp_dir().join(format!("reactor-supervised-{}", std::process::id()));
        let _bound = UnixDatagram::bind(&theirs).expect("a socket");
        let found = |usec: Option<&str>, pid: Option<&str>| {
            let lookup = |name: &str| match name {
                "NOTIFY_SOCKET" => Some(theirs.clone().into_os_string()),
                "WATCHDOG_USEC" => usec.map(OsString::from),
                "WATCHDOG_PID" => pid.map(OsString::from),
                _ => None,
            };
            let found = of_process(&Environment { lookup: &lookup, process: 77 });
            found.map(|found| found.expect("there is one").1).map_err(|error| error.to_string())
        };
        assert_eq!(found(None, None), Ok(None));
        assert_eq!(found(Some("20"), None), Ok(Some(Duration::from_micros(20))));
        assert_eq!(found(Some("20"), Some("77")), Ok(Some(Duration::from_micros(20))));
        assert_eq!(found(Some("20"), Some("78")), Ok(None));
        for wrong in ["0", "-1", "x", ""] {
            let text = format!("environment WATCHDOG_USEC={wrong}: it is not a number in its range");
            assert_eq!(found(Some(wrong), None), Err(text));
        }
        std::fs::remove_file(&theirs).expect("it was bound there");
        assert!(found(None, None).expect_err("nobody is there").starts_with("notify unix:"));
    }
}
