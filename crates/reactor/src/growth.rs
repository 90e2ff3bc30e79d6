//! Tables that grow by an eighth. Doubling would leave up to half unused, and memory per idle connection
//! matters.

/// Extends the list until it has an element at `at`.
pub(crate) fn reach<T>(list: &mut Vec<T>, at: usize, fill: impl FnMut() -> T) {
    if at >= list.len() {
        grow(list, at);
        list.resize_with(at + 1, fill);
    }
}

/// Reserves room for the element at `at`, and for an eighth more.
pub(crate) fn grow<T>(list: &mut Vec<T>, at: usize) {
    if at >= list.capacity() {
        list.reserve_exact(at + 1 - list.len() + (at / 8).max(GROWTH_MIN));
    }
}

/// The fewest elements that the list reserves at once.
const GROWTH_MIN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_grow_by_an_eighth() {
        let mut list: Vec<u8> = Vec::new();
        reach(&mut list, 0, || 7);
        assert_eq!((list.len(), list.capacity()), (1, 1 + 64));
        reach(&mut list, 799, || 0);
        assert_eq!((list.len(), list.capacity(), list[0]), (800, 800 + 99, 7));
        reach(&mut list, 898, || 0);
        assert_eq!((list.len(), list.capacity()), (899, 899), "the last that fits");
        reach(&mut list, 899, || 0);
        assert_eq!((list.len(), list.capacity()), (900, 900 + 112));
        reach(&mut list, 5, || 1);
        assert_eq!((list.len(), list[5]), (900, 0), "what is there stays");
    }
}
