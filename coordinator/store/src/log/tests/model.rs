//! Compares the contents of a journal with a model.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use farpool_proto::v1::{Failure, FailureKind, OpenJob, OpenPool};
use proptest::prelude::*;

use crate::log::compaction::Compaction;
use crate::log::located::Piece;
use crate::log::part::Part;
use crate::log::reader::RecordContents;
use crate::log::simulated::Simulated;
use crate::log::{Journal, Settings};
use crate::{Ended, Phase, Runs};

/// All jobs, by name.
pub(super) type Model = BTreeMap<String, ModelJob>;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct ModelJob {
    pub(super) function: Vec<u8>,
    pub(super) pool: String,
    /// Items without outcomes.
    pub(super) items: BTreeMap<u64, Vec<u8>>,
    /// The result or the reason of failure of each.
    pub(super) outcomes: BTreeMap<u64, Result<Vec<u8>, String>>,
    pub(super) counts: (u64, u64, u64),
    pub(super) phase: Phase,
    pub(super) times_ms: (u64, u64),
    pub(super) fed: u64,
    pub(super) agents: BTreeSet<Bytes>,
}

/// Acts on a journal, with numbers that are interpreted by its current contents.
#[derive(Clone, Debug)]
pub(super) enum Act {
    Pool,
    Open {
        long: usize,
    },
    Items {
        job: usize,
        count: u64,
        long: usize,
    },
    EndItems {
        job: usize,
    },
    Done {
        job: usize,
        at: usize,
        count: u64,
        long: usize,
    },
    Failed {
        job: usize,
        at: usize,
        count: u64,
    },
    End {
        job: usize,
        how: Ended,
    },
    Fed {
        job: usize,
    },
    Placed {
        job: usize,
        agent: u8,
        gone: bool,
    },
    Forget {
        job: usize,
    },
    /// Has a segment emptied, whether it is worth it or not.
    Empty {
        segment: usize,
    },
    /// Handles progress until the disk is idle.
    Progress,
    Sync,
}

pub(super) fn acts(count: usize) -> impl Strategy<Value = Vec<Act>> {
    let job = 0..8usize;
    let act = prop_oneof![
        1 => Just(Act::Pool),
        3 => (0..200usize).prop_map(|long| Act::Open { long }),
        6 => (job.clone(), 1..6u64, 0..90usize).prop_map(|(job, count, long)| Act::Items { job, count, long }),
        1 => job.clone().prop_map(|job| Act::EndItems { job }),
        8 => (job.clone(), 0..9usize, 1..5u64, 0..90usize)
            .prop_map(|(job, at, count, long)| Act::Done { job, at, count, long }),
        2 => (job.clone(), 0..9usize, 1..4u64).prop_map(|(job, at, count)| Act::Failed { job, at, count }),
        1 => (job.clone(), 0..3usize).prop_map(|(job, how)| {
            Act::End { job, how: [Ended::Finished, Ended::Cancelled, Ended::Failed][how] }
        }),
        1 => job.clone().prop_map(|job| Act::Fed { job }),
        2 => (job.clone(), 0..3u8, any::<bool>()).prop_map(|(job, agent, gone)| Act::Placed { job, agent, gone }),
        2 => job.prop_map(|job| Act::Forget { job }),
        4 => any::<usize>().prop_map(|segment| Act::Empty { segment }),
        3 => Just(Act::Progress),
        4 => Just(Act::Sync),
    ];
    prop::collection::vec(act, 1..count)
}

/// A journal, and its expected contents after each act.
pub(super) struct World {
    pub(super) disk: Arc<Simulated>,
    pub(super) journal: Journal,
    pub(super) model: Model,
    pool: Option<(u64, String)>,
    acts: u64,
}

pub(super) fn settings(size: u64) -> Settings {
    Settings { size, ..Settings::new("simulated") }
}

impl World {
    pub(super) fn new(size: u64) -> Self {
        let disk = Arc::new(Simulated::default());
        let journal = Journal::open_in(Arc::clone(&disk) as _, settings(size), &mut |warning| panic!("{warning}"));
        let journal = journal.expect("cannot open an empty journal");
        Self { disk, journal, model: Model::new(), pool: None, acts: 0 }
    }

