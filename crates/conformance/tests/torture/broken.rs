//! An engine that fails for a while: the runtime must not forget requests from that time.

use std::time::Duration;

use conformance::torture::FailNth;
use reactor::{Limits, Runtime, Service, engine::Candidates};

struct Idle;
impl Service for Idle {}

#[test]
fn a_stop_asked_for_before_a_turn_that_failed_is_seen_by_the_next() {
    let _alone = super::alone();
    let candidates = Candidates::default();
    for name in candidates.names() {
        let torture = FailNth::new(1, libc::EIO).times(3);
        let engine = candidates.open(Some(name)).expect("it opens on this platform");
        let mut runtime = Runtime::assemble(torture.engine(engine), Limits::default());
        let idle = runtime.add(Idle).expect("it starts");
        let controller = runtime.controller(idle);
        for _ in 0..2 {
            runtime.turn(Some(Duration::ZERO)).expect("a wait may fail twice");
        }
        controller.stop(Duration::ZERO);
        let error = runtime.turn(None).expect_err("the third failure is the last");
        assert_eq!(error.io().and_then(std::io::Error::raw_os_error), Some(libc::EIO));
        assert_eq!(runtime.next_deadline(), Some(Duration::ZERO), "the stop is due");
        runtime.run().expect("the engine is whole again");
    }
}
