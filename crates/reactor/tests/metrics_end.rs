//! The counters are exact even after the last turn.

mod common;

use std::time::Duration;

use common::{Probe, World, for_each_engine};
use reactor::{Bytes, Stream};

#[test]
fn after_the_end_no_resource_is_counted_as_alive() {
    for_each_engine(|engine| {
        let mut world = World::new(engine.runtime(), Probe::quiet(), Stream::new(Bytes));
        let metrics = world.runtime.metrics();
        world.with(|cx, id| cx.send(id, &[1; 1 << 20]));
        world.runtime.turn(Some(Duration::ZERO)).expect("the engine is whole");
        assert_eq!(metrics.read().resources, 1);
        world.runtime.controller(world.service).stop(Duration::ZERO);
        world.runtime.run().expect("the engine is whole");
        let counters = metrics.read();
        assert_eq!((counters.resources, counters.queue_bytes), (0, 0));
    });
}
