use farpool_proto::v1::Items;
use farpool_session::ItemLimit;

use super::Batch;
use super::pace::Pace;
use crate::args::Args;
use crate::error::Error;
use crate::shared;

/// The input of a job that runs only after all items were sent: an item that cannot be sent ends the job.
pub(crate) struct WholeInput<I> {
    input: I,
    exhausted: bool,
    job: u64,
    pulled: u64,
    bytes: u64,
    limit: ItemLimit,
    pace: Pace,
}

impl<A: Args, I: Iterator<Item = A>> WholeInput<I> {
    pub(crate) fn new(input: I, job: u64, limit: ItemLimit) -> Self {
        Self { input, exhausted: false, job, pulled: 0, bytes: 0, limit, pace: Pace::new() }
    }

    /// Returns the exact number of items if the input knows it.
    pub(crate) fn size(&self) -> Option<u64> {
        let (lower, upper) = self.input.size_hint();
        upper.filter(|&upper| upper == lower).map(|exact| exact as u64)
    }

    /// Pulls and encodes the next items; `None` at the end.
    pub(crate) fn next_batch(&mut self) -> Result<Option<Items>, Error> {
        if self.exhausted {
            return Ok(None);
        }
        self.pace.start();
        let (first, limit) = (self.pulled, self.pace.items());
        let mut batch = Batch::new(first, limit, self.bytes.checked_div(self.pulled).unwrap_or(16));
        while self.pulled - first < limit && !batch.is_full() {
            let Some(args) = self.input.next() else {
                self.exhausted = true;
                break;
            };
            let pushed = shared::refusing(|| batch.push(&args, self.limit));
            pushed.map_err(|error| error.of_item(self.pulled))?;
            self.pulled += 1;
        }
        self.pace.record_batch(self.pulled - first);
        self.bytes += batch.bytes();
        Ok((batch.items() > 0).then(|| batch.into_message(self.job)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::singles::Singles;

    #[test]
    fn all_items_come_without_gaps() {
        let mut whole = WholeInput::new(Singles(0..100_000_u64), 1, (1 << 20).into());
        assert_eq!(whole.size(), Some(100_000));
        let mut next = 0;
        while let Some(items) = whole.next_batch().unwrap() {
            assert_eq!(items.first, next);
            next += items.ends.len() as u64 / 4;
        }
        assert_eq!(next, 100_000);
        assert_eq!(whole.next_batch().unwrap(), None);
    }

    #[test]
    fn an_item_that_cannot_be_sent_is_reported_by_its_index() {
        let mut whole = WholeInput::new(Singles([vec![0_u8; 5], vec![0; 50]].into_iter()), 1, 10.into());
        let first = whole.next_batch().unwrap().unwrap();
        assert_eq!(first.first, 0);
        let error = whole.next_batch().unwrap_err();
        assert_eq!((error.kind(), error.item()), (ErrorKind::PayloadTooLarge, Some(1)));
    }
}
