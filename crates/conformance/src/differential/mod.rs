//! The differential test: one script of operations, played on several engines, must cause the same events.
//!
//! A [`Script`] is drawn from a seed. It contains connections, sends of many sizes, pauses, releases,
//! half-closes, closes, resets, deadlines, refused connects, timers, and messages. One service plays it over
//! a runtime on any engine, and records the events of its handlers in a [`Trace`]. Two traces of one script
//! are then [compared](Trace::compare). The first event that differs is a [`Difference`], which names the
//! seed and both engines.
//!
//! # Permitted differences
//!
//! The service takes the next step of a connection once it has received all effects of the last one, so
//! causality fixes most of the events. The comparison leaves out the rest, or compares only the fixed part of
//! it:
//!
//! * **The order of events on two resources is not promised.** The comparison treats each end of a
//!   connection, each group of timers, the messages, and each refused connect separately.
//! * **The boundaries between pieces of input do not matter.** A stream is a sequence of bytes, and the
//!   number of pieces depends on buffers and on the moment of a read. So [`Entry::Step`], [`Entry::End`] and
//!   [`Entry::Closed`] carry the number of bytes so far, with their digest, and the pieces are not compared.
//!   For the same reason, the comparison ignores how many of the bytes in flight arrive before a release, and
//!   how many after the `add`: no count is recorded between these two events.
//! * **`Drained` may arrive or not.** Whether a queue passes its high mark depends on how much the system
//!   takes at once. Each trace by itself checks that `Drained` arrives only after a send returned `High`.
//! * **Bytes in flight may be lost when a connection is reset, or when the receiving end closes.** A reset
//!   destroys the bytes that the receiver has not read, and after `close` the runtime delivers no input. Such
//!   an end carries no count. However, its input must be a prefix of the sent bytes, and not shorter than at
//!   the last step.
//! * **A connect that the service closes or aborts in the same call may be accepted or not.** The connection
//!   may already be gone when the listener looks. The events of the accepted end are not compared, but the
//!   end must not receive any bytes. There must be no more such ends than such connects.
//! * **A reset has several names.** The error is ECONNRESET, EPIPE or ECONNABORTED, depending on whether a
//!   read or a write finds the reset first. All compare as one reason, `Failed(reset)`.
//! * **Time is not compared**, only the order of timers that were set in one call: by deadline, and timers of
//!   one instant in the order in which they were set. None may be early by the runtime's own clock.
//!
//! Everything else is compared: `Open`, `End` and `closed` of each life with the reason, every byte at every
//! step, and that no event follows a final one.
//!
//! ```
//! use conformance::differential::Script;
//! let script = Script::draw(7, 3);
//! let roomy = script.play(Box::new(sim::World::new(1).engine()));
//! let harsh = script.play(Box::new(conformance::harsh(2).engine()));
//! assert!(roomy.compare(&harsh).is_ok());
//! ```

mod content;
mod link;
mod play;
mod player;
mod script;
mod trace;

pub use self::{
    content::Got,
    script::Script,
    trace::{Difference, Entry, Trace},
};
