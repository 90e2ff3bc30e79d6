//! Datagrams on Linux: several for each call, with their header fields, and the error queue.
//!
//! recvmmsg(2), sendmmsg(2); IP_PKTINFO, IP_RECVTOS and IP_RECVERR of ip(7), the same of ipv6(7), UDP_SEGMENT
//! and UDP_GRO of udp(7).
#![allow(unsafe_code)]

use std::{
    io,
    mem::{self, MaybeUninit},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr,
};

use socket2::{SockAddr, SockAddrStorage, SockRef};

use super::{Gone, PACKETS_MAX};
use crate::{
    address::Address,
    engine::{Batch, DatagramQueue, Ecn, Packet, datagram::Run},
    sys::address::{from_system, to_system},
};

/// Requests header fields for each datagram. Returns whether the kernel merges datagrams of equal size.
pub(super) fn has_prepared(socket: &SockRef<'_>, is_v6: bool) -> bool {
    // An old kernel ignores an option that it does not know. An IPv6 socket needs both sets, because it may
    // receive IPv4, too.
    if is_v6 {
        for option in [libc::IPV6_RECVPKTINFO, libc::IPV6_RECVTCLASS, libc::IPV6_RECVERR] {
            set(socket, libc::IPPROTO_IPV6, option, 1);
        }
    } else {
        set(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1);
    }
    for option in [libc::IP_RECVTOS, libc::IP_RECVERR] {
        set(socket, libc::IPPROTO_IP, option, 1);
    }
    get(socket, libc::IPPROTO_UDP, libc::UDP_GRO) == Some(1)
}

/// Lets the kernel merge datagrams of equal size into one packet.
pub(super) fn set_together(socket: &socket2::Socket, on: bool) {
    set(socket, libc::IPPROTO_UDP, libc::UDP_GRO, i32::from(on));
}

pub(super) fn set(socket: &socket2::Socket, level: i32, name: i32, value: i32) {
    let (value, len) = (&raw const value, size_of::<i32>() as libc::socklen_t);
    // SAFETY: the pointer and the length are those of one live integer. Errors are ignored on purpose.
    unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value.cast(), len) };
}

fn get(socket: &socket2::Socket, level: i32, name: i32) -> Option<i32> {
    let (mut value, mut len) = (0_i32, size_of::<i32>() as libc::socklen_t);
    // SAFETY: the pointers are to two live integers, and the length is that of the first.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &mut len) };
    (result == 0).then_some(value)
}

/// Receives at most [`PACKETS_MAX`] packets without waiting, each into `room` bytes of the batch's memory.
/// Returns whether there may be more.
///
/// # Errors
/// As recvmmsg(2).
pub(crate) fn receive(from: BorrowedFd<'_>, batch: &mut Batch, room: usize) -> io::Result<bool> {
    batch.clear();
    let offered = (batch.room() / room).min(PACKETS_MAX);
    let mut names = [const { MaybeUninit::<libc::sockaddr_storage>::uninit() }; PACKETS_MAX];
    let mut controls = [const { MaybeUninit::<Control>::uninit() }; PACKETS_MAX];
    let mut parts = [libc::iovec { iov_base: ptr::null_mut(), iov_len: room }; PACKETS_MAX];
    // SAFETY: all zeroes is a valid mmsghdr: null pointers with lengths of zero.
    let mut messages: [libc::mmsghdr; PACKETS_MAX] = unsafe { mem::zeroed() };
    for (n, slot) in batch.buffer().chunks_exact_mut(room).take(PACKETS_MAX).enumerate() {
        parts[n].iov_base = slot.as_mut_ptr().cast();
        let header = &mut messages[n].msg_hdr;
        header.msg_iov = &raw mut parts[n];
        header.msg_iovlen = 1;
        header.msg_name = names[n].as_mut_ptr().cast();
        header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        header.msg_control = controls[n].as_mut_ptr().cast();
        header.msg_controllen = size_of::<Control>() as _;
    }
    let count = crate::sys::again_if_interrupted(|| {
        let (messages, flags) = (messages.as_mut_ptr(), libc::MSG_DONTWAIT);
        // SAFETY: each offered header points to memory of its own with the given length: a name, a control buffer,
        // and one part of the batch's memory. All of it lives through the call.
        let count =
            unsafe { libc::recvmmsg(from.as_raw_fd(), messages, offered as u32, flags, ptr::null_mut()) };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    })?;
    for (n, message) in messages.iter().take(count).enumerate() {
        let header = &message.msg_hdr;
        let is_cut = header.msg_flags & libc::MSG_TRUNC != 0;
        // SAFETY: the kernel filled this header's name and control buffer up to the lengths that it set.
        batch.note(unsafe { packet_of(header, n * room, message.msg_len as usize, is_cut) });
    }
    Ok(count == offered)
}

