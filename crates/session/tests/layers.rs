//! The toy layers through the kit: alone, behind a transparent layer, and nested.

use session::kit::{self, Peer, Preamble, PreambleError, Toy, ToyError};
use session::{
    Boxed, Either, Io, Layer, LayerError, Next, Phase, Pool, Result, Session, Stack, Step, Truncated,
};

const KNOCK: &str = "KNOCK 1.0\n";
const ENTER: &str = "ENTER\n";

fn toys() -> (Toy, Toy) {
    (Toy::client(7), Toy::server(11))
}

fn preambles() -> (Preamble, Preamble) {
    (Preamble::new(KNOCK, ENTER), Preamble::new(ENTER, KNOCK))
}

fn behind_preamble() -> ((Preamble, Toy), (Preamble, Toy)) {
    let ((a, b), (c, d)) = (preambles(), toys());
    ((a, c), (b, d))
}

/// Makes a pair in which the end that awaits the first preamble has the cipher that speaks first.
fn speaks_first_behind_preamble() -> ((Preamble, Toy), (Preamble, Toy)) {
    let ((a, b), (client, server)) = (preambles(), toys());
    ((a, server), (b, client))
}

fn toy_in_toy() -> (Stack<Toy, Toy>, Stack<Toy, Toy>) {
    (Stack::new(Toy::client(1), Toy::client(2)), Stack::new(Toy::server(3), Toy::server(4)))
}

fn preamble_in_toy() -> (Stack<Toy, Preamble>, Stack<Toy, Preamble>) {
    let ((a, b), (c, d)) = (toys(), preambles());
    (Stack::new(a, c), Stack::new(b, d))
}

fn deep() -> impl Fn() -> (Deep, Deep) {
    || {
        let ((a, b), (c, d), (e, f)) = (preambles(), toys(), behind_preamble());
        ((a, Stack::new(c, e)), (b, Stack::new(d, f)))
    }
}

/// A preamble, then a cipher, and inside it another preamble and cipher.
type Deep = (Preamble, Stack<Toy, (Preamble, Toy)>);

/// Plain or sealed, chosen at run time. The other end knows the choice.
type MaybeSealed = Either<Preamble, Toy>;

fn either_sealed() -> (MaybeSealed, Toy) {
    (Either::Right(Toy::client(7)), Toy::server(11))
}

fn either_plain() -> (MaybeSealed, Preamble) {
    let (a, b) = preambles();
    (Either::Left(a), b)
}

fn boxed<A: Layer, B: Layer>(make: impl Fn() -> (A, B)) -> impl Fn() -> (Boxed, B) {
    move || {
        let (a, b) = make();
        (Boxed::new(a), b)
    }
}

/// Makes stacks with a choice as the inner and as the outer layer. The chosen layer is transparent.
fn chosen_in_stacks() -> (Stack<Toy, MaybeSealed>, Stack<Toy, Preamble>) {
    let ((a, b), (c, d)) = (toys(), preambles());
    (Stack::new(a, Either::Left(c)), Stack::new(b, d))
}

fn stack_in_choice() -> (Stack<Boxed, Toy>, (Preamble, Toy)) {
    let ((a, b), (c, d)) = (preambles(), toys());
    (Stack::new(Boxed::new(a), c), (b, d))
}

fn opened<A: Layer, B: Layer>((a, b): (A, B)) -> (Peer<A>, Peer<B>) {
    let (mut a, mut b) = (Peer::new(a), Peer::new(b));
    kit::pump(&mut a, &mut b);
    assert_eq!((a.session().phase(), b.session().phase()), (Phase::Open, Phase::Open));
    (a, b)
}

#[test]
fn every_cut_of_every_stack_gives_the_same() {
    kit::every_cut(|| ((), ()));
    kit::every_cut(preambles);
    kit::every_cut(|| (((), Preamble::new(KNOCK, "")), Preamble::new("", KNOCK)));
    kit::every_cut(toys);
    kit::every_cut(behind_preamble);
    kit::every_cut(speaks_first_behind_preamble);
    kit::every_cut(toy_in_toy);
    kit::every_cut(preamble_in_toy);
    kit::every_cut(deep());
}

