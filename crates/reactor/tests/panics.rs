//! A panic costs one service, and the others go on.

mod common;

use std::{cell::Cell, io::Write, rc::Rc, time::Duration};

use common::{Engine, LONG, Probe, SHORT, Seen, World, for_each_engine, is_ended, settle, tcp_pair, until};
use reactor::{
    Bytes, Closed, Codec, Context, Error, Event, Fault, Handle, Id, Layer, Outgoing, Receive, Refused, Reply,
    Result, Runtime, Service, ServiceId, Stream, Unanswered,
    session::{Io, Next, Step},
};

/// The call in which the service panics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    Open,
    Received,
    End,
    Drained,
    Closed,
    Receive,
    Timer,
    Fault,
    Stop,
    Accept,
    Decode,
    Encode,
    LayerOpen,
    LayerSeal,
    ServiceDrop,
    ResourceDrop,
}

const ALL: [At; 16] = [
    At::Open,
    At::Received,
    At::End,
    At::Drained,
    At::Closed,
    At::Receive,
    At::Timer,
    At::Fault,
    At::Stop,
    At::Accept,
    At::Decode,
    At::Encode,
    At::LayerOpen,
    At::LayerSeal,
    At::ServiceDrop,
    At::ResourceDrop,
];

struct Bomb {
    at: At,
    closed: Rc<Cell<u32>>,
}

impl At {
    fn check(self, at: At) {
        if self == at {
            // Resume instead of panicking, so that the expected panics do not fill the output.
            std::panic::resume_unwind(Box::new(format!("at {at:?}")));
        }
    }
}

struct Code(At);
impl Codec for Code {
    type In<'a> = &'a [u8];
    type Out<'a> = &'a [u8];
    fn decode<'a>(&mut self, input: &'a mut [u8]) -> Result<reactor::Decoded<&'a [u8]>> {
        self.0.check(At::Decode);
        Ok(reactor::Decoded::Item(input.len(), input))
    }
    fn encode(&mut self, item: &[u8], out: &mut Outgoing) -> Result {
        self.0.check(At::Encode);
        out.put(item);
        Ok(())
    }
}
impl Drop for Code {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.0.check(At::ResourceDrop);
        }
    }
}

struct Coat(At);
impl Layer for Coat {
    const INPUT_MAX: usize = 0;
    fn ready(&self) -> bool {
        true
    }
    fn open(&mut self, input: &mut [u8], io: &mut Io<'_>) -> Result<Step> {
        self.0.check(At::LayerOpen);
        io.up.extend_from_slice(input);
        Ok(Step { used: input.len(), next: Next::Wait })
    }
    fn seal(&mut self, clear: &[u8], io: &mut Io<'_>) -> Result<usize> {
        self.0.check(At::LayerSeal);
        io.down.put(clear);
        Ok(clear.len())
    }
}

type Bombed = Stream<Code, Coat>;
struct Ask(Reply<()>);

impl Service for Bomb {
    fn stop(&mut self, cx: &mut Context<Self>) {
        self.at.check(At::Stop);
        cx.close_all();
    }
    fn fault(&mut self, _: &mut Context<Self>, _: Fault) {
        self.at.check(At::Fault);
    }
}
impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.at.check(At::ServiceDrop);
        }
    }
}
impl Handle<Bombed> for Bomb {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Bombed>, event: Event<Code>) -> Result {
        match event {
            Event::Open => self.at.check(At::Open),
            Event::Received(bytes) => {
                self.at.check(At::Received);
                cx.send(id, bytes);
                if self.at == At::Drained {
                    cx.send(id, &vec![0; 100 << 10][..]);
                }
            }
            Event::End => self.at.check(At::End),
            Event::Drained => self.at.check(At::Drained),
            Event::HungUp => (),
        }
        Ok(())
    }
    fn closed(&mut self, _: &mut Context<Self>, _: Id<Bombed>, _: Bombed, _: Closed) {
        self.closed.set(self.closed.get() + 1);
        self.at.check(At::Closed);
    }
}
impl Receive<u64> for Bomb {
    fn receive(&mut self, _: &mut Context<Self>, n: u64) -> Result {
        self.at.check(if n == 0 { At::Timer } else { At::Receive });
        if self.at == At::Fault { Err("a fault".into()) } else { Ok(()) }
    }
}
impl Receive<Ask> for Bomb {
    fn receive(&mut self, _: &mut Context<Self>, ask: Ask) -> Result {
        ask.0.send(());
        Ok(())
    }
}

