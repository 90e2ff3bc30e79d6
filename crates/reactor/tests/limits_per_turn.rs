//! Limits per turn. A limit of zero counts as one, because otherwise the loop would turn for ever without any
//! progress. The faults that one turn keeps are bounded too.

use std::time::Duration;

use reactor::{Context, Fault, Receive, Result, Runtime, RuntimeOptions, Service};

/// Records its messages, and sets two timers.
#[derive(Default)]
struct Notes(Vec<u8>);

impl Service for Notes {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        cx.after(Duration::ZERO, 1_u8);
        cx.after(Duration::ZERO, 2_u8);
        Ok(())
    }
}

impl Receive<u8> for Notes {
    fn receive(&mut self, _: &mut Context<Self>, note: u8) -> Result {
        self.0.push(note);
        Ok(())
    }
}

#[test]
fn with_a_limit_of_nothing_a_turn_one_is_taken() {
    for (per_turn, expected) in [(0, 1), (1, 1), (2, 2)] {
        let mut options = RuntimeOptions::default();
        options.limits.per_turn = per_turn;
        let mut runtime = Runtime::with_options(options).expect("an engine opens");
        let notes = runtime.add(Notes::default()).expect("it starts");
        let controller = runtime.controller(notes);
        [3, 4].into_iter().for_each(|note| controller.send(note).expect("there is room"));
        let count = |runtime: &Runtime, is_command: bool| {
            let noted = &runtime.service(notes).expect("it lives").0;
            noted.iter().filter(|note| (**note > 2) == is_command).count()
        };
        while count(&runtime, true) == 0 {
            runtime.turn(Some(Duration::ZERO)).expect("the engine is whole");
        }
        assert_eq!(count(&runtime, true), expected, "commands of one turn at a limit of {per_turn}");
        drop(controller);
        runtime.run().expect("it ends");
        assert_eq!((count(&runtime, true), count(&runtime, false)), (2, 2), "all were taken in the end");
    }
}

/// Sets more timers than there may be, and counts its faults.
#[derive(Default)]
struct Greedy {
    told: u64,
    more: Vec<u64>,
}

impl Service for Greedy {
    fn fault(&mut self, _: &mut Context<Self>, fault: Fault) {
        match fault {
            Fault::More(count) => self.more.push(count),
            _ => self.told += 1,
        }
    }
}

impl Receive<u64> for Greedy {
    fn receive(&mut self, cx: &mut Context<Self>, timers: u64) -> Result {
        (0..timers).for_each(|_| _ = cx.after(Duration::from_secs(3_600), 0_u64));
        Ok(())
    }
}

#[test]
fn a_turn_keeps_1024_faults_and_counts_the_others() {
    const TIMERS: u64 = 10;
    for (faults, told, more) in [(1_023, 1_023, vec![]), (1_024, 1_024, vec![]), (3_000, 1_024, vec![1_976])]
    {
        let mut options = RuntimeOptions::default();
        options.limits.timers = TIMERS as usize;
        let mut runtime = Runtime::with_options(options).expect("an engine opens");
        let greedy = runtime.add(Greedy::default()).expect("it starts");
        let controller = runtime.controller(greedy);
        controller.send(TIMERS + faults).expect("there is room");
        while runtime.service(greedy).expect("it lives").told == 0 {
            runtime.turn(Some(Duration::ZERO)).expect("the engine is whole");
        }
        let service = runtime.service(greedy).expect("it lives");
        assert_eq!((service.told, &service.more), (told, &more), "of {faults} faults");
        assert_eq!(runtime.metrics().read().faults, faults, "all are counted");
        controller.stop(Duration::ZERO);
        let receipt = runtime.run().expect("the engine is whole");
        assert_eq!(receipt.services[0].faults, faults, "the receipt has them all");
    }
}
