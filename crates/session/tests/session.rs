//! The session: phases, bounds, order, and its defence against layers that break their promises.

use std::cell::Cell;

use session::kit::{Toy, ToyError};
use session::{
    Boxed, Either, Io, Layer, LayerError, Next, Outgoing, Phase, Pool, Result, Session, Shared, Stack, Step,
    Truncated,
};

/// A layer whose results the test sets.
#[derive(Default)]
struct Scripted {
    ready: bool,
    step: Option<Step>,
    up: &'static [u8],
    taken: usize,
    finished: usize,
}

impl Layer for Scripted {
    const INPUT_MAX: usize = 16;

    fn ready(&self) -> bool {
        self.ready
    }

    fn open(&mut self, _: &mut [u8], io: &mut Io<'_>) -> Result<Step> {
        io.up.extend_from_slice(self.up);
        io.down.put(b"alert");
        self.step.ok_or_else(|| "scripted".into())
    }

    fn seal(&mut self, clear: &[u8], io: &mut Io<'_>) -> Result<usize> {
        io.down.put(clear);
        Ok(self.taken)
    }

    fn finish(&mut self, io: &mut Io<'_>) -> Result {
        self.finished += 1;
        io.down.put(b"end");
        Ok(())
    }
}

fn scripted(layer: Scripted) -> (Session<Scripted>, Pool) {
    let (mut session, mut pool) = (Session::new(layer), Pool::new());
    session.start(&mut pool).expect("nothing to fail");
    (session, pool)
}

fn wire<L: Layer>(session: &mut Session<L>) -> Vec<u8> {
    session.take_wire().map_or(Vec::new(), |wire| wire.to_vec())
}

#[test]
fn a_session_without_a_layer_is_small_and_direct_once_started() {
    assert!(size_of::<Session<()>>() <= 24);
    let (mut session, mut pool) = (Session::new(()), Pool::new());
    assert!(!session.direct() && session.phase() == Phase::Idle);
    session.out(&mut pool).put(b"early ");
    session.start(&mut pool).expect("nothing to fail");
    assert!(session.direct() && session.phase() == Phase::Open);
    session.out(&mut pool).put(b"late");
    session.fill(&mut pool).expect("nothing to fail");
    assert_eq!(wire(&mut session), b"early late");
    assert!(session.start(&mut pool).unwrap_err().is::<LayerError>());
    session.close();
    session.fill(&mut pool).expect("nothing to fail");
    assert_eq!(session.phase(), Phase::Finished);
    session.out(&mut pool).put(b"too late");
    session.fill(&mut pool).expect("nothing to fail");
    assert!(session.take_wire().is_none() && session.capacity() == 0);
    let mut up = Vec::new();
    let step = session.step(&mut b"half-closed".to_vec(), &mut up, &mut pool).expect("input may follow");
    assert_eq!((step.used, step.next, &up[..]), (11, Next::Wait, &b"half-closed"[..]));
    assert!(session.end(&[]).is_ok());
}

#[test]
fn what_a_released_stream_takes_along_is_send() {
    fn check<T: Send>() {}
    check::<Session<Toy>>();
    check::<Outgoing>();
    check::<session::Failure>();
}

#[test]
fn an_error_discards_its_own_clear_bytes_and_lets_the_alert_leave() {
    let (mut session, mut pool) = scripted(Scripted { ready: true, up: b"wrong", ..Scripted::default() });
    session.out(&mut pool).put(b"queued");
    let mut up = b"before".to_vec();
    let error = session.step(&mut [1], &mut up, &mut pool).unwrap_err();
    assert_eq!((error.to_string().as_str(), &up[..]), ("scripted", &b"before"[..]));
    assert_eq!(session.phase(), Phase::Finished);
    session.close();
    session.fill(&mut pool).expect("nothing is called any more");
    assert_eq!((wire(&mut session), session.layer().finished), (b"alert".to_vec(), 0));
    assert!(session.step(&mut [1], &mut up, &mut pool).unwrap_err().is::<LayerError>());
    assert!(session.end(&[]).unwrap_err().is::<Truncated>());
}

