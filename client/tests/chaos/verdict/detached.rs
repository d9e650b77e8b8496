//! What must be so of detached jobs: those whose detach has returned come to their end, with the right outcomes, the same
//! for everybody; of others all is there or nothing; and what was discarded is gone.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use farpool::{Detached, DetachedState};
use farpool_testkit::daemon::PATIENCE;

use crate::ledger::{Ledger, Mark};
use crate::reading::{Reader, Story, has_ended};
use crate::recipe::Recipe;
use crate::stage::Stage;
use crate::work::{Answer, Fate};

/// How long jobs have that somebody has left behind.
const JOBS_END: Duration = Duration::from_secs(60);

/// Every job comes to its end, and is discarded. Returns how many there were.
pub(super) fn come_to_their_end(stage: &mut Stage) -> Result<String, String> {
    let ledger = Ledger::of(stage.folder());
    let recipes = ledger.all();
    let deadline = Instant::now() + JOBS_END;
    let read = |stage: &Stage| {
        let (ledger, recipes, address) = (ledger.clone(), recipes.clone(), stage.address());
        within(JOBS_END + PATIENCE, move || read_all(&ledger, &recipes, &address, deadline))
    };
    let stories = read(stage)?;
    // Whoever reads it later reads the same.
    stage.restart_coordinator();
    if let Some(name) = difference(&stories, &read(stage)?) {
        return Err(format!("job {name} is another one after the coordinator was started again"));
    }
    for recipe in &recipes {
        whoever_reads(&ledger, recipe, stories.get(&recipe.name)).map_err(|wrong| format!("{recipe:?}: {wrong}"))?;
    }
    let unsure: Vec<_> = recipes.iter().filter(|recipe| !ledger.has(&recipe.name, Mark::Detached)).collect();
    let whole = unsure.iter().filter(|recipe| stories.contains_key(&recipe.name)).count();
    let told = format!(
        "{} were not discarded before the end, and of {} whose detach had not returned {whole} were whole",
        stories.len(),
        unsure.len()
    );
    let address = stage.address();
    within(PATIENCE, move || recipes.iter().try_for_each(|recipe| discard(&ledger, recipe, &address)))?;
    Ok(told)
}

type Stories = BTreeMap<String, BTreeMap<u64, String>>;

/// The outcomes of all jobs that are there.
fn read_all(ledger: &Ledger, recipes: &[Recipe], address: &str, deadline: Instant) -> Result<Stories, String> {
    let mut stories = Stories::new();
    for recipe in recipes {
        let reader = Reader::new(ledger, recipe);
        let story = read_whole(&reader, address, deadline).map_err(|wrong| format!("{recipe:?}: {wrong}"))?;
        stories.extend(story.map(|story| (recipe.name.clone(), story.outcomes)));
    }
    Ok(stories)
}

/// All outcomes of a job when it has ended; none: it is not there, or never was complete.
fn read_whole(reader: &Reader<'_>, address: &str, deadline: Instant) -> Result<Option<Story>, String> {
    let Some(job) = reader.attach(address)? else { return Ok(None) };
    let status = loop {
        match reader.status(&job)? {
            Some(status) if has_ended(&status) => break status,
            Some(status) if status.state != DetachedState::Receiving => {
                if Instant::now() > deadline {
                    return Err(format!("it does not end: {status:?}"));
                }
                thread::sleep(Duration::from_millis(20));
            }
            _ => return Ok(None),
        }
    };
    let story = reader.iter(&job, u64::MAX)?;
    reader.check_runs(&story)?;
    let failed = story.fates.values().filter(|fate| **fate != Fate::Done).count() as u64;
    if (status.done, status.failed) != (story.outcomes.len() as u64, failed) {
        return Err(format!("{} outcomes, {failed} of them failures, of {status:?}", story.outcomes.len()));
    }
    is_taken_alike(reader, &job, &story, status.state == DetachedState::Finished)?;
    Ok(Some(story))
}

/// Whether `get` tells the same: all results, or the first failure, if all have their outcome.
fn is_taken_alike(reader: &Reader<'_>, job: &Detached<Answer>, story: &Story, finished: bool) -> Result<(), String> {
    let taken = reader.get(job)?;
    let first = story.fates.iter().find(|(_, fate)| **fate != Fate::Done).map(|(item, _)| *item);
    let wanted: BTreeMap<u64, String> = match first {
        _ if !finished => BTreeMap::new(),
        Some(item) => {
            story.outcomes.iter().filter(|(at, _)| **at == item).map(|(at, told)| (*at, told.clone())).collect()
        }
        None => story.outcomes.clone(),
    };
    (taken.outcomes == wanted)
        .then_some(())
        .ok_or_else(|| format!("it gives {taken:?}, and {wanted:?} when it is read"))
}

fn difference(some: &Stories, others: &Stories) -> Option<String> {
    let mut names = some.keys().chain(others.keys());
    names.find(|name| some.get(*name) != others.get(*name)).cloned()
}

/// What anybody has read of it was always the same, and is there in the end unless it was discarded.
fn whoever_reads(ledger: &Ledger, recipe: &Recipe, now: Option<&BTreeMap<u64, String>>) -> Result<(), String> {
    for (item, told) in ledger.read(&recipe.name) {
        if told.len() > 1 {
            return Err(format!("item {item} had several outcomes: {told:?}"));
        }
        let is_there = now.is_some_and(|now| now.get(&item).is_some_and(|now| told.contains(now)));
        if !is_there && !ledger.has(&recipe.name, Mark::Discarded) {
            return Err(format!("item {item} had the outcome {told:?}, which is not there any more"));
        }
    }
    // Also of those that were discarded meanwhile nothing ran too often.
    Reader::new(ledger, recipe).check_runs(&Story::default())
}

fn discard(ledger: &Ledger, recipe: &Recipe, address: &str) -> Result<(), String> {
    let reader = Reader::new(ledger, recipe);
    let discarded = reader.attach(address).and_then(|job| job.map_or(Ok(()), |job| reader.discard(address, &job)));
    discarded.map_err(|wrong| format!("{recipe:?}: {wrong}"))
}

/// Nobody waits for ever, whatever is wrong.
fn within<T: Send + 'static>(
    patience: Duration,
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let (done, wait) = mpsc::channel();
    thread::spawn(move || done.send(work()));
    wait.recv_timeout(patience).map_err(|_| format!("detached jobs cannot be read within {patience:?}"))?
}
