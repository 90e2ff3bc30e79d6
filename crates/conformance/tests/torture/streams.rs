//! Scripts of streams that carry bytes: codecs, a layer, a proxy, pauses, Unix sockets.

use std::{cell::Cell, rc::Rc, time::Duration};

use reactor::{Bytes, Codec, Delimited, Id, IdMap, Layer, Lines, Stream, U16, session::kit::Toy};

use crate::{
    player::{Player, Seen},
    stage::{Played, Script, Stage, script, should},
};

pub const SCRIPTS: &[Script] = &[
    script("echo", |stage| {
        let port = stage.port();
        echo(stage, &port, || Stream::new(Bytes), || Stream::new(Bytes))
    }),
    script("echo over a Unix socket", |stage| {
        let name = stage.unix();
        echo(stage, &name, || Stream::new(Bytes), || Stream::new(Bytes))
    }),
    script("echo over a layer with a handshake", |stage| {
        let port = stage.port();
        let server = || Stream::over(Bytes, Toy::server(2));
        echo(stage, &port, server, || Stream::over(Bytes, Toy::client(1)))
    }),
    script("pipelined lines", lines),
    script("items with a length before them", delimited),
    script("a proxy of two paired streams", proxy),
    script("pause and resume", pause),
];

/// Sends a pattern in three rounds, each after the return of the last.
fn echo<C, L>(
    stage: &mut Stage,
    at: &reactor::Address,
    server: impl Fn() -> Stream<C, L> + 'static,
    client: impl Fn() -> Stream<C, L>,
) -> Played
where
    C: for<'a> Codec<In<'a> = &'a [u8], Out<'a> = &'a [u8]>,
    L: Layer,
{
    let echoing = stage.add(Player::<C, L>::new(&stage.ledger, |cx, id, told| {
        if let Seen::Got(bytes) = told {
            cx.send(id, &bytes);
        }
        Ok(())
    }))?;
    let at = stage.listen(echoing, at, move || Some(server()))?;
    let back = Rc::new(Cell::new(0));
    let count = back.clone();
    let asking = stage.add(Player::<C, L>::new(&stage.ledger, move |cx, id, told| {
        let is_turn = match told {
            Seen::Open => true,
            Seen::Got(bytes) => {
                let expected = (count.get()..).map(|at| at as u8);
                assert!(bytes.iter().copied().zip(expected).all(|(got, sent)| got == sent), "bytes differ");
                count.set(count.get() + bytes.len());
                count.get().is_multiple_of(ROUND)
            }
            _ => false,
        };
        if is_turn && count.get() < 3 * ROUND {
            let round: Vec<u8> = (count.get()..count.get() + ROUND).map(|at| at as u8).collect();
            cx.send(id, &round);
        }
        Ok(())
    }))?;
    stage.connect(asking, &at, client())?;
    stage.until(|| back.get() == 3 * ROUND)
}

fn lines(stage: &mut Stage) -> Played {
    let server = stage.add(Player::<Lines>::new(&stage.ledger, |cx, id, told| {
        if let Seen::Got(line) = told {
            let text = String::from_utf8(line)?;
            cx.send(id, &text.to_uppercase());
            if text == "bye" {
                cx.close(id);
            }
        }
        Ok(())
    }))?;
    let at = stage.serve(server, || Stream::new(Lines::new()))?;
    let got = Rc::new(Cell::new(0));
    let ended = Rc::new(Cell::new(false));
    let (count, end) = (got.clone(), ended.clone());
    let client = stage.add(Player::<Lines>::new(&stage.ledger, move |cx, id, told| {
        match told {
            Seen::Open => {
                for line in ["one", "two", "three", "bye", "not read any more"] {
                    cx.send(id, line);
                }
            }
            Seen::Got(line) => {
                assert_eq!(line, line.to_ascii_uppercase());
                count.set(count.get() + 1);
            }
            Seen::End => end.set(true),
            Seen::Drained | Seen::HungUp => (),
        }
        Ok(())
    }))?;
    stage.connect(client, &at, Stream::new(Lines::new()))?;
    stage.until(|| ended.get())?;
    should(got.get() == 4, "all lines up to the last are answered")
}

