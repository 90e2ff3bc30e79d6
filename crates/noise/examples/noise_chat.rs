//! Two people chat, encrypted, and know each other by their keys: `cargo run --release -p io-reactor-noise
//! --example noise_chat -- --key FILE --listen 127.0.0.1:7700`. It prints the command for the other side.
//!
//! The protocol is Noise XK: the side that connects knows the other's key, and shows its own under encryption.
//! A listener with `--peer KEY` refuses every other key. Control characters of the peer's lines are printed as
//! escapes, so that the peer cannot command the terminal.
//! With `--socks5 PROXY` it connects through a SOCKS5 proxy, which also resolves the name of the peer.

use std::path::{Path, PathBuf};
use std::process::exit;
use std::{fs, io};

use reactor::session::proxy::{Destination, Socks5};
use reactor::{Address, Closed, Context, Event, Handle, Id, Lines, Result, Service, Stream};
use reactor_noise::{Keypair, Noise, NoiseError, NoiseOptions, XK};

const HELP: &str = "\
Two people chat, encrypted, and know each other by their keys.

Usage: noise_chat --key FILE --listen ADDR [--peer KEY]
       noise_chat --key FILE --connect HOST:PORT --peer KEY [--socks5 PROXY]

  --key FILE       our private key, 64 hexadecimal digits; made if there is no such file
  --listen ADDR    waits for a peer there, and talks to one at a time
  --connect TO     connects to a peer, for example 127.0.0.1:7700
  --peer KEY       the public key that the peer must have; a listener without it talks to anybody
  --socks5 PROXY   connects through this proxy, for example 127.0.0.1:9050; TO may then be a name
  --help           prints this text";

/// Standard input, apart from connections.
struct Keyboard;
type Typed = Stream<Lines, (), Keyboard>;
type Direct = Stream<Lines, Noise>;
type Proxied = Stream<Lines, (Socks5, Noise)>;

struct Chat {
    keys: Keypair,
    options: NoiseOptions,
    role: Role,
    /// The peer that we talk to.
    peer: Option<Peer>,
}

enum Role {
    Listen(Address),
    Connect(Address),
    ConnectThrough { proxy: Address, to: Destination },
}

#[derive(Clone, Copy)]
enum Peer {
    Direct(Id<Direct>),
    Proxied(Id<Proxied>),
}

impl Service for Chat {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let keyboard = cx.stdin()?;
        let keyboard = cx.add(Stream::new(Lines::new()).role::<Keyboard>().through(keyboard))?;
        cx.background(keyboard);
        match &self.role {
            Role::Listen(address) => {
                let options = self.options.clone();
                let listener = cx.listen(address, move |_| {
                    // `arguments` has checked that these options make a responder.
                    Some(Stream::over(Lines::new(), options.responder().ok()?))
                })?;
                let (local, key) = (cx.local(listener)?, hex(self.keys.public()));
                println!("listening on {local}");
                println!("the other side: noise_chat --key FILE --connect {local} --peer {key}");
            }
            Role::Connect(address) => {
                let layer = self.options.initiator()?;
                self.peer = Some(Peer::Direct(cx.connect(address, Stream::over(Lines::new(), layer))?));
            }
            Role::ConnectThrough { proxy, to } => {
                let layer = (Socks5::new(to.clone()), self.options.initiator()?);
                self.peer = Some(Peer::Proxied(cx.connect(proxy, Stream::over(Lines::new(), layer))?));
            }
        }
        Ok(())
    }
}

impl Chat {
    fn show(&self, noise: &Noise) {
        match noise.remote_static() {
            Some(key) => println!("* talking to {}", hex(key)),
            None => println!("* talking to somebody without a key"),
        }
    }

    /// Ends the program with its only peer, unless it waits for others.
    fn parted(&mut self, cx: &mut Context<Self>, why: &Closed) {
        self.peer = None;
        if why.is_clean() {
            println!("* the peer has left");
        } else {
            eprintln!("noise_chat: {why}");
        }
        if !matches!(self.role, Role::Listen(_)) {
            cx.stop(std::time::Duration::ZERO);
        }
    }
}

impl Handle<Typed> for Chat {
    fn handle(&mut self, cx: &mut Context<Self>, _: Id<Typed>, event: Event<Lines>) -> Result {
        match (event, self.peer) {
            (Event::Received(line), Some(Peer::Direct(peer))) => _ = cx.send(peer, line),
            (Event::Received(line), Some(Peer::Proxied(peer))) => _ = cx.send(peer, line),
            (Event::Received(_), None) => println!("* nobody is there yet"),
            (Event::End, Some(Peer::Direct(peer))) => cx.close(peer),
            (Event::End, Some(Peer::Proxied(peer))) => cx.close(peer),
            _ => (),
        }
        Ok(())
    }
}

