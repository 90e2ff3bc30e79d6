//! Resources of your own: `cargo run --release --example timerfd [TICKS]` prints ticks of two timers.
//!
//! The kernel's timer descriptors stand for any resource that the library does not know. The first is
//! wrapped in a [`Resource`] with its own event type. The second is the same kind of descriptor as a plain
//! [`Fd`]: the runtime only reports that it is ready, and the service reads. Linux.

#[cfg(target_os = "linux")]
mod linux {
    use std::{fs::File, io, io::Read, os::fd::OwnedFd};

    use reactor::{Context, Fd, Handle, Id, Interest, Io, Pollable, Ready, Result, Service, Source};
    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };

    /// A timer of the kernel that expires periodically.
    struct Ticker(OwnedFd);

    /// How often the timer expired since the last read.
    struct Expired(u64);

    impl Pollable for Ticker {
        type Event<'a> = Expired;

        fn source(&self) -> Source<'_> {
            Source::of(&self.0)
        }

        fn step(&mut self, _: Ready, io: &mut Io<'_>, buffer: &mut [u8]) -> io::Result<Option<Expired>> {
            let (count, _) =
                buffer.split_first_chunk_mut::<8>().expect("the lent buffer is larger than this");
            io.read(self.source(), count)?;
            Ok(Some(Expired(u64::from_ne_bytes(*count))))
        }
    }

    /// Counts the ticks of both timers, and closes each at the limit.
    pub(crate) struct Clock {
        pub(crate) limit: u64,
        pub(crate) own: u64,
        pub(crate) plain: u64,
    }

    impl Service for Clock {
        fn start(&mut self, cx: &mut Context<Self>) -> Result {
            cx.add(Ticker(every_millis(20)?))?;
            cx.add(Fd::new(File::from(every_millis(30)?), Interest::Read))?;
            Ok(())
        }
    }

    impl Handle<Ticker> for Clock {
        fn handle(&mut self, cx: &mut Context<Self>, id: Id<Ticker>, Expired(times): Expired) -> Result {
            self.own += times;
            println!("ticker: {} of {}", self.own.min(self.limit), self.limit);
            if self.own >= self.limit {
                cx.close(id);
            }
            Ok(())
        }
    }

    impl Handle<Fd<File>> for Clock {
        fn handle(&mut self, cx: &mut Context<Self>, id: Id<Fd<File>>, _: Ready) -> Result {
            let mut count = [0; 8];
            let Some(timer) = cx.get_mut(id) else { return Ok(()) };
            timer.read_exact(&mut count)?;
            self.plain += u64::from_ne_bytes(count);
            println!("descriptor: {} of {}", self.plain.min(self.limit), self.limit);
            if self.plain >= self.limit {
                cx.close(id);
            }
            Ok(())
        }
    }

    fn every_millis(millis: i64) -> io::Result<OwnedFd> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let period = Timespec { tv_sec: 0, tv_nsec: millis * 1_000_000 };
        let setting = Itimerspec { it_interval: period, it_value: period };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &setting)?;
        Ok(timer)
    }
}

#[cfg(target_os = "linux")]
fn main() -> reactor::Result {
    let args = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned());
    let text = args.reduce(|all, more| format!("{all} {more}")).unwrap_or_else(|| "5".into());
    let Some(limit) = text.parse().ok().filter(|ticks| *ticks > 0) else {
        eprintln!("timerfd: `{text}` is not a number of ticks: write 1 or more");
        std::process::exit(2)
    };
    // `run` returns once both timers are closed, because nothing is left to wait for.
    reactor::run(linux::Clock { limit, own: 0, plain: 0 })?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("timerfd: timer descriptors need Linux");
    std::process::exit(2)
}
