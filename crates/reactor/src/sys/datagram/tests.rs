//! The options of datagram sockets, and the limits of their calls.

use std::os::fd::AsFd as _;

use super::*;
use crate::engine::{Batch, DatagramQueue, Outbound};

fn any() -> Address {
    Address::Ip(([127, 0, 0, 1], 0).into())
}

fn name_of(socket: &Owned) -> Address {
    crate::sys::local(socket.as_fd()).expect("it is bound")
}

fn batch() -> Batch {
    Batch::with_room(PACKETS_MAX * (64 << 10))
}

/// Receives all waiting packets, and returns their lengths.
fn lengths(socket: &Owned, batch: &mut Batch) -> Vec<usize> {
    let mut lengths = Vec::new();
    while receive(socket.as_fd(), batch, 64 << 10).is_ok() {
        while let Some(datagram) = batch.take() {
            lengths.push(datagram.bytes.len());
        }
    }
    lengths
}

#[test]
fn options_are_set_on_either_family() {
    let mut options = BindOptions::default();
    (options.hops, options.multicast_hops, options.multicast_loop) = (Some(7), Some(9), Some(false));
    (options.broadcast, options.reuse_address) = (true, true);
    let socket = bind(&any(), &options).expect("the loopback is there");
    let socket = SockRef::from(&socket);
    assert_eq!(socket.ttl_v4().expect("an option"), 7);
    assert_eq!(socket.multicast_ttl_v4().expect("an option"), 9);
    assert!(!socket.multicast_loop_v4().expect("an option"));
    assert!(socket.broadcast().expect("an option") && socket.reuse_address().expect("an option"));
    assert!(socket.nonblocking().expect("an option"));
    let Ok(socket) = bind(&Address::Ip("[::1]:0".parse().expect("an address")), &options) else {
        eprintln!("skipped in part: this machine has no IPv6");
        return;
    };
    let socket = SockRef::from(&socket);
    assert_eq!(socket.unicast_hops_v6().expect("an option"), 7);
    assert_eq!(socket.multicast_hops_v6().expect("an option"), 9);
    assert!(!socket.multicast_loop_v6().expect("an option"));
}

#[test]
fn a_call_takes_so_many_packets_and_says_whether_there_may_be_more() {
    let (from, to) = (bind(&any(), &BindOptions::default()), bind(&any(), &BindOptions::default()));
    let (from, to) = (from.expect("the loopback is there"), to.expect("the loopback is there"));
    let name = name_of(&to);
    let mut batch = batch();
    for (count, has_more) in [(PACKETS_MAX - 1, false), (PACKETS_MAX, true), (PACKETS_MAX + 1, true)] {
        let mut queue = DatagramQueue::default();
        (0..count).for_each(|n| queue.push(Outbound::to(&name, &[0; 64][..n % 64])));
        let sent = send(from.as_fd(), &mut queue, false).expect("there is room").datagrams;
        assert_eq!((sent, queue.len()), (count.min(PACKETS_MAX), count - count.min(PACKETS_MAX)));
        while !queue.is_empty() {
            send(from.as_fd(), &mut queue, false).expect("there is room");
        }
        assert_eq!(
            receive(to.as_fd(), &mut batch, 64 << 10).expect("they are there"),
            has_more,
            "of {count}"
        );
        assert_eq!(batch.len(), count.min(PACKETS_MAX));
        lengths(&to, &mut batch);
    }
}

#[test]
fn fewer_packets_have_more_room_each() {
    let (from, to) = std::os::unix::net::UnixDatagram::pair().expect("a pair");
    to.set_nonblocking(true).expect("an option");
    let to = Owned::from(to);
    let mut batch = batch();
    let whole = batch.room();
    for (room, packets) in [(whole, 1), (whole / 2 + 1, 1), (whole / 2, 2), (whole / 3, 3), (1, PACKETS_MAX)]
    {
        for length in [0, 7, 9] {
            from.send(&[1; 10][..length]).expect("there is room");
        }
        let has_more = receive(to.as_fd(), &mut batch, room).expect("they are there");
        let got: Vec<_> =
            std::iter::from_fn(|| batch.take().map(|got| (got.bytes.len(), got.truncated))).collect();
        let expected = [(0, false), (7.min(room), room < 7), (9.min(room), room < 9)];
        assert_eq!(
            (got.as_slice(), has_more),
            (&expected[..packets.min(3)], packets <= 3),
            "room for {room}"
        );
        lengths(&to, &mut batch);
    }
}

