//! The checks of detached jobs: those whose detach has returned end with the right outcomes, the same for every reader; others
//! exist as a whole or not at all; and discarded ones are gone.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use farpool::{Detached, DetachedState};
use farpool_testkit::daemon::PATIENCE;

use crate::cluster::Cluster;
use crate::job_records::{JobRecords, Mark};
use crate::job_spec::JobSpec;
use crate::reading::{Observed, Reader, has_ended};
use crate::work::{Answer, Fate};

/// How long jobs that are still open may take.
const JOBS_TIMEOUT: Duration = Duration::from_secs(60);

/// Waits until every job has ended, checks it and discards it. Returns how many there were.
pub(super) fn check_and_discard_all(cluster: &mut Cluster) -> Result<String, String> {
    let job_records = JobRecords::of(cluster.folder());
    let job_specs = job_records.all();
    let deadline = Instant::now() + JOBS_TIMEOUT;
    let read = |cluster: &Cluster| {
        let (job_records, job_specs, address) = (job_records.clone(), job_specs.clone(), cluster.address());
        within(JOBS_TIMEOUT + PATIENCE, move || read_all(&job_records, &job_specs, &address, deadline))
    };
    let all_observed = read(cluster)?;
    // Another coordinator must return the same.
    cluster.restart_coordinator();
    if let Some(name) = difference(&all_observed, &read(cluster)?) {
        return Err(format!("job {name} has changed after the coordinator was restarted"));
    }
    for job_spec in &job_specs {
        check_readers_agree(&job_records, job_spec, all_observed.get(&job_spec.name))
            .map_err(|wrong| format!("{job_spec:?}: {wrong}"))?;
    }
    let unsure: Vec<_> = job_specs.iter().filter(|job_spec| !job_records.has(&job_spec.name, Mark::Detached)).collect();
    let whole = unsure.iter().filter(|job_spec| all_observed.contains_key(&job_spec.name)).count();
    let summary = format!(
        "{} were not discarded before the end, and of {} whose detach had not returned {whole} were whole",
        all_observed.len(),
        unsure.len()
    );
    let address = cluster.address();
    within(PATIENCE, move || job_specs.iter().try_for_each(|job_spec| discard(&job_records, job_spec, &address)))?;
    Ok(summary)
}

type AllObserved = BTreeMap<String, BTreeMap<u64, String>>;

/// Returns the outcomes of all jobs that exist.
fn read_all(
    job_records: &JobRecords,
    job_specs: &[JobSpec],
    address: &str,
    deadline: Instant,
) -> Result<AllObserved, String> {
    let mut all_observed = AllObserved::new();
    for job_spec in job_specs {
        let reader = Reader::new(job_records, job_spec);
        let observed = read_whole(&reader, address, deadline).map_err(|wrong| format!("{job_spec:?}: {wrong}"))?;
        all_observed.extend(observed.map(|observed| (job_spec.name.clone(), observed.outcomes)));
    }
    Ok(all_observed)
}

/// Returns all outcomes of a job when it has ended; `None` if it does not exist or never was complete.
fn read_whole(reader: &Reader<'_>, address: &str, deadline: Instant) -> Result<Option<Observed>, String> {
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
    let observed = reader.iter(&job, u64::MAX)?;
    reader.check_runs(&observed)?;
    let failed = observed.fates.values().filter(|fate| **fate != Fate::Done).count() as u64;
    if (status.done, status.failed) != (observed.outcomes.len() as u64, failed) {
        return Err(format!("{} outcomes, {failed} of them failures, of {status:?}", observed.outcomes.len()));
    }
    check_get_agrees(reader, &job, &observed, status.state == DetachedState::Finished)?;
    Ok(Some(observed))
}

/// Checks that `get` agrees: it returns all results, or the first failure if all items have outcomes.
fn check_get_agrees(
    reader: &Reader<'_>,
    job: &Detached<Answer>,
    observed: &Observed,
    finished: bool,
) -> Result<(), String> {
    let taken = reader.get(job)?;
    let first = observed.fates.iter().find(|(_, fate)| **fate != Fate::Done).map(|(item, _)| *item);
    let wanted: BTreeMap<u64, String> = match first {
        _ if !finished => BTreeMap::new(),
        Some(item) => {
            observed.outcomes.iter().filter(|(at, _)| **at == item).map(|(at, text)| (*at, text.clone())).collect()
        }
        None => observed.outcomes.clone(),
    };
    (taken.outcomes == wanted)
        .then_some(())
        .ok_or_else(|| format!("it gives {taken:?}, and {wanted:?} when it is read"))
}

fn difference(some: &AllObserved, others: &AllObserved) -> Option<String> {
    let mut names = some.keys().chain(others.keys());
    names.find(|name| some.get(*name) != others.get(*name)).cloned()
}

/// Checks that all readers have read the same, and that it still exists unless it was discarded.
fn check_readers_agree(
    job_records: &JobRecords,
    job_spec: &JobSpec,
    now: Option<&BTreeMap<u64, String>>,
) -> Result<(), String> {
    for (item, outcomes) in job_records.read(&job_spec.name) {
        if outcomes.len() > 1 {
            return Err(format!("item {item} had several outcomes: {outcomes:?}"));
        }
        let is_there = now.is_some_and(|now| now.get(&item).is_some_and(|now| outcomes.contains(now)));
        if !is_there && !job_records.has(&job_spec.name, Mark::Discarded) {
            return Err(format!("item {item} had the outcome {outcomes:?}, which no longer exists"));
        }
    }
    // Items of discarded jobs must not have run too often either.
    Reader::new(job_records, job_spec).check_runs(&Observed::default())
}

fn discard(job_records: &JobRecords, job_spec: &JobSpec, address: &str) -> Result<(), String> {
    let reader = Reader::new(job_records, job_spec);
    let discarded = reader.attach(address).and_then(|job| job.map_or(Ok(()), |job| reader.discard(address, &job)));
    discarded.map_err(|wrong| format!("{job_spec:?}: {wrong}"))
}

/// Runs this with a time limit.
fn within<T: Send + 'static>(
    timeout: Duration,
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let (done, wait) = mpsc::channel();
    thread::spawn(move || done.send(work()));
    wait.recv_timeout(timeout).map_err(|_| format!("detached jobs cannot be read within {timeout:?}"))?
}
