//! Every step in every state: the whole graph is walked for what must always hold, and each step has a table.

use std::collections::{HashMap, VecDeque};

use super::*;
use crate::error::Closed;

const SENT: Tail = Tail { is_empty: true, is_sealed: true, phase: Phase::Finished, is_cut: false };
const QUEUED: Tail = Tail { is_empty: false, is_sealed: false, phase: Phase::Open, is_cut: false };
const NOTHING_KEPT: KeptInput =
    KeptInput { is_resuming: false, has_input: false, has_skipped: false, has_error: false };
const RESTING: Facts = Facts::READING.with(Fact::Reading, false);
const HIGH: Facts = Facts::READING.with(Fact::High, true);
const PAUSED: RestReasons = RestReasons::NONE.with(RestReason::Paused, true);

fn open() -> Conn {
    Conn { life: Life::Open, ..Conn::default() }
}

fn exits(exit: Exit) -> Conn {
    Conn { exit, ..open() }
}

fn reads(read: ReadSide) -> Conn {
    Conn { read, ..open() }
}

fn writes(write: WriteSide) -> Conn {
    Conn { write, ..open() }
}

fn with(partner: Partner) -> Conn {
    Conn { partner, ..open() }
}

fn lives(life: Life) -> Conn {
    Conn { life, ..Conn::default() }
}

fn closing(write: WriteSide) -> Conn {
    Conn { exit: Exit::Closing, write, ..open() }
}

const FED: Partner = Partner::Transfer { awaits_room: false };
const LIVES: [Life; 5] = [Life::Retrying, Life::Connecting, Life::Handshake, Life::Open, Life::Lingering];
const EXITS: [Exit; 5] = [Exit::Stays, Exit::Closing, Exit::Releasing, Exit::Detaching, Exit::Detached];
const READS: [ReadSide; 7] = [
    ReadSide::Open,
    ReadSide::HungUp { told: false },
    ReadSide::HungUp { told: true },
    ReadSide::Failed,
    ReadSide::Eof { told: false },
    ReadSide::Eof { told: true },
    ReadSide::Delivered,
];
const WRITES: [WriteSide; 5] =
    [WriteSide::Absent, WriteSide::Open, WriteSide::Draining, WriteSide::FinSent, WriteSide::Broken];
const PARTNERS: [Partner; 4] = [Partner::None, Partner::Stream, FED, Partner::Transfer { awaits_room: true }];

/// Applies a step to a copy, and returns the copy beside the answer.
fn after<T>(mut conn: Conn, step: impl FnOnce(&mut Conn) -> T) -> (Conn, T) {
    let answer = step(&mut conn);
    (conn, answer)
}

/// A state in the graph. Our FIN is with the kernel, and the step that reports its result comes next.
type Node = (Conn, bool);

/// Returns all states that one step leads to, as the callers make the steps.
fn steps((conn, is_shutting): Node) -> Vec<Node> {
    if is_shutting {
        return [true, false].map(|is_sent| (after(conn, |one| one.shut_down(is_sent)).0, false)).into();
    }
    let mut all = Vec::new();
    let mut add = |step: &dyn Fn(&mut Conn)| {
        let mut next = conn;
        step(&mut next);
        all.push((next, false));
    };
    match conn.life {
        Life::Retrying => add(&Conn::retried),
        Life::Connecting | Life::Handshake => {
            add(&Conn::start);
            add(&|one| _ = one.open());
        }
        Life::Open | Life::Lingering => (),
    }
    add(&|one| _ = one.close(false));
    add(&|one| _ = one.finish());
    add(&|one| _ = one.release());
    add(&|one| _ = one.write_failed());
    add(&|one| _ = one.drained());
    add(&|one| _ = one.take_drained());
    add(&|one| one.set_high(true));
    add(&|one| _ = one.sync(one.wants_input()));
    if conn.exit == Exit::Detaching {
        add(&Conn::detached);
    }
    if !conn.has_ended() {
        add(&Conn::end_input);
        add(&|one| one.note_hangup(false));
        add(&|one| one.note_hangup(true));
    }
    for on in [true, false] {
        add(&|one| _ = one.pause(on, true));
        add(&|one| _ = one.rest(RestReason::Backlog, on));
        add(&|one| _ = one.await_room(on));
    }
    for has_error in [true, false] {
        let kept = KeptInput { has_error, ..NOTHING_KEPT };
        match conn.at_end(kept) {
            AtEnd::Deliver | AtEnd::Ask => add(&Conn::deliver_end),
            AtEnd::HungUp => add(&|one| _ = one.tell_hangup()),
            AtEnd::Wait | AtEnd::Flush | AtEnd::Fail => (),
        }
    }
    match conn.partner {
        Partner::None if conn.exit == Exit::Stays => {
            add(&|one| _ = one.pair());
            add(&|one| _ = one.begin_feed());
        }
        Partner::None => (),
        Partner::Stream => add(&Conn::unpair),
        Partner::Transfer { .. } => add(&|one| _ = one.end_feed()),
    }
    if conn.is_ending() && !conn.is_connecting() {
        for tail in [SENT, QUEUED, Tail { is_cut: true, ..SENT }] {
            let (next, what) = after(conn, |one| one.proceed(tail));
            all.push((next, what == NextStep::Shutdown));
        }
    }
    all
}

