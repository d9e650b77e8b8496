//! A job runs, and its outcomes are read.

use farpool_proto::v1::{AgentHello, DetachedState, Failure, FailureKind, HeldChunk, HeldPool, Label, PoolFault};

use super::*;
use crate::agent::{Agent, Command, Report, hello};
use crate::client::id;
use crate::restart::{HELD, adopted, assigned, result, result_of};

#[tokio::test]
async fn a_job_is_detached_runs_and_is_read() {
    let scratch = Scratch::new();
    let server = scratch.server().await;
    let mut job = detach("one", 1);
    job.job.label = "nightly".to_owned();
    detached(&server, job, 1000).await;
    let [waiting] = &list(&server).await[..] else { panic!("not exactly one job") };
    assert_eq!((waiting.name.as_str(), waiting.label.as_str(), waiting.result.as_str()), ("one", "nightly", "u64"));
    assert_eq!((waiting.state(), waiting.items, waiting.done), (DetachedState::Running, 1000, 0));
    assert!(waiting.detached_ms > 0 && waiting.ended_ms == 0 && waiting.expires_ms == 0);
    let _agent = Agent::echo(&server, 1, 2).await;
    // Any number of clients may attach, from anywhere, while it runs and later.
    let (first, second) = tokio::join!(all(&server, "one"), all(&server, "one"));
    assert_eq!(first, (echoes(0..1000), End::Ended));
    assert_eq!(second, first);
    let (described, outcomes, end) = outcomes(server.connect().await, "one", 990, false).await;
    assert_eq!((outcomes, end), (echoes(990..1000), End::Ended));
    assert_eq!((described.state(), described.done, described.failed), (DetachedState::Finished, 1000, 0));
    assert_eq!(described.expires_ms, described.ended_ms + 7 * 24 * 3600 * 1000);
    server.until("the end of its pool", |status| status.pools.is_empty()).await;
}

#[tokio::test]
async fn a_job_continues_after_a_restart() {
    let scratch = Scratch::new();
    let server = scratch.server().await;
    detached(&server, detach("one", 1), 1000).await;
    server.kill_and_wait().await;
    let server = scratch.server().await;
    assert_eq!(states(&server).await, [("one".to_owned(), DetachedState::Running)]);
    let _agent = Agent::echo(&server, 1, 2).await;
    assert_eq!(all(&server, "one").await, (echoes(0..1000), End::Ended));
    server.kill_and_wait().await;
    let server = scratch.server().await;
    assert_eq!(states(&server).await, [("one".to_owned(), DetachedState::Finished)]);
    assert_eq!(all(&server, "one").await, (echoes(0..1000), End::Ended));
}

/// A job with one item per chunk.
fn one_by_one(retries: u32) -> Opening {
    let mut job = detach("one", 1);
    let open = &mut job.job;
    (open.chunksize, open.retries) = (1, retries);
    job
}

/// The hello of an agent that holds items of the job, a chunk each, from a previous coordinator.
fn holding(number: u8, items: &[u64]) -> AgentHello {
    let held = |&item: &u64| HeldChunk { chunk: 70 + item, job: 1, attempt: 1, first: item, runs: vec![item, 1] };
    let chunks = items.iter().map(held).collect();
    let pool = HeldPool { pool: HELD, id: id(1), processes: 0, chunks, ..HeldPool::default() };
    AgentHello { held: vec![pool], ..hello(number, 1) }
}

#[tokio::test]
async fn items_at_agents_do_not_run_again_after_a_restart() {
    for retries in [0, 2] {
        let scratch = Scratch::new();
        let server = scratch.server().await;
        let mut agent = Agent::joined(&server, 1, 1).await;
        detached(&server, one_by_one(retries), 4).await;
        let assign = assigned(&mut agent).await;
        agent.send(result_of(&assign.chunks[0], 0, b"A"));
        server.until("a result", |status| status.jobs.first().is_some_and(|job| job.done == 1)).await;
        server.kill_and_wait().await;
        let server = scratch.server().await;
        // It does not know whether its report of item 0 has arrived.
        let mut agent = Agent::joined_over(server.connect().await, holding(1, &[0, 1])).await;
        let mut adopt = adopted(&mut agent).await;
        let chunks = std::mem::take(&mut adopt.chunks);
        assert!(chunks.iter().any(|chunk| chunk.held == 71), "{chunks:?}");
        for chunk in chunks {
            let item = chunk.held - 70;
            adopt.chunks = vec![chunk];
            agent.send(result(&adopt, item, [b"A", b"B"][item as usize]));
        }
        let _agent = tokio::spawn(agent.work());
        let expected = vec![(0, Ok(b"A".to_vec())), (1, Ok(b"B".to_vec())), (2, Ok(item(2))), (3, Ok(item(3)))];
        assert_eq!(all(&server, "one").await, (expected, End::Ended));
    }
}

