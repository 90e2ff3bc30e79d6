//! Sends a service on another thread a message that must stay on its own thread.
use reactor::*;

struct Names;
struct Rename(std::rc::Rc<str>);

impl Service for Names {}

impl Receive<Rename> for Names {
    fn receive(&mut self, _: &mut Context<Self>, rename: Rename) -> Result {
        println!("{}", rename.0);
        Ok(())
    }
}

fn rename(names: &Controller<Names>) {
    let _ = names.send(Rename("new".into()));
}

fn main() {}