/// Returns all states that a life can reach, each with one before it.
fn reachable() -> HashMap<Node, Node> {
    let mut found = HashMap::new();
    let mut queue = VecDeque::new();
    let media = [Medium::SOCKET, Medium::DUPLEX, Medium::READER, Medium::WRITER];
    for medium in media {
        for is_connecting in [false, true] {
            let entry = Entering { medium, is_connecting, is_ending: false, is_high: false };
            let first = Conn::default().enter(entry);
            let retrying = after(first, Conn::retry).0;
            queue.extend([(first, false)].into_iter().chain(is_connecting.then_some((retrying, false))));
        }
    }
    found.extend(queue.iter().map(|first| (*first, *first)));
    while let Some(node) = queue.pop_front() {
        for next in steps(node) {
            if found.insert(next, node).is_none() {
                queue.push_back(next);
            }
        }
    }
    found
}

#[test]
fn whatever_happens_no_state_contradicts_itself_and_every_close_comes_to_an_end() {
    let found = reachable();
    println!("{} states", found.len());
    assert!(found.len() > 10_000, "the graph was not walked: {}", found.len());
    for (node, before) in &found {
        holds(*node, *before);
        for next in steps(*node) {
            goes_on(*node, next);
        }
    }
}

/// Checks one state.
fn holds((conn, is_shutting): Node, before: Node) {
    let says = |holds: bool, what: &str| assert!(holds, "{what}: {conn:?} after {before:?}");
    if conn.life == Life::Lingering {
        let is_sent = matches!(conn.write, WriteSide::FinSent | WriteSide::Broken);
        says(conn.is_closing() && is_sent, "who lingers closes, and has sent FIN");
    }
    says(!conn.is_closing() || !conn.takes_output(), "who closes takes no output");
    says(!is_shutting || conn.write == WriteSide::FinSent, "FIN is noted before it is sent");
    says(!conn.is_detaching() || !conn.is_fed(), "a transfer ends before the transport leaves");
    says(!conn.is_detaching() || !conn.is_connecting(), "so does the connect");
    says(!conn.takes_items() || !conn.is_leaving(), "who leaves gets no items");
    says(!conn.wants_input() || !conn.has_ended(), "behind the end there is no input");
    says((conn.write == WriteSide::Absent) != conn.medium.has_output(), "the transport decides on output");
    says(!conn.closes_after_earlier_end(true), "who is half open stays");
    says(conn.is_attached() == (conn.life != Life::Retrying && conn.exit != Exit::Detached), "the engine");
    if conn.is_plain() {
        says(conn.takes_output() && conn.takes_items() && conn.wants_input(), "a plain one does all");
        says(!conn.is_ending() && !conn.is_high() && conn.is_open() && conn.rests().is_none(), "only that");
    }
    // The peer has ended its side too, and all that was queued has left.
    if conn.is_concluding() && !conn.is_connecting() && !is_shutting {
        let ended = after(conn, Conn::end_input).0;
        let (_, next) = after(ended, |one| one.proceed(SENT));
        says(next == NextStep::End, "a close ends when both sides have ended");
    }
}

/// Checks one step.
fn goes_on((from, _): Node, (to, _): Node) {
    let says = |holds: bool, what: &str| assert!(holds, "{what}: {from:?} to {to:?}");
    let rank = |all: &[WriteSide], one| all.iter().position(|other| *other == one);
    says(from.write != WriteSide::Broken || to.write == WriteSide::Broken, "a broken side stays broken");
    says(rank(&WRITES, from.write) <= rank(&WRITES, to.write), "the write side only goes on");
    let life = |one| LIVES.iter().position(|other| *other == one);
    says(life(from.life) <= life(to.life), "a life only goes on");
    says(!from.has_ended() || to.has_ended(), "an end is an end");
    says(!from.is_end_delivered() || to.is_end_delivered(), "the end is handed on once");
    says(!from.is_closing() || to.is_closing(), "a close is not taken back");
    says(!from.is_detaching() || to.is_detaching(), "the transport does not turn back");
}

#[test]
fn a_stream_enters_with_what_its_earlier_life_has_left() {
    let entry = Entering { medium: Medium::SOCKET, is_connecting: false, is_ending: false, is_high: false };
    let fresh = Conn::default().enter(entry);
    assert_eq!(fresh, Conn { life: Life::Handshake, ..Conn::default() });
    let connecting = Entering { is_connecting: true, ..entry };
    for life in LIVES {
        assert_eq!(lives(life).enter(connecting).life, Life::Connecting);
        let expected = if life == Life::Open { Life::Open } else { Life::Handshake };
        assert_eq!(lives(life).enter(entry).life, expected, "{life:?}");
    }
    let again = [ReadSide::Open, ReadSide::Open, ReadSide::HungUp { told: true }, ReadSide::Open];
    for (read, expected) in READS.into_iter().zip(again.into_iter().chain(READS[4..].iter().copied())) {
        assert_eq!(reads(read).enter(entry).read, expected, "{read:?}");
    }
    for write in WRITES {
        let sent = write == WriteSide::FinSent;
        let expected = |otherwise| if sent { WriteSide::FinSent } else { otherwise };
        assert_eq!(writes(write).enter(entry).write, expected(WriteSide::Open));
        let ending = Entering { is_ending: true, ..entry };
        assert_eq!(writes(write).enter(ending).write, expected(WriteSide::Draining));
        let reader = Entering { medium: Medium::READER, ..ending };
        assert_eq!(writes(write).enter(reader).write, WriteSide::Absent);
    }
    let every = RestReasons::NONE
        .with(RestReason::Paused, true)
        .with(RestReason::Output, true)
        .with(RestReason::Partner, true);
    let before = Conn { rests: every, partner: FED, exit: Exit::Detached, facts: RESTING, ..open() };
    let expected = Conn { rests: PAUSED, ..open() };
    assert_eq!(before.enter(entry), expected, "only the service's own pause stays");
    for (high, drained_due, is_high) in [(true, false, false), (false, true, false), (false, false, true)] {
        let facts = Facts::READING.with(Fact::High, high).with(Fact::DrainedDue, drained_due);
        let before = Conn { facts, ..open() };
        let now = before.enter(Entering { is_high, ..entry });
        assert!(now.is_high() && !now.facts.has(Fact::DrainedDue), "a `Drained` is due in this life");
    }
    assert!(!open().enter(entry).is_high());
    let writer = Entering { medium: Medium::WRITER, ..entry };
    assert_eq!(open().enter(writer).medium, Medium::WRITER);
    assert_eq!(READS.map(|read| reads(read).is_over()), [false, false, false, false, true, true, true]);
    assert_eq!(WRITES.map(|write| writes(write).is_over()), [false, false, false, true, false]);
}

