//! The harness: a test's view of one service, and its control over it.

use std::time::Duration;

use reactor::{
    Bytes, Call, Closed, Context, Error, Event, Flow, Handle, Id, Receive, Result, Service, ServiceId, Stream,
};
use sim::{Harness, Peer};

/// Echoes, connects out on demand, and notes how connections ended.
#[derive(Default)]
struct Echo {
    begins_with: Option<&'static str>,
    out: Vec<Id<Stream>>,
    ended: Vec<String>,
    highs: u32,
    ticks: u32,
}

impl Service for Echo {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        cx.listen("127.0.0.1:7007", |_| Some(Stream::new(Bytes)))?;
        if let Some(address) = self.begins_with {
            self.out.push(cx.connect(address, Stream::new(Bytes))?);
        }
        Ok(())
    }
}

impl Handle<Stream> for Echo {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
        if let Event::Received(bytes) = event {
            if bytes == b"panic" {
                panic!("as asked");
            }
            if cx.send(id, bytes) == Flow::High {
                self.highs += 1;
            }
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<Stream>, _: Stream, why: Closed) {
        let io = why.io().map(|error| format!("{:?}", error.kind()));
        self.ended.push(io.unwrap_or_else(|| format!("{why:?}")));
    }
}

impl Receive<u32> for Echo {
    fn receive(&mut self, _: &mut Context<Self>, by: u32) -> Result {
        self.ticks += by;
        Ok(())
    }
}

fn echo() -> Harness<Echo> {
    Harness::new(Echo::default()).expect("it starts")
}

#[test]
fn an_echo_is_there_as_soon_as_the_call_returns() {
    let mut harness = echo();
    let peer = harness.connect("127.0.0.1:7007").expect("an address");
    assert!(peer.is_open() && !peer.is_ended());
    peer.send(b"one");
    assert_eq!(peer.received(), b"one");
    assert_eq!(peer.received(), b"", "taken already");
    peer.finish();
    assert!(peer.is_ended() && harness.service().ended == ["End"]);
    assert!(matches!(peer.closed().as_deref(), Some(Closed::End)), "{:?}", peer.closed());
}

/// Checks that all sent bytes came back.
#[track_caller]
fn came_back(harness: &Harness<Echo>, peer: &Peer, sent: &[u8]) {
    let (got, echo) = (peer.received(), harness.service());
    assert!(
        got == sent,
        "{} bytes, {peer:?}, {:?}",
        got.len(),
        (&echo.ended, echo.highs, harness.next_deadline())
    );
}

#[test]
fn more_than_a_window_goes_through() {
    let mut harness = echo();
    let peer = harness.connect("127.0.0.1:7007").expect("an address");
    let sent: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    peer.send(&sent);
    came_back(&harness, &peer, &sent);
}

#[test]
fn a_paused_peer_is_felt_as_backpressure_and_nothing_is_lost() {
    let mut harness = echo();
    let peer = harness.connect("127.0.0.1:7007").expect("an address");
    peer.pause();
    let sent: Vec<u8> = (0..400_000_u32).map(|n| (n % 241) as u8).collect();
    peer.send(&sent);
    assert!(peer.received().is_empty());
    assert!(harness.service().highs > 0, "the window never filled");
    peer.resume();
    came_back(&harness, &peer, &sent);
}

#[test]
fn a_reset_and_a_refused_connect_show_on_both_sides() {
    let mut harness = echo();
    let peer = harness.connect("127.0.0.1:7007").expect("an address");
    peer.reset();
    assert_eq!(harness.service().ended, ["ConnectionReset"]);
    let refused = harness.connect("127.0.0.1:9").expect("an address");
    assert!(!refused.is_open() && refused.is_ended());
    let kind = refused.closed().and_then(|why| why.io().map(|error| error.kind()));
    assert_eq!(kind, Some(std::io::ErrorKind::ConnectionRefused));
    assert!(harness.connect("nonsense").is_err());
}

