//! Errors whose own text panics cost nobody more than an error does.

mod common;

use std::{fmt, io::Write, time::Duration};

use common::{Engine, for_each_engine, is_ended, tcp_pair, until};
use reactor::{Bytes, Context, Error, Event, Fault, Handle, Id, Receive, Result, Runtime, Service, Stream};

/// An error that has no text.
#[derive(Debug)]
struct Mute;

impl fmt::Display for Mute {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Resumed, so that the panic prints nothing.
        std::panic::resume_unwind(Box::new("no text"))
    }
}

impl std::error::Error for Mute {}

const TEXT: &str = "(its text panicked: no text)";

/// Fails in its start, in a handler, or in a receiver.
struct Fails {
    in_start: bool,
    faults: usize,
}

impl Service for Fails {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        cx.after(Duration::from_secs(60), ());
        if self.in_start { Err(Mute.into()) } else { Ok(()) }
    }

    fn fault(&mut self, _: &mut Context<Self>, fault: Fault) {
        assert!(matches!(fault, Fault::Receive(failure) if failure.is::<Mute>()));
        self.faults += 1;
    }
}

impl Receive<()> for Fails {
    fn receive(&mut self, _: &mut Context<Self>, (): ()) -> Result {
        Err(Mute.into())
    }
}

impl Handle<Stream> for Fails {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Stream>, event: Event<Bytes>) -> Result {
        if matches!(event, Event::Received(_)) { Err(Mute.into()) } else { Ok(()) }
    }
}

/// Leaves its faults to the default.
struct Careless;

impl Service for Careless {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        cx.after(Duration::ZERO, ());
        Ok(())
    }
}

impl Receive<()> for Careless {
    fn receive(&mut self, _: &mut Context<Self>, (): ()) -> Result {
        Err(Mute.into())
    }
}

fn lives_on(engine: Engine, fail: impl FnOnce(&mut Runtime, reactor::ServiceId<Fails>)) {
    let mut runtime = engine.runtime();
    let service = runtime.add(Fails { in_start: false, faults: 0 }).expect("it starts");
    fail(&mut runtime, service);
    assert_eq!(runtime.metrics().read().panics, 0);
    assert!(runtime.service(service).is_some(), "it lives");
}

#[test]
fn a_start_whose_error_has_no_text_is_the_answer_of_add() {
    for_each_engine(|engine| {
        let mut runtime = engine.runtime();
        match runtime.add(Fails { in_start: true, faults: 0 }) {
            Err(Error::Start { failure, .. }) => assert!(failure.is::<Mute>()),
            other => panic!("{:?}", other.map(|_| ())),
        }
        let receipt = runtime.run().expect("nothing is left of it");
        assert_eq!(receipt.services[0].first_errors, [format!("could not start: {TEXT}")]);
    });
}

#[test]
fn a_receiver_whose_error_has_no_text_is_told_of_its_fault() {
    for_each_engine(|engine| {
        lives_on(engine, |runtime, service| {
            runtime.with(service, |_, cx| cx.after(Duration::ZERO, ()));
            until(runtime, |runtime| runtime.service(service).is_some_and(|service| service.faults == 1));
        });
    });
}

#[test]
fn a_handler_whose_error_has_no_text_costs_its_stream() {
    for_each_engine(|engine| {
        lives_on(engine, |runtime, service| {
            let (ours, mut peer) = tcp_pair();
            let added =
                runtime.with(service, |_, cx| cx.add(Stream::new(Bytes).on(ours).expect("a socket")).is_ok());
            assert_eq!(added, Some(true));
            peer.write_all(b"x").expect("room");
            until(runtime, |_| is_ended(&mut peer));
            runtime.with(service, |_, cx| cx.stop(Duration::ZERO));
            let receipt = runtime.run().expect("it stops");
            let [text] = &receipt.services[0].first_errors[..] else { panic!("{receipt:?}") };
            assert!(text.ends_with(TEXT), "{text}");
        });
    });
}

#[test]
fn a_fault_without_a_text_that_nobody_takes_is_in_the_receipt() {
    for_each_engine(|engine| {
        let mut runtime = engine.runtime();
        runtime.add(Careless).expect("it starts");
        let receipt = runtime.run().expect("it ends");
        let service = &receipt.services[0];
        assert_eq!((service.panics, &service.panicked), (0, &None));
        assert_eq!(service.first_faults, [TEXT]);
        assert_eq!(service.first_errors, [TEXT]);
    });
}
