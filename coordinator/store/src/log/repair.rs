//! Repairs jobs with missing records: everything that is whole stays, and what is missing is reported.
//!
//! | missing | consequence |
//! |---|---|
//! | an item that has no outcome | it fails |
//! | an outcome: the item counts as done, or its job had finished | it is reported as a failure |
//! | the record that opened the job, with its name | it gets another name, and ends |
//! | the record that opened its pool | it ends, if it has not |
//! | perhaps some of its last items: it is unknown whether it was complete | it ends, or has failed if it had finished |
//! | perhaps that items that must not run twice were handed out | all its items without outcomes fail |
//! | all its records | nothing can be restored; a warning says that there may have been such jobs |
//! | that it was discarded | it exists again, unless a segment's seal knows, or another job has its name |

use bytes::Bytes;
use farpool_proto::v1::journal_record::{Body, ItemsFailed, JobEnded, JobForgotten, JobOpened};
use farpool_proto::v1::{Failure, FailureKind, OpenJob};
use prost::Message;

use super::compaction::state;
use super::damage::Damage;
use super::index::{Index, key_of};
use super::reader::{Reader, RecordContents};
use super::tail::Tail;
use crate::job::{Ended, Phase};
use crate::runs::Runs;

/// The most names and runs of items that are listed individually.
const SHOWN: usize = 20;

const LOST_ITEM: &str = "the coordinator's journal was damaged, and the item is lost";
const LOST_OUTCOME: &str = "the coordinator's journal was damaged, and the item's outcome is lost";
const RUN_TWICE: &str = "the coordinator's journal was damaged: the item may have run, and must not run twice";
const LOST_POOL: &str = "the coordinator's journal was damaged, and the settings of the job's pool are lost";
const LOST_OPENING: &str = "the coordinator's journal was damaged, and the job's settings are lost";
const LOST_END: &str =
    "the coordinator's journal was damaged, and it is unknown whether all items of the job had arrived";

/// Repairs the index by appending records to the log.
pub(super) struct Repair<'a> {
    pub(super) index: &'a mut Index,
    pub(super) tail: &'a mut Tail,
    pub(super) reader: &'a Reader,
    /// The end time of jobs that cannot continue, in ms since 1970.
    pub(super) now_ms: u64,
}