#[test]
fn the_test_is_who_the_service_connects_to() {
    let address = "93.184.216.34:80";
    let service = Echo { begins_with: Some(address), ..Echo::default() };
    let mut harness = Harness::listening(&[address], service).expect("it starts");
    let peer = harness.expect_connect(address);
    peer.send(b"hello");
    assert_eq!(peer.received(), b"hello");
    harness.listen("[2001:db8::1]:25").expect("every address is the harness's");
    let id = harness.with(|_, cx| cx.connect("[2001:db8::1]:25", Stream::new(Bytes))).expect("it begins");
    harness.with(|_, cx| cx.send(id, b"more".as_slice()));
    assert_eq!(harness.expect_connect("[2001:db8::1]:25").received(), b"more");
}

#[test]
fn a_path_is_an_address_too() {
    let mut harness = echo();
    let refused = harness.with(|_, cx| cx.connect("/run/log", Stream::new(Bytes)));
    assert!(refused.is_err(), "nobody listens yet");
    harness.listen("/run/log").expect("it is free");
    harness.listen("/run/log").expect("once is enough");
    let id = harness.with(|_, cx| cx.connect("/run/log", Stream::new(Bytes))).expect("it begins");
    harness.with(|_, cx| cx.send(id, b"line".as_slice()));
    let peer = harness.expect_connect("/run/log");
    assert_eq!(peer.received(), b"line");
    harness.with(|_, cx| cx.abort(id));
    assert!(peer.is_ended());
    assert!(harness.listen("127.0.0.1:7007").is_err(), "the service listens there");
}

#[test]
#[should_panic(expected = "the service made no connection to 127.0.0.1:80")]
fn a_connect_that_never_came_is_told() {
    echo().expect_connect("127.0.0.1:80");
}

#[test]
fn a_timer_fires_at_its_time_and_not_before() {
    let mut harness = echo();
    harness.with(|_, cx| cx.after(Duration::from_secs(5), 3_u32));
    assert_eq!(harness.timers(), 1);
    let due = harness.next_deadline().expect("a timer is pending");
    assert!(due <= Duration::from_secs(5) && due > Duration::from_millis(4_990), "{due:?}");
    harness.advance(Duration::from_millis(4_990));
    assert_eq!(harness.service().ticks, 0);
    harness.advance(Duration::from_millis(10));
    assert_eq!((harness.service().ticks, harness.timers()), (3, 0));
    assert_eq!(harness.next_deadline(), None);
}

#[test]
fn events_can_be_handed_over_directly_and_calls_are_noted() {
    let mut harness = echo();
    let peer = harness.connect("127.0.0.1:7007").expect("an address");
    assert!(matches!(harness.calls()[..], [Call::Handle { service: 0, .. }]), "it was told that it is open");
    peer.send(b"x");
    let calls = harness.calls();
    let [Call::Handle { resource: first, .. }] = calls[..] else { panic!("{calls:?}") };
    harness.with(|service, cx| service.receive(cx, 7)).expect("it takes it");
    assert_eq!((harness.service().ticks, harness.calls().len()), (7, 0), "not a call of the runtime");
    peer.finish();
    assert_eq!(
        harness.calls()[1..],
        [Call::Closed { service: 0, resource: first }],
        "after the end only this"
    );
}

#[test]
fn offloaded_work_ends_as_time_passes() {
    let mut harness = echo();
    harness.with(|_, cx| cx.offload(|| 5_u32).expect("there is room"));
    assert_eq!(harness.service().ticks, 0);
    harness.advance(Duration::from_millis(6));
    assert_eq!(harness.service().ticks, 5);
}

#[test]
fn a_stop_says_what_was_cut_and_how_long_it_took() {
    let mut harness = echo();
    let peer = harness.connect("127.0.0.1:7007").expect("an address");
    peer.send(b"x");
    let before = harness.now();
    let receipt = harness.stop(Duration::from_secs(1)).check().expect("no panic");
    assert!(harness.now() - before <= Duration::from_millis(1_001));
    assert_eq!((receipt.services.len(), receipt.bytes_dropped), (1, 0));
    assert_eq!(peer.received(), b"x");
    assert!(peer.is_ended(), "it was told");
}

