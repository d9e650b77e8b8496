//! Queries of the server and its operators. They change nothing.

use farpool_core::{Core, JobId};
use farpool_proto::text::{Printable, digits_that_differ};

use crate::ids::id_as_text;
use crate::parts::Parts;
use crate::parts::clients::Client;
use crate::parts::former::PoolRecovery;
use crate::parts::jobs::Job;
use crate::parts::pools::Pool;
use crate::{AgentId, ClientId};

/// Whether a client's pool runs somewhere, or did before it was opened again.
pub(crate) fn has_place(parts: &Parts, core: &Core, client: ClientId) -> bool {
    let pool = parts.clients.pool_of(client);
    pool.is_some_and(|pool| core.workers_of(pool) > 0) || reopening(parts, client).is_some()
}

/// Whether the client must send more items before anything can run.
pub(crate) fn lacks_chunk(parts: &Parts, client: ClientId) -> bool {
    reopening(parts, client).is_some_and(|reopening| !reopening.is_complete())
        || jobs_with_input(parts, client).any(|job| job.payloads().bytes() > 0 && job.payloads().lacks_chunk())
}

/// Whether a client has a job that has nothing queued and may get more items.
pub(crate) fn lacks_items(parts: &Parts, client: ClientId) -> bool {
    jobs_with_input(parts, client).any(|job| job.payloads().bytes() == 0)
}

/// Whether a client has shared values, which only it can free.
pub(crate) fn shares_values(parts: &Parts, client: ClientId) -> bool {
    pool_of(parts, client).is_some_and(|pool| !pool.shared.is_empty())
}

fn jobs_with_input(parts: &Parts, client: ClientId) -> impl Iterator<Item = &Job> {
    let jobs = parts.clients.get(client).into_iter().flat_map(Client::open_jobs);
    jobs.filter_map(|job| parts.jobs.get(job)).filter(|job| !job.input_ended())
}

/// Returns the state of a pool that is being opened again; `None`: the core knows the pool.
pub(crate) fn reopening(parts: &Parts, client: ClientId) -> Option<&PoolRecovery> {
    pool_of(parts, client)?.reopening()
}

/// Returns the client's pool, until its last worker is gone.
pub(crate) fn pool_of(parts: &Parts, client: ClientId) -> Option<&Pool> {
    parts.pools.get(parts.clients.pool_of(client)?)
}

/// Returns a client that has a pool of the program with this digest and is not in `except`.
pub(crate) fn client_with_program(parts: &Parts, digest: &[u8], except: &[ClientId]) -> Option<ClientId> {
    let specs = parts.pools.iter().map(|(_, pool)| pool.spec());
    let with_it = specs.filter(|spec| spec.request.program.as_ref().is_some_and(|program| program.digest == digest));
    let mut clients = with_it.map(|spec| spec.client);
    clients
        .find(|client| !except.contains(client) && parts.clients.get(*client).is_some_and(|client| !client.is_over()))
}

/// Finds the agent that an operator names, by its id, or by the name of its host if no other agent has that. Returns
/// its id also as text, or an error with the agents that exist.
pub(crate) fn find_agent(parts: &Parts, text: &str) -> Result<(AgentId, String), String> {
    let known = parts.agents.greeted().map(|(id, _, hello)| (id, id_as_text(hello.id), &hello.host));
    let known: Vec<_> = known.collect();
    // Hosts choose their names but not their ids, so ids go first.
    if let Some((id, name, _)) = known.iter().find(|(_, name, _)| name == text) {
        return Ok((*id, name.clone()));
    }
    let on_host: Vec<_> = known.iter().filter(|(_, _, host)| host.as_str() == text).collect();
    match on_host[..] {
        [(id, name, _)] => Ok((*id, name.clone())),
        [] if known.is_empty() => Err(format!("there is no agent {text:?}: no agent is connected")),
        [] => {
            let digits = digits_that_differ(known.iter().map(|(_, name, _)| &**name));
            let all = some_of(known.iter().map(|(_, name, host)| format!("{name:.digits$} on {host}")));
            Err(format!("there is no agent {text:?}; connected: {all}"))
        }
        _ => {
            let digits = digits_that_differ(known.iter().map(|(_, name, _)| &**name));
            let all = some_of(on_host.iter().map(|(_, name, _)| format!("{name:.digits$}")));
            Err(format!("there are {} agents on {}; choose one by its id: {all}", on_host.len(), Printable(text)))
        }
    }
}

/// Finds the open job that an operator names, by its number as it is shown: "2", not "02" or "+2".
/// Returns an error with the jobs that exist.
pub(crate) fn find_job(parts: &Parts, text: &str) -> Result<JobId, String> {
    let name = text.parse::<u64>().ok().filter(|name| name.to_string() == text);
    if let Some((id, _)) = parts.jobs.iter().find(|(_, job)| Some(job.spec().name) == name) {
        return Ok(id);
    }
    if parts.pools.iter().any(|(_, pool)| Some(pool.spec().name) == name) {
        return Err(format!("{text} is the number of a pool, not of a job"));
    }
    // Pools have numbers of the same kind.
    if name.is_some_and(|name| parts.names.was_given(name)) {
        return Err(format!("number {text} is no longer in use: its job or pool has ended"));
    }
    if parts.jobs.iter().next().is_none() {
        return Err(format!("there is no job {text:?}: no job is open"));
    }
    let all = some_of(parts.jobs.iter().map(|(_, job)| job.spec().name.to_string()));
    Err(format!("there is no job {text:?}; open jobs: {all}"))
}

/// Returns a list for an error's text, cut off so that it stays readable.
fn some_of(mut names: impl Iterator<Item = String>) -> String {
    const MOST: usize = 10;
    let mut text = names.by_ref().take(MOST).collect::<Vec<_>>().join(", ");
    let more = names.count();
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}
