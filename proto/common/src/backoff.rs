//! Delays between retries.

use std::time::Duration;

/// A delay that doubles each time, up to a limit. It is randomized, so that peers that failed together do not retry
/// together.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
    random: u64,
}

impl Backoff {
    /// Makes delays from `first` to `longest`, randomized by `seed`.
    pub fn new(first: Duration, longest: Duration, seed: u64) -> Backoff {
        Backoff { first, longest, next: first, random: seed }
    }

    /// Returns the next delay: between half of the current one and all of it.
    pub fn wait(&mut self) -> Duration {
        let most = self.next;
        self.next = (most * 2).min(self.longest);
        most / 2 + (most / 2).mul_f64(f64::from(self.random()) / f64::from(u32::MAX))
    }

    /// Resets the delay after a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }

    /// splitmix64.
    fn random(&mut self) -> u32 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        for (shift, factor) in [(30, 0xbf58_476d_1ce4_e5b9_u64), (27, 0x94d0_49bb_1331_11eb)] {
            mixed = (mixed ^ mixed >> shift).wrapping_mul(factor);
        }
        (mixed >> 32) as u32
    }
}

/// Returns a random seed.
pub fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // The standard library seeds its hash maps at random.
    RandomState::new().hash_one(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_up_to_a_limit() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(5));
        for seed in [0, 1, random_seed()] {
            let mut backoff = Backoff::new(first, longest, seed);
            let mut expected = first;
            for _ in 0..12 {
                let wait = backoff.wait();
                assert!(wait >= expected / 2 && wait <= expected, "{wait:?} is not about {expected:?}");
                expected = (expected * 2).min(longest);
            }
            backoff.reset();
            assert!(backoff.wait() <= first);
        }
    }

    #[test]
    fn the_seed_determines_the_delays() {
        let waits = |seed| {
            let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(9), seed);
            [backoff.wait(), backoff.wait(), backoff.wait()]
        };
        assert_eq!(waits(7), waits(7));
        assert_ne!(waits(7), waits(8));
    }
}
