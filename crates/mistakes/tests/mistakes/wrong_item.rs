//! Sends bytes to a stream of lines.
use reactor::*;

struct Chat;

impl Service for Chat {}

impl Handle<Stream<Lines>> for Chat {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream<Lines>>, _: Event<Lines>) -> Result {
        cx.send(id, b"bytes");
        Ok(())
    }
}

fn main() {}
