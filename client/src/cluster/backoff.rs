use std::time::Duration;

use tokio::time::Instant;

const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);

/// How long to wait before the next attempt to connect: longer and longer, and not the same for all clients of a
/// coordinator that was restarted.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    /// Since when there is a connection.
    connected: Option<Instant>,
    /// Of SplitMix64.
    random: u64,
}

impl Backoff {
    pub(super) fn new(seed: u64) -> Self {
        Self { next: SHORTEST, connected: None, random: seed }
    }

    /// An attempt went well.
    pub(super) fn note_connected(&mut self, now: Instant) {
        self.connected = Some(now);
    }

    /// The connection is lost. One that did not last counts as an attempt that went wrong.
    pub(super) fn note_lost(&mut self, now: Instant) {
        if self.connected.take().is_none_or(|since| now - since > LONGEST) {
            self.next = SHORTEST;
        }
    }

    /// How long to wait now: between half of it and all.
    pub(super) fn wait(&mut self) -> Duration {
        let most = self.next;
        self.next = (2 * most).min(LONGEST);
        // A number from 0 to 1, of 53 bits.
        let share = (self.random() >> 11) as f64 / (1_u64 << 53) as f64;
        most.mul_f64(0.5 + share / 2.0)
    }

    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ self.random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(backoff: &mut Backoff, count: usize) -> Vec<Duration> {
        (0..count).map(|_| backoff.wait()).collect()
    }

    #[test]
    fn waits_double_up_to_a_bound_and_are_scattered() {
        let mut backoff = Backoff::new(1);
        let first = waits(&mut backoff, 10);
        for (at, wait) in first.iter().enumerate() {
            let most = (SHORTEST * 2_u32.pow(at as u32)).min(LONGEST);
            assert!((most / 2..=most).contains(wait), "{at}: {wait:?}");
        }
        assert_eq!(first, waits(&mut Backoff::new(1), 10));
        assert_ne!(first, waits(&mut Backoff::new(2), 10));
    }

    #[test]
    fn a_connection_that_lasts_is_a_new_start() {
        let (mut backoff, start) = (Backoff::new(1), Instant::now());
        waits(&mut backoff, 10);
        backoff.note_connected(start);
        backoff.note_lost(start + Duration::from_secs(1));
        assert!(backoff.wait() >= LONGEST / 2);
        backoff.note_connected(start);
        backoff.note_lost(start + Duration::from_secs(3));
        assert!(backoff.wait() <= SHORTEST);
    }
}
