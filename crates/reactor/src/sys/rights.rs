//! Descriptors over Unix sockets, and the credentials of the peer: sendmsg(2) and recvmsg(2) with SCM_RIGHTS.
#![allow(unsafe_code)]

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
    ptr,
};

use libc::{c_int, c_uint, cmsghdr, msghdr};

use crate::engine::{Delivery, Descriptor, Source, virtual_one};

/// Sends bytes, with descriptors attached to the first byte. The receiver gets copies. Once the system has
/// taken a byte, closes the originals.
///
/// # Errors
/// As sendmsg(2). `WouldBlock` if there is no room. A broken pipe is an error, never a signal. `InvalidInput`
/// for more than [`DESCRIPTORS_MAX`] descriptors, which is Linux' limit. `Unsupported` in a virtual world.
pub(crate) fn pass(
    to: Source<'_>,
    slices: &[IoSlice<'_>],
    descriptors: &mut Vec<Descriptor>,
) -> io::Result<usize> {
    let taken = send(to, slices, descriptors)?;
    if taken > 0 {
        descriptors.clear();
    }
    Ok(taken)
}

fn send(to: Source<'_>, slices: &[IoSlice<'_>], descriptors: &[Descriptor]) -> io::Result<usize> {
    let to = to.descriptor().ok_or_else(virtual_one)?;
    if descriptors.len() > DESCRIPTORS_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut control = Control::EMPTY;
    let mut header = empty_header();
    // `IoSlice` is documented to have the layout of iovec. The system does not write to it.
    header.msg_iov = slices.as_ptr().cast_mut().cast();
    header.msg_iovlen = slices.len() as _;
    if !descriptors.is_empty() {
        control.put(&mut header, descriptors)?;
    }
    super::again_if_interrupted(|| {
        // SAFETY: the header points to the slices and to `control`, both live, with their true lengths.
        let count = unsafe { libc::sendmsg(to.as_raw_fd(), &header, NO_SIGNAL | libc::MSG_DONTWAIT) };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    })
}

/// Receives bytes, and the descriptors that came with them.
///
/// # Errors
/// As recvmsg(2). `WouldBlock` if there is nothing to receive.
pub(crate) fn receive(from: Source<'_>, into: &mut [u8]) -> io::Result<Delivery> {
    let from = from.descriptor().ok_or_else(virtual_one)?;
    let mut control = Control::EMPTY;
    let mut slice = IoSliceMut::new(into);
    let mut header = empty_header();
    // `IoSliceMut` is documented to have the layout of iovec.
    header.msg_iov = ptr::from_mut(&mut slice).cast();
    header.msg_iovlen = 1;
    let bytes = super::again_if_interrupted(|| {
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = size_of::<Control>() as _;
        // SAFETY: the header points to the slice and to `control`, both live and exclusively borrowed, with
        // their true lengths.
        let count =
            unsafe { libc::recvmsg(from.as_raw_fd(), &mut header, CLOSE_ON_EXEC | libc::MSG_DONTWAIT) };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    })?;
    let descriptors = taken(&header);
    if CLOSE_ON_EXEC == 0 {
        descriptors.iter().try_for_each(close_on_exec)?;
    }
    let descriptors = descriptors.into_iter().map(Descriptor::from).collect();
    let has = |flag| header.msg_flags & flag != 0;
    Ok(Delivery { bytes, descriptors, is_cut: has(libc::MSG_CTRUNC), truncated: has(libc::MSG_TRUNC) })
}

