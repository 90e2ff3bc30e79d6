//! Immutable bytes that many write queues hold at once.

use std::ops::Deref;
use std::sync::Arc;

use crate::codec::Codec;
use crate::failure::Result;
use crate::outgoing::Outgoing;

/// Holds immutable bytes; a clone costs one reference count.
///
/// A broadcast encodes once and queues the same bytes on every stream.
///
/// ```
/// use session::{Lines, Outgoing, Shared};
///
/// let news = Shared::encode(&mut Lines::new(), "the same line for all")?;
/// let (mut one, mut two) = (Outgoing::new(), Outgoing::new());
/// one.share(news.clone());
/// two.share(news);
/// assert_eq!(one.to_vec(), b"the same line for all\n");
/// # Ok::<(), session::Failure>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared(Arc<[u8]>);

impl Shared {
    /// Encodes one item into bytes that can be queued many times.
    ///
    /// # Errors
    /// What the codec returned.
    pub fn encode<C: Codec>(codec: &mut C, item: C::Out<'_>) -> Result<Shared> {
        let mut out = Outgoing::new();
        codec.encode(item, &mut out)?;
        let whole = out.front();
        Ok(if whole.len() == out.len() { Shared::from(whole) } else { Shared::from(out.to_vec()) })
    }
}

impl From<Vec<u8>> for Shared {
    fn from(bytes: Vec<u8>) -> Self {
        Shared(bytes.into())
    }
}

impl From<&[u8]> for Shared {
    fn from(bytes: &[u8]) -> Self {
        Shared(bytes.into())
    }
}

impl Deref for Shared {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
