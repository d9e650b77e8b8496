//! What must hold after every event.

use std::collections::HashMap;

use crate::chunk::Hold;
use crate::core::Core;
use crate::ids::{ChunkId, JobId};

impl Core {
    /// Checks that the books agree with each other; runs after every event in debug builds. O(everything).
    ///
    /// # Panics
    /// If they do not: then farpool has a bug.
    pub fn check(&self) {
        self.jobs.check();
        self.fleet.check();
        self.check_agents();
        self.check_jobs();
    }

    /// Every chunk is in exactly the list that it belongs to, and every agent counts right.
    fn check_agents(&self) {
        let mut listed = 0;
        for (id, agent) in self.fleet.agents.iter() {
            let held: Vec<ChunkId> = agent.held.iter(&self.chunks).collect();
            let retracting = held.iter().filter(|&&chunk| {
                let chunk = self.chunks.get(chunk).expect("a chunk that is listed exists");
                assert_eq!(chunk.agent, id, "a chunk is listed at another agent");
                chunk.hold == Hold::Retracting
            });
            assert_eq!(retracting.count(), agent.retracting as usize);
            assert_eq!(held.len(), agent.count as usize);
            let movable = held.iter().any(|&id| self.chunks.get(id).is_some_and(|chunk| chunk.hold == Hold::Assigned));
            assert_eq!(agent.held.any_movable(), movable);
            listed += held.len();
        }
        assert_eq!(listed, self.chunks.len(), "a chunk is in no list or in two");
    }

    /// Every item that has arrived has had its outcome, or is queued, or is at an agent: once.
    fn check_jobs(&self) {
        let mut at_agents: HashMap<JobId, u64> = HashMap::new();
        for (_, chunk) in self.chunks.iter() {
            let left: u64 = chunk.done.holes(chunk.run).map(|hole| hole.count).sum();
            assert!(left > 0 && left == chunk.done.left(), "a chunk is done and still there, or miscounts");
            assert!(self.jobs.jobs.get(chunk.job).is_some(), "a chunk of a job that is over");
            *at_agents.entry(chunk.job).or_default() += left;
        }
        for (id, job) in self.jobs.jobs.iter() {
            job.queue.check();
            let at_agents = at_agents.get(&id).copied().unwrap_or(0);
            assert_eq!(job.outcomes + job.queue.items() + at_agents, job.arrived, "{id:?} has lost or doubled items");
            assert!(!job.is_over(), "{id:?} is over and still there");
        }
    }
}
