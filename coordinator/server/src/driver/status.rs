//! Requests of operators, and the status that they see.

use std::collections::HashMap;

use farpool_common::log::info;
use farpool_coordinator::Principal;
use farpool_proto::v1::StatusReply;
use tonic::Status;

use super::super::link::ControlRequest;
use super::Driver;
use super::agents::Agents;
use super::clients::Clients;
use super::detached::Detached;
use super::round::Round;

/// The most pools, and the most jobs, in a status.
const MOST_SHOWN: usize = 20_000;

impl Driver {
    pub(super) fn answer(&mut self, request: ControlRequest) {
        let round = &mut self.round;
        // The sender of a request may be gone by now.
        match request {
            ControlRequest::ListDetached(by, asker) => self.pending.ask_detached(by.tenant(), asker),
            ControlRequest::DescribeDetached(by, request, reply) => {
                drop(reply.send(self.detached.describe(&by, &request)))
            }
            ControlRequest::CancelDetached(by, request, reply) => self.detached.cancel(round, &by, &request, reply),
            ControlRequest::DiscardDetached(by, request, reply) => self.detached.discard(round, &by, &request, reply),
            ControlRequest::Status(asker) => self.pending.ask_status(asker),
            ControlRequest::CancelJob(by, job, reply) => drop(reply.send(cancel_job(round, &by, &job))),
            ControlRequest::DrainAgent(by, agent, reply) => {
                drop(reply.send(drain_agent(round, &self.agents, &by, &agent)));
            }
        }
    }

    /// Answers requests whose answer is shared by all callers, if it is time.
    pub(super) fn answer_requests(&mut self) {
        let Self { pending, round, clients, agents, detached, clock, .. } = self;
        let (now, kept) = (round.now, round.memory.bound / 16);
        pending.answer_detached(*clock, now, kept, |tenant| detached.list(tenant));
        pending.answer_status(*clock, now, kept, || status(round, clients, agents, detached));
    }
}

fn status(round: &mut Round, clients: &Clients, agents: &Agents, detached: &Detached) -> StatusReply {
    let mut status = round.coordinator.status(round.now, MOST_SHOWN);
    status.version = Some(farpool_proto::version());
    status.uptime_ns = round.now;
    status.draining = round.drains;
    // The hellos of agents are not counted here: they stay as long as the agents.
    let beside = agents.unread_now() + agents.partial() + detached.held();
    status.held_bytes = round.bytes_of_jobs() + clients.held() + beside;
    status.memory = round.memory.bound;
    status.journal = detached.status();
    let of_pools: HashMap<_, _> = round.coordinator.pool_clients().collect();
    for pool in &mut status.pools {
        let client = of_pools.get(&pool.pool);
        let address = client.and_then(|&client| clients.get(client)?.session.address);
        let no_address = if client.is_some_and(|&client| detached.is_internal(client)) { "detached" } else { "" };
        pool.client = address.map_or_else(|| no_address.to_owned(), |address| address.to_string());
    }
    status
}

fn cancel_job(round: &mut Round, by: &Principal, text: &str) -> Result<(), Status> {
    let job = round.coordinator.find_job(text).map_err(Status::not_found)?;
    if !round.coordinator.cancel_job(job, round.now, &mut round.out) {
        return Err(Status::not_found(format!("job {text} has ended")));
    }
    info!(round.link.log, job = text, %by, "job cancelled by an operator");
    Ok(())
}

/// Returns the id of the agent.
fn drain_agent(round: &mut Round, agents: &Agents, by: &Principal, text: &str) -> Result<String, Status> {
    let refused = if agents.on_host(text) > 1 { Status::invalid_argument } else { Status::not_found };
    let (agent, id) = round.coordinator.find_agent(text).map_err(refused)?;
    if !round.coordinator.drain_agent(agent, round.now, &mut round.out) {
        return Err(Status::not_found(format!("agent {text} has left")));
    }
    info!(round.link.log, agent = text, %by, "agent drained by an operator");
    Ok(id)
}
