//! Handles streams, but does not implement `Service`.
use reactor::*;

struct Echo;

impl Handle<Stream> for Echo {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Stream>, _: Event<Bytes>) -> Result {
        Ok(())
    }
}

fn main() {
    let _ = reactor::run(Echo);
}
