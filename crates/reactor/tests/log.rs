//! The log of `auto` when it passes an engine over: one line with the engine's name and the reason.
#![cfg(all(target_os = "linux", feature = "tracing"))]
#![allow(unsafe_code)]

use std::{cell::RefCell, fmt, io, sync::Once};

use reactor::{Runtime, RuntimeOptions, engine::Engine};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

thread_local! {
    /// The events of this thread, because tests run in parallel.
    static LINES: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) };
}

/// Keeps each event as a line.
struct Keep;

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0 += &format!("{}={value:?} ", field.name());
    }
}

impl Subscriber for Keep {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        LINES.with_borrow_mut(|lines| lines.push((*event.metadata().level(), line.0)));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// Opens an engine with `make` as the first candidate. Returns the engine's name and this thread's log.
fn opened(
    name: &'static str,
    make: fn() -> io::Result<Box<dyn Engine>>,
) -> (&'static str, Vec<(Level, String)>) {
    static KEPT: Once = Once::new();
    KEPT.call_once(|| tracing::subscriber::set_global_default(Keep).expect("it is the first"));
    let mut options = RuntimeOptions::default();
    options.engine = Some("auto".to_owned());
    options.candidates = options.candidates.with(name, make);
    let runtime = Runtime::with_options(options).expect("another opens");
    (runtime.engine_name(), LINES.take())
}

#[track_caller]
fn assert_passed_over((engine, lines): (&str, Vec<(Level, String)>), name: &str, why: &str) {
    assert_eq!(engine, "epoll");
    let warnings: Vec<_> = lines.iter().filter(|(level, _)| *level == Level::WARN).collect();
    let [(_, line)] = warnings[..] else { panic!("one warning, and not {lines:?}") };
    for part in ["engine passed over", name, why] {
        assert!(line.contains(part), "{line} has {part}");
    }
    assert!(
        lines.iter().any(|(_, line)| line.contains("runtime opened") && line.contains("epoll")),
        "{lines:?}"
    );
}

#[test]
fn an_engine_that_does_not_open_is_passed_over_with_one_line() {
    let outcome = opened("broken", || Err(io::Error::from_raw_os_error(libc::ENOSYS)));
    assert_passed_over(outcome, "broken", "Function not implemented");
}

#[test]
fn an_engine_that_opens_is_no_warning() {
    let make: fn() -> _ =
        || reactor::engine::Candidates::default().open(Some("epoll")).map_err(io::Error::other);
    let (engine, lines) = opened("epoll", make);
    assert_eq!(engine, "epoll");
    assert!(lines.iter().all(|(level, _)| *level > Level::WARN), "{lines:?}");
}

#[cfg(feature = "io-uring")]
mod io_uring {
    use reactor::engine::IoUring;

    use super::{assert_passed_over, opened};

    fn make() -> std::io::Result<Box<dyn reactor::engine::Engine>> {
        Ok(Box::new(IoUring::new()?))
    }

    /// Makes the kernel refuse io_uring_setup(2) to this thread from now on, as a container's filter does.
    fn refuse_io_uring() {
        let statement = |code: u32, k: u32, jf: u8| libc::sock_filter { code: code as u16, jt: 0, jf, k };
        let filter = [
            // The number of the call is the first field of seccomp_data.
            statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
            statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::SYS_io_uring_setup as u32, 1),
            statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32, 0),
            statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0),
        ];
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
        // SAFETY: the call takes no pointer.
        assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
        // SAFETY: the program and its instructions outlive the call.
        let result =
            unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }

    #[test]
    fn a_ring_that_a_sandbox_refuses_is_passed_over_with_one_line() {
        let thread = std::thread::spawn(|| {
            refuse_io_uring();
            opened("io_uring", make)
        });
        let outcome = thread.join().expect("it did not panic");
        assert_passed_over(outcome, "io_uring", "the kernel has no io_uring_setup(2)");
    }
}
