//! Holds a borrow of a resource while it calls the context.
use reactor::*;

struct Echo;

impl Service for Echo {}

impl Handle<Stream> for Echo {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, _: Event<Bytes>) -> Result {
        let Some(stream) = cx.get(id) else { return Ok(()) };
        cx.close(id);
        println!("{}", stream.unsent());
        Ok(())
    }
}

fn main() {}