#[test]
fn a_life_begins_with_the_transport_and_the_layers() {
    let connecting = lives(Life::Connecting);
    assert_eq!(after(connecting, Conn::start).0.life, Life::Handshake);
    assert_eq!(after(open(), Conn::start).0, open());
    let added = after(lives(Life::Handshake), Conn::start_later).0;
    assert!(added.is_start_due() && !after(added, Conn::start).0.is_start_due());
    assert!(!after(added, Conn::forget_start).0.is_start_due());
    let retrying = after(connecting, Conn::retry).0;
    assert!(retrying.is_connecting() && !retrying.is_attached() && connecting.is_attached());
    let again = after(Conn { facts: RESTING, ..retrying }, Conn::retried).0;
    assert_eq!(again, connecting);
    assert_eq!(LIVES.map(|life| lives(life).is_connecting()), [true, true, false, false, false]);
    assert_eq!(LIVES.map(|life| lives(life).is_open()), [false, false, false, true, false]);
    for life in LIVES {
        let (now, opens) = after(lives(life), Conn::open);
        assert_eq!((opens, now.life == Life::Open), (life == Life::Handshake, opens || life == Life::Open));
    }
    for is_added in [true, false] {
        let again = after(open(), |one| one.restart(is_added)).0;
        assert_eq!(
            again,
            Conn { facts: Facts::READING.with(Fact::StartDue, is_added), ..lives(Life::Handshake) }
        );
    }
}

#[test]
fn a_close_begins_once_and_not_behind_a_failure() {
    for (exit, next) in EXITS.into_iter().zip([
        NextStep::Conclude,
        NextStep::Note,
        NextStep::Conclude,
        NextStep::Wait,
        NextStep::Wait,
    ]) {
        let (now, what) = after(exits(exit), |one| one.close(false));
        assert_eq!(what, next, "{exit:?}");
        let expected = if next == NextStep::Conclude { closing(WriteSide::Draining) } else { exits(exit) };
        assert_eq!(now, expected);
        let (now, what) = after(exits(exit), |one| one.close(true));
        let expected = if next == NextStep::Conclude { NextStep::Fail } else { next };
        assert_eq!((now, what), (exits(exit), expected), "{exit:?}");
    }
    for write in [WriteSide::Absent, WriteSide::Draining, WriteSide::FinSent, WriteSide::Broken] {
        assert_eq!(after(writes(write), |one| one.close(false)), (closing(write), NextStep::Conclude));
    }
}

#[test]
fn a_close_that_nobody_ordered_cuts_output_that_is_not_ended() {
    let truncated = || Closed::Truncated(session::Truncated.into());
    let refused = || Closed::Refused("a handler's".into());
    for partner in PARTNERS {
        for write in WRITES {
            let one = Conn { partner, ..writes(write) };
            let may_grow = !matches!(write, WriteSide::Draining | WriteSide::FinSent);
            let is_paired = partner == Partner::Stream;
            for why in [Closed::Done, Closed::End, Closed::Released] {
                assert!(!one.is_cut_by(&why), "{why:?}: {one:?}");
            }
            assert_eq!(one.is_cut_by(&truncated()), may_grow, "{one:?}");
            for why in [refused(), Closed::Deadline] {
                assert_eq!(one.is_cut_by(&why), may_grow && is_paired, "{why:?}: {one:?}");
            }
            assert!(one.is_cut_by(&Closed::Partner), "{one:?}");
        }
    }
    // The close ends the write side, so the question comes before it.
    let closed = after(with(Partner::Stream), |one| one.close(false)).0;
    assert!(with(Partner::Stream).is_cut_by(&refused()) && !closed.is_cut_by(&refused()));
    assert!(with(Partner::Stream).is_fed_partly() && !closed.is_fed_partly());
}

