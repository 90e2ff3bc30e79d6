//! A turn of the engine: what is asked for goes to the kernel, and what came back is looked at.

use std::{io, time::Duration};

use super::{
    IoUring,
    operation::{Kind, Tag},
    ring::{Completion, Entered},
    table::{GREEDY, Place},
};
use crate::{
    engine::{Engine as _, Event},
    id::Key,
};

impl IoUring {
    /// Waits until there is something to tell, a wake, or the time is over.
    ///
    /// # Errors
    /// The ring is broken.
    pub(super) fn wait_for(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.is_woken = false;
        self.settle_down();
        (self.accepts_left, self.chunks_left, self.bytes_left) = (ACCEPTS_MAX, CHUNKS_MAX, BYTES_MAX);
        (self.turn, self.owes_greedy) = (self.turn.wrapping_add(1), true);
        let deadline = timeout.filter(|timeout| !timeout.is_zero()).map(|timeout| self.now() + timeout);
        let mut patience = timeout;
        for round in 0.. {
            if self.turn(patience)? {
                break;
            }
            // What came concerned the engine alone. What it wants to do next is tried even when time is up, and
            // so is what the kernel has left to tell: it tells a part at a time.
            patience = match deadline {
                Some(deadline) => Some(deadline.since(self.now())),
                None => timeout,
            };
            if patience == Some(Duration::ZERO) && round >= EXTRA_ROUNDS_MAX {
                break;
            }
        }
        Ok(())
    }

    /// Looks at one completion.
    #[inline]
    pub(super) fn complete(&mut self, completion: Completion) -> Option<(Key, Event)> {
        let Tag { kind, index, life } = Tag::from_bits(completion.user_data)?;
        match kind {
            Kind::Receive => self.received(index, completion),
            Kind::Send => self.sent(index, completion),
            Kind::Accept => {
                self.accepted(index, completion);
                None
            }
            Kind::Readable => self.readable(index, completion),
            Kind::Writable => self.writable(index),
            Kind::Watch => self.watched(index, completion),
            Kind::Wake => self.noticed_wake(),
            Kind::Mail => self.received_mail(index, completion),
            Kind::File => {
                self.advance_file(index, completion);
                None
            }
            Kind::Late => self.tell_late(Place { index, life }),
            Kind::HungUp => {
                self.noticed_hangup(index, completion);
                None
            }
            Kind::Cancel => None,
        }
    }

    /// The next event: what is there already, then connections, so that no input keeps them waiting, then what came
    /// back.
    #[inline]
    pub(super) fn pull(&mut self) -> Option<(Key, Event)> {
        loop {
            if let Some(told) = self.told.pop_front() {
                return Some(told);
            }
            while !self.held.is_empty() && self.accepts_left > 0 {
                if let Some(accepted) = self.release_held() {
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

    /// What is looked at next: greedy streams behind all others, but one of them in each turn.
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

    /// Takes what came back from the kernel. Accepts are looked at here, so that they do not wait behind input; says
    /// whether there were some.
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

    /// Whether there is something to tell without a wait.
    pub(super) fn has_events(&self) -> bool {
        !self.told.is_empty()
            || !self.held.is_empty()
            || !self.batch.is_empty()
            || !self.greedy.is_empty()
            || self.files.has_answers()
    }

    /// Queues what is due, enters the kernel once, and takes what came back. Whether the wait is over: with
    /// an event, a wake, or because nothing came.
    fn turn(&mut self, patience: Option<Duration>) -> io::Result<bool> {
        if !self.is_waker_read {
            self.read_waker();
        }
        self.arm_all();
        // Those who wait for a buffer are armed some at a time.
        let is_short = !self.starved.is_empty();
        let is_ready = is_short || self.has_events();
        let entered = self.ring.enter(if is_ready { Some(Duration::ZERO) } else { patience })?;
        if self.ring.is_taken() {
            self.headers.release();
        }
        let has_accepts = self.batch.len() < BATCH_MAX && self.reap();
        let is_empty = self.batch.is_empty() && self.greedy.is_empty() && !has_accepts;
        if let Some(event) = self.pull() {
            self.told.push_front(event);
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
        Ok(!self.told.is_empty() || self.files.has_answers() || self.is_woken || is_over)
    }
}

/// How many connections are told of in one batch, so that those that are there have their turn.
pub(super) const ACCEPTS_MAX: u32 = 16;
/// How many chunks one turn tells of. With more, what the first streams received would have left the caches when
/// it is sent.
const CHUNKS_MAX: usize = 64;
/// How many bytes in them, for the same reason; the chunk that passes the limit is told of whole.
const BYTES_MAX: usize = 256 << 10;
/// With so many completions that were not looked at, no more are taken from the kernel.
const BATCH_MAX: usize = 4096;
/// How long a kernel that takes nothing is left alone.
const BUSY_PAUSE: Duration = Duration::from_millis(1);
/// How often a wait whose time is up enters the kernel again for what the engine itself has to do.
const EXTRA_ROUNDS_MAX: u32 = 64;