#[test]
fn input_left_after_a_wait_is_bounded() {
    for (left, fits) in [(15, true), (16, true), (17, false)] {
        let step = Some(Step { used: 3, next: Next::Wait });
        let (mut session, mut pool) =
            scripted(Scripted { ready: true, step, up: b"up", ..Scripted::default() });
        let mut up = Vec::new();
        let result = session.step(&mut vec![0; 3 + left], &mut up, &mut pool);
        assert_eq!((result.is_ok(), up.is_empty()), (fits, !fits));
        if let Err(error) = result {
            assert_eq!(error.downcast_ref(), Some(&LayerError::TooLong { limit: 16, len: 17 }));
        }
    }
    let step = Some(Step { used: 0, next: Next::Again });
    let (mut session, mut pool) = scripted(Scripted { ready: true, step, ..Scripted::default() });
    assert!(session.step(&mut [0; 1_000], &mut Vec::new(), &mut pool).is_ok());
}

#[test]
fn a_layer_that_breaks_its_contract_is_an_error() {
    let step = Some(Step { used: 2, next: Next::Wait });
    let (mut session, mut pool) = scripted(Scripted { ready: true, step, ..Scripted::default() });
    let error = session.step(&mut [0], &mut Vec::new(), &mut pool).unwrap_err();
    assert!(
        matches!(error.downcast_ref(), Some(LayerError::Contract { layer, .. }) if layer.contains("Scripted"))
    );
    for taken in [0, 7] {
        let (mut session, mut pool) = scripted(Scripted { ready: true, taken, ..Scripted::default() });
        session.out(&mut pool).put(b"clear");
        let error = session.fill(&mut pool).unwrap_err();
        assert!(
            matches!(error.downcast_ref(), Some(LayerError::Contract { layer, .. }) if layer.contains("Scripted"))
        );
        assert_eq!(session.phase(), Phase::Finished);
    }
    let step = Some(Step { used: 0, next: Next::End });
    let (mut session, mut pool) = scripted(Scripted { step, ..Scripted::default() });
    assert!(session.step(&mut [0], &mut Vec::new(), &mut pool).unwrap_err().is::<Truncated>());
}

/// The lie of a [`Liar`] in one call of `seal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// Puts this many bytes for the five that it claims to have taken.
    Puts(usize),
    /// Removes bytes that others sealed.
    Takes,
}

/// Seals according to its lie.
struct Liar {
    lie: Lie,
    compresses: bool,
}

impl Layer for Liar {
    const INPUT_MAX: usize = 16;

    fn ready(&self) -> bool {
        true
    }

    fn open(&mut self, input: &mut [u8], io: &mut Io<'_>) -> Result<Step> {
        match self.lie {
            Lie::Puts(_) => io.up.clear(),
            Lie::Takes => io.down.clear(),
        }
        Ok(Step { used: input.len(), next: Next::Wait })
    }

    fn seal(&mut self, clear: &[u8], io: &mut Io<'_>) -> Result<usize> {
        match self.lie {
            Lie::Puts(count) => io.down.put(&[7; 6][..count]),
            Lie::Takes => io.down.clear(),
        }
        Ok(clear.len())
    }

    fn shrinks(&self) -> bool {
        self.compresses
    }
}

/// Seals one record after another that waits for the wire. Returns the bytes on the wire, and the error.
fn sealed_by<L: Layer>(layer: L) -> (Vec<u8>, Option<LayerError>) {
    let (mut session, mut pool) = (Session::new(layer), Pool::new());
    session.start(&mut pool).expect("nothing to fail");
    session
        .with_layer(&mut pool, |_, io| {
            io.down.put(b"there");
            Ok(())
        })
        .expect("it is open");
    session.out(&mut pool).put(b"clear");
    let error = session.fill(&mut pool).err().and_then(|error| error.downcast_ref().copied());
    if error.is_some() {
        assert_eq!(
            (session.phase(), session.discard(&mut pool)),
            (Phase::Finished, 5),
            "what was not sealed"
        );
    }
    (wire(&mut session), error)
}

