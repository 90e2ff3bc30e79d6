//! A at runtime level: the lives of resources and their ids.

#[cfg(unix)]
use std::fs::File;
use std::{
    net::{TcpListener, TcpStream},
    process::Command,
};

use reactor::{Fd, Interest, Ready, engine::Transport};

use super::prelude::*;

pub(super) const ROWS: &[Row] = &[
    row("A2r", "a stream opened where another is closed gets nothing of that", &[], reopened_in_callback),
    row("A5r", "orders to an id that is gone are harmless", &[], orders_to_the_gone),
    row("A5r2", "a descriptor that is watched already is refused, or watched twice", SOCKETS, added_twice),
    row("A6r", "a file or directory comes back, or is told as ready", SOCKETS, files),
    row("A7r", "a stream released and added again loses no byte", &[], released_and_added),
    row("A7r2", "a stream released and added to another runtime loses no byte", &[], moved),
    row(
        "A7r13",
        "a listener that somebody else opened accepts, and what is none is refused",
        SOCKETS,
        adopted,
    ),
    row("A8r", "a released stream closes once, when it is dropped", &[], released_and_dropped),
    row("A9r", "no descriptor leaks to a child process", &[Need::Sockets, Need::Linux], inherited),
    row("A11r", "a child process in a callback changes nothing", SOCKETS, child_in_callback),
    row("A12r", "a handler may open another resource and close its own", &[], orders_in_callback),
];

fn reopened_in_callback(fixture: &mut Fixture<'_>) -> Outcome {
    for _ in 0..3 {
        let mut rig = Rig::new(fixture)?;
        let (server, client) = (rig.add(Probe::quiet())?, rig.add(Probe::quiet())?);
        let (_, address) = rig.listen(server, || Stream::new(Bytes))?;
        for _ in 0..2 {
            rig.connect(client, &address, Stream::new(Bytes))?;
        }
        rig.until("both are open", |rig| rig.get(server).open.len() + rig.get(client).open.len() == 4)?;
        let first = rig.get(server).open.clone();
        let (pair, to) = (first.clone(), address.clone());
        let opened = Rc::new(Cell::new(None));
        let noted = opened.clone();
        rig.get_mut(server).act(move |cx, id, what| {
            if let (Some(id), What::Got(_), None) = (id, what, noted.get())
                && let Some(at) = pair.iter().position(|of| *of == id)
            {
                cx.abort(pair[1 - at]);
                noted.set(Some((pair[1 - at], cx.connect(&to, Stream::new(Bytes))?)));
            }
            Ok(())
        });
        let ids = rig.get(client).open.clone();
        rig.with(client, |_, cx| ids.iter().for_each(|id| _ = cx.send(*id, b"both at once")));
        rig.until("the new stream is open", |rig| rig.get(server).open.len() == 4)?;
        rig.settle()?;
        let Some((gone, new)) = opened.get() else { return Err("neither stream was told of".into()) };
        let probe = rig.get(server);
        check!(probe.of(new) == [What::Open], "the new stream was told {:?}", probe.of(new));
        let old = probe.of(gone);
        check!(
            old.ends_with(&[What::closed("Aborted")]) && old.len() == 2,
            "the old stream was told {old:?}"
        );
        let ids = rig.get(client).open.clone();
        rig.with(client, |_, cx| ids.iter().for_each(|id| cx.abort(*id)));
        rig.finish()?;
    }
    Ok(())
}

fn orders_to_the_gone(fixture: &mut Fixture<'_>) -> Outcome {
    let mut pair = Pair::new(fixture)?;
    pair.by_server(|cx, id| cx.abort(id));
    pair.rig.settle()?;
    let after = pair.server().log.len();
    pair.by_server(|cx, id| {
        check!(cx.get(id).is_none() && cx.get_mut(id).is_none(), "it is still there");
        check!(cx.send(id, b"x") == Flow::Gone, "it takes output");
        for _ in 0..2 {
            cx.close(id);
            cx.abort(id);
            check!(cx.release(id).is_ok(), "one that is gone is refused");
            cx.pause(id);
            cx.resume(id);
            cx.finish(id);
            cx.deadline(id, SHORT);
        }
        check!(cx.local(id).is_err() && cx.peer(id).is_err(), "it has an address");
        Ok(())
    })?;
    pair.rig.settle()?;
    check!(pair.server().log.len() == after, "{:?}", &pair.server().log[after..]);
    // A client's id is invalid for the server, whether the stream is alive or not.
    let foreign = pair.at_client;
    check!(
        pair.by_server(|cx, _| cx.send(foreign, b"x")) == Flow::Gone,
        "a stream of another service took it"
    );
    pair.finish()
}

