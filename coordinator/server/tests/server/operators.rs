//! The status and requests of operators, health and reflection.

use std::time::Duration;

use farpool_proto::v1::{CancelJobRequest, DrainAgentRequest};
use tokio_stream::StreamExt;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::agent::Agent;
use crate::client::{Client, Event};
use crate::server::{Server, soon};

#[tokio::test]
async fn the_status_lists_clients_and_agents() {
    let server = Server::with(|settings| settings.memory = 1 << 30).await;
    let client = Client::open(&server).await;
    client.open_job(1);
    client.items(1, 0, &[b"four", b"more"]);
    let status = server.until("the items", |status| status.jobs.first().is_some_and(|job| job.items == 2)).await;
    assert!(status.version.is_some() && status.uptime_ns > 0 && !status.draining);
    assert_eq!(status.memory, 1 << 30);
    assert!(status.held_bytes >= 8, "{}", status.held_bytes);
    assert!(status.pools[0].client.starts_with("127.0.0.1:"), "{:?}", status.pools[0]);
    assert_eq!(status.jobs[0].pool, status.pools[0].pool);
    let _agent = Agent::echo(&server, 1, 3).await;
    let status = server.until("the agent", |status| status.agents.len() == 1).await;
    assert_eq!((status.agents[0].host.as_str(), status.agents[0].slots), ("host1", 3));
}

#[tokio::test]
async fn a_job_can_be_cancelled() {
    let server = Server::start().await;
    let mut client = Client::open(&server).await;
    client.open_job(1);
    client.items(1, 0, &[b"item"]);
    let status = server.until("the job", |status| status.jobs.len() == 1).await;
    let job = status.jobs[0].job.clone();
    let mut operators = server.operators().await;
    operators.cancel_job(CancelJobRequest { job: job.clone() }).await.expect("cannot cancel the job");
    match client.next().await {
        Event::JobEnded(ended) => assert!(ended.cancelled),
        other => panic!("unexpected event instead of the job's end: {other:?}"),
    }
    let again =
        operators.cancel_job(CancelJobRequest { job: job.clone() }).await.expect_err("the ended job was cancelled");
    assert_eq!(again.code(), Code::NotFound);
    assert!(
        again.message().contains(&format!("number {job} is no longer in use: its job or pool has ended")),
        "{again}"
    );
    for job in ["99", "nonsense", ""] {
        let error =
            operators.cancel_job(CancelJobRequest { job: job.to_owned() }).await.expect_err("a missing job was found");
        assert_eq!(error.code(), Code::NotFound);
        assert!(error.message().contains(&format!("{job:?}")), "{error}");
    }
}

#[tokio::test]
async fn an_agent_can_be_drained() {
    let server = Server::start().await;
    let first = Agent::echo(&server, 1, 1).await;
    let _second = Agent::echo(&server, 2, 1).await;
    let mut client = Client::open(&server).await;
    client.check_works(1).await;
    let mut operators = server.operators().await;
    let drain = |agent: &str| DrainAgentRequest { agent: agent.to_owned() };
    let error = operators.drain_agent(drain("host9")).await.expect_err("a missing agent was found");
    assert_eq!(error.code(), Code::NotFound);
    assert!(error.message().contains("host1"), "{error}");
    operators.drain_agent(drain("host1")).await.expect("no such agent");
    soon("the agent's end", first).await.expect("the agent panicked").expect("the agent's session ended with an error");
    server.until("the agent's end", |status| status.agents.len() == 1).await;
    client.check_works(2).await;
}

#[tokio::test]
async fn a_host_name_with_two_agents_is_ambiguous() {
    let server = Server::start().await;
    let mut twin = crate::agent::hello(2, 1);
    twin.host = "host1".to_owned();
    let _first = Agent::echo(&server, 1, 1).await;
    let second = Agent::silent(&server).await;
    second.send(crate::agent::Report::Hello(Box::new(twin)));
    server.until("both agents", |status| status.agents.len() == 2).await;
    let request = DrainAgentRequest { agent: "host1".to_owned() };
    let error = server.operators().await.drain_agent(request).await.expect_err("the ambiguous name was accepted");
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("choose one"), "{error}");
}

#[tokio::test]
async fn health_and_reflection_work() {
    let server = Server::start().await;
    let mut health = HealthClient::new(server.connect().await);
    for service in ["", "farpool.v1.Clients", "farpool.v1.Agents", "farpool.v1.Operators"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let status =
            health.check(request).await.expect("the health service does not know this service").into_inner().status;
        assert_eq!(status, ServingStatus::Serving as i32, "{service}");
    }
    let mut reflection = ServerReflectionClient::new(server.connect().await);
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answers = reflection.server_reflection_info(tokio_stream::once(ask)).await.expect("the server did not answer");
    let answer =
        soon("the list", answers.into_inner().next()).await.expect("no answer").expect("the answer is incomplete");
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("the answer is not a list of services")
    };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    for name in ["farpool.v1.Clients", "farpool.v1.Agents", "farpool.v1.Operators", "grpc.health.v1.Health"] {
        assert!(names.iter().any(|found| found == name), "{names:?}");
    }
}

/// Many pools, and many callers that ask for the status: other requests do not wait for them.
#[tokio::test]
async fn a_hundred_status_requests_block_no_other_request() {
    const POOLS: usize = 1500;
    const CALLERS: usize = 100;
    let server = std::sync::Arc::new(Server::start().await);
    let channel = server.connect().await;
    let mut pools = Vec::new();
    for _ in 0..POOLS / 50 {
        // The most calls that a connection has at once.
        let channel = server.connect().await;
        for _ in 0..50 {
            pools.push(Client::opened_over(channel.clone(), crate::client::open_pool()).await);
        }
    }
    let answers = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let mut callers = Vec::new();
    for _ in 0..CALLERS {
        let (mut operators, answers) = (server.operators().await, std::sync::Arc::clone(&answers));
        callers.push(tokio::spawn(async move {
            loop {
                let status = operators.status(farpool_proto::v1::StatusRequest {}).await.expect("the request failed");
                assert!(status.into_inner().pools.len() >= POOLS);
                answers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }));
    }
    while answers.load(std::sync::atomic::Ordering::Relaxed) < CALLERS {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut took = Vec::new();
    for _ in 0..20 {
        let begun = std::time::Instant::now();
        pools.push(Client::opened_over(channel.clone(), crate::client::open_pool()).await);
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    let there = callers.iter().filter(|caller| !caller.is_finished()).count();
    callers.iter().for_each(|caller| caller.abort());
    assert_eq!(there, CALLERS, "some callers had no answer");
    // Most of them: on a busy machine, some wait for a core.
    let most = took[took.len() * 3 / 4];
    eprintln!("a pool was opened within {most:?}");
    assert!(most < Duration::from_millis(500), "{took:?}");
}
