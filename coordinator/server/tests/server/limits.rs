//! Settings beyond their limits: they end only their own session.

use farpool_proto::v1::{
    AgentHello, Failure, FailureKind, Label, OpenJob, OpenPool, PoolFault, Program, Version, WorkerSettings,
};
use tonic::Code;

use crate::agent::{Agent, Command, Report, hello};
use crate::client::{Client, Event, Request, open_pool};
use crate::server::Server;

#[tokio::test]
async fn a_pool_beyond_its_limits_is_refused() {
    let server = Server::start().await;
    let check = async |change: fn(&mut OpenPool), words| {
        let mut open = open_pool();
        change(&mut open);
        let mut client = Client::silent(&server).await;
        client.send(Request::OpenPool(Box::new(open)));
        client.must_be_refused(Code::InvalidArgument, words).await;
    };
    fn settings(open: &mut OpenPool) -> &mut WorkerSettings {
        open.settings.get_or_insert_default()
    }
    check(|open| open.weight = u32::MAX, "weight").await;
    check(|open| open.processes = u32::MAX, "workers in the pool").await;
    check(|open| open.require = vec![label("x", 257)], "a label's key or value").await;
    check(|open| settings(open).payload_limit = u64::MAX, "payload_limit").await;
    check(|open| settings(open).threads = 1025, "threads in a worker: 1025").await;
    check(|open| settings(open).name = "x".repeat(65_536), "pool's name").await;
    check(|open| of(open, |program| program.directory = vec![b'x'; 5000].into()), "program's directory").await;
    check(|open| of(open, |program| program.arguments = vec![vec![0; 3 << 20].into()]), "arguments and environment")
        .await;
    fn of(open: &mut OpenPool, change: fn(&mut Program)) {
        let mut program =
            Program::unpacked(&open.program).expect("cannot unpack the program").expect("the pool has no program");
        change(&mut program);
        open.program = program.packed();
    }
    assert!(server.status().await.pools.is_empty());
}

/// Such a job made two agents treat their coordinator as broken, which affected others.
#[tokio::test]
async fn a_job_beyond_its_limits_reaches_no_agent() {
    let server = Server::start().await;
    let agent = Agent::joined(&server, 1, 2).await;
    let watched = tokio::spawn(async move {
        let (mut agent, mut started) = (agent, 0);
        while let Some(commands) = agent.next().await? {
            for command in commands {
                started += u32::from(matches!(command, Command::StartJob(_)));
                assert!(started <= 1, "only the neighbour's job starts");
                agent.execute(command);
            }
        }
        Ok::<(), tonic::Status>(())
    });
    let mut neighbour = Client::open(&server).await;
    let check = async |change: fn(&mut OpenJob), words| {
        let mut open = OpenJob { job: 1, retries: 1000, ..OpenJob::default() };
        change(&mut open);
        let mut client = Client::open(&server).await;
        client.send(Request::OpenJob(Box::new(open)));
        client.items(1, 0, &[b"item"]);
        client.must_be_refused(Code::InvalidArgument, words).await;
    };
    check(|job| job.retries = u32::MAX, "retries").await;
    check(|job| job.label = "x".repeat(65_536), "job's label").await;
    check(|job| job.require = vec![label("x", 1); 65], "labels").await;
    neighbour.check_works(1).await;
    assert!(!watched.is_finished());
    watched.abort();
}

#[tokio::test]
async fn an_agent_beyond_its_limits_is_refused() {
    let server = Server::start().await;
    let check = async |change: fn(&mut AgentHello), words| {
        let mut hello = hello(1, 1);
        change(&mut hello);
        let agent = Agent::silent(&server).await;
        agent.send(Report::Hello(Box::new(hello)));
        agent.must_be_refused(Code::InvalidArgument, words).await;
    };
    check(|hello| hello.host = "x".repeat(70_000), "name of a host").await;
    check(|hello| hello.slots = u32::MAX, "slots").await;
    check(|hello| hello.labels = vec![label("x", 257)], "a label's key or value").await;
    let long = |hello: &mut AgentHello| {
        hello.version = Some(Version { release: "9".repeat(1000), ..farpool_proto::version() });
    };
    check(long, "name of a release").await;
    assert!(server.status().await.agents.is_empty());
}

#[tokio::test]
async fn the_size_of_a_kept_failure_is_bounded() {
    let server = Server::start().await;
    let mut agent = Agent::joined(&server, 1, 1).await;
    let mut client = Client::open(&server).await;
    let pool = agent.pool().await;
    let message = "x".repeat(3 << 20);
    let failure = Some(Failure { kind: FailureKind::ProgramRejected.into(), message, ..Failure::default() });
    agent.send(Report::PoolFault(Box::new(PoolFault { pool, failure })));
    let failure = match client.next().await {
        Event::PoolFailed(failed) => failed.failure.unwrap_or_default(),
        other => panic!("unexpected event instead of the pool's failure: {other:?}"),
    };
    assert!((4000..5000).contains(&failure.message.len()), "{}", failure.message.len());
}

fn label(key: &str, bytes: usize) -> Label {
    Label { key: key.to_owned(), value: "v".repeat(bytes) }
}