/// Counts the readiness events of any descriptor.
#[derive(Default)]
struct Readiness {
    told: usize,
}

impl Service for Readiness {}

impl Handle<Fd<Rc<TcpStream>>> for Readiness {
    fn handle(&mut self, _: &mut Context<'_, Self>, _: Id<Fd<Rc<TcpStream>>>, _: Ready) -> Result {
        self.told += 1;
        Ok(())
    }
}

#[cfg(unix)]
impl Handle<Fd<File>> for Readiness {
    fn handle(&mut self, cx: &mut Context<'_, Self>, id: Id<Fd<File>>, _: Ready) -> Result {
        self.told += 1;
        cx.close(id);
        Ok(())
    }
}

fn added_twice(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let service = rig.add(Readiness::default())?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let socket = Rc::new(TcpStream::connect(listener.local_addr()?)?);
    socket.set_nonblocking(true)?;
    rig.with(service, |_, cx| {
        let first = cx.add(Fd::new(socket.clone(), Interest::Read)).map_err(|rejected| rejected.error)?;
        match cx.add(Fd::new(socket.clone(), Interest::Read)) {
            Ok(second) => cx.close(second),
            Err(rejected) => check!(Rc::ptr_eq(&rejected.resource, &socket), "another resource came back"),
        }
        check!(cx.get(first).is_some(), "the first is gone");
        cx.close(first);
        Ok(())
    })?;
    rig.settle()?;
    check!(Rc::strong_count(&socket) == 1, "{} owners are left", Rc::strong_count(&socket));
    rig.finish()
}

#[cfg(not(unix))]
fn files(_: &mut Fixture<'_>) -> Outcome {
    Err(Stop::Skipped("a file is no socket, and only sockets are watched here".to_owned()))
}

#[cfg(unix)]
fn files(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let service = rig.add(Readiness::default())?;
    for path in [std::env::current_exe()?, std::env::temp_dir()] {
        let Ok(file) = File::open(&path) else { continue };
        let told = rig.get(service).told;
        match rig.with(service, |_, cx| cx.add(Fd::new(file, Interest::Read))) {
            Ok(_) => rig.until("it is ready", |rig| rig.get(service).told > told)?,
            Err(rejected) => {
                check!(
                    rejected.error.io().is_some_and(|error| error.raw_os_error().is_some()),
                    "{}",
                    rejected.error
                );
                rejected.resource.metadata()?;
            }
        }
    }
    // A stream needs a descriptor on which an engine can wait.
    for path in [std::env::current_exe()?, std::env::temp_dir()] {
        let Err(error) = Stream::new(Bytes).on(File::open(path)?) else { return Err("it was taken".into()) };
        check!(error.kind() == ErrorKind::InvalidInput, "{error}");
    }
    rig.finish()
}

fn released_and_added(fixture: &mut Fixture<'_>) -> Outcome {
    let mut pair = Pair::new(fixture)?;
    let (there, back) = (pattern(3_000), pattern(2_000));
    let answer = back.clone();
    let releases = Cell::new(0);
    let mut first = true;
    // The server answers once, and releases the stream with each of the first inputs.
    pair.rig.get_mut(pair.server).act(move |cx, id, what| {
        if let (Some(id), What::Got(_)) = (id, what) {
            if std::mem::take(&mut first) {
                cx.send(id, &answer);
            }
            if releases.replace(releases.get() + 1) < 3 {
                cx.release(id)?;
            }
        }
        Ok(())
    });
    let (server, client, at_client) = (pair.server, pair.client, pair.at_client);
    pair.by_client(|cx, id| cx.send(id, &there[..1_500]));
    let (mut taken, mut sent_rest) = (0, false);
    let (mut ids, want, all) = (vec![pair.at_server], there.len(), there.clone());
    let mut refused = None;
    pair.rig.until("all bytes have arrived in both directions", |rig| {
        let ended = rig.get(server).closed.len();
        if ended > taken {
            taken = ended;
            let spare = Stream::new(Bytes);
            let back = std::mem::replace(&mut rig.get_mut(server).closed[ended - 1].1, spare);
            match rig.with(server, |_, cx| cx.add(back)) {
                Ok(id) => ids.push(id),
                Err(rejected) => refused = Some(rejected.error.to_string()),
            }
        }
        if taken > 0 && !std::mem::replace(&mut sent_rest, true) {
            rig.with(client, |_, cx| cx.send(at_client, &all[1_500..]));
        }
        let there: usize = ids.iter().map(|id| rig.get(server).received(*id)).sum();
        refused.is_some() || there >= want && rig.get(client).received(at_client) >= 2_000
    })?;
    check!(refused.is_none(), "a released stream was not taken back: {refused:?}");
    let arrived: Vec<u8> = ids.iter().flat_map(|id| pair.server().bytes(*id)).collect();
    check!(arrived == there, "what arrived over {} lives differs", ids.len());
    check!(pair.client().bytes(at_client) == back, "what returned differs");
    let lives: Vec<_> = pair.server().closed.iter().map(|(_, _, why)| why.is_clean()).collect();
    check!(lives.len() == ids.len() - 1 && !lives.contains(&false), "{lives:?}");
    pair.at_server = ids[ids.len() - 1];
    pair.finish()
}