#[test]
fn a_layer_that_seals_less_than_it_took_is_an_error_that_names_it() {
    for (put, compresses, fits) in [
        (0, false, false),
        (4, false, false),
        (5, false, true),
        (6, false, true),
        (0, true, false),
        (1, true, true),
    ] {
        let liar = || Liar { lie: Lie::Puts(put), compresses };
        let results = [
            sealed_by(liar()),
            sealed_by(Boxed::new(liar())),
            sealed_by(Either::<(), Liar>::Right(liar())),
            sealed_by(((), liar())),
            sealed_by(Stack::new(liar(), ())),
        ];
        for (wire, error) in results {
            match error {
                None => assert_eq!((fits, wire.len()), (true, 5 + put)),
                Some(LayerError::Contract { layer, .. }) => {
                    // The record of the lie stays behind. Bytes that were sealed before it are sent.
                    assert_eq!((fits, &wire[..]), (false, &b"there"[..]), "{put}");
                    assert!(layer.ends_with("Liar"), "{layer}");
                }
                Some(other) => panic!("{other}"),
            }
        }
    }
}

#[test]
fn what_a_layer_did_wrong_is_said() {
    for (taken, what) in [(0, "it sealed nothing"), (6, "it sealed more than it was lent")] {
        let (_, error) = sealed_by(Scripted { ready: true, taken, ..Scripted::default() });
        assert!(error.is_some_and(|error| error.to_string().ends_with(what)), "{taken}: {error:?}");
    }
}

#[test]
fn a_choice_shrinks_if_what_it_chose_does() {
    assert!(!Layer::shrinks(&()));
    for compresses in [false, true] {
        let liar = || Liar { lie: Lie::Puts(5), compresses };
        let chosen = [Boxed::new(liar()).shrinks(), Either::<(), Liar>::Right(liar()).shrinks()];
        let composed = [((), liar()).shrinks(), Stack::new(liar(), ()).shrinks()];
        assert_eq!((chosen, composed), ([compresses; 2], [compresses; 2]));
        assert_eq!(Stack::new(Toy::client(1), liar()).shrinks(), compresses);
    }
}

#[test]
fn a_layer_that_takes_bytes_away_is_an_error() {
    let (_, error) = sealed_by(Liar { lie: Lie::Takes, compresses: true });
    assert!(matches!(error, Some(LayerError::Contract { .. })), "{error:?}");
    for lie in [Lie::Takes, Lie::Puts(0)] {
        let (mut session, mut pool) = (Session::new(Liar { lie, compresses: true }), Pool::new());
        session.start(&mut pool).expect("nothing to fail");
        session
            .with_layer(&mut pool, |_, io| {
                io.down.put(b"there");
                Ok(())
            })
            .expect("it is open");
        let mut up = b"before".to_vec();
        let error = session.step(&mut [1], &mut up, &mut pool).unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(LayerError::Contract { .. })), "{lie:?}: {error}");
    }
}

#[test]
fn the_end_is_sealed_once_and_only_after_everything() {
    let (mut session, mut pool) = scripted(Scripted { ready: true, taken: 5, ..Scripted::default() });
    session.out(&mut pool).put(b"clear");
    session.close();
    (0..3).for_each(|_| session.fill(&mut pool).expect("nothing to fail"));
    assert_eq!((wire(&mut session), session.layer().finished), (b"clearend".to_vec(), 1));
    // In the handshake the end waits for queued bytes, and for nothing else.
    let (mut session, mut pool) = scripted(Scripted::default());
    session.out(&mut pool).put(b"clear");
    session.close();
    session.fill(&mut pool).expect("nothing to fail");
    assert_eq!((session.phase(), session.layer().finished), (Phase::Handshake, 0));
    let (mut session, mut pool) = scripted(Scripted::default());
    session.close();
    session.fill(&mut pool).expect("nothing to fail");
    assert_eq!((session.phase(), session.layer().finished), (Phase::Finished, 1));
}