#[test]
fn the_write_side_is_finished_once() {
    for write in WRITES {
        let (now, next) = after(writes(write), Conn::finish);
        let expected = if write == WriteSide::Open {
            (writes(WriteSide::Draining), NextStep::Conclude)
        } else {
            (writes(write), NextStep::Wait)
        };
        assert_eq!((now, next), expected, "{write:?}");
        let writer = Conn { medium: Medium::WRITER, ..writes(write) };
        assert_eq!(after(writer, Conn::finish), (writer, NextStep::Close), "its only side");
    }
}

#[test]
fn a_release_is_refused_to_a_stream_that_closes_and_detaches_once() {
    for (exit, expected) in EXITS.into_iter().zip([
        (Exit::Releasing, true),
        (Exit::Closing, false),
        (Exit::Releasing, true),
        (Exit::Detaching, true),
        (Exit::Detached, true),
    ]) {
        let (now, begins) = after(exits(exit), Conn::release);
        assert_eq!((now, begins), (exits(expected.0), expected.1), "{exit:?}");
    }
    assert_eq!(
        after(exits(Exit::Releasing), |one| one.proceed(QUEUED)),
        (exits(Exit::Detaching), NextStep::Detach)
    );
    for exit in [Exit::Detaching, Exit::Detached] {
        assert_eq!(after(exits(exit), |one| one.proceed(SENT)), (exits(exit), NextStep::Wait));
    }
    for waits in [
        Conn { partner: FED, ..exits(Exit::Releasing) },
        Conn { life: Life::Connecting, ..exits(Exit::Releasing) },
        Conn { life: Life::Retrying, ..exits(Exit::Releasing) },
    ] {
        assert_eq!(after(waits, |one| one.proceed(SENT)), (waits, NextStep::Wait));
    }
    assert_eq!(after(exits(Exit::Detaching), Conn::detached).0, exits(Exit::Detached));
    assert_eq!(EXITS.map(|exit| exits(exit).is_releasing()), [false, false, true, true, true]);
    assert_eq!(EXITS.map(|exit| exits(exit).is_detaching()), [false, false, false, true, true]);
    assert_eq!(EXITS.map(|exit| exits(exit).is_attached()), [true, true, true, true, false]);
    assert_eq!(EXITS.map(|exit| exits(exit).is_closing()), [false, true, false, false, false]);
    assert_eq!(EXITS.map(|exit| exits(exit).is_leaving()), [false, true, true, true, true]);
    assert_eq!(EXITS.map(|exit| exits(exit).may_write()), [true, true, true, false, false]);
}

#[test]
fn our_fin_leaves_behind_the_queue_and_the_layers() {
    let draining = closing(WriteSide::Draining);
    let fin = closing(WriteSide::FinSent);
    let handshake = Tail { phase: Phase::Handshake, ..SENT };
    for (tail, next) in [
        (SENT, NextStep::Shutdown),
        (QUEUED, NextStep::Wait),
        // The engine holds the last bytes.
        (Tail { is_empty: false, ..SENT }, NextStep::Wait),
        // The layers have not ended yet.
        (Tail { phase: Phase::Open, ..SENT }, NextStep::Wait),
        // A handshake goes on only for output behind it.
        (handshake, NextStep::Shutdown),
        (Tail { phase: Phase::Idle, ..SENT }, NextStep::Shutdown),
        (Tail { is_sealed: false, ..handshake }, NextStep::Wait),
        (Tail { is_sealed: false, phase: Phase::Idle, ..SENT }, NextStep::Wait),
        // Output is missing, so no end is orderly; but first it all leaves.
        (Tail { is_cut: true, ..SENT }, NextStep::End),
        (Tail { is_cut: true, ..QUEUED }, NextStep::Wait),
    ] {
        let (now, what) = after(draining, |one| one.proceed(tail));
        assert_eq!((what, now.write == WriteSide::FinSent), (next, next == NextStep::Shutdown), "{tail:?}");
    }
    // A half-close of a cut stream is as any other: only its close tells.
    let cut = Tail { is_cut: true, ..SENT };
    assert_eq!(after(writes(WriteSide::Draining), |one| one.proceed(cut)).1, NextStep::Shutdown);
    assert_eq!(after(fin, |one| one.proceed(Tail { phase: Phase::Open, ..SENT })).1, NextStep::Linger);
    assert_eq!(after(fin, |one| one.proceed(QUEUED)).1, NextStep::Wait);
    // The peer has ended inside the handshake.
    let hopeless = Conn { read: ReadSide::Eof { told: false }, ..draining };
    let queued = Tail { is_empty: false, is_sealed: false, phase: Phase::Handshake, is_cut: false };
    assert_eq!(after(hopeless, |one| one.proceed(queued)).1, NextStep::End);
    assert_eq!(after(hopeless, |one| one.proceed(QUEUED)).1, NextStep::Wait, "it is up");
    assert_eq!(after(draining, |one| one.proceed(queued)).1, NextStep::Wait, "it has not ended");
    let finished = Conn { read: ReadSide::Eof { told: false }, ..writes(WriteSide::Draining) };
    assert_eq!(after(finished, |one| one.proceed(queued)).1, NextStep::Shutdown, "it only finishes");
}