fn moved(fixture: &mut Fixture<'_>) -> Outcome {
    for round in 0..4 {
        let mut pair = Pair::new(fixture)?;
        let mut other = Rig::new(fixture)?;
        let bytes = pattern(sized(fixture, 200_000, 2_000));
        // The server's queue moves to the other runtime with the stream, because the client does not read it
        // yet.
        let back = pattern(sized(fixture, 3 << 20, 2_000));
        pair.by_client(|cx, id| {
            cx.pause(id);
            cx.send(id, &bytes[..round * 100])
        });
        pair.by_server(|cx, id| cx.send(id, &back));
        for _ in 0..round {
            pair.rig.turn(Duration::ZERO)?;
        }
        pair.by_server(|cx, id| cx.release(id))?;
        pair.until_server_closed()?;
        let Pair { rig, server, client, at_server, at_client, .. } = &mut pair;
        let (_, stream, why) = rig.get_mut(*server).closed.remove(0);
        check!(matches!(why, Closed::Released), "{why}");
        let first = rig.get(*server).bytes(*at_server);
        let there = other.add(Probe::quiet())?;
        let id = other.with(there, |_, cx| cx.add(stream)).map_err(|rejected| rejected.error)?;
        rig.with(*client, |_, cx| {
            cx.send(*at_client, &bytes[round * 100..]);
            cx.resume(*at_client);
        });
        let (client, at_client, at_server, server) = (*client, *at_client, *at_server, *server);
        let mut rigs = [pair.rig, other];
        rig::until(&mut rigs, "all bytes have arrived in both directions", |rigs| {
            first.len() + rigs[1].get(there).received(id) >= bytes.len()
                && rigs[0].get(client).received(at_client) >= back.len()
        })?;
        check!(
            [first, rigs[1].get(there).bytes(id)].concat() == bytes,
            "what arrived differs in round {round}"
        );
        check!(rigs[0].get(client).bytes(at_client) == back, "what returned differs in round {round}");
        let told = rigs[0].get(server).of(at_server);
        check!(told.ends_with(&[What::closed("Released")]), "{told:?}");
        rigs[0].with(client, |_, cx| cx.abort(at_client));
        rigs[1].with(there, |_, cx| cx.abort(id));
        rig::finish(rigs)?;
    }
    Ok(())
}

/// Checks adopted listeners, because a supervisor passes its sockets in this way (`LISTEN_FDS`).
fn adopted(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let (server, client) = (rig.add(Probe::quiet())?, rig.add(Probe::quiet())?);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = Address::Ip(listener.local_addr()?);
    // This client connects before the runtime watches the listener.
    let early = rig.connect(client, &address, Stream::new(Bytes))?;
    rig.until("it is connected", |rig| rig.get(client).open.len() == 1)?;
    let listener = Transport::listener(listener)?;
    rig.with(server, |_, cx| cx.listen_on(listener, |_| Some(Stream::new(Bytes))))?;
    let late = rig.connect(client, &address, Stream::new(Bytes))?;
    rig.until("both are accepted", |rig| rig.get(server).open.len() == 2)?;
    rig.with(client, |_, cx| [early, late].map(|id| cx.send(id, b"to whoever listens".as_slice())));
    rig.until("all bytes have arrived", |rig| {
        let server = rig.get(server);
        server.open.iter().all(|id| server.received(*id) == 18)
    })?;
    let listening = TcpListener::bind("127.0.0.1:0")?;
    let connection = TcpStream::connect(listening.local_addr()?)?;
    let kind = Transport::listener(connection).err().map(|error| error.kind());
    // Not every system can distinguish these.
    let is_told = cfg!(any(target_os = "linux", target_os = "android", target_os = "freebsd"));
    check!(!is_told || kind == Some(ErrorKind::InvalidInput), "a connection is no listener: {kind:?}");
    rig.finish()
}

