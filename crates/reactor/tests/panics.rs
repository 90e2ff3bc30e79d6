//! A panic costs one service, and the others go on.

mod common;

use std::{net::TcpStream, time::Duration};

use common::{for_each_engine, is_reset, until, write};
use reactor::{
    Address, AfterPanic, Bytes, Closed, Codec, Context, Decoded, Error, Event, Fault, Handle, Id, Outgoing,
    Panic, Result, Runtime, Service, ServiceId, Stream,
    session::{Io, Layer, Step},
};

#[test]
fn a_panic_in_start_is_the_answer_of_add() {
    struct Never;
    impl Service for Never {
        fn start(&mut self, cx: &mut Context<Self>) -> Result {
            cx.listen("127.0.0.1:0", |_| None::<Stream>)?;
            std::panic::resume_unwind(Box::new("never"))
        }
    }
    impl Handle<Stream> for Never {
        fn handle(&mut self, _: &mut Context<Self>, _: Id<Stream>, _: Event<Bytes>) -> Result {
            Ok(())
        }
    }
    for_each_engine(|engine| {
        let mut runtime = engine.runtime();
        match runtime.add(Never) {
            Err(Error::Panicked { message, .. }) => assert_eq!(message, "never"),
            other => panic!("{other:?}"),
        }
        runtime.turn(Some(Duration::ZERO)).expect("whole");
        assert_eq!(runtime.metrics().read().resources, 0, "what it had registered is closed");
        runtime.run().expect("nobody is left");
    });
}

#[test]
fn an_error_of_start_is_the_answer_of_add() {
    struct Never;
    impl Service for Never {
        fn start(&mut self, _: &mut Context<Self>) -> Result {
            Err("not today".into())
        }
    }
    for_each_engine(|engine| {
        let error = engine.runtime().add(Never).expect_err("it did not start");
        assert!(error.to_string().ends_with("could not start: not today"), "{error}");
    });
}

/// A layer that cannot say how much it holds.
struct Unsure;

impl Layer for Unsure {
    const INPUT_MAX: usize = 0;

    fn ready(&self) -> bool {
        true
    }

    fn open(&mut self, input: &mut [u8], io: &mut Io<'_>) -> Result<Step> {
        ().open(input, io)
    }

    fn seal(&mut self, clear: &[u8], io: &mut Io<'_>) -> Result<usize> {
        ().seal(clear, io)
    }

    fn held(&self) -> usize {
        std::panic::resume_unwind(Box::new("held"))
    }
}

/// A codec for bytes whose drop may panic.
struct Bomb(bool);

impl Drop for Bomb {
    fn drop(&mut self) {
        if self.0 && !std::thread::panicking() {
            std::panic::resume_unwind(Box::new("old codec"));
        }
    }
}

impl Codec for Bomb {
    type In<'a> = &'a [u8];
    type Out<'a> = &'a [u8];

    fn decode<'a>(&mut self, input: &'a mut [u8]) -> Result<Decoded<&'a [u8]>> {
        Ok(Decoded::Item(input.len(), input))
    }

    fn encode(&mut self, item: &[u8], out: &mut Outgoing) -> Result {
        out.put(item);
        Ok(())
    }
}

/// Survives panics. Replaces the codec of the first stream when another one gets bytes.
#[derive(Default)]
struct Survivor {
    open: Vec<Id<Stream<Bomb>>>,
    panics: Vec<Panic>,
    faults: Vec<Fault>,
    closed: Vec<String>,
}

impl Service for Survivor {
    fn panicked(&mut self, _: &mut Context<Self>, panic: &Panic) -> AfterPanic {
        self.panics.push(panic.clone());
        AfterPanic::EndResource
    }

    fn fault(&mut self, _: &mut Context<Self>, fault: Fault) {
        self.faults.push(fault);
    }
}

