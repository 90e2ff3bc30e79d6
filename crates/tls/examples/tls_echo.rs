//! Echoes bytes over TLS: `cargo run --release -p io-reactor-tls --example tls_echo -- [ADDR] --cert FILE --key
//! FILE`, then `openssl s_client -connect 127.0.0.1:7443` and type.
//!
//! It prints what each session agreed on. At SIGHUP it reads both files again: sessions that are open go on.

use std::path::PathBuf;
use std::process::exit;

use reactor::{Address, Bytes, Closed, Context, Event, Handle, Id, Result, Service, Stream};
use reactor_tls::{Acceptor, Identity, Tls};

const HELP: &str = "\
Echoes bytes over TLS.

Usage: tls_echo [ADDR] --cert FILE --key FILE

  ADDR         where to listen (default: 127.0.0.1:7443)
  --cert FILE  the chain of certificates in PEM, the server's own first
  --key FILE   its private key in PEM
  --help       prints this text";

struct Echo {
    listen: Address,
    files: Files,
    acceptor: Acceptor,
}

struct Files {
    cert: PathBuf,
    key: PathBuf,
}

impl Files {
    fn read(&self) -> Result<Identity, reactor_tls::ConfigError> {
        Identity::from_files(&self.cert, &self.key)
    }
}

type Client = Stream<Bytes, Tls>;

impl Service for Echo {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let acceptor = self.acceptor.clone();
        let listener = cx.listen(&self.listen, move |_| Some(Stream::over(Bytes, acceptor.accept())))?;
        #[cfg(unix)]
        cx.signals([reactor::signals::Signal::HUP])?;
        println!("listening on {}", cx.local(listener)?);
        Ok(())
    }
}

impl Handle<Client> for Echo {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Client>, event: Event<Bytes>) -> Result {
        match event {
            Event::Open => {
                if let Some(session) = cx.get(id).and_then(|stream| stream.layer().negotiated()) {
                    println!("{:?} {:?}, resumed: {}", session.version, session.suite, session.resumed);
                }
            }
            Event::Received(bytes) => _ = cx.send(id, bytes),
            Event::End | Event::Drained | Event::HungUp => (),
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<Client>, _: Client, why: Closed) {
        if !why.is_clean() {
            eprintln!("tls_echo: a session ended: {why}");
        }
    }
}

#[cfg(unix)]
impl Handle<reactor::signals::Signals> for Echo {
    fn handle(
        &mut self,
        _: &mut Context<Self>,
        _: Id<reactor::signals::Signals>,
        _: reactor::signals::Arrived,
    ) -> Result {
        // The files are small and local, so the loop waits for them. A large set belongs in `offload`.
        match self.files.read().and_then(|identity| self.acceptor.replace(identity, [])) {
            Ok(()) => println!("the certificate is replaced"),
            Err(error) => eprintln!("tls_echo: the old certificate stays: {error}"),
        }
        Ok(())
    }
}

fn main() -> Result {
    let service = arguments().unwrap_or_else(|error| {
        eprintln!("tls_echo: {error}");
        exit(2)
    });
    reactor::run(service)?;
    Ok(())
}

fn arguments() -> Result<Echo, String> {
    let (mut listen, mut cert, mut key) = (None, None, None);
    let mut args = std::env::args_os().skip(1);
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("--help") => {
                println!("{HELP}");
                exit(0)
            }
            Some("--cert") => cert = Some(args.next().ok_or("--cert needs a file")?.into()),
            Some("--key") => key = Some(args.next().ok_or("--key needs a file")?.into()),
            Some(text) if listen.is_none() && !text.starts_with("--") => {
                listen = Some(text.parse::<Address>().map_err(|error| error.to_string())?);
            }
            _ => return Err(format!("unexpected argument {arg:?}; --help explains")),
        }
    }
    let files = Files {
        cert: cert.ok_or("--cert is missing; --help explains")?,
        key: key.ok_or("--key is missing; --help explains")?,
    };
    let identity = files.read().map_err(|error| error.to_string())?;
    let acceptor = Acceptor::builder(identity).build().map_err(|error| error.to_string())?;
    let listen = match listen {
        Some(listen) => listen,
        None => "127.0.0.1:7443".parse().map_err(|_| "the default address is wrong")?,
    };
    Ok(Echo { listen, files, acceptor })
}
