//! Bounds how much of a job's input the coordinator holds at once.

use std::num::NonZeroU64;

/// The input of a job that is held, and how much more its client may send. The client counts the bytes that it has sent
/// from the start of the job, and a limit on that count rises as items get their outcomes.
///
/// A message is admitted if fewer bytes than the limit came before it, so one message may be larger than the whole
/// window. With an explicit chunk size, messages are admitted whatever the limit while fewer items than one chunk are
/// unfinished: there may be no whole chunk that could run and make room.
///
/// ```
/// use farpool_core::Window;
///
/// let mut window = Window::new(100, None);
/// window.arrive(1, 70);
/// assert!(window.admits());
/// window.arrive(1, 70);
/// assert!(!window.admits());
/// // The limit was 100, and 70 of the bytes are freed.
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
    /// Creates a window of `size` bytes, at least 1, for a job with this explicit chunk size.
    pub fn new(size: u64, chunksize: Option<NonZeroU64>) -> Self {
        assert!(size > 0, "no message could ever be admitted");
        let chunksize = chunksize.map_or(0, NonZeroU64::get);
        Self { size, chunksize, limit: size, arrived: 0, freed: 0, unfinished: 0 }
    }

    /// Whether another message is within the limit that the client knows.
    pub fn admits(&self) -> bool {
        self.arrived < self.limit || self.lacks_chunk()
    }

    /// Whether there are fewer items than an explicit chunk has, so that nothing can run before more arrive.
    pub fn lacks_chunk(&self) -> bool {
        self.unfinished < self.chunksize
    }

    /// Returns how many bytes the client may have sent, as far as it knows.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Returns how many bytes are held.
    pub fn held(&self) -> u64 {
        self.arrived - self.freed
    }

    /// A message has arrived.
    pub fn arrive(&mut self, items: u64, bytes: u64) {
        self.unfinished += items;
        self.arrived += bytes;
    }

    /// Items have their outcomes, and bytes are freed. Returns the new limit when it has risen enough to tell the
    /// client.
    pub fn finish(&mut self, items: u64, bytes: u64) -> Option<u64> {
        self.unfinished -= items;
        self.freed += bytes;
        debug_assert!(self.freed <= self.arrived, "more bytes were freed than arrived");
        // A message for every quarter of a window costs nothing compared to the items, and the client never runs dry.
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
        /// A message of this many items and bytes, which is admitted.
        Arrive(u64, u64),
        Refused,
        /// Items and bytes, and the limit that the client is told.
        Finish(u64, u64, Option<u64>),
    }
    use Step::*;

    fn check(size: u64, chunksize: u64, steps: &[Step]) {
        let mut window = Window::new(size, NonZeroU64::new(chunksize));
        for (at, step) in steps.iter().enumerate() {
            match *step {
                Arrive(items, bytes) => {
                    assert!(window.admits(), "step {at}");
                    window.arrive(items, bytes);
                }
                Refused => assert!(!window.admits(), "step {at}"),
                Finish(items, bytes, limit) => assert_eq!(window.finish(items, bytes), limit, "step {at}"),
            }
        }
    }

    #[test]
    fn the_limit_rises_in_quarters() {
        check(
            100,
            0,
            &[
                Arrive(1, 99),
                Arrive(1, 1),
                Refused,
                Finish(1, 24, None),
                Refused,
                Finish(0, 1, Some(125)),
                Arrive(1, 1),
            ],
        );
        check(100, 0, &[Arrive(9, 100), Refused, Finish(8, 90, Some(190)), Arrive(1, 89), Arrive(1, 1), Refused]);
        check(100, 0, &[Arrive(2, 60), Finish(1, 20, None), Finish(1, 20, Some(140)), Finish(0, 20, None)]);
        check(1, 0, &[Arrive(1, 4), Refused, Finish(1, 4, Some(5)), Arrive(1, 4), Refused]);
    }

    #[test]
    fn one_message_may_be_larger_than_the_window() {
        check(100, 0, &[Arrive(1, 5000), Refused, Finish(1, 5000, Some(5100)), Arrive(1, 5000), Refused]);
        check(
            100,
            0,
            &[Arrive(1, 99), Arrive(1, 5000), Refused, Finish(1, 99, Some(199)), Refused, Finish(1, 5000, Some(5199))],
        );
    }

    #[test]
    fn a_partial_chunk_may_be_completed() {
        check(
            100,
            3,
            &[Arrive(1, 60), Arrive(1, 60), Arrive(1, 60), Refused, Finish(1, 0, None), Arrive(1, 60), Refused],
        );
        check(
            100,
            3,
            &[Arrive(7, 160), Refused, Finish(4, 0, None), Refused, Finish(1, 0, None), Arrive(1, 60), Refused],
        );
        check(100, 1, &[Arrive(1, 160), Refused, Finish(1, 160, Some(260)), Arrive(1, 60)]);
    }

    proptest! {
        /// A client that sends whenever it may, with a limit that may be out of date.
        #[test]
        fn held_bytes_are_bounded_and_all_messages_arrive(
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
            let (mut sent, mut items_sent, mut limit, mut finished, mut held) = (0, 0, size, 0, VecDeque::new());
            // What the coordinator has sent and the client has not received yet.
            let mut in_transit: VecDeque<(u64, Option<u64>)> = VecDeque::new();
            let mut known_finished = 0;
            for step in 0.. {
                // Over time each choice becomes every other one, so that nothing waits for ever.
                let choice = usize::from(choices[step % choices.len()]) + step / choices.len();
                if finished == ended_after {
                    break;
                }
                let may_send = sent < limit || items_sent - known_finished < chunksize;
                let next = messages.front().copied().filter(|_| may_send);
                // Messages finish in order, and only if their chunk is whole or the input has ended.
                let whole = if messages.is_empty() { u64::MAX } else { items_sent / chunksize.max(1) * chunksize.max(1) };
                let first = held.front().copied().filter(|&(items, _)| finished + items <= whole);
                prop_assert!(next.is_some() || first.is_some() || !in_transit.is_empty() || finished < whole.min(items_sent));
                match (choice % 3, next, first) {
                    (0, Some((items, bytes)), _) => {
                        prop_assert!(window.admits());
                        messages.pop_front();
                        window.arrive(items, bytes);
                        held.push_back((items, bytes));
                        (sent, items_sent) = (sent + bytes, items_sent + items);
                    }
                    (1, _, Some((items, bytes))) => {
                        held.pop_front();
                        finished += items;
                        in_transit.push_back((items, window.finish(items, bytes)));
                    }
                    // A message that is only partly in a whole chunk finishes in part.
                    (1, _, None) if finished < whole.min(items_sent) => {
                        let (items, _) = held.front_mut().expect("something is unfinished");
                        let part = whole - finished;
                        *items -= part;
                        finished += part;
                        in_transit.push_back((part, window.finish(part, 0)));
                    }
                    _ => {
                        let Some((items, grant)) = in_transit.pop_front() else { continue };
                        known_finished += items;
                        if let Some(grant) = grant {
                            prop_assert!(grant > limit);
                            limit = grant;
                        }
                    }
                }
                let chunk = if chunksize == 0 { 0 } else { (chunksize + most_items) * largest };
                prop_assert!(window.held() <= (size + largest).max(chunk + largest));
                prop_assert_eq!(window.held(), held.iter().map(|message| message.1).sum::<u64>());
            }
            prop_assert_eq!((window.held(), window.unfinished), (0, 0));
        }
    }
}