#[test]
fn a_close_ends_when_nothing_is_left_to_wait_for() {
    for read in READS {
        for write in [WriteSide::Draining, WriteSide::FinSent] {
            let one = Conn { read, ..closing(write) };
            let (_, next) = after(one, |one| one.proceed(SENT));
            let goes_on = if write == WriteSide::Draining { NextStep::Shutdown } else { NextStep::Linger };
            assert_eq!(next, if one.has_ended() { NextStep::End } else { goes_on }, "{one:?}");
        }
        let broken = Conn { read, ..closing(WriteSide::Broken) };
        assert_eq!(after(broken, |one| one.proceed(QUEUED)).1, NextStep::End);
        let cut = Tail { is_cut: true, ..QUEUED };
        assert_eq!(after(broken, |one| one.proceed(cut)).1, NextStep::End);
        // The half-close of a stream that stays ends with the peer's side.
        let finished = Conn { read, ..writes(WriteSide::FinSent) };
        let next = if read == ReadSide::Delivered { NextStep::EndBoth } else { NextStep::Wait };
        assert_eq!(after(finished, |one| one.proceed(SENT)), (finished, next), "{read:?}");
        let draining = Conn { read, ..writes(WriteSide::Draining) };
        assert_eq!(after(draining, |one| one.proceed(SENT)), (finished, NextStep::Shutdown));
    }
    // One direction only: the descriptor may have another user.
    for (medium, write) in [(Medium::READER, WriteSide::Absent), (Medium::WRITER, WriteSide::Draining)] {
        let one = Conn { medium, ..closing(write) };
        assert_eq!(after(one, |one| one.proceed(SENT)), (one, NextStep::End), "{medium:?}");
    }
}

#[test]
fn behind_our_fin_a_close_lingers_and_a_half_close_waits() {
    let lingers = Conn { life: Life::Lingering, ..closing(WriteSide::FinSent) };
    let close = closing(WriteSide::FinSent);
    assert_eq!(after(close, |one| one.shut_down(true)), (lingers, NextStep::Linger));
    assert_eq!(after(close, |one| one.shut_down(false)), (close, NextStep::End), "the peer is gone");
    for read in READS {
        let half = Conn { read, ..writes(WriteSide::FinSent) };
        let next = if read == ReadSide::Delivered { NextStep::EndBoth } else { NextStep::Wait };
        assert_eq!(after(half, |one| one.shut_down(true)), (half, next));
        assert_eq!(after(half, |one| one.shut_down(false)), (half, NextStep::Wait));
    }
}

#[test]
fn the_state_says_which_deadline_has_passed() {
    use Expired::*;
    assert_eq!(LIVES.map(|life| lives(life).expired()), [Connect, Connect, Handshake, Stall, Linger]);
    for life in LIVES {
        let one = Conn { life, ..closing(WriteSide::Draining) };
        let expected = if life == Life::Lingering { Linger } else { Close };
        assert_eq!(one.expired(), expected);
        let fed = Conn { partner: FED, ..one };
        let expected = if life == Life::Lingering { Linger } else { lives(life).expired() };
        assert_eq!(fed.expired(), expected, "the transfer goes on under its own");
    }
    assert_eq!(WRITES.map(|write| writes(write).expired()), [Stall, Stall, Stall, Stall, Broken]);
    assert_eq!(LIVES.map(|life| lives(life).is_timed()), [false, false, false, true, false]);
    assert!(!closing(WriteSide::Draining).is_timed());
    assert!(Conn { partner: FED, ..closing(WriteSide::Draining) }.is_timed());
}

#[test]
fn an_end_is_noted_reported_and_handed_on() {
    use ReadSide::*;
    let (hung, told) = (HungUp { told: false }, HungUp { told: true });
    let (eof, known) = (Eof { told: false }, Eof { told: true });
    assert_eq!(
        READS.map(|read| after(reads(read), Conn::end_input).0.read),
        [eof, eof, known, eof, eof, known, Delivered]
    );
    assert_eq!(
        READS.map(|read| after(reads(read), |one| one.note_hangup(false)).0.read),
        [hung, hung, told, Failed, eof, known, Delivered]
    );
    assert_eq!(
        READS.map(|read| after(reads(read), |one| one.note_hangup(true)).0.read),
        [Failed, Failed, Failed, Failed, eof, known, Delivered]
    );
    assert_eq!(READS.map(|read| reads(read).has_ended()), [false, false, false, false, true, true, true]);
    assert_eq!(READS.map(|read| reads(read).has_gone()), [false, true, true, true, true, true, false]);
    assert_eq!(
        READS.map(|read| reads(read).is_end_delivered()),
        [false, false, false, false, false, false, true]
    );
    assert_eq!(after(reads(eof), Conn::deliver_end).0, reads(Delivered));
    // The service has to have paused it, and gets it once.
    assert_eq!(
        READS.map(|read| after(Conn { rests: PAUSED, ..reads(read) }, Conn::tell_hangup)),
        [
            (Conn { rests: PAUSED, ..reads(Open) }, false),
            (Conn { rests: PAUSED, ..reads(told) }, true),
            (Conn { rests: PAUSED, ..reads(told) }, false),
            (Conn { rests: PAUSED, ..reads(Failed) }, false),
            (Conn { rests: PAUSED, ..reads(known) }, true),
            (Conn { rests: PAUSED, ..reads(known) }, false),
            (Conn { rests: PAUSED, ..reads(Delivered) }, false),
        ]
    );
    assert!(!after(reads(hung), Conn::tell_hangup).1, "it is not paused");
    for silent in [exits(Exit::Closing), exits(Exit::Releasing), lives(Life::Handshake)] {
        let silent = Conn { read: hung, rests: PAUSED, ..silent };
        assert_eq!(after(silent, Conn::tell_hangup), (silent, false));
    }
}