    /// Does the act, if possible. Returns whether the log may have become longer.
    pub(super) fn act(&mut self, act: &Act) -> bool {
        self.acts += 1;
        if matches!(act, Act::Pool | Act::Open { .. } | Act::Items { .. }) && self.journal.would_fit(2000).is_err() {
            return false;
        }
        let now = self.acts;
        let name = |number: usize, model: &Model| model.keys().nth(number % model.len().max(1)).cloned();
        match *act {
            Act::Pool => {
                if let Some((pool, _)) = self.pool.take() {
                    self.journal.close_pool(pool);
                }
                self.pool();
            }
            Act::Open { long } => {
                let (pool, label) = self.pool();
                let (name, function) = (format!("job {now}"), vec![now as u8; long]);
                let open = OpenJob { function: function.clone().into(), retries: 2, ..OpenJob::default() };
                self.journal.open_job(pool, name.as_str(), &open, now).expect("cannot open the job");
                let (items, outcomes, phase) = (BTreeMap::new(), BTreeMap::new(), Phase::Feeding);
                let (counts, times_ms, fed, agents) = ((0, 0, 0), (0, 0), 0, BTreeSet::new());
                let job = ModelJob { function, pool: label, items, outcomes, counts, phase, times_ms, fed, agents };
                self.model.insert(name, job);
            }
            Act::Items { job, count, long } => {
                let Some(name) = name(job, &self.model) else { return false };
                let job = self.model.get_mut(&name).unwrap();
                if job.phase != Phase::Feeding {
                    return false;
                }
                let first = job.counts.0;
                let items: Vec<_> = (0..count).map(|at| vec![(now + at) as u8; long]).collect();
                let (data, ends) = batch(&items);
                let number = self.journal.find("local", &name).unwrap().number;
                self.journal.items(number, first, data, ends).expect("the journal refused the items");
                job.counts.0 += count;
                job.items.extend((first..).zip(items));
            }
            Act::EndItems { job } => {
                let Some(name) = name(job, &self.model) else { return false };
                let job = self.model.get_mut(&name).unwrap();
                if job.phase != Phase::Feeding {
                    return false;
                }
                let number = self.journal.find("local", &name).unwrap().number;
                self.journal.end_items(number, job.counts.0, now).expect("cannot end the job's input");
                (job.phase, job.times_ms.0) = (Phase::Running, now);
            }
            Act::Done { job, at, count, long } => {
                let Some(name) = name(job, &self.model) else { return false };
                let job = self.model.get_mut(&name).unwrap();
                let Some(first) = job.items.keys().nth(at % job.items.len().max(1)).copied() else { return false };
                let count = (0..count).take_while(|at| job.items.contains_key(&(first + at))).count() as u64;
                let results: Vec<_> = (0..count).map(|at| vec![(now ^ at) as u8; long]).collect();
                let (data, ends) = batch(&results);
                let number = self.journal.find("local", &name).unwrap().number;
                self.journal.done(number, first, data, ends, false, 0).expect("the journal refused the outcomes");
                job.items.retain(|item, _| !(first..first + count).contains(item));
                job.counts.1 += count;
                job.outcomes.extend((first..).zip(results.into_iter().map(Ok)));
            }
            Act::Failed { job, at, count } => {
                let Some(name) = name(job, &self.model) else { return false };
                let job = self.model.get_mut(&name).unwrap();
                let Some(first) = job.items.keys().nth(at % job.items.len().max(1)).copied() else { return false };
                let together = job.items.range(first..first + count).zip(first..);
                let count = together.take_while(|((item, _), index)| *item == index).count() as u64;
                let message = format!("it was {now}");
                let kind = FailureKind::Panicked.into();
                let failure = Failure { kind, message: message.clone(), ..Failure::default() };
                let number = self.journal.find("local", &name).unwrap().number;
                self.journal.failed(number, first, count, &failure).expect("the journal refused the outcomes");
                job.items.retain(|item, _| !(first..first + count).contains(item));
                (job.counts.1, job.counts.2) = (job.counts.1 + count, job.counts.2 + count);
                job.outcomes.extend((first..first + count).map(|item| (item, Err(message.clone()))));
            }
            Act::End { job, how } => {
                let Some(name) = name(job, &self.model) else { return false };
                let job = self.model.get_mut(&name).unwrap();
                let number = self.journal.find("local", &name).unwrap().number;
                let failure = (how == Ended::Failed).then(|| Failure { message: name, ..Failure::default() });
                self.journal.end_job(number, how == Ended::Cancelled, failure, now).expect("cannot end the job");
                (job.phase, job.times_ms.1) = (Phase::Ended(how), now);
            }
            Act::Fed { job } => {
                let Some(name) = name(job, &self.model) else { return false };
                let job = self.model.get_mut(&name).unwrap();
                job.fed = job.counts.0;
                self.journal
                    .fed(self.journal.find("local", &name).unwrap().number, job.fed)
                    .expect("cannot append the note");
            }
            Act::Placed { job, agent, gone } => {
                let Some(name) = name(job, &self.model) else { return false };
                let (job, agent) = (self.model.get_mut(&name).unwrap(), Bytes::from(vec![agent; 16]));
                let number = self.journal.find("local", &name).unwrap().number;
                self.journal.placed(number, agent.clone(), gone).expect("cannot append the note");
                match gone {
                    true => drop(job.agents.remove(&agent)),
                    false => drop(job.agents.insert(agent)),
                }
            }
            Act::Forget { job } => {
                let Some(name) = name(job, &self.model) else { return false };
                self.journal.forget(self.journal.find("local", &name).unwrap().number).expect("cannot forget the job");
                self.model.remove(&name);
            }
            Act::Empty { segment } => {
                let sealed = self.journal.index.segments.all.len().saturating_sub(1).max(1);
                if let Some((&segment, _)) = self.journal.index.segments.all.iter().nth(segment % sealed)
                    && segment != self.journal.tail.end.segment
                    && self.journal.compaction.is_none()
                {
                    self.journal.compaction = Some(Compaction::of(&self.journal.index, segment));
                }
                return false;
            }
            Act::Progress => {
                let held = self.disk.hold();
                (0..4).for_each(|_| drop(self.journal.progress()));
                drop(held);
                return false;
            }
            Act::Sync => {
                self.journal.sync().expect("cannot sync the journal");
                return false;
            }
        }
        true
    }

