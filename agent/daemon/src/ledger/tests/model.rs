//! The ledger between an agent and coordinators that are replaced at any moment, checked against a model.

use std::collections::{BTreeMap, BTreeSet};

use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::*;
use farpool_testkit::doses;
use proptest::prelude::*;

use super::super::{Ledger, Step};

/// The agent's state, in its own numbers.
#[derive(Default)]
struct Agent {
    pools: BTreeSet<u64>,
    jobs: BTreeMap<u64, u64>,
    chunks: BTreeMap<u64, AgentChunk>,
}

struct AgentChunk {
    pool: u64,
    job: u64,
    pending: BTreeSet<u64>,
}

/// A coordinator, and the outcomes that it waits for.
#[derive(Default)]
struct Coordinator {
    pools: BTreeSet<u64>,
    /// The pool and number of each.
    jobs: BTreeMap<u64, (u64, u64)>,
    chunks: BTreeMap<u64, CoordinatorChunk>,
    /// The pools of the reports that it has received.
    reports: Vec<u64>,
}

struct CoordinatorChunk {
    pool: u64,
    job: u64,
    attempt: u32,
    pending: BTreeSet<u64>,
}

#[derive(Default)]
struct World {
    ledger: Ledger,
    agent: Agent,
    coordinator: Coordinator,
    names: u64,
    items: u64,
}

