//! Clients that cause as many messages to agents as they can: what the coordinator keeps for agents stays bounded too.

use std::time::Duration;

use farpool_proto::v1::{CancelJob, ClientFrame, Credit, OpenJob, OpenPool, PoolStarted};
use tokio::task::JoinHandle;

use crate::agent::{Agent, Command, Report};
use crate::client::{Client, Request, batch, open_pool, open_pool_as};
use crate::flood::{
    AGENTS, CLIENTS, LIMIT_WHILE_AGENTS_IDLE, MIB, agent_floods, check, check_within, client_floods_and_reads, honest,
    hostile, joined, messages, start,
};
use crate::process::Running;

/// How an agent handles commands.
#[derive(Clone, Copy)]
enum Behaviour {
    /// It reads, but none of its pools ever starts.
    StartsNoPool,
    /// It starts pools, but no item there ever finishes.
    FinishesNothing,
    /// It executes all commands.
    RunsAll,
}

/// Starts an agent with much credit.
async fn agent(server: &mut Running, number: usize, behaviour: Behaviour) -> JoinHandle<()> {
    let mut agent = Agent::joined_over(server.connect().await, hostile(number)).await;
    agent.send(Report::Credit(Credit { chunks: 60_000, bytes: 0 }));
    tokio::spawn(async move {
        while let Ok(Some(commands)) = agent.next().await {
            for command in commands {
                match (behaviour, &command) {
                    (Behaviour::FinishesNothing, Command::StartPool(start)) => {
                        agent.send(Report::PoolStarted(PoolStarted { pool: start.pool }));
                    }
                    (Behaviour::StartsNoPool, Command::StartPool(_))
                    | (Behaviour::StartsNoPool | Behaviour::FinishesNothing, Command::Assign(_)) => {}
                    _ => agent.execute(command),
                }
            }
        }
    })
}

fn open_job(job: u64, function: usize) -> Request {
    Request::OpenJob(Box::new(OpenJob { job, function: vec![7; function].into(), chunksize: 1, ..OpenJob::default() }))
}

/// Jobs of one item each, with functions of this many bytes. Every second one is cancelled at once.
fn jobs(frame: u64, jobs: u64, function: usize) -> Vec<Request> {
    let numbers = frame * jobs + 1..=(frame + 1) * jobs;
    let jobs = numbers.flat_map(|job| {
        let cancelled = (job % 2 == 0).then_some(Request::CancelJob(CancelJob { job }));
        [open_job(job, function), Request::Items(batch(job, 0, &[b"item"]))].into_iter().chain(cancelled)
    });
    jobs.collect()
}

/// A client that follows the protocol, and sends these frames as fast as they are accepted.
async fn client(server: &mut Running, frames: impl Fn(u64) -> Vec<Request> + Send + 'static) -> [JoinHandle<()>; 2] {
    let open = OpenPool { require: honest("no"), ..open_pool() };
    let client = Client::opened_over(server.connect().await, open).await;
    let out = client.out.clone();
    let reports = tokio::spawn(async move {
        for frame in 0..4000 {
            while out.waiting() > 4 << 20 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            out.extend(frames(frame).into_iter().map(|body| farpool_proto::v1::ClientMessage { body: Some(body) }));
        }
        std::future::pending().await
    });
    [reports, tokio::spawn(client.read_all())]
}

/// Small jobs from some clients, and large ones from others.
async fn clients(server: &mut Running) -> Vec<JoinHandle<()>> {
    let mut floods = Vec::new();
    for number in 0..CLIENTS {
        floods.extend(match number % 2 {
            0 => client(server, |frame| jobs(frame, 1000, 3)).await,
            _ => client(server, |frame| jobs(frame, 2, 900 << 10)).await,
        });
    }
    floods
}

/// A pool with an id: it starts when its client acknowledges where, which it never does.
fn pool(number: usize) -> Request {
    Request::OpenPool(Box::new(OpenPool { require: honest("no"), ..open_pool_as(number as u8 + 1) }))
}

/// Frames of jobs that lack their items.
fn jobs_without_items(number: usize, jobs: u64, function: usize) -> impl Iterator<Item = ClientFrame> + Send {
    let open = pool(number);
    let frame = move |frame| messages((frame * jobs + 1..=(frame + 1) * jobs).map(|job| open_job(job, function)));
    [messages([open])].into_iter().chain((0..400).map(frame))
}

