//! Agents' reports about the items that they hold.

use farpool_core::{Action, Cause, Event, Fault};

use super::{World, runs};

impl World {
    /// The agent has finished these items of the chunk at `at`.
    pub(crate) fn run(&mut self, agent: u32, at: usize, first: u64, count: u64, busy_ns: u64) {
        self.report(agent, at, (first, count), busy_ns, false);
    }

    /// The agent has finished these items of the chunk at `at`, with results that count as failed.
    pub(crate) fn run_failed(&mut self, agent: u32, at: usize, first: u64, count: u64, busy_ns: u64) {
        self.report(agent, at, (first, count), busy_ns, true);
    }

    fn report(&mut self, agent: u32, at: usize, (first, count): (u64, u64), busy_ns: u64, failed: bool) {
        let fake = self.agents.get_mut(&agent).expect("the agent exists");
        let (id, chunk) = (fake.id, fake.finish_items(at, first, count));
        let fresh = self.take_off(chunk.job, first, count);
        let job = self.jobs.get_mut(&chunk.job).expect("the job exists");
        let (retries, again) = (job.policy.retries, failed && job.policy.retry_failed && job.policy.retries > 0);
        let (mut accepted, mut retried) = (Vec::new(), Vec::new());
        for item in fresh.into_iter().flat_map(|(first, count)| first..first + count) {
            let state = job.items.get_mut(&item).expect("the item has arrived");
            if again && (state.copies > 0 || state.faults < retries) {
                state.faults += 1;
                assert!(state.faults <= retries, "a copy of what was tried too often");
                retried.extend((state.copies == 0).then_some((item, state.faults + 1)));
            } else {
                accepted.push(item);
            }
        }
        let (chunk, attempt) = (chunk.id, chunk.attempt);
        let actions = self.send(Event::RunDone { agent: id, chunk, attempt, first, count, busy_ns, failed });
        let mut told = (Vec::new(), Vec::new());
        for action in &actions {
            match *action {
                Action::Accept { first, count, .. } => {
                    assert!(told.1.is_empty(), "a retry drops the report, so it comes last: {actions:?}");
                    told.0.extend(first..first + count);
                }
                Action::Retrying { item, attempt, .. } => told.1.push((item, attempt)),
                _ => {}
            }
        }
        assert_eq!(told, (accepted, retried), "of {first}+{count}: {actions:?}");
    }

    /// Runs the whole chunk at `at`, each item taking `item_ns`.
    pub(crate) fn run_all(&mut self, agent: u32, at: usize, item_ns: u64) {
        let chunk = self.agents[&agent].chunks[at].clone();
        let count = chunk.left.len() as u64;
        assert_eq!(chunk.left.last().expect("something is left") + 1 - chunk.left[0], count, "in one run");
        self.run(agent, at, chunk.left[0], count, count * item_ns);
    }

    pub(crate) fn fault(&mut self, agent: u32, at: usize, item: u64, fault: Fault) {
        let fake = self.agents.get_mut(&agent).expect("the agent exists");
        let (id, chunk) = (fake.id, fake.finish_items(at, item, 1));
        let event = Event::ItemFaulted { agent: id, chunk: chunk.id, attempt: chunk.attempt, item, fault };
        if self.take_off(chunk.job, item, 1).is_empty() {
            assert_eq!(self.send(event), []);
            return;
        }
        let job = self.jobs.get_mut(&chunk.job).expect("the job exists");
        let state = job.items.get_mut(&item).expect("the item has arrived");
        state.faults += 1;
        let attempts = state.faults;
        let may_retry = match fault {
            Fault::Final => false,
            Fault::Died => true,
            Fault::Panicked => job.policy.retry_panics,
        };
        let (job_id, retries, continues) = (job.id, job.policy.retries, may_retry && state.copies > 0);
        let actions = self.send(event);
        let expected = if continues {
            assert!(attempts <= retries, "a copy of what was tried too often");
            None
        } else if may_retry && attempts <= retries {
            Some(Action::Retrying { job: job_id, item, attempt: attempts + 1 })
        } else {
            Some(Action::Fail { job: job_id, first: item, count: 1, attempts, cause: Cause::Reported })
        };
        let fate = actions.iter().find(|action| matches!(action, Action::Retrying { .. } | Action::Fail { .. }));
        assert_eq!(fate, expected.as_ref());
    }

    pub(crate) fn give_back(&mut self, agent: u32, at: usize, first: u64, count: u64) {
        let fake = self.agents.get_mut(&agent).expect("the agent exists");
        fake.chunks[at].asked_back = false;
        let (id, chunk) = (fake.id, fake.finish_items(at, first, count));
        let fresh = if count == 0 { Vec::new() } else { self.take_off(chunk.job, first, count) };
        let items = &mut self.jobs.get_mut(&chunk.job).expect("the job exists").items;
        for (first, count) in fresh {
            items.range_mut(first..first + count).for_each(|(_, item)| item.begun -= 1);
        }
        self.send(Event::Returned { agent: id, chunk: chunk.id, attempt: chunk.attempt, first, count });
    }

    /// Counts one copy less of these reported items that have no outcome yet, and returns their runs.
    fn take_off(&mut self, job: u32, first: u64, count: u64) -> Vec<(u64, u64)> {
        let items = &mut self.jobs.get_mut(&job).expect("the job exists").items;
        let all = items.range_mut(first..first + count);
        let fresh: Vec<u64> = all.filter(|(_, item)| item.outcome.is_none()).map(|(&index, _)| index).collect();
        fresh.iter().for_each(|index| items.get_mut(index).expect("the item was just found").copies -= 1);
        self.stale_expected += u64::from(fresh.len() < count as usize);
        runs(&fresh)
    }
}
