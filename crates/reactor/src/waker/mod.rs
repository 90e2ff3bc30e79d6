//! Wakers: they let another thread end a wait.
//!
//! A [`WakeSignal`] is a descriptor that becomes readable when any thread wakes it. Several wakes before a clear
//! coalesce into one. An `Arc` shares it, so a waker that outlives its engine is harmless: it wakes nobody. A
//! poll that watches it edge-triggered need not clear it, because each wake is a new edge.

#[cfg(any(target_os = "linux", target_os = "android"))]
mod eventfd;
#[cfg(any(test, not(any(target_os = "linux", target_os = "android"))))]
mod pair;

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use self::eventfd::WakeSignal;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) use self::pair::WakeSignal;

#[cfg(test)]
mod tests {
    use std::{os::fd::AsFd, sync::Arc, task::Waker};

    use socket2::SockRef;

    fn is_readable(fd: std::os::fd::BorrowedFd<'_>) -> bool {
        let mut poll =
            [libc::pollfd { fd: std::os::fd::AsRawFd::as_raw_fd(&fd), events: libc::POLLIN, revents: 0 }];
        crate::sys::poll(&mut poll, 0).expect("poll of one descriptor") == 1
    }

    macro_rules! suite {
        ($($mechanism:ident),*) => {$(
            #[test]
            fn $mechanism() {
                let signal = Arc::new(super::$mechanism::WakeSignal::new().expect("a signal"));
                let waker = Waker::from(Arc::clone(&signal));
                assert!(!is_readable(signal.fd()), "not woken yet");
                for _ in 0..3 {
                    waker.wake_by_ref();
                }
                assert!(is_readable(signal.fd()), "woken");
                signal.clear();
                assert!(!is_readable(signal.fd()), "three wakes were one");
                std::thread::scope(|scope| {
                    scope.spawn(|| waker.wake_by_ref()).join().expect("the waking thread did not panic")
                });
                assert!(is_readable(signal.fd()), "woken by another thread");
                drop(signal);
                waker.wake();
            }
        )*};
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    suite!(eventfd);
    suite!(pair);

    #[test]
    fn a_full_pair_swallows_wakes_and_is_cleared_whole() {
        let signal = Arc::new(super::pair::WakeSignal::new().expect("a signal"));
        let waker = Waker::from(Arc::clone(&signal));
        for _ in 0..100_000 {
            waker.wake_by_ref();
        }
        assert!(is_readable(signal.fd()));
        signal.clear();
        assert!(!is_readable(signal.fd()));
        assert!(SockRef::from(&signal.fd().as_fd()).nonblocking().expect("its flags"));
    }
}
