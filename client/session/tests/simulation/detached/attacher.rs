//! A client that attaches to jobs that others have detached.

use farpool_proto::v1::DetachedJob;
use farpool_session::Error;
use farpool_session::caller_driven::{DetachedClient, ReadEvent};
use farpool_testkit::random::Random;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::known_jobs::{End, Job, KnownJobs};
use crate::client::RECONNECT_TIMEOUT;
use crate::connector::ClientConnector;
use crate::trace;

pub(crate) struct Attacher {
    pub(crate) connector: ClientConnector,
    pub(crate) known_jobs: KnownJobs,
    pub(crate) client: DetachedClient<ClientConnector>,
    pub(crate) random: Random,
}

/// What the client may do to jobs besides reading them.
#[derive(Clone, Debug)]
pub(crate) struct Permissions {
    pub(crate) names: Vec<String>,
    pub(crate) cancels: bool,
    pub(crate) discards: bool,
}

impl Attacher {
    pub(crate) fn new(connector: ClientConnector, known_jobs: KnownJobs, mut random: Random) -> Self {
        let client = DetachedClient::new(connector.clone(), RECONNECT_TIMEOUT, random.next());
        Self { connector, known_jobs, client, random }
    }

    /// Makes random calls about the jobs of these names, whether or not they exist.
    pub(crate) async fn run(mut self, permissions: Permissions) {
        for _ in 0..self.random.within(2..9) {
            let most = self.random.pick(&[50, 500, 5000]);
            sleep(self.random.millis(0..most)).await;
            let name = self.random.pick(&permissions.names);
            match self.random.below(10) {
                0..=2 => drop(self.read(&name, false, None).await),
                3..=4 => drop(self.read(&name, true, None).await),
                5 => {
                    let until = Instant::now() + self.random.millis(0..3000);
                    self.read(&name, true, Some(until)).await;
                }
                6 if permissions.cancels => self.cancel(&name).await,
                7 if permissions.discards => self.discard(&name).await,
                _ => drop(self.ask(&name).await),
            }
        }
    }

    /// Reads the outcomes so far, or waits for all of them, but no longer than `until`. Returns how it ended.
    pub(crate) async fn read(&mut self, name: &str, wait: bool, until: Option<Instant>) -> Option<ReadEvent> {
        let before = self.known_jobs.job(name);
        trace::log(format_args!("host {} reads {name}", self.connector.host));
        let (mut outcomes, read) = self.client.follow(name, wait);
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
                    self.known_jobs.take(name, item, result.map(|result| (result, outcomes.attempts())));
                    read = item + 1;
                }
                ReadEvent::Missing(item) => {
                    self.check_no_outcomes(name, &before, item..item + 1);
                    read = item + 1;
                }
                end => break end,
            }
            if self.random.one_in(200) {
                sleep(self.random.millis(1..3000)).await;
            }
        };
        match &end {
            ReadEvent::Finished => self.known_jobs.note_end(name, End::Finished),
            ReadEvent::Cancelled => self.known_jobs.note_end(name, End::Cancelled),
            ReadEvent::Running if !wait && before.ended.is_none() => {}
            ReadEvent::Broken(error) => self.known_jobs.note_missing(name, &before, error),
            other => trace::violation(format_args!("{name} ends wrongly: {other:?}, and it was {before:?}")),
        }
        if !matches!(end, ReadEvent::Broken(_)) {
            self.check_no_outcomes(name, &before, read..before.items);
            if before.discarded {
                trace::violation(format_args!("{name} is back after it was discarded"));
            }
        }
        trace::log(format_args!("host {} has read {name}: {end:?}", self.connector.host));
        Some(end)
    }

    /// Checks that no client has read outcomes of these items before.
    fn check_no_outcomes(&self, name: &str, before: &Job, items: std::ops::Range<u64>) {
        for item in items {
            if let Some(outcome) = before.outcomes.get(&item) {
                trace::violation(format_args!("item {item} of {name} had the outcome {outcome:?}, and has none"));
            }
        }
    }

    pub(crate) async fn ask(&mut self, name: &str) -> Result<DetachedJob, Error> {
        let before = self.known_jobs.job(name);
        let about = self.client.about(name).await;
        trace::log(format_args!("host {} has asked for {name}: {about:?}", self.connector.host));
        match &about {
            Ok(about) => self.known_jobs.note_description(name, &before, about),
            Err(error) => self.known_jobs.note_missing(name, &before, error),
        }
        about
    }

    async fn cancel(&mut self, name: &str) {
        let before = self.known_jobs.job(name);
        trace::log(format_args!("host {} cancels {name}", self.connector.host));
        self.known_jobs.change(name, |job| {
            job.cancel_requested = true;
            // An incomplete job is dropped when it is cancelled.
            job.discard_requested |= !job.kept;
        });
        match self.client.cancel(name).await {
            Ok(()) if before.kept => self.known_jobs.note_end(name, End::Either),
            Ok(()) => {}
            Err(error) => self.known_jobs.note_missing(name, &before, &error),
        }
    }

    pub(crate) async fn discard(&mut self, name: &str) {
        let before = self.known_jobs.job(name);
        trace::log(format_args!("host {} discards {name}", self.connector.host));
        self.known_jobs.change(name, |job| job.discard_requested = true);
        match self.client.discard(name).await {
            Ok(()) if before.kept => self.known_jobs.change(name, |job| job.discarded = true),
            Ok(()) => {}
            Err(error) => self.known_jobs.note_missing(name, &before, &error),
        }
    }
}
