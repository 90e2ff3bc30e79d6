//! The network that doubles share: its handle, its lock, and what closes what is dropped.

use std::{
    fmt, io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use reactor::{
    Address, Time, ToAddress,
    engine::{Ending, Transport, TransportGuard},
};

use super::{
    engine::Double,
    feed::Feed,
    peer::Peer,
    state::{Holder, State},
    tuning::Tuning,
};

/// Connections, listeners, virtual sources and a clock, shared by doubles, peers and feeds.
///
/// A clone is the same network. It may be used from any thread.
#[derive(Clone)]
pub struct Network {
    pub(super) shared: Arc<Shared>,
}

/// The state and its lock, and what those who wait for it wait on.
pub(super) struct Shared {
    state: Mutex<State>,
    moved: Condvar,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and lets everybody look at it again.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state);
        state.version += 1;
        #[cfg(unix)]
        let dropped = std::mem::take(&mut state.dropped);
        drop(state);
        self.notify();
        #[cfg(unix)]
        drop(dropped);
        result
    }

    pub(super) fn notify(&self) {
        self.moved.notify_all();
    }

    /// Waits until something changed.
    pub(super) fn sleep<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.moved.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to an end or a listener; dropping it closes that.
pub(super) struct Lease {
    /// One that is under way is in there.
    pub(super) shared: Weak<Shared>,
    pub(super) number: u64,
    how: Ending,
}

impl TransportGuard for Lease {
    fn reset_at_drop(&mut self) {
        self.how = Ending::Reset;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else { return };
        shared.change(|state| state.close(self.number, self.how));
    }
}

impl Network {
    /// Makes an empty network.
    pub fn new(tuning: Tuning) -> Network {
        let state = Mutex::new(State::new(tuning.sane()));
        Network { shared: Arc::new(Shared { state, moved: Condvar::new() }) }
    }

    /// Makes an engine, with the network's tuning; its chance differs from that of the others.
    pub fn double(&self) -> Double {
        Double::new(self)
    }

    /// Makes a virtual source, open, with nothing to read and no room for output.
    pub fn source(&self) -> Feed {
        Feed::new(&self.shared)
    }

    /// Connects a peer, at once.
    ///
    /// # Errors
    /// ECONNREFUSED when nobody listens or the listener's queue is full; `InvalidInput` for a text that is
    /// no address.
    pub fn connect(&self, to: impl ToAddress) -> io::Result<Peer> {
        Peer::connect(&self.shared, &to.to_address()?)
    }

    /// The virtual time; any double of the network tells the same.
    pub fn now(&self) -> Time {
        self.shared.lock().now
    }

    /// Moves the clock forward, and wakes whoever waited for a moment that has come.
    pub fn advance(&self, by: Duration) {
        self.shared.change(|state| state.now = state.now + by);
    }

    /// Stops the clock until the guard is dropped: waits then block, whatever their timeout.
    ///
    /// For tests whose own thread works beside reactors: otherwise an idle reactor's clock jumps to its
    /// next deadline while the test is still preparing what should come before it.
    pub fn hold(&self) -> Hold {
        self.shared.change(|state| state.holds += 1);
        Hold { network: self.clone() }
    }

    /// Limits how many transports can be open; `None` is no limit. At the limit `listen` and `connect`
    /// fail with EMFILE, and listeners tell [`NotAccepted`](reactor::engine::Event::NotAccepted) with it.
    pub fn limit_transports(&self, most: Option<usize>) {
        self.shared.change(|state| state.transports_max = most);
    }

    /// What is open now. After a test, it should be nothing.
    pub fn leaks(&self) -> Report {
        let state = self.shared.lock();
        let mut report = Report { buffers: state.buffers_lost, ..Report::default() };
        for listener in state.listeners.values() {
            report.transports.push(format!("listener at {}", listener.address));
        }
        for socket in state.sockets.values() {
            report.transports.push(format!("socket at {}", socket.address));
        }
        for end in state.ends.values() {
            match end.holder {
                Holder::Transport => report.transports.push(format!("stream {} to {}", end.local, end.peer)),
                Holder::Queue => report.waiting += 1,
                Holder::Peer => report.peers += 1,
                Holder::Nobody => {}
            }
        }
        report.sources = state.feeds.values().filter(|feed| feed.watched).count();
        report.buffers += state.doubles.values().map(|double| double.counters.lent()).sum::<usize>();
        report
    }

    pub(super) fn transport(&self, number: u64) -> Transport {
        Transport::hosted(
            number,
            Lease { shared: Arc::downgrade(&self.shared), number, how: Ending::Orderly },
        )
    }

    pub(super) fn address_of(&self, number: u64, local: bool) -> io::Result<Address> {
        let state = self.shared.lock();
        if let Some(socket) = state.sockets.get(&number) {
            let peer = socket.peer.clone().ok_or_else(|| super::fault::error(io::ErrorKind::NotConnected));
            return if local { Ok(socket.address.clone()) } else { peer };
        }
        match (state.ends.get(&number), state.listeners.get(&number)) {
            (Some(end), _) => Ok(if local { end.local.clone() } else { end.peer.clone() }),
            (None, Some(listener)) if local => Ok(listener.address.clone()),
            (None, Some(_)) => Err(super::fault::error(io::ErrorKind::NotConnected)),
            (None, None) => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Network({})", self.leaks())
    }
}

/// Keeps a network's clock where it is; dropping it lets the clock jump again.
#[derive(Debug)]
pub struct Hold {
    network: Network,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.network.shared.change(|state| state.holds -= 1);
    }
}

/// What is open in a network.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Listeners and stream ends that a transport holds, described.
    pub transports: Vec<String>,
    /// Connections that wait to be accepted.
    pub waiting: usize,
    /// Stream ends that a [`Peer`] holds.
    pub peers: usize,
    /// Buffers that are lent, or were when their double was dropped.
    pub buffers: usize,
    /// Virtual sources that are watched.
    pub sources: usize,
}

impl Report {
    /// Whether no engine left anything behind. Peers are the test's own, and do not count.
    pub fn is_clean(&self) -> bool {
        Report { peers: 0, ..self.clone() } == Report::default()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "transports {:?}, waiting {}, peers {}, buffers lent {}, sources watched {}",
            self.transports, self.waiting, self.peers, self.buffers, self.sources
        )
    }
}