/// Makes the packet of a header that the kernel filled. The bytes are elsewhere.
///
/// # Safety
/// As [`name`] and [`HeaderFields::of`].
unsafe fn packet_of(header: &libc::msghdr, at: usize, len: usize, truncated: bool) -> Packet {
    // SAFETY: as promised by the caller.
    let (from, fields) = unsafe { (name(header), HeaderFields::of(header)) };
    Packet { at, len, segment: fields.segment, from, to: fields.to, ecn: fields.ecn, truncated }
}

/// Makes a packet from the sender's name and the control messages that the kernel wrote.
///
/// # Safety
/// The kernel wrote the name.
#[cfg(feature = "io-uring")]
pub(crate) unsafe fn packet(name: &[u8], control: &[u8], at: usize, len: usize, truncated: bool) -> Packet {
    // SAFETY: all zeroes is a valid msghdr: null pointers with lengths of zero.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_name = name.as_ptr().cast_mut().cast();
    header.msg_namelen = name.len() as libc::socklen_t;
    header.msg_control = control.as_ptr().cast_mut().cast();
    header.msg_controllen = control.len() as _;
    // SAFETY: the lengths are those of the slices, and nothing is written through the pointers.
    unsafe { packet_of(&header, at, len, truncated) }
}

/// Reads any bytes as a sender's name and control messages, for tests.
#[cfg(all(any(fuzzing, test), feature = "io-uring"))]
pub(crate) fn parse(name: &[u8], control: &[u8]) -> Packet {
    // SAFETY: as far as its length goes, any bytes are a name: at worst one of an unknown family.
    unsafe { packet(&name[..name.len().min(NAME_BYTES)], control, 0, 0, false) }
}

/// The most bytes of a name, and of control messages.
#[cfg(feature = "io-uring")]
pub(crate) const NAME_BYTES: usize = size_of::<libc::sockaddr_storage>();
#[cfg(feature = "io-uring")]
pub(crate) const CONTROL_BYTES: usize = size_of::<Control>();

/// Memory for a packet's control messages, aligned as their headers require. All requested messages together
/// have at most 144 bytes.
type Control = [u64; 24];

/// Reads the sender's name of a header that the kernel filled.
///
/// # Safety
/// `msg_name` points to a `sockaddr_storage` with `msg_namelen` valid bytes.
unsafe fn name(header: &libc::msghdr) -> Address {
    if header.msg_namelen == 0 {
        return Address::Unnamed;
    }
    let mut storage = SockAddrStorage::zeroed();
    let len = (header.msg_namelen as usize).min(size_of::<SockAddrStorage>());
    // SAFETY: both have at least `len` bytes, and do not overlap.
    unsafe { ptr::copy_nonoverlapping(header.msg_name.cast::<u8>(), (&raw mut storage).cast(), len) };
    // SAFETY: the kernel wrote an address of this length.
    from_system(&unsafe { SockAddr::new(storage, len as libc::socklen_t) })
}

