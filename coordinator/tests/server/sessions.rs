//! Sessions that are as they should be.

use crate::agent::Agent;
use crate::client::Client;
use crate::server::Server;

#[tokio::test]
async fn items_go_to_agents_and_results_come_back() {
    let server = Server::start().await;
    let _agents = (Agent::echo(&server, 1, 2).await, Agent::echo(&server, 2, 2).await);
    let mut clients = (Client::open(&server).await, Client::open(&server).await);
    tokio::join!(clients.0.works(1), clients.1.works(1));
    clients.0.works(2).await;
    clients.0.close().await;
    clients.1.works(2).await;
}
