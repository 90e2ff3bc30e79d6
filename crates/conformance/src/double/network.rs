//! The network that doubles share: its handle, its lock, and the guard that closes dropped transports.

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

/// The state, its lock, and the condition variable for changes.
pub(super) struct Shared {
    state: Mutex<State>,
    moved: Condvar,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and wakes all waiting threads.
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

    /// Waits until the state changes.
    pub(super) fn sleep<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.moved.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ownership of an end or a listener. A drop closes it.
pub(super) struct Lease {
    /// The network. A transport in flight lies in the state itself, so the reference is weak.
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

    /// Makes an engine with the network's tuning. Its random numbers differ from those of the others.
    pub fn double(&self) -> Double {
        Double::new(self)
    }

    /// Makes an open virtual source, with nothing to read and no room for output.
    pub fn source(&self) -> Feed {
        Feed::new(&self.shared)
    }

    /// Connects a peer at once.
    ///
    /// # Errors
    /// ECONNREFUSED if nobody listens or the listener's queue is full, and `InvalidInput` if the text is not
    /// an address.
    pub fn connect(&self, to: impl ToAddress) -> io::Result<Peer> {
        Peer::connect(&self.shared, &to.to_address()?)
    }

    /// Returns the virtual time, which is the same for all doubles of the network.
    pub fn now(&self) -> Time {
        self.shared.lock().now
    }

    /// Moves the clock forward, and wakes the waits whose deadline has passed.
    pub fn advance(&self, by: Duration) {
        self.shared.change(|state| state.now = state.now + by);
    }

    /// Stops the clock until the guard is dropped. In the meantime waits block, whatever their timeout.
    ///
    /// This is for tests whose own thread works in parallel with reactors. Without it, an idle reactor's
    /// clock jumps to its next deadline while the test still prepares the events before that deadline.
    pub fn hold(&self) -> Hold {
        self.shared.change(|state| state.holds += 1);
        Hold { network: self.clone() }
    }

    /// Limits how many transports can be open. `None` means no limit. At the limit `listen` and `connect`
    /// fail with EMFILE, and listeners report it with [`NotAccepted`](reactor::engine::Event::NotAccepted).
    pub fn limit_transports(&self, most: Option<usize>) {
        self.shared.change(|state| state.transports_max = most);
    }

    /// Lists the open objects. After a test there should be none.
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

/// A guard that stops a network's clock. After its drop, the clock can jump again.
#[derive(Debug)]
pub struct Hold {
    network: Network,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.network.shared.change(|state| state.holds -= 1);
    }
}

/// The open objects of a network.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// A description of each listener, socket and stream end that a transport holds.
    pub transports: Vec<String>,
    /// Connections that wait to be accepted.
    pub waiting: usize,
    /// Stream ends that a [`Peer`] holds.
    pub peers: usize,
    /// Buffers that are lent now, or were lent when their double was dropped.
    pub buffers: usize,
    /// Virtual sources that are watched.
    pub sources: usize,
}

impl Report {
    /// Reports whether no engine leaked anything. Peers belong to the test, and do not count.
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
