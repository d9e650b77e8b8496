//! Peers that connect and then send nothing.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

use crate::agent::Agent;
use crate::client::Client;
use crate::server::{Server, soon};

/// Starts a server with short timeouts.
async fn impatient() -> Server {
    Server::with(|settings| {
        settings.limits.preface = Duration::from_millis(100);
        settings.limits.first_message = Duration::from_millis(100);
        settings.heartbeat_timeout = Duration::from_secs(2);
    })
    .await
}

/// Checks that the server closes the connection after these bytes.
async fn is_closed(server: &Server, bytes: &[u8]) {
    let mut stream = TcpStream::connect(server.address).await.expect("cannot connect to the server");
    stream.write_all(bytes).await.expect("the connection is closed");
    let mut answer = Vec::new();
    // A reset counts too.
    let _ = soon("the end of the connection", stream.read_to_end(&mut answer)).await;
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// An empty SETTINGS frame.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

#[tokio::test]
async fn idle_connections_are_closed() {
    let server = impatient().await;
    let _agent = Agent::echo(&server, 1, 2).await;
    let mut client = Client::open(&server).await;
    let with_settings = [PREFACE, SETTINGS].concat();
    let huge_frame = [&with_settings[..], &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]].concat();
    let cases: [&[u8]; 7] = [
        b"",
        &PREFACE[..10],
        PREFACE,
        &with_settings,
        &huge_frame,
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        &[0xff; 4096],
    ];
    for (job, bytes) in (1..).zip(cases) {
        is_closed(&server, bytes).await;
        client.check_works(job).await;
    }
}

#[tokio::test]
async fn a_session_without_a_first_message_ends() {
    let server = impatient().await;
    Client::silent(&server).await.must_be_refused(Code::DeadlineExceeded, "no first message within 100ms").await;
    Agent::silent(&server).await.must_be_refused(Code::DeadlineExceeded, "no first message within 100ms").await;
    let mut finished = Client::silent(&server).await;
    finished.out.finish();
    finished.must_be_refused(Code::InvalidArgument, "before its first message").await;
}

#[tokio::test]
async fn connections_above_the_limit_wait() {
    let server = Server::with(|settings| settings.max_connections = 2).await;
    let (agent, client) = (Agent::echo(&server, 1, 1).await, Client::open(&server).await);
    let waits = async {
        Client::open(&server).await.check_works(1).await;
    };
    tokio::pin!(waits);
    tokio::select! {
        () = &mut waits => panic!("a third connection was accepted"),
        () = tokio::time::sleep(Duration::from_millis(300)) => {}
    }
    drop(client);
    waits.await;
    agent.abort();
}
