//! The pool is bounded by bytes, and keeps no oversized buffer.

use session::{Outgoing, Pool};

const HEADER: usize = size_of::<Vec<u8>>();

#[test]
fn what_is_given_is_lent_again_and_empty() {
    let mut pool = Pool::new();
    let mut buffer = pool.take();
    buffer.extend_from_slice(b"left over");
    let at = buffer.as_ptr();
    pool.give(buffer);
    let again = pool.take();
    assert_eq!((again.as_ptr(), again.len(), pool.misses(), pool.kept()), (at, 0, 1, 0));
    let mut queue = pool.take_outgoing();
    queue.put(b"left over");
    pool.give_outgoing(queue);
    let queue = pool.take_outgoing();
    assert!(queue.is_empty() && queue.capacity() > 0);
    assert_eq!((pool.misses(), pool.kept()), (2, 0));
}

#[test]
fn the_bound_counts_bytes() {
    for (room, kept) in [(1_000 + HEADER - 1, 0), (1_000 + HEADER, 1), (1_000 + HEADER + 1, 1)] {
        let mut pool = Pool::with_limit(room);
        pool.give(Vec::with_capacity(1_000));
        pool.give(Vec::with_capacity(1_000));
        assert_eq!(pool.kept(), kept * (1_000 + HEADER), "room for {room}");
    }
    let mut pool = Pool::with_limit(1 << 20);
    for len in 1..5_000 {
        pool.give(vec![0; len]);
        let mut queue = Box::<Outgoing>::default();
        queue.put(&vec![0; len]);
        pool.give_outgoing(queue);
        assert!(pool.kept() <= 1 << 20);
    }
    assert!(pool.kept() > 1_000_000);
}

#[test]
fn what_is_kept_is_counted_with_its_headers() {
    let mut pool = Pool::new();
    pool.give_outgoing(Box::default());
    assert_eq!(pool.kept(), size_of::<Outgoing>() + size_of::<Box<Outgoing>>());
    pool.give(Vec::with_capacity(1_000));
    assert_eq!(pool.kept(), size_of::<Outgoing>() + size_of::<Box<Outgoing>>() + 1_000 + HEADER);
}

#[test]
fn queues_are_kept_up_to_the_bound() {
    let one = size_of::<Outgoing>() + size_of::<Box<Outgoing>>();
    for (limit, kept) in [(one - 1, 0), (one, one), (2 * one - 1, one), (2 * one, 2 * one)] {
        let mut pool = Pool::with_limit(limit);
        (0..3).for_each(|_| pool.give_outgoing(Box::default()));
        assert_eq!(pool.kept(), kept, "{limit}");
    }
}

#[test]
fn oversized_buffers_are_freed() {
    for (capacity, kept) in [((256 << 10) - 1, true), (256 << 10, true), ((256 << 10) + 1, false)] {
        let mut pool = Pool::new();
        pool.give(Vec::with_capacity(capacity));
        assert_eq!(pool.kept() > 0, kept, "{capacity}");
    }
    let mut pool = Pool::new();
    pool.give(Vec::new());
    assert_eq!(pool.kept(), 0);
    let mut queue = pool.take_outgoing();
    (0..1_000).for_each(|_| queue.put(&[0; 10_000]));
    pool.give_outgoing(queue);
    assert!(pool.kept() < 70 << 10, "{}", pool.kept());
}

#[test]
fn a_queue_keeps_a_buffer_of_64_kib_and_a_table_of_16_parts() {
    let kept = |parts: usize, front: usize| {
        let (mut pool, mut queue) = (Pool::new(), Box::<Outgoing>::default());
        assert_eq!(queue.grow(front, |_| Ok::<_, ()>(front)), Ok(front));
        (0..parts).for_each(|_| queue.share(session::Shared::from(vec![1; 600])));
        pool.give_outgoing(queue);
        pool.kept()
    };
    let empty = kept(0, 0);
    assert_eq!([1, 1 << 16].map(|front| kept(0, front) > empty), [true, true]);
    assert_eq!(kept(0, 1 << 16) - empty, 1 << 16, "it is kept");
    assert_eq!(kept(0, (1 << 16) + 1), empty, "it is not");
    let table = kept(16, 0);
    assert!(table > empty && kept(4, 0) < table);
    assert_eq!((kept(17, 0), kept(200, 0)), (table, table), "the table shrinks");
    assert_eq!(kept(17, 1 << 16) - table, 1 << 16, "and the buffer stays");
    assert_eq!(kept(17, (1 << 16) + 1), table);
}
