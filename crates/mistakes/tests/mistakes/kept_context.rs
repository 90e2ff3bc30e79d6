//! Keeps the context beyond the call.
use reactor::*;

struct Echo {
    cx: Option<&'static mut Context<'static, Echo>>,
}

impl Service for Echo {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        self.cx = Some(cx);
        Ok(())
    }
}

fn main() {}