#[test]
fn what_cannot_leave_is_an_error_and_stays_in_the_queue() {
    let socket = bind(&any(), &BindOptions::default()).expect("the loopback is there");
    let name = name_of(&socket);
    let long = vec![0; 65_508];
    let mut queue = DatagramQueue::default();
    queue.push(Outbound::to(&name, b"first"));
    queue.push(Outbound::to(&name, &long));
    queue.push(Outbound::to(&name, b"last"));
    let first = send(socket.as_fd(), &mut queue, false).expect("the first");
    assert_eq!(first, Gone { datagrams: 1, is_stopped: true });
    let error = send(socket.as_fd(), &mut queue, false).expect_err("it is too long");
    assert_eq!((error.raw_os_error(), queue.len()), (Some(libc::EMSGSIZE), 2));
    queue.pop();
    let last = send(socket.as_fd(), &mut queue, false).expect("the last");
    assert_eq!(last, Gone { datagrams: 1, is_stopped: false });
    queue.push(Outbound::to(&Address::Unnamed, b"whom?"));
    let error = send(socket.as_fd(), &mut queue, false).expect_err("it has no name");
    assert_eq!((error.kind(), queue.len()), (io::ErrorKind::InvalidInput, 1));
    assert_eq!(lengths(&socket, &mut batch()), [5, 4]);
}

#[test]
fn another_type_of_socket_is_refused() {
    let stream = std::net::TcpListener::bind("127.0.0.1:0").expect("the loopback is there");
    assert_eq!(prepare(stream.as_fd()).expect_err("a stream's").kind(), io::ErrorKind::InvalidInput);
}

#[cfg(target_os = "linux")]
mod linux {
    use std::cell::Cell;

    use super::*;
    use crate::{
        engine::{Ecn, datagram::syscalls},
        sys::datagram::linux::set,
    };

    /// SO_NO_CHECK of Linux' socket.h. With it the kernel refuses UDP_SEGMENT.
    const NO_CHECK: i32 = 11;

    #[test]
    fn equal_datagrams_are_one_packet_and_come_apart() {
        let (from, to) = (bind(&any(), &BindOptions::default()), bind(&any(), &BindOptions::default()));
        let (from, to) = (from.expect("the loopback is there"), to.expect("the loopback is there"));
        assert!(prepare(from.as_fd()).expect("a socket").together, "Linux 5.0 and later");
        assert!(prepare(to.as_fd()).expect("a socket").together);
        let name = name_of(&to);
        let mut batch = batch();
        for (count, packets) in [(63, 1), (64, 1), (65, 2)] {
            let mut queue = DatagramQueue::default();
            queue.push(Outbound::to(&name, &vec![7; count * 100]).segments(100).ecn(Ecn::Capable0));
            assert_eq!(send(from.as_fd(), &mut queue, true).expect("there is room").datagrams, count);
            receive(to.as_fd(), &mut batch, 64 << 10).expect("they are there");
            assert_eq!((batch.len(), batch.packets()), (count, packets), "{count} datagrams");
            let datagram = batch.take().expect("the first");
            assert_eq!((datagram.bytes, datagram.ecn), (&[7; 100][..], Ecn::Capable0));
        }
    }

    #[test]
    fn what_one_packet_says_beside_its_bytes_no_other_one_of_the_call_says() {
        let Ok(from) = bind(&Address::Ip("[::]:0".parse().expect("an address")), &BindOptions::default())
        else {
            eprintln!("skipped: this machine has no IPv6");
            return;
        };
        prepare(from.as_fd()).expect("a socket");
        let to = bind(&any(), &BindOptions::default()).expect("the loopback is there");
        prepare(to.as_fd()).expect("a socket");
        let name = name_of(&to).ip().expect("IP");
        let std::net::IpAddr::V4(v4) = name.ip() else { panic!("it was bound to IPv4") };
        let name = Address::Ip((v4.to_ipv6_mapped(), name.port()).into());
        let other = std::net::IpAddr::from([127, 0, 0, 2]);
        let mut queue = DatagramQueue::default();
        queue.push(Outbound::to(&name, &[1; 300]).segments(100).ecn(Ecn::Capable0).from(other));
        queue.push(Outbound::to(&name, &[2; 10]));
        queue.push(Outbound::to(&name, &[3; 10]).ecn(Ecn::Capable1));
        assert_eq!(send(from.as_fd(), &mut queue, true).expect("there is room").datagrams, 5);
        let mut batch = batch();
        receive(to.as_fd(), &mut batch, 64 << 10).expect("they are there");
        let mut told = Vec::new();
        while let Some(datagram) = batch.take() {
            let source = datagram.from.ip().expect("IP").ip();
            told.push((datagram.bytes[0], datagram.bytes.len(), datagram.ecn, source == other));
        }
        let first = (1, 100, Ecn::Capable0, true);
        assert_eq!(
            told,
            [first, first, first, (2, 10, Ecn::NotCapable, false), (3, 10, Ecn::Capable1, false)]
        );
    }

