//! Handles one kind of stream with the event of another.
use reactor::*;

struct Echo;

impl Service for Echo {}

impl Handle<Stream<Lines>> for Echo {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Stream<Lines>>, _: Event<Bytes>) -> Result {
        Ok(())
    }
}

fn main() {}
