//! Effects on the whole process: no free descriptors, reused numbers, descriptors closed behind the engine's
//! back, and SIGPIPE. Runs one test at a time, in its own process.
#![cfg(unix)]
#![allow(unsafe_code)]

mod driver;

use std::{
    fs::File,
    io::{self, ErrorKind, Read as _, Write as _},
    net::TcpStream,
    os::fd::{AsRawFd as _, BorrowedFd, IntoRawFd as _, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
};

use driver::{Driver, Seen, queue};
use reactor::{
    Address, Key, ListenOptions,
    engine::{Ending, Interest, Role, Source, Transport},
};

static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn set_limit(descriptors: libc::rlim_t) -> libc::rlim_t {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live struct.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) }, 0);
    let before = std::mem::replace(&mut limit.rlim_cur, descriptors);
    // SAFETY: the pointer is to a live struct.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
    before
}

fn without_descriptors_a_listener_rests_and_turns_away_whom_it_is_told_to(mut driver: Driver) {
    let address: Address = "127.0.0.1:0".parse().expect("an address");
    let listening = driver.engine.listen(&address, &ListenOptions::default()).expect("a port");
    let listener = driver.attach(listening, Role::Listener);
    let address = driver.engine.local(listener).expect("bound").ip().expect("an IP address");
    let mut first = TcpStream::connect(address).expect("it listens");
    let second = TcpStream::connect(address).expect("it listens");
    let before = set_limit(second.as_raw_fd() as libc::rlim_t + 1);
    let filled = std::iter::from_fn(|| File::open("/dev/null").ok()).collect::<Vec<_>>();
    driver.until(|_, of, seen| {
        let Seen::NotAccepted(error) = &seen else { panic!("{seen:?}") };
        assert_eq!((of, error.raw_os_error()), (listener, Some(libc::EMFILE)));
        true
    });
    driver.assert_idle();
    first.set_nonblocking(true).expect("a socket");
    let waits = first.read(&mut [0; 8]).expect_err("nobody ends it");
    assert_eq!(waits.kind(), ErrorKind::WouldBlock, "both wait in the backlog");
    first.set_nonblocking(false).expect("a socket");
    assert!(driver.engine.turn_away(listener), "there is a descriptor in reserve");
    assert_eq!(first.read(&mut [0; 8]).expect("an end"), 0, "the first was turned away");
    driver.engine.reading(listener, true);
    driver.until(|_, _, seen| matches!(seen, Seen::NotAccepted(_)));
    drop(filled);
    set_limit(before);
    driver.assert_idle();
    let _third = TcpStream::connect(address).expect("it listens");
    driver.engine.reading(listener, true);
    driver.until(|_, _, seen| matches!(seen, Seen::Accepted(..)));
}

fn a_descriptor_used_again_in_the_same_batch_gets_no_stale_event(mut driver: Driver) {
    let (first, mut first_peer) = driver.unix();
    let (second, mut second_peer) = driver.unix();
    first_peer.write_all(b"x").expect("there is room");
    second_peer.write_all(b"x").expect("there is room");
    let mut successor = None;
    let mut kept = Vec::new();
    driver.until(|driver, key, _| {
        let other = if key == first { second } else { first };
        driver.engine.close(other, Ending::Orderly);
        // The kernel reuses the lowest free number, which is the one just closed.
        let (ours, theirs) = driver::unix_pair();
        let key = Key::new(other.slot() as u32, other.generation() + 1, other.runtime());
        driver.engine.attach(key, ours, Role::Stream).expect("the slot is free");
        kept.push(theirs);
        successor = Some(key);
        true
    });
    driver.assert_idle();
    let successor = successor.expect("there was an event");
    kept[0].write_all(b"mine").expect("there is room");
    driver.until(|_, of, seen| of == successor && matches!(seen, Seen::Got(bytes) if bytes == b"mine"));
}

fn a_descriptor_closed_behind_our_back_does_no_harm(mut driver: Driver) {
    let (reader, _writer) = io::pipe().expect("a pipe");
    let number = OwnedFd::from(reader).into_raw_fd();
    // SAFETY: this is the misuse under test. Only the engine uses the number.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let key = driver.key();
    driver.engine.watch(key, Source::of(&borrowed), Some(Interest::Read)).expect("watched");
    // SAFETY: this is the misuse under test. The descriptor was leaked above, so nothing closes it twice.
    unsafe { libc::close(number) };
    let seen = driver.now();
    match driver.engine.name() {
        "poll" => {
            assert!(matches!(seen[..], [(of, Seen::Ready(ready))] if of == key && ready.error), "{seen:?}")
        }
        _ => assert!(seen.is_empty(), "epoll forgets what is closed: {seen:?}"),
    }
    driver.assert_idle();
    let fresh = driver.key();
    let error = driver.engine.watch(fresh, Source::of(&borrowed), Some(Interest::Read));
    assert_eq!(error.expect_err("it is closed").raw_os_error(), Some(libc::EBADF));
    driver.engine.unwatch(key, Source::of(&borrowed));
    driver.assert_idle();
    let (reader, mut writer) = io::pipe().expect("a pipe");
    assert_eq!(reader.as_raw_fd(), number, "the number is used again");
    let again = driver.key();
    driver.engine.watch(again, Source::of(&reader), Some(Interest::Read)).expect("watched");
    writer.write_all(b"x").expect("there is room");
    driver.until(|_, of, seen| of == again && matches!(seen, Seen::Ready(ready) if ready.readable));
    driver.engine.unwatch(again, Source::of(&reader));
}

fn a_broken_pipe_is_an_error_even_where_the_signal_would_kill(mut driver: Driver) {
    // SAFETY: the default disposition is valid for any signal.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    let error = driver.engine.write(Source::of(&writer), &queue(b"x")).expect_err("nobody reads");
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    let (key, theirs) = driver.unix();
    drop(theirs);
    let sent = driver.engine.send(key, queue(b"x")).expect("at once");
    assert_eq!(sent.result.expect_err("nobody reads").kind(), ErrorKind::BrokenPipe);
    // A pipe can be a transport, too.
    let (reader, writer) = io::pipe().expect("a pipe");
    let key = driver.key();
    driver.engine.attach(key, Transport::new(writer), Role::Stream).expect("attached");
    drop(reader);
    let sent = driver.engine.send(key, queue(b"x")).expect("at once");
    assert_eq!(sent.result.expect_err("nobody reads").kind(), ErrorKind::BrokenPipe);
    // SAFETY: as above. Rust's runtime sets the same disposition at the start of a process.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

for_each_engine!(
    before: alone;
    without_descriptors_a_listener_rests_and_turns_away_whom_it_is_told_to,
    a_descriptor_used_again_in_the_same_batch_gets_no_stale_event,
    a_descriptor_closed_behind_our_back_does_no_harm,
    a_broken_pipe_is_an_error_even_where_the_signal_would_kill,
);
