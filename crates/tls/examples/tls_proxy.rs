//! Takes TLS in front of a server without it: `cargo run --release -p io-reactor-tls --example tls_proxy --
//! LISTEN TARGET --cert FILE --key FILE [--proxy-protocol]`.
//!
//! For each client it connects to the target once the client's handshake is over, and forwards bytes both
//! ways, at the pace of the slower side. With `--proxy-protocol` it first sends the client's address in a
//! header of the PROXY protocol, version 2. At SIGHUP it reads the certificate again: sessions that are open
//! go on.

use std::path::PathBuf;
use std::process::exit;

use reactor::session::proxy::{ProxyHeader, SendHeader, Version};
use reactor::{Address, Bytes, Closed, Context, Either, Event, Handle, Id, IdMap, Result, Service, Stream};
use reactor_tls::{Acceptor, ConfigError, Identity, Tls};

const HELP: &str = "\
Takes TLS in front of a server without it.

Usage: tls_proxy LISTEN TARGET --cert FILE --key FILE [--proxy-protocol]

  LISTEN            where to listen, for example 0.0.0.0:443
  TARGET            the server's address, for example 127.0.0.1:80
  --cert FILE       the chain of certificates in PEM, the server's own first
  --key FILE        its private key in PEM
  --proxy-protocol  begins each connection with the client's address (PROXY protocol, version 2)
  --help            prints this text";

/// Distinguish accepted connections from outgoing ones by role.
struct Inbound;
struct Outbound;
type Client = Stream<Bytes, Tls, Inbound>;
type Target = Stream<Bytes, Either<SendHeader, ()>, Outbound>;

struct Proxy {
    settings: Settings,
    acceptor: Acceptor,
    targets: IdMap<Client, Id<Target>>,
    clients: IdMap<Target, Id<Client>>,
}

struct Settings {
    listen: Address,
    target: Address,
    cert: PathBuf,
    key: PathBuf,
    sends_header: bool,
}

impl Settings {
    fn identity(&self) -> Result<Identity, ConfigError> {
        Identity::from_files(&self.cert, &self.key)
    }
}

impl Proxy {
    /// Returns the layer that tells the target who the client is.
    fn header(&self, cx: &Context<Self>, client: Id<Client>) -> Result<Either<SendHeader, ()>> {
        if !self.settings.sends_header {
            return Ok(Either::Right(()));
        }
        let (Some(source), Some(destination)) = (cx.peer(client)?.ip(), cx.local(client)?.ip()) else {
            return Err("the client has no IP address".into());
        };
        let header = ProxyHeader::stream(source, destination);
        Ok(Either::Left(SendHeader::new(&header, Version::V2)?))
    }
}

impl Service for Proxy {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let acceptor = self.acceptor.clone();
        let listener = cx.listen(&self.settings.listen, move |_| {
            Some(Stream::over(Bytes, acceptor.accept()).role::<Inbound>())
        })?;
        #[cfg(unix)]
        cx.signals([reactor::signals::Signal::HUP])?;
        println!("listening on {}", cx.local(listener)?);
        Ok(())
    }
}

impl Handle<Client> for Proxy {
    fn handle(&mut self, cx: &mut Context<Self>, client: Id<Client>, event: Event<Bytes>) -> Result {
        match event {
            Event::Open => {
                let layer = self.header(cx, client)?;
                let target =
                    cx.connect(&self.settings.target, Stream::over(Bytes, layer).role::<Outbound>())?;
                cx.pair(client, target)?;
                self.targets.insert(client, target);
                self.clients.insert(target, client);
            }
            Event::Received(bytes) => {
                if let Some(target) = self.targets.get(client) {
                    cx.send(*target, bytes);
                }
            }
            // Paired streams pass their ends on without our help.
            Event::End | Event::Drained | Event::HungUp => (),
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, client: Id<Client>, _: Client, why: Closed) {
        self.targets.remove(client);
        report("client", &why);
    }
}

impl Handle<Target> for Proxy {
    fn handle(&mut self, cx: &mut Context<Self>, target: Id<Target>, event: Event<Bytes>) -> Result {
        if let Event::Received(bytes) = event
            && let Some(client) = self.clients.get(target)
        {
            cx.send(*client, bytes);
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, target: Id<Target>, _: Target, why: Closed) {
        self.clients.remove(target);
        report("target", &why);
    }
}

#[cfg(unix)]
impl Handle<reactor::signals::Signals> for Proxy {
    fn handle(
        &mut self,
        _: &mut Context<Self>,
        _: Id<reactor::signals::Signals>,
        _: reactor::signals::Arrived,
    ) -> Result {
        // The files are small and local, so the loop waits for them. A large set belongs in `offload`.
        match self.settings.identity().and_then(|identity| self.acceptor.replace(identity, [])) {
            Ok(()) => println!("the certificate is replaced"),
            Err(error) => eprintln!("tls_proxy: the old certificate stays: {error}"),
        }
        Ok(())
    }
}

/// Reports an end that was not orderly.
fn report(side: &str, why: &Closed) {
    if !why.is_clean() {
        eprintln!("tls_proxy: {side}: {why}");
    }
}

fn main() -> Result {
    let made = arguments().and_then(|settings| {
        let identity = settings.identity().map_err(|error| error.to_string())?;
        let acceptor = Acceptor::builder(identity).build().map_err(|error| error.to_string())?;
        Ok(Proxy { settings, acceptor, targets: IdMap::new(), clients: IdMap::new() })
    });
    let service = made.unwrap_or_else(|error| {
        eprintln!("tls_proxy: {error}");
        exit(2)
    });
    reactor::run(service)?;
    Ok(())
}

fn arguments() -> Result<Settings, String> {
    let (mut addresses, mut cert, mut key, mut sends_header) = (Vec::new(), None, None, false);
    let mut args = std::env::args_os().skip(1);
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("--help") => {
                println!("{HELP}");
                exit(0)
            }
            Some("--cert") => cert = Some(args.next().ok_or("--cert needs a file")?.into()),
            Some("--key") => key = Some(args.next().ok_or("--key needs a file")?.into()),
            Some("--proxy-protocol") => sends_header = true,
            Some(text) if !text.starts_with("--") => {
                addresses.push(text.parse::<Address>().map_err(|error| error.to_string())?);
            }
            _ => return Err(format!("unexpected argument {arg:?}; --help explains")),
        }
    }
    let [listen, target] = addresses.try_into().map_err(|_| "two addresses are needed; --help explains")?;
    Ok(Settings {
        listen,
        target,
        cert: cert.ok_or("--cert is missing; --help explains")?,
        key: key.ok_or("--key is missing; --help explains")?,
        sends_header,
    })
}
