//! How much of a job's input may be there at once.

use std::num::NonZeroU64;

/// What is there of a job's input, and how far its client may go on sending: it counts the bytes that it has sent from
/// the start of the job, and a limit on that count rises as items have their outcomes.
///
/// A message is admitted if fewer bytes than the limit came before it, so that one message may be larger than the whole
/// window. And while fewer items than an explicit chunk has are without an outcome, there may be no whole chunk
/// that could run and make room: then a message is admitted whatever the limit.
///
/// ```
/// use farpool_core::Window;
///
/// let mut window = Window::new(100, None);
/// window.arrive(1, 70);
/// assert!(window.admits());
/// window.arrive(1, 70);
/// assert!(!window.admits());
/// // The limit was 100, and 70 of the bytes are no longer there.
/// assert_eq!(window.finish(1, 70), Some(170));
/// assert!(window.admits());
/// ```
#[derive(Clone, Debug)]
pub struct Window {
    size: u64,
    chunksize: u64,
    limit: u64,
    arrived: u64,
    freed: u64,
    unfinished: u64,
}

impl Window {
    /// A window of `size` bytes, at least 1, for a job with this explicit chunk size.
    pub fn new(size: u64, chunksize: Option<NonZeroU64>) -> Self {
        assert!(size > 0, "nothing could ever come through");
        let chunksize = chunksize.map_or(0, NonZeroU64::get);
        Self { size, chunksize, limit: size, arrived: 0, freed: 0, unfinished: 0 }
    }

    /// Whether a further message is within what the client was told.
    pub fn admits(&self) -> bool {
        self.arrived < self.limit || self.lacks_chunk()
    }

    /// Whether there are fewer items than an explicit chunk has, so that nothing can run before more come.
    pub fn lacks_chunk(&self) -> bool {
        self.unfinished < self.chunksize
    }

    /// How many bytes the client may have sent, as far as it was told.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// How many bytes are there.
    pub fn held(&self) -> u64 {
        self.arrived - self.freed
    }

    /// A message has come.
    pub fn arrive(&mut self, items: u64, bytes: u64) {
        self.unfinished += items;
        self.arrived += bytes;
    }