/// The header fields that the kernel reported for a packet.
#[derive(Default)]
struct HeaderFields {
    to: Option<IpAddr>,
    ecn: Ecn,
    segment: Option<usize>,
    error: Option<(u8, i32)>,
}

impl HeaderFields {
    /// # Safety
    /// As [`Messages::of`].
    unsafe fn of(header: &libc::msghdr) -> HeaderFields {
        let mut fields = HeaderFields::default();
        // SAFETY: as promised by the caller.
        for message in unsafe { Messages::of(header) } {
            fields.note(&message);
        }
        fields
    }

    fn note(&mut self, message: &Message<'_>) {
        match (message.level, message.kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let Some(info) = message.data::<libc::in_pktinfo>() else { return };
                // Not `ipi_addr`, because that may be a broadcast or group address, which cannot be a sender.
                let own = Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes());
                self.to = (!own.is_unspecified()).then_some(own.into());
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let Some(info) = message.data::<libc::in6_pktinfo>() else { return };
                let to = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                // For IPv4, IP_PKTINFO carries the address.
                if to.to_ipv4_mapped().is_none() {
                    self.to = (!to.is_multicast()).then_some(to.into());
                }
            }
            (libc::IPPROTO_IP, libc::IP_TOS) => {
                self.ecn = message.data::<u8>().map_or(self.ecn, Ecn::from_bits);
            }
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                self.ecn = message.data::<i32>().map_or(self.ecn, |class| Ecn::from_bits(class as u8));
            }
            (libc::IPPROTO_UDP, libc::UDP_GRO) => {
                let bytes = message.data::<i32>().and_then(|bytes| usize::try_from(bytes).ok());
                self.segment = bytes.filter(|bytes| *bytes > 0);
            }
            (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) => {
                let Some(error) = message.data::<libc::sock_extended_err>() else { return };
                self.error = Some((error.ee_origin, error.ee_errno as i32));
            }
            _ => (),
        }
    }
}

/// The control messages behind a header, one after the other (cmsg(3)). A message that is cut off ends them,
/// so that no length in them is trusted.
struct Messages<'a> {
    /// The kernel does not write the gaps between two messages.
    rest: &'a [MaybeUninit<u8>],
}

/// One control message.
struct Message<'a> {
    level: i32,
    kind: i32,
    data: &'a [MaybeUninit<u8>],
}

/// A plain struct of C in which any bytes are valid.
trait Plain: Copy {}

impl Plain for u8 {}
impl Plain for i32 {}
impl Plain for libc::cmsghdr {}
impl Plain for libc::in_pktinfo {}
impl Plain for libc::in6_pktinfo {}
impl Plain for libc::sock_extended_err {}

impl<'a> Messages<'a> {
    /// # Safety
    /// `msg_control` points to `msg_controllen` bytes that outlive the messages, or is null and the length
    /// 0. Each message in them is written as far as its length says.
    unsafe fn of(header: &'a libc::msghdr) -> Messages<'a> {
        if header.msg_control.is_null() {
            return Messages { rest: &[] };
        }
        let len: usize = header.msg_controllen as _;
        // SAFETY: as promised by the caller.
        Messages { rest: unsafe { std::slice::from_raw_parts(header.msg_control.cast(), len) } }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let header = read::<libc::cmsghdr>(self.rest)?;
        let len: usize = header.cmsg_len as _;
        let data = self.rest.get(HEAD_BYTES..len)?;
        let next = len.checked_next_multiple_of(size_of::<usize>())?;
        self.rest = self.rest.get(next..).unwrap_or_default();
        Some(Message { level: header.cmsg_level, kind: header.cmsg_type, data })
    }
}

impl Message<'_> {
    /// Reads what a message carries, or `None` if it is shorter than that.
    fn data<T: Plain>(&self) -> Option<T> {
        read(self.data)
    }
}

