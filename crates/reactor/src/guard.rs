//! The guard around users' code that runs where a panic must not pass.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Calls users' code. A panic ends here, and so does a panic of the payload's own drop.
pub(crate) fn quietly(call: impl FnOnce()) {
    let Err(mut payload) = catch_unwind(AssertUnwindSafe(call)) else { return };
    for _ in 0..DROPS_MAX {
        match catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            Ok(()) => return,
            Err(another) => payload = another,
        }
    }
    // Each drop panics with the next payload: this one is leaked.
    mem::forget(payload);
}

/// How many payloads in a row may panic while they are dropped.
const DROPS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use std::panic::resume_unwind;

    use super::*;

    struct Bomb(u32);

    impl Drop for Bomb {
        fn drop(&mut self) {
            if self.0 > 0 {
                resume_unwind(Box::new(Bomb(self.0 - 1)));
            }
        }
    }

    #[test]
    fn a_payload_whose_drop_panics_ends_here_as_well() {
        for depth in [0, 1, DROPS_MAX as u32 - 1, DROPS_MAX as u32, DROPS_MAX as u32 + 1] {
            quietly(|| resume_unwind(Box::new(Bomb(depth))));
        }
    }
}
