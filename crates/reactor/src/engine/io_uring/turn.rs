//! A turn of the engine: hands requests to the kernel, and handles completions.

use std::{io, time::Duration};

use super::{
    IoUring,
    operation::{Kind, Tag},
    ring::{Completion, Entered},
    table::{EntryRef, GREEDY},
};
use crate::{clock::monotonic, engine::Event, id::Key};

impl IoUring {
    /// Waits until there is an event or a wake, or the timeout is over.
    ///
    /// # Errors
    /// The ring is broken.
    pub(super) fn wait_for(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.is_woken = false;
        self.settle_down();
        (self.accepts_left, self.chunks_left, self.bytes_left) = (ACCEPTS_MAX, CHUNKS_MAX, BYTES_MAX);
        (self.turn, self.owes_greedy) = (self.turn.wrapping_add(1), true);
        let deadline = timeout.filter(|timeout| !timeout.is_zero()).map(|timeout| monotonic() + timeout);
        let mut patience = timeout;
        for round in 0.. {
            if self.turn(patience)? {
                break;
            }
            // The completions concerned only the engine itself. Even when time is up, try the engine's next
            // step and take the kernel's remaining completions, because the kernel reports them in parts.
            patience = match deadline {
                Some(deadline) => Some(deadline.since(monotonic())),
                None => timeout,
            };
            if patience == Some(Duration::ZERO) && round >= EXTRA_ROUNDS_MAX {
                break;
            }
        }
        Ok(())
    }

    /// Handles one completion.
    #[inline]
    pub(super) fn complete(&mut self, completion: Completion) -> Option<(Key, Event)> {
        let Tag { kind, index, life } = Tag::from_bits(completion.user_data)?;
        match kind {
            Kind::Receive => self.received(index, completion),
            Kind::Send => self.sent(index, completion),
            Kind::Accept => {
                self.on_accepted(index, completion);
                None
            }
            Kind::Readable => self.readable(index, completion),
            Kind::Writable => self.writable(index),
            Kind::Watch => self.watched(index, completion),
            Kind::Wake => self.noticed_wake(),
            Kind::RecvMsg => self.on_recvmsg(index, completion),
            Kind::File => {
                self.advance_file(index, completion);
                None
            }
            Kind::Late => self.report_late(EntryRef { index, life }),
            Kind::HungUp => {
                self.noticed_hangup(index, completion);
                None
            }
            Kind::Cancel => None,
        }
    }

    /// Returns the next event: first queued events, then connections, so that no input keeps them waiting,
    /// and then completions.
    #[inline]
    pub(super) fn pull(&mut self) -> Option<(Key, Event)> {
        loop {
            if let Some(queued) = self.queued.pop_front() {
                return Some(queued);
            }
            while !self.accepted.is_empty() && self.accepts_left > 0 {
                if let Some(accepted) = self.next_accepted() {
                    return Some(accepted);
                }
            }
            let completion = self.next_completion()?;
            if let Some((key, mut event)) = self.complete(completion) {
                if let Event::Got(chunk) = &mut event {
                    self.bytes_left = self.bytes_left.saturating_sub(chunk.bytes().len());
                    self.chunks_left = if self.bytes_left == 0 { 0 } else { self.chunks_left - 1 };
                }
                return Some((key, event));
            }
        }
    }

    /// Returns the next completion to handle: greedy streams after all others, but one of them in each turn.
    #[inline]
    fn next_completion(&mut self) -> Option<Completion> {
        while self.chunks_left > 0
            && let Some(completion) = self.batch.pop_front()
        {
            if !(Tag::is_of(Kind::Readable, completion.user_data) && self.is_greedy(completion)) {
                return Some(completion);
            }
            self.greedy.push_back(completion);
        }
        if self.chunks_left == 0 && !self.owes_greedy {
            return None;
        }
        self.owes_greedy = false;
        self.greedy.pop_front()
    }

    #[cold]
    fn is_greedy(&self, completion: Completion) -> bool {
        let index = completion.user_data as u32;
        self.table.get(index).is_some_and(|entry| entry.has(GREEDY))
    }

    /// Takes completions from the kernel. Handles accepts here, so that they do not wait behind input, and
    /// returns whether there were some.
    pub(super) fn reap(&mut self) -> bool {
        let mut accepts = std::mem::take(&mut self.accepts);
        self.ring.reap(&mut self.batch, &mut accepts);
        let has_accepts = !accepts.is_empty();
        for completion in accepts.drain(..) {
            self.complete(completion);
        }
        self.accepts = accepts;
        has_accepts
    }

    /// Returns whether there is something to report without a wait.
    pub(super) fn has_events(&self) -> bool {
        !self.queued.is_empty()
            || !self.accepted.is_empty()
            || !self.batch.is_empty()
            || !self.greedy.is_empty()
            || self.files.has_answers()
    }

    /// Queues due operations, enters the kernel once, and takes completions. Returns whether the wait is
    /// over: because of an event or a wake, or because nothing came.
    fn turn(&mut self, patience: Option<Duration>) -> io::Result<bool> {
        if !self.is_waker_read {
            self.read_waker();
        }
        self.arm_all();
        // Entries that wait for a buffer are armed a few at a time.
        let is_short = !self.starved.is_empty();
        let is_ready = is_short || self.has_events();
        let entered = self.ring.enter(if is_ready { Some(Duration::ZERO) } else { patience })?;
        if self.ring.is_taken() {
            self.headers.release();
        }
        let has_accepts = self.batch.len() < BATCH_MAX && self.reap();
        let is_empty = self.batch.is_empty() && self.greedy.is_empty() && !has_accepts;
        if let Some(event) = self.pull() {
            self.queued.push_front(event);
        }
        let is_over = match entered {
            _ if self.chunks_left == 0 => true,
            Entered::Done => is_empty && !is_short && !self.ring.has_backlog(),
            Entered::Interrupted => true,
            Entered::Busy => is_empty,
        };
        if entered == Entered::Busy && is_over && patience != Some(Duration::ZERO) {
            std::thread::sleep(BUSY_PAUSE.min(patience.unwrap_or(BUSY_PAUSE)));
        }
        Ok(!self.queued.is_empty() || self.files.has_answers() || self.is_woken || is_over)
    }
}

/// The most connections that one batch reports, so that other events have their turn.
pub(super) const ACCEPTS_MAX: u32 = 16;
/// The most chunks that one turn delivers. With more, the input of the first streams would have left the
/// caches by the time it is sent.
const CHUNKS_MAX: usize = 64;
/// The most bytes in these chunks, for the same reason. The chunk that passes the limit is delivered whole.
const BYTES_MAX: usize = 256 << 10;
/// With this many unhandled completions, the engine takes no more from the kernel.
const BATCH_MAX: usize = 4096;
/// The pause after the kernel takes nothing.
const BUSY_PAUSE: Duration = Duration::from_millis(1);
/// The most times that a wait whose time is up enters the kernel again for the engine's own work.
const EXTRA_ROUNDS_MAX: u32 = 64;