/// Reads a plain struct at the beginning of bytes that the kernel wrote, with any alignment.
fn read<T: Plain>(bytes: &[MaybeUninit<u8>]) -> Option<T> {
    let bytes = bytes.get(..size_of::<T>())?;
    // SAFETY: there are as many bytes, [`Messages::of`] demands that they are written, and any bytes are a
    // valid T.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// Where the data of a control message begins.
// SAFETY: the function only computes a length.
const HEAD_BYTES: usize = unsafe { libc::CMSG_LEN(0) } as usize;

/// Sends at most [`PACKETS_MAX`] packets from the front of a queue, and removes the packets that the kernel
/// took. Returns how many datagrams those were, and whether the send stopped early.
///
/// # Errors
/// As sendmmsg(2), for the first packet. `InvalidInput` if its address is not valid. Then nothing was sent.
pub(crate) fn send(to: BorrowedFd<'_>, queue: &mut DatagramQueue, together: bool) -> io::Result<Gone> {
    let mut names: [Option<SockAddr>; PACKETS_MAX] = [const { None }; PACKETS_MAX];
    // Each is written only as far as its packet needs, so mostly not at all.
    let mut controls = [const { MaybeUninit::<Control>::uninit() }; PACKETS_MAX];
    let mut parts = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; PACKETS_MAX];
    let mut counts = [0; PACKETS_MAX];
    // SAFETY: all zeroes is a valid mmsghdr: null pointers with lengths of zero.
    let mut messages: [libc::mmsghdr; PACKETS_MAX] = unsafe { mem::zeroed() };
    let mut ready = 0;
    for run in queue.runs(if together { SEGMENTS_MAX } else { 1 }).take(PACKETS_MAX) {
        let header = &mut messages[ready].msg_hdr;
        if let Some(address) = &run.head.to {
            match to_system(address) {
                Ok(name) => {
                    let name = names[ready].insert(name);
                    header.msg_name = name.as_ptr().cast_mut().cast();
                    header.msg_namelen = name.len();
                }
                Err(error) if ready == 0 => return Err(error),
                Err(_) => break,
            }
        }
        parts[ready] =
            libc::iovec { iov_base: run.bytes.as_ptr().cast_mut().cast(), iov_len: run.bytes.len() };
        header.msg_iov = &raw mut parts[ready];
        header.msg_iovlen = 1;
        put_control(header, &mut controls[ready], &run);
        counts[ready] = run.count;
        ready += 1;
    }
    let taken = crate::sys::again_if_interrupted(|| {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: `ready` headers point to a name, a control buffer and one part, or to nothing, each with
        // its length. All of them live through the call, which writes to the headers only.
        let count = unsafe { libc::sendmmsg(to.as_raw_fd(), messages.as_mut_ptr(), ready as u32, flags) };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    })?;
    let datagrams = counts[..taken].iter().sum();
    (0..datagrams).for_each(|_| drop(queue.pop()));
    Ok(Gone { datagrams, is_stopped: taken < ready })
}

/// Writes the control messages for a packet.
fn put_control(header: &mut libc::msghdr, control: &mut MaybeUninit<Control>, run: &Run<'_>) {
    let is_v6 = match run.head.to.as_ref().and_then(Address::ip) {
        Some(to) => to.is_ipv6(),
        None => run.head.from.is_some_and(|from| from.is_ipv6()),
    };
    let mut at = 0;
    match (run.head.from, is_v6) {
        (Some(IpAddr::V4(from)), false) => {
            let spec = libc::in_addr { s_addr: u32::from_ne_bytes(from.octets()) };
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: spec,
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            put(control, &mut at, (libc::IPPROTO_IP, libc::IP_PKTINFO), info);
        }
        (Some(from), true) => {
            let from = match from {
                IpAddr::V4(from) => from.to_ipv6_mapped(),
                IpAddr::V6(from) => from,
            };
            let address = libc::in6_addr { s6_addr: from.octets() };
            let info = libc::in6_pktinfo { ipi6_addr: address, ipi6_ifindex: 0 };
            put(control, &mut at, (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO), info);
        }
        _ => (),
    }
    if run.head.ecn != Ecn::NotCapable {
        // Set both, because IPv4 may leave through an IPv6 socket. The kernel ignores the one that does not
        // apply.
        for kind in [(libc::IPPROTO_IPV6, libc::IPV6_TCLASS), (libc::IPPROTO_IP, libc::IP_TOS)] {
            put(control, &mut at, kind, i32::from(run.head.ecn.bits()));
        }
    }
    if run.count > 1 {
        put(control, &mut at, (libc::IPPROTO_UDP, libc::UDP_SEGMENT), run.head.len as u16);
    }
    if at > 0 {
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = at as _;
    }
}

