//! Recycled packet buffers of two sizes, so that a small message does not touch a large buffer.

/// Free buffers.
#[derive(Default)]
pub(crate) struct Buffers {
    small: Vec<Box<[u8]>>,
    large: Vec<Box<[u8]>>,
}

impl Buffers {
    /// Takes a buffer with room for this many bytes, at most [`PACKET_MAX`].
    pub(crate) fn take(&mut self, len: usize) -> Box<[u8]> {
        let (free, size) = match len <= SMALL {
            true => (&mut self.small, SMALL),
            false => (&mut self.large, PACKET_MAX),
        };
        free.pop().unwrap_or_else(|| vec![0; size].into_boxed_slice())
    }

    /// Recycles a buffer. A buffer of another size was not made here, so it is dropped.
    pub(crate) fn give(&mut self, buffer: Box<[u8]>) {
        let free = match buffer.len() {
            SMALL => &mut self.small,
            PACKET_MAX => &mut self.large,
            _ => return,
        };
        if free.len() < FREE_MAX {
            free.push(buffer);
        }
    }
}

/// The most bytes of one packet.
pub(crate) const PACKET_MAX: usize = 4096;
const SMALL: usize = 256;
const FREE_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_fits_at_each_edge_and_is_used_again() {
        let mut buffers = Buffers::default();
        for (len, size) in [
            (0, SMALL),
            (SMALL - 1, SMALL),
            (SMALL, SMALL),
            (SMALL + 1, PACKET_MAX),
            (PACKET_MAX, PACKET_MAX),
        ] {
            let buffer = buffers.take(len);
            assert_eq!(buffer.len(), size);
            buffers.give(buffer);
        }
        assert_eq!((buffers.small.len(), buffers.large.len()), (1, 1));
        buffers.give(Box::new([0; 3]));
        assert_eq!((buffers.small.len(), buffers.large.len()), (1, 1), "of another size");
    }

    #[test]
    fn only_so_many_are_kept() {
        let mut buffers = Buffers::default();
        for _ in 0..FREE_MAX + 1 {
            buffers.give(vec![0; SMALL].into_boxed_slice());
        }
        assert_eq!(buffers.small.len(), FREE_MAX);
    }
}