impl Repair<'_> {
    /// Repairs all jobs, so that each can continue or be read. Reports what is missing.
    pub(super) fn all(
        &mut self,
        damages: &[Damage],
        discarded: impl IntoIterator<Item = u64>,
        warn: &mut dyn FnMut(String),
    ) {
        for job in discarded {
            if self.index.jobs.contains_key(&job) {
                self.append(&Body::JobForgotten(JobForgotten { job }), &[]);
            }
        }
        let discarded_or_here =
            |job: u64| self.index.jobs.contains_key(&job) || self.index.forgotten.contains_key(&job);
        if damages.iter().any(|damage| damage.may_hide_jobs(discarded_or_here)) {
            warn(
                "jobs may be missing from the journal as a whole: if all records of a job are in what is missing, nothing is left of it, \
                 not even its name"
                    .to_owned(),
            );
        }
        let mut untouched = Vec::new();
        for number in self.index.jobs.keys().copied().collect::<Vec<_>>() {
            let affected = damages.iter().any(|damage| damage.affects(number));
            let texts = self.repair_job(number, affected);
            let name = self.index.jobs.get(&number).map(|located| located.job.name()).unwrap_or_default();
            match texts[..] {
                [] if affected => untouched.push(format!("{name:?}")),
                [] => {}
                _ => warn(format!("job {name:?}: {}", texts.join("; "))),
            }
        }
        if !untouched.is_empty() {
            let more = untouched.len().saturating_sub(SHOWN);
            untouched.truncate(SHOWN);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            warn(format!(
                "the damage may also have hidden that a job had ended, was cancelled or discarded; nothing is known to be \
                 missing from {}{more}",
                untouched.join(", ")
            ));
        }
    }

    /// Reports what is missing of a job.
    fn repair_job(&mut self, number: u64, affected: bool) -> Vec<String> {
        let mut texts = Vec::new();
        let lost = self.index.jobs[&number].lost_outcomes();
        if lost.count() > 0 {
            self.fail(number, &lost, LOST_OUTCOME);
            let job = &self.index.jobs[&number].job;
            // Those that were failures are counted twice here.
            let failed = (job.failed + lost.count()).min(job.done.count());
            let mut state = state(job);
            state.failed = failed;
            self.append(&Body::JobState(Box::new(state)), &[]);
            texts.push(format!("{} are lost and reported as failures", count_text(&lost, "outcome")));
        }
        if self.index.jobs[&number].opened.is_none() {
            self.reopen(number);
            texts.push("it now has this name, because its settings are lost".to_owned());
            self.end_early(number, LOST_OPENING, &mut texts);
        }
        let pool = self.index.jobs[&number].pool;
        let has_pool = self.index.pools.get(&pool).is_some_and(|pool| pool.opened.is_some());
        if !has_pool {
            self.end_early(number, LOST_POOL, &mut texts);
        }
        let located = &self.index.jobs[&number];
        let job = &located.job;
        match job.phase() {
            _ if !affected => {}
            Phase::Feeding => self.end_early(number, LOST_END, &mut texts),
            Phase::Running => {
                let lost: Runs = located.lost().collect();
                self.fail(number, &lost, LOST_ITEM);
                if lost.count() > 0 {
                    texts.push(format!("{} are lost, and fail", count_text(&lost, "item")));
                }
                if self.runs_at_most_once(number) {
                    let job = &self.index.jobs[&number].job;
                    let open: Runs = job.done.gaps(job.end).collect();
                    self.fail(number, &open, RUN_TWICE);
                    if open.count() > 0 {
                        let open = count_text(&open, "item");
                        texts.push(format!("{open} fail, because they may have run and must not run twice"));
                    }
                }
            }
            Phase::Ended(Ended::Finished) if !job.items_ended => self.end_as_failed(number, LOST_END, &mut texts),
            Phase::Ended(Ended::Finished) => {
                let lost: Runs = job.done.gaps(job.end).collect();
                self.fail(number, &lost, LOST_OUTCOME);
                if lost.count() > 0 {
                    texts.push(format!("{} are lost and reported as failures", count_text(&lost, "outcome")));
                }
            }
            Phase::Ended(_) if !job.items_ended => texts.push("its number of items is unknown".to_owned()),
            Phase::Ended(_) => {}
        }
        texts
    }

    fn append(&mut self, body: &Body, payload: &[Bytes]) {
        self.tail.append(self.index, body, payload);
    }

    /// Appends the reason why items fail.
    fn fail(&mut self, job: u64, items: &Runs, why: &str) {
        let payload = [failure(why).encode_to_vec().into()];
        for (first, count) in items.iter() {
            let body = Body::ItemsFailed(ItemsFailed { job, first, count });
            self.append(&body, &payload);
        }
    }

    /// Ends a job that cannot continue.
    fn end_early(&mut self, job: u64, why: &str, texts: &mut Vec<String>) {
        if self.index.jobs[&job].job.ended.is_none() {
            self.end_as_failed(job, why, texts);
        }
    }

    fn end_as_failed(&mut self, job: u64, why: &str, texts: &mut Vec<String>) {
        let state = &self.index.jobs[&job].job;
        texts.push(format!("it ends with {} of {} outcomes: {why}", state.done.count(), state.end));
        let (at_ms, failure) = (self.now_ms, Some(failure(why)));
        let ended = JobEnded { job, cancelled: false, at_ms, failure };
        self.append(&Body::JobEnded(Box::new(ended)), &[]);
    }

    /// Gives a job a name, so that its remains can be read. Its owner is lost too: `local` gets it.
    fn reopen(&mut self, job: u64) {
        let (pool, at_ms) = (self.index.jobs[&job].pool, self.now_ms);
        let name = format!("recovered-{job}");
        let mut opened = JobOpened { job, pool, name, at_ms, ..JobOpened::default() };
        while self.index.names.contains_key(&key_of(&opened)) {
            opened.name.push('+');
        }
        let payload = [OpenJob::default().encode_to_vec().into()];
        self.append(&Body::JobOpened(Box::new(opened)), &payload);
    }

    fn runs_at_most_once(&self, job: u64) -> bool {
        let opened = self.index.jobs[&job].opened.map(|location| self.reader.read(location));
        // What cannot be read is reported when the job is started.
        matches!(opened, Some(Ok(RecordContents::Job(opened))) if opened.retries == 0)
    }
}

fn failure(why: &str) -> Failure {
    Failure { kind: FailureKind::Unavailable.into(), message: why.to_owned(), attempts: 1, ..Failure::default() }
}

/// "3 items (1, 4 to 5)".
fn count_text(items: &Runs, noun: &str) -> String {
    let plural = if items.count() == 1 { "" } else { "s" };
    let run = |(first, count): (u64, u64)| match count {
        1 => first.to_string(),
        _ => format!("{first} to {}", first + count - 1),
    };
    let mut runs = items.iter().map(run);
    let shown: Vec<String> = runs.by_ref().take(SHOWN).collect();
    let more = if runs.next().is_some() { ", ..." } else { "" };
    format!("{} {noun}{plural} ({}{more})", items.count(), shown.join(", "))
}
