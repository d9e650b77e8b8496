//! Normal sessions.

use farpool_proto::v1::{AgentOutput, OutputStream};

use crate::agent::{Agent, Report};
use crate::client::{Client, Event};
use crate::server::Server;

#[tokio::test]
async fn items_go_to_agents_and_results_come_back() {
    let server = Server::start().await;
    let _agents = (Agent::echo(&server, 1, 2).await, Agent::echo(&server, 2, 2).await);
    let mut clients = (Client::open(&server).await, Client::open(&server).await);
    tokio::join!(clients.0.check_works(1), clients.1.check_works(1));
    clients.0.check_works(2).await;
    clients.0.close().await;
    clients.1.check_works(2).await;
}

#[tokio::test]
async fn jobs_wait_for_an_agent() {
    let server = Server::start().await;
    let mut client = Client::open(&server).await;
    client.open_job(1);
    client.items(1, 0, &[b"item"]);
    client.end_items(1);
    let status = server.until("the job", |status| status.jobs.len() == 1).await;
    assert_ne!(status.pools[0].waiting, "");
    let _agent = Agent::echo(&server, 1, 1).await;
    assert_eq!(client.results(1).await, [b"item"]);
}

#[tokio::test]
async fn large_items_and_results_travel_in_pieces() {
    let server = Server::start().await;
    let _agent = Agent::echo(&server, 1, 1).await;
    let mut client = Client::open(&server).await;
    let large = vec![7; 9 << 20];
    client.open_job(1);
    client.items(1, 0, &[&large, b"small", &large]);
    client.end_items(1);
    assert!(client.results(1).await == [&large[..], b"small", &large]);
}

#[tokio::test]
async fn output_reaches_the_client_with_its_host() {
    let server = Server::start().await;
    let mut agent = Agent::joined(&server, 1, 1).await;
    let mut client = Client::open(&server).await;
    let pool = agent.pool().await;
    let (stream, data) = (OutputStream::Stdout.into(), b"a line\n"[..].into());
    agent.send(Report::Output(AgentOutput { pool, pid: 4711, stream, data }));
    match client.next().await {
        Event::Output(output) => {
            assert_eq!((output.host.as_str(), output.pid, &output.data[..]), ("host1", 4711, &b"a line\n"[..]))
        }
        other => panic!("unexpected event instead of output: {other:?}"),
    }
}
