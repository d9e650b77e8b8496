//! Who picks up what others have detached.

use farpool_proto::v1::DetachedJob;
use farpool_session::Error;
use farpool_session::by_hand::{DetachedClient, ReadEvent};
use farpool_testkit::random::Random;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::books::{Books, End, Job};
use crate::client::PATIENCE;
use crate::trace;
use crate::way::Way;

pub(crate) struct Picker {
    pub(crate) way: Way,
    pub(crate) books: Books,
    pub(crate) caller: DetachedClient<Way>,
    pub(crate) random: Random,
}

/// What may be done to jobs beside reading them.
#[derive(Clone, Debug)]
pub(crate) struct Licence {
    pub(crate) names: Vec<String>,
    pub(crate) cancels: bool,
    pub(crate) discards: bool,
}

impl Picker {
    pub(crate) fn new(way: Way, books: Books, mut random: Random) -> Self {
        let caller = DetachedClient::new(way.clone(), PATIENCE, random.next());
        Self { way, books, caller, random }
    }

    /// Does this and that with the jobs of these names, whether they are there or not.
    pub(crate) async fn run(mut self, licence: Licence) {
        for _ in 0..self.random.within(2..9) {
            let most = self.random.pick(&[50, 500, 5000]);
            sleep(self.random.millis(0..most)).await;
            let name = self.random.pick(&licence.names);
            match self.random.below(10) {
                0..=2 => drop(self.read(&name, false, None).await),
                3..=4 => drop(self.read(&name, true, None).await),
                5 => {
                    let until = Instant::now() + self.random.millis(0..3000);
                    self.read(&name, true, Some(until)).await;
                }
                6 if licence.cancels => self.cancel(&name).await,
                7 if licence.discards => self.discard(&name).await,
                _ => drop(self.ask(&name).await),
            }
        }
    }

    /// Reads what there is of a job, or waits for all of it, but no longer than `until`. Returns how it ended.
    pub(crate) async fn read(&mut self, name: &str, wait: bool, until: Option<Instant>) -> Option<ReadEvent> {
        let before = self.books.job(name);
        trace::say(format_args!("host {} reads {name}", self.way.host));
        let (mut outcomes, read) = self.caller.follow(name, wait);
        let mut tasks = JoinSet::new();
        tasks.spawn(read);
        let mut read = 0;
        let end = loop {
            let next = tokio::select! {
                biased;
                next = outcomes.next() => next,
                () = crate::network::at(until) => return None,
            };
            match next {
                ReadEvent::Outcome(item, result) => {
                    self.books.take(name, item, result.map(|result| (result, outcomes.attempts())));
                    read = item + 1;
                }
                ReadEvent::Missing(item) => {
                    self.lacks(name, &before, item..item + 1);
                    read = item + 1;
                }
                end => break end,
            }
            if self.random.one_in(200) {
                sleep(self.random.millis(1..3000)).await;
            }
        };
        match &end {
            ReadEvent::Finished => self.books.has_ended(name, End::Finished),
            ReadEvent::Cancelled => self.books.has_ended(name, End::Cancelled),
            ReadEvent::Running if !wait && before.ended.is_none() => {}
            ReadEvent::Broken(error) => self.books.missed(name, &before, error),
            other => trace::violation(format_args!("{name} ends so: {other:?}, and it was {before:?}")),
        }
        if !matches!(end, ReadEvent::Broken(_)) {
            self.lacks(name, &before, read..before.items);
            if before.discarded {
                trace::violation(format_args!("{name} is there again"));
            }
        }
        trace::say(format_args!("host {} has read {name}: {end:?}", self.way.host));
        Some(end)
    }

    /// Nobody may have read outcomes of these items before.
    fn lacks(&self, name: &str, before: &Job, items: std::ops::Range<u64>) {
        for item in items {
            if let Some(outcome) = before.outcomes.get(&item) {
                trace::violation(format_args!("item {item} of {name} had the outcome {outcome:?}, and has none"));
            }
        }
    }

    pub(crate) async fn ask(&mut self, name: &str) -> Result<DetachedJob, Error> {
        let before = self.books.job(name);
        let about = self.caller.about(name).await;
        trace::say(format_args!("host {} has asked for {name}: {about:?}", self.way.host));
        match &about {
            Ok(about) => self.books.described(name, &before, about),
            Err(error) => self.books.missed(name, &before, error),
        }
        about
    }

    async fn cancel(&mut self, name: &str) {
        let before = self.books.job(name);
        trace::say(format_args!("host {} cancels {name}", self.way.host));
        self.books.change(name, |job| {
            job.cancel_asked = true;
            // What is not whole goes when it is cancelled.
            job.discard_asked |= !job.kept;
        });
        match self.caller.cancel(name).await {
            Ok(()) if before.kept => self.books.has_ended(name, End::Either),
            Ok(()) => {}
            Err(error) => self.books.missed(name, &before, &error),
        }
    }

    pub(crate) async fn discard(&mut self, name: &str) {
        let before = self.books.job(name);
        trace::say(format_args!("host {} discards {name}", self.way.host));
        self.books.change(name, |job| job.discard_asked = true);
        match self.caller.discard(name).await {
            Ok(()) if before.kept => self.books.change(name, |job| job.discarded = true),
            Ok(()) => {}
            Err(error) => self.books.missed(name, &before, &error),
        }
    }
}
