//! Immutable bytes that several write queues can share.

use std::fmt;
use std::ops::{Bound, Deref, RangeBounds};
use std::sync::Arc;

use crate::codec::Codec;
use crate::failure::Result;
use crate::outgoing::Outgoing;

/// Immutable bytes. A clone costs one reference count.
///
/// A broadcast encodes an item once, and queues the same bytes on every stream.
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
#[derive(Clone)]
pub struct Shared {
    whole: Arc<[u8]>,
    from: usize,
    to: usize,
}

impl Shared {
    /// The memory for the two reference counts, which are allocated with the bytes.
    pub(crate) const HEADER: usize = 2 * size_of::<usize>();

    /// Returns a part of the bytes without a copy, or `None` if the range is out of bounds.
    ///
    /// The slice keeps all of the bytes alive.
    ///
    /// ```
    /// use session::Shared;
    ///
    /// let whole = Shared::from(&b"head and body"[..]);
    /// let body = whole.slice(9..).expect("thirteen bytes");
    /// assert_eq!(*body, b"body"[..]);
    /// assert!(whole.slice(9..14).is_none());
    /// ```
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Option<Shared> {
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(before) => before.checked_add(1)?,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(last) => last.checked_add(1)?,
            Bound::Excluded(to) => *to,
            Bound::Unbounded => self.len(),
        };
        let fits = from <= to && to <= self.len();
        fits.then(|| Shared { whole: self.whole.clone(), from: self.from + from, to: self.from + to })
    }

    /// Encodes one item into bytes that can be queued several times.
    ///
    /// # Errors
    /// The codec's error.
    pub fn encode<C: Codec>(codec: &mut C, item: C::Out<'_>) -> Result<Shared> {
        let mut out = Outgoing::new();
        codec.encode(item, &mut out)?;
        let whole = out.front();
        Ok(if whole.len() == out.len() { Shared::from(whole) } else { Shared::from(out.to_vec()) })
    }
}

impl From<Vec<u8>> for Shared {
    fn from(bytes: Vec<u8>) -> Self {
        Shared { from: 0, to: bytes.len(), whole: bytes.into() }
    }
}

impl From<&[u8]> for Shared {
    fn from(bytes: &[u8]) -> Self {
        Shared { from: 0, to: bytes.len(), whole: bytes.into() }
    }
}

impl PartialEq for Shared {
    fn eq(&self, other: &Shared) -> bool {
        **self == **other
    }
}

impl Eq for Shared {}

/// Shows the length, and not the bytes.
impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Deref for Shared {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.whole[self.from..self.to]
    }
}
