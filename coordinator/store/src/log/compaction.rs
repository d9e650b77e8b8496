//! Decides how segments are emptied, so that unneeded records do not fill the disk: which segment is next, and which of
//! its records move to the end of the log. It writes nothing.
//!
//! Needed records are copied. Some records only *state* something: that items have outcomes, that a job has ended or
//! was forgotten. These statements must outlive their records, so they are written again, in one record per job.

use farpool_proto::v1::journal_record::{Body, JobForgotten, JobState};

use super::index::Index;
use super::location::RecordLocation;
use super::part::Part;
use super::segments::Segment;
use crate::job::{Ended, Job};

/// While there is room, there may be as many unneeded bytes as needed ones, and these segments in addition.
const SPARE_SEGMENTS: u64 = 4;

/// How much one step may copy, and how many entries it may check: other work waits for it.
const STEP_BYTES: u64 = 4 << 20;
const STEP_LOOKS: usize = 4096;

/// A segment that is being emptied.
#[derive(Debug)]
pub(super) struct Compaction {
    pub(super) segment: u32,
    /// Pools that were not checked yet, the next one last.
    pools: Vec<u64>,
    jobs: Vec<u64>,
    stage: Stage,
}

/// Where the next step continues with the last of the jobs.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Opened,
    Items(u64),
    Outcomes(u64),
    Summary,
}

/// The records that must be written.
#[derive(Debug)]
pub(super) enum Move {
    Copy(Part, RecordLocation),
    Restate(Body),
}

impl Compaction {
    /// Returns the next segment that is damaged or worth emptying, if there is one. `active` is being written; `room`
    /// is the size beyond which new items are refused.
    pub(super) fn choose(index: &Index, active: u32, room: u64) -> Option<Self> {
        let segments = &index.segments;
        let damaged = |(number, segment): &(&u32, &Segment)| segment.damaged && !segment.stuck && **number != active;
        if let Some((damaged, _)) = segments.all.iter().find(damaged) {
            return Some(Self::of(index, *damaged));
        }
        let sealed = || segments.all.iter().filter(|(number, segment)| **number != active && !segment.stuck);
        let wanted = |live: u64, bytes: u64| live as f64 / bytes as f64;
        let (number, least) =
            sealed().min_by(|(_, a), (_, b)| wanted(a.live, a.bytes).total_cmp(&wanted(b.live, b.bytes)))?;
        let dead = segments.bytes - segments.live;
        let spare = SPARE_SEGMENTS * segments.bytes / segments.all.len() as u64;
        let worth = if segments.bytes > room / 4 * 3 {
            least.live < least.bytes / 8 * 7
        } else {
            least.live == 0 || (dead > segments.live + spare && least.live < least.bytes / 2)
        };
        worth.then(|| Self::of(index, *number))
    }

    pub(super) fn of(index: &Index, segment: u32) -> Self {
        let full = &index.segments.all[&segment];
        let (jobs, pools) = (full.jobs.iter().rev().copied(), full.pools.iter().copied());
        Self { segment, pools: pools.collect(), jobs: jobs.collect(), stage: Stage::Opened }
    }

    /// Returns what must be written next; nothing: it is done.
    pub(super) fn step(&mut self, index: &Index) -> Vec<Move> {
        let (mut moves, mut bytes, mut looks) = (Vec::new(), 0, 0);
        let segment = self.segment;
        let mut look = |part: Part, location: RecordLocation| {
            looks += 1;
            if location.segment == segment {
                bytes += location.bytes();
                moves.push(Move::Copy(part, location));
            }
            bytes >= STEP_BYTES || looks >= STEP_LOOKS
        };
        let mut restated = Vec::new();
        'full: {
            while let Some(pool) = self.pools.pop() {
                if let Some(location) = index.pools.get(&pool).and_then(|pool| pool.opened)
                    && look(Part::Pool(pool), location)
                {
                    break 'full;
                }
            }
            while let Some(&number) = self.jobs.last() {
                let Some(located) = index.jobs.get(&number) else {
                    restated.extend(forgotten(index, number, segment));
                    self.jobs.pop();
                    self.stage = Stage::Opened;
                    continue;
                };
                loop {
                    let (full, next) = match self.stage {
                        Stage::Opened => {
                            let full = located.opened.is_some_and(|location| look(Part::Opened(number), location));
                            (full, Stage::Items(0))
                        }
                        Stage::Items(from) => match located.items.range(from..).next() {
                            Some((&at, piece)) => (look(Part::Items(number, at), piece.location), Stage::Items(at + 1)),
                            None => (false, Stage::Outcomes(0)),
                        },
                        Stage::Outcomes(from) => match located.outcomes.range(from..).next() {
                            Some((&at, piece)) => {
                                (look(Part::Outcomes(number, at), piece.location), Stage::Outcomes(at + 1))
                            }
                            None => (false, Stage::Summary),
                        },
                        Stage::Summary => break,
                    };
                    self.stage = next;
                    if full {
                        break 'full;
                    }
                }
                if located.state.is_none_or(|location| location.segment <= segment) {
                    restated.push(Body::JobState(Box::new(state(&located.job))));
                }
                self.jobs.pop();
                self.stage = Stage::Opened;
                if restated.len() >= STEP_LOOKS {
                    break;
                }
            }
        }
        moves.extend(restated.into_iter().map(Move::Restate));
        moves
    }

    /// Whether everything was checked.
    pub(super) fn is_done(&self) -> bool {
        self.pools.is_empty() && self.jobs.is_empty()
    }
}

/// Returns what must be written again of a forgotten job.
fn forgotten(index: &Index, number: u64, segment: u32) -> Option<Body> {
    let forgotten = index.forgotten.get(&number)?;
    (forgotten.record.segment == segment).then_some(Body::JobForgotten(JobForgotten { job: number }))
}

pub(super) fn state(job: &Job) -> JobState {
    JobState {
        job: job.number,
        end: job.end,
        items_ended: job.items_ended,
        ended: job.ended.is_some(),
        cancelled: job.ended == Some(Ended::Cancelled),
        failure: job.failure.as_deref().cloned(),
        failed: job.failed,
        done: job.done.flat(),
        fed: job.fed,
        agents: job.agents.iter().cloned().collect(),
        complete_ms: job.complete_ms,
        ended_ms: job.ended_ms,
    }
}