/// Appends one header with its data to a control buffer of which `at` bytes are in use.
fn put<T>(control: &mut MaybeUninit<Control>, at: &mut usize, (level, kind): (i32, i32), data: T) {
    let len = size_of::<T>() as u32;
    // SAFETY: the macros only compute lengths.
    let (space, whole) = unsafe { (libc::CMSG_SPACE(len) as usize, libc::CMSG_LEN(len)) };
    assert!(*at + space <= size_of::<Control>(), "the buffer has room for all kinds together");
    // SAFETY: the offset lies within the buffer, as checked above.
    let header = unsafe { control.as_mut_ptr().cast::<u8>().add(*at) }.cast::<libc::cmsghdr>();
    // SAFETY: the buffer has `space` bytes left, as checked above. The padding after header and data is sent,
    // too, so clear it.
    unsafe { header.cast::<u8>().write_bytes(0, space) };
    // SAFETY: the buffer is aligned for u64, every space is a multiple of that, and there is room for the
    // header.
    unsafe { header.write(libc::cmsghdr { cmsg_len: whole as _, cmsg_level: level, cmsg_type: kind }) };
    // SAFETY: the header was written above, and there is room for its data after it.
    unsafe { libc::CMSG_DATA(header).cast::<T>().write_unaligned(data) };
    *at += space;
}

/// Takes the next report about a sent datagram: from the error queue, with the address it was sent to, or
/// else the socket's own error.
///
/// # Errors
/// As recvmsg(2) and getsockopt(2).
pub(crate) fn undelivered(socket: BorrowedFd<'_>) -> io::Result<Option<(Option<Address>, io::Error)>> {
    loop {
        let mut storage = MaybeUninit::<libc::sockaddr_storage>::uninit();
        let mut control = MaybeUninit::<Control>::uninit();
        // SAFETY: all zeroes is a valid msghdr: null pointers with lengths of zero.
        let mut header: libc::msghdr = unsafe { mem::zeroed() };
        header.msg_name = storage.as_mut_ptr().cast();
        header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of::<Control>() as _;
        let result = crate::sys::again_if_interrupted(|| {
            let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
            // SAFETY: the header points to a name and a control buffer that live through the call, with their
            // lengths. It has no data part, because the start of the datagram itself is not needed.
            match unsafe { libc::recvmsg(socket.as_raw_fd(), &mut header, flags) } {
                -1 => Err(io::Error::last_os_error()),
                _ => Ok(()),
            }
        });
        match result {
            Ok(()) => {
                // SAFETY: the kernel filled the name and the control buffer up to the lengths that it set.
                let (to, fields) = unsafe { (name(&header), HeaderFields::of(&header)) };
                // An error of this machine was already the result of the send, so skip its report.
                if let Some((libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6, number)) = fields.error {
                    return Ok(Some((Some(to), io::Error::from_raw_os_error(number))));
                }
            }
            // The queue is empty, or the socket has no such queue. The error differs, but both mean that
            // there is only the socket's own error.
            Err(_) => return Ok(SockRef::from(&socket).take_error()?.map(|error| (None, error))),
        }
    }
}

/// The most datagrams of one packet: UDP_MAX_SEGMENTS of every kernel that has it.
const SEGMENTS_MAX: usize = 64;