#[test]
fn an_end_waits_for_the_input_before_it() {
    use AtEnd::*;
    let ended = reads(ReadSide::Eof { told: false });
    let kept = NOTHING_KEPT;
    assert_eq!(
        READS.map(|read| reads(read).at_end(kept)),
        [Wait, HungUp, HungUp, HungUp, Deliver, Deliver, Wait]
    );
    assert_eq!(READS.map(|read| reads(read).at_end(KeptInput { is_resuming: true, ..kept })), [Wait; 7]);
    assert_eq!(EXITS.map(|exit| Conn { exit, ..ended }.at_end(kept)), [Deliver, Flush, Wait, Wait, Wait]);
    assert_eq!(PARTNERS.map(|partner| Conn { partner, ..ended }.at_end(kept)), [Deliver, Deliver, Ask, Ask]);
    let failed = KeptInput { has_error: true, ..kept };
    assert_eq!(PARTNERS.map(|partner| Conn { partner, ..ended }.at_end(failed)), [Deliver; 4]);
    let closes = Conn { exit: Exit::Closing, ..ended };
    assert_eq!(closes.at_end(failed), Flush);
    assert_eq!(Conn { partner: FED, ..closes }.at_end(failed), Fail, "its output has no receiver");
    assert_eq!(Conn { partner: FED, ..closes }.at_end(kept), Flush);
    // Input is kept: the service that has paused the stream may take it later.
    let paused = Conn { rests: PAUSED, ..ended };
    let rests = Conn { rests: RestReasons::NONE.with(RestReason::Output, true), ..ended };
    let input = KeptInput { has_input: true, ..kept };
    let skipped = KeptInput { has_skipped: true, ..kept };
    assert_eq!([ended, paused, rests].map(|one| one.at_end(input)), [Deliver, HungUp, HungUp]);
    assert_eq!([ended, paused, rests].map(|one| one.at_end(skipped)), [Deliver, HungUp, Deliver]);
    assert_eq!([ended, paused, rests].map(|one| one.at_end(kept)), [Deliver; 3]);
    let failed = KeptInput { has_input: true, ..failed };
    assert_eq!([ended, paused, rests].map(|one| one.at_end(failed)), [Deliver, Deliver, HungUp]);
}

#[test]
fn behind_the_end_a_stream_closes_unless_something_keeps_it() {
    for partner in PARTNERS {
        let alone = partner == Partner::None;
        let fin = Conn { partner, ..writes(WriteSide::FinSent) };
        for is_half_open in [true, false] {
            assert_eq!(with(partner).closes_after_end(is_half_open), alone && !is_half_open);
            assert!(fin.closes_after_end(is_half_open), "both sides have ended");
            for exit in EXITS {
                let closes = alone && !is_half_open && exit == Exit::Stays;
                let one = Conn { partner, exit, ..reads(ReadSide::Delivered) };
                assert_eq!(one.closes_after_earlier_end(is_half_open), closes);
                assert!(
                    !Conn { read: ReadSide::Eof { told: true }, ..one }
                        .closes_after_earlier_end(is_half_open)
                );
            }
        }
    }
}

#[test]
fn input_is_read_as_long_as_somebody_takes_it() {
    let rest = |rest| Conn { rests: RestReasons::NONE.with(rest, true), ..open() };
    let rests = [RestReason::Paused, RestReason::Output, RestReason::Partner, RestReason::Backlog];
    assert_eq!(rests.map(|why| rest(why).takes_items()), [false, false, false, true]);
    assert_eq!(rests.map(|why| rest(why).opens_input()), [false; 4]);
    assert_eq!(rests.map(|why| rest(why).wants_input()), [false; 4]);
    assert_eq!(rests.map(|why| rest(why).awaits_item()), [false; 4]);
    assert_eq!(rests.map(|why| rest(why).is_paused()), [true, false, false, false]);
    for why in rests {
        assert!(rest(why).rests_for(why) && !open().rests_for(why) && !rest(why).is_plain());
        assert_eq!(after(open(), |one| one.rest(why, true)), (rest(why), false));
        assert_eq!(after(rest(why), |one| one.rest(why, false)), (open(), true));
        let closes = Conn { exit: Exit::Closing, ..rest(why) };
        assert!(closes.wants_input(), "a close reads what it discards");
        let shakes = Conn { life: Life::Handshake, ..rest(why) };
        assert!(shakes.wants_input() && shakes.opens_input(), "the layers read, whatever the service does");
    }
    assert_eq!(EXITS.map(|exit| exits(exit).takes_items()), [true, false, false, false, false]);
    assert_eq!(EXITS.map(|exit| exits(exit).opens_input()), [true, false, false, false, false]);
    assert_eq!(EXITS.map(|exit| exits(exit).wants_input()), [true, true, false, false, false]);
    assert_eq!(EXITS.map(|exit| exits(exit).discards_input()), [false, true, false, false, false]);
    let shakes = |exit| Conn { life: Life::Handshake, ..exits(exit) };
    assert_eq!(EXITS.map(|exit| shakes(exit).wants_input()), [true, true, false, false, false]);
    assert_eq!(EXITS.map(|exit| shakes(exit).discards_input()), [false; 5]);
    assert_eq!(LIVES.map(|life| lives(life).discards_input()), [false, false, false, false, true]);
    assert_eq!(READS.map(|read| reads(read).wants_input()), [true, true, true, true, false, false, false]);
    assert_eq!(READS.map(|read| reads(read).awaits_item()), [true, true, true, true, false, false, false]);
    assert_eq!(LIVES.map(|life| lives(life).awaits_item()), [false, false, false, true, false]);
    assert!(!Conn { medium: Medium::DUPLEX, ..open() }.awaits_item(), "a device takes its time");
}