impl World {
    fn name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }

    fn command(&mut self, command: Command) {
        self.ledger.command(command).expect("the coordinator violated the protocol");
        self.steps();
    }

    fn steps(&mut self) {
        for step in self.ledger.steps() {
            match step {
                Step::Command(command) => self.handle_command(command),
                Step::Send(event) => self.handle_event(event),
                Step::Hold { .. } => {}
                Step::CancelStop(pool) => assert!(self.agent.pools.contains(&pool)),
            }
        }
    }

    /// Executes a command at the agent.
    fn handle_command(&mut self, command: Command) {
        let Agent { pools, jobs, chunks } = &mut self.agent;
        match command {
            Command::StartPool(start) => {
                assert!(pools.insert(start.pool));
                self.agent_event(Event::PoolStarted(PoolStarted { pool: start.pool }));
            }
            Command::StopPool(stop) => {
                // It stops at once if it can.
                if stop.now || !chunks.values().any(|chunk| chunk.pool == stop.pool) {
                    pools.remove(&stop.pool);
                    jobs.retain(|_, pool| *pool != stop.pool);
                    chunks.retain(|_, chunk| chunk.pool != stop.pool);
                    self.agent_event(Event::PoolStopped(PoolStopped { pool: stop.pool }));
                }
            }
            Command::StartJob(start) => {
                assert!(pools.contains(&start.pool));
                assert_eq!(jobs.insert(start.job, start.pool), None);
            }
            Command::EndJob(end) => {
                assert!(jobs.remove(&end.job).is_some());
                if end.kill {
                    chunks.retain(|_, chunk| chunk.job != end.job);
                }
            }
            Command::Assign(assign) => {
                let mut segments = assign.segments.into_iter();
                for chunk in assign.chunks {
                    let own = segments.by_ref().take(chunk.segments as usize);
                    let count: u64 = own.map(|segment| segment.ends.len() as u64 / 4).sum();
                    let out = (chunk.first..chunk.first + count).collect();
                    let pool = self.agent.jobs[&chunk.job];
                    let before =
                        self.agent.chunks.insert(chunk.chunk, AgentChunk { pool, job: chunk.job, pending: out });
                    assert!(before.is_none());
                }
            }
            Command::CancelChunks(cancel) => cancel.chunks.iter().for_each(|chunk| drop(chunks.remove(chunk))),
            Command::Retract(_) | Command::ResizePool(_) => {}
            other => panic!("unexpected command: {other:?}"),
        }
    }

    fn agent_event(&mut self, event: Event) {
        if let Some(event) = self.ledger.event(event) {
            self.handle_event(event);
        }
        self.steps();
    }

    /// Handles an event at the coordinator, which must expect it.
    fn handle_event(&mut self, event: Event) {
        let coordinator = &mut self.coordinator;
        match event {
            Event::RunDone(done) => {
                let chunk = coordinator.chunks.get_mut(&done.chunk).expect("no such chunk");
                assert_eq!(chunk.attempt, done.attempt);
                for item in done.first..done.first + done.ends.len() as u64 / 4 {
                    assert!(chunk.pending.remove(&item), "item {item} was reported twice");
                }
                coordinator.reports.push(chunk.pool);
            }
            Event::ItemFault(fault) => {
                let chunk = coordinator.chunks.get_mut(&fault.chunk).expect("no such chunk");
                assert!(chunk.pending.remove(&fault.item), "item {} was reported twice", fault.item);
                coordinator.reports.push(chunk.pool);
            }
            Event::Returned(back) => {
                let chunk = coordinator.chunks.get_mut(&back.chunk).expect("no such chunk");
                (back.first..back.first + back.count).for_each(|item| assert!(chunk.pending.remove(&item)));
            }
            Event::PoolStopped(stopped) => drop(coordinator.pools.remove(&stopped.pool)),
            Event::PoolStarted(started) => assert!(coordinator.pools.contains(&started.pool)),
            other => panic!("unexpected event: {other:?}"),
        }
    }

    fn act(&mut self, (action, which): (u8, u8)) {
        match action {
            0 => {
                let pool = self.name();
                self.coordinator.pools.insert(pool);
                let id = pool.to_le_bytes().to_vec().into();
                self.command(Command::StartPool(Box::new(StartPool { pool, id, ..StartPool::default() })));
            }
            1 => {
                let Some(pool) = pick(self.coordinator.pools.iter(), which) else { return };
                let (pool, job, number) = (*pool, self.name(), self.name());
                self.coordinator.jobs.insert(job, (pool, number));
                self.command(Command::StartJob(StartJob { pool, job, number, ..StartJob::default() }));
            }
            2..=4 => self.assign(which),
            5..=9 => self.finish(which),
            10 => {
                let report = self.coordinator.reports.len() * usize::from(which) / 255;
                for pool in self.coordinator.pools.clone() {
                    self.command(Command::Settled(Settled { pool, report: report as u64 }));
                }
            }
            11 => {
                let Some((&job, _)) = pick(self.coordinator.jobs.iter(), which) else { return };
                let over = !self.coordinator.chunks.values().any(|chunk| chunk.job == job && !chunk.pending.is_empty());
                let kill = which % 2 == 0 || !over;
                self.coordinator.jobs.remove(&job);
                if kill {
                    self.coordinator.chunks.retain(|_, chunk| chunk.job != job);
                }
                self.command(Command::EndJob(EndJob { job, kill }));
            }
            12 => {
                let Some((&chunk, _)) = pick(self.coordinator.chunks.iter(), which) else { return };
                self.coordinator.chunks.remove(&chunk);
                self.command(Command::CancelChunks(CancelChunks { chunks: vec![chunk] }));
            }
            13 => {
                let Some(&pool) = pick(self.coordinator.pools.iter(), which) else { return };
                let now = which % 2 == 0;
                self.coordinator.jobs.retain(|_, (of, _)| *of != pool);
                if now {
                    self.coordinator.chunks.retain(|_, chunk| chunk.pool != pool);
                }
                self.command(Command::StopPool(StopPool { pool, now }));
            }
            _ => self.replace_coordinator(which),
        }
    }

    fn assign(&mut self, which: u8) {
        let Some((&job, &(pool, _))) = pick(self.coordinator.jobs.iter(), which) else { return };
        let (count, first, chunk) = (u64::from(which % 4) + 1, self.items, self.name());
        self.items += count;
        let out = (first..first + count).collect();
        self.coordinator.chunks.insert(chunk, CoordinatorChunk { pool, job, attempt: 1, pending: out });
        let ends = vec![0; 4 * count as usize].into();
        let assign = Assign {
            chunks: vec![Chunk { chunk, job, first, attempt: 1, segments: 1 }],
            segments: vec![Segment { ends, ..Segment::default() }],
        };
        self.command(Command::Assign(assign));
    }

    /// Gives an item an outcome, or returns it.
    fn finish(&mut self, which: u8) {
        let Some((&number, chunk)) = pick(self.agent.chunks.iter_mut(), which) else { return };
        let first = *pick(chunk.pending.iter(), which).expect("the chunk is empty");
        let mut count = 1;
        while count < u64::from(which % 3) && chunk.pending.contains(&(first + count)) {
            count += 1;
        }
        let event = match which % 7 {
            0 => {
                count = 1;
                let item = first;
                Event::ItemFault(Box::new(ItemFault { chunk: number, attempt: 1, item, failure: None }))
            }
            1 => Event::Returned(Returned { chunk: number, attempt: 1, first, count }),
            _ => {
                let ends = vec![0; 4 * count as usize].into();
                Event::RunDone(RunDone { chunk: number, attempt: 1, first, ends, ..RunDone::default() })
            }
        };
        chunk.pending.retain(|item| !(first..first + count).contains(item));
        if chunk.pending.is_empty() {
            self.agent.chunks.remove(&number);
        }
        self.agent_event(event);
    }

    /// Replaces the coordinator. The bits of `wanted` select the pools and chunks that the new one adopts.
    fn replace_coordinator(&mut self, wanted: u8) {
        self.coordinator = Coordinator::default();
        self.ledger.session_lost();
        self.steps();
        if wanted.is_multiple_of(5) {
            // The first hello is lost.
            self.ledger.hello();
        }
        if wanted.is_multiple_of(3) {
            self.finish(wanted);
        }
        let (held, _) = self.ledger.hello();
        if wanted % 3 == 1 {
            self.finish(wanted);
        }
        self.ledger.welcomed();
        self.steps();
        for (at, pool) in held.into_iter().enumerate() {
            if wanted >> (at % 8) & 1 == 1 {
                self.adopt(pool, wanted);
            } else {
                self.command(Command::StopPool(StopPool { pool: pool.pool, now: true }));
            }
        }
    }

    fn adopt(&mut self, held: HeldPool, wanted: u8) {
        let pool = self.name();
        self.coordinator.pools.insert(pool);
        let mut adopt =
            AdoptPool { held: held.pool, pool, processes: held.processes, weight: 1, ..AdoptPool::default() };
        let mut jobs = BTreeMap::new();
        for (at, chunk) in held.chunks.into_iter().enumerate() {
            if wanted >> (at % 7) & 1 == 0 {
                continue;
            }
            let job = *jobs.entry(chunk.job).or_insert_with(|| {
                let job = self.name();
                self.coordinator.jobs.insert(job, (pool, chunk.job));
                adopt.jobs.push(AdoptedJob { number: chunk.job, job });
                job
            });
            let name = self.name();
            let out = chunk.runs.chunks(2).flat_map(|run| run[0]..run[0] + run[1]).collect();
            self.coordinator.chunks.insert(name, CoordinatorChunk { pool, job, attempt: 7, pending: out });
            adopt.chunks.push(AdoptedChunk { held: chunk.chunk, chunk: name, attempt: 7 });
        }
        self.command(Command::AdoptPool(Box::new(adopt)));
    }

    /// Ends everything, and checks that nothing is left.
    fn end(mut self) {
        while !self.agent.chunks.is_empty() {
            self.finish(6);
        }
        let missing: Vec<_> = self.coordinator.chunks.values().flat_map(|chunk| &chunk.pending).collect();
        assert!(missing.is_empty(), "missing outcomes of {missing:?}");
        let report = self.coordinator.reports.len() as u64;
        for pool in self.coordinator.pools.clone() {
            self.command(Command::Settled(Settled { pool, report }));
        }
        for job in std::mem::take(&mut self.coordinator.jobs).into_keys() {
            self.command(Command::EndJob(EndJob { job, kill: false }));
        }
        for pool in std::mem::take(&mut self.coordinator.pools) {
            self.command(Command::StopPool(StopPool { pool, now: true }));
        }
        for pool in std::mem::take(&mut self.agent.pools) {
            self.agent_event(Event::PoolStopped(PoolStopped { pool }));
        }
        // Pools that were stopped before their reports were settled.
        self.ledger.session_lost();
        let (held, _) = self.ledger.hello();
        for pool in held {
            self.command(Command::StopPool(StopPool { pool: pool.pool, now: true }));
        }
        let Ledger { pools, work, .. } = &self.ledger;
        assert!(pools.is_empty() && work.is_empty(), "{:?}", self.ledger);
        assert!(!pools.has_names() && !work.has_names(), "{:?}", self.ledger);
    }
}

fn pick<T>(mut from: impl ExactSizeIterator<Item = T>, which: u8) -> Option<T> {
    let length = from.len();
    if length == 0 { None } else { from.nth(usize::from(which) % length) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(doses::cases(2000)))]
    #[test]
    fn nothing_is_lost_and_nothing_is_unexpected(actions in prop::collection::vec((0..15_u8, any::<u8>()), 0..120)) {
        let mut world = World::default();
        actions.into_iter().for_each(|action| world.act(action));
        world.end();
    }
}
