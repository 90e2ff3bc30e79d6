//! Tells a service what only another one receives.
use reactor::*;

struct Front;
struct Store;
struct Put(String);

impl Service for Front {}
impl Service for Store {}

impl Receive<Put> for Front {
    fn receive(&mut self, cx: &mut Context<Self>, put: Put) -> Result {
        let store: ServiceId<Store> = todo!("it was given");
        cx.tell(store, put)?;
        Ok(())
    }
}

fn main() {}
