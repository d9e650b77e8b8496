//! Splits a run of encoded results into the bytes of each item. Everything that the peer claims is checked.

use bytes::Bytes;

use crate::error::Error;
use crate::gate::Held;

/// The encoded results of consecutive items.
#[derive(Debug)]
pub struct Results {
    next: u64,
    data: Bytes,
    ends: Bytes,
    /// How far `data` and `ends` have been read.
    data_at: usize,
    end_at: usize,
    attempts: u32,
    _held: Held,
}

impl Results {
    /// Checks and wraps results. `pulled`: how many items were pulled for the job so far.
    #[inline]
    pub fn new(first: u64, data: Bytes, ends: Bytes, pulled: u64) -> Result<Self, Error> {
        if !ends.len().is_multiple_of(4) {
            return Err(no_such_items());
        }
        check_items_exist(first, (ends.len() / 4) as u64, pulled)?;
        Ok(Self { next: first, data, ends, data_at: 0, end_at: 0, attempts: 1, _held: Held::default() })
    }

    /// Drops `held` together with the results.
    #[inline]
    pub fn holding(self, held: Held) -> Self {
        Self { _held: held, ..self }
    }

    /// Sets how many attempts each item took; 0 means one.
    #[inline]
    pub fn with_attempts(self, attempts: u32) -> Self {
        Self { attempts: attempts.max(1), ..self }
    }

    /// Returns how many attempts each of its items took.
    #[inline]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Returns how many items it has, including those already read.
    #[inline]
    pub fn items(&self) -> u64 {
        (self.ends.len() / 4) as u64
    }

    /// Returns the index of the next item.
    pub fn next_item(&self) -> u64 {
        self.next
    }

    /// Returns the bytes of all its results, including those already read: they share one allocation.
    #[inline]
    pub fn memory(&self) -> usize {
        self.data.len() + self.ends.len()
    }

    /// Returns the next item and its encoded result; `None` after the last one.
    #[inline]
    #[expect(clippy::should_implement_trait, reason = "what it returns borrows from it")]
    pub fn next(&mut self) -> Option<Result<(u64, &[u8]), Error>> {
        let end = self.ends.get(self.end_at..)?.first_chunk::<4>()?;
        let end = u32::from_le_bytes(*end) as usize;
        let Some(bytes) = self.data.get(self.data_at..end) else {
            return Some(Err(Error::protocol("the coordinator sent results whose lengths do not match")));
        };
        let item = self.next;
        self.next += 1;
        self.data_at = end;
        self.end_at += 4;
        Some(Ok((item, bytes)))
    }

    /// Makes the item that `next` has just returned the next one again.
    pub fn step_back(&mut self) {
        self.next -= 1;
        self.end_at -= 4;
        let before = self.end_at.checked_sub(4).and_then(|at| self.ends[at..].first_chunk::<4>());
        self.data_at = before.map_or(0, |end| u32::from_le_bytes(*end) as usize);
    }
}

/// Checks that outcomes are of items that the job has: `pulled` so far.
#[inline]
pub fn check_items_exist(first: u64, count: u64, pulled: u64) -> Result<(), Error> {
    match first.checked_add(count) {
        Some(end) if end <= pulled => Ok(()),
        _ => Err(no_such_items()),
    }
}

fn no_such_items() -> Error {
    Error::protocol("the coordinator sent outcomes of items that do not exist")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(data: &'static [u8], ends: &[u32], pulled: u64) -> Result<Results, Error> {
        let ends: Vec<u8> = ends.iter().flat_map(|end| end.to_le_bytes()).collect();
        Results::new(7, Bytes::from_static(data), ends.into(), pulled)
    }

    #[test]
    fn results_are_split_at_their_ends() {
        let mut results = results(b"abbccc", &[1, 3, 3, 6], 11).unwrap();
        for expected in [(7, &b"a"[..]), (8, b"bb"), (9, b""), (10, b"ccc")] {
            assert_eq!(results.next().unwrap().unwrap(), expected);
            results.step_back();
            assert_eq!(results.next().unwrap().unwrap(), expected);
        }
        assert!(results.next().is_none());
    }

    #[test]
    fn invalid_results_are_refused() {
        results(b"a", &[1], 7).unwrap_err();
        assert!(results(b"a", &[2], 8).unwrap().next().unwrap().is_err());
        let mut falling = results(b"abc", &[2, 1], 9).unwrap();
        falling.next().unwrap().unwrap();
        falling.next().unwrap().unwrap_err();
        Results::new(0, Bytes::new(), Bytes::from_static(b"abc"), 9).unwrap_err();
        Results::new(u64::MAX, Bytes::new(), Bytes::from_static(&[0; 8]), u64::MAX).unwrap_err();
    }
}
