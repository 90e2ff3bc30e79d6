//! Keeps a borrow of the lent buffer beyond the call.
use reactor::*;

struct Log {
    last: &'static str,
}

impl Service for Log {}

impl Handle<Stream<Lines>> for Log {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Stream<Lines>>, event: Event<Lines>) -> Result {
        if let Event::Received(line) = event {
            self.last = line;
        }
        Ok(())
    }
}

fn main() {}
