//! Answers to operators.

use std::collections::{BTreeMap, HashMap};

use farpool_common::log::info;
use farpool_coordinator::Principal;
use farpool_proto::v1::StatusReply;
use tonic::Status;

use super::super::link::Question;
use super::super::published::{Waiting, encode};
use super::Driver;

/// Pools, and jobs, that a status has at most.
const MOST_SHOWN: usize = 20_000;

/// Who waits for what is alike for all.
#[derive(Default)]
pub(super) struct Asked {
    status: Waiting,
    /// By tenant.
    detached: BTreeMap<String, Waiting>,
}

impl Asked {
    pub(super) fn next_look(&self) -> Option<u64> {
        self.detached.values().chain([&self.status]).filter_map(Waiting::next_look).min()
    }
}

impl Driver {
    /// Answers those who wait, as often as that may be.
    pub(super) fn tend_asked(&mut self) {
        let kept = self.memory.bound() / 16;
        if self.asked.status.is_due(self.now) {
            let begun = self.clock.now();
            let status = Ok(encode(&self.status()));
            let now = self.clock.now();
            self.asked.status.answer(&status, now - begun, now, kept);
        }
        let mut detached = std::mem::take(&mut self.asked.detached);
        for (tenant, waiting) in detached.iter_mut().filter(|(_, waiting)| waiting.is_due(self.now)) {
            let begun = self.clock.now();
            let list = self.detached.list(tenant).map(|list| encode(&list));
            let now = self.clock.now();
            waiting.answer(&list, now - begun, now, kept);
        }
        // Those who would have to wait, did they ask now, are remembered.
        detached.retain(|_, waiting| !waiting.is_over(self.now));
        self.asked.detached = detached;
    }

    pub(super) fn answer(&mut self, question: Question) {
        // Whoever asked may be gone by now.
        match question {
            Question::ListDetached(by, asker) => {
                self.asked.detached.entry(by.tenant().to_owned()).or_default().add(asker);
            }
            Question::CancelDetached(by, request, reply) => {
                self.with_detached(|detached, turn| detached.cancel(turn, &by, &request, reply));
            }
            Question::DiscardDetached(by, request, reply) => {
                self.with_detached(|detached, turn| detached.discard(turn, &by, &request, reply));
            }
            Question::Status(asker) => self.asked.status.add(asker),
            Question::CancelJob(by, job, reply) => drop(reply.send(self.cancel_job(&by, &job))),
            Question::DrainAgent(by, agent, reply) => drop(reply.send(self.drain_agent(&by, &agent))),
        }
    }

    fn status(&mut self) -> StatusReply {
        let mut status = self.coordinator.status(self.now, MOST_SHOWN);
        status.version = Some(farpool_proto::version());
        status.uptime_ns = self.now;
        status.draining = self.drain.is_some();
        status.held_bytes = self.all_held();
        status.memory = self.memory.bound();
        status.journal = self.detached.status();
        let clients: HashMap<_, _> = self.coordinator.pool_clients().collect();
        for pool in &mut status.pools {
            let address = clients.get(&pool.pool).and_then(|client| self.clients.get(client)?.session.address);
            let detached = clients.get(&pool.pool).is_some_and(|client| self.detached.plays(*client));
            let nobody = if detached { "detached" } else { "" };
            pool.client = address.map_or_else(|| nobody.to_owned(), |address| address.to_string());
        }
        status
    }

    fn cancel_job(&mut self, by: &Principal, text: &str) -> Result<(), Status> {
        let job = self.coordinator.find_job(text).map_err(Status::not_found)?;
        if !self.coordinator.cancel_job(job, self.now, &mut self.out) {
            return Err(Status::not_found(format!("job {text} has ended")));
        }
        info!(self.link.log, job = text, %by, "job cancelled by an operator");
        Ok(())
    }

    /// Returns the id of the agent.
    fn drain_agent(&mut self, by: &Principal, text: &str) -> Result<String, Status> {
        let several = self.agents.values().filter(|agent| agent.host == text).count() > 1;
        let refused = if several { Status::invalid_argument } else { Status::not_found };
        let (agent, id) = self.coordinator.find_agent(text).map_err(refused)?;
        if !self.coordinator.drain_agent(agent, self.now, &mut self.out) {
            return Err(Status::not_found(format!("agent {text} has left")));
        }
        info!(self.link.log, agent = text, %by, "agent drained by an operator");
        Ok(id)
    }
}
