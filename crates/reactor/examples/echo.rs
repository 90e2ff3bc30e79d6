//! Echoes bytes: `cargo run --release --example echo [ADDR]`, then `nc 127.0.0.1 7007` and type.
use reactor::{Address, Bytes, Context, Event, Handle, Id, Result, Service, Stream};
struct Echo(Address);
impl Service for Echo {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let listener = cx.listen(&self.0, |_| Some(Stream::new(Bytes)))?;
        println!("listening on {}", cx.local(listener)?);
        Ok(())
    }
}
impl Handle<Stream> for Echo {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
        if let Event::Received(bytes) = event {
            cx.send(id, bytes);
        }
        Ok(())
    }
}
fn main() -> Result {
    let args = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned());
    let text = args.reduce(|all, more| format!("[{all}, {more}]")).unwrap_or_else(|| "127.0.0.1:7007".into());
    let address = text.parse::<Address>().inspect_err(|error| eprintln!("echo: {error}"));
    reactor::run(Echo(address.unwrap_or_else(|_| std::process::exit(2))))?;
    Ok(())
}
