//! Echoes bytes on an engine of one's own: `cargo run --release --example select [ADDR]`, then
//! `nc 127.0.0.1 7007` and type. The engine, select(2), is in `engine/`, and here it is registered.
//!
//! `REACTOR_ENGINE=poll` takes one of the library's instead; `REACTOR_ENGINE=abacus` lists what there is.
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
    // Several of them are no address, whatever each of them is.
    let text = args.reduce(|all, more| format!("[{all}, {more}]")).unwrap_or_else(|| "127.0.0.1:7007".into());
    let address = text.parse::<Address>();
    let Ok(address) = address.inspect_err(|error| eprintln!("select: {error}")) else {
        std::process::exit(2)
    };
    let mut options = RuntimeOptions::default();
    #[cfg(unix)]
    {
        use reactor::engine::{Calls, Candidates};
        // The first on the list is what a program gets that asks for none by name.
        options.candidates =
            Candidates::default().with("select", || Ok(Box::new(Calls::new(engine::Select::new()?))));
    }
    let mut runtime = Runtime::with_options(options)?;
    println!("engine {}", runtime.engine_name());
    runtime.add(Echo(address))?;
    runtime.run()?;
    Ok(())
}
