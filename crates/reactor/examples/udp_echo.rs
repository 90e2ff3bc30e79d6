//! Echoes datagrams: `cargo run --release --example udp_echo [ADDR]`, then `nc -u 127.0.0.1 7007` and type.
//! With a path or `@name` it uses a Unix socket: `socat - unix-sendto:PATH,bind=/tmp/mine`.
use reactor::{Address, Context, DatagramEvent, Datagrams, Handle, Id, Result, Service};
struct Echo(Address);
impl Service for Echo {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let socket = cx.bind(&self.0, Datagrams::new())?;
        println!("listening on {}", cx.local(socket)?);
        Ok(())
    }
}
impl Handle<Datagrams> for Echo {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Datagrams>, event: DatagramEvent) -> Result {
        match event {
            DatagramEvent::Received(datagram) => _ = cx.send(id, datagram.answer(datagram.bytes)),
            DatagramEvent::Undelivered { to: Some(to), error } => eprintln!("udp_echo: to {to}: {error}"),
            DatagramEvent::Undelivered { to: None, error } => eprintln!("udp_echo: {error}"),
            DatagramEvent::Drained => (),
        }
        Ok(())
    }
}
fn main() -> Result {
    let args = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned());
    // Join several arguments into a text that never parses as an address.
    let text = args.reduce(|all, more| format!("[{all}, {more}]")).unwrap_or_else(|| "127.0.0.1:7007".into());
    let address = text.parse::<Address>().inspect_err(|error| eprintln!("udp_echo: {error}"));
    reactor::run(Echo(address.unwrap_or_else(|_| std::process::exit(2))))?;
    Ok(())
}
