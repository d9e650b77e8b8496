//! A client that detaches a job.

use farpool_proto::v1::{Detach, Items, OpenJob, OpenPool, Program};
use farpool_session::caller_driven::{DetachedClient, DetachingJob};
use farpool_session::{Error, ErrorKind};
use farpool_testkit::random::Random;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::attacher::Attacher;
use super::known_jobs::KnownJobs;
use crate::client::{RECONNECT_TIMEOUT, draw_job, open_pool};
use crate::connector::ClientConnector;
use crate::plan::{Plan, encode, mark};
use crate::program::programs;
use crate::trace;

/// What the coordinator's error contains if its disk fails.
const REFUSED: &str = "cannot be written to";

pub(crate) struct Detacher {
    pub(crate) connector: ClientConnector,
    pub(crate) plan: Plan,
    pub(crate) known_jobs: KnownJobs,
    pub(crate) name: String,
    pub(crate) faults: bool,
    /// The coordinator may drop the job: it does not wait long for a lost client, or has little room.
    pub(crate) may_fail: bool,
    pub(crate) random: Random,
}

impl Detacher {
    pub(crate) async fn run(mut self) {
        let most = self.random.pick(&[10, 300, 2000]);
        sleep(self.random.millis(0..most)).await;
        let (mut job, items, mut open) = draw_job(0, self.faults, self.plan.has_failing(), &mut self.random);
        if self.random.one_in(3) {
            // Jobs that run at most once are drawn more often: they are the most delicate.
            (job.retries, job.retry_panics) = (0, false);
            (open.retries, open.retry_panics, open.speculate) = (0, false, false);
        }
        trace::log(format_args!("{} of {items} items: {job:?} {open:?}", self.name));
        let tag = self.plan.add_job(job);
        self.plan.hold(tag);
        self.known_jobs.begin(&self.name, tag, items);
        let mut client = DetachedClient::new(self.connector.clone(), RECONNECT_TIMEOUT, self.random.next());
        let (pool, open) = detach(&self.name, open, &mut self.random);
        let (detaching_job, sent) = client.detach(pool, open);
        let mut tasks = JoinSet::new();
        tasks.spawn(sent);
        let wants = self.send_items(&detaching_job, tag, items).await;
        let ended = tasks.join_next().await;
        let Some(Ok(ended)) = ended else {
            return trace::violation(format_args!("{} was detached in a panic: {ended:?}", self.name));
        };
        if wants && !self.is_kept(tag, ended) {
            return;
        }
        // Most clients leave, and others attach to the job.
        if wants && self.random.one_in(3) {
            let mut attacher =
                Attacher { connector: self.connector, known_jobs: self.known_jobs, client, random: self.random };
            attacher.read(&self.name, true, None).await;
        }
    }

    /// Sends the whole job, or abandons it. Returns whether it is still wanted.
    async fn send_items(&mut self, detaching_job: &DetachingJob, tag: u64, items: u64) -> bool {
        let batch = self.random.pick(&[1, 5, 100]);
        let pause = self.random.pick(&[0, 0, 20, 1000]);
        let gives_up_at = self.random.one_in(8).then(|| self.random.below(items + 1));
        let mut first = 0;
        while first < items {
            if gives_up_at.is_some_and(|at| at <= first) {
                break;
            }
            let count = self.random.within(1..batch + 1).min(items - first);
            detaching_job.send(batch_of(tag, first..first + count));
            first += count;
            if pause > 0 {
                sleep(self.random.millis(0..pause)).await;
            }
        }
        if gives_up_at.is_some() {
            sleep(self.random.millis(0..pause + 1)).await;
            trace::log(format_args!("{} is withdrawn", self.name));
            detaching_job.withdraw();
            return false;
        }
        self.plan.allow(tag);
        self.known_jobs.change(&self.name, |job| job.all_sent = true);
        detaching_job.end_input();
        true
    }

    fn is_kept(&self, tag: u64, ended: Result<(), Error>) -> bool {
        match ended {
            Ok(()) => {
                trace::log(format_args!("{} is detached", self.name));
                self.known_jobs.change(&self.name, |job| job.kept = true);
                true
            }
            // The client knows that the job is not kept: no item may ever run.
            Err(error) if error.kind() == ErrorKind::Unavailable && error.message().contains(REFUSED) => {
                if !self.faults {
                    trace::violation(format_args!("{} is refused without a reason: {error}", self.name));
                }
                trace::log(format_args!("{} is refused: {error}", self.name));
                self.plan.hold(tag);
                self.known_jobs.change(&self.name, |job| job.all_sent = false);
                false
            }
            Err(error) => {
                let was_dropped = self.known_jobs.job(&self.name).discard_requested;
                let may_be = error.kind() == ErrorKind::Unavailable && self.may_fail;
                if !was_dropped && !may_be {
                    trace::violation(format_args!("{} is not detached: {error}", self.name));
                }
                trace::log(format_args!("{} is not detached: {error}", self.name));
                false
            }
        }
    }
}

/// Creates the messages that open a job of this name and its pool.
pub(crate) fn detach(name: &str, open: OpenJob, random: &mut Random) -> (OpenPool, OpenJob) {
    let processes = random.pick(&[0, 0, 1, 3]);
    let mut pool = open_pool(processes, random);
    pool.program = Program { digest: programs().digest.clone(), size: 1, ..Program::default() }.packed();
    let detach = Detach { name: name.to_owned(), result: "bytes".to_owned(), ..Detach::default() };
    (pool, OpenJob { detach: Some(detach), ..open })
}

fn batch_of(tag: u64, items: std::ops::Range<u64>) -> Items {
    let (mut data, mut ends) = (Vec::new(), Vec::new());
    for item in items.clone() {
        data.extend_from_slice(&encode(mark(tag, item)));
        ends.extend_from_slice(&(data.len() as u32).to_le_bytes());
    }
    Items { job: 0, first: items.start, data: data.into(), ends: ends.into() }
}
