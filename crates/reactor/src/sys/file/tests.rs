//! Descriptors that are not sockets, at their limits: a shared pipe, parts of a queue, and blocked signals.

use std::{
    fs::File,
    io::{Read as _, Write as _, pipe},
    os::fd::AsFd as _,
};

use session::Shared;

use super::*;

fn queue(len: usize) -> Outgoing {
    let mut queue = Outgoing::new();
    queue.share(Shared::from(vec![7; len]));
    queue
}

#[test]
fn a_shared_pipe_takes_at_most_what_a_blocking_write_takes_at_once() {
    let medium = Medium::WRITER.shared();
    for len in [libc::PIPE_BUF - 1, libc::PIPE_BUF, libc::PIPE_BUF + 1] {
        let (mut reader, writer) = pipe().expect("a pipe");
        let written = offer(writer.as_fd(), medium, &queue(len)).expect("there is room");
        assert_eq!(written.taken, len.min(libc::PIPE_BUF), "{len}");
        assert_eq!(written.offered, written.taken, "a short write is no sign of a full pipe");
        let mut bytes = vec![0; written.taken];
        reader.read_exact(&mut bytes).expect("what was written");
    }
}

#[test]
fn a_shared_pipe_that_is_full_or_empty_does_not_block() {
    let (mut reader, mut writer) = pipe().expect("a pipe");
    let (readable, writable) = (Medium::READER.shared(), Medium::WRITER.shared());
    let error = receive(reader.as_fd(), readable, &mut [0; 8]).expect_err("nothing is there");
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    let mut taken = 0;
    let error = loop {
        match offer(writer.as_fd(), writable, &queue(libc::PIPE_BUF)) {
            Ok(written) => taken += written.taken,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    let mut bytes = vec![0; taken];
    reader.read_exact(&mut bytes).expect("what was written");
    writer.write_all(b"end").expect("there is room");
    drop(writer);
    let mut bytes = [0; 8];
    assert_eq!(receive(reader.as_fd(), readable, &mut bytes).expect("input"), 3);
    assert_eq!(receive(reader.as_fd(), readable, &mut bytes).expect("the end"), 0);
}

#[test]
fn a_pipe_takes_parts_up_to_the_limit() {
    for parts in [1, 2, SLICES_MAX - 1, SLICES_MAX, SLICES_MAX + 1] {
        let (mut reader, writer) = pipe().expect("a pipe");
        let mut queue = Outgoing::new();
        for part in 0..parts {
            queue.share(Shared::from(vec![part as u8; 600]));
        }
        let written = offer(writer.as_fd(), Medium::WRITER, &queue).expect("there is room");
        assert_eq!(written.taken, parts.min(SLICES_MAX) * 600, "{parts} parts");
        let mut bytes = vec![0; written.taken];
        reader.read_exact(&mut bytes).expect("what was written");
        assert!(bytes.chunks(600).enumerate().all(|(part, chunk)| chunk == [part as u8; 600]));
    }
}

#[test]
fn one_direction_refuses_the_other() {
    let (reader, writer) = pipe().expect("a pipe");
    let error = offer(reader.as_fd(), Medium::READER, &queue(1)).err().expect("it takes no output");
    assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    let error = receive(writer.as_fd(), Medium::WRITER, &mut [0; 8]).expect_err("it has no input");
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    drop(reader);
    assert_eq!(receive(writer.as_fd(), Medium::WRITER, &mut [0; 8]).expect("the reader left"), 0);
}

#[test]
fn a_medium_is_what_the_descriptor_is() {
    let (reader, writer) = pipe().expect("a pipe");
    let (socket, _other) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let of = |descriptor: BorrowedFd<'_>| medium(descriptor).expect("it is open");
    assert_eq!(of(reader.as_fd()), Some(Medium::READER));
    assert_eq!(of(writer.as_fd()), Some(Medium::WRITER));
    assert_eq!(of(socket.as_fd()), Some(Medium::SOCKET));
    assert_eq!(of(File::open("/dev/null").expect("it opens").as_fd()), Some(Medium::READER));
    assert_eq!(of(File::open("/").expect("it opens").as_fd()), None);
    assert_eq!(of(File::open("/proc/self/exe").expect("it opens").as_fd()), None);
}

/// Sends a signal to this thread.
fn raise(signal: libc::c_int) {
    // SAFETY: the thread is this one, and the signal's number is one of the platform's.
    unsafe { libc::pthread_kill(libc::pthread_self(), signal) };
}

#[test]
fn what_an_operation_raises_is_taken_and_what_was_pending_stays() {
    // If SIGUSR2 were delivered, it would end this process.
    holding(&[libc::SIGUSR2], || raise(libc::SIGUSR2));
    assert!(!is_pending(libc::SIGUSR2));
    holding(&[libc::SIGUSR2], || {
        raise(libc::SIGUSR2);
        // The inner call must leave the signal alone, because the outer one had blocked it before.
        holding(&[libc::SIGUSR2], || ());
        assert!(is_pending(libc::SIGUSR2));
    });
    assert!(!is_pending(libc::SIGUSR2));
}

#[test]
fn a_broken_pipe_is_an_error_by_either_way_of_writing() {
    let (reader, writer) = pipe().expect("a pipe");
    drop(reader);
    let slices = [IoSlice::new(b"x")];
    let held = holding(&[libc::SIGPIPE], || write_vectored(writer.as_fd(), &slices));
    assert_eq!(held.expect_err("nobody reads").kind(), io::ErrorKind::BrokenPipe);
    let plain = write_without_signal(writer.as_fd(), &slices);
    assert_eq!(plain.expect_err("nobody reads").kind(), io::ErrorKind::BrokenPipe);
}
