//! Treats `send` as if it could fail.
use reactor::*;

struct Echo;

impl Service for Echo {}

impl Handle<Stream> for Echo {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
        if let Event::Received(bytes) = event {
            cx.send(id, bytes)?;
        }
        Ok(())
    }
}

fn main() {}
