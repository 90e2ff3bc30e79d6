//! D at runtime level: peers that are too many, too fast or too slow.

use super::prelude::*;

pub(super) const ROWS: &[Row] = &[
    row("D5r", "a peer that never reads ends when its queue is full", &[], never_reads),
    row("D5r2", "a peer that takes nothing for a while is stalled", &[], stalled),
    row("D6r", "slow peers end at their deadline, and new ones are served meanwhile", &[], slow_peers),
    row("D8r", "a flood of connections does not starve those that are there", &[], connect_flood),
    row("D11r", "thousands of items in one piece keep their order, and others are served", &[], pipelined),
    row("N10r", "newcomers are answered while others flood", &[], newcomers),
    row("D13r", "a peer that floods an echo is held back", &[], flood),
];

fn never_reads(fixture: &mut Fixture<'_>) -> Outcome {
    let cap = sized(fixture, 256 << 10, 2_000);
    let options = StreamOptions::with(|options| {
        options.high = cap / 4;
        options.low = cap / 8;
        options.cap = cap;
        options.item = cap;
    });
    let mut pair = Pair::of(fixture, move || Stream::new(Bytes).options(options.clone()))?;
    pair.by_client(|cx, id| cx.pause(id));
    let other = pair.rig.connect(pair.client, &pair.address, Stream::new(Bytes))?;
    let (server, client, id) = (pair.server, pair.client, pair.at_server);
    pair.rig.until("the other is open", |rig| rig.get(server).open.len() == 2)?;
    let item = pattern(cap / 8);
    let (mut most, mut sent) = (0, 0);
    pair.rig.until("the queue is over its cap", |rig| {
        rig.with(server, |_, cx| cx.send(id, &item));
        rig.with(client, |_, cx| cx.send(other, b"."));
        sent += 1;
        most = most.max(rig.counters().queue_bytes);
        !rig.get(server).closed.is_empty()
    })?;
    let why = pair.why(0);
    check!(matches!(why, Closed::Overflow), "{why}");
    // The limit counts memory, and a queue of a few bytes may hold a buffer of 64 KiB from the pool.
    let most_max = 3 * cap as u64 + (256 << 10);
    check!(most <= most_max, "{most} bytes were held at a cap of {cap}");
    let other_at = pair.server().open[1];
    pair.rig.until("the other is served", |rig| rig.get(server).received(other_at) == sent)?;
    pair.rig.with(client, |_, cx| cx.abort(other));
    pair.finish()
}

fn stalled(fixture: &mut Fixture<'_>) -> Outcome {
    let options = StreamOptions::with(|options| options.write_stall = Some(2 * SHORT));
    let mut pair = Pair::of(fixture, move || Stream::new(Bytes).options(options.clone()))?;
    pair.by_client(|cx, id| cx.pause(id));
    pair.rig.settle()?;
    let len = sized(fixture, 12 << 20, 300_000);
    pair.by_server(|cx, id| cx.send(id, &pattern(len)));
    pair.until_server_closed()?;
    let (_, stream, why) = &pair.server().closed[0];
    check!(matches!(why, Closed::Stalled) && stream.unsent() > 0, "{why}, {} unsent", stream.unsent());
    pair.finish()
}