    fn pool(&mut self) -> (u64, String) {
        if self.pool.is_none() {
            let label = format!("pool {}", self.acts);
            let open = OpenPool { id: label.clone().into(), ..OpenPool::default() };
            self.pool = Some((self.journal.open_pool(&open).expect("cannot open the pool"), label));
        }
        self.pool.clone().expect("the pool is not open")
    }
}

/// Opens the journal on a disk.
pub(super) fn open(files: crate::log::simulated::Files, size: u64) -> (Result<Journal, String>, Vec<String>) {
    open_disk(&Arc::new(Simulated::new(files)), size)
}

pub(super) fn open_disk(disk: &Arc<Simulated>, size: u64) -> (Result<Journal, String>, Vec<String>) {
    let mut warnings = Vec::new();
    let disk = Arc::clone(disk) as _;
    let journal = Journal::open_in(disk, settings(size), &mut |warning| warnings.push(warning));
    (journal.map_err(|error| error.to_string()), warnings)
}

/// Reads the contents of a journal. If a record has several items or outcomes, only the needed ones count.
pub(super) fn contents(journal: &Journal) -> Model {
    for located in journal.index.jobs.values() {
        let job = &located.job;
        let failed = (job.phase() == Phase::Ended(Ended::Failed)).then(|| job.name());
        assert_eq!(job.failure.as_ref().map(|failure| failure.message.as_str()), failed);
        assert_eq!(located.lost().next(), None);
        assert!(journal.index.location_of(Part::Pool(located.pool)).is_some(), "the job's pool exists");
    }
    contents_after_damage(journal)
}

