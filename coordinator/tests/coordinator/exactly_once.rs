//! Clients and agents that follow the protocol, but die, panic and return items at random: each item is delivered
//! exactly once, with the right bytes.

use std::collections::{BTreeMap, VecDeque};

use farpool_coordinator::Config;
use farpool_proto::v1::{FailureKind, agent_command, client_event};
use farpool_testkit::doses;
use proptest::prelude::*;

use crate::fakes::*;

/// An agent's own records.
#[derive(Default)]
struct FakeAgent {
    chunks: VecDeque<(Held, Vec<bool>)>,
    jobs: Vec<u64>,
    gone: bool,
}

/// What a client has received of its job.
#[derive(Default)]
struct Received {
    done: BTreeMap<u64, String>,
    /// The items that count as failed, and their attempts.
    counted: BTreeMap<u64, u32>,
    failed: BTreeMap<u64, (FailureKind, u32)>,
    ended: Option<bool>,
    /// The bytes and items that the client may send, and those it has sent.
    limit: u64,
    sent_bytes: u64,
    sent_items: u64,
}

impl Received {
    fn may_be_sent(&self, chunksize: u64) -> bool {
        let outcomes = (self.done.len() + self.failed.len()) as u64;
        self.sent_bytes < self.limit || self.sent_items - outcomes < chunksize
    }
}

fn text(job: u64, item: u64) -> String {
    format!("job{job}item{item}").repeat(item as usize % 3)
}