fn slow_peers(fixture: &mut Fixture<'_>) -> Outcome {
    let count = sized(fixture, 100, 20);
    let mut rig = Rig::new(fixture)?;
    let deadline = 5 * SHORT;
    let server = rig.add(Probe::<Lines>::acting(move |cx, id, what| {
        match (id, what) {
            // The deadline runs from the open only, so a drip does not postpone it.
            (Some(id), What::Open) => cx.deadline(id, deadline),
            (Some(id), What::Got(_)) => _ = cx.send(id, "served"),
            _ => (),
        }
        Ok(())
    }))?;
    let client = rig.add(Probe::<Bytes>::quiet())?;
    let (_, address) = rig.listen(server, || Stream::new(Lines::new()))?;
    let mut slow = Vec::new();
    for _ in 0..count {
        slow.push(rig.connect(client, &address, Stream::new(Bytes))?);
    }
    rig.until("the slow ones are open", |rig| rig.get(client).open.len() == count)?;
    let (mut new, mut served) = (None, 0);
    // A virtual clock moves only while there is nothing else to do.
    let (every, mut round) = (sized(fixture, 1, 30), 0);
    rig.until("the slow ones have ended", |rig| {
        round += 1;
        if round % every == 0 {
            rig.with(client, |_, cx| slow.iter().for_each(|id| _ = cx.send(*id, b"x")));
        }
        match new {
            None if round % every > 0 => (),
            None => {
                new = rig.connect(client, &address, Stream::new(Bytes)).ok();
                rig.with(client, |_, cx| new.map(|id| cx.send(id, b"quick\n")));
            }
            Some(id) if rig.get(client).received(id) == 7 => {
                rig.with(client, |_, cx| cx.abort(id));
                (new, served) = (None, served + 1);
            }
            Some(_) => (),
        }
        slow.iter().all(|slow| rig.get(client).closed.iter().any(|(id, ..)| id == slow))
    })?;
    check!(served > 0, "no new client was served while others were slow");
    let late = rig.get(server).closed.iter().filter(|(.., why)| matches!(why, Closed::Deadline)).count();
    check!(late >= count, "{late} of {count} slow ones ended at their deadline");
    if let Some(id) = new {
        rig.with(client, |_, cx| cx.abort(id));
    }
    rig.finish()
}

fn connect_flood(fixture: &mut Fixture<'_>) -> Outcome {
    let count = sized(fixture, 400, 40);
    let mut rig = Rig::new(fixture)?;
    let (echo, address) = rig.echo()?;
    let (client, crowd) = (rig.add(Probe::quiet())?, rig.add(Probe::quiet())?);
    let there = rig.connect(client, &address, Stream::new(Bytes))?;
    rig.until("the first is open", |rig| !rig.get(client).open.is_empty())?;
    for _ in 0..count {
        rig.connect(crowd, &address, Stream::new(Bytes))?;
    }
    let (mut trips, mut asked, mut during) = (0, false, 0);
    rig.until("all have come", |rig| {
        if rig.get(client).received(there) > trips {
            (trips, asked) = (trips + 1, false);
            during += usize::from(rig.get(echo).opened < count);
        }
        if !std::mem::replace(&mut asked, true) {
            rig.with(client, |_, cx| cx.send(there, b"."));
        }
        rig.get(echo).opened > count && rig.get(crowd).open.len() == count && trips > 3
    })?;
    check!(during > 0, "the first was not served before all {count} had come");
    let all = rig.get(crowd).open.clone();
    rig.with(crowd, |_, cx| all.iter().for_each(|id| cx.abort(*id)));
    rig.with(client, |_, cx| cx.abort(there));
    rig.finish()
}

fn pipelined(fixture: &mut Fixture<'_>) -> Outcome {
    let count = sized(fixture, 10_000, 1_500);
    let virtual_engine = fixture.is_virtual();
    let mut pair = Pair::of(fixture, || Stream::new(Lines::new()))?;
    let other = pair.rig.connect(pair.client, &pair.address, Stream::new(Lines::new()))?;
    let (server, id) = (pair.server, pair.at_server);
    pair.rig.until("the other is open", |rig| rig.get(server).open.len() == 2)?;
    let small = pair.server().open[1];
    let (client, at_client) = (pair.client, pair.at_client);
    pair.rig.with(client, |_, cx| {
        (0..count).for_each(|at| _ = cx.send(at_client, &at.to_string()));
        cx.send(other, "me");
    });
    let (mut most, mut before) = (0, 0);
    let mut served_at = None;
    let total: usize = (0..count).map(|at| at.to_string().len()).sum();
    pair.rig.until("all items have arrived", |rig| {
        let log = rig.get(server).log.len();
        most = most.max(log - std::mem::replace(&mut before, log));
        if rig.get(server).received(small) > 0 && served_at.is_none() {
            served_at = Some(log);
        }
        rig.get(server).received(id) >= total && served_at.is_some()
    })?;
    check!(most <= 2 * 1_024 + 8, "{most} items in one turn");
    // A virtual engine may postpone the other client for as long as it draws.
    let is_fair = served_at.is_some_and(|at| at < count);
    check!(is_fair || virtual_engine, "the other was served after all items");
    let mut expected = 0;
    for (of, what) in &pair.server().log {
        if let (true, What::Got(line)) = (*of == Some(id), what) {
            check!(*line == expected.to_string().as_bytes(), "item {expected} is {line:?}");
            expected += 1;
        }
    }
    check!(expected == count, "{expected} of {count} items");
    pair.rig.with(client, |_, cx| cx.abort(other));
    pair.finish()
}