#[test]
fn a_failed_connection_is_read_although_it_is_paused() {
    for read in READS {
        let paused = Conn { rests: PAUSED, ..reads(read) };
        assert_eq!(paused.salvages(), read == ReadSide::Failed);
        assert_eq!(paused.wants_input(), read == ReadSide::Failed);
        assert_eq!(paused.may_rest_for_bytes(), read != ReadSide::Failed);
        assert!(!reads(read).salvages(), "nobody has paused it");
    }
    let failed = Conn { rests: PAUSED, ..reads(ReadSide::Failed) };
    assert_eq!(EXITS.map(|exit| Conn { exit, ..failed }.salvages()), [true, true, false, false, false]);
    assert_eq!(EXITS.map(|exit| exits(exit).may_rest_for_bytes()), [true, false, true, true, true]);
    assert_eq!(LIVES.map(|life| lives(life).may_rest_for_bytes()), [false, false, false, true, false]);
}

#[test]
fn the_engine_is_asked_only_for_what_has_changed() {
    let idle = Conn { facts: RESTING, ..open() };
    assert_eq!(after(open(), |one| one.sync(true)), (open(), None));
    assert_eq!(after(open(), |one| one.sync(false)), (idle, Some(false)));
    assert_eq!(after(idle, |one| one.sync(true)), (open(), Some(true)));
    assert!(!idle.is_plain());
    for exit in [Exit::Detaching, Exit::Detached] {
        assert_eq!(after(exits(exit), |one| one.sync(false)), (exits(exit), None));
    }
    for read in READS {
        let early = read == (ReadSide::HungUp { told: false });
        let expected = if early { ReadSide::Open } else { read };
        let (now, _) = after(Conn { facts: RESTING, ..reads(read) }, |one| one.sync(true));
        assert_eq!(now, reads(expected), "the engine reports it again");
        let (now, _) = after(reads(read), |one| one.sync(false));
        assert_eq!(now.read, read);
    }
}

#[test]
fn a_stream_is_driven_again_when_something_kept_may_go_on() {
    let paused = Conn { rests: PAUSED, ..open() };
    assert_eq!(after(open(), |one| one.pause(true, true)), (paused, false));
    assert_eq!(after(paused, |one| one.pause(false, true)), (open(), true));
    assert_eq!(after(paused, |one| one.pause(false, false)), (open(), false));
    assert_eq!(after(open(), |one| one.pause(false, true)), (open(), false), "it was not paused");
    for read in READS {
        let (_, again) = after(reads(read), |one| one.pause(true, false));
        assert_eq!(again, reads(read).has_gone(), "then the service gets `HungUp`: {read:?}");
        assert!(!after(reads(read), |one| one.pause(false, true)).1);
    }
    let held = Conn { rests: RestReasons::NONE.with(RestReason::Partner, true), ..open() };
    assert_eq!(after(open(), |one| one.hold(true, true)), (held, false));
    assert_eq!(after(held, |one| one.hold(false, true)), (open(), true));
    assert_eq!(after(held, |one| one.hold(false, false)), (open(), false));
    assert_eq!(after(open(), |one| one.hold(false, true)), (open(), false));
    assert_eq!(after(held, |one| one.hold(true, true)), (held, false));
}

#[test]
fn output_is_taken_while_the_side_is_open() {
    let rows = |of: fn(Conn) -> bool| WRITES.map(|write| of(writes(write)));
    assert_eq!(rows(Conn::takes_output), [false, true, false, false, false]);
    assert_eq!(rows(Conn::takes_feed), [false, true, true, true, false]);
    assert_eq!(rows(Conn::may_write), [true, true, true, true, false]);
    assert_eq!(rows(Conn::is_broken), [false, false, false, false, true]);
    assert_eq!(rows(Conn::ends_output), [false, false, true, true, false]);
    assert_eq!(rows(Conn::is_ending), [false, false, true, true, false]);
    assert_eq!(rows(Conn::takes_direct_writes), [true, true, true, false, false]);
    assert_eq!(rows(Conn::is_plain), [false, true, false, false, false]);
    assert_eq!(EXITS.map(|exit| exits(exit).takes_feed()), [true, true, false, false, false]);
    assert_eq!(EXITS.map(|exit| exits(exit).takes_direct_writes()), [true, true, false, false, false]);
    assert_eq!(EXITS.map(|exit| exits(exit).ends_output()), [false, true, false, false, false]);
    assert_eq!(EXITS.map(|exit| exits(exit).is_ending()), [false, true, true, true, true]);
    assert_eq!(EXITS.map(|exit| exits(exit).is_plain()), [true, false, false, false, false]);
    assert_eq!(LIVES.map(|life| lives(life).takes_direct_writes()), [false, false, false, true, false]);
    assert_eq!(LIVES.map(|life| lives(life).is_plain()), [false, false, false, true, false]);
    assert_eq!(READS.map(|read| reads(read).is_plain()), [true, false, false, false, false, false, false]);
    // While a transfer feeds it, only a release goes on.
    assert!(!Conn { partner: FED, ..closing(WriteSide::Draining) }.is_ending());
    assert!(!Conn { partner: FED, ..closing(WriteSide::Draining) }.is_concluding());
    assert!(closing(WriteSide::Draining).is_concluding() && !open().is_concluding());
    assert!(Conn { partner: FED, ..exits(Exit::Releasing) }.is_ending());
    assert_eq!(
        [Medium::SOCKET, Medium::DUPLEX].map(|medium| Conn { medium, ..open() }.is_remote()),
        [true, false]
    );
}

