//! The fuzz targets: each reads an input and panics if a parser breaks a rule.
//!
//! The fuzzer and the replay of the corpora call the same functions. A target must not depend on anything but
//! its input.

mod bytes;
mod core;
mod programs;
mod proxies;
mod streams;
mod world;

use programs::{date, head};

pub use core::{address, datagram, inotify, notice};
pub use programs::{gossip, http_request, numbered};
pub use proxies::{destination, http_connect, proxy_header, socks5};
pub use streams::{delimited, lines, link};
pub use world::plan;

/// A function that reads one input.
pub type Target = fn(&[u8]);

/// All targets by name. Each has a binary in `fuzz_targets/` and a folder in `corpus/`.
pub const TARGETS: &[(&str, Target)] = &[
    ("address", address),
    ("datagram", datagram),
    ("delimited", delimited),
    ("destination", destination),
    ("gossip", gossip),
    ("http_connect", http_connect),
    ("http_request", http_request),
    ("inotify", inotify),
    ("lines", lines),
    ("link", link),
    ("notice", notice),
    ("numbered", numbered),
    ("plan", plan),
    ("proxy_header", proxy_header),
    ("socks5", socks5),
];