/// Makes execve(2) close the descriptor.
pub(crate) fn close_on_exec(descriptor: &OwnedFd) -> io::Result<()> {
    // SAFETY: fcntl with F_SETFD takes no pointer.
    match unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A buffer for control messages with the required alignment.
struct Control([u64; CONTROL_WORDS]);

impl Control {
    const EMPTY: Control = Control([0; CONTROL_WORDS]);

    /// Writes one message that passes these descriptors.
    ///
    /// # Errors
    /// A descriptor belongs to a virtual world. Then nothing must be sent.
    fn put(&mut self, header: &mut msghdr, descriptors: &[Descriptor]) -> io::Result<()> {
        let bytes = (descriptors.len() * size_of::<RawFd>()) as c_uint;
        header.msg_control = self.0.as_mut_ptr().cast();
        // SAFETY: the macro only computes a length.
        header.msg_controllen = unsafe { libc::CMSG_SPACE(bytes) } as _;
        // SAFETY: the header names a live buffer of the length set above, which is room for one message.
        let first: *mut cmsghdr = unsafe { libc::CMSG_FIRSTHDR(header) };
        // SAFETY: `first` is the start of that buffer, aligned and zeroed.
        let message = unsafe { &mut *first };
        message.cmsg_level = libc::SOL_SOCKET;
        message.cmsg_type = libc::SCM_RIGHTS;
        // SAFETY: the macro only computes a length.
        message.cmsg_len = unsafe { libc::CMSG_LEN(bytes) } as _;
        // SAFETY: the message lies in the buffer with room for its data.
        let data = unsafe { libc::CMSG_DATA(first) };
        for (at, descriptor) in descriptors.iter().enumerate() {
            let number = descriptor.fd().ok_or_else(virtual_one)?.as_raw_fd();
            // SAFETY: the buffer has room for all of them after `data`, which may be unaligned.
            unsafe { data.cast::<RawFd>().add(at).write_unaligned(number) };
        }
        Ok(())
    }
}

/// Takes the descriptors out of a header that recvmsg(2) filled. Call it once for each recvmsg(2).
fn taken(header: &msghdr) -> Vec<OwnedFd> {
    let mut descriptors = Vec::new();
    // SAFETY: the header is as recvmsg left it, and its control buffer is live.
    let mut next: *const cmsghdr = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !next.is_null() {
        // SAFETY: it is not null, so it is a whole header within the buffer.
        let message = unsafe { &*next };
        if message.cmsg_level == libc::SOL_SOCKET && message.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: the macro only computes a length.
            let head = unsafe { libc::CMSG_LEN(0) } as usize;
            let count = (message.cmsg_len as usize).saturating_sub(head) / size_of::<RawFd>();
            // SAFETY: the message lies in the buffer, and its data follows its header.
            let data: *const u8 = unsafe { libc::CMSG_DATA(next) };
            for at in 0..count {
                // SAFETY: the system wrote `count` numbers there, perhaps unaligned.
                let number = unsafe { data.cast::<RawFd>().add(at).read_unaligned() };
                // SAFETY: the system opened the descriptor for this call, and it is taken once.
                descriptors.push(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
        // SAFETY: both point into the live buffer.
        next = unsafe { libc::CMSG_NXTHDR(header, next) };
    }
    descriptors
}

fn empty_header() -> msghdr {
    // SAFETY: all fields are numbers and pointers, which may be zero.
    unsafe { MaybeUninit::<msghdr>::zeroed().assume_init() }
}

/// Returns the process (where the system provides it), user and group of a connected Unix socket's peer.
///
/// # Errors
/// As getsockopt(2) or getpeereid(3). `Unsupported` for a socket of another kind.
pub(crate) fn peer_credentials(of: BorrowedFd<'_>) -> io::Result<(Option<u32>, u32, u32)> {
    // Not every system checks the family itself.
    if !socket2::SockRef::from(&of).local_addr()?.is_unix() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    credentials(of)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn credentials(of: BorrowedFd<'_>) -> io::Result<(Option<u32>, u32, u32)> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    let to: *mut libc::c_void = ptr::from_mut(&mut peer).cast();
    // SAFETY: the pointer and the length are those of one live value.
    let result: c_int =
        unsafe { libc::getsockopt(of.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, to, &mut length) };
    match result {
        0 => Ok((u32::try_from(peer.pid).ok().filter(|pid| *pid > 0), peer.uid, peer.gid)),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(any(
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "dragonfly",
    target_os = "netbsd",
    target_os = "openbsd"
))]
fn credentials(of: BorrowedFd<'_>) -> io::Result<(Option<u32>, u32, u32)> {
    let (mut user, mut group) = (0, 0);
    // SAFETY: both pointers are to live values.
    let result: c_int = unsafe { libc::getpeereid(of.as_raw_fd(), &mut user, &mut group) };
    match result {
        0 => Ok((None, user, group)),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "dragonfly",
    target_os = "netbsd",
    target_os = "openbsd"
)))]
fn credentials(_: BorrowedFd<'_>) -> io::Result<(Option<u32>, u32, u32)> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The most descriptors in one message: SCM_MAX_FD of Linux.
pub(crate) const DESCRIPTORS_MAX: usize = 253;
/// Room for that many numbers, the header, and credentials in case other code has asked for them.
const CONTROL_WORDS: usize = 160;

#[cfg(not(target_vendor = "apple"))]
const NO_SIGNAL: c_int = libc::MSG_NOSIGNAL;
// Apple's systems have a socket option for it instead, which is set when the socket is adopted.
#[cfg(target_vendor = "apple")]
const NO_SIGNAL: c_int = 0;

#[cfg(not(target_vendor = "apple"))]
const CLOSE_ON_EXEC: c_int = libc::MSG_CMSG_CLOEXEC;
// Apple's systems cannot receive and set CLOEXEC in one step. A child that is started in between inherits the
// descriptor.
#[cfg(target_vendor = "apple")]
const CLOSE_ON_EXEC: c_int = 0;

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Read as _, Write as _},
        os::{fd::AsFd as _, unix::net::UnixStream},
    };

    use super::*;

    fn nulls(count: usize) -> Vec<Descriptor> {
        let null = File::open("/dev/null").expect("it is there");
        (0..count).map(|_| Descriptor::new(null.try_clone().expect("a descriptor"))).collect()
    }

    #[test]
    fn descriptors_pass_up_to_the_systems_limit() {
        for count in [0, 1, 2, 3, DESCRIPTORS_MAX - 1, DESCRIPTORS_MAX] {
            let (ours, theirs) = UnixStream::pair().expect("a pair");
            let sent = send(Source::of(&ours), &[IoSlice::new(b"with")], &nulls(count));
            assert_eq!(sent.expect("there is room"), 4);
            let mut buffer = [0; 16];
            let got = receive(Source::of(&theirs), &mut buffer).expect("it is there");
            assert_eq!((got.bytes, got.descriptors.len(), got.is_cut), (4, count, false));
        }
        let (ours, _theirs) = UnixStream::pair().expect("a pair");
        let more = send(Source::of(&ours), &[IoSlice::new(b"with")], &nulls(DESCRIPTORS_MAX + 1));
        assert_eq!(more.expect_err("one too many").kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn what_is_of_a_virtual_world_does_not_pass() {
        let (ours, _theirs) = UnixStream::pair().expect("a pair");
        let other = Descriptor::from(crate::engine::Transport::hosted(7, ()));
        let slices = [IoSlice::new(b"x")];
        for (to, with) in [(Source::of(&ours), &[other][..]), (Source::hosted(7), &[])] {
            let error = send(to, &slices, with).expect_err("it is not of this system");
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        }
        let error = receive(Source::hosted(7), &mut [0; 1]).expect_err("the same");
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    }

    #[test]
    fn what_arrives_is_the_same_file_and_not_inherited() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let writer = [Descriptor::new(writer)];
        send(Source::of(&ours), &[IoSlice::new(b"x")], &writer).expect("there is room");
        drop(writer);
        let mut got = receive(Source::of(&theirs), &mut [0; 1]).expect("it is there");
        let passed = got.descriptors.pop().and_then(|passed| passed.into_fd().ok()).expect("one came");
        // SAFETY: fcntl with F_GETFD takes no pointer.
        let flags = unsafe { libc::fcntl(passed.as_raw_fd(), libc::F_GETFD) };
        assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
        File::from(passed).write_all(b"through").expect("there is room");
        // The end arrives only once no copy is open.
        let mut all = Vec::new();
        reader.read_to_end(&mut all).expect("it is readable");
        assert_eq!(all, b"through");
    }

    #[test]
    fn the_other_end_of_a_unix_socket_is_known_and_of_another_it_is_unsupported() {
        let (ours, _theirs) = UnixStream::pair().expect("a pair");
        let (process, user, _) = peer_credentials(ours.as_fd()).expect("it is a Unix socket");
        assert!(process.is_none_or(|process| process == std::process::id()));
        // SAFETY: getuid takes nothing and cannot fail.
        assert_eq!(user, unsafe { libc::getuid() });
        let other = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        let error = peer_credentials(other.as_fd()).expect_err("it is none");
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    }
}
