//! The kit must fail wrong layers. Each mutant breaks one promise, and the suite for that promise notices.

use std::panic::{AssertUnwindSafe, catch_unwind};

use session::kit::{self, Toy};
use session::{Io, Layer, Next, Result, Step};

/// The mistake of a mutant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// Seals only the first 16 KiB of the bytes that it claims to have taken.
    SealsLess,
    /// Claims to have taken more than it was given.
    TakesMore,
    /// Takes no byte of a large item.
    TakesNothing,
    /// Holds the last bytes of a large item back until the next one.
    HoldsBack,
    /// Loses the end of large items.
    LosesTail,
    /// Waits although a complete record is left.
    WaitsTooSoon,
    /// Claims to have used more than it was given.
    UsesMore,
    /// Asks for another step for ever.
    NeverWaits,
    /// Trusts the length of a record without checking it against the input.
    Indexes,
    /// Delivers a byte of any input before it has checked the record.
    TrustsAll,
    /// Accepts any end as authentic.
    EndsAnyhow,
    /// Sends no end.
    NeverFinishes,
    /// Delivers a short item only together with a longer one, or at the end.
    Waits,
}

/// A toy with one mistake, or none.
struct Mutant {
    toy: Toy,
    wrong: Wrong,
    kept: Vec<u8>,
}

impl Layer for Mutant {
    const INPUT_MAX: usize = Toy::INPUT_MAX;

    fn start(&mut self, io: &mut Io<'_>) -> Result {
        self.toy.start(io)
    }

    fn ready(&self) -> bool {
        self.toy.ready()
    }

    fn open(&mut self, input: &mut [u8], io: &mut Io<'_>) -> Result<Step> {
        if self.wrong == Wrong::Indexes && self.ready() && input.len() > 2 {
            let len = u16::from_be_bytes([input[1], input[2]]) as usize;
            let _ = input[..3 + len].len();
        }
        if self.wrong == Wrong::TrustsAll && self.ready() && !input.is_empty() {
            io.up.extend_from_slice(&input[..1]);
        }
        let had = io.up.len();
        let mut step = self.toy.open(input, io)?;
        match self.wrong {
            Wrong::LosesTail => io.up.truncate(had + 1_000),
            Wrong::WaitsTooSoon if step.next == Next::Again && io.up.len() > had => step.next = Next::Wait,
            Wrong::UsesMore if step.used > 1_000 => step.used += 10_000_000,
            Wrong::Waits => {
                self.kept.extend(io.up.drain(had..));
                if self.kept.len() > 100 || step.next == Next::End {
                    io.up.append(&mut self.kept);
                }
            }
            Wrong::NeverWaits if self.ready() && step.next == Next::Wait => step.next = Next::Again,
            _ => (),
        }
        Ok(step)
    }

    fn seal(&mut self, clear: &[u8], io: &mut Io<'_>) -> Result<usize> {
        let is_large = clear.len() > 10_000;
        match self.wrong {
            Wrong::SealsLess => {
                let mut at = 0;
                while at < clear.len().min(16 << 10) {
                    at += self.toy.seal(&clear[at..clear.len().min(16 << 10)], io)?;
                }
                Ok(clear.len())
            }
            Wrong::TakesMore if is_large => Ok(clear.len() + 1),
            Wrong::TakesNothing if is_large => Ok(0),
            Wrong::HoldsBack => {
                self.kept.extend_from_slice(clear);
                let now = if is_large { self.kept.len() - 5 } else { self.kept.len() };
                let mut at = 0;
                while at < now {
                    at += self.toy.seal(&self.kept[at..now], io)?;
                }
                self.kept.drain(..now);
                Ok(clear.len())
            }
            _ => self.toy.seal(clear, io),
        }
    }

    fn finish(&mut self, io: &mut Io<'_>) -> Result {
        if self.wrong == Wrong::NeverFinishes { Ok(()) } else { self.toy.finish(io) }
    }

    fn end(&mut self, left: &[u8]) -> Result {
        if self.wrong == Wrong::EndsAnyhow { Ok(()) } else { self.toy.end(left) }
    }
}

fn mutants(wrong: Wrong) -> impl Fn() -> (Mutant, Mutant) {
    move || {
        let mutant = |toy| Mutant { toy, wrong, kept: Vec::new() };
        (mutant(Toy::client(1)), mutant(Toy::server(2)))
    }
}

/// Frames with a length of four bytes, of at most 16 KiB. No secret, no handshake.
struct Frames<const INPUT_MAX: usize>;

impl<const MAX: usize> Layer for Frames<MAX> {
    const INPUT_MAX: usize = MAX;

