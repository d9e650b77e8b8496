//! Measures how many items per second go through the coordinator, messages in and messages out, without a network.
//!
//! Run with `cargo bench -p farpool-coordinator`. One thread acts as client, coordinator and agent, so the figures
//! include what the client and the agent need to make and read messages.

use std::time::Instant;

use bytes::Bytes;
use farpool_coordinator::{AgentId, ClientId, Config, Coordinator, Outbox, Principal};
use farpool_proto::v1::{
    AgentEvent, AgentHello, ClientMessage, Credit, EndItems, Items, OpenJob, OpenPool, PoolStarted, RunDone,
    WorkerSettings, agent_command, agent_event, client_event, client_message,
};

fn main() {
    let measure = std::env::args().any(|word| word == "--bench");
    let items = if measure { 4_000_000 } else { 2000 };
    println!("{:>10} {:>8} {:>12} {:>10}", "chunksize", "credit", "items/s", "ns/item");
    for (chunksize, credit) in [(1, 1), (1, 4), (1, 64), (16, 4), (1000, 4), (0, 4)] {
        let rate = run(items, chunksize, credit);
        let chunks = if chunksize == 0 { "adaptive".to_owned() } else { chunksize.to_string() };
        println!("{chunks:>10} {credit:>8} {rate:>12.0} {:>10.1}", 1e9 / rate);
    }
    let rate = apply(items / 4);
    println!("{:>10} {:>8} {rate:>12.0} {:>10.1}", "apply", 1, 1e9 / rate);
}

/// Returns how many jobs of one item, one after another, end per second.
fn apply(jobs: u64) -> f64 {
    let (mut coordinator, agent, client) = connect(4);
    let mut out = Outbox::default();
    let (data, ends) = (Bytes::from_static(b"12345678"), Bytes::from_static(&[8, 0, 0, 0]));
    let start = Instant::now();
    for job in 0..jobs {
        let (data, ends) = (data.clone(), ends.clone());
        for body in [
            client_message::Body::OpenJob(Box::new(OpenJob { job, ..OpenJob::default() })),
            client_message::Body::Items(Items { job, first: 0, data: data.clone(), ends: ends.clone() }),
            client_message::Body::EndItems(EndItems { job }),
        ] {
            let message = ClientMessage { body: Some(body) };
            coordinator.client_message(client, message, 0, &mut out).expect("the message is valid");
        }
        coordinator.schedule(0, &mut out);
        let Some(agent_command::Body::Assign(assign)) = out.to_agents.pop().and_then(|(_, command)| command.body)
        else {
            panic!("the item is handed out");
        };
        let chunk = assign.chunks[0].chunk;
        let report = RunDone { chunk, attempt: 1, first: 0, data, ends, busy_ns: 100, failed: false };
        let event = AgentEvent { body: Some(agent_event::Body::RunDone(report)) };
        coordinator.agent_event(agent, event, 0, &mut out).expect("the event is valid");
        out.to_agents.clear();
        let told = out.to_clients.drain(..).count();
        assert!(told >= 2, "a result and the end");
    }
    jobs as f64 / start.elapsed().as_secs_f64()
}

/// Makes a coordinator with an agent that has two slots, and a client with a pool.
fn connect(credit: u32) -> (Coordinator, AgentId, ClientId) {
    let mut coordinator = Coordinator::new(Config::default());
    let (agent, client) = (coordinator.connect_agent(), coordinator.connect_client(Principal::local()));
    let mut out = Outbox::default();
    for body in [
        agent_event::Body::Hello(Box::new(AgentHello { host: "here".to_owned(), slots: 2, ..AgentHello::default() })),
        agent_event::Body::Credit(Credit { chunks: credit, bytes: 0 }),
    ] {
        coordinator.agent_event(agent, AgentEvent { body: Some(body) }, 0, &mut out).expect("the event is valid");
    }
    let settings = WorkerSettings { payload_limit: 1 << 20, ..WorkerSettings::default() };
    let open = OpenPool { settings: Some(settings), ..OpenPool::default() };
    let open = ClientMessage { body: Some(client_message::Body::OpenPool(Box::new(open))) };
    coordinator.client_message(client, open, 0, &mut out).expect("the message is valid");
    let Some((_, Some(agent_command::Body::StartPool(start)))) =
        out.to_agents.pop().map(|(agent, command)| (agent, command.body))
    else {
        panic!("the pool is started");
    };
    let started = agent_event::Body::PoolStarted(PoolStarted { pool: start.pool });
    coordinator.agent_event(agent, AgentEvent { body: Some(started) }, 0, &mut out).expect("the event is valid");
    (coordinator, agent, client)
}

/// Returns how many items of 8 bytes end per second. The agent answers each chunk with one message, and reports 100 ns
/// per item.
fn run(items: u64, chunksize: u64, credit: u32) -> f64 {
    const BATCH: u64 = 1000;
    let (mut coordinator, agent, client) = connect(credit);
    let mut out = Outbox::default();
    let ask = |coordinator: &mut Coordinator, out: &mut Outbox, body| {
        coordinator.client_message(client, ClientMessage { body: Some(body) }, 0, out).expect("the message is valid");
    };
    ask(
        &mut coordinator,
        &mut out,
        client_message::Body::OpenJob(Box::new(OpenJob { chunksize, ..OpenJob::default() })),
    );
    let data = Bytes::from(vec![7; 8 * BATCH as usize]);
    let ends: Bytes = (1..=BATCH as u32).flat_map(|at| (at * 8).to_le_bytes()).collect();
    let start = Instant::now();
    let (mut sent, mut done) = (0, 0);
    while done < items {
        while sent < items.min(done + 64 * BATCH) {
            let batch = Items { job: 0, first: sent, data: data.clone(), ends: ends.clone() };
            ask(&mut coordinator, &mut out, client_message::Body::Items(batch));
            sent += BATCH;
        }
        coordinator.schedule(0, &mut out);
        for (_, command) in std::mem::take(&mut out.to_agents) {
            let Some(agent_command::Body::Assign(assign)) = command.body else { continue };
            let mut segments = assign.segments.into_iter();
            for chunk in assign.chunks {
                let mut first = chunk.first;
                for segment in segments.by_ref().take(chunk.segments as usize) {
                    let count = segment.ends.len() as u64 / 4;
                    // Valid answers: as long as the items, with positions of their own.
                    let ends = ends.slice(..segment.ends.len());
                    let report = RunDone {
                        chunk: chunk.chunk,
                        attempt: chunk.attempt,
                        first,
                        data: segment.data,
                        ends,
                        busy_ns: 100 * count,
                        failed: false,
                    };
                    let event = AgentEvent { body: Some(agent_event::Body::RunDone(report)) };
                    coordinator.agent_event(agent, event, 0, &mut out).expect("the event is valid");
                    first += count;
                }
            }
        }
        for (_, event) in out.to_clients.drain(..) {
            if let Some(client_event::Body::ItemsDone(results)) = event.body {
                done += results.ends.len() as u64 / 4;
            }
        }
    }
    items as f64 / start.elapsed().as_secs_f64()
}
