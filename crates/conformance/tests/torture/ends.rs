//! Scripts of ends: half-closes, graceful closes, aborts, deadlines, release, and the stop under load.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use reactor::{Bytes, Closed, Id, Stream};

use crate::{
    player::{Player, Seen},
    stage::{Played, Script, Stage, script, should},
};

pub const SCRIPTS: &[Script] = &[
    script("half-close of the client", half_close_of_the_client),
    script("half-close of the server", half_close_of_the_server),
    script("release and add again", release),
    script("deadlines of idle streams", deadlines),
    script("a graceful close with a slow reader", slow_reader),
    script("abort", abort),
    script("stop under load", stop_under_load),
];

/// Lets the client send a request and finish its side. The answer arrives after that.
fn half_close_of_the_client(stage: &mut Stage) -> Played {
    let server = stage.add(Player::<Bytes>::new(&stage.ledger, |cx, id, told| {
        if told == Seen::End {
            cx.send(id, &[2; 400]);
        }
        Ok(())
    }))?;
    let at = stage.serve(server, || Stream::new(Bytes))?;
    let (got, ended) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
    let (count, end) = (got.clone(), ended.clone());
    let client = Player::<Bytes>::new(&stage.ledger, move |cx, id, told| {
        match told {
            Seen::Open => {
                cx.send(id, b"request");
                cx.finish(id);
            }
            Seen::Got(bytes) => count.set(count.get() + bytes.len()),
            _ => (),
        }
        Ok(())
    });
    let client = stage.add(client.closed(move |_, _, _, why| end.set(why.is_clean())))?;
    stage.connect(client, &at, Stream::new(Bytes))?;
    stage.until(|| ended.get())?;
    should(got.get() == 400, "the answer came")
}

/// Lets the server finish its side at once and continue to read.
fn half_close_of_the_server(stage: &mut Stage) -> Played {
    let got = Rc::new(Cell::new(0));
    let count = got.clone();
    let server = stage.add(Player::<Bytes>::new(&stage.ledger, move |cx, id, told| {
        match told {
            Seen::Open => {
                cx.send(id, b"hello");
                cx.finish(id);
            }
            Seen::Got(bytes) => count.set(count.get() + bytes.len()),
            _ => (),
        }
        Ok(())
    }))?;
    let at = stage.serve(server, || Stream::new(Bytes))?;
    let ended = Rc::new(Cell::new(false));
    let end = ended.clone();
    let client = Player::<Bytes>::new(&stage.ledger, |cx, id, told| {
        if told == Seen::End {
            cx.send(id, &[4; 300]);
            cx.close(id);
        }
        Ok(())
    });
    let client = stage.add(client.closed(move |_, _, _, why| end.set(why.is_clean())))?;
    stage.connect(client, &at, Stream::new(Bytes).half_open(true))?;
    stage.until(|| ended.get() && got.get() == 300)
}

/// Releases a stream in the middle of the input, and adds it again.
fn release(stage: &mut Stage) -> Played {
    let got: Rc<RefCell<Vec<u8>>> = Rc::default();
    let input = got.clone();
    let ledger = stage.ledger.clone();
    let releases = Rc::new(Cell::new(0));
    let count = releases.clone();
    let server = Player::<Bytes>::new(&stage.ledger, move |cx, id, told| {
        if let Seen::Got(bytes) = told {
            input.borrow_mut().extend(bytes);
            if count.get() < 2 {
                cx.send(id, b"before the release");
                cx.release(id)?;
            }
        }
        Ok(())
    });
    let counted = releases.clone();
    let server = stage.add(server.closed(move |cx, _, stream, why| {
        if let Closed::Released = why {
            counted.set(counted.get() + 1);
            if let Ok(id) = cx.add(stream) {
                ledger.lives(id);
            }
        }
    }))?;
    let at = stage.serve(server, || Stream::new(Bytes))?;
    let mut left = 10_u8;
    let client = stage.add(
        Player::<Bytes>::new(&stage.ledger, |cx, _, told| {
            if told == Seen::Open {
                cx.after(Duration::from_micros(100), 0_u64);
            }
            Ok(())
        })
        .messages(move |_, _| Ok(())),
    )?;
    let id = stage.connect(client, &at, Stream::new(Bytes))?;
    while left > 0 {
        left -= 1;
        let bytes = [left; 30];
        stage.runtime.with(client, |_, cx| cx.send(id, &bytes));
        stage.turns(3)?;
    }
    stage.until(|| got.borrow().len() == 300)?;
    let expected: Vec<u8> = (0..10).rev().flat_map(|byte| [byte; 30]).collect();
    should(*got.borrow() == expected, "the bytes came in order")?;
    should(releases.get() >= 1, "it was released")
}