fn bomb(runtime: &mut Runtime, at: At) -> (ServiceId<Bomb>, Rc<Cell<u32>>, std::net::TcpStream) {
    let closed = Rc::new(Cell::new(0));
    let service = runtime.add(Bomb { at, closed: closed.clone() }).expect("it starts");
    let (ours, peer) = tcp_pair();
    let address = runtime
        .with(service, |_, cx| {
            let stream = Stream::over(Code(at), Coat(at)).on(ours).expect("a socket");
            assert!(cx.add(stream).is_ok());
            cx.after(SHORT, 0);
            let listener = cx.listen("127.0.0.1:0", move |_| -> Option<Bombed> {
                at.check(At::Accept);
                None
            });
            cx.local(listener.expect("a port")).expect("bound").ip().expect("IP")
        })
        .expect("it lives");
    drop(std::net::TcpStream::connect(address).expect("it listens"));
    (service, closed, peer)
}

fn provoke(engine: Engine, at: At) {
    let echo = Probe::new(|cx, id, seen| {
        if let Seen::Got(bytes) = seen {
            cx.send(id, &bytes[..]);
        }
        Ok(())
    });
    let mut others = World::new(engine.runtime(), echo, Stream::new(Bytes));
    let (service, closed, mut peer) = bomb(&mut others.runtime, at);
    let controller = others.runtime.controller(service);
    peer.write_all(b"x").expect("room");
    controller.send(1_u64).expect("room");
    if matches!(at, At::ServiceDrop | At::ResourceDrop | At::Closed | At::End | At::Drained | At::Stop) {
        settle(&mut others.runtime);
        let _ = common::read(&mut others.runtime, &mut peer, 1);
    }
    match at {
        At::Stop => others.with(|cx, _| cx.stop(LONG)),
        At::ServiceDrop => drop(peer.shutdown(std::net::Shutdown::Both)),
        At::Drained => drop(common::read(&mut others.runtime, &mut peer, 100 << 10)),
        At::End | At::Closed | At::ResourceDrop => drop(peer.shutdown(std::net::Shutdown::Write)),
        _ => (),
    }
    if at == At::ServiceDrop {
        // Only the end of the runtime drops a service: see below.
        others.runtime.with(service, |_, cx| cx.close_all());
        settle(&mut others.runtime);
        return drop(others);
    }
    until(&mut others.runtime, |runtime| runtime.metrics().read().panics == 1);
    assert!(others.runtime.service(service).is_none(), "{at:?}: it is gone");
    assert!(matches!(controller.send(7_u64), Err(Refused::Gone(7))), "{at:?}");
    assert!(matches!(controller.ask(Ask).wait_for(LONG), Err(Unanswered::Gone)), "{at:?}");
    assert_eq!(
        closed.get(),
        (at == At::Closed || at == At::ResourceDrop) as u32,
        "{at:?}: no closed for what is left"
    );
    until(&mut others.runtime, |_| is_ended(&mut peer));
    if at != At::Stop {
        others.peer.write_all(b"still here").expect("room");
        assert_eq!(others.read(10), b"still here", "{at:?}: the others go on");
        others.with(|cx, _| cx.stop(Duration::ZERO));
    } else {
        drop(std::mem::replace(&mut others.peer, tcp_pair().0));
    }
    let receipt = others.runtime.run().expect("it stops");
    assert_eq!(receipt.services[1].panicked.as_deref(), Some(&*format!("at {at:?}")));
    assert!(receipt.services[0].panicked.is_none());
    assert!(matches!(receipt.check(), Err(Error::Failed(_))));
}

#[test]
fn a_panic_in_each_callback_costs_its_service_and_nothing_else() {
    for_each_engine(|engine| {
        for at in ALL {
            eprintln!("at {at:?}");
            provoke(engine, at);
        }
    });
}

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
