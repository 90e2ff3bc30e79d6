//! A panic costs one service, and the others go on.

mod common;

use std::time::Duration;

use common::for_each_engine;
use reactor::{Bytes, Context, Error, Event, Handle, Id, Result, Service, Stream};

#[test]
fn a_panic_in_start_is_the_answer_of_add() {
    struct Never;
    impl Service for Never {
        fn start(&mut self, cx: &mut Context<Self>) -> Result {
            cx.listen("127.0.0.1:0", |_| None::<Stream>)?;
            std::panic::resume_unwind(Box::new("never"))
        }
    }
    impl Handle<Stream> for Never {
        fn handle(&mut self, _: &mut Context<Self>, _: Id<Stream>, _: Event<Bytes>) -> Result {
            Ok(())
        }
    }
    for_each_engine(|engine| {
        let mut runtime = engine.runtime();
        match runtime.add(Never) {
            Err(Error::Panicked { message, .. }) => assert_eq!(message, "never"),
            other => panic!("{other:?}"),
        }
        runtime.turn(Some(Duration::ZERO)).expect("whole");
        assert_eq!(runtime.metrics().read().resources, 0, "what it had registered is closed");
        runtime.run().expect("nobody is left");
    });
}

#[test]
fn an_error_of_start_is_the_answer_of_add() {
    struct Never;
    impl Service for Never {
        fn start(&mut self, _: &mut Context<Self>) -> Result {
            Err("not today".into())
        }
    }
    for_each_engine(|engine| {
        let error = engine.runtime().add(Never).expect_err("it did not start");
        assert!(error.to_string().ends_with("could not start: not today"), "{error}");
    });
}
