//! Agents that violate the protocol.

use farpool_proto::v1::{
    AgentEvent, AgentHello, Credit, Failure, FailureKind, ItemFault, OpenJob, PoolFault, PoolStarted, PoolStopped,
    Returned, RunDone, Version,
};
use tonic::Code;

use crate::agent::{Agent, Command, Report, hello};
use crate::client::{Client, Request, open_pool_as};
use crate::server::{Server, soon};

#[tokio::test]
async fn an_invalid_hello_is_refused() {
    let server = Server::start().await;
    let check = async |first: Report, code, words| {
        let agent = Agent::silent(&server).await;
        agent.send(first);
        agent.must_be_refused(code, words).await;
    };
    let other = Some(Version { release: "9.8.7".to_owned(), protocol: 99 });
    check(Report::Hello(Box::new(AgentHello { version: other, ..hello(1, 1) })), Code::FailedPrecondition, "9.8.7")
        .await;
    check(Report::Hello(Box::new(AgentHello { version: None, ..hello(1, 1) })), Code::FailedPrecondition, "version")
        .await;
    check(
        Report::Hello(Box::new(AgentHello { secret: vec![1; 15].into(), ..hello(1, 1) })),
        Code::InvalidArgument,
        "15",
    )
    .await;
    check(
        Report::Hello(Box::new(AgentHello { secret: vec![].into(), ..hello(1, 1) })),
        Code::InvalidArgument,
        "secret of 0 bytes",
    )
    .await;
    check(Report::Hello(Box::new(hello(1, 0))), Code::InvalidArgument, "at least one slot").await;
    check(Report::Credit(Credit::default()), Code::InvalidArgument, "begins with AgentHello").await;
    assert!(server.status().await.agents.is_empty());
}

#[tokio::test]
async fn a_new_session_of_an_agent_replaces_the_old_one() {
    let server = Server::start().await;
    let first = Agent::joined(&server, 1, 2).await;
    let mut client = Client::open(&server).await;
    // An invalid hello has no effect on it.
    let second = Agent::silent(&server).await;
    second.send(Report::Hello(Box::new(hello(1, 0))));
    second.must_be_refused(Code::InvalidArgument, "at least one slot").await;
    let _second = Agent::echo(&server, 1, 8).await;
    first.must_be_refused(Code::Aborted, "an agent of the same id has joined from host1").await;
    client.check_works(1).await;
    let status = server.status().await;
    assert_eq!((status.agents.len(), status.agents[0].slots), (1, 8));
}

/// Delayed messages usually travel with the next call; here there is none.
#[tokio::test]
async fn delayed_messages_arrive_without_another_call() {
    let server = Server::start().await;
    let mut agent = Agent::joined(&server, 1, 2).await;
    let mut client = Client::opened(&server, open_pool_as(1)).await;
    client.wait_for_agent(1).await;
    agent.pool().await;
    client.open_job(1);
    client.items(1, 0, &[b"one"]);
    client.end_items(1);
    let (mut ended, mut settled) = (false, false);
    while !(ended && settled) {
        let commands = soon("what it may forget", agent.next()).await.expect("the session ended");
        for command in commands.expect("the session ended") {
            ended |= matches!(&command, Command::EndJob(end) if !end.kill);
            settled |= matches!(command, Command::Settled(_));
            let runs = matches!(command, Command::Assign(_));
            agent.execute(command);
            if runs {
                assert_eq!(client.results(1).await, [b"one"]);
                client.out.acknowledge();
            }
        }
    }
}

#[tokio::test]
async fn an_invalid_event_ends_only_its_session() {
    let server = Server::start().await;
    let _agent = Agent::echo(&server, 1, 2).await;
    let mut client = Client::open(&server).await;
    let failure = |kind: i32| Some(Failure { kind, ..Failure::default() });
    let done = |data: &'static [u8], ends: &'static [u8]| {
        Report::RunDone(RunDone { data: data.into(), ends: ends.into(), ..RunDone::default() })
    };
    let cases = [
        (Report::Hello(Box::new(hello(2, 1))), "second AgentHello"),
        (Report::ItemFault(Box::new(ItemFault { failure: failure(99), ..ItemFault::default() })), "unknown kind 99"),
        (Report::ItemFault(Box::default()), "without its failure"),
        (Report::PoolFault(Box::new(PoolFault { pool: 1, failure: failure(-1) })), "unknown kind -1"),
        (done(b"abc", &[1, 0, 0]), "not a multiple of 4"),
        (done(b"abc", &[9, 0, 0, 0]), "ends at 9 and the data at 3"),
        (Report::Returned(Returned { first: u64::MAX, count: 2, ..Returned::default() }), "beyond the highest index"),
    ];
    for (job, (report, words)) in (1..).zip(cases) {
        let agent = Agent::joined(&server, 2, 1).await;
        agent.send(report);
        agent.must_be_refused(Code::InvalidArgument, words).await;
        client.check_works(job).await;
    }
    let agent = Agent::joined(&server, 2, 1).await;
    agent.out.push(AgentEvent::default());
    agent.must_be_refused(Code::InvalidArgument, "has no body").await;
    server.until("the end of the others", |status| status.agents.len() == 1).await;
}

#[tokio::test]
async fn events_about_unknown_things_are_dropped_and_counted() {
    let server = Server::start().await;
    let agent = Agent::joined(&server, 1, 1).await;
    let died = Some(Failure { kind: FailureKind::WorkerDied.into(), ..Failure::default() });
    let reports = [
        Report::RunDone(RunDone { chunk: 77, ends: vec![0; 4].into(), ..RunDone::default() }),
        Report::RunDone(RunDone { chunk: u64::MAX, ends: vec![0; 4].into(), ..RunDone::default() }),
        Report::ItemFault(Box::new(ItemFault { chunk: 1 << 40, failure: died.clone(), ..ItemFault::default() })),
        Report::Returned(Returned { chunk: 3, count: 1, ..Returned::default() }),
        Report::PoolFault(Box::new(PoolFault { pool: 5, failure: died })),
        Report::PoolStarted(PoolStarted { pool: 5 }),
        Report::PoolStopped(PoolStopped { pool: 5 }),
    ];
    let expected = reports.len() as u64 - 1;
    reports.into_iter().for_each(|report| agent.send(report));
    server.until("the count of late messages", |status| status.late_messages >= expected).await;
    let _agent = tokio::spawn(agent.work());
    Client::open(&server).await.check_works(1).await;
}

#[tokio::test]
async fn items_of_a_lost_agent_run_elsewhere() {
    let server = Server::start().await;
    let mut idle = Agent::joined(&server, 1, 2).await;
    let mut client = Client::open(&server).await;
    client.send(Request::OpenJob(Box::new(OpenJob { job: 1, retries: 2, ..OpenJob::default() })));
    client.items(1, 0, &[b"one", b"two"]);
    client.end_items(1);
    // It starts the pool and accepts chunks, but runs nothing.
    let assigned = |command: &crate::agent::Command| matches!(command, crate::agent::Command::Assign(_));
    loop {
        let commands = idle.next().await.expect("the session ended").expect("the session ended");
        if commands.iter().any(assigned) {
            break;
        }
        commands.into_iter().for_each(|command| idle.execute(command));
    }
    drop(idle);
    let _agent = Agent::echo(&server, 2, 2).await;
    assert_eq!(client.results(1).await, [b"one", b"two"]);
}
