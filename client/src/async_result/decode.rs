use std::collections::VecDeque;

use farpool_session::Inbox;

use crate::args::Data;
use crate::collector::Collector;
use crate::error::Error;
use crate::map::ended_early;

/// Decodes the outcome from the inbox; called once, after the job has ended.
pub(crate) type Decode<T> = fn(&Inbox) -> Result<T, Error>;

/// Returns the outcome of a job with many items.
pub(crate) fn decode_all<R: Data>(inbox: &Inbox) -> Result<Vec<R>, Error> {
    let mut deliveries = VecDeque::new();
    inbox.take(&mut deliveries);
    if let Some(error) = inbox.end_error() {
        return Err(error.into());
    }
    let mut collector = Collector::new(inbox.pulled() as usize);
    deliveries.into_iter().try_for_each(|delivery| collector.accept(delivery, inbox))?;
    collector.finish(inbox.pulled())
}

/// Returns the outcome of a job with one item.
pub(crate) fn decode_one<R: Data>(inbox: &Inbox) -> Result<R, Error> {
    decode_all(inbox)?.pop().ok_or_else(|| ended_early(inbox))
}