/// Reads the contents of a journal that may lack something.
pub(super) fn contents_after_damage(journal: &Journal) -> Model {
    let reader = &journal.reads.reader;
    let read = |location| reader.read(location).unwrap_or_else(|error| panic!("{error}"));
    let contents = journal.index.jobs.values().map(|located| {
        let job = &located.job;
        let RecordContents::Job(open) = read(located.opened.expect("the job's record has no location")) else {
            panic!("another record")
        };
        let pool = match journal.index.location_of(Part::Pool(located.pool)).map(read) {
            Some(RecordContents::Pool(pool)) => pool.id.to_vec(),
            None => Vec::new(),
            Some(other) => panic!("{other:?}"),
        };
        let (mut items, mut outcomes) = (BTreeMap::new(), BTreeMap::new());
        for (first, count, location) in located.items_from(0) {
            let RecordContents::Items { first: at, data, ends } = read(location) else { panic!("another record") };
            assert_eq!((at, ends.len() as u64), (first, 4 * count));
            items.extend((first..).zip(split(&data, &ends)).filter(|(item, _)| !job.done.covers(*item, item + 1)));
        }
        for (first, count, location) in located.outcomes_from(0) {
            match read(location) {
                RecordContents::Done { first: at, data, ends, .. } => {
                    assert_eq!((at, ends.len() as u64), (first, 4 * count));
                    outcomes.extend((first..).zip(split(&data, &ends).into_iter().map(Ok)));
                }
                RecordContents::Failed { first: at, count: items, failure } => {
                    assert_eq!((at, items), (first, count));
                    outcomes.extend((first..first + count).map(|item| (item, Err(failure.message.clone()))));
                }
                other => panic!("{other:?}"),
            }
        }
        let counts = job.counts();
        let found = ModelJob {
            function: open.function.to_vec(),
            pool: String::from_utf8(pool).unwrap(),
            items,
            outcomes,
            counts: (counts.items, counts.done, counts.failed),
            phase: job.phase(),
            times_ms: (job.complete_ms, job.ended_ms),
            fed: job.fed,
            agents: job.agents.clone(),
        };
        (job.name().to_owned(), found)
    });
    let contents = contents.collect();
    check(journal);
    contents
}

/// The counts match the contents.
fn check(journal: &Journal) {
    let index = &journal.index;
    let jobs = index.jobs.values().flat_map(|job| {
        let pieces = job.items.values().chain(job.outcomes.values()).map(|piece| piece.location);
        pieces.chain(job.opened).chain(job.state)
    });
    let others = index.pools.values().filter_map(|pool| pool.opened);
    let kept: Vec<_> = jobs.chain(others).chain(index.forgotten.values().map(|forgotten| forgotten.record)).collect();
    let segments = &index.segments;
    assert_eq!(segments.entries, kept.len() as u64);
    assert_eq!(segments.live, kept.iter().map(|location| location.bytes()).sum::<u64>());
    assert_eq!(segments.bytes, segments.all.values().map(|segment| segment.bytes).sum::<u64>());
    for (number, segment) in &segments.all {
        let live =
            kept.iter().filter(|location| location.segment == *number).map(|location| location.bytes()).sum::<u64>();
        assert_eq!(segment.live, live, "of segment {number}");
    }
    for (number, job) in &index.jobs {
        let unwanted = |(first, piece): (&u64, &Piece), gone: &Runs| gone.covers(*first, piece.end(*first));
        assert!(!job.items.iter().any(|piece| unwanted(piece, &job.job.done)), "items of job {number} are done");
        let found = segments.all.values().filter(|segment| segment.jobs.contains(number)).count();
        assert_eq!(job.segments as usize, found, "of job {number}");
    }
    for (number, forgotten) in &index.forgotten {
        let found = segments.all.values().filter(|segment| segment.jobs.contains(number)).count();
        assert_eq!(forgotten.segments as usize, found, "of forgotten job {number}");
    }
}

/// Items in the layout of batches.
pub(super) fn batch(items: &[Vec<u8>]) -> (Bytes, Bytes) {
    let ends = items.iter().scan(0, |end, item| {
        *end += item.len() as u32;
        Some(end.to_le_bytes())
    });
    (items.concat().into(), ends.flatten().collect())
}

fn split(data: &[u8], ends: &[u8]) -> Vec<Vec<u8>> {
    let mut from = 0;
    let ends = ends.chunks_exact(4).map(|end| u32::from_le_bytes(end.try_into().unwrap()) as usize);
    ends.map(|end| data[std::mem::replace(&mut from, end)..end].to_vec()).collect()
}