/// Makes two toys, and opens them by hand.
fn toys(pool: &mut Pool) -> (Session<Toy>, Session<Toy>) {
    let (mut a, mut b) = (Session::new(Toy::client(1)), Session::new(Toy::server(2)));
    a.start(pool).expect("nothing to fail");
    b.start(pool).expect("nothing to fail");
    let mut up = Vec::new();
    b.step(&mut wire(&mut a), &mut up, pool).expect("a hello");
    a.step(&mut wire(&mut b), &mut up, pool).expect("a hello");
    assert_eq!((a.phase(), b.phase()), (Phase::Open, Phase::Open));
    (a, b)
}

#[test]
fn a_large_send_is_sealed_as_fast_as_the_wire_takes_it() {
    let mut pool = Pool::new();
    let (mut a, mut b) = toys(&mut pool);
    let item: Vec<u8> = (0..1_000_000u32).map(|at| (at / 7) as u8).collect();
    a.out(&mut pool).put(&item);
    a.close();
    let (mut input, mut up) = (Vec::new(), Vec::new());
    while a.queued() > 0 {
        a.fill(&mut pool).expect("nothing to fail");
        let mut wire = a.take_wire().expect("something is queued");
        assert!(wire.len() < Session::<Toy>::WIRE_MAX + 1_100, "{}", wire.len());
        let written = wire.len().min(40_000);
        input.extend_from_slice(&wire.to_vec()[..written]);
        wire.advance(written);
        a.restore(wire, &mut pool);
    }
    let (mut at, mut next) = (0, Next::Again);
    while next == Next::Again {
        let step = b.step(&mut input[at..], &mut up, &mut pool).expect("authentic");
        (at, next) = (at + step.used, step.next);
    }
    // The item was delivered whole, with the end behind it, and no input is left.
    assert!(up == item && next == Next::End && at == input.len() && a.phase() == Phase::Finished);
}

#[test]
fn what_was_not_written_stands_in_front_of_what_was_queued_since() {
    let (mut session, mut pool) = (Session::new(()), Pool::new());
    session.start(&mut pool).expect("nothing to fail");
    session.out(&mut pool).put(b"first ");
    let mut taken = session.take_wire().expect("six bytes");
    taken.advance(3);
    session.out(&mut pool).put(b"second");
    session.restore(taken, &mut pool);
    assert_eq!((session.queued(), wire(&mut session)), (9, b"st second".to_vec()));
}

#[test]
fn after_the_peers_end_input_is_discarded() {
    let mut pool = Pool::new();
    let (mut a, mut b) = toys(&mut pool);
    assert!(!b.ended());
    a.close();
    a.fill(&mut pool).expect("nothing to fail");
    let mut up = Vec::new();
    let step = b.step(&mut wire(&mut a), &mut up, &mut pool).expect("an end");
    assert!(step.next == Next::End && b.ended());
    let step = b.step(&mut [0; 5_000], &mut up, &mut pool).expect("whatever follows");
    assert_eq!((step.used, step.next, up.len(), b.end(&[1]).is_ok()), (5_000, Next::End, 0, true));
}

#[test]
fn a_request_that_fails_is_the_callers_and_the_session_goes_on() {
    let (mut session, mut pool) = (Session::new(Toy::server(1)), Pool::new());
    let early = session.with_layer(&mut pool, |toy, io| toy.ping(io));
    assert!(early.unwrap_err().is::<LayerError>());
    session.start(&mut pool).expect("nothing to fail");
    let refused = session.with_layer(&mut pool, |toy, io| toy.ping(io));
    assert_eq!(refused.unwrap_err().downcast_ref(), Some(&ToyError::NotReady));
    assert_eq!(session.phase(), Phase::Handshake);
}

