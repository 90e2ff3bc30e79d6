//! Sends a service a message that only another service receives.
use reactor::*;

struct Front(ServiceId<Store>);
struct Store;
struct Put(String);

impl Service for Front {}
impl Service for Store {}

impl Receive<Put> for Front {
    fn receive(&mut self, cx: &mut Context<Self>, put: Put) -> Result {
        cx.tell(self.0, put)?;
        Ok(())
    }
}

fn main() {}
