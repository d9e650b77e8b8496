//! How long to wait before the next try.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// Twice as long each time, and never the same for all agents of a coordinator that has just come back.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) fn new() -> Backoff {
        Backoff { next: FIRST }
    }

    /// How long to wait now: between half of the time and all of it.
    pub(super) fn next(&mut self) -> Duration {
        let longest = self.next;
        self.next = (longest * 2).min(LONGEST);
        // The standard library seeds its hash maps at random.
        let random = RandomState::new().hash_one(()) >> 32;
        longest / 2 + (longest / 2).mul_f64(random as f64 / f64::from(u32::MAX))
    }

    /// There was a session, for so long. Those that end soon after they have begun do not count.
    pub(super) fn lasted(&mut self, time: Duration) {
        if time >= LONGEST {
            self.next = FIRST;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_a_limit() {
        let mut backoff = Backoff::new();
        let mut expected = FIRST;
        for _ in 0..12 {
            let wait = backoff.next();
            assert!(wait >= expected / 2 && wait <= expected, "{wait:?} is not about {expected:?}");
            expected = (expected * 2).min(LONGEST);
        }
        backoff.lasted(LONGEST / 2);
        assert!(backoff.next() >= LONGEST / 2);
        backoff.lasted(LONGEST);
        assert!(backoff.next() <= FIRST);
    }
}
