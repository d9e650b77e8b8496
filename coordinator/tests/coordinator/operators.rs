//! Queries and commands of the server and its operators.

use farpool_proto::v1::{
    AgentHello, Credit, FailureKind, OpenJob, OpenPool, Program, RunDone, Version, WorkerSettings,
};

use crate::fakes::*;

const SECOND: u64 = 1 << 30;
/// The id of the first pool of a coordinator.
const POOL: u64 = 1 << 32;

/// The chunks in the agent's inbox; reads the whole inbox.
fn assigned(wire: &mut Wire, agent: usize) -> Vec<Held> {
    wire.schedule();
    let commands = wire.to_agents[agent].drain(..);
    let chunks = commands.filter_map(|command| match command {
        farpool_proto::v1::agent_command::Body::Assign(assign) => Some(held(&assign)),
        _ => None,
    });
    chunks.flatten().collect()
}

fn open_named_pool(name: &str, digest: u8) -> Request {
    let settings = WorkerSettings { name: name.to_owned(), payload_limit: PAYLOAD_LIMIT, ..WorkerSettings::default() };
    let program = Program { digest: vec![digest; 32].into(), size: 5, ..Program::default() };
    let require = labels(&["gpu=a100"]);
    Request::OpenPool(Box::new(OpenPool {
        settings: Some(settings),
        program: program.packed(),
        require,
        ..OpenPool::default()
    }))
}

fn named_job(job: u64, label: &str, priority: i32) -> Request {
    Request::OpenJob(Box::new(OpenJob { job, chunksize: 1, label: label.to_owned(), priority, ..OpenJob::default() }))
}

#[test]
fn the_status_is_complete() {
    let mut wire = Wire::new();
    wire.silent_agent();
    wire.silent_agent();
    wire.report(
        0,
        Report::Hello(Box::new(AgentHello {
            host: "big".to_owned(),
            slots: 2,
            version: Some(Version { release: "1.2.3".to_owned(), protocol: 1 }),
            id: (0..16u8).collect::<Vec<_>>().into(),
            labels: labels(&["gpu=a100"]),
            ..AgentHello::default()
        })),
    );
    wire.report(0, Report::Credit(Credit { chunks: 3, bytes: 0 }));
    wire.client();
    wire.send(0, open_named_pool("mine", 7));
    wire.send(0, named_job(40, "resize", -3));
    wire.send(0, items(40, 0, &["a", "b", "c", "d", "e"]));
    let chunks = assigned(&mut wire, 0);
    wire.wait(10 * SECOND);
    wire.report(0, done(&chunks[0], 0, 1));
    wire.report(0, fault(&chunks[1], 1, FailureKind::TimedOut));
    wire.schedule();
    wire.send(0, end_items(40));
    wire.wait(2 * SECOND);
    let status = wire.serve(|coordinator, now, _| coordinator.status(now, 1000));

    // The second agent has not said hello.
    let [agent] = &status.agents[..] else { panic!("{status:?}") };
    assert_eq!(agent.agent, "00010203-0405-0607-0809-0a0b0c0d0e0f");
    assert_eq!((agent.host.as_str(), agent.release.as_str(), agent.slots), ("big", "1.2.3", 2));
    assert_eq!((agent.busy, agent.chunks, agent.draining, agent.items_done), (2, 3, false, 1));
    assert_eq!(agent.labels, labels(&["gpu=a100"]));
    assert!(agent.connected_ns >= 12 * SECOND && agent.items_per_second > 0.1, "{agent:?}");
    let [pool] = &status.pools[..] else { panic!("{status:?}") };
    assert_eq!((pool.pool.as_str(), pool.name.as_str(), pool.client.as_str()), ("1", "mine", ""));
    assert_eq!((pool.processes, pool.slots, pool.weight, pool.jobs), (0, 2, 1, 1));
    assert_eq!((pool.waiting.as_str(), &pool.require), ("", &labels(&["gpu=a100"])));
    let [job] = &status.jobs[..] else { panic!("{status:?}") };
    assert_eq!((job.job.as_str(), job.pool.as_str(), job.label.as_str(), job.priority), ("2", "1", "resize", -3));
    assert_eq!((job.items, job.done, job.failed, job.assigned, job.input_ended), (5, 2, 1, 3, true));
    assert!(job.items_per_second > 0.2, "{job:?}");
    assert_eq!(status.late_messages, 0);

    let client = wire.clients[0];
    let clients: Vec<_> = wire.coordinator.pool_clients().collect();
    assert_eq!(clients, [("1".to_owned(), client)]);
    wire.agent_gone(0);
    let status = wire.serve(|coordinator, now, _| coordinator.status(now, 1000));
    assert_eq!(status.pools[0].waiting, "no agent is connected");
}