#[test]
fn a_failed_start_and_a_panic_are_told() {
    let service = Echo { begins_with: Some("not an address"), ..Echo::default() };
    assert!(matches!(Harness::new(service), Err(Error::Start { .. })));
    let mut harness = echo();
    let peer = harness.connect("127.0.0.1:7007").expect("an address");
    peer.send(b"panic");
    assert!(peer.is_ended());
    let receipt = harness.stop(Duration::from_secs(1));
    assert_eq!(receipt.services[0].panicked.as_deref(), Some("as asked"));
}

/// Passes each number on, minus one, to the service that it knows.
#[derive(Default)]
struct Passes {
    to: Option<ServiceId<Echo>>,
    back: Option<ServiceId<Passes>>,
    got: Vec<u64>,
}

impl Service for Passes {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        cx.listen("127.0.0.1:7008", |_| Some(Stream::new(Bytes)))?;
        Ok(())
    }
}

impl Handle<Stream> for Passes {
    fn handle(&mut self, cx: &mut Context<Self>, _: Id<Stream>, event: Event<Bytes>) -> Result {
        if let (Event::Received(bytes), Some(to)) = (event, self.to) {
            cx.tell(to, bytes.len() as u32)?;
        }
        Ok(())
    }
}

impl Receive<u64> for Passes {
    fn receive(&mut self, cx: &mut Context<Self>, number: u64) -> Result {
        self.got.push(number);
        match (number, self.back) {
            (13, _) => panic!("as asked"),
            (1.., Some(back)) => cx.tell(back, number - 1)?,
            _ => (),
        }
        Ok(())
    }
}

#[test]
fn several_services_of_one_bed_tell_each_other_and_each_has_its_peers() {
    let mut harness = echo();
    let second = harness.add(Passes { to: Some(harness.id()), ..Passes::default() }).expect("it starts");
    let peer = harness.connect("127.0.0.1:7008").expect("an address");
    peer.send(b"12345");
    assert_eq!(harness.service().ticks, 5, "it was told");
    let first = harness.connect("127.0.0.1:7007").expect("an address");
    first.send(b"one");
    assert_eq!(first.received(), b"one");
    // The service sends the message to itself.
    harness.with_service(second, |passes, cx| passes.back = Some(cx.me()));
    harness.with_service(second, |passes, cx| passes.receive(cx, 3)).expect("there is room");
    assert_eq!(harness.service_of(second).got, [3, 2, 1, 0]);
    harness.calls();
    harness.with(|_, cx| cx.after(Duration::from_secs(1), 1_u32));
    harness.with_service(second, |_, cx| cx.after(Duration::from_secs(1), 7_u64));
    assert_eq!(harness.timers(), 2);
    harness.advance(Duration::from_secs(1));
    let calls = harness.calls();
    assert!(calls.contains(&Call::Receive { service: 0 }) && calls.contains(&Call::Receive { service: 1 }));
}

#[test]
fn a_service_that_cannot_start_or_panics_leaves_the_others_of_its_bed() {
    let mut harness = echo();
    let failed = harness.add(Echo::default());
    assert!(matches!(failed, Err(Error::Start { .. })), "the address is taken");
    let second = harness.add(Passes::default()).expect("it starts");
    harness.with_service(second, |_, cx| cx.tell(cx.me(), 13_u64)).expect("there is room");
    let peer = harness.connect("127.0.0.1:7007").expect("an address");
    peer.send(b"x");
    assert_eq!(peer.received(), b"x");
    let receipt = harness.stop(Duration::from_secs(1));
    assert_eq!(receipt.services.len(), 3);
    assert_eq!(receipt.services[2].panicked.as_deref(), Some("as asked"));
}

#[test]
#[should_panic(expected = "the service has ended")]
fn a_service_of_another_bed_is_not_there() {
    let other = echo().id();
    let harness = echo();
    harness.service_of(other);
}