impl Handle<Stream<Bytes, Unsure>> for Survivor {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Stream<Bytes, Unsure>>, event: Event<Bytes>) -> Result {
        panic!("nobody is connected: {event:?}")
    }

    fn closed(
        &mut self,
        _: &mut Context<Self>,
        _: Id<Stream<Bytes, Unsure>>,
        _: Stream<Bytes, Unsure>,
        why: Closed,
    ) {
        panic!("nobody was connected: {why}")
    }
}

impl Handle<Stream<Bomb>> for Survivor {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream<Bomb>>, event: Event<Bomb>) -> Result {
        match event {
            Event::Open => self.open.push(id),
            Event::Received(_) => _ = cx.map_codec(self.open[0], |_| Bytes)?,
            _ => (),
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<Stream<Bomb>>, _: Stream<Bomb>, why: Closed) {
        self.closed.push(why.to_string());
    }
}

impl Handle<Stream> for Survivor {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Stream>, _: Event<Bytes>) -> Result {
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<Stream>, _: Stream, why: Closed) {
        self.closed.push(format!("changed: {why}"));
    }
}

fn survivor(runtime: &Runtime, id: ServiceId<Survivor>) -> &Survivor {
    runtime.service(id).expect("it lives")
}

#[test]
fn a_panic_while_streams_are_registered_leaves_none_behind() {
    const PEERS: usize = 50;
    for_each_engine(|engine| {
        let mut runtime = engine.runtime();
        let id = runtime.add(Survivor::default()).expect("it starts");
        let address = runtime.with(id, |_, cx| -> Result<Address> {
            let listener = cx.listen("127.0.0.1:0", |_| Some(Stream::over(Bytes, Unsure)))?;
            Ok(cx.local(listener)?)
        });
        let address = address.expect("it lives").expect("it listens").ip().expect("an IP address");
        let peers: Vec<_> = (0..PEERS).map(|_| TcpStream::connect(address).expect("it listens")).collect();
        until(&mut runtime, |runtime| survivor(runtime, id).faults.len() == PEERS);
        for mut peer in peers {
            assert!(is_reset(&mut peer), "the connection is lost");
        }
        let told = survivor(&runtime, id);
        assert!(told.faults.iter().all(|fault| matches!(fault, Fault::Panicked(_))), "{:?}", told.faults);
        assert!(told.panics.iter().all(|panic| panic.message == "held" && panic.resource.is_none()));
        runtime.turn(Some(Duration::ZERO)).expect("whole");
        assert_eq!(runtime.metrics().read().resources, 1, "only the listener is left");
    });
}

#[test]
fn a_panic_in_the_drop_of_a_replaced_codec_ends_its_stream_too() {
    for_each_engine(|engine| {
        let mut runtime = engine.runtime();
        let id = runtime.add(Survivor::default()).expect("it starts");
        let address = runtime.with(id, |_, cx| -> Result<Address> {
            let mut armed = true;
            let make = move |_: &Address| Some(Stream::new(Bomb(std::mem::take(&mut armed))));
            let listener = cx.listen("127.0.0.1:0", make)?;
            Ok(cx.local(listener)?)
        });
        let address = address.expect("it lives").expect("it listens").ip().expect("an IP address");
        let connect = || TcpStream::connect(address).expect("it listens");
        let mut first = connect();
        until(&mut runtime, |runtime| survivor(runtime, id).open.len() == 1);
        let mut second = connect();
        write(&mut runtime, &mut second, b"replace");
        until(&mut runtime, |runtime| survivor(runtime, id).closed.len() == 2);
        // The engine closes a socket after its operations in the kernel.
        until(&mut runtime, |_| is_reset(&mut first));
        until(&mut runtime, |_| is_reset(&mut second));
        let told = survivor(&runtime, id);
        assert!(told.panics.len() == 1 && told.panics[0].is_of(told.open[1]), "{:?}", told.panics);
        assert!(told.closed.iter().any(|why| why.starts_with("changed: ")), "{:?}", told.closed);
        runtime.turn(Some(Duration::ZERO)).expect("whole");
        assert_eq!(runtime.metrics().read().resources, 1, "only the listener is left");
    });
}
