//! `serve_files` behaves as its header describes, with plain sockets, and with curl if it is installed.
#![cfg(unix)]

mod foreign;
mod programs;
mod scratch;
mod server;

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    os::unix::{fs::symlink, net::UnixListener},
    process::Command,
};

use programs::assert_refused;
use rustix::process::{Pid, Signal, kill_process};
use scratch::Scratch;
use server::Server;

/// A served directory, next to a file that must not be served.
struct Site {
    dir: Scratch,
    large: Vec<u8>,
    server: Server,
}

impl Site {
    fn new() -> Site {
        let dir = Scratch::new();
        let large: Vec<u8> = (0..3_000_000).map(|at| (at / 7 % 251) as u8).collect();
        fs::create_dir_all(dir.path("www/sub")).expect("made");
        for (name, content) in [
            ("secret", &b"not for you"[..]),
            ("www/index.html", b"<p>front"),
            ("www/sub/index.html", b"<p>sub"),
            ("www/a b.txt", b"0123456789"),
            ("www/empty.css", b""),
            ("www/large", &large),
        ] {
            dir.file(name, content);
        }
        symlink("../secret", dir.path("www/out")).expect("made");
        symlink(dir.path("secret"), dir.path("www/far")).expect("made");
        symlink("a b.txt", dir.path("www/near.txt")).expect("made");
        symlink("round", dir.path("www/round")).expect("made");
        let www = dir.path("www");
        let server = Server::start("serve_files", &[www.to_str().expect("text"), "127.0.0.1:0"]);
        Site { dir, large, server }
    }

    /// Sends bytes, ends its side, and reads the whole answer.
    fn raw(&self, request: &[u8]) -> Vec<u8> {
        let mut client = self.server.client();
        client.write_all(request).expect("all is taken");
        client.shutdown(Shutdown::Write).expect("the end is told");
        rest_of(client)
    }

    fn get(&self, path: &str, fields: &str) -> Answer {
        Answer::of(self.raw(format!("GET {path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n").as_bytes()))
    }
}

fn rest_of(mut client: TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    client.read_to_end(&mut all).expect("an orderly end");
    all
}

struct Answer {
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn of(bytes: Vec<u8>) -> Answer {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head") + 4;
        let head = String::from_utf8(bytes[..end].to_vec()).expect("text");
        Answer { head, body: bytes[end..].to_vec() }
    }

    fn status(&self) -> u16 {
        self.head[9..12].parse().expect("a number")
    }

