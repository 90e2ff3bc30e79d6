//! Scripts of messages: between services, from threads, from jobs and from timers.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    thread,
    time::Duration,
};

use reactor::{Bytes, Unanswered};

use crate::{
    player::{Ask, Player},
    stage::{Played, Script, Stage, on_systems, script},
};

pub const SCRIPTS: &[Script] = &[
    script("tell between services", tell),
    on_systems("commands and questions of a thread", thread_asks),
    script("offloaded work", offload),
    script("timers, some cancelled", timers),
];

fn tell(stage: &mut Stage) -> Played {
    let (sums, heard) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let (sum, hear) = (sums.clone(), heard.clone());
    let adder = stage.add(Player::<Bytes>::silent(&stage.ledger).messages(move |_, number| {
        sum.set(sum.get() + number);
        Ok(())
    }))?;
    let teller = stage.add(Player::<Bytes>::silent(&stage.ledger).messages(move |cx, number| {
        hear.set(hear.get() + 1);
        cx.tell(adder, number).map_err(|refused| refused.to_string())?;
        if number > 0 {
            let me = cx.me();
            cx.tell(me, number - 1).map_err(|refused| refused.to_string())?;
        }
        Ok(())
    }))?;
    stage.runtime.with(teller, |_, cx| cx.tell(cx.me(), 10_u64).is_ok());
    stage.until(|| heard.get() == 11 && sums.get() == 55)
}

/// Each command is executed or comes back. Each question gets an answer, or the asker learns that it never
/// will.
fn thread_asks(stage: &mut Stage) -> Played {
    let sum = Rc::new(Cell::new(0));
    let executed = sum.clone();
    let service = stage.add(Player::<Bytes>::silent(&stage.ledger).messages(move |_, number| {
        executed.set(executed.get() + number);
        Ok(())
    }))?;
    let controller = stage.runtime.controller(service);
    let thread = thread::spawn(move || {
        let mut sent = 0;
        for number in 1..=20 {
            match controller.send(number) {
                Ok(()) => sent += number,
                Err(refused) => assert_eq!(refused.into_message(), number),
            }
            match controller.ask(|reply| Ask(number, reply)).wait_for(LONG) {
                Ok(answer) => assert_eq!(answer, 2 * number),
                Err(Unanswered::Gone) => return sent,
                Err(other) => panic!("a question was not resolved: {other:?}"),
            }
        }
        sent
    });
    let played = stage.until(|| thread.is_finished());
    if played.is_err() {
        // The loop has failed. Its end must release the thread.
        drop(stage.runtime.run());
    }
    let sent = thread.join().expect("each question is resolved");
    assert_eq!(sum.get(), sent, "commands were lost");
    played
}

fn offload(stage: &mut Stage) -> Played {
    let results: Rc<RefCell<Vec<u64>>> = Rc::default();
    let done = results.clone();
    let service = stage.add(Player::<Bytes>::silent(&stage.ledger).messages(move |_, number| {
        done.borrow_mut().push(number);
        Ok(())
    }))?;
    for number in 0..6_u64 {
        stage.runtime.with(service, |_, cx| {
            cx.offload(move || {
                if number == 3 {
                    // Resume instead of panic, so that the panic prints nothing.
                    std::panic::resume_unwind(Box::new("a job may panic"));
                }
                number * number
            })
            .is_ok()
        });
    }
    stage.until(|| results.borrow().len() == 5)?;
    results.borrow_mut().sort_unstable();
    assert_eq!(*results.borrow(), [0, 1, 4, 16, 25]);
    Ok(())
}

fn timers(stage: &mut Stage) -> Played {
    let fired: Rc<RefCell<Vec<u64>>> = Rc::default();
    let log = fired.clone();
    let service = stage.add(Player::<Bytes>::silent(&stage.ledger).messages(move |cx, number| {
        log.borrow_mut().push(number);
        if number == 2 {
            cx.after(Duration::from_micros(500), 5_u64);
        }
        Ok(())
    }))?;
    stage.runtime.with(service, |_, cx| {
        for number in [4, 1, 3, 2] {
            cx.after(Duration::from_micros(300 * number), number);
        }
        let never = cx.after(Duration::from_micros(100), 0_u64);
        assert!(cx.cancel(never));
        cx.after(Duration::from_secs(3_600), 9_u64);
    });
    stage.until(|| fired.borrow().len() == 5)?;
    let mut order = fired.borrow().clone();
    order.retain(|number| *number != 5);
    assert_eq!(order, [1, 2, 3, 4]);
    Ok(())
}

const LONG: Duration = Duration::from_secs(20);