impl Handle<Direct> for Chat {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Direct>, event: Event<Lines>) -> Result {
        match event {
            Event::Open => {
                let taken = matches!(self.peer, Some(Peer::Direct(peer)) if peer != id);
                if taken {
                    return Err("somebody else is here".into());
                }
                self.peer = Some(Peer::Direct(id));
                if let Some(stream) = cx.get(id) {
                    self.show(stream.layer());
                }
            }
            Event::Received(line) => println!("{}", escaped(line)),
            Event::End | Event::Drained | Event::HungUp => (),
        }
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<Self>, id: Id<Direct>, _: Direct, why: Closed) {
        match self.peer {
            Some(Peer::Direct(peer)) if peer == id => self.parted(cx, &why),
            _ => eprintln!("noise_chat: a caller: {why}"),
        }
    }
}

impl Handle<Proxied> for Chat {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Proxied>, event: Event<Lines>) -> Result {
        match event {
            Event::Open => {
                if let Some(stream) = cx.get(id) {
                    self.show(&stream.layer().1);
                }
            }
            Event::Received(line) => println!("{}", escaped(line)),
            Event::End | Event::Drained | Event::HungUp => (),
        }
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<Self>, _: Id<Proxied>, _: Proxied, why: Closed) {
        self.parted(cx, &why);
    }
}

fn main() -> Result {
    let service = arguments().unwrap_or_else(|error| {
        eprintln!("noise_chat: {error}");
        exit(2)
    });
    reactor::run(service)?;
    Ok(())
}

fn arguments() -> Result<Chat, String> {
    let (mut key, mut listen, mut connect, mut peer, mut proxy) = (None, None, None, None, None);
    let mut args = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned());
    while let Some(arg) = args.next() {
        let slot = match arg.as_str() {
            "--help" => {
                println!("{HELP}");
                exit(0)
            }
            "--key" => &mut key,
            "--listen" => &mut listen,
            "--connect" => &mut connect,
            "--peer" => &mut peer,
            "--socks5" => &mut proxy,
            _ => return Err(format!("unexpected argument {arg:?}; --help explains")),
        };
        *slot = Some(args.next().ok_or_else(|| format!("{arg} needs a value"))?);
    }
    let keys = keys(&PathBuf::from(key.ok_or("--key is missing; --help explains")?))?;
    let text = |error: NoiseError| error.to_string();
    let mut options = NoiseOptions::new(XK).map_err(text)?.prologue("noise_chat 1").keypair(&keys);
    let role = match (listen, connect, proxy) {
        (Some(address), None, None) => Role::Listen(parse(&address)?),
        (None, Some(to), None) => Role::Connect(parse(&to)?),
        (None, Some(to), Some(proxy)) => {
            let (host, port) = to.rsplit_once(':').ok_or("--connect needs HOST:PORT")?;
            let port = port.parse().map_err(|_| format!("{port:?} is no port"))?;
            let to = Destination::name(host, port).map_err(|error| error.to_string())?;
            Role::ConnectThrough { proxy: parse(&proxy)?, to }
        }
        _ => return Err("either --listen or --connect is needed; --help explains".to_owned()),
    };
    if let Some(peer) = peer {
        options = options.remote(&unhex(&peer).ok_or("--peer needs 64 hexadecimal digits")?);
    } else if !matches!(role, Role::Listen(_)) {
        return Err("--peer is missing: the key that the peer must have".to_owned());
    }
    let made = if matches!(role, Role::Listen(_)) { options.responder() } else { options.initiator() };
    made.map_err(text)?;
    Ok(Chat { keys, options, role, peer: None })
}

fn parse(text: &str) -> Result<Address, String> {
    text.parse::<Address>().map_err(|error| error.to_string())
}

/// Returns the line with escapes in place of characters that a terminal could take for commands.
fn escaped(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    for c in line.chars() {
        if c.is_control() && c != '\t' { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

/// Reads our key, or makes one.
fn keys(path: &Path) -> Result<Keypair, String> {
    match fs::read_to_string(path) {
        Ok(text) => {
            let private = unhex(text.trim()).ok_or_else(|| format!("{} is no key", path.display()))?;
            Keypair::from_private(private).map_err(|error| error.to_string())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let keys = Keypair::generate().map_err(|error| error.to_string())?;
            write_secret(path, &format!("{}\n", hex(keys.private())))
                .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
            Ok(keys)
        }
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    }
}

/// Writes a new file that only its owner can read.
fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    io::Write::write_all(&mut options.open(path)?, text.as_bytes())
}

fn hex(key: &[u8; 32]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut key = [0; 32];
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(key)
}
