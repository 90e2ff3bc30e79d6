//! F at runtime level: timers and deadlines.

use std::{process::Command, time::Instant};

use reactor::{Limits, Time, TimerId};

use super::{prelude::*, probe::returns};
use crate::intercept::{Intercept, Intercepted};

pub(super) const ROWS: &[Row] = &[
    row("F1r", "timers fire in the order of their deadlines, equal ones in the order set", &[], in_order),
    row("F2r", "a timer of nothing fires once in the next turn, an endless one never", &[], extremes),
    row("F3r", "no timer is early, and the loop turns no more than it fires", &[], never_early),
    row("F5r", "a clock that begins far from zero makes no difference", &[], far_clock),
    slow(
        "F6r",
        "after a process was stopped, what is overdue fires once",
        &[Need::Sockets, Need::Linux],
        stopped,
    ),
    row("F7r", "a timer cancelled in the batch in which it is due never fires", &[], cancelled),
    row("F8r", "a handler slower than its period causes no storm", &[], slow_handler),
    row("F9r", "endless timers and busy streams do not starve each other", &[], timers_and_streams),
    row("F10r", "a hundred thousand timers fire in order, the cancelled half does not", &[], very_many),
    row("F11r", "a timer of thirty days lets the loop rest", &[], thirty_days),
];

/// Records which timer fired, and when.
#[derive(Default)]
struct Clock {
    fired: Vec<(u64, Time)>,
    again: Option<Duration>,
}

impl Service for Clock {}

impl Receive<u64> for Clock {
    fn receive(&mut self, cx: &mut Context<'_, Self>, number: u64) -> Result {
        self.fired.push((number, cx.now()));
        if let Some(again) = self.again {
            cx.after(again, number);
        }
        Ok(())
    }
}

fn numbers(clock: &Clock) -> Vec<u64> {
    clock.fired.iter().map(|(number, _)| *number).collect()
}

fn in_order(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let clock = rig.add(Clock::default())?;
    rig.with(clock, |_, cx| {
        for (millis, number) in [(9, 5), (3, 1), (3, 2), (6, 4), (3, 3), (9, 6)] {
            cx.after(Duration::from_millis(millis), number);
        }
    });
    rig.until("all have fired", |rig| rig.get(clock).fired.len() == 6)?;
    check!(numbers(rig.get(clock)) == [1, 2, 3, 4, 5, 6], "{:?}", numbers(rig.get(clock)));
    rig.finish()
}

fn extremes(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let clock = rig.add(Clock::default())?;
    let endless: Vec<TimerId> = rig.with(clock, |_, cx| {
        cx.after(Duration::ZERO, 1);
        cx.after(Duration::from_nanos(1), 2);
        [Duration::MAX, Duration::from_secs(u64::MAX), Duration::from_secs(1 << 40)]
            .map(|after| cx.after(after, 3))
            .into()
    });
    rig.turn(SHORT)?;
    check!(numbers(rig.get(clock)).first() == Some(&1), "{:?} in the first turn", numbers(rig.get(clock)));
    rig.until("the shortest has fired", |rig| rig.get(clock).fired.len() == 2)?;
    rig.rests()?;
    check!(numbers(rig.get(clock)) == [1, 2], "{:?}", numbers(rig.get(clock)));
    let cancelled = rig.with(clock, |_, cx| endless.iter().filter(|timer| cx.cancel(**timer)).count());
    check!(cancelled == 3, "{cancelled} endless timers were pending");
    rig.finish()
}

fn never_early(fixture: &mut Fixture<'_>) -> Outcome {
    const COUNT: usize = 300;
    let mut rig = Rig::new(fixture)?;
    let clock = rig.add(Clock::default())?;
    let after: Vec<Duration> =
        (0..COUNT).map(|_| Duration::from_micros(fixture.up_to(100_000) as u64)).collect();
    let set = rig.now();
    rig.with(clock, |_, cx| after.iter().enumerate().for_each(|(at, after)| _ = cx.after(*after, at as u64)));
    // As many turns as there are timers, and some more for the timer wheel.
    for _ in 0..2 * COUNT {
        if rig.get(clock).fired.len() == COUNT {
            break;
        }
        rig.turn(Duration::from_secs(1))?;
    }
    check!(rig.get(clock).fired.len() == COUNT, "{} of {COUNT} have fired", rig.get(clock).fired.len());
    for (number, at) in &rig.get(clock).fired {
        let after = after[*number as usize];
        check!(*at >= set + after, "a timer of {after:?} fired after {:?}", at.since(set));
    }
    rig.finish()
}