fn delimited(stage: &mut Stage) -> Played {
    let server = stage.add(Player::<Delimited<U16>>::new(&stage.ledger, |cx, id, told| {
        if let Seen::Got(item) = told {
            let length = item.len() as u16;
            cx.send(id, &length.to_be_bytes());
        }
        Ok(())
    }))?;
    let at = stage.serve(server, || Stream::new(Delimited::max(2_000)))?;
    let answers = Rc::new(Cell::new(0));
    let count = answers.clone();
    let client = stage.add(Player::<Delimited<U16>>::new(&stage.ledger, move |cx, id, told| {
        match told {
            Seen::Open => {
                for size in SIZES {
                    cx.send(id, &vec![7; size]);
                }
            }
            Seen::Got(item) => {
                assert_eq!(item, (SIZES[count.get()] as u16).to_be_bytes());
                count.set(count.get() + 1);
            }
            _ => (),
        }
        Ok(())
    }))?;
    stage.connect(client, &at, Stream::new(Delimited::max(2_000)))?;
    stage.until(|| answers.get() == SIZES.len())
}

/// Connects a client through a proxy to a server that answers at the end of its input.
fn proxy(stage: &mut Stage) -> Played {
    let asked = Rc::new(Cell::new(0));
    let count = asked.clone();
    let server = stage.add(Player::<Bytes>::new(&stage.ledger, move |cx, id, told| {
        match told {
            Seen::Got(bytes) => count.set(count.get() + bytes.len()),
            Seen::End => _ = cx.send(id, b"all of it"),
            _ => (),
        }
        Ok(())
    }))?;
    let behind = stage.serve(server, || Stream::new(Bytes))?;
    let ledger = stage.ledger.clone();
    let mut other = IdMap::new();
    let relay = stage.add(Player::<Bytes>::new(&stage.ledger, move |cx, id: Id<Stream>, told| {
        match told {
            Seen::Open if !cx.get(id).is_some_and(Stream::is_outbound) => {
                let out = cx.connect(&behind, Stream::new(Bytes))?;
                ledger.lives(out);
                cx.pair(id, out)?;
                other.insert(id, out);
                other.insert(out, id);
            }
            Seen::Got(bytes) => {
                if let Some(other) = other.get(id) {
                    cx.send(*other, &bytes);
                }
            }
            _ => (),
        }
        Ok(())
    }))?;
    let front = stage.serve(relay, || Stream::new(Bytes))?;
    let answered = Rc::new(Cell::new(0));
    let count = answered.clone();
    let client = stage.add(Player::<Bytes>::new(&stage.ledger, move |cx, id, told| {
        match told {
            Seen::Open => {
                cx.send(id, &[1; 1_000]);
                cx.finish(id);
            }
            Seen::Got(bytes) => count.set(count.get() + bytes.len()),
            _ => (),
        }
        Ok(())
    }))?;
    stage.connect(client, &front, Stream::new(Bytes))?;
    stage.until(|| answered.get() == b"all of it".len())?;
    should(asked.get() == 1_000, "the server got all")
}

/// Pauses a reader after each piece, until a timer resumes it.
fn pause(stage: &mut Stage) -> Played {
    let got = Rc::new(Cell::new(0));
    let count = got.clone();
    let paused: Rc<Cell<Option<Id<Stream>>>> = Rc::default();
    let resting = paused.clone();
    let reader = Player::<Bytes>::new(&stage.ledger, move |cx, id, told| {
        if let Seen::Got(bytes) = told {
            assert!(paused.get().is_none(), "input came while it rests");
            count.set(count.get() + bytes.len());
            cx.pause(id);
            paused.set(Some(id));
            cx.after(Duration::from_micros(200), 0_u64);
        }
        Ok(())
    });
    let reader = stage.add(reader.messages(move |cx, _| {
        if let Some(id) = resting.take() {
            cx.resume(id);
        }
        Ok(())
    }))?;
    let at = stage.serve(reader, || Stream::new(Bytes))?;
    let writer = stage.add(Player::<Bytes>::new(&stage.ledger, |cx, id, told| {
        if told == Seen::Open {
            for _ in 0..5 {
                cx.send(id, &[3; 60]);
            }
        }
        Ok(())
    }))?;
    stage.connect(writer, &at, Stream::new(Bytes))?;
    stage.until(|| got.get() == 300)
}

const ROUND: usize = 100;
const SIZES: [usize; 5] = [0, 1, 63, 300, 1_999];