#[test]
fn agents_are_found_by_id_or_host() {
    let mut wire = Wire::new();
    let none = wire.coordinator.find_agent("a");
    assert_eq!(none, Err("there is no agent \"a\": no agent is connected".to_owned()));
    for (host, id) in [("a", 1u8), ("b", 2), ("b", 3)] {
        let number = wire.silent_agent();
        let id = vec![id; 16].into();
        wire.report(
            number,
            Report::Hello(Box::new(AgentHello { host: host.to_owned(), slots: 1, id, ..AgentHello::default() })),
        );
    }
    let id = |byte: u8| {
        let two = format!("{byte:02x}");
        [4, 2, 2, 2, 6].map(|bytes| two.repeat(bytes)).join("-")
    };
    let find = |text: &str| wire.coordinator.find_agent(text).map(|(agent, _)| agent);
    assert_eq!(find("a"), Ok(wire.agents[0]));
    assert_eq!(find(&id(3)), Ok(wire.agents[2]));
    assert_eq!(find("b"), Err("there are 2 agents on b; choose one by its id: 02020202, 03030303".to_owned()));
    let all = "01010101 on a, 02020202 on b, 03030303 on b";
    assert_eq!(find("c"), Err(format!("there is no agent \"c\"; connected: {all}")));
    let mut wire = Wire::new();
    wire.agent(1, 1);
    assert_eq!(wire.coordinator.find_agent("local"), Ok((wire.agents[0], "local".to_owned())));
}

#[test]
fn jobs_are_found_and_cancelled() {
    let mut wire = Wire::new();
    wire.agent(2, 2);
    wire.client();
    let none = wire.coordinator.find_job("2");
    assert_eq!(none, Err("there is no job \"2\": no job is open".to_owned()));
    wire.send(0, open_pool(0));
    for job in 0..12 {
        wire.send(0, named_job(job, "", 0));
    }
    wire.send(0, items(3, 0, &["a"]));
    wire.schedule();
    wire.to_clients[0].clear();
    wire.to_agents[0].clear();
    let all = (2..12).map(|name| name.to_string()).collect::<Vec<_>>().join(", ");
    for text in ["99", "x", "", "05", "+5", " 5", "5x"] {
        let expected = format!("there is no job {text:?}; open jobs: {all} and 2 more");
        assert_eq!(wire.coordinator.find_job(text), Err(expected));
    }
    let job = wire.coordinator.find_job("5").expect("the job is open");
    assert!(wire.serve(|coordinator, now, out| coordinator.cancel_job(job, now, out)));
    wire.expect(
        &["client0: job 3 cancelled", "agent0: end job 0 kill"]
            .map(|line| line.replace("job 0 k", "job 3 k"))
            .each_ref()
            .map(String::as_str),
    );
    assert!(!wire.serve(|coordinator, now, out| coordinator.cancel_job(job, now, out)));
    // The client does not know yet.
    wire.send(0, items(3, 1, &["b"]));
    wire.send(0, cancel(3));
    wire.expect(&[]);
    // Its number is not used again.
    wire.send(0, named_job(50, "", 0));
    assert_eq!(
        wire.coordinator.find_job("5"),
        Err("number 5 is no longer in use: its job or pool has ended".to_owned())
    );
    assert_eq!(wire.coordinator.find_job("1"), Err("1 is the number of a pool, not of a job".to_owned()));
    assert!(wire.coordinator.find_job("14").is_ok());
}