    fn field(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

#[test]
fn curl_gets_files_ranges_and_a_connection_for_several() {
    let Some(curl) = foreign::command("curl") else { return };
    let site = Site::new();
    let curl = |args: &[&str]| {
        let output = Command::new(curl.get_program())
            .args(["-s", "--max-time", "30"])
            .args(args)
            .output()
            .expect("it runs");
        assert!(output.status.success(), "{args:?}: {:?}", output.status);
        output.stdout
    };
    let url = |path: &str| format!("http://{}/{path}", site.server.address);
    assert_eq!(curl(&[&url("a%20b.txt")]), b"0123456789");
    assert!(curl(&[&url("large")]) == site.large);
    assert_eq!(curl(&["-r", "2-4", &url("near.txt")]), b"234");
    assert!(curl(&["-r", "-1000000", &url("large")]) == site.large[2_000_000..]);
    assert_eq!(curl(&["-L", &url("sub")]), b"<p>sub");
    assert_eq!(curl(&["--compressed", "-H", "Expect:", &url("")]), b"<p>front");
    let (one, two) = (url("large"), url("a%20b.txt"));
    let connects = curl(&["-o", "/dev/null", "-o", "/dev/null", "-w", "%{num_connects} ", &one, &two]);
    assert_eq!(connects, b"1 0 ", "the second came over the connection of the first");
    let tag = site.get("/large", "").field("ETag").expect("it has one").to_owned();
    let condition = format!("If-None-Match: {tag}");
    assert_eq!(curl(&["-o", "/dev/null", "-w", "%{http_code}", "-H", &condition, &url("large")]), b"304");
    let head = curl(&["-I", &url("large")]);
    assert!(String::from_utf8_lossy(&head).contains("Content-Length: 3000000\r\n"));
}

#[test]
fn answers_say_what_they_are() {
    let site = Site::new();
    let text = site.get("/a%20b.txt", "");
    assert_eq!((text.status(), text.body.as_slice()), (200, &b"0123456789"[..]));
    assert_eq!(text.field("Content-Type"), Some("text/plain; charset=utf-8"));
    assert_eq!(text.field("Content-Length"), Some("10"));
    let empty = site.get("/empty.css?version=3", "");
    assert_eq!((empty.status(), empty.field("Content-Length")), (200, Some("0")));
    let sub = site.get("/sub", "");
    assert_eq!((sub.status(), sub.field("Location")), (301, Some("/sub/")));
    let head = Answer::of(site.raw(b"HEAD /large HTTP/1.1\r\nHost: x\r\n\r\n"));
    assert_eq!((head.status(), head.field("Content-Length"), head.body.len()), (200, Some("3000000"), 0));
    let old = Answer::of(site.raw(b"GET / HTTP/1.0\r\n\r\n"));
    assert_eq!((old.field("Connection"), old.body.as_slice()), (Some("close"), &b"<p>front"[..]));
}

#[test]
fn one_range_is_answered_in_part_and_what_is_none_in_whole() {
    let site = Site::new();
    let part = |range: &str| {
        let answer = site.get("/near.txt", &format!("Range: {range}\r\n"));
        let text = String::from_utf8(answer.body.clone()).expect("text");
        (answer.status(), answer.field("Content-Range").unwrap_or_default().to_owned(), text)
    };
    let says = |status: u16, range: &str, body: &str| (status, range.to_owned(), body.to_owned());
    assert_eq!(part("bytes=0-0"), says(206, "bytes 0-0/10", "0"));
    assert_eq!(part("bytes=3-"), says(206, "bytes 3-9/10", "3456789"));
    assert_eq!(part("bytes=8-99"), says(206, "bytes 8-9/10", "89"));
    assert_eq!(part("bytes=-3"), says(206, "bytes 7-9/10", "789"));
    assert_eq!(part("bytes=-99"), says(206, "bytes 0-9/10", "0123456789"));
    for outside in ["bytes=10-", "bytes=10-11", "bytes=-0"] {
        assert_eq!(part(outside), says(416, "bytes */10", ""));
    }
    for none in ["bytes=4-2", "bytes=0-1,3-4", "lines=1-2", "bytes=+1-2", "bytes=a-b"] {
        assert_eq!(part(none), says(200, "", "0123456789"), "{none}");
    }
    let tag = site.get("/near.txt", "").field("ETag").expect("it has one").to_owned();
    let condition =
        |which: &str| site.get("/near.txt", &format!("Range: bytes=0-0\r\nIf-Range: {which}\r\n")).status();
    assert_eq!((condition(&tag), condition("\"another\"")), (206, 200));
}

#[test]
fn what_is_unchanged_is_not_sent_again() {
    let site = Site::new();
    let answer = site.get("/near.txt", "");
    let tag = answer.field("ETag").expect("it has one").to_owned();
    let date = answer.field("Last-Modified").expect("it has one").to_owned();
    let status = |fields: String| site.get("/near.txt", &fields).status();
    assert_eq!(status(format!("If-None-Match: \"x\", W/{tag}\r\n")), 304);
    assert_eq!(status("If-None-Match: *\r\n".to_owned()), 304);
    assert_eq!(status("If-None-Match: \"x\"\r\n".to_owned()), 200);
    assert_eq!(status(format!("If-Modified-Since: {date}\r\n")), 304);
    assert_eq!(status("If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n".to_owned()), 200);
    assert_eq!(status("If-Modified-Since: yesterday\r\n".to_owned()), 200);
    assert_eq!(
        status(format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {date}\r\n")),
        200,
        "a tag says more"
    );
    site.dir.file("www/a b.txt", b"changed now");
    assert_eq!(status(format!("If-None-Match: {tag}\r\n")), 200);
}

#[test]
fn nothing_outside_of_the_directory_is_served() {
    let site = Site::new();
    for path in
        ["/../secret", "/sub/../../secret", "/%2e%2e/secret", "/..%2fsecret", "/out", "/far", "//secret"]
    {
        let answer = site.get(path, "");
        assert_eq!(answer.status(), 403, "{path}");
        assert!(!answer.body.windows(3).any(|three| three == b"you"), "{path}");
    }
    assert_eq!(site.get("/round", "").status(), 403, "links in a circle");
    assert_eq!(site.get("/near.txt", "").status(), 200, "a link within");
    assert_eq!(site.get("/none", "").status(), 404);
    assert_eq!(site.get("/near.txt/more", "").status(), 404);
}

#[test]
fn a_pipe_in_the_directory_hangs_nobody() {
    let site = Site::new();
    let path = site.dir.path("www/pipe");
    assert!(Command::new("mkfifo").arg(&path).status().is_ok_and(|status| status.success()), "POSIX has it");
    for _ in 0..10 {
        assert_eq!(site.get("/pipe", "").status(), 403);
    }
    assert_eq!(site.get("/near.txt", "").status(), 200);
}

#[test]
fn bad_requests_are_told_so_and_closed() {
    let site = Site::new();
    for (status, request) in [
        (400, "GET / HTTP/1.1\r\n\r\n".to_owned()),
        (400, "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n".to_owned()),
        (400, "nonsense\r\n\r\n".to_owned()),
        (400, "GET none HTTP/1.1\r\nHost: x\r\n\r\n".to_owned()),
        (400, "GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n".to_owned()),
        (400, "GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned()),
        (400, "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello".to_owned()),
        (400, "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned()),
        (405, "DELETE / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned()),
        (431, format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(64))),
    ] {
        let answer = Answer::of(site.raw(request.as_bytes()));
        assert_eq!(answer.status(), status, "{request:?}");
        assert_eq!(answer.field("Connection"), Some("close"), "{request:?}");
    }
}

#[test]
fn a_head_of_8_kib_fits_and_one_byte_more_does_not() {
    let site = Site::new();
    let request = |len: usize| {
        let start = "GET /near.txt HTTP/1.1\r\nHost: x\r\nX: ";
        format!("{start}{}\r\n\r\n", "y".repeat(len - start.len() - 4))
    };
    for (len, status) in [(8191, 200), (8192, 200), (8193, 431), (20_000, 431)] {
        assert_eq!(Answer::of(site.raw(request(len).as_bytes())).status(), status, "{len} bytes");
    }
}

#[test]
fn requests_that_come_at_once_are_answered_in_order() {
    let site = Site::new();
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    let all = [request("/large"), request("/none"), request("/near.txt"), request("/large")].concat();
    let mut rest = site.raw(all.as_bytes());
    for (status, body) in
        [(200, &site.large[..]), (404, b"404 Not Found\n"), (200, b"0123456789"), (200, &site.large)]
    {
        let answer = Answer::of(rest);
        assert_eq!(answer.status(), status);
        let len: usize = answer.field("Content-Length").and_then(|len| len.parse().ok()).expect("a length");
        assert!(answer.body[..len] == *body);
        rest = answer.body[len..].to_vec();
    }
    assert_eq!(rest, b"");
    // More input than is kept while a request is being answered. The server reads the rest later.
    let many = request("/near.txt").repeat(2_000);
    let answers = site.raw(many.as_bytes());
    assert_eq!(answers.windows(10).filter(|ten| ten == b"0123456789").count(), 2_000);
}

#[test]
fn a_proxys_form_of_a_request_is_accepted_and_a_malformed_host_is_not() {
    let site = Site::new();
    let ask = |target: &str, host: &str| {
        Answer::of(site.raw(format!("GET {target} HTTP/1.1\r\nHost:{host}\r\n\r\n").as_bytes()))
    };
    for (target, host) in [
        ("/near.txt", " x"),
        ("http://x/near.txt", " x"),
        ("HTTP://x:80/near.txt?a=b", " somebody-else"),
        ("http://[::1]:80/near.txt", ""),
    ] {
        let answer = ask(target, host);
        assert_eq!((answer.status(), answer.body.as_slice()), (200, &b"0123456789"[..]), "{target}");
    }
    assert_eq!(ask("http://x", " x").body, b"<p>front");
    assert_eq!(ask("http://x/sub", " x").field("Location"), Some("/sub/"));
    for (target, host) in [
        ("/near.txt", " x y"),
        ("/near.txt", " x:y"),
        ("/near.txt", " [::1"),
        ("/near.txt", " me@x"),
        ("http:///near.txt", " x"),
        ("http://me@x/near.txt", " x"),
        ("ftp://x/near.txt", " x"),
        ("near.txt", " x"),
        ("*", " x"),
    ] {
        assert_eq!(ask(target, host).status(), 400, "{target} {host}");
    }
}

#[test]
fn a_connection_that_is_to_close_closes_whatever_else_is_said() {
    let site = Site::new();
    for fields in [
        "Connection: close\r\nConnection: keep-alive\r\n",
        "Connection: keep-alive\r\nConnection: close\r\n",
        "Connection: close, keep-alive\r\n",
    ] {
        let mut client = site.server.client();
        client.write_all(format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n").as_bytes()).expect("taken");
        // The client does not end its side, so it must be the server that closes.
        assert_eq!(Answer::of(rest_of(client)).field("Connection"), Some("close"), "{fields}");
    }
}

#[test]
fn a_socket_is_not_served() {
    let site = Site::new();
    let _socket = UnixListener::bind(site.dir.path("www/socket")).expect("a name");
    assert_eq!(site.get("/socket", "").status(), 403);
}

#[test]
fn what_is_no_head_is_refused_before_its_end_and_what_is_odd_is_read() {
    let site = Site::new();
    let mut client = site.server.client();
    client.write_all(b"\x16\x03\x01\x02").expect("taken");
    assert_eq!(Answer::of(rest_of(client)).status(), 400, "at once, though no line has ended");
    for head in
        ["GET  / HTTP/1.1", "GET / HTTP/1.1 ", "GET / HTTP/2.0", "GET /", "G(T / HTTP/1.1", " GET / HTTP/1.1"]
    {
        assert_eq!(
            Answer::of(site.raw(format!("{head}\r\nHost: x\r\n\r\n").as_bytes())).status(),
            400,
            "{head}"
        );
    }
    for field in ["Host : x", " folded: x", "no colon", ": x"] {
        assert_eq!(site.get("/", &format!("{field}\r\n")).status(), 400, "{field}");
    }
    // An empty line before the head, and lines without a carriage return.
    assert_eq!(Answer::of(site.raw(b"\r\nGET / HTTP/1.1\nHost:x\n\n")).body, b"<p>front");
    let many = |count: usize| site.get("/", &"X: y\r\n".repeat(count)).status();
    assert_eq!((many(62), many(63), many(64)), (200, 200, 431), "with `Host` that is 64 at most");
}

#[test]
fn a_stop_lets_answers_finish_and_takes_no_more_requests() {
    let mut site = Site::new();
    let path = site.dir.path("www/sparse");
    let sparse = fs::File::create(&path).expect("made");
    sparse.set_len(64 << 20).expect("sparse");
    let idle = site.server.client();
    let mut client = site.server.client();
    client.write_all(b"GET /sparse HTTP/1.1\r\nHost: x\r\n\r\n").expect("all is taken");
    let mut first = [0; 16];
    client.read_exact(&mut first).expect("the answer has begun");
    kill_process(Pid::from_child(&site.server.child), Signal::TERM).expect("it runs");
    assert_eq!(rest_of(idle), b"", "there is nothing to wait for");
    // This answer began before the stop and arrives whole. The request after it is not answered.
    client.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").expect("all is taken");
    let answer = Answer::of([&first[..], &rest_of(client)].concat());
    assert_eq!(answer.body.len(), 64 << 20);
    assert!(site.server.child.wait().expect("it ends").success());
}

#[test]
fn a_file_that_is_cut_off_while_it_is_served_ends_that_answer_only() {
    let site = Site::new();
    let path = site.dir.path("www/sparse");
    let file = fs::File::create(&path).expect("made");
    file.set_len(256 << 20).expect("sparse");
    let mut client = site.server.client();
    client.write_all(b"GET /sparse HTTP/1.1\r\nHost: x\r\n\r\n").expect("taken");
    let mut some = [0; 4096];
    client.read_exact(&mut some).expect("it begins");
    file.set_len(1 << 20).expect("cut");
    let answer = rest_of(client);
    assert!(answer.len() < 256 << 20, "a short body, and the end of the connection");
    assert_eq!(site.get("/near.txt", "").status(), 200, "the others go on");
}

#[test]
fn bad_input_is_one_line_and_exit_code_2() {
    let dir = Scratch::new();
    let file = dir.file("file", b"");
    let file = file.to_str().expect("text");
    assert_refused("serve_files", &[], "usage");
    assert_refused("serve_files", &["/nowhere"], "/nowhere");
    assert_refused("serve_files", &[file], "not a directory");
    assert_refused("serve_files", &["/tmp", "nowhere"], "`nowhere` is not an address");
    assert_refused("serve_files", &["/tmp", "127.0.0.1:0", "more"], "usage");
}