#[test]
fn a_chosen_layer_does_what_it_does_alone() {
    kit::every_cut(either_sealed);
    kit::every_cut(either_plain);
    kit::every_cut(boxed(preambles));
    kit::every_cut(boxed(either_sealed));
    kit::every_cut(chosen_in_stacks);
    kit::every_cut(stack_in_choice);
    let flips = kit::flips(boxed(either_sealed));
    assert_eq!((flips.noticed, flips.harmless), (flips.runs, 0));
    assert_eq!(kit::truncations(either_sealed), 0);
    assert_eq!(kit::truncations(boxed(toys)), 0);
    assert_eq!(kit::truncations(chosen_in_stacks), 0);
}

#[test]
fn a_chosen_transparent_layer_is_passed_by() {
    let mut plain = Session::new(Either::<(), Toy>::Left(()));
    plain.start(&mut Pool::new()).expect("nothing to fail");
    assert!(plain.direct());
    let mut plain = Session::new(Boxed::new(Either::<(), Toy>::Left(())));
    plain.start(&mut Pool::new()).expect("nothing to fail");
    assert!(plain.direct());
    let layer = plain.layer_mut();
    assert!(layer.downcast_ref::<Toy>().is_none() && layer.downcast_mut::<Either<(), Toy>>().is_some());
    let (sealed, _) = opened(boxed(toys)());
    assert!(!sealed.session().direct());
    assert_eq!(sealed.session().layer().downcast_ref::<Toy>().map(Toy::pongs), Some(0));
}

#[test]
fn a_tuple_is_passed_by_if_what_is_behind_it_is_transparent() {
    let mut plain = Session::new((Preamble::new(KNOCK, ""), Boxed::new(())));
    plain.start(&mut Pool::new()).expect("nothing to fail");
    assert!(plain.direct());
    let (sealed, _) = opened(behind_preamble());
    assert!(!sealed.session().direct());
}

#[test]
fn a_toy_refuses_its_own_kind() {
    let mut client = Peer::new(Toy::client(1));
    client.feed(&Peer::new(Toy::client(2)).flight());
    assert_eq!(client.error().expect("two clients").downcast_ref(), Some(&ToyError::Hello));
}

#[test]
fn a_choice_has_the_bound_of_what_it_chose() {
    let bounds = |either: MaybeSealed| (either.input_max(), Boxed::new(either).input_max());
    assert_eq!(bounds(Either::Left(preambles().0)), (1 << 10, 1 << 10));
    assert_eq!(bounds(Either::Right(Toy::client(1))), (Toy::INPUT_MAX, Toy::INPUT_MAX));
    // A tuple has the bound of its current layer.
    let (a, b) = behind_preamble();
    assert_eq!(a.input_max(), 1 << 10);
    assert_eq!(opened((a, b)).0.session().layer().input_max(), Toy::INPUT_MAX);
}

