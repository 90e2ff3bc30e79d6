//! A runtime goes on after its `run`, and its next receipt is whole.

mod common;

use std::{
    io::Read as _,
    net::{TcpListener, TcpStream},
    time::Duration,
};

use common::{LONG, for_each_engine, tcp_pair};
use reactor::{
    Bytes, Context, Error, Event, Fd, Handle, Id, Interest, Ready, Receipt, Receive, Refused, Result,
    Runtime, Service, ServiceId, Stream,
    file::{File, FileEvent, FileReader, FileWriter, Operation, WriterEvent},
};

/// Ends at once.
struct Idle;
impl Service for Idle {}

/// Has an error that it does not take.
struct Wrong;

impl Service for Wrong {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        cx.after(Duration::ZERO, ());
        Ok(())
    }
}

impl Receive<()> for Wrong {
    fn receive(&mut self, _: &mut Context<Self>, (): ()) -> Result {
        Err("it went wrong".into())
    }
}

struct Never;

impl Service for Never {
    fn start(&mut self, _: &mut Context<Self>) -> Result {
        Err("not today".into())
    }
}

fn run(runtime: &mut Runtime) -> Receipt {
    runtime.run().expect("the engine works")
}

/// Makes a runtime that has run once.
fn ran(engine: common::Engine) -> (Runtime, ServiceId<Idle>) {
    let mut runtime = engine.runtime();
    let service = runtime.add(Idle).expect("it starts");
    let receipt = run(&mut runtime).check().expect("nothing failed");
    assert_eq!(receipt.services.len(), 1);
    (runtime, service)
}

#[test]
fn a_panic_after_run_costs_its_service_and_is_in_the_next_receipt() {
    for_each_engine(|engine| {
        let (mut runtime, service) = ran(engine);
        let result: Option<()> = runtime.with(service, |_, _| std::panic::resume_unwind(Box::new("late")));
        assert_eq!(result, None);
        assert!(runtime.service(service).is_none());
        let receipt = run(&mut runtime);
        assert_eq!(receipt.services[0].panicked.as_deref(), Some("late"));
        assert_eq!(receipt.services[0].panics, 1);
        assert!(matches!(receipt.check(), Err(Error::Failed(_))));
    });
}

#[test]
fn a_service_that_does_not_start_after_run_is_the_answer_of_add() {
    for_each_engine(|engine| {
        let (mut runtime, _) = ran(engine);
        assert!(matches!(runtime.add(Never), Err(Error::Start { .. })));
        let receipt = run(&mut runtime);
        assert_eq!(receipt.services[1].first_errors, ["could not start: not today"]);
    });
}

#[test]
fn errors_of_a_service_added_after_run_are_in_the_next_receipt() {
    for_each_engine(|engine| {
        let (mut runtime, _) = ran(engine);
        runtime.add(Wrong).expect("it starts");
        let receipt = run(&mut runtime);
        let [idle, wrong] = &receipt.services[..] else { panic!("{receipt:?}") };
        assert!(!idle.is_failed() && wrong.is_failed());
        assert_eq!((wrong.faults, wrong.errors), (1, 1));
        assert_eq!(wrong.first_errors, ["it went wrong"]);
        // Nothing is forgotten by the one after that either.
        let receipt = run(&mut runtime);
        assert_eq!((receipt.services[1].errors, receipt.services.len()), (1, 2));
    });
}