#[test]
fn items_with_results_that_count_as_failed_are_counted() {
    let mut wire = Wire::new();
    wire.agent(2, 3);
    wire.client();
    wire.send(0, open_pool(0));
    wire.send(0, named_job(1, "", 0));
    wire.send(0, items(1, 0, &["a", "b", "c"]));
    let chunks = assigned(&mut wire, 0);
    wire.report(0, done(&chunks[0], 0, 1));
    let Report::RunDone(run) = done(&chunks[1], 0, 1) else { unreachable!("done returns RunDone") };
    wire.report(0, Report::RunDone(RunDone { failed: true, ..run.clone() }));
    // A repeated report is late.
    wire.report(0, Report::RunDone(RunDone { failed: true, ..run }));
    let status = wire.serve(|coordinator, now, _| coordinator.status(now, 1000));
    assert_eq!((status.jobs[0].done, status.jobs[0].failed, status.late_messages), (2, 1, 1));
    let received = wire.to_clients[0].iter().filter_map(|event| match event {
        farpool_proto::v1::client_event::Body::ItemsDone(done) => Some((done.first, done.failed)),
        _ => None,
    });
    assert_eq!(received.collect::<Vec<_>>(), [(0, false), (1, true)]);
}

#[test]
fn a_client_that_does_not_read_gets_nothing_more() {
    let mut wire = Wire::new();
    wire.agent(1, 2);
    for client in 0..2 {
        wire.client();
        wire.send(client, open_pool(0));
        wire.send(client, open_job(0, 1, 0));
    }
    wire.send(0, items(0, 0, &["a", "b", "c"]));
    let chunks = assigned(&mut wire, 0);
    let client = wire.clients[0];
    for _ in 0..2 {
        wire.serve(|coordinator, now, out| coordinator.pause_client(client, true, now, out));
    }
    wire.report(0, done(&chunks[0], 0, 1));
    assert!(assigned(&mut wire, 0).is_empty());
    // Chunks at agents continue, and so do other clients.
    wire.send(1, items(0, 0, &["x", "y", "z"]));
    let others = assigned(&mut wire, 0);
    assert_eq!(others.len(), 1);
    wire.report(0, done(&chunks[1], 0, 1));
    assert_eq!(assigned(&mut wire, 0)[0].items, ["y"]);
    wire.serve(|coordinator, now, out| coordinator.pause_client(client, false, now, out));
    wire.report(0, done(&others[0], 0, 1));
    assert_eq!(assigned(&mut wire, 0)[0].items, ["c"]);
    // A client without a pool.
    let silent = wire.client();
    let client = wire.clients[silent];
    wire.serve(|coordinator, now, out| coordinator.pause_client(client, true, now, out));
}

#[test]
fn clients_are_found_by_their_program() {
    let mut wire = Wire::new();
    for digest in [1, 2, 1] {
        let client = wire.client();
        wire.send(client, open_named_pool("", digest));
    }
    let ids = wire.clients.clone();
    let find = |wire: &Wire, digest: u8, except: &[_]| wire.coordinator.client_with_program(&[digest; 32], except);
    assert_eq!(find(&wire, 2, &[]), Some(ids[1]));
    assert_eq!(find(&wire, 1, &[]), Some(ids[0]));
    assert_eq!(find(&wire, 1, &ids[..1]), Some(ids[2]));
    assert_eq!(find(&wire, 1, &ids), None);
    assert_eq!(find(&wire, 3, &[]), None);
    wire.client_gone(0);
    assert_eq!(find(&wire, 1, &[]), Some(ids[2]));
}

#[test]
fn stored_bytes_are_counted_for_each_client() {
    let mut wire = Wire::new();
    wire.agent(1, 1);
    for client in 0..2 {
        wire.client();
        wire.send(client, open_pool(0));
        wire.send(client, open_job(0, 1, 0));
    }
    wire.send(0, items(0, 0, &["abc", "d"]));
    wire.send(1, items(0, 0, &["e"]));
    // Bytes, 4 for each item, and 192 for each message.
    let found = |wire: &Wire| {
        let of = |client: usize| wire.coordinator.stored_bytes_of(wire.clients[client]);
        (of(0), of(1), wire.coordinator.stored_bytes())
    };
    assert_eq!(found(&wire), (204, 197, 401));
    let chunks = assigned(&mut wire, 0);
    wire.report(0, done(&chunks[0], 0, 1));
    assert_eq!(found(&wire), (204, 197, 401));
    wire.send(1, cancel(0));
    assert_eq!(found(&wire), (204, 0, 204));
    wire.client_gone(0);
    assert_eq!(found(&wire), (0, 0, 0));
}