#[test]
fn a_trim_gives_back_what_is_hardly_used() {
    let mut pool = Pool::new();
    let mut fat = pool.take_outgoing();
    fat.put(&[0; 1 << 16]);
    let queue = fat.memory() - (1 << 16);
    pool.give_outgoing(fat);
    for (len, keeps) in [(1, 4_096), ((1 << 14) - 1, (1 << 14) - 1), (1 << 14, 1 << 16)] {
        let mut session = Session::new(());
        session.start(&mut pool).expect("nothing to start");
        assert!(session.has_no_queue());
        session.out(&mut pool).put(&vec![1; len]);
        assert_eq!((session.capacity() - queue, session.has_no_queue()), (1 << 16, false));
        session.trim();
        assert_eq!(session.capacity() - queue, keeps, "{len}");
        let mut wire = session.take_wire().expect("it was queued");
        assert_eq!(wire.to_vec(), vec![1; len]);
        // The next one gets a large buffer again.
        wire.clear();
        wire.put(&[0; 1 << 16]);
        pool.give_outgoing(wire);
    }
    // A table of 64 parts, of which few are left.
    for (left, shrinks) in [(15, true), (16, false)] {
        let mut session = Session::new(());
        session.start(&mut pool).expect("nothing to start");
        let shared = Shared::from(vec![1; 512]);
        let out = session.out(&mut pool);
        (0..64).for_each(|_| out.share(shared.clone()));
        out.advance(512 * (64 - left));
        let before = session.capacity();
        session.trim();
        session.trim();
        assert_eq!(session.capacity() < before, shrinks, "{left}");
        if shrinks {
            let mut fresh = Outgoing::new();
            (0..left).for_each(|_| fresh.share(shared.clone()));
            assert_eq!(session.capacity() - queue - 4_096, fresh.capacity(), "what is left counts");
        }
        session.take_wire().expect("it was queued");
    }
}

#[test]
fn only_what_can_be_written_now_is_output() {
    let (mut session, mut pool) = (Session::new(()), Pool::new());
    session.out(&mut pool).put(b"early");
    assert!(!session.has_output(), "the transport is not up");
    session.start(&mut pool).expect("nothing to fail");
    assert!(session.has_output(), "it is on the wire");
    wire(&mut session);
    session.out(&mut pool);
    assert!(!session.has_output(), "an empty queue is nothing to write");
    // With a layer.
    let (mut session, mut pool) = scripted(Scripted::default());
    session.out(&mut pool).put(b"clear");
    assert!(!session.has_output(), "only the peer makes the handshake go on");
    let (mut session, mut pool) = scripted(Scripted { ready: true, ..Scripted::default() });
    assert!(!session.has_output(), "nothing is queued");
    session.out(&mut pool).put(b"clear");
    assert!(session.has_output(), "the next fill seals it");
    session.give_up();
    assert!(!session.has_output(), "nobody seals it any more");
}

#[test]
fn a_session_says_that_its_handshake_spoke_while_that_waits() {
    let mut pool = Pool::new();
    let (mut client, mut server) = (Session::new(Toy::client(1)), Session::new(Toy::server(2)));
    client.start(&mut pool).expect("nothing to fail");
    server.start(&mut pool).expect("nothing to fail");
    assert_eq!((client.spoke(), server.spoke()), (true, false));
    let hello = wire(&mut client);
    assert!(!client.spoke(), "it was taken");
    server.step(&mut hello.clone(), &mut Vec::new(), &mut pool).expect("a hello");
    assert!(server.spoke() && server.phase() == Phase::Open);
    // A sealed item is not part of the handshake.
    let (mut session, mut pool) = scripted(Scripted { ready: true, taken: 5, ..Scripted::default() });
    session.out(&mut pool).put(b"clear");
    session.fill(&mut pool).expect("nothing to fail");
    assert!(session.has_output() && !session.spoke());
}

