//! `noise_chat` behaves as its header describes.
#![cfg(unix)]

#[path = "../../reactor/tests/programs/mod.rs"]
mod programs;

use std::{
    fs,
    io::{self, BufRead, BufReader, PipeReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, Stdio},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread,
};

use programs::{assert_refused, example};

/// A folder for keys, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("reactor-noise-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a new folder");
        Folder(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("text").to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// One side of a chat, killed at the end.
struct Side {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<PipeReader>,
}

impl Side {
    fn start(name: &str, args: &[&str]) -> Side {
        let (reader, writer) = io::pipe().expect("a pipe");
        let mut child = example(name)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(writer.try_clone().expect("a descriptor"))
            .stderr(writer)
            .spawn()
            .expect("it starts");
        Side { input: child.stdin.take(), output: BufReader::new(reader), child }
    }

    fn say(&mut self, text: &str) {
        self.input.as_mut().expect("it is open").write_all(text.as_bytes()).expect("it reads");
    }

    /// Returns the next line.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("text");
        line.trim_end().to_owned()
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // Both fail only if it has exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a side that listens, and returns it with its address and its key.
fn listener(folder: &Folder) -> (Side, String, String) {
    listener_with(folder, &[])
}

/// Starts a side that listens, with these arguments more.
fn listener_with(folder: &Folder, more: &[&str]) -> (Side, String, String) {
    let key_file = folder.path("a");
    let args = [&["--key", &key_file, "--listen", "127.0.0.1:0"], more].concat();
    let mut side = Side::start("noise_chat", &args);
    let address = side.line().strip_prefix("listening on ").expect("its address").to_owned();
    let key = side.line().rsplit(' ').next().expect("its key").to_owned();
    (side, address, key)
}

#[test]
fn two_sides_talk_and_know_each_other() {
    let folder = Folder::new();
    let (mut a, address, key) = listener(&folder);
    let mut b =
        Side::start("noise_chat", &["--key", &folder.path("b"), "--connect", &address, "--peer", &key]);
    assert_eq!(b.line(), format!("* talking to {key}"));
    assert!(a.line().starts_with("* talking to "));
    b.say("hello\n");
    assert_eq!(a.line(), "hello");
    a.say("and hello to you\n");
    assert_eq!(b.line(), "and hello to you");
    drop(b.input.take());
    assert_eq!(a.line(), "* the peer has left");
    assert!(b.child.wait().expect("it is ours").success());
}

#[test]
fn a_peer_with_another_key_is_refused() {
    let folder = Folder::new();
    let (mut a, address, _) = listener(&folder);
    let other = "00".repeat(31) + "09";
    let mut b =
        Side::start("noise_chat", &["--key", &folder.path("b"), "--connect", &address, "--peer", &other]);
    let complaint = a.line();
    assert!(complaint.contains("the peer's handshake message is wrong"), "{complaint}");
    assert!(b.line().starts_with("noise_chat: "));
}

#[test]
fn a_listener_talks_only_to_the_required_key() {
    let folder = Folder::new();
    // A listener makes the key file of the later caller, and prints the key.
    let wanted = {
        let mut made =
            Side::start("noise_chat", &["--key", &folder.path("wanted"), "--listen", "127.0.0.1:0"]);
        made.line();
        made.line().rsplit(' ').next().expect("its key").to_owned()
    };
    let (mut a, address, key) = listener_with(&folder, &["--peer", &wanted]);
    let call = |key_file: &str| {
        Side::start("noise_chat", &["--key", &folder.path(key_file), "--connect", &address, "--peer", &key])
    };
    let mut stranger = call("other");
    // The stranger has finished its side of the handshake, and knows nothing of ours.
    assert_eq!(stranger.line(), format!("* talking to {key}"));
    let complaint = a.line();
    assert!(complaint.contains("the peer has another key than it must have"), "{complaint}");
    assert!(stranger.line().starts_with("noise_chat: "));
    assert!(stranger.child.wait().is_ok());

    let mut friend = call("wanted");
    assert_eq!(friend.line(), format!("* talking to {key}"));
    assert_eq!(a.line(), format!("* talking to {wanted}"));
    friend.say("it is me\n");
    assert_eq!(a.line(), "it is me");
}

#[test]
fn the_peer_cannot_command_the_terminal() {
    let folder = Folder::new();
    let (mut a, address, key) = listener(&folder);
    let mut b =
        Side::start("noise_chat", &["--key", &folder.path("b"), "--connect", &address, "--peer", &key]);
    b.line();
    a.line();
    b.say("\u{1b}]0;owned\u{7}\u{9b}2J\r* the peer has left\tcaf\u{e9}\n");
    assert_eq!(a.line(), r"\u{1b}]0;owned\u{7}\u{9b}2J\r* the peer has left".to_owned() + "\tcaf\u{e9}");
}

#[test]
fn the_key_file_is_private_and_lasts() {
    use std::os::unix::fs::PermissionsExt;

    let folder = Folder::new();
    let (first, _, key) = listener(&folder);
    let mode = fs::metadata(folder.path("a")).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(first);
    assert_eq!(listener(&folder).2, key);
}

#[test]
fn a_proxy_is_between_them() {
    let here = std::env::current_exe().expect("a test knows its own path");
    let folder = here.parent().and_then(|deps| deps.parent()).expect("target/debug/deps");
    if !folder.join("examples/socks5").exists() {
        assert!(std::env::var_os("TESTS_SKIP_NOTHING").is_none(), "the example socks5 was not built");
        let test = thread::current().name().unwrap_or_default().to_owned();
        // One write, which the test harness does not hide.
        let line = format!("SKIPPED: {test}: the example socks5 was not built\n");
        let _ = io::stderr().write_all(line.as_bytes());
        return;
    }
    let folder = Folder::new();
    let mut proxy = Side::start("socks5", &["127.0.0.1:0"]);
    let proxy_address = proxy.line().strip_prefix("listening on ").expect("its address").to_owned();
    let (mut a, address, key) = listener(&folder);
    let by_name = address.replace("127.0.0.1", "localhost");
    let key_file = folder.path("b");
    let args = ["--key", &key_file, "--connect", &by_name, "--peer", &key, "--socks5", &proxy_address];
    let mut b = Side::start("noise_chat", &args);
    assert_eq!(b.line(), format!("* talking to {key}"));
    b.say("through the proxy\n");
    a.line();
    assert_eq!(a.line(), "through the proxy");
}

#[test]
fn bad_arguments_are_refused() {
    let folder = Folder::new();
    let (key, zero) = (folder.path("k"), "0".repeat(63));
    assert_refused("noise_chat", &[], "--key is missing");
    assert_refused("noise_chat", &["--key", &key], "either --listen or --connect");
    assert_refused("noise_chat", &["--key", &key, "--connect", "127.0.0.1:9"], "--peer is missing");
    let short = ["--key", &key, "--connect", "127.0.0.1:9", "--peer", &zero];
    assert_refused("noise_chat", &short, "64 hexadecimal digits");
    let listens = ["--key", &key, "--listen", "127.0.0.1:0", "--peer", &zero];
    assert_refused("noise_chat", &listens, "64 hexadecimal digits");
    assert_refused("noise_chat", &["--key", &key, "--listen", "nowhere"], "nowhere");
    assert_refused("noise_chat", &["--more"], "unexpected argument");
    fs::write(&key, "hello").expect("written");
    assert_refused("noise_chat", &["--key", &key, "--listen", "127.0.0.1:0"], "is no key");
    let help = programs::output("noise_chat", &["--help"]);
    assert!(help.status.success() && help.stdout.starts_with(b"Two people chat"));
}
