//! What the server and its operators ask for.

use farpool_core::{Event, JobId};
use farpool_proto::v1::{Drain, agent_command};

use crate::agents::id_as_text;
use crate::coordinator::Coordinator;
use crate::outbox::Outbox;
use crate::reopen::Reopening;
use crate::{AgentId, ClientId};

impl Coordinator {
    /// Whether nothing more of a client's pool is handed out, because the client does not read what is there for it. What
    /// is out goes on.
    pub fn pause_client(&mut self, client: ClientId, paused: bool, now: u64, out: &mut Outbox) {
        self.now = now;
        let Some(id) = self.clients.get(client).and_then(|client| client.pool) else { return };
        let Some(pool) = self.pools.get_mut(id).filter(|pool| pool.runs() && pool.paused != paused) else { return };
        pool.paused = paused;
        if !pool.is_reopening() {
            self.feed(Event::PoolPaused { pool: id, paused }, out);
        }
    }

    /// Whether the agent's connection is lost, and it may come back on another one: it keeps what it has, and gets nothing
    /// new meanwhile.
    pub fn agent_away(&mut self, agent: AgentId, away: bool, now: u64, out: &mut Outbox) {
        self.now = now;
        self.set_away(agent, away, out);
    }

    /// Whether slots idle because nothing that is here can run on them.
    pub fn idles(&self) -> bool {
        self.core.idles()
    }

    /// Whether there is an agent that a client's pool runs on, or was to run on before it was opened again: more of it may be of use.
    pub fn has_place(&self, client: ClientId) -> bool {
        let pool = self.clients.get(client).and_then(|client| client.pool);
        pool.is_some_and(|pool| self.core.workers_of(pool) > 0) || self.is_reopening(client)
    }

    /// Whether a client's items wait for others: those that make up an explicit chunk with them, or all that a pool still wants
    /// that was open before.
    pub fn lacks_chunk(&self, client: ClientId) -> bool {
        if self.is_said_again(client) {
            return true;
        }
        let Some(client) = self.clients.get(client) else { return false };
        let mut jobs = client.open_jobs().filter_map(|job| self.jobs.get(job));
        jobs.any(|job| !job.input_ended && job.store.bytes() > 0 && job.store.lacks_chunk())
    }

    /// Whether a client's pool was open before, and the client is saying what it still wants of it.
    pub fn is_said_again(&self, client: ClientId) -> bool {
        self.reopening(client).is_some_and(|reopening| !reopening.is_complete())
    }

    /// Whether it has said all of that, and the pool waits for the agents that it ran at.
    pub fn is_about_to_go_on(&self, client: ClientId) -> bool {
        self.reopening(client).is_some_and(Reopening::is_complete)
    }

    /// Whether a client has a job of which nothing is here to be run, and more may come.
    pub fn lacks_items(&self, client: ClientId) -> bool {
        let jobs = self.clients.get(client).into_iter().flat_map(crate::clients::Client::open_jobs);
        jobs.filter_map(|job| self.jobs.get(job)).any(|job| !job.input_ended && job.store.bytes() == 0)
    }

    /// Has an agent finish what runs, give back the rest, and leave; it is told so once. False if it is not there.
    pub fn drain_agent(&mut self, id: AgentId, now: u64, out: &mut Outbox) -> bool {
        self.now = now;
        let Some(agent) = self.agents.get_mut(id).filter(|agent| agent.hello.is_some()) else { return false };
        if !std::mem::replace(&mut agent.told_to_drain, true) {
            out.agent(id, agent_command::Body::Drain(Drain {}));
            self.drain(id, out);
        }
        true
    }

    /// Ends a job as if its client had cancelled it. False if it is not there.
    pub fn cancel_job(&mut self, job: JobId, now: u64, out: &mut Outbox) -> bool {
        self.now = now;
        let is_there = self.jobs.get(job).is_some();
        if is_there {
            self.cancel(job, out);
        }
        is_there
    }

    /// A client that has a pool of the program with this digest, and is none of `except`.
    pub fn client_with_program(&self, digest: &[u8], except: &[ClientId]) -> Option<ClientId> {
        let pools = self.pools.iter().map(|(_, pool)| pool);
        let with_it = pools.filter(|pool| pool.asked.program.as_ref().is_some_and(|program| program.digest == digest));
        let mut clients = with_it.map(|pool| pool.client);
        clients.find(|client| !except.contains(client) && self.clients.get(*client).is_some_and(|client| !client.over))
    }

    /// The agent that an operator means by an id, or by the name of a host that no other agent has; and its id as text.
    ///
    /// # Errors
    /// What there is instead.
    pub fn find_agent(&self, text: &str) -> Result<(AgentId, String), String> {
        let known = self.agents.iter().filter_map(|(id, agent)| Some((id, agent.hello.as_ref()?)));
        let known: Vec<_> = known.map(|(id, hello)| (id, id_as_text(hello.id), &hello.host)).collect();
        // Hosts choose their names, and ids are nobody's choice: they go first.
        if let Some((id, name, _)) = known.iter().find(|(_, name, _)| name == text) {
            return Ok((*id, name.clone()));
        }
        let on_host: Vec<_> = known.iter().filter(|(_, _, host)| host.as_str() == text).collect();
        match on_host[..] {
            [(id, name, _)] => Ok((*id, name.clone())),
            [] if known.is_empty() => Err(format!("there is no agent {text:?}: no agent is connected")),
            [] => {
                let all = some_of(known.iter().map(|(_, name, host)| format!("{name} on {host}")));
                Err(format!("there is no agent {text:?}; connected are {all}"))
            }
            _ => {
                let all = some_of(on_host.iter().map(|(_, name, _)| name.clone()));
                Err(format!("there are {} agents on {text}; choose one by its id: {all}", on_host.len()))
            }
        }
    }

    /// The open job that an operator means, by its number as it is shown: nothing else means it, neither "02" nor "+2".
    ///
    /// # Errors
    /// What there is instead.
    pub fn find_job(&self, text: &str) -> Result<JobId, String> {
        let name = text.parse::<u64>().ok().filter(|name| name.to_string() == text);
        if let Some((id, _)) = self.jobs.iter().find(|(_, job)| Some(job.name) == name) {
            return Ok(id);
        }
        if name.is_some_and(|name| 0 < name && name < self.next_name) {
            return Err(format!("job {text} is no longer open: it has ended"));
        }
        if self.jobs.is_empty() {
            return Err(format!("there is no job {text:?}: no job is open"));
        }
        let all = some_of(self.jobs.iter().map(|(_, job)| job.name.to_string()));
        Err(format!("there is no job {text:?}; open are {all}"))
    }
}

/// A list for an error's text, cut off where nobody would read on.
fn some_of(mut names: impl Iterator<Item = String>) -> String {
    const MOST: usize = 10;
    let mut text = names.by_ref().take(MOST).collect::<Vec<_>>().join(", ");
    let more = names.count();
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}
