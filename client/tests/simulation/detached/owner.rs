//! Who detaches a job.

use farpool_proto::v1::{Detach, Items, OpenJob, OpenPool, Program};
use farpool_session::by_hand::{DetachedClient, DetachingJob};
use farpool_session::{Error, ErrorKind};
use farpool_testkit::random::Random;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::books::Books;
use super::picker::Picker;
use crate::client::{PATIENCE, draw_job, open_pool};
use crate::plan::{Plan, encode, mark};
use crate::program::programs;
use crate::trace;
use crate::way::Way;

/// What the coordinator says of a job that its disk does not take.
const REFUSED: &str = "cannot be written to";

pub(crate) struct Owner {
    pub(crate) way: Way,
    pub(crate) plan: Plan,
    pub(crate) books: Books,
    pub(crate) name: String,
    pub(crate) faults: bool,
    /// The coordinator does not wait for long for who does not come back, or has little room.
    pub(crate) may_fail: bool,
    pub(crate) random: Random,
}

impl Owner {
    pub(crate) async fn run(mut self) {
        let most = self.random.pick(&[10, 300, 2000]);
        sleep(self.random.millis(0..most)).await;
        let (mut job, items, mut open) = draw_job(0, self.faults, self.plan.has_failing(), &mut self.random);
        if self.random.one_in(3) {
            // More of them at most once: that takes the most care.
            (job.retries, job.retry_panics) = (0, false);
            (open.retries, open.retry_panics, open.speculate) = (0, false, false);
        }
        trace::say(format_args!("{} of {items} items: {job:?} {open:?}", self.name));
        let tag = self.plan.add_job(job);
        self.plan.hold(tag);
        self.books.begin(&self.name, tag, items);
        let mut caller = DetachedClient::new(self.way.clone(), PATIENCE, self.random.next());
        let (pool, open) = detach(&self.name, open, &mut self.random);
        let (handing, sent) = caller.detach(pool, open);
        let mut tasks = JoinSet::new();
        tasks.spawn(sent);
        let wants = self.hand_over(&handing, tag, items).await;
        let ended = tasks.join_next().await;
        let Some(Ok(ended)) = ended else {
            return trace::violation(format_args!("{} was detached in a panic: {ended:?}", self.name));
        };
        if wants && !self.is_kept(tag, ended) {
            return;
        }
        // Most leave, and others pick it up.
        if wants && self.random.one_in(3) {
            let mut picker = Picker { way: self.way, books: self.books, caller, random: self.random };
            picker.read(&self.name, true, None).await;
        }
    }

    /// Sends all of it, or changes its mind. Returns whether it is wanted.
    async fn hand_over(&mut self, handing: &DetachingJob, tag: u64, items: u64) -> bool {
        let batch = self.random.pick(&[1, 5, 100]);
        let pause = self.random.pick(&[0, 0, 20, 1000]);
        let gives_up_at = self.random.one_in(8).then(|| self.random.below(items + 1));
        let mut first = 0;
        while first < items {
            if gives_up_at.is_some_and(|at| at <= first) {
                break;
            }
            let count = self.random.within(1..batch + 1).min(items - first);
            handing.send(batch_of(tag, first..first + count));
            first += count;
            if pause > 0 {
                sleep(self.random.millis(0..pause)).await;
            }
        }
        if gives_up_at.is_some() {
            sleep(self.random.millis(0..pause + 1)).await;
            trace::say(format_args!("{} is not wanted any more", self.name));
            handing.abandon();
            return false;
        }
        self.plan.allow(tag);
        self.books.change(&self.name, |job| job.all_said = true);
        handing.end_input();
        true
    }

    fn is_kept(&self, tag: u64, ended: Result<(), Error>) -> bool {
        match ended {
            Ok(()) => {
                trace::say(format_args!("{} is detached", self.name));
                self.books.change(&self.name, |job| job.kept = true);
                true
            }
            // It is known that it is not kept: nothing of it may ever run.
            Err(error) if error.kind() == ErrorKind::Unavailable && error.message().contains(REFUSED) => {
                if !self.faults {
                    trace::violation(format_args!("{} is refused without a reason: {error}", self.name));
                }
                trace::say(format_args!("{} is refused: {error}", self.name));
                self.plan.hold(tag);
                self.books.change(&self.name, |job| job.all_said = false);
                false
            }
            Err(error) => {
                let was_dropped = self.books.job(&self.name).discard_asked;
                let may_be = error.kind() == ErrorKind::Unavailable && self.may_fail;
                if !was_dropped && !may_be {
                    trace::violation(format_args!("{} is not detached: {error}", self.name));
                }
                trace::say(format_args!("{} is not detached: {error}", self.name));
                false
            }
        }
    }
}

/// How a job of this name begins, and the pool that it is opened in.
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