    #[test]
    fn what_the_kernel_does_not_take_together_leaves_apart() {
        let (from, to) = (bind(&any(), &BindOptions::default()), bind(&any(), &BindOptions::default()));
        let (from, to) = (from.expect("the loopback is there"), to.expect("the loopback is there"));
        let facts = prepare(from.as_fd()).expect("a socket");
        set(&SockRef::from(&from), libc::SOL_SOCKET, NO_CHECK, 1);
        let name = name_of(&to);
        let mut queue = DatagramQueue::default();
        queue.push(Outbound::to(&name, &[7; 1000]).segments(100));
        let refused = send(from.as_fd(), &mut queue, true).expect_err("without checksums it cannot");
        assert_eq!((refused.raw_os_error(), queue.len()), (Some(libc::EINVAL), 10));
        let departure =
            syscalls::send(from.as_fd(), facts, &mut queue, &Cell::new(0), |to, e| panic!("{to:?}: {e}"));
        assert_eq!((departure.taken, queue.len()), (10, 0));
        assert_eq!(lengths(&to, &mut batch()), [100; 10]);
    }

    #[test]
    fn a_report_has_the_address_and_is_told_once() {
        let socket = bind(&any(), &BindOptions::default()).expect("the loopback is there");
        prepare(socket.as_fd()).expect("a socket");
        let nobody = name_of(&bind(&any(), &BindOptions::default()).expect("the loopback is there"));
        let mut queue = DatagramQueue::default();
        queue.push(Outbound::to(&nobody, b"lost"));
        send(socket.as_fd(), &mut queue, false).expect("there is room");
        let (to, error) = undelivered(socket.as_fd()).expect("a socket").expect("a report");
        assert_eq!((to, error.kind()), (Some(nobody), io::ErrorKind::ConnectionRefused));
        assert!(undelivered(socket.as_fd()).expect("a socket").is_none(), "told once");
        let error = receive(socket.as_fd(), &mut batch(), 64 << 10).expect_err("there is nothing");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "and not as an error of the socket");
    }

    #[test]
    fn a_report_does_not_cost_the_next_datagram() {
        let (from, to) = (bind(&any(), &BindOptions::default()), bind(&any(), &BindOptions::default()));
        let (from, to) = (from.expect("the loopback is there"), to.expect("the loopback is there"));
        let facts = prepare(from.as_fd()).expect("a socket");
        let nobody = name_of(&bind(&any(), &BindOptions::default()).expect("the loopback is there"));
        let name = name_of(&to);
        let mut queue = DatagramQueue::default();
        for _ in 0..3 {
            queue.push(Outbound::to(&nobody, b"lost"));
            queue.push(Outbound::to(&name, b"kept"));
            let departure =
                syscalls::send(from.as_fd(), facts, &mut queue, &Cell::new(0), |to, e| panic!("{to:?}: {e}"));
            assert_eq!(departure.taken, 2);
        }
        assert_eq!(lengths(&to, &mut batch()), [4, 4, 4]);
    }
}

#[cfg(all(target_os = "linux", feature = "io-uring"))]
#[test]
fn no_length_in_a_control_message_is_trusted() {
    let info = libc::in_pktinfo {
        ipi_ifindex: 1,
        ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) },
        ipi_addr: libc::in_addr { s_addr: 0 },
    };
    let head = size_of::<libc::cmsghdr>();
    let whole = head + size_of_val(&info);
    let message = |len: usize| {
        let numbers = [libc::IPPROTO_IP, libc::IP_PKTINFO, info.ipi_ifindex].map(i32::to_ne_bytes);
        let addresses = [info.ipi_spec_dst.s_addr, info.ipi_addr.s_addr].map(u32::to_ne_bytes);
        [&len.to_ne_bytes()[..], numbers.as_flattened(), addresses.as_flattened()].concat()
    };
    let to = |control: &[u8]| parse(&[], control).to;
    for len in 0..=whole {
        assert_eq!(to(&message(whole)[..len]).is_some(), len == whole, "cut off after {len} bytes");
        assert_eq!(to(&message(len)).is_some(), len == whole, "said to have {len} bytes");
    }
    assert_eq!(to(&message(whole + 1)), None);
    assert_eq!(to(&message(usize::MAX)), None);
}
