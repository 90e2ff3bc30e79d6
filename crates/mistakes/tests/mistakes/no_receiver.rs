//! Sets a timer whose payload the service does not receive.
use reactor::*;

struct Clock;
struct Tick;

impl Service for Clock {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        cx.after(std::time::Duration::from_secs(1), Tick);
        Ok(())
    }
}

fn main() {}
