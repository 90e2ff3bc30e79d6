//! The history tells each trouble between nodes, and its end.

use reactor::Service;
use sim::{Happening, Kind, World, WorldOptions};

struct Idle;
impl Service for Idle {}

#[test]
fn slowness_stands_in_the_history_with_its_end() {
    let mut options = WorldOptions::default();
    options.history_max = 10;
    let mut world = World::with_options(1, options);
    let nodes: Vec<_> = (0..3).map(|_| world.add(|runtime| runtime.add(Idle))).collect();
    world.slow(nodes[1], 10);
    world.slow(nodes[1], 1);
    let (at, kind, from, to) = (world.now(), Kind::Slow, vec![1], vec![0, 2]);
    let expected = [
        Happening::Obstructed { at, kind, from: from.clone(), to: to.clone() },
        Happening::Cleared { at, kind, from, to },
    ];
    assert_eq!(*world.history(), expected);
}
