//! How a resource leaves its runtime, if it does.

/// How a resource leaves its runtime. A close gives it back as ended; a release gives it back whole, unless a
/// close overtakes it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub(crate) enum Exit {
    #[default]
    Stays,
    /// It closes in order. Its owner keeps the reason.
    Closing,
    /// Its service takes it back. What is under way ends first.
    Releasing,
    /// The engine was asked to give the transport back.
    Detaching,
    /// The engine has given the transport back.
    Detached,
}

impl Exit {
    /// Returns whether it is on its way out of its runtime.
    #[inline]
    pub(crate) fn is_leaving(self) -> bool {
        self != Exit::Stays
    }

    #[inline]
    pub(crate) fn is_closing(self) -> bool {
        self == Exit::Closing
    }

    #[inline]
    pub(crate) fn is_releasing(self) -> bool {
        matches!(self, Exit::Releasing | Exit::Detaching | Exit::Detached)
    }

    /// Returns whether the transport is on its way out of the engine, or has left it.
    #[inline]
    pub(crate) fn is_detaching(self) -> bool {
        matches!(self, Exit::Detaching | Exit::Detached)
    }

    /// Begins to give the resource back. Returns `false` if it closes.
    pub(crate) fn release(&mut self) -> bool {
        if *self == Exit::Stays {
            *self = Exit::Releasing;
        }
        !self.is_closing()
    }

    /// Asks for the transport. Returns `false` if nothing is to be given back, or it was asked for before.
    pub(crate) fn detach(&mut self) -> bool {
        let detaches = *self == Exit::Releasing;
        if detaches {
            *self = Exit::Detaching;
        }
        detaches
    }
}

#[cfg(test)]
mod tests {
    use super::Exit::{self, *};

    #[test]
    fn an_exit_goes_on_and_a_close_is_not_released() {
        let all = [Stays, Closing, Releasing, Detaching, Detached];
        let rows = |of: fn(Exit) -> bool| all.map(of);
        assert_eq!(rows(Exit::is_leaving), [false, true, true, true, true]);
        assert_eq!(rows(Exit::is_closing), [false, true, false, false, false]);
        assert_eq!(rows(Exit::is_releasing), [false, false, true, true, true]);
        assert_eq!(rows(Exit::is_detaching), [false, false, false, true, true]);
        let after = |step: fn(&mut Exit) -> bool| {
            all.map(|mut exit| {
                let answer = step(&mut exit);
                (exit, answer)
            })
        };
        assert_eq!(
            after(Exit::release),
            [(Releasing, true), (Closing, false), (Releasing, true), (Detaching, true), (Detached, true)]
        );
        assert_eq!(
            after(Exit::detach),
            [(Stays, false), (Closing, false), (Detaching, true), (Detaching, false), (Detached, false)]
        );
        assert_eq!(Exit::default(), Stays);
    }
}
