//! A limit per turn of zero counts as one, because otherwise the loop would turn for ever without any
//! progress.

use std::time::Duration;

use reactor::{Context, Receive, Result, Runtime, RuntimeOptions, Service};

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
