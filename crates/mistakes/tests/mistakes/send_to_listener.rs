//! Sends to a listener instead of one of its connections.
use reactor::*;

struct Echo;

impl Service for Echo {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let listener = cx.listen("127.0.0.1:0", |_| Some(Stream::new(Bytes)))?;
        cx.send(listener, b"hello");
        Ok(())
    }
}

impl Handle<Stream> for Echo {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Stream>, _: Event<Bytes>) -> Result {
        Ok(())
    }
}

fn main() {}