    fn ready(&self) -> bool {
        true
    }

    fn open(&mut self, input: &mut [u8], io: &mut Io<'_>) -> Result<Step> {
        let len = input.first_chunk().map(|len| u32::from_be_bytes(*len) as usize);
        match len.map(|len| input.get(4..4 + len)) {
            Some(Some(body)) => {
                io.up.extend_from_slice(body);
                Ok(Step { used: 4 + body.len(), next: Next::Again })
            }
            _ => Ok(Step { used: 0, next: Next::Wait }),
        }
    }

    fn seal(&mut self, clear: &[u8], io: &mut Io<'_>) -> Result<usize> {
        let body = &clear[..clear.len().min(FRAME)];
        io.down.put(&(body.len() as u32).to_be_bytes());
        io.down.put(body);
        Ok(body.len())
    }
}

const FRAME: usize = 16 << 10;

/// Returns the suite's message if it notices the mistake.
fn noticed(suite: impl FnOnce()) -> Option<String> {
    let payload = catch_unwind(AssertUnwindSafe(suite)).err()?;
    let text = payload.downcast_ref::<String>().cloned();
    Some(text.unwrap_or_else(|| "a panic without a text".to_owned()))
}

#[track_caller]
fn must_notice(what: impl std::fmt::Debug, suite: impl FnOnce()) {
    assert!(noticed(suite).is_some(), "nobody noticed {what:?}");
}

#[test]
fn the_toy_itself_passes_in_the_mutants_coat() {
    let make = mutants(Wrong::Nothing);
    kit::every_cut(&make);
    kit::bulk(&make);
    assert_eq!(kit::flips(&make).harmless, 0);
    assert_eq!(kit::truncations(&make), 0);
    let garbage = kit::garbage(&make);
    assert_eq!(garbage.forged, 0);
    assert_eq!(garbage.runs, 800);
    assert!(garbage.refused > garbage.runs * 9 / 10, "{garbage:?}");
}

#[test]
fn large_items_show_what_small_ones_hide() {
    use Wrong::*;
    for wrong in
        [SealsLess, TakesMore, TakesNothing, HoldsBack, LosesTail, WaitsTooSoon, UsesMore, NeverWaits]
    {
        must_notice(wrong, || kit::bulk(mutants(wrong)));
    }
    // The suite exists for these mutants, because the other suites pass them.
    for wrong in [SealsLess, HoldsBack] {
        let make = mutants(wrong);
        assert_eq!(noticed(|| _ = kit::every_cut(&make)), None, "{wrong:?}");
        assert_eq!(noticed(|| _ = kit::truncations(&make)), None, "{wrong:?}");
    }
}

#[test]
fn a_bound_below_one_record_is_noticed() {
    let frames = || (Frames::<{ FRAME + 3 }>, Frames::<{ FRAME + 3 }>);
    kit::bulk(frames);
    kit::every_cut(frames);
    let bounded = || (Frames::<{ FRAME + 2 }>, Frames::<{ FRAME + 2 }>);
    kit::every_cut(bounded);
    let text = noticed(|| kit::bulk(bounded)).expect("a record does not fit");
    assert!(text.contains("16388") || text.contains("16387"), "{text}");
}

#[test]
fn garbage_shows_panics_forgeries_and_bounds_that_are_none() {
    must_notice(Wrong::Indexes, || _ = kit::garbage(mutants(Wrong::Indexes)));
    assert!(kit::garbage(mutants(Wrong::TrustsAll)).forged > 50);
    must_notice("no bound", || _ = kit::garbage(|| (Frames::<{ usize::MAX }>, Frames::<{ usize::MAX }>)));
    let garbage = kit::garbage(|| (Frames::<{ 2 * FRAME }>, Frames::<{ 2 * FRAME }>));
    assert!(garbage.forged > 0, "nothing is authenticated there: {garbage:?}");
}

#[test]
fn wrong_ends_are_noticed() {
    for wrong in [Wrong::EndsAnyhow, Wrong::NeverFinishes] {
        must_notice(wrong, || _ = kit::truncations(mutants(wrong)));
    }
    must_notice(Wrong::NeverFinishes, || _ = kit::every_cut(mutants(Wrong::NeverFinishes)));
}

#[test]
fn a_greeting_that_comes_late_is_noticed() {
    must_notice(Wrong::Waits, || _ = kit::every_cut(mutants(Wrong::Waits)));
    // Everything arrives in the end.
    assert_eq!(noticed(|| _ = kit::truncations(mutants(Wrong::Waits))), None);
}
