use std::collections::VecDeque;

/// The encoded input of a job that has not finished.
///
/// Only the number of finished items is known here, and they are taken to be the first ones. When items finish out of
/// order, this is wrong by what the workers hold at most, which is little beside the window.
#[derive(Default)]
pub(super) struct InFlight {
    /// Of each batch the index behind its last item, and its bytes.
    batches: VecDeque<(u64, u64)>,
    bytes: u64,
    total_items: u64,
    total_bytes: u64,
}

impl InFlight {
    pub(super) fn add(&mut self, end: u64, items: u64, bytes: u64) {
        self.batches.push_back((end, bytes));
        self.bytes += bytes;
        self.total_items += items;
        self.total_bytes += bytes;
    }

    /// Bytes in flight when so many items have finished.
    pub(super) fn bytes(&mut self, finished: u64) -> u64 {
        while let Some(&(end, bytes)) = self.batches.front()
            && end <= finished
        {
            self.bytes -= bytes;
            self.batches.pop_front();
        }
        self.bytes
    }

    /// How many items must have finished until half of the bytes are free.
    pub(super) fn items_to_halve(&self) -> u64 {
        let mut left = self.bytes;
        for &(end, bytes) in &self.batches {
            left -= bytes;
            if left <= self.bytes / 2 {
                return end;
            }
        }
        0
    }

    /// What an item takes up, for the size of the next buffer.
    pub(super) fn typical_bytes(&self) -> u64 {
        self.total_bytes.checked_div(self.total_items).unwrap_or(16)
    }
}
