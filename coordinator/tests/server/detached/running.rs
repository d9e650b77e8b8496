//! A job runs, and its outcomes are picked up.

use farpool_proto::v1::{DetachedState, OpenJob};

use super::*;
use crate::agent::Agent;

#[tokio::test]
async fn a_job_is_detached_runs_and_is_picked_up() {
    let scratch = Scratch::new();
    let server = scratch.server().await;
    let job = OpenJob { label: "nightly".to_owned(), ..detach("one", 1).job.expect("it has one") };
    detached(&server, Detach { job: Some(job), ..detach("one", 1) }, 1000).await;
    let [waiting] = &list(&server).await[..] else { panic!("one job") };
    assert_eq!((waiting.name.as_str(), waiting.label.as_str(), waiting.result.as_str()), ("one", "nightly", "u64"));
    assert_eq!((waiting.state(), waiting.items, waiting.done), (DetachedState::Running, 1000, 0));
    assert!(waiting.detached_ms > 0 && waiting.ended_ms == 0 && waiting.expires_ms == 0);
    let _agent = Agent::echo(&server, 1, 2).await;
    // Any number may attach, while it runs and later, from anywhere.
    let (first, second) = tokio::join!(all(&server, "one"), all(&server, "one"));
    assert_eq!(first, (echoes(0..1000), End::Ended));
    assert_eq!(second, first);
    let (described, outcomes, end) = outcomes(server.connect().await, "one", 990, false).await;
    assert_eq!((outcomes, end), (echoes(990..1000), End::Ended));
    assert_eq!((described.state(), described.done, described.failed), (DetachedState::Finished, 1000, 0));
    assert_eq!(described.expires_ms, described.ended_ms + 7 * 24 * 3600 * 1000);
    server.until("the end of its pool", |status| status.pools.is_empty()).await;
}

#[tokio::test]
async fn a_job_goes_on_after_a_restart() {
    let scratch = Scratch::new();
    let server = scratch.server().await;
    detached(&server, detach("one", 1), 1000).await;
    server.is_killed().await;
    let server = scratch.server().await;
    assert_eq!(states(&server).await, [("one".to_owned(), DetachedState::Running)]);
    let _agent = Agent::echo(&server, 1, 2).await;
    assert_eq!(all(&server, "one").await, (echoes(0..1000), End::Ended));
    server.is_killed().await;
    let server = scratch.server().await;
    assert_eq!(states(&server).await, [("one".to_owned(), DetachedState::Finished)]);
    assert_eq!(all(&server, "one").await, (echoes(0..1000), End::Ended));
}
