//! Input on its way to the service: bytes in a buffer that belongs to the engine.

use std::marker::PhantomData;

#[cfg(all(target_os = "linux", feature = "io-uring"))]
use super::io_uring::Provided;

/// Received bytes, in a buffer lent by the engine. It goes back with [`Engine::give`](super::Engine::give),
/// or on drop.
///
/// It stays in the thread of its engine, because the buffer may have to go back to a kernel.
#[derive(Debug)]
pub struct Chunk {
    held: ChunkStorage,
    stays: PhantomData<*const ()>,
}

/// The place of a chunk's bytes.
#[derive(Debug)]
enum ChunkStorage {
    /// The first bytes, this many, of a buffer that the chunk owns.
    Own(Box<[u8]>, usize),
    /// In a buffer that the kernel chose.
    #[cfg(all(target_os = "linux", feature = "io-uring"))]
    Provided(Provided),
}

impl Chunk {
    /// Wraps the first `len` bytes of a buffer.
    ///
    /// # Panics
    /// If the buffer is shorter than `len`.
    #[inline(always)]
    pub fn new(buffer: Box<[u8]>, len: usize) -> Chunk {
        assert!(len <= buffer.len(), "the chunk lies within its buffer");
        Chunk { held: ChunkStorage::Own(buffer, len), stays: PhantomData }
    }

    #[cfg(all(target_os = "linux", feature = "io-uring"))]
    pub(super) fn provided(provided: Provided) -> Chunk {
        Chunk { held: ChunkStorage::Provided(provided), stays: PhantomData }
    }

    /// Returns the bytes. A layer may decrypt them in place.
    #[inline]
    pub fn bytes(&mut self) -> &mut [u8] {
        match &mut self.held {
            ChunkStorage::Own(buffer, len) => &mut buffer[..*len],
            #[cfg(all(target_os = "linux", feature = "io-uring"))]
            ChunkStorage::Provided(provided) => provided.bytes(),
        }
    }

    /// Returns the buffer, for the engine that lent it. It is empty if it was the kernel's, which then has it
    /// back.
    #[inline]
    pub fn into_buffer(self) -> Box<[u8]> {
        match self.held {
            ChunkStorage::Own(buffer, _) => buffer,
            #[cfg(all(target_os = "linux", feature = "io-uring"))]
            ChunkStorage::Provided(_) => Box::default(),
        }
    }
}
