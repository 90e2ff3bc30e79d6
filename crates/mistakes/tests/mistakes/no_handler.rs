//! Listens for streams of lines, but handles streams of bytes.
use reactor::*;

struct Echo;

impl Service for Echo {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        cx.listen("127.0.0.1:0", |_| Some(Stream::new(Lines::new())))?;
        Ok(())
    }
}

impl Handle<Stream<Bytes>> for Echo {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Stream>, _: Event<Bytes>) -> Result {
        Ok(())
    }
}

fn main() {}