#[test]
fn large_items_and_garbage_pass_through_every_stack() {
    kit::bulk(|| ((), ()));
    kit::bulk(behind_preamble);
    kit::bulk(toy_in_toy);
    kit::bulk(either_plain);
    kit::bulk(boxed(either_sealed));
    kit::bulk(chosen_in_stacks);
    for garbage in [kit::garbage(toy_in_toy), kit::garbage(behind_preamble), kit::garbage(chosen_in_stacks)] {
        assert_eq!(garbage.forged, 0, "{garbage:?}");
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let check = |flips: kit::Flips| {
        assert!(flips.runs > 1_500);
        assert_eq!((flips.noticed, flips.harmless), (flips.runs, 0));
    };
    check(kit::flips(toys));
    check(kit::flips(behind_preamble));
    check(kit::flips(preamble_in_toy));
    // The inner end has already been seen, so changes to the outer end after it are harmless.
    for flips in [kit::flips(toy_in_toy), kit::flips(deep())] {
        assert!(flips.harmless <= 2 * END_RECORD, "{flips:?}");
    }
}

#[test]
fn only_the_authentic_end_is_clean() {
    assert_eq!(kit::truncations(toys), 0);
    assert_eq!(kit::truncations(behind_preamble), 0);
    assert_eq!(kit::truncations(preamble_in_toy), 0);
    // The end of the inner layer suffices.
    assert_eq!(kit::truncations(toy_in_toy), END_RECORD);
    assert_eq!(kit::truncations(deep()), END_RECORD);
}

/// The bytes of a toy record without a body.
const END_RECORD: usize = 11;

#[test]
fn early_data_behind_a_transparent_handshake_is_delivered() {
    let mut peer = Peer::new(preambles().0);
    peer.feed(b"ENTER\nbanner and half a li");
    assert_eq!(peer.received(), b"banner and half a li");
    // The other side's preamble and the first message of the layer behind it arrive in one segment.
    let (a, b) = speaks_first_behind_preamble();
    let (mut a, mut b) = (Peer::new(a), Peer::new(b));
    b.feed(&a.flight());
    a.feed(&b.flight());
    assert_eq!(a.session().phase(), Phase::Open);
}

#[test]
fn early_data_behind_a_transparent_inner_layer_is_delivered() {
    let (mut a, mut b) = (Peer::new(Toy::client(1)), Peer::new(Stack::new(Toy::server(2), preambles().0)));
    kit::pump(&mut a, &mut b);
    assert_eq!(a.received(), KNOCK.as_bytes());
    a.send(b"ENTER\nbanner");
    kit::pump(&mut a, &mut b);
    assert_eq!((b.received(), b.session().capacity()), (&b"banner"[..], 0));
}

#[test]
fn a_wrong_preamble_is_refused_by_type() {
    let mut peer = Peer::new(preambles().0);
    peer.feed(b"ENTRY\n");
    assert!(peer.error().expect("another preamble").is::<PreambleError>());
    assert_eq!(peer.session().phase(), Phase::Finished);
}

#[test]
fn good_records_before_a_bad_one_are_delivered_and_an_alert_leaves() {
    for bad in 0..3 {
        let (mut a, mut b) = opened(toys());
        let mut all = Vec::new();
        for (at, word) in ["first", "second", "third"].into_iter().enumerate() {
            a.send(word.as_bytes());
            let mut record = a.flight();
            if at == bad {
                record[4] ^= 1;
            }
            all.extend(record);
        }
        b.feed(&all);
        assert_eq!(b.received(), ["", "first", "firstsecond"][bad].as_bytes());
        assert_eq!(b.error().expect("a bad tag").downcast_ref(), Some(&ToyError::Tag));
        a.feed(&b.flight());
        assert_eq!(a.error().expect("an alert").downcast_ref(), Some(&ToyError::Alert));
        assert!(b.end().unwrap_err().is::<Truncated>());
    }
}

/// Rejects all input, and sends an alert.
struct Grumpy;

impl Layer for Grumpy {
    const INPUT_MAX: usize = 0;

    fn ready(&self) -> bool {
        true
    }

    fn open(&mut self, _: &mut [u8], io: &mut Io<'_>) -> Result<Step> {
        io.up.extend_from_slice(b"not for you");
        io.down.put(b"go away");
        Err("refused".into())
    }

    fn seal(&mut self, clear: &[u8], _: &mut Io<'_>) -> Result<usize> {
        Ok(clear.len())
    }
}

#[test]
fn an_alert_leaves_through_a_stack() {
    // The alert of the outer layer.
    let (mut a, mut b) = opened(toy_in_toy());
    a.send(b"data");
    let mut record = a.flight();
    *record.last_mut().expect("a record") ^= 1;
    b.feed(&record);
    a.feed(&b.flight());
    assert_eq!(a.error().expect("the alert").downcast_ref(), Some(&ToyError::Alert));
    // The alert of the inner layer, sealed.
    let (mut a, mut b) = opened((Toy::client(1), Stack::new(Toy::server(2), Grumpy)));
    a.send(b"data");
    kit::pump(&mut a, &mut b);
    assert_eq!((a.received(), b.received()), (&b"go away"[..], &b""[..]));
    assert_eq!(b.error().expect("refused").to_string(), "refused");
}

#[test]
fn the_end_of_the_outer_layer_alone_is_a_truncation() {
    let (mut a, mut b) = opened(toy_in_toy());
    let (session, pool) = a.session_mut();
    session.with_layer(pool, |stack, io| stack.outer_mut().finish(io)).expect("open");
    b.feed(&a.flight());
    assert!(b.error().expect("the inner layer saw no end").is::<Truncated>());
}

#[test]
fn a_later_request_is_answered_by_the_layer_alone() {
    let (mut a, mut b) = opened(toys());
    let (session, pool) = a.session_mut();
    session.with_layer(pool, |toy, io| toy.ping(io)).expect("the handshake is done");
    kit::pump(&mut a, &mut b);
    assert_eq!(a.session().layer().pongs(), 1);
    assert!(a.received().is_empty() && b.received().is_empty());
}

#[test]
fn a_later_request_reaches_either_layer_of_a_stack() {
    let (a, b) = toy_in_toy();
    let (mut a, mut b) = (Peer::new(a), Peer::new(b));
    let (session, pool) = a.session_mut();
    let early = session.with_layer(pool, |stack, io| stack.with_inner(io, |toy, io| toy.ping(io)));
    assert!(early.unwrap_err().is::<LayerError>());
    kit::pump(&mut a, &mut b);
    let (session, pool) = a.session_mut();
    session.with_layer(pool, |stack, io| stack.with_inner(io, |toy, io| toy.ping(io))).expect("open");
    session.with_layer(pool, |stack, io| stack.outer_mut().ping(io)).expect("open");
    kit::pump(&mut a, &mut b);
    let stack = a.session().layer();
    assert_eq!((stack.inner().pongs(), stack.outer().pongs()), (1, 1));
}

#[test]
fn nothing_is_said_behind_our_end() {
    let (mut a, mut b) = opened(toys());
    b.close();
    assert_eq!(b.flight().len(), END_RECORD);
    let (session, pool) = a.session_mut();
    session.with_layer(pool, |toy, io| toy.ping(io)).expect("the handshake is done");
    b.feed(&a.flight());
    b.send(b"too late");
    assert!(b.error().is_none() && b.flight().is_empty());
    let (session, pool) = b.session_mut();
    assert!(session.with_layer(pool, |toy, io| toy.ping(io)).is_err());
}

#[test]
fn an_end_in_the_handshake_is_a_truncation_and_a_close_waits_for_it() {
    let (a, b) = toy_in_toy();
    let (mut a, mut b) = (Peer::new(a), Peer::new(b));
    b.feed(&a.flight());
    a.send(b"queued");
    a.close();
    assert!(a.end().unwrap_err().is::<Truncated>());
    kit::pump(&mut a, &mut b);
    assert_eq!((b.received(), b.session().ended()), (&b"queued"[..], true));
    assert_eq!(a.session().phase(), Phase::Finished);
}

#[test]
fn a_session_at_rest_owns_nothing() {
    let (mut a, mut b) = opened(toy_in_toy());
    a.send(&[7; 100_000]);
    kit::pump(&mut a, &mut b);
    assert_eq!(b.received().len(), 100_000);
    assert_eq!((a.session().capacity(), b.session().capacity()), (0, 0));
}

/// A layer that holds memory but no bytes.
struct Holding<const TRANSPARENT: bool>(usize);

impl<const TRANSPARENT: bool> Layer for Holding<TRANSPARENT> {
    const TRANSPARENT: bool = TRANSPARENT;
    const INPUT_MAX: usize = 0;

    fn ready(&self) -> bool {
        true
    }

    fn open(&mut self, input: &mut [u8], io: &mut Io<'_>) -> Result<Step> {
        Layer::open(&mut (), input, io)
    }

    fn seal(&mut self, clear: &[u8], io: &mut Io<'_>) -> Result<usize> {
        Layer::seal(&mut (), clear, io)
    }

    fn held(&self) -> usize {
        self.0
    }
}

#[test]
fn what_layers_hold_is_counted_wherever_they_are() {
    assert_eq!(Layer::held(&()), 0);
    assert_eq!(Either::<_, Toy>::Left(Holding::<true>(3)).held(), 3);
    assert_eq!(Either::<Toy, _>::Right(Holding::<false>(5)).held(), 5);
    assert_eq!(Boxed::new(Holding::<false>(7)).held(), 7);
    assert_eq!((Holding::<true>(3), Holding::<false>(5)).held(), 8);
    assert_eq!(Stack::new(Holding::<false>(3), Holding::<false>(5)).held(), 8);
    let session = Session::new(Boxed::new(Holding::<false>(7)));
    assert_eq!(session.capacity(), 7);
}

#[test]
fn a_boxed_layer_shows_whether_it_is_transparent() {
    assert_eq!(format!("{:?}", Boxed::new(())), "Boxed { transparent: true, .. }");
    assert_eq!(format!("{:?}", Boxed::new(Toy::client(1))), "Boxed { transparent: false, .. }");
}

#[test]
#[should_panic(expected = "a transparent layer seals nothing")]
fn a_preamble_that_is_asked_to_seal_panics() {
    let (mut up, mut down, mut pool) = (Vec::new(), session::Outgoing::new(), Pool::new());
    let mut io = Io { up: &mut up, down: &mut down, pool: &mut pool };
    preambles().0.seal(b"clear", &mut io).expect("it panics");
}

/// A toy that waits for more input after each record, which it may do if nothing is left.
struct Waiting(Toy);

impl Layer for Waiting {
    const INPUT_MAX: usize = Toy::INPUT_MAX;

    fn start(&mut self, io: &mut Io<'_>) -> Result {
        self.0.start(io)
    }

    fn ready(&self) -> bool {
        self.0.ready()
    }

    fn open(&mut self, input: &mut [u8], io: &mut Io<'_>) -> Result<Step> {
        let step = self.0.open(input, io)?;
        Ok(if step.used == input.len() { Step { next: Next::Wait, ..step } } else { step })
    }

    fn seal(&mut self, clear: &[u8], io: &mut Io<'_>) -> Result<usize> {
        self.0.seal(clear, io)
    }
}

#[test]
fn input_that_arrives_between_two_steps_of_a_stack_is_opened_in_the_same_read() {
    let (mut a, mut b) = opened((toy_in_toy().0, Stack::new(Waiting(Toy::server(3)), Toy::server(4))));
    let mut record = |text: &str| {
        a.send(text.as_bytes());
        a.flight()
    };
    let (first, second) = (record("first"), record("second"));
    let (session, pool) = b.session_mut();
    let (mut input, mut up) = (first, Vec::new());
    let step = session.step(&mut input, &mut up, pool).expect("a record of the outer layer");
    assert_eq!((step, &up[..]), (Step { used: input.len(), next: Next::Again }, &b""[..]));
    // If the runtime paused the stream here, it offers the input that arrived in the meantime.
    let mut input = second;
    let mut at = 0;
    loop {
        let step = session.step(&mut input[at..], &mut up, pool).expect("authentic");
        at += step.used;
        if step.next == Next::Wait {
            break;
        }
    }
    assert_eq!((&up[..], at), (&b"firstsecond"[..], input.len()));
}

#[test]
fn a_stack_keeps_only_what_its_inner_layer_has_not_used() {
    let (mut a, mut b) = opened(toy_in_toy());
    let mut sent = Vec::new();
    for _ in 0..100 {
        a.send(&[7; 3_000]);
        sent.extend(a.flight());
    }
    // The records of the outer layer do not align with those of the inner one, so some bytes are always
    // left.
    for piece in sent.chunks(700) {
        b.feed(piece);
        assert!(b.session().capacity() < 8 << 10, "{}", b.session().capacity());
    }
    assert_eq!(b.received().len(), 300_000);
}

#[test]
fn the_end_of_the_outer_layer_is_enough_for_one_that_marks_none() {
    let make = || {
        let (a, b) = toys();
        (Stack::new(a, Holding::<false>(0)), Stack::new(b, Holding::<false>(0)))
    };
    kit::every_cut(make);
    assert_eq!(kit::truncations(make), 0);
}

/// Passes everything through at once, and must not be called again.
struct Gone;

impl Layer for Gone {
    const TRANSPARENT: bool = true;
    const INPUT_MAX: usize = 0;

    fn ready(&self) -> bool {
        true
    }

    fn open(&mut self, _: &mut [u8], _: &mut Io<'_>) -> Result<Step> {
        unreachable!("it is through")
    }

    fn seal(&mut self, _: &[u8], _: &mut Io<'_>) -> Result<usize> {
        unreachable!("it is through")
    }

    fn finish(&mut self, _: &mut Io<'_>) -> Result {
        unreachable!("it is through")
    }

    fn end(&mut self, _: &[u8]) -> Result {
        unreachable!("it is through")
    }
}

#[test]
fn a_transparent_layer_is_not_called_once_it_is_ready() {
    let make = || {
        let (a, b) = toys();
        (Stack::new(a, Gone), Stack::new(b, Gone))
    };
    kit::every_cut(make);
    assert_eq!(kit::truncations(make), 0);
    kit::every_cut(|| (Either::<Gone, Toy>::Left(Gone), Boxed::new(Gone)));
    kit::every_cut(|| (Gone, (Gone, Gone)));
    let inside = || Stack::new(Holding::<false>(0), Gone);
    kit::every_cut(|| (inside(), inside()));
}
