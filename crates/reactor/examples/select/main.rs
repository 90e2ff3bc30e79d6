//! Echoes bytes on an engine of your own: `cargo run --release --example select [ADDR]`, then
//! `nc 127.0.0.1 7007` and type. The engine, select(2), is in `engine/`. This file registers it.
//!
//! `REACTOR_ENGINE=poll` selects one of the library's engines instead. `REACTOR_ENGINE=abacus` lists the
//! choices.
#![cfg_attr(not(unix), allow(unused))]

#[cfg(unix)]
mod engine;

use reactor::{Address, Bytes, Context, Event, Handle, Id, Result, Runtime, RuntimeOptions, Service, Stream};

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
    // Join several arguments into a text that never parses as an address.
    let text = args.reduce(|all, more| format!("[{all}, {more}]")).unwrap_or_else(|| "127.0.0.1:7007".into());
    let address = text.parse::<Address>();
    let Ok(address) = address.inspect_err(|error| eprintln!("select: {error}")) else {
        std::process::exit(2)
    };
    let mut options = RuntimeOptions::default();
    #[cfg(unix)]
    {
        use reactor::engine::{Calls, Candidates};
        // The first candidate is the default for programs that do not name an engine.
        options.candidates =
            Candidates::default().with("select", || Ok(Box::new(Calls::new(engine::Select::new()?))));
    }
    let mut runtime = Runtime::with_options(options)?;
    println!("engine {}", runtime.engine_name());
    runtime.add(Echo(address))?;
    runtime.run()?;
    Ok(())
}
