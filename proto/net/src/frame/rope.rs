//! An encoded message that shares its large parts: encoding a result of a gigabyte takes no second gigabyte.
#![expect(unsafe_code, reason = "BufMut is an unsafe trait; argued at its implementation")]

use std::collections::VecDeque;

use bytes::buf::UninitSlice;
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Parts of at least this many bytes are shared, smaller ones copied.
const SHARED_BYTES: usize = 64 << 10;

#[derive(Debug, Default)]
pub(super) struct Rope {
    parts: VecDeque<Bytes>,
    /// What follows the shared parts.
    end: BytesMut,
}

impl Rope {
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.end.is_empty()
    }

    /// Removes up to this many bytes from the front. They are copied only if they span several parts.
    pub(super) fn take(&mut self, most: usize) -> Bytes {
        let first = self.take_of_one(most);
        if first.len() == most || self.is_empty() {
            return first;
        }
        let mut all = BytesMut::with_capacity(most);
        all.put(first);
        while all.len() < most && !self.is_empty() {
            all.put(self.take_of_one(most - all.len()));
        }
        all.freeze()
    }

    fn take_of_one(&mut self, most: usize) -> Bytes {
        self.close_end();
        let Some(front) = self.parts.front_mut() else { return Bytes::new() };
        let taken = front.split_to(front.len().min(most));
        if front.is_empty() {
            self.parts.pop_front();
        }
        taken
    }

    fn close_end(&mut self) {
        if !self.end.is_empty() {
            self.parts.push_back(self.end.split().freeze());
        }
    }
}

// SAFETY: both the chunk and the advance are passed on to `end` unchanged, which fulfils the contract.
unsafe impl BufMut for Rope {
    fn remaining_mut(&self) -> usize {
        self.end.remaining_mut()
    }

    unsafe fn advance_mut(&mut self, count: usize) {
        // SAFETY: the caller has written this many bytes into the chunk, which is that of `end`.
        unsafe { self.end.advance_mut(count) }
    }

    fn chunk_mut(&mut self) -> &mut UninitSlice {
        self.end.chunk_mut()
    }

    fn put<T: Buf>(&mut self, mut source: T) {
        let bytes = source.remaining();
        if bytes < SHARED_BYTES {
            return self.end.put(source);
        }
        self.close_end();
        // For `Bytes` this does not copy.
        self.parts.push_back(source.copy_to_bytes(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(rope: &mut Rope, most: usize) -> Vec<Bytes> {
        std::iter::from_fn(|| (!rope.is_empty()).then(|| rope.take(most))).collect()
    }

    #[test]
    fn pieces_of_any_size_make_up_the_whole() {
        let large = Bytes::from((0..SHARED_BYTES).map(|at| at as u8).collect::<Vec<_>>());
        let put = [Bytes::from_static(b"small"), large.clone(), large.slice(..1000), large, Bytes::from_static(b"end")];
        for most in [1, 7, 1000, SHARED_BYTES, 1 << 20] {
            let mut rope = Rope::default();
            put.iter().for_each(|part| rope.put(part.clone()));
            let pieces = all(&mut rope, most);
            assert!(pieces.iter().rev().skip(1).all(|piece| piece.len() == most));
            assert!(pieces.concat() == put.concat(), "pieces of {most}");
        }
    }

    #[test]
    fn large_parts_are_not_copied() {
        let large = Bytes::from(vec![7; 2 * SHARED_BYTES]);
        let mut rope = Rope::default();
        rope.put_u8(1);
        rope.put(large.clone());
        assert_eq!(rope.take(1)[..], [1]);
        assert_eq!(rope.take(SHARED_BYTES).as_ptr(), large.as_ptr());
        assert_eq!(rope.take(SHARED_BYTES).as_ptr(), large[SHARED_BYTES..].as_ptr());
        assert!(rope.is_empty() && rope.take(1).is_empty());
    }
}