/// The agent handles its messages and sends the answers that are due at once.
fn read_mail(wire: &mut Wire, agents: &mut [FakeAgent], number: usize, dice: &mut Dice) {
    while let Some(command) = wire.to_agents[number].pop_front() {
        let agent = &mut agents[number];
        match command {
            agent_command::Body::Assign(assign) => {
                for chunk in held(&assign) {
                    assert!(agent.jobs.contains(&chunk.job), "a chunk of a job that it does not know");
                    let open = vec![true; chunk.items.len()];
                    agent.chunks.push_back((chunk, open));
                }
            }
            agent_command::Body::StartJob(start) => agent.jobs.push(start.job),
            agent_command::Body::EndJob(end) => {
                agent.jobs.retain(|&job| job != end.job);
                assert!(end.kill || agent.chunks.iter().all(|(chunk, _)| chunk.job != end.job));
                agent.chunks.retain(|(chunk, _)| chunk.job != end.job);
            }
            agent_command::Body::Retract(retract) => {
                for id in retract.chunks {
                    let Some(at) = agents[number].chunks.iter().position(|(chunk, _)| chunk.chunk == id) else {
                        continue;
                    };
                    give_back_tail(wire, &mut agents[number], number, at, dice);
                }
            }
            agent_command::Body::StopPool(stop) => wire.report(number, pool_stopped(stop.pool)),
            agent_command::Body::StartPool(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Gives back the end of a chunk, all of it, or nothing.
fn give_back_tail(wire: &mut Wire, agent: &mut FakeAgent, number: usize, at: usize, dice: &mut Dice) {
    let (chunk, open) = &mut agent.chunks[at];
    let tail = open.iter().rev().take_while(|open| **open).count();
    let count = dice.roll(tail + 1);
    let from = open.len() - count;
    open[from..].fill(false);
    let event = give_back(chunk, from, count);
    if !open.contains(&true) {
        agent.chunks.remove(at);
    }
    wire.report(number, event);
}

/// The agent runs some items of a chunk.
fn work(wire: &mut Wire, agent: &mut FakeAgent, number: usize, dice: &mut Dice, faults: bool) {
    if agent.chunks.is_empty() {
        return;
    }
    let at = dice.roll(agent.chunks.len());
    let (chunk, open) = &mut agent.chunks[at];
    let candidates: Vec<usize> = (0..open.len()).filter(|&item| open[item]).collect();
    let from = candidates[dice.roll(candidates.len().min(2))];
    let most = open[from..].iter().take_while(|open| **open).count();
    let event = match dice.roll(if faults { 9 } else { 5 }) {
        5 => fault(chunk, chunk.first + from as u64, FailureKind::WorkerDied),
        6 => fault(chunk, chunk.first + from as u64, FailureKind::Panicked),
        7 => fault(chunk, chunk.first + from as u64, FailureKind::TimedOut),
        fate => {
            let count = 1 + dice.roll(most);
            open[from..from + count].fill(false);
            if fate == 8 { failed(chunk, from, count) } else { done(chunk, from, count) }
        }
    };
    open[from] = false;
    if !open.contains(&true) {
        agent.chunks.remove(at);
    }
    wire.report(number, event);
}

fn listen(wire: &mut Wire, received: &mut BTreeMap<u64, Received>) {
    for event in wire.to_clients[0].drain(..) {
        match event {
            client_event::Body::ItemsDone(done) => {
                let job = received.get_mut(&done.job).expect("the job is open");
                assert!(job.ended.is_none());
                for (at, result) in payloads(&done.data, 0, &done.ends).into_iter().enumerate() {
                    assert_eq!(job.done.insert(done.first + at as u64, result), None, "delivered twice");
                    if done.failed {
                        job.counted.insert(done.first + at as u64, done.attempts.max(1));
                    }
                }
            }
            client_event::Body::ItemsFailed(failed) => {
                let job = received.get_mut(&failed.job).expect("the job is open");
                assert!(job.ended.is_none());
                let failure = failed.failure.expect("with its failure");
                let outcome = (failure.kind(), failure.attempts);
                for item in failed.first..failed.first + failed.count {
                    assert_eq!(job.failed.insert(item, outcome), None, "failed twice");
                }
            }
            client_event::Body::JobEnded(ended) => {
                let job = received.get_mut(&ended.job).expect("the job is open");
                assert_eq!(job.ended.replace(ended.cancelled), None, "ended twice");
            }
            client_event::Body::Window(window) => {
                let limit = &mut received.get_mut(&window.job).expect("the job is open").limit;
                assert!(window.limit > std::mem::replace(limit, window.limit), "the limit falls");
            }
            client_event::Body::Welcome(_) | client_event::Body::Waiting(_) => {}
            client_event::Body::PoolOpened(_) | client_event::Body::PoolClosed(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(doses::cases(600)))]

    #[test]
    fn every_item_is_delivered_once(
        jobs in prop::collection::vec((0..5u64, 0..3u32, prop::collection::vec((0..3u64, 1..7u64), 0..8)), 1..4),
        window in 1..400u64,
        numbers in prop::collection::vec(any::<u32>(), 20..200),
    ) {
        let mut dice = Dice::new(numbers);
        let mut config = Config::default();
        config.window = window;
        let mut wire = Wire::with(config);
        wire.client();
        wire.send(0, open_pool(0));
        let mut agents = Vec::new();
        let mut received = BTreeMap::new();
        let mut input = Vec::new();
        let mut sent: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for (number, (chunksize, retries, batches)) in jobs.iter().enumerate() {
            let job = number as u64;
            wire.send(0, open_job_retrying(job, *chunksize, *retries));
            received.insert(job, Received { limit: window, ..Received::default() });
            let mut next = 0;
            let batches = batches.iter().map(|&(gap, count)| {
                let first = next + gap;
                next = first + count;
                (first, count)
            });
            input.push((job, batches.collect::<VecDeque<_>>()));
        }
        for round in 0.. {
            let faults = round < 60;
            while agents.iter().filter(|agent: &&FakeAgent| !agent.gone).count() < 1 + usize::from(round > 20) {
                wire.agent(1 + dice.roll(3) as u32, 1 + dice.roll(5) as u32);
                agents.push(FakeAgent::default());
            }
            if let Some(at) = (!input.is_empty()).then(|| dice.roll(input.len())) {
                let (job, batches) = &mut input[at];
                let job = *job;
                match batches.front().copied() {
                    Some((first, count)) if received[&job].may_be_sent(jobs[job as usize].0) => {
                        batches.pop_front();
                        let batch: Vec<_> = (first..first + count).map(|item| text(job, item)).collect();
                        let received = received.get_mut(&job).expect("the job exists");
                        received.sent_bytes += batch.iter().map(|item| item.len() as u64 + 4).sum::<u64>();
                        received.sent_items += count;
                        wire.send(0, items(job, first, &batch));
                        sent.entry(job).or_default().extend(first..first + count);
                    }
                    Some(_) => {}
                    None => {
                        wire.send(0, end_items(job));
                        input.remove(at);
                    }
                }
            }
            if dice.roll(3) > 0 {
                wire.schedule();
            }
            for number in 0..agents.len() {
                if agents[number].gone {
                    continue;
                }
                if faults && dice.roll(40) == 0 {
                    agents[number].gone = true;
                    wire.agent_gone(number);
                    continue;
                }
                read_mail(&mut wire, &mut agents, number, &mut dice);
                work(&mut wire, &mut agents[number], number, &mut dice, faults);
            }
            listen(&mut wire, &mut received);
            if received.values().all(|job| job.ended.is_some()) {
                break;
            }
            prop_assert!(round < 5000, "the jobs do not end");
        }
        for (job, received) in &received {
            prop_assert_eq!(received.ended, Some(false));
            let retries = jobs[*job as usize].1;
            let mut all: Vec<u64> = received.done.keys().chain(received.failed.keys()).copied().collect();
            all.sort_unstable();
            prop_assert_eq!(&all, &sent.remove(job).unwrap_or_default());
            for (item, result) in &received.done {
                prop_assert_eq!(result, &text(*job, *item).to_uppercase());
            }
            prop_assert!(received.counted.values().all(|&attempts| attempts == retries + 1), "{:?}", received.counted);
            for (kind, attempts) in received.failed.values() {
                let all_tries = matches!(kind, FailureKind::WorkerDied | FailureKind::AgentLost);
                prop_assert!(*attempts == retries + 1 || !all_tries && *attempts <= retries);
            }
        }
        prop_assert_eq!((wire.coordinator.stored_bytes(), wire.coordinator.late_messages()), (0, 0));
        wire.send(0, close(false));
        for number in (0..agents.len()).filter(|&number| !agents[number].gone).collect::<Vec<_>>() {
            read_mail(&mut wire, &mut agents, number, &mut dice);
            prop_assert!(agents[number].jobs.is_empty());
        }
        prop_assert_eq!(wire.to_clients[0].pop_back(), Some(client_event::Body::PoolClosed(Default::default())));
        prop_assert!(wire.coordinator.is_idle());
    }
}