/// Notes the messages that it receives.
#[derive(Default)]
struct Worker(Vec<&'static str>);
struct Came(&'static str);

impl Service for Worker {}
impl Receive<Came> for Worker {
    fn receive(&mut self, _: &mut Context<Self>, Came(what): Came) -> Result {
        self.0.push(what);
        Ok(())
    }
}

impl Handle<Stream> for Worker {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
        match event {
            Event::Open if cx.get(id).is_some_and(Stream::is_outbound) => _ = cx.send(id, b"x"),
            Event::Received(_) => {
                self.0.push("input");
                cx.close_all();
            }
            _ => (),
        }
        Ok(())
    }
}

#[test]
fn a_second_run_has_timers_messages_and_connections_but_no_commands_or_jobs() {
    for_each_engine(|engine| {
        let mut runtime = engine.runtime();
        let worker = runtime.add(Worker::default()).expect("it starts");
        run(&mut runtime);
        runtime.with(worker, |_, cx| {
            cx.after(Duration::ZERO, Came("timer"));
            cx.tell(cx.me(), Came("told")).expect("room");
            cx.offload(|| Came("job")).expect("room");
            let listener = cx.listen("127.0.0.1:0", |_| Some(Stream::new(Bytes))).expect("a port");
            let address = cx.local(listener).expect("it has one");
            cx.connect(address, Stream::new(Bytes)).expect("it connects");
        });
        assert!(runtime.controller(worker).send(Came("command")).is_err());
        let receipt = run(&mut runtime);
        assert_eq!(receipt.services[0].first_faults, ["an offloaded job failed: the runtime has ended"]);
        let mut came = runtime.service(worker).expect("it lives").0.clone();
        came.sort_unstable();
        assert_eq!(came, ["input", "timer", "told"]);
    });
}

/// Has a listener, a stream and a resource of its own, and ends by a panic or by a stop.
struct Owner {
    ours: Option<(TcpStream, TcpStream)>,
    panics: bool,
    port: u16,
}

impl Service for Owner {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let (one, other) = self.ours.take().ok_or("it starts once")?;
        other.set_nonblocking(true)?;
        cx.add(Stream::new(Bytes).on(one)?)?;
        cx.add(Fd::new(other, Interest::Read))?;
        let listener = cx.listen("127.0.0.1:0", |_| Some(Stream::new(Bytes)))?;
        self.port = cx.local(listener)?.ip().ok_or("an IP address")?.port();
        // Later than the turn in which the engine begins to wait for input.
        cx.after(common::SHORT, ());
        Ok(())
    }
}

impl Receive<()> for Owner {
    fn receive(&mut self, cx: &mut Context<Self>, (): ()) -> Result {
        if self.panics {
            std::panic::resume_unwind(Box::new("the end"));
        }
        cx.stop(Duration::ZERO);
        Ok(())
    }
}

impl Handle<Stream> for Owner {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Stream>, _: Event<Bytes>) -> Result {
        Ok(())
    }
}

impl Handle<Fd<TcpStream>> for Owner {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Fd<TcpStream>>, _: Ready) -> Result {
        Ok(())
    }
}

#[test]
fn the_ends_are_complete_when_run_returns_and_the_runtime_lives() {
    for_each_engine(|engine| {
        for panics in [false, true] {
            let mut runtime = engine.runtime();
            let ((one, first), (other, second)) = (tcp_pair(), tcp_pair());
            let service =
                runtime.add(Owner { ours: Some((one, other)), panics, port: 0 }).expect("it starts");
            let port = runtime.service(service).expect("it lives").port;
            run(&mut runtime);
            for mut peer in [first, second] {
                peer.set_read_timeout(Some(LONG)).expect("a socket");
                assert_eq!(peer.read(&mut [0; 16]).expect("an end in order"), 0, "panics: {panics}");
            }
            TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
            drop(runtime);
        }
    });
}

/// Uses files, and counts the answers.
#[derive(Default)]
struct Clerk(usize);

impl Service for Clerk {}

impl Receive<()> for Clerk {
    fn receive(&mut self, _: &mut Context<Self>, (): ()) -> Result {
        self.0 += 1;
        Ok(())
    }
}

impl Handle<FileWriter> for Clerk {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<FileWriter>, _: WriterEvent) -> Result {
        Ok(())
    }
}

impl Handle<FileReader> for Clerk {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<FileReader>, _: FileEvent<'_>) -> Result {
        Ok(())
    }
}

#[test]
fn files_are_refused_after_run_and_nobody_waits_for_their_answer() {
    for_each_engine(|engine| {
        let (mut runtime, _) = ran(engine);
        let clerk = runtime.add(Clerk::default()).expect("it starts");
        let asked = runtime.with(clerk, |_, cx| cx.file(Operation::stat("/"), |_| ()));
        assert!(matches!(asked, Some(Err(Refused::Gone(_)))));
        let null = || File::new(std::fs::File::open("/dev/null").expect("it is there"), "/dev/null");
        let read = runtime.with(clerk, |_, cx| cx.add(FileReader::new(null())).map(drop));
        let written = runtime.with(clerk, |_, cx| cx.add(FileWriter::new(null())).map(drop));
        let read = read.expect("it lives").expect_err("it is refused").error;
        let written = written.expect("it lives").expect_err("it is refused").error;
        for error in [read, written] {
            assert!(error.to_string().contains("run to its end"), "{error}");
        }
        run(&mut runtime).check().expect("nothing failed");
        assert_eq!(runtime.service(clerk).expect("it lives").0, 0);
    });
}
