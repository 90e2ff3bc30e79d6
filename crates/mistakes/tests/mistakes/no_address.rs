//! Listens on a port without an address.
use reactor::*;

struct Echo;

impl Service for Echo {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        cx.listen(7007, |_| Some(Stream::new(Bytes)))?;
        Ok(())
    }
}

impl Handle<Stream> for Echo {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Stream>, _: Event<Bytes>) -> Result {
        Ok(())
    }
}

fn main() {}