fn released_and_dropped(fixture: &mut Fixture<'_>) -> Outcome {
    let mut pair = Pair::new(fixture)?;
    pair.by_server(|cx, id| cx.release(id))?;
    pair.until_server_closed()?;
    pair.rig.settle()?;
    pair.rig.rests()?;
    check!(pair.client().of(pair.at_client) == [What::Open], "the peer was told before the drop");
    pair.rig.get_mut(pair.server).closed.clear();
    let client = pair.client;
    pair.rig.until("the peer sees the end", |rig| rig.get(client).count(&What::End) == 1)?;
    // A second close must not hit the new stream, which takes the number that has become free.
    let new = pair.rig.connect(pair.client, &pair.address, Stream::new(Bytes))?;
    pair.rig.until("a new stream is open", |rig| rig.get(client).open.contains(&new))?;
    pair.rig.settle()?;
    pair.rig.rests()?;
    check!(pair.client().of(new) == [What::Open], "{:?}", pair.client().of(new));
    pair.rig.with(client, |_, cx| cx.abort(new));
    pair.finish()
}

/// Lists the descriptors that a child sees, including the one for the listing itself.
fn of_a_child() -> Result<Vec<String>, Stop> {
    let Ok(output) = Command::new("ls").arg("/proc/self/fd").output() else {
        return Err(Stop::Skipped("needs the program ls".to_owned()));
    };
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

fn inherited(fixture: &mut Fixture<'_>) -> Outcome {
    let before = of_a_child()?;
    if before.len() < 4 {
        return Err(Stop::Skipped("needs /proc/self/fd".to_owned()));
    }
    let pair = Pair::new(fixture)?;
    let during = of_a_child()?;
    check!(before == during, "a child had {before:?}, and with a runtime has {during:?}");
    pair.finish()
}

fn child_in_callback(fixture: &mut Fixture<'_>) -> Outcome {
    let mut pair = Pair::new(fixture)?;
    let failed = Rc::new(RefCell::new(None));
    let noted = failed.clone();
    pair.rig.get_mut(pair.server).act(move |cx, id, what| {
        if let (Some(id), What::Got(bytes)) = (id, what) {
            *noted.borrow_mut() = Command::new("/bin/sh").args(["-c", "exit 0"]).status().err();
            cx.send(id, bytes);
        }
        Ok(())
    });
    for round in 1..=3 {
        pair.by_client(|cx, id| cx.send(id, b"ping"));
        pair.until_returned(4 * round)?;
    }
    if let Some(error) = failed.take() {
        return Err(Stop::Skipped(format!("needs the program sh: {error}")));
    }
    pair.finish()
}

fn orders_in_callback(fixture: &mut Fixture<'_>) -> Outcome {
    let options = StreamOptions::with(|options| options.close = SHORT);
    let mut pair = Pair::of(fixture, move || Stream::new(Bytes).options(options.clone()))?;
    let to = pair.address.clone();
    let made = Rc::new(Cell::new(None));
    let noted = made.clone();
    pair.rig.get_mut(pair.server).act(move |cx, id, what| {
        if let (Some(id), What::Got(bytes)) = (id, what)
            && noted.get().is_none()
        {
            let new = cx.connect(&to, Stream::new(Bytes))?;
            let queued = cx.send(id, bytes);
            cx.close(id);
            let after = (queued, cx.send(id, b"late"), cx.get(new).is_some());
            noted.set(Some((new, after)));
        }
        Ok(())
    });
    pair.by_client(|cx, id| cx.send(id, b"!"));
    pair.until_server_closed()?;
    let Some((new, after)) = made.get() else { return Err("the handler was not called".into()) };
    check!(after == (Flow::Queued, Flow::Gone, true), "{after:?}");
    let server = pair.server;
    pair.rig.until("the new stream is open", |rig| rig.get(server).open.contains(&new))?;
    check!(pair.client().bytes(pair.at_client) == b"!", "{:?}", pair.client().of(pair.at_client));
    let told = pair.server().of(pair.at_server);
    check!(told == [What::Open, What::got(b"!"), What::closed("Done")], "{told:?}");
    let all = pair.server().open.clone();
    pair.rig.with(server, |_, cx| all.iter().for_each(|id| cx.abort(*id)));
    pair.finish()
}
