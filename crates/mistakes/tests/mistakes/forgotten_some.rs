//! Returns a stream for a new connection, without the `Option` that allows a refusal.
use reactor::*;

struct Echo;

impl Service for Echo {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        cx.listen("127.0.0.1:0", |_| Stream::new(Bytes))?;
        Ok(())
    }
}

impl Handle<Stream> for Echo {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Stream>, _: Event<Bytes>) -> Result {
        Ok(())
    }
}

fn main() {}
