//! The engine `io_uring` against the whole table of rows: with a small ring, and without the kernel's own
//! operations. The tests of all engines cover its usual size.
#![cfg(all(target_os = "linux", feature = "io-uring"))]

mod floor;

use conformance::{Report, Suite};
use floor::{QUICK_ROWS_MIN, ROWS_MIN, assert_rows};
use reactor::engine::{IoUring, IoUringOptions};

/// Returns a ring so small that everything that can run out does.
fn tight() -> IoUringOptions {
    let mut options = IoUringOptions::default();
    (options.entries, options.completions) = (8, 16);
    (options.buffers, options.buffer_bytes) = (8, 64);
    options
}

/// Returns a small ring in which only one stream at a time uses a buffer.
fn tight_and_whole() -> IoUringOptions {
    let mut options = tight();
    options.operations.pieces = false;
    options
}

/// Returns options with which the ring waits for each operation, and a system call performs it.
fn by_calls() -> IoUringOptions {
    let mut options = IoUringOptions::default();
    (options.operations.accept, options.operations.receive, options.operations.send) = (false, false, false);
    (options.operations.read, options.operations.files) = (false, false);
    options
}

fn passes(options: IoUringOptions, rows_min: usize, put: impl Fn(Suite<'_>) -> Report) {
    let make = || IoUring::with_options(options).expect("this kernel has io_uring");
    let report = put(Suite::new(|| Box::new(make())));
    println!("{report}");
    assert!(report.is_passed(), "{report}");
    assert_rows(&report, rows_min);
}

#[test]
fn a_ring_of_eight_with_eight_buffers_of_64_bytes_passes() {
    passes(tight(), QUICK_ROWS_MIN, |suite| suite.moves_little().quick().run());
}

#[test]
fn without_buffers_used_in_pieces_it_passes_too() {
    passes(tight_and_whole(), QUICK_ROWS_MIN, |suite| suite.moves_little().quick().run());
}

#[test]
fn a_kernel_without_operations_for_streams_passes() {
    passes(by_calls(), QUICK_ROWS_MIN, |suite| suite.quick().run());
}

#[test]
#[ignore = "slow rows: the slow tests of .ci/run have them"]
fn each_size_passes_the_slow_rows_too() {
    for options in [tight(), tight_and_whole()] {
        passes(options, ROWS_MIN, |suite| suite.moves_little().run());
    }
    passes(by_calls(), ROWS_MIN, |suite| suite.run());
}