#[tokio::test]
async fn at_most_once_items_do_not_run_twice_if_agent_and_coordinator_are_lost() {
    let scratch = Scratch::new();
    let server = scratch.server().await;
    let mut agent = Agent::joined(&server, 1, 1).await;
    detached(&server, one_by_one(0), 4).await;
    // It has two of them, and their outcomes are lost.
    let mut given = Vec::new();
    while given.len() < 2 {
        given.extend(assigned(&mut agent).await.chunks.into_iter().map(|chunk| chunk.first));
    }
    server.kill_and_wait().await;
    drop(agent);
    let server = scratch.server().await;
    let mut other = Agent::joined(&server, 2, 1).await;
    let other = tokio::spawn(async move {
        let mut ran = Vec::new();
        while let Ok(Some(commands)) = other.next().await {
            for command in commands {
                if let Command::Assign(assign) = &command {
                    ran.extend(assign.chunks.iter().map(|chunk| chunk.first));
                }
                other.execute(command);
            }
        }
        ran
    });
    let (outcomes, end) = all(&server, "one").await;
    assert_eq!((outcomes.len(), end), (4, End::Ended));
    for (index, outcome) in &outcomes {
        match outcome {
            Ok(result) => assert!(*result == item(*index) && !given.contains(index), "item {index} ran twice"),
            Err(why) => assert!(why.contains("must not run twice"), "{why}"),
        }
    }
    assert!(given.iter().all(|item| outcomes[*item as usize].1.is_err()));
    server.kill_and_wait().await;
    let ran = soon("the agent's end", other).await.expect("the agent panicked");
    assert!(ran.iter().all(|item| !given.contains(item)), "{ran:?} ran, and {given:?} had been given out");
}

#[tokio::test]
async fn chunks_may_be_larger_than_the_window() {
    let scratch = Scratch::new();
    let server = scratch.server_with(|settings| settings.window = 100).await;
    let mut job = detach("one", 1);
    job.job.chunksize = 20;
    let mut client = detaching(server.connect().await, job).await;
    assert_eq!(durable(&server, &mut client).await, (0, false));
    // Each becomes a record.
    (0..70).for_each(|at| client.send(Request::Items(some_items(at, 1))));
    client.end_items(1);
    until_complete(&server, &mut client, 70).await;
    let _agent = Agent::echo(&server, 1, 1).await;
    assert_eq!(all(&server, "one").await, (echoes(0..70), End::Ended));
}

#[tokio::test]
async fn a_job_whose_pool_cannot_run_has_failed() {
    let scratch = Scratch::new();
    let server = scratch.server().await;
    let mut agent = Agent::joined(&server, 1, 1).await;
    detached(&server, detach("one", 1), 4).await;
    let pool = agent.pool().await;
    let failure =
        Failure { kind: FailureKind::InitializerFailed.into(), message: "no data".to_owned(), ..Failure::default() };
    agent.send(Report::PoolFault(Box::new(PoolFault { pool, failure: Some(failure) })));
    let _agent = tokio::spawn(agent.work());
    assert_eq!(all(&server, "one").await, (Vec::new(), End::Failed("no data".to_owned())));
    server.kill_and_wait().await;
    let server = scratch.server().await;
    assert_eq!(states(&server).await, [("one".to_owned(), DetachedState::Failed)]);
    assert_eq!(all(&server, "one").await, (Vec::new(), End::Failed("no data".to_owned())));
}

#[tokio::test]
async fn a_job_of_any_size_takes_little_memory() {
    let scratch = Scratch::new();
    let server = scratch.server_with(|settings| (settings.memory, settings.window) = (32 << 20, 8 << 20)).await;
    let mut clients = Vec::new();
    for (name, id) in [("a", 1), ("b", 2), ("c", 3)] {
        let mut client = detaching(server.connect().await, detach(name, id)).await;
        assert_eq!(durable(&server, &mut client).await.0, 0);
        // 48 MiB each.
        let large = vec![id; 64 << 10];
        let items = (0..768).step_by(4).map(|at| batch(1, at, &[&large, &large, &large, &large]));
        feed(&server, &mut client, items).await;
        client.end_items(1);
        clients.push((name, client));
    }
    for (_, client) in &mut clients {
        until_complete(&server, client, 768).await;
    }
    let mut most = 0;
    let idle = tokio::spawn(Agent::joined(&server, 1, 2).await.idle());
    let fed =
        |status: &farpool_proto::v1::StatusReply| status.jobs.len() == 3 && status.jobs.iter().all(|job| job.items > 0);
    server.until("all jobs are fed", fed).await;
    for _ in 0..20 {
        most = most.max(server.status().await.held_bytes);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(most < 16 << 20, "{} MiB are held", most >> 20);
    let _working = Agent::echo(&server, 2, 2).await;
    idle.abort();
    for (name, _) in clients {
        let (outcomes, end) = all(&server, name).await;
        assert_eq!((outcomes.len(), end), (768, End::Ended));
    }
}

#[tokio::test]
async fn jobs_that_no_agent_can_run_leave_memory_to_others() {
    let scratch = Scratch::new();
    let server = scratch.server_with(|settings| settings.memory = 16 << 20).await;
    let large = vec![7; 3 << 20];
    let job = async |name: String, id: u8, require: Vec<Label>| {
        let mut job = detach(&name, id);
        job.job.require = require;
        let mut client = detaching(server.connect().await, job).await;
        assert_eq!(durable(&server, &mut client).await.0, 0);
        (0..3).for_each(|at| client.send(Request::Items(batch(1, at, &[&large]))));
        client.end_items(1);
        until_complete(&server, &mut client, 3).await;
    };
    let gpu = Label { key: "gpu".to_owned(), value: "yes".to_owned() };
    for id in 1..=8 {
        job(format!("waits {id}"), id, vec![gpu.clone()]).await;
    }
    let status = server.until("all jobs are open", |status| status.jobs.len() == 8).await;
    assert!(status.held_bytes < 12 << 20, "{} are held", status.held_bytes);
    job("runs".to_owned(), 9, Vec::new()).await;
    let _agent = Agent::echo(&server, 1, 1).await;
    let (outcomes, end) = all(&server, "runs").await;
    assert_eq!((outcomes.len(), end), (3, End::Ended));
}