fn flood(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let (echo, address) = rig.echo()?;
    let client = rig.add(Probe::quiet())?;
    let options = StreamOptions::with(|options| options.backpressure = false);
    let id = rig.connect(client, &address, Stream::new(Bytes).options(options))?;
    rig.until("it is open", |rig| !rig.get(client).open.is_empty())?;
    rig.with(client, |_, cx| cx.pause(id));
    let item = pattern(sized(fixture, 64 << 10, 2_000));
    let (mut most, mut sent, mut held, mut drained) = (0, 0, 0, None);
    // The client floods and does not read. Soon the queues of both ends are above their marks, and stay
    // there.
    rig.until("the echo is held back", |rig| {
        let count = rig.get(client).count(&What::Drained);
        if drained.is_none_or(|before| count > before) {
            let flow = rig.with(client, |_, cx| cx.send(id, &item));
            drained = (flow == Flow::High).then_some(count);
            (sent, held) = (sent + item.len(), if flow == Flow::High { 1 } else { 0 });
        }
        held += 1;
        most = most.max(rig.counters().queue_bytes);
        held > 40
    })?;
    let bound = 1 << 20;
    check!(most < bound, "{most} bytes were queued");
    rig.with(client, |_, cx| cx.resume(id));
    rig.until("all has returned", |rig| rig.get(client).received(id) == sent)?;
    check!(rig.get(echo).bytes == sent, "{} of {sent} bytes were echoed", rig.get(echo).bytes);
    rig.with(client, |_, cx| cx.abort(id));
    rig.finish()
}

fn newcomers(fixture: &mut Fixture<'_>) -> Outcome {
    let (flooders, count, item) =
        (sized(fixture, 8, 2), sized(fixture, 64, 8), pattern(sized(fixture, 64 << 10, 2_000)));
    let mut rig = Rig::new(fixture)?;
    let (echo, address) = rig.echo()?;
    let (crowd, client) = (rig.add(Probe::quiet())?, rig.add(Probe::quiet())?);
    rig.get_mut(crowd).forget();
    let mut all = Vec::new();
    for _ in 0..flooders {
        // They read even while they have much to write, so only the echo holds them back.
        let options = StreamOptions::with(|options| options.backpressure = false);
        all.push(rig.connect(crowd, &address, Stream::new(Bytes).options(options))?);
    }
    let mut full = vec![false; flooders];
    let mut flood = |rig: &mut Rig| {
        rig.with(crowd, |_, cx| {
            for (id, full) in all.iter().zip(&mut full) {
                // Send on each call: a stream with room takes the next item.
                *full = cx.send(*id, if *full { &[] } else { &item[..] }) == Flow::High;
            }
        });
    };
    // Count from the moment when all buffers in both directions are full.
    rig.until("the flood is there", |rig| {
        flood(rig);
        rig.get(echo).bytes > 8 * flooders * item.len()
    })?;
    let mut new = Vec::new();
    for _ in 0..count {
        let id = rig.connect(client, &address, Stream::new(Bytes))?;
        rig.with(client, |_, cx| cx.send(id, b"me"));
        new.push(id);
    }
    let before = rig.get(echo).bytes;
    let rounds = |rig: &Rig| (rig.get(echo).bytes - before) / (flooders * item.len());
    rig.until("all newcomers are answered, or the flood has had its way for long", |rig| {
        flood(rig);
        rounds(rig) > ROUNDS_MAX || new.iter().all(|id| rig.get(client).received(*id) == 2)
    })?;
    let answered = new.iter().filter(|id| rig.get(client).received(**id) == 2).count();
    check!(
        answered == count,
        "{answered} of {count} were answered before {} rounds of the flood",
        rounds(&rig)
    );
    rig.with(client, |_, cx| new.iter().for_each(|id| cx.abort(*id)));
    rig.with(crowd, |_, cx| all.iter().for_each(|id| cx.abort(*id)));
    rig.finish()
}

/// How many items of each flooder may be echoed before the newcomers get their answers. A listener accepts 16
/// of them in a turn, in which the runtime reads each flooder once.
const ROUNDS_MAX: usize = 40;