#[test]
fn an_open_session_takes_another_layer_behind_all_that_waits() {
    let mut pool = Pool::new();
    let (mut a, mut b) = toys(&mut pool);
    let item = vec![7; 3 * Session::<Toy>::WIRE_MAX];
    a.out(&mut pool).put(&item);
    a.prepare_change(&mut pool).expect("it is open");
    assert_eq!(a.queues(), a.count_queues());
    let mut a = a.change(|toy| (toy, ()).1);
    assert_eq!((a.phase(), a.closing()), (Phase::Idle, false));
    a.start(&mut pool).expect("nothing to fail");
    a.out(&mut pool).put(b"clear");
    let mut taken = a.take_wire().expect("it was sealed");
    assert!(taken.count() < taken.memory(), "most of it was counted before");
    let (mut input, mut up, mut at, mut next) = (taken.to_vec(), Vec::new(), 0, Next::Again);
    assert!(input.ends_with(b"clear"), "behind the old layer's records");
    while next == Next::Again && at < input.len() - 5 {
        let step = b.step(&mut input[at..], &mut up, &mut pool).expect("authentic");
        (at, next) = (at + step.used, step.next);
    }
    assert_eq!((up == item, at), (true, input.len() - 5));
}

#[test]
fn clear_bytes_that_are_not_sealed_pass_to_the_next_layer() {
    let (mut session, mut pool) = (Session::new(Scripted::default()), Pool::new());
    session.out(&mut pool).put(b"early");
    session.prepare_change(&mut pool).expect("nothing has begun");
    let mut session = session.change(|_| ());
    session.start(&mut pool).expect("nothing to fail");
    assert_eq!(wire(&mut session), b"early");
}

#[test]
fn only_an_open_session_takes_another_layer() {
    let refused = |mut session: Session<Scripted>, mut pool: Pool| {
        let error = session.prepare_change(&mut pool).expect_err("it is not open, or not for long");
        assert!(matches!(error.downcast_ref(), Some(LayerError::Misuse(_))), "{error:?}");
    };
    let (session, pool) = scripted(Scripted::default());
    refused(session, pool);
    let (mut session, pool) = scripted(Scripted { ready: true, ..Scripted::default() });
    assert!(!session.closing());
    session.close();
    assert!(session.closing());
    refused(session, pool);
    let step = Some(Step { used: 0, next: Next::End });
    let (mut session, mut pool) = scripted(Scripted { ready: true, step, ..Scripted::default() });
    session.step(&mut [], &mut Vec::new(), &mut pool).expect("an end");
    assert!(session.ended());
    refused(session, pool);
}

#[test]
fn what_is_counted_of_the_queues_is_all_they_own() {
    let (mut session, mut pool) = scripted(Scripted { ready: true, taken: 1, ..Scripted::default() });
    session.out(&mut pool).put(b"clear");
    session.fill(&mut pool).expect("nothing to fail");
    session.out(&mut pool).put(&[7; 1_000]);
    assert_eq!(session.count_queues(), session.queues());
    assert!(session.queues() > 1_000);
    let mut wire = session.take_wire().expect("it was sealed");
    assert_eq!(wire.count(), 0, "it was counted");
}

#[test]
fn an_end_that_no_layer_marks_is_clean_between_messages() {
    let end = |ready, left: &[u8]| Layer::end(&mut Scripted { ready, ..Scripted::default() }, left).is_ok();
    assert_eq!(
        [end(true, &[]), end(true, &[1]), end(false, &[]), end(false, &[1])],
        [true, false, false, false]
    );
    let (mut session, _) = scripted(Scripted { ready: true, ..Scripted::default() });
    assert!(session.end(&[1]).is_err_and(|error| error.is::<Truncated>()) && session.end(&[]).is_ok());
}

/// Seals up to 1 KiB at a time without changing it, and asks for nothing.
struct Chunks;

impl Layer for Chunks {
    const INPUT_MAX: usize = 0;