#[test]
fn a_failed_write_lets_the_input_be_delivered_if_there_can_be_any() {
    let pressed = Conn {
        facts: HIGH,
        rests: RestReasons::NONE.with(RestReason::Output, true).with(RestReason::Paused, true),
        ..open()
    };
    let (now, next) = after(pressed, Conn::write_failed);
    let expected = Conn { rests: PAUSED, ..writes(WriteSide::Broken) };
    assert_eq!((now, next), (expected, NextStep::Note), "what the queue held back is read");
    assert_eq!(after(now, Conn::write_failed), (now, NextStep::Wait), "once");
    let over =
        [closing(WriteSide::Draining), reads(ReadSide::Delivered), Conn { medium: Medium::WRITER, ..open() }];
    for one in over {
        assert_eq!(after(one, Conn::write_failed).1, NextStep::Fail, "{one:?}");
    }
    for goes_on in [reads(ReadSide::Eof { told: true }), exits(Exit::Releasing), writes(WriteSide::FinSent)] {
        assert_eq!(after(goes_on, Conn::write_failed).1, NextStep::Note, "{goes_on:?}");
    }
}

#[test]
fn a_queue_is_high_until_it_is_low_and_the_service_learns_of_it_once() {
    let high = after(open(), |one| one.set_high(true)).0;
    assert!(high.is_high() && !open().is_high() && !high.is_plain());
    assert_eq!(after(high, |one| one.set_high(false)).0, open());
    let (low, was_high) = after(high, Conn::drained);
    assert!(was_high && low.facts.has(Fact::DrainedDue) && !low.is_high());
    assert_eq!(after(open(), Conn::drained), (open(), false));
    assert_eq!(after(low, Conn::take_drained), (open(), true));
    assert_eq!(after(open(), Conn::take_drained), (open(), false));
    let again = after(low, |one| one.set_high(true)).0;
    assert_eq!(after(again, Conn::take_drained), (high, false), "it is high again");
    let closes = Conn { facts: Facts::READING.with(Fact::DrainedDue, true), ..closing(WriteSide::Draining) };
    assert!(!after(closes, Conn::take_drained).1);
    let fed = Conn { facts: HIGH, ..with(FED) };
    assert_eq!(after(fed, Conn::drained), (with(FED), true), "the transfer learns of it instead");
}

#[test]
fn a_partner_binds_a_stream_until_it_lets_go() {
    let rows = |of: fn(Conn) -> bool| PARTNERS.map(|partner| of(with(partner)));
    assert_eq!(rows(Conn::is_fed), [false, false, true, true]);
    assert_eq!(rows(Conn::is_paired), [false, true, false, false]);
    assert_eq!(rows(Conn::has_partner), [false, true, true, true]);
    assert_eq!(rows(Conn::awaits_room), [false, false, false, true]);
    assert_eq!(rows(Conn::is_fed_partly), [false, true, true, true]);
    let finished = |partner| Conn { partner, ..writes(WriteSide::Draining) };
    assert_eq!(PARTNERS.map(|partner| finished(partner).is_fed_partly()), [false, false, true, true]);
    assert_eq!(after(open(), Conn::pair), (with(Partner::Stream), false));
    let ended = reads(ReadSide::Delivered);
    assert!(after(ended, Conn::pair).1, "its end is passed on");
    let held = Conn {
        rests: RestReasons::NONE.with(RestReason::Partner, true).with(RestReason::Paused, true),
        ..with(Partner::Stream)
    };
    assert_eq!(after(held, Conn::unpair).0, Conn { rests: PAUSED, ..open() });
    for write in WRITES {
        let begins = matches!(write, WriteSide::Open | WriteSide::Absent);
        let expected = if begins { Conn { partner: FED, ..writes(write) } } else { writes(write) };
        assert_eq!(after(writes(write), Conn::begin_feed), (expected, begins));
    }
    for busy in [exits(Exit::Closing), exits(Exit::Releasing), with(Partner::Stream), with(FED)] {
        assert_eq!(after(busy, Conn::begin_feed), (busy, false));
    }
    assert_eq!(after(with(FED), Conn::end_feed), (open(), false));
    assert!(after(Conn { partner: FED, ..ended }, Conn::end_feed).1);
    assert!(!after(Conn { partner: FED, exit: Exit::Releasing, ..ended }, Conn::end_feed).1);
    for partner in PARTNERS {
        let (now, waited) = after(with(partner), |one| one.await_room(true));
        assert_eq!((now.awaits_room(), waited), (now.is_fed(), with(partner).awaits_room()));
        assert!(!after(now, |one| one.await_room(false)).0.awaits_room());
    }
}
