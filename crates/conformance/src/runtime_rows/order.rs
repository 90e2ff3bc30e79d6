//! G at runtime level: the order of one turn as a service observes it.

use super::prelude::*;

pub(super) const ROWS: &[Row] = &[
    row("G11r", "a command that comes while handlers run precedes input that came meanwhile", &[], meanwhile),
    row("G12r", "the end of a turn comes once, after its handlers and before its writes", &[], end_of_turn),
];

fn meanwhile(fixture: &mut Fixture<'_>) -> Outcome {
    let mut near = Rig::new(fixture)?;
    let mut far = Rig::new(fixture)?;
    let server = near.add(Probe::quiet())?;
    let client = far.add(Probe::quiet())?;
    let (_, address) = near.listen(server, || Stream::new(Bytes))?;
    let mut rigs = vec![near, far];
    let mut ends = Vec::new();
    for count in 1..=2 {
        ends.push(rigs[1].connect(client, &address, Stream::new(Bytes))?);
        rig::until(&mut rigs, "both ends are open", |rigs| {
            rigs[0].get(server).open.len() == count && rigs[1].get(client).open.len() == count
        })?;
    }
    let far = Rc::new(RefCell::new(rigs.pop().ok_or("there are two")?));
    let mut near = rigs.pop().ok_or("there are two")?;
    near.settle()?;
    let open: Vec<Id<Stream>> = near.get(server).open.clone();
    let (first, second) = (ends[0], ends[1]);
    let (controller, other) = (near.runtime.controller(server), far.clone());
    near.get_mut(server).act(move |cx, id, what| {
        if (id, what) == (Some(open[0]), &What::got(b"!")) {
            // Send the input before the command.
            let mut other = other.borrow_mut();
            other.with(client, |_, cx| cx.send(second, b"?"));
            other.turn(Duration::ZERO).map_err(|_| "the other engine is broken")?;
            controller.send(5_u64)?;
            cx.at_end_of_turn();
        }
        Ok(())
    });
    far.borrow_mut().with(client, |_, cx| cx.send(first, b"!"));
    far.borrow_mut().settle()?;
    near.get_mut(server).log.clear();
    for _ in 0..1_000 {
        if near.get(server).log.len() == 4 {
            break;
        }
        near.turn(Duration::from_millis(2))?;
        far.borrow_mut().turn(Duration::ZERO)?;
    }
    let told: Vec<What> = near.get(server).log.iter().map(|(_, what)| what.clone()).collect();
    let expected = [What::got(b"!"), What::Message(5), What::EndOfTurn, What::got(b"?")];
    check!(told == expected, "{told:?}");
    near.get_mut(server).act(|_, _, _| Ok(()));
    let far = Rc::into_inner(far).ok_or("nobody else has it")?.into_inner();
    rig::finish([near, far])
}

fn end_of_turn(fixture: &mut Fixture<'_>) -> Outcome {
    let mut pair = Pair::new(fixture)?;
    let (server, id) = (pair.server, pair.at_server);
    pair.rig.settle()?;
    let mut asks_again = 3;
    let mut collected = Vec::new();
    pair.rig.get_mut(server).act(move |cx, _, what| {
        match what {
            What::Message(number) => {
                collected.push(*number as u8);
                cx.at_end_of_turn();
            }
            What::EndOfTurn => {
                cx.send(id, &collected);
                collected.clear();
                if asks_again > 0 {
                    asks_again -= 1;
                    cx.at_end_of_turn();
                }
            }
            _ => (),
        }
        Ok(())
    });
    let controller = pair.rig.runtime.controller(server);
    for number in [1_u64, 2, 3] {
        controller.send(number).map_err(|refused| refused.to_string())?;
    }
    pair.rig.get_mut(server).log.clear();
    pair.rig.turn(Duration::ZERO)?;
    let told: Vec<What> = pair.server().log.iter().map(|(_, what)| what.clone()).collect();
    check!(told == [What::Message(1), What::Message(2), What::Message(3), What::EndOfTurn], "{told:?}");
    // The handler asked again. That alone must not cause another turn.
    let next = pair.rig.runtime.next_deadline();
    check!(next != Some(Duration::ZERO), "it spins");
    pair.until_returned(3)?;
    check!(pair.client().bytes(pair.at_client) == [1, 2, 3], "{:?}", pair.client().of(pair.at_client));
    pair.rig.settle()?;
    let ends = pair.server().count(&What::EndOfTurn);
    check!(ends == 4, "{ends} ends of turns");
    pair.by_server(|cx, _| cx.at_end_of_turn());
    check!(pair.rig.runtime.next_deadline() == Some(Duration::ZERO), "the next turn waits");
    pair.rig.settle()?;
    let ends = pair.server().count(&What::EndOfTurn);
    check!(ends == 5, "{ends} ends of turns");
    drop(controller);
    pair.finish()
}