    /// Items have had their outcomes, and bytes are no longer there. Returns the new limit when it has risen far enough
    /// for the client to be told.
    pub fn finish(&mut self, items: u64, bytes: u64) -> Option<u64> {
        self.unfinished -= items;
        self.freed += bytes;
        debug_assert!(self.freed <= self.arrived, "more went than came");
        // A message for every quarter of a window costs nothing beside the items, and the client never runs dry.
        let limit = self.freed + self.size;
        if limit - self.limit < self.size.div_ceil(4) {
            return None;
        }
        self.limit = limit;
        Some(limit)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    enum Step {
        /// A message of so many items and bytes, which is admitted.
        Come(u64, u64),
        Refused,
        /// Items and bytes, and the limit that the client is told.
        Go(u64, u64, Option<u64>),
    }
    use Step::*;

    fn check(size: u64, chunksize: u64, steps: &[Step]) {
        let mut window = Window::new(size, NonZeroU64::new(chunksize));
        for (at, step) in steps.iter().enumerate() {
            match *step {
                Come(items, bytes) => {
                    assert!(window.admits(), "step {at}");
                    window.arrive(items, bytes);
                }
                Refused => assert!(!window.admits(), "step {at}"),
                Go(items, bytes, limit) => assert_eq!(window.finish(items, bytes), limit, "step {at}"),
            }
        }
    }

    #[test]
    fn the_limit_rises_in_quarters() {
        check(100, 0, &[Come(1, 99), Come(1, 1), Refused, Go(1, 24, None), Refused, Go(0, 1, Some(125)), Come(1, 1)]);
        check(100, 0, &[Come(9, 100), Refused, Go(8, 90, Some(190)), Come(1, 89), Come(1, 1), Refused]);
        check(100, 0, &[Come(2, 60), Go(1, 20, None), Go(1, 20, Some(140)), Go(0, 20, None)]);
        check(1, 0, &[Come(1, 4), Refused, Go(1, 4, Some(5)), Come(1, 4), Refused]);
    }

    #[test]
    fn one_message_may_be_larger_than_the_window() {
        check(100, 0, &[Come(1, 5000), Refused, Go(1, 5000, Some(5100)), Come(1, 5000), Refused]);
        check(100, 0, &[Come(1, 99), Come(1, 5000), Refused, Go(1, 99, Some(199)), Refused, Go(1, 5000, Some(5199))]);
    }

    #[test]
    fn a_chunk_that_is_not_whole_may_be_completed() {
        check(100, 3, &[Come(1, 60), Come(1, 60), Come(1, 60), Refused, Go(1, 0, None), Come(1, 60), Refused]);
        check(100, 3, &[Come(7, 160), Refused, Go(4, 0, None), Refused, Go(1, 0, None), Come(1, 60), Refused]);
        check(100, 1, &[Come(1, 160), Refused, Go(1, 160, Some(260)), Come(1, 60)]);
    }

    proptest! {
        /// A client that sends whenever it may, with the limit that it was told some time ago.
        #[test]
        fn what_is_there_is_bounded_and_everything_comes_through(
            size in 1..200u64,
            chunksize in 0..6u64,
            messages in prop::collection::vec((1..4u64, 0..90u64), 1..60),
            choices in prop::collection::vec(any::<u8>(), 1..50),
        ) {
            let mut window = Window::new(size, NonZeroU64::new(chunksize));
            let largest = messages.iter().map(|message| message.1).max().unwrap_or(0);
            let most_items = messages.iter().map(|message| message.0).max().unwrap_or(0);
            let ended_after = messages.iter().map(|message| message.0).sum::<u64>();
            let mut messages = VecDeque::from(messages);
            let (mut sent, mut items_sent, mut limit, mut finished, mut there) = (0, 0, size, 0, VecDeque::new());
            // What the coordinator has said and the client has not heard yet.
            let mut told: VecDeque<(u64, Option<u64>)> = VecDeque::new();
            let mut heard = 0;
            for step in 0.. {
                // Each choice becomes every other one in time, so that nothing waits for ever.
                let choice = usize::from(choices[step % choices.len()]) + step / choices.len();
                if finished == ended_after {
                    break;
                }
                let may_send = sent < limit || items_sent - heard < chunksize;
                let next = messages.front().copied().filter(|_| may_send);
                // Messages finish in order, and only as far as their chunk is whole or the input has ended.
                let whole = if messages.is_empty() { u64::MAX } else { items_sent / chunksize.max(1) * chunksize.max(1) };
                let first = there.front().copied().filter(|&(items, _)| finished + items <= whole);
                prop_assert!(next.is_some() || first.is_some() || !told.is_empty() || finished < whole.min(items_sent));
                match (choice % 3, next, first) {
                    (0, Some((items, bytes)), _) => {
                        prop_assert!(window.admits());
                        messages.pop_front();
                        window.arrive(items, bytes);
                        there.push_back((items, bytes));
                        (sent, items_sent) = (sent + bytes, items_sent + items);
                    }
                    (1, _, Some((items, bytes))) => {
                        there.pop_front();
                        finished += items;
                        told.push_back((items, window.finish(items, bytes)));
                    }
                    // Of a message that is only partly of a whole chunk, that part finishes.
                    (1, _, None) if finished < whole.min(items_sent) => {
                        let (items, _) = there.front_mut().expect("something is unfinished");
                        let part = whole - finished;
                        *items -= part;
                        finished += part;
                        told.push_back((part, window.finish(part, 0)));
                    }
                    _ => {
                        let Some((items, grant)) = told.pop_front() else { continue };
                        heard += items;
                        if let Some(grant) = grant {
                            prop_assert!(grant > limit);
                            limit = grant;
                        }
                    }
                }
                let chunk = if chunksize == 0 { 0 } else { (chunksize + most_items) * largest };
                prop_assert!(window.held() <= (size + largest).max(chunk + largest));
                prop_assert_eq!(window.held(), there.iter().map(|message| message.1).sum::<u64>());
            }
            prop_assert_eq!((window.held(), window.unfinished), (0, 0));
        }
    }
}
