//! The counters match the events.

mod common;

use std::{io::Write, net::Shutdown, time::Duration};

use common::{Probe, SHORT, Seen, World, for_each_engine, listen, settle, until};
use reactor::{Bytes, Stream};

#[test]
fn each_counter_counts_what_it_names() {
    for_each_engine(|engine| {
        let probe = Probe::new(|cx, id, seen| match seen {
            Seen::Got(bytes) if bytes == b"no" => Err("no".into()),
            Seen::Got(bytes) => {
                cx.send(id, &bytes[..]);
                Ok(())
            }
            _ => Ok(()),
        })
        .messages(|_, n| if n == 13 { Err("13".into()) } else { Ok(()) });
        let mut world = World::new(engine.runtime(), probe, Stream::new(Bytes));
        let service = world.service;
        let metrics = world.runtime.metrics();
        let address = listen(&mut world.runtime, service, || Some(Stream::new(Bytes)));
        world.with(|cx, _| {
            cx.connect(address, Stream::new(Bytes)).expect("it begins");
            cx.after(Duration::ZERO, 13);
            cx.after(common::LONG, 1);
            cx.tell(cx.me(), 2).expect("room");
        });
        let controller = world.runtime.controller(service);
        controller.send(3).expect("room");
        world.peer.write_all(b"seven b").expect("room");
        assert_eq!(world.read(7), b"seven b");
        until(&mut world.runtime, |_| metrics.read().accepts == 1);
        settle(&mut world.runtime);
        let now = metrics.read();
        assert_eq!((now.bytes_in, now.bytes_out, now.accepts, now.connects), (7, 7, 1, 1));
        assert_eq!((now.commands, now.messages, now.timers, now.faults), (1, 2, 1, 1));
        assert_eq!((now.resources, now.queue_bytes, now.panics), (4, 0, 0));
        assert_eq!(now.turn_micros.iter().sum::<u64>(), now.turns);
        // Three streams end in three different ways.
        world.peer.set_nonblocking(false).expect("a socket");
        world.peer.write_all(b"no").expect("room");
        world.peer.shutdown(Shutdown::Both).expect("a socket");
        world.until_closed();
        let unused = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
        world.with(|cx, _| _ = cx.connect(unused, Stream::new(Bytes)).expect("it begins"));
        until(&mut world.runtime, |_| metrics.read().errors_os == 1);
        let ids: Vec<_> =
            world.probe().seen.iter().filter(|(_, seen)| *seen == Seen::Open).map(|(id, _)| *id).collect();
        // This is the first connection, which opened first on each engine, and still lives.
        world.with(|cx, _| cx.deadline(ids[0], SHORT));
        until(&mut world.runtime, |_| metrics.read().errors_limit == 1);
        assert_eq!((metrics.read().errors_refused, metrics.read().errors_os), (1, 1));
    });
}