    fn ready(&self) -> bool {
        true
    }

    fn open(&mut self, input: &mut [u8], io: &mut Io<'_>) -> Result<Step> {
        Layer::open(&mut (), input, io)
    }

    fn seal(&mut self, clear: &[u8], io: &mut Io<'_>) -> Result<usize> {
        Layer::seal(&mut (), &clear[..clear.len().min(1_024)], io)
    }
}

#[test]
fn sealing_stops_as_soon_as_the_wire_is_full() {
    let (mut session, mut pool) = (Session::new(Chunks), Pool::new());
    session.start(&mut pool).expect("nothing to fail");
    session.out(&mut pool).put(&[7; 100_000]);
    for _ in 0..2 {
        session.fill(&mut pool).expect("nothing to fail");
        assert_eq!(
            (session.queued(), wire_len(&mut session, &mut pool)),
            (100_000, Session::<Chunks>::WIRE_MAX)
        );
    }
}

/// Returns how many sealed bytes wait.
fn wire_len<L: Layer>(session: &mut Session<L>, pool: &mut Pool) -> usize {
    let wire = session.take_wire().expect("something was sealed");
    let len = wire.len();
    session.restore(wire, pool);
    len
}

/// Panics while it seals, with part of the record on the wire.
struct Fragile;

impl Layer for Fragile {
    const INPUT_MAX: usize = 0;

    fn ready(&self) -> bool {
        true
    }

    fn open(&mut self, _: &mut [u8], _: &mut Io<'_>) -> Result<Step> {
        std::panic::resume_unwind(Box::new("a panic"))
    }

    fn seal(&mut self, _: &[u8], _: &mut Io<'_>) -> Result<usize> {
        std::panic::resume_unwind(Box::new("a panic"))
    }
}

#[test]
fn a_layer_that_panics_takes_no_queued_byte_along() {
    let queued = || {
        let (mut session, mut pool) = (Session::new(Fragile), Pool::new());
        session.start(&mut pool).expect("nothing to fail");
        session
            .with_layer(&mut pool, |_, io| {
                io.down.put(b"sealed");
                Ok(())
            })
            .expect("it is open");
        session.out(&mut pool).put(b"clear");
        (session, pool)
    };
    let (mut session, mut pool) = queued();
    let filled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| session.fill(&mut pool)));
    assert_eq!((filled.is_err(), session.queued()), (true, 11));
    let (mut session, mut pool) = queued();
    let step = std::panic::AssertUnwindSafe(|| session.step(&mut [1], &mut Vec::new(), &mut pool));
    assert_eq!((std::panic::catch_unwind(step).is_err(), session.queued()), (true, 11));
}

#[test]
fn a_layer_is_asked_once_whether_it_is_transparent() {
    struct Asked(Cell<u32>);
    impl Layer for Asked {
        const INPUT_MAX: usize = 0;

        fn transparent(&self) -> bool {
            self.0.set(self.0.get() + 1);
            true
        }

        fn ready(&self) -> bool {
            true
        }

        fn open(&mut self, _: &mut [u8], _: &mut Io<'_>) -> Result<Step> {
            Err("a direct session does not call it".into())
        }

        fn seal(&mut self, _: &[u8], _: &mut Io<'_>) -> Result<usize> {
            Err("a direct session does not call it".into())
        }
    }
    let (mut session, mut pool) = (Session::new(Asked(Cell::new(0))), Pool::new());
    assert!(!session.direct());
    session.out(&mut pool).put(b"early");
    assert_eq!(session.layer().0.get(), 0, "it is not ready");
    session.start(&mut pool).expect("it starts");
    session.out(&mut pool).put(b"late");
    assert!(session.direct());
    session.fill(&mut pool).expect("nothing to seal");
    assert_eq!(wire(&mut session), b"earlylate");
    session.end(b"").expect("each end is clean");
    assert_eq!(session.layer().0.get(), 1);
    session.give_up();
    assert!(!session.direct());
}
