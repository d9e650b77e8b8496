//! Programs of detached jobs are available when needed.

use farpool_proto::v1::FetchProgramRequest;
use farpool_proto::v1::agents_client::AgentsClient;

use super::*;
use crate::agent::Agent;
use crate::programs::decompressed;

async fn fetch(server: &Server) -> Vec<u8> {
    let request = FetchProgramRequest { digest: program(PROGRAM).1.into() };
    let mut agent = AgentsClient::new(server.connect().await);
    let mut pieces = soon("the program", agent.fetch_program(request))
        .await
        .expect("the coordinator lacks the program")
        .into_inner();
    let mut compressed = Vec::new();
    while let Some(piece) = soon("a piece", pieces.message()).await.expect("the program did not arrive") {
        compressed.extend_from_slice(&piece.data);
    }
    decompressed(&compressed)
}

#[tokio::test]
async fn a_program_is_requested_before_a_job_is_complete() {
    let scratch = Scratch::new();
    let server = scratch.server().await;
    let mut client = detaching(server.connect().await, detach("one", 1)).await;
    let (mut wanted, mut durable) = (false, 0);
    send(&client, 0, 100);
    client.end_items(1);
    while !wanted || durable < 100 {
        match client.next().await {
            Event::ProgramWanted(program) => wanted = program.digest == super::program(PROGRAM).1,
            Event::Durable(now) => {
                assert!(!now.complete, "the job's program is not here");
                durable = now.items;
            }
            other => panic!("unexpected event: {other:?}"),
        }
    }
    assert_eq!(states(&server).await[0].1, DetachedState::Receiving);
    // A client that reconnects without having sent it is asked again.
    drop(client);
    let mut client = detaching(server.connect().await, detach("one", 1).reopened_after(100)).await;
    client.end_items(1);
    until_complete(&server, &mut client, 100).await;
    let server = {
        server.kill_and_wait().await;
        scratch.server().await
    };
    assert!(fetch(&server).await == program(PROGRAM).0);
}

#[tokio::test]
async fn programs_of_jobs_that_have_not_ended_are_not_removed() {
    let scratch = Scratch::new();
    let server = scratch.server().await;
    detached(&server, detach("one", 1), 10).await;
    server.kill_and_wait().await;
    // There is room for no program.
    let server = scratch.server_with(|settings| settings.program_cache = 1).await;
    assert!(fetch(&server).await == program(PROGRAM).0);
    let _agent = Agent::echo(&server, 1, 1).await;
    assert_eq!(all(&server, "one").await, (echoes(0..10), End::Ended));
    server.until("the pool's end", |status| status.pools.is_empty()).await;
    server.kill_and_wait().await;
    let server = scratch.server_with(|settings| settings.program_cache = 1).await;
    assert_eq!(states(&server).await.len(), 1);
    let left = std::fs::read_dir(scratch.path().join("programs")).expect("cannot read the directory");
    let left: Vec<_> = left.map(|entry| entry.expect("cannot read the directory").file_name()).collect();
    assert!(left.is_empty(), "the program was not removed: {left:?}");
}
