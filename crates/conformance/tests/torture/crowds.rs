//! Scripts of many streams: storms of connects and accepts, and broadcasts.

use std::{cell::Cell, rc::Rc};

use reactor::{Bytes, Id, Shared, Stream};

use crate::{
    player::{Player, Seen},
    stage::{Played, Script, Stage, script},
};

pub const SCRIPTS: &[Script] = &[
    script("a storm of connects, some to nobody", connects),
    script("a storm of accepts, some not wanted", accepts),
    script("a broadcast of shared bytes", broadcast),
];

fn connects(stage: &mut Stage) -> Played {
    let server = stage.add(Player::<Bytes>::new(&stage.ledger, |cx, id, told| {
        if told == Seen::Open {
            cx.send(id, b"hello");
            cx.close(id);
        }
        Ok(())
    }))?;
    let at = stage.serve(server, || Stream::new(Bytes))?;
    let closed = Rc::new(Cell::new(0));
    let count = closed.clone();
    let client = stage
        .add(Player::<Bytes>::silent(&stage.ledger).closed(move |_, _, _, _| count.set(count.get() + 1)))?;
    // No program listens at port 1 of the loopback.
    let nobody = "127.0.0.1:1".parse().expect("an address");
    let mut begun = 0;
    for number in 0..STORM {
        let to = if number % 4 == 0 { &nobody } else { &at };
        stage.connect(client, to, Stream::new(Bytes))?;
        begun += 1;
    }
    stage.until(|| closed.get() == begun)
}

fn accepts(stage: &mut Stage) -> Played {
    let server = stage.add(Player::<Bytes>::new(&stage.ledger, |cx, id, told| {
        if let Seen::Got(bytes) = told {
            cx.send(id, &bytes);
            cx.close(id);
        }
        Ok(())
    }))?;
    let at = stage.port();
    let mut number = 0;
    let at = stage.listen(server, &at, move || {
        number += 1;
        (number % 3 != 0).then(|| Stream::new(Bytes))
    })?;
    let closed = Rc::new(Cell::new(0));
    let count = closed.clone();
    let client = Player::<Bytes>::new(&stage.ledger, |cx, id, told| {
        if told == Seen::Open {
            cx.send(id, b"are you there?");
        }
        Ok(())
    });
    let client = stage.add(client.closed(move |_, _, _, _| count.set(count.get() + 1)))?;
    for wave in 1..=2 {
        for _ in 0..STORM / 2 {
            stage.connect(client, &at, Stream::new(Bytes))?;
        }
        stage.until(|| closed.get() == wave * STORM / 2)?;
    }
    Ok(())
}

fn broadcast(stage: &mut Stage) -> Played {
    let mut members: Vec<Id<Stream>> = Vec::new();
    let server = stage.add(Player::<Bytes>::new(&stage.ledger, move |cx, id, told| {
        match told {
            Seen::Open => members.push(id),
            Seen::Got(bytes) => {
                let shared = Shared::from(bytes.repeat(100));
                // Send also to the members that are gone.
                for member in &members {
                    cx.send_shared(*member, &shared);
                }
            }
            _ => (),
        }
        Ok(())
    }))?;
    let at = stage.serve(server, || Stream::new(Bytes))?;
    let (open, got) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let (opened, count) = (open.clone(), got.clone());
    let client = stage.add(Player::<Bytes>::new(&stage.ledger, move |_, _, told| {
        match told {
            Seen::Open => opened.set(opened.get() + 1),
            Seen::Got(bytes) => count.set(count.get() + bytes.len()),
            _ => (),
        }
        Ok(())
    }))?;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(stage.connect(client, &at, Stream::new(Bytes))?);
    }
    stage.until(|| open.get() == 5)?;
    let speaker = ids[4];
    let leaver = ids[0];
    stage.runtime.with(client, |_, cx| {
        cx.abort(leaver);
        cx.send(speaker, b"news!");
    });
    stage.until(|| got.get() >= 4 * 500)
}

const STORM: usize = 12;
