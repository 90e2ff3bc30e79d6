//! O and N at runtime level: layers and codecs over the engine, and how a living stream changes them.

use std::{cell::RefCell, io::Read, net::TcpStream, rc::Rc, time::Duration};

use reactor::{
    Bytes, Layer, Stream,
    session::kit::{Peer, Preamble, Toy},
};

use super::{
    SOCKETS,
    probe::{Probe, What},
    rig::Rig,
    row,
};
use crate::{
    suite::{Outcome, Row, check},
    world::World,
};

pub(super) const ROWS: &[Row] = &[
    row("N13r", "the last flight of a handshake has left when the service is told of it", &[], last_flight),
    row("N13r2", "the peer has it, too, while the handler runs", SOCKETS, last_flight_arrives),
];

fn last_flight(world: &mut World<'_>) -> Outcome {
    of_layers(world, (Toy::client(1), || Toy::server(2)))?;
    of_layers(world, (Preamble::new("HELLO\n", "WELCOME\n"), || Preamble::new("WELCOME\n", "HELLO\n")))
}

/// The server answers a hello: when it is open, its answer is with the engine.
fn of_layers<A: Layer, B: Layer>(
    world: &mut World<'_>,
    (ours, mut theirs): (A, impl FnMut() -> B + 'static),
) -> Outcome {
    let mut rig = Rig::new(world)?;
    let waiting = Rc::new(RefCell::new(Vec::new()));
    let noted = waiting.clone();
    let server = rig.add(Probe::<Bytes, B>::acting(move |cx, id, what| {
        if let (Some(id), What::Open) = (id, what) {
            noted.borrow_mut().push(cx.get(id).map(Stream::unsent));
        }
        Ok(())
    }))?;
    let client = rig.add(Probe::<Bytes, A>::quiet())?;
    let (_, address) = rig.listen(server, move || Stream::over(Bytes, theirs()))?;
    let id = rig.connect(client, &address, Stream::over(Bytes, ours))?;
    rig.until("both are open", |rig| rig.get(server).open.len() == 1 && rig.get(client).open.len() == 1)?;
    check!(*waiting.borrow() == [Some(0)], "in the handler of the open, unsent: {:?}", waiting.borrow());
    rig.with(client, |_, cx| cx.abort(id));
    rig.until("the server has ended", |rig| rig.get(server).closed.len() == 1)?;
    rig.finish()
}

fn last_flight_arrives(world: &mut World<'_>) -> Outcome {
    let mut rig = Rig::new(world)?;
    let mut far = Peer::new(Toy::client(1));
    let hello = far.flight();
    let answer = {
        let mut near = Peer::new(Toy::server(2));
        near.feed(&hello);
        near.flight().len()
    };
    let peer: Rc<RefCell<Option<TcpStream>>> = Rc::default();
    let (arrived, of) = (Rc::new(RefCell::new(Vec::new())), peer.clone());
    let noted = arrived.clone();
    let server = rig.add(Probe::<Bytes, Toy>::acting(move |_, _, what| {
        if let (What::Open, Some(peer)) = (what, &mut *of.borrow_mut()) {
            let mut bytes = vec![0; answer];
            peer.read_exact(&mut bytes)?;
            noted.borrow_mut().extend(bytes);
        }
        Ok(())
    }))?;
    let (_, address) = rig.listen(server, || Stream::over(Bytes, Toy::server(2)))?;
    let address = address.ip().ok_or("the address is not IP")?;
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(LONG))?;
    std::io::Write::write_all(&mut socket, &hello)?;
    *peer.borrow_mut() = Some(socket);
    rig.until("the server is open", |rig| rig.get(server).open.len() == 1)?;
    far.feed(&arrived.borrow());
    check!(far.error().is_none() && far.session().layer().pongs() == 0, "{:?}", far.error());
    check!(arrived.borrow().len() == answer, "{} bytes of {answer} arrived", arrived.borrow().len());
    drop(peer.take());
    rig.until("the server has ended", |rig| rig.get(server).closed.len() == 1)?;
    rig.finish()
}

/// What is waited for comes at once, or it is lost.
const LONG: Duration = Duration::from_secs(10);
