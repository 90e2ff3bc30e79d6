//! The identity of an operation: the 64 bits that go to the kernel and come back with each completion.

/// The kind of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Kind {
    /// A multishot receive into shared buffers.
    Receive = 1,
    /// A multishot accept.
    Accept,
    /// A wait for the end of a connect, or for input of a stream or a listener. A call follows.
    Readable,
    /// A send.
    Send,
    /// A wait for room of a stream. A call follows.
    Writable,
    /// A wait until a user's resource is ready.
    Watch,
    /// A read of the waker's counter.
    Wake,
    /// A cancel that failed, because its operation had already finished.
    Cancel,
    /// A multishot receive of datagrams.
    RecvMsg,
    /// A file operation. Its index and life are those of a flight.
    File,
    /// Internal to the engine: reports late input of a stream.
    Late,
    /// A multishot wait for the hang-up of a stream that the engine does not read.
    HungUp,
}

/// The name of one operation: its kind, and the entry and life that it belongs to.
///
/// The kernel finds an operation to cancel by these bits, so a cancel that comes too late must not find the
/// next one. For that the name contains the life, which differs for two successive entries at one index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Tag {
    pub(super) kind: Kind,
    pub(super) life: u32,
    pub(super) index: u32,
}

impl Tag {
    #[inline]
    pub(super) fn new(kind: Kind, life: u32, index: u32) -> Tag {
        Tag { kind, life: life & LIFE_MAX, index }
    }

    #[inline]
    pub(super) fn to_bits(self) -> u64 {
        (self.kind as u64) << 56 | u64::from(self.life) << 32 | u64::from(self.index)
    }

    /// Returns whether these bits belong to an operation of this kind.
    #[inline]
    pub(super) fn is_of(kind: Kind, bits: u64) -> bool {
        bits >> 56 == kind as u64
    }

    /// Decodes the tag of a completion. `None` for bits that were never made here.
    #[inline]
    pub(super) fn from_bits(bits: u64) -> Option<Tag> {
        let kind = match bits >> 56 {
            1 => Kind::Receive,
            2 => Kind::Accept,
            3 => Kind::Readable,
            4 => Kind::Send,
            5 => Kind::Writable,
            6 => Kind::Watch,
            7 => Kind::Wake,
            8 => Kind::Cancel,
            9 => Kind::RecvMsg,
            10 => Kind::File,
            11 => Kind::Late,
            12 => Kind::HungUp,
            _ => return None,
        };
        Some(Tag { kind, life: (bits >> 32) as u32 & LIFE_MAX, index: bits as u32 })
    }
}

/// The last life. The next one is 0 again, 16 million entries later.
pub(super) const LIFE_MAX: u32 = (1 << 24) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_and_back() {
        for kind in [
            Kind::Receive,
            Kind::Accept,
            Kind::Readable,
            Kind::Send,
            Kind::Writable,
            Kind::Watch,
            Kind::Wake,
            Kind::Cancel,
            Kind::RecvMsg,
            Kind::File,
            Kind::Late,
            Kind::HungUp,
        ] {
            for (life, index) in [(0, 0), (1, 2), (LIFE_MAX, u32::MAX)] {
                let tag = Tag::new(kind, life, index);
                assert_eq!(Tag::from_bits(tag.to_bits()), Some(tag));
            }
        }
        assert_eq!(Tag::from_bits(0), None);
        assert_eq!(Tag::from_bits(13 << 56), None);
        assert_eq!(Tag::new(Kind::Send, LIFE_MAX + 1, 0).life, 0, "lives begin again");
    }
}