#[tokio::test]
async fn small_jobs_without_their_items_while_an_agent_idles() {
    let mut server = start().await;
    let mut floods = vec![agent(&mut server, 0, Behaviour::StartsNoPool).await];
    floods.push(client_floods_and_reads(server.connect().await, jobs_without_items(0, 5000, 3)));
    check_within(LIMIT_WHILE_AGENTS_IDLE, server, floods).await;
}

#[tokio::test]
async fn large_jobs_without_their_items_while_an_agent_idles() {
    let mut server = start().await;
    let mut floods = vec![agent(&mut server, 0, Behaviour::StartsNoPool).await];
    for number in 0..5 {
        floods.push(client_floods_and_reads(server.connect().await, jobs_without_items(number, 1, 900 << 10)));
    }
    check_within(LIMIT_WHILE_AGENTS_IDLE, server, floods).await;
}

/// Each completes after a while, does not run, and is followed by the next.
#[tokio::test]
async fn chunks_that_complete_one_after_another_while_an_agent_idles() {
    let mut server = start().await;
    let mut floods = vec![agent(&mut server, 0, Behaviour::StartsNoPool).await];
    for _ in 0..CLIENTS {
        let open = Request::OpenPool(Box::new(OpenPool { require: honest("no"), ..open_pool() }));
        let job = Request::OpenJob(Box::new(OpenJob { job: 1, chunksize: 24, ..OpenJob::default() }));
        let items = (0..24).map(|index| messages([Request::Items(batch(1, index, &[&vec![7; MIB as usize]]))]));
        floods.push(client_floods_and_reads(server.connect().await, [messages([open, job])].into_iter().chain(items)));
    }
    check_within(LIMIT_WHILE_AGENTS_IDLE, server, floods).await;
}

#[tokio::test]
async fn jobs_for_agents_whose_pools_never_start() {
    let mut server = start().await;
    let mut floods = Vec::new();
    for number in 0..AGENTS {
        floods.push(agent(&mut server, number, Behaviour::StartsNoPool).await);
    }
    floods.extend(clients(&mut server).await);
    check_within(LIMIT_WHILE_AGENTS_IDLE, server, floods).await;
}

#[tokio::test]
async fn jobs_for_agents_that_run_nothing() {
    let mut server = start().await;
    let mut floods = Vec::new();
    for number in 0..AGENTS {
        floods.push(agent(&mut server, number, Behaviour::FinishesNothing).await);
    }
    floods.extend(clients(&mut server).await);
    check_within(LIMIT_WHILE_AGENTS_IDLE, server, floods).await;
}

#[tokio::test]
async fn jobs_for_agents_that_do_not_read() {
    let mut server = start().await;
    let mut floods = Vec::new();
    for number in 0..AGENTS {
        floods.push(agent_floods(server.connect().await, [joined(number)].into_iter()));
    }
    floods.extend(clients(&mut server).await);
    check_within(LIMIT_WHILE_AGENTS_IDLE, server, floods).await;
}

/// Jobs half of which never end, from several clients.
async fn run_jobs(jobs: impl Fn(u64) -> Vec<Request> + Copy + Send + 'static) {
    let mut server = start().await;
    let mut floods = Vec::new();
    for number in 0..AGENTS {
        floods.push(agent(&mut server, number, Behaviour::RunsAll).await);
    }
    for _ in 0..CLIENTS / 2 {
        floods.extend(client(&mut server, jobs).await);
    }
    check_within(LIMIT_WHILE_AGENTS_IDLE, server, floods).await;
}

#[tokio::test]
async fn small_jobs_for_agents_that_run_them() {
    run_jobs(|frame| jobs(frame, 1000, 3)).await;
}

#[tokio::test]
async fn large_jobs_for_agents_that_run_them() {
    run_jobs(|frame| jobs(frame, 2, 900 << 10)).await;
}

/// Blocks of all sizes are allocated and freed together: freed memory that the allocator keeps counts too.
#[tokio::test]
async fn small_and_large_jobs_for_agents_that_run_them() {
    let mut server = start().await;
    let mut floods = Vec::new();
    for number in 0..AGENTS {
        floods.push(agent(&mut server, number, Behaviour::RunsAll).await);
    }
    floods.extend(clients(&mut server).await);
    check(server, floods).await;
}
