//! Input on its way to the service: bytes in a buffer that belongs to the engine.

use std::marker::PhantomData;

#[cfg(all(target_os = "linux", feature = "io-uring"))]
use super::io_uring::Provided;

/// Bytes that arrived, in a buffer lent by the engine. Goes back with [`Engine::give`](super::Engine::give), or by its
/// drop.
///
/// It stays in the thread of its engine: the buffer may be one that a kernel is given back.
#[derive(Debug)]
pub struct Chunk {
    held: Held,
    stays: PhantomData<*const ()>,
}

/// Where the bytes of a chunk are.
#[derive(Debug)]
enum Held {
    /// The first so many of a buffer of the chunk's own.
    Own(Box<[u8]>, usize),
    /// In a buffer that the kernel chose.
    #[cfg(all(target_os = "linux", feature = "io-uring"))]
    Provided(Provided),
}

impl Chunk {
    /// The first `len` bytes of a buffer.
    ///
    /// # Panics
    /// When the buffer is shorter than `len`.
    #[inline(always)]
    pub fn new(buffer: Box<[u8]>, len: usize) -> Chunk {
        assert!(len <= buffer.len(), "the chunk lies within its buffer");
        Chunk { held: Held::Own(buffer, len), stays: PhantomData }
    }

    #[cfg(all(target_os = "linux", feature = "io-uring"))]
    pub(super) fn provided(provided: Provided) -> Chunk {
        Chunk { held: Held::Provided(provided), stays: PhantomData }
    }

    /// The bytes. A layer decrypts in place.
    #[inline]
    pub fn bytes(&mut self) -> &mut [u8] {
        match &mut self.held {
            Held::Own(buffer, len) => &mut buffer[..*len],
            #[cfg(all(target_os = "linux", feature = "io-uring"))]
            Held::Provided(provided) => provided.bytes(),
        }
    }

    /// The buffer, for the engine that lent it; empty if it was the kernel's, which has it back then.
    #[inline]
    pub fn into_buffer(self) -> Box<[u8]> {
        match self.held {
            Held::Own(buffer, _) => buffer,
            #[cfg(all(target_os = "linux", feature = "io-uring"))]
            Held::Provided(_) => Box::default(),
        }
    }
}