/// Shifts an engine's clock.
struct Shifted(Duration);

impl Intercept for Shifted {
    fn now(&self, now: Time) -> Time {
        now + self.0
    }
}

fn far_clock(fixture: &mut Fixture<'_>) -> Outcome {
    for years in [0, 3, 100, 300] {
        let engine = Intercepted::new(fixture.engine(), Shifted(Duration::from_secs(years * 365 * 86_400)));
        let mut rig = Rig::over(Box::new(engine), Limits::default())?;
        let clock = rig.add(Clock::default())?;
        let set = rig.now();
        rig.with(clock, |_, cx| (1..=3).for_each(|at| _ = cx.after(Duration::from_millis(3 * at), at)));
        rig.until("all have fired", |rig| rig.get(clock).fired.len() == 3)?;
        check!(numbers(rig.get(clock)) == [1, 2, 3], "{:?} after {years} years", numbers(rig.get(clock)));
        for (number, at) in &rig.get(clock).fired {
            check!(
                *at >= set + Duration::from_millis(3 * number),
                "timer {number} was early after {years} years"
            );
        }
        rig.finish()?;
    }
    Ok(())
}

fn stopped(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let clock = rig.add(Clock { again: Some(SHORT), ..Clock::default() })?;
    rig.with(clock, |_, cx| cx.after(SHORT, 1));
    rig.until("it fires", |rig| !rig.get(clock).fired.is_empty())?;
    let me = std::process::id().to_string();
    // The child continues this process after the pause, because it runs while this process is stopped.
    let script = "kill -STOP $1; sleep 1; kill -CONT $1";
    let Ok(mut child) = Command::new("/bin/sh").args(["-c", script, "sh", &me]).spawn() else {
        return Err(Stop::Skipped("needs the program /bin/sh".to_owned()));
    };
    let ended = rig.until("the child has ended", |_| !matches!(child.try_wait(), Ok(None)));
    child.wait()?;
    ended?;
    // The stop may have happened before this thread made another turn.
    let before = rig.get(clock).fired.len();
    rig.until("it fires after the stop", |rig| rig.get(clock).fired.len() > before)?;
    let fired = &rig.get(clock).fired;
    let gaps: Vec<Duration> = fired.windows(2).map(|pair| pair[1].1.since(pair[0].1)).collect();
    check!(gaps.iter().any(|gap| *gap > Duration::from_millis(500)), "it was not stopped: {gaps:?}");
    check!(gaps.iter().all(|gap| *gap >= SHORT), "a storm after the stop: {gaps:?}");
    rig.get_mut(clock).again = None;
    rig.until("the last has fired", |rig| rig.counters().timers == 0)?;
    rig.finish()
}

fn cancelled(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let timers = Rc::new(RefCell::new(Vec::<TimerId>::new()));
    let (known, cancelled) = (timers.clone(), Rc::new(Cell::new(0)));
    let count = cancelled.clone();
    // The first timer of each batch cancels the others. Its handler sets a new batch three times.
    let probe = rig.add(Probe::<Bytes>::acting(move |cx, _, what| {
        if let What::Message(round) = what {
            for timer in known.borrow_mut().drain(..) {
                count.set(count.get() + usize::from(cx.cancel(timer)));
            }
            if *round < 3 {
                cx.after(Duration::from_millis(2), round + 1);
                known.borrow_mut().extend([100, 101].map(|other| cx.after(Duration::from_millis(2), other)));
            }
        }
        Ok(())
    }))?;
    rig.with(probe, |_, cx| {
        cx.after(Duration::from_millis(2), 0_u64);
        timers.borrow_mut().extend([100_u64, 101].map(|other| cx.after(Duration::from_millis(2), other)));
    });
    rig.until("three rounds are over", |rig| rig.get(probe).messages.len() >= 4)?;
    rig.settle()?;
    rig.rests()?;
    check!(rig.get(probe).messages == [0, 1, 2, 3], "{:?}", rig.get(probe).messages);
    check!(cancelled.get() == 8, "{} were cancelled", cancelled.get());
    let twice = rig.with(probe, |_, cx| {
        let timer = cx.after(SHORT, 9_u64);
        (cx.cancel(timer), cx.cancel(timer))
    });
    check!(twice == (true, false), "cancelling twice said {twice:?}");
    rig.finish()
}

