//! A runtime goes on after its `run`, and its next receipt is whole.

mod common;

use std::time::Duration;

use common::for_each_engine;
use reactor::{Context, Error, Receipt, Receive, Result, Runtime, Service, ServiceId};

/// Ends at once.
struct Idle;
impl Service for Idle {}

/// Has an error that it does not take.
struct Wrong;

impl Service for Wrong {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        cx.after(Duration::ZERO, ());
        Ok(())
    }
}

impl Receive<()> for Wrong {
    fn receive(&mut self, _: &mut Context<Self>, (): ()) -> Result {
        Err("it went wrong".into())
    }
}

struct Never;

impl Service for Never {
    fn start(&mut self, _: &mut Context<Self>) -> Result {
        Err("not today".into())
    }
}

fn run(runtime: &mut Runtime) -> Receipt {
    runtime.run().expect("the engine works")
}

/// Makes a runtime that has run once.
fn ran(engine: common::Engine) -> (Runtime, ServiceId<Idle>) {
    let mut runtime = engine.runtime();
    let service = runtime.add(Idle).expect("it starts");
    let receipt = run(&mut runtime).check().expect("nothing failed");
    assert_eq!(receipt.services.len(), 1);
    (runtime, service)
}

#[test]
fn a_panic_after_run_costs_its_service_and_is_in_the_next_receipt() {
    for_each_engine(|engine| {
        let (mut runtime, service) = ran(engine);
        let result: Option<()> = runtime.with(service, |_, _| std::panic::resume_unwind(Box::new("late")));
        assert_eq!(result, None);
        assert!(runtime.service(service).is_none());
        let receipt = run(&mut runtime);
        assert_eq!(receipt.services[0].panicked.as_deref(), Some("late"));
        assert_eq!(receipt.services[0].panics, 1);
        assert!(matches!(receipt.check(), Err(Error::Failed(_))));
    });
}

#[test]
fn a_service_that_does_not_start_after_run_is_the_answer_of_add() {
    for_each_engine(|engine| {
        let (mut runtime, _) = ran(engine);
        assert!(matches!(runtime.add(Never), Err(Error::Start { .. })));
        let receipt = run(&mut runtime);
        assert_eq!(receipt.services[1].first_errors, ["could not start: not today"]);
    });
}

#[test]
fn errors_of_a_service_added_after_run_are_in_the_next_receipt() {
    for_each_engine(|engine| {
        let (mut runtime, _) = ran(engine);
        runtime.add(Wrong).expect("it starts");
        let receipt = run(&mut runtime);
        let [idle, wrong] = &receipt.services[..] else { panic!("{receipt:?}") };
        assert!(!idle.is_failed() && wrong.is_failed());
        assert_eq!((wrong.faults, wrong.errors), (1, 1));
        assert_eq!(wrong.first_errors, ["it went wrong"]);
        // Nothing is forgotten by the one after that either.
        let receipt = run(&mut runtime);
        assert_eq!((receipt.services[1].errors, receipt.services.len()), (1, 2));
    });
}