fn deadlines(stage: &mut Stage) -> Played {
    let over = Rc::new(Cell::new(0));
    let count = over.clone();
    let server = Player::<Bytes>::new(&stage.ledger, |cx, id, told| {
        match told {
            Seen::Open => cx.deadline(id, Duration::from_millis(1)),
            // Each message postpones the deadline: remove it, then set it again.
            Seen::Got(_) => {
                cx.deadline(id, None);
                cx.deadline(id, Duration::from_millis(2));
            }
            _ => (),
        }
        Ok(())
    });
    let server = stage.add(server.closed(move |_, _, _, why| {
        count.set(count.get() + u32::from(matches!(why, Closed::Deadline)));
    }))?;
    let at = stage.serve(server, || Stream::new(Bytes))?;
    let client = stage.add(Player::<Bytes>::new(&stage.ledger, |cx, id, told| {
        if told == Seen::Open {
            cx.send(id, b"one message, then silence");
        }
        Ok(())
    }))?;
    for _ in 0..2 {
        stage.connect(client, &at, Stream::new(Bytes))?;
    }
    stage.until(|| over.get() == 2)
}

/// Checks that a peer which rests while the stream closes receives all bytes.
fn slow_reader(stage: &mut Stage) -> Played {
    let done = Rc::new(Cell::new(false));
    let clean = done.clone();
    let server = Player::<Bytes>::new(&stage.ledger, |cx, id, told| {
        if told == Seen::Open {
            cx.send(id, &[5; LARGE]);
            cx.close(id);
        }
        Ok(())
    });
    let server = stage.add(server.closed(move |_, _, stream, why| {
        clean.set(why.is_clean() && stream.unsent() == 0);
    }))?;
    let at = stage.serve(server, || Stream::new(Bytes))?;
    let got = Rc::new(Cell::new(0));
    let count = got.clone();
    let resting: Rc<Cell<Option<Id<Stream>>>> = Rc::default();
    let rested = resting.clone();
    let client = Player::<Bytes>::new(&stage.ledger, move |cx, id, told| {
        match told {
            Seen::Open => {
                cx.pause(id);
                resting.set(Some(id));
                cx.after(Duration::from_millis(1), 0_u64);
            }
            Seen::Got(bytes) => count.set(count.get() + bytes.len()),
            _ => (),
        }
        Ok(())
    });
    let client = stage.add(client.messages(move |cx, _| {
        rested.take().into_iter().for_each(|id| cx.resume(id));
        Ok(())
    }))?;
    stage.connect(client, &at, Stream::new(Bytes))?;
    stage.until(|| done.get() && got.get() == LARGE)
}

fn abort(stage: &mut Stage) -> Played {
    let ended = Rc::new(Cell::new(0));
    let (one, two) = (ended.clone(), ended.clone());
    let server = Player::<Bytes>::new(&stage.ledger, |cx, id, told| {
        if let Seen::Got(_) = told {
            cx.send(id, &[6; 500]);
            cx.abort(id);
        }
        Ok(())
    });
    let server = stage.add(server.closed(move |_, _, _, _| one.set(one.get() + 1)))?;
    let at = stage.serve(server, || Stream::new(Bytes))?;
    let client = Player::<Bytes>::new(&stage.ledger, |cx, id, told| {
        if told == Seen::Open {
            cx.send(id, b"go away");
        }
        Ok(())
    });
    let client = stage.add(client.closed(move |_, _, _, why| {
        assert!(!matches!(why, Closed::Aborted), "it is the other end that aborts");
        two.set(two.get() + 1);
    }))?;
    stage.connect(client, &at, Stream::new(Bytes))?;
    stage.until(|| ended.get() == 2)
}

/// Lets clients and servers send to each other without end, until the stop.
fn stop_under_load(stage: &mut Stage) -> Played {
    let rounds = Rc::new(Cell::new(0));
    let count = rounds.clone();
    let server = stage.add(Player::<Bytes>::new(&stage.ledger, move |cx, id, told| {
        if let Seen::Got(bytes) = told {
            count.set(count.get() + 1);
            cx.send(id, &bytes);
            if count.get() == 12 {
                cx.stop(Duration::from_millis(3));
            }
        }
        Ok(())
    }))?;
    let at = stage.serve(server, || Stream::new(Bytes))?;
    let client = stage.add(Player::<Bytes>::new(&stage.ledger, |cx, id, told| {
        match told {
            Seen::Open => _ = cx.send(id, b"ping"),
            Seen::Got(bytes) => _ = cx.send(id, &bytes),
            _ => (),
        }
        Ok(())
    }))?;
    for _ in 0..4 {
        stage.connect(client, &at, Stream::new(Bytes))?;
    }
    stage.until(|| rounds.get() >= 12)
}

/// More than the window of a harsh world, and little enough for a quick test.
const LARGE: usize = 3_000;