fn slow_handler(fixture: &mut Fixture<'_>) -> Outcome {
    let (period, is_virtual) = (Duration::from_millis(3), fixture.is_virtual());
    let mut rig = Rig::new(fixture)?;
    let fired = Rc::new(RefCell::new(Vec::new()));
    let noted = fired.clone();
    let probe = rig.add(Probe::<Bytes>::acting(move |cx, _, what| {
        if let What::Message(left) = what {
            noted.borrow_mut().push(cx.now());
            if *left > 0 {
                cx.after(period, left - 1);
            }
            // Work for three periods. A virtual clock stands still in the meantime.
            let begun = Instant::now();
            while !is_virtual && begun.elapsed() < 3 * period {
                std::hint::spin_loop();
            }
        }
        Ok(())
    }))?;
    rig.with(probe, |_, cx| cx.after(period, 10_u64));
    rig.until("all have fired", |rig| rig.get(probe).messages.len() == 11)?;
    rig.rests()?;
    let fired = fired.borrow();
    let least = fired.windows(2).map(|pair| pair[1].since(pair[0])).min().unwrap_or_default();
    let expected = if is_virtual { period } else { 4 * period };
    check!(fired.len() == 11 && least >= expected, "{} fired, the closest within {least:?}", fired.len());
    drop(fired);
    rig.finish()
}

fn timers_and_streams(fixture: &mut Fixture<'_>) -> Outcome {
    let mut pair = Pair::new(fixture)?;
    let clock = pair.rig.add(Clock { again: Some(Duration::ZERO), ..Clock::default() })?;
    for probe in [pair.server, pair.client] {
        pair.rig.get_mut(probe).act(returns);
    }
    pair.rig.with(clock, |_, cx| (0..50).for_each(|at| _ = cx.after(Duration::ZERO, at)));
    pair.by_client(|cx, id| cx.send(id, b"x"));
    let trips = sized(fixture, 300, 60);
    let before = pair.rig.counters().turns;
    pair.until_returned(trips)?;
    let turns = pair.rig.counters().turns - before;
    let fired = pair.rig.get(clock).fired.len() as u64;
    check!(turns <= 40 * trips as u64, "{turns} turns for {trips} round trips");
    check!(fired + 100 >= turns, "{fired} timers in {turns} turns");
    pair.rig.get_mut(clock).again = None;
    pair.by_client(|cx, id| cx.abort(id));
    pair.rig.until("the last timers have fired", |rig| rig.counters().timers == 0)?;
    pair.finish()
}

fn very_many(fixture: &mut Fixture<'_>) -> Outcome {
    const COUNT: usize = 100_000;
    let mut rig = Rig::new(fixture)?;
    let clock = rig.add(Clock::default())?;
    let after: Vec<Duration> =
        (0..COUNT).map(|_| Duration::from_micros(fixture.up_to(50_000) as u64)).collect();
    let timers: Vec<TimerId> = rig.with(clock, |_, cx| {
        after.iter().enumerate().map(|(at, after)| cx.after(*after, at as u64)).collect()
    });
    let cancelled =
        rig.with(clock, |_, cx| timers.iter().step_by(2).filter(|timer| cx.cancel(**timer)).count());
    check!(cancelled == COUNT / 2, "{cancelled} were cancelled");
    rig.until("all others have fired", |rig| rig.get(clock).fired.len() == COUNT / 2)?;
    let fired = &rig.get(clock).fired;
    check!(fired.iter().all(|(number, _)| number % 2 == 1), "a cancelled one fired");
    let key = |number: u64| (after[number as usize], number);
    check!(fired.windows(2).all(|two| key(two[0].0) <= key(two[1].0)), "they fired out of order");
    rig.settle()?;
    check!(rig.counters().timers == 0, "{} are pending", rig.counters().timers);
    rig.finish()
}

fn thirty_days(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let clock = rig.add(Clock::default())?;
    let month = Duration::from_secs(30 * 86_400);
    let timer = rig.with(clock, |_, cx| cx.after(month, 1));
    rig.rests()?;
    check!(rig.get(clock).fired.is_empty(), "it has fired");
    if fixture.is_virtual() {
        let set = rig.now();
        for _ in 0..100 {
            rig.turn(month)?;
        }
        check!(rig.now() >= set + month, "a virtual clock did not move on");
        check!(numbers(rig.get(clock)) == [1], "{:?}", numbers(rig.get(clock)));
    } else {
        check!(rig.with(clock, |_, cx| cx.cancel(timer)), "it was not pending");
    }
    rig.finish()
}
