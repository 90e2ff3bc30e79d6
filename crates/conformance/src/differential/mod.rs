//! The differential test: one script of operations, played on several engines, must be told the same.
//!
//! A [`Script`] is drawn from a seed: connections, sends of many sizes, pauses, releases, half-closes, closes,
//! resets, deadlines, refused connects, timers, messages. One service plays it over a runtime on any engine, and
//! notes what its handlers are told: a [`Trace`]. Two traces of one script are then [compared](Trace::compare);
//! the first event that differs is a [`Difference`], which names the seed and both engines.
//!
//! # What may differ, and why
//!
//! The service does the next step of a connection when it was told everything that the last one led to, so causality
//! fixes most of what it is told. What it does not fix is left out of the comparison, or compared as far as it is
//! fixed:
//!
//! * **Between two resources nothing is promised.** Traces are compared for each end of a connection, each group of
//!   timers, the messages, each refused connect by itself.
//! * **Where bytes are cut is nobody's business.** A stream is a sequence of bytes; into how many pieces it falls
//!   depends on buffers and on the moment of a read. So [`Entry::Step`], [`Entry::End`] and [`Entry::Closed`] carry
//!   how many bytes had come by then, with their digest, and the pieces are not compared. For the same reason it is
//!   not compared how many of the bytes under way came before a release, and how many after the `add`: between these
//!   two events no count is noted.
//! * **`Drained` may come or not.** Whether a queue passes its high mark depends on how much the system takes at once.
//!   That it is told only to those who were answered `High` is checked in each trace by itself.
//! * **What was under way when a connection was reset, or when its own end closed, may be lost.** A reset
//!   destroys what the receiver has not read, and after `close` no input is told. Such an end carries no count; but what
//!   it was told must be a right beginning of what was sent, and not shorter than at the last step.
//! * **A connect that is closed or aborted in the same call may be accepted or not.** When the listener looks, it may
//!   be gone already. What is told of the accepted end is not compared, but that it says nothing; and there are no more
//!   such ends than such connects.
//! * **A reset has several names.** Whether a read or a write finds it first decides between ECONNRESET, EPIPE and
//!   ECONNABORTED; they are compared as one reason, `Failed(reset)`.
//! * **Time is not compared**, only the order of timers that were set in one call: by deadline, and of one instant in
//!   the order set. None may be early by the runtime's own clock.
//!
//! Everything else is compared: `Open` and `End` and `closed` of each life with the reason, every byte at every step,
//! and that nothing comes after what must be last.
//!
//! ```
//! use conformance::{differential::Script, double::{Network, Tuning}};
//! let script = Script::draw(7, 3);
//! let roomy = script.play(Box::new(Network::new(Tuning::roomy(1)).double()));
//! let tight = script.play(Box::new(Network::new(Tuning::tight(2)).double()));
//! assert!(roomy.compare(&tight).is_ok());
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