#[test]
fn jobs_are_counted_by_their_memory() {
    let mut wire = Wire::new();
    wire.client();
    wire.send(0, open_pool(0));
    wire.send(0, open_job(0, 1, 0));
    let one = wire.coordinator.job_bytes();
    assert!((200..4000).contains(&one), "{one} bytes");
    wire.send(0, named_job(1, "a label of 26 characters..", 0));
    assert_eq!(wire.coordinator.job_bytes_of(wire.clients[0]), 2 * one + 26);
    wire.send(0, cancel(1));
    wire.send(0, end_items(0));
    assert_eq!(wire.coordinator.job_bytes(), 0);
    wire.send(0, open_job(2, 1, 0));
    wire.client_gone(0);
    assert_eq!((wire.coordinator.job_bytes(), wire.coordinator.job_bytes_of(wire.clients[0])), (0, 0));
}

#[test]
fn jobs_with_higher_priority_go_first() {
    let mut wire = Wire::new();
    wire.agent(1, 1);
    wire.client();
    wire.send(0, open_pool(0));
    for (job, priority) in [(0, 0), (1, 5), (2, -5), (3, 5)] {
        wire.send(0, named_job(job, "", priority));
        wire.send(0, items(job, 0, &[format!("{job}"), format!("{job}")]));
    }
    let mut order = Vec::new();
    while let [chunk] = &assigned(&mut wire, 0)[..] {
        order.extend(chunk.items.clone());
        wire.report(0, done(chunk, 0, 1));
    }
    assert_eq!(order, ["1", "3", "1", "3", "0", "0", "2", "2"]);
}

/// Returns why each pool waits, as operators see it.
fn waiting(wire: &mut Wire) -> Vec<String> {
    let status = wire.serve(|coordinator, now, _| coordinator.status(now, 1000));
    status.pools.into_iter().map(|pool| pool.waiting).collect()
}

#[test]
fn a_pool_without_a_free_slot_reports_that() {
    let mut wire = Wire::new();
    wire.agent(1, 1);
    for client in 0..2 {
        wire.client();
        wire.send(client, open_pool(0));
        wire.send(client, open_job(0, 1, 0));
        wire.send(client, items(0, 0, &["a"]));
        assigned(&mut wire, 0);
    }
    assert_eq!(waiting(&mut wire), ["", "a free slot: the only one is taken"]);
}

/// If slots are free, the pool does not wait for one.
#[test]
fn an_idle_pool_reports_what_it_waits_for() {
    let mut wire = Wire::new();
    wire.starts_at_once = false;
    wire.agent(2, 3);
    wire.agent(2, 3);
    wire.client();
    wire.send(0, open_pool(0));
    assert_eq!(waiting(&mut wire), [""]);
    wire.send(0, open_job(0, 1, 0));
    wire.send(0, items(0, 0, &["a"]));
    wire.schedule();
    assert_eq!(waiting(&mut wire), ["2 agents to start its workers"]);
    wire.report(0, Report::Credit(Credit { chunks: 0, bytes: 0 }));
    wire.report(0, pool_started(POOL));
    wire.schedule();
    assert_eq!(waiting(&mut wire), ["an agent to accept work: none with free slots does now"]);
    let away = |wire: &mut Wire, away| {
        let agent = wire.agents[0];
        wire.serve(|coordinator, now, out| coordinator.agent_away(agent, away, now, out));
    };
    away(&mut wire, true);
    assert_eq!(waiting(&mut wire), ["its agents to reconnect"]);
    away(&mut wire, false);
    let client = wire.clients[0];
    wire.serve(|coordinator, now, out| coordinator.pause_client(client, true, now, out));
    assert_eq!(waiting(&mut wire), ["its client to read its results"]);
    wire.serve(|coordinator, now, out| coordinator.pause_client(client, false, now, out));
    wire.report(0, Report::Credit(Credit { chunks: 3, bytes: 0 }));
    assert_eq!(assigned(&mut wire, 0).len(), 1);
    assert_eq!(waiting(&mut wire), [""]);
}
