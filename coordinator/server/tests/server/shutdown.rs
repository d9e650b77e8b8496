//! The graceful shutdown.

use std::time::Duration;

use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::agent::Agent;
use crate::client::Client;
use crate::server::{Server, soon};

#[tokio::test]
async fn open_pools_finish_and_new_ones_are_refused() {
    let mut server = Server::start().await;
    let agent = Agent::echo(&server, 1, 2).await;
    let mut client = Client::open(&server).await;
    client.check_works(1).await;
    server.stop();
    server.until("the drain", |status| status.draining).await;
    let mut health = HealthClient::new(server.connect().await);
    let status = health
        .check(HealthCheckRequest::default())
        .await
        .expect("the health service does not know this service")
        .into_inner()
        .status;
    assert_eq!(status, ServingStatus::NotServing as i32);
    let mut late = Client::silent(&server).await;
    late.send(crate::client::Request::OpenPool(Box::new(crate::client::open_pool())));
    late.must_be_refused(Code::Unavailable, "the coordinator is shutting down").await;
    // Agents can still join, and open pools still work.
    let second = Agent::echo(&server, 2, 2).await;
    client.check_works(2).await;
    client.close().await;
    server.ended().await;
    for agent in [agent, second] {
        let status = soon("the agent's end", agent)
            .await
            .expect("the agent panicked")
            .expect_err("the agent's session ended without an error");
        assert_eq!((status.code(), status.message()), (Code::Unavailable, "the coordinator is shutting down"));
    }
}

#[tokio::test]
async fn an_idle_server_ends_at_once() {
    let mut server = Server::with(|settings| settings.limits.farewell = Duration::from_millis(200)).await;
    let _idle = server.connect().await;
    let _agent = Agent::echo(&server, 1, 2).await;
    server.stop();
    server.ended().await;
}
