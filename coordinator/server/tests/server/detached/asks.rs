//! Jobs are listed, cancelled, discarded, and expire.

use farpool_proto::v1::DetachedState;
use tonic::Code;

use super::*;
use crate::agent::Agent;
use crate::restart::{assigned, result_of};

#[tokio::test]
async fn jobs_are_listed_by_name() {
    let scratch = Scratch::new();
    let server = scratch.server().await;
    for (name, id) in [("c", 1), ("a", 2), ("b", 3)] {
        detached(&server, detach(name, id), 1).await;
    }
    let names: Vec<String> = list(&server).await.into_iter().map(|job| job.name).collect();
    assert_eq!(names, ["a", "b", "c"]);
    let status = server.until("all run", |status| status.jobs.len() == 3).await;
    assert_eq!(
        status.journal.map(|journal| (journal.jobs, journal.size, journal.failing)),
        Some((3, 10 << 30, String::new()))
    );
    // They are jobs like any other.
    let mut labels: Vec<String> = status.jobs.into_iter().map(|job| job.label).collect();
    labels.sort();
    assert_eq!(labels, ["a", "b", "c"]);
}

#[tokio::test]
async fn a_cancelled_job_keeps_its_outcomes() {
    let scratch = Scratch::new();
    let server = scratch.server().await;
    let mut job = detach("one", 1);
    job.job.chunksize = 1;
    detached(&server, job, 10).await;
    let mut agent = Agent::joined(&server, 1, 1).await;
    let assign = assigned(&mut agent).await;
    assert_eq!(assign.chunks[0].first, 0);
    agent.send(result_of(&assign.chunks[0], 0, b"A"));
    let mut attached = attach(server.connect().await, "one", 0, true).await;
    assert!(matches!(attached.next().await, Event::DetachedJob(_)));
    assert!(matches!(attached.next().await, Event::ItemsDone(_)));
    let _agent = tokio::spawn(agent.idle());
    cancel(&server, "one").await.expect("cannot cancel the job");
    assert_eq!(rest(&mut attached).await, (Vec::new(), End::Cancelled));
    // Cancelling twice is no error.
    cancel(&server, "one").await.expect("cannot cancel the job");
    let expected = (vec![(0, Ok(b"A".to_vec()))], End::Cancelled);
    assert_eq!(all(&server, "one").await, expected);
    server.kill_and_wait().await;
    let server = scratch.server().await;
    assert_eq!(all(&server, "one").await, expected);
    assert_eq!(server.status().await.pools, []);
    let refused = cancel(&server, "two").await.expect_err("a missing job was found");
    assert!(refused.code() == Code::NotFound && refused.message().contains("\"two\""), "{refused:?}");
}

#[tokio::test]
async fn a_job_cancelled_by_its_number_ends() {
    let scratch = Scratch::new();
    let server = scratch.server().await;
    detached(&server, detach("one", 1), 10).await;
    let status = server.until("the job", |status| !status.jobs.is_empty()).await;
    let request = farpool_proto::v1::CancelJobRequest { job: status.jobs[0].job.clone() };
    server.operators().await.cancel_job(request).await.expect("cannot cancel the job");
    assert_eq!(all(&server, "one").await, (Vec::new(), End::Cancelled));
}

#[tokio::test]
async fn a_discarded_job_is_gone_and_its_name_is_free() {
    let scratch = Scratch::new();
    let server = scratch.server().await;
    let agent = Agent::joined(&server, 1, 1).await;
    let _agent = tokio::spawn(agent.idle());
    detached(&server, detach("one", 1), 10).await;
    let mut attached = attach(server.connect().await, "one", 0, true).await;
    assert!(matches!(attached.next().await, Event::DetachedJob(_)));
    server.until("the job's chunk", |status| status.jobs.first().is_some_and(|job| job.assigned > 0)).await;
    // While it runs.
    discard(&server, "one").await.expect("cannot discard the job");
    attached.must_be_refused(Code::NotFound, "discarded").await;
    server.until("the end of its pool", |status| status.pools.is_empty()).await;
    assert_eq!(list(&server).await, []);
    // While it is received.
    let mut client = detaching(server.connect().await, detach("one", 2)).await;
    assert_eq!(durable(&server, &mut client).await.0, 0);
    cancel(&server, "one").await.expect("cannot discard the incomplete job");
    client.must_be_refused(Code::NotFound, "discarded").await;
    // When it has ended.
    detached(&server, detach("one", 3), 0).await;
    assert_eq!(all(&server, "one").await.1, End::Ended);
    discard(&server, "one").await.expect("cannot discard the job");
    let refused = discard(&server, "one").await.expect_err("a missing job was found");
    assert_eq!(refused.code(), Code::NotFound);
    server.kill_and_wait().await;
    assert_eq!(list(&scratch.server().await).await, []);
}

#[tokio::test]
async fn ended_jobs_expire() {
    let scratch = Scratch::new();
    let server = scratch
        .server_with(|settings| {
            settings.journal.as_mut().expect("the journal is not configured").expiry = Duration::from_millis(500)
        })
        .await;
    detached(&server, detach("ends", 1), 0).await;
    detached(&server, detach("runs", 2), 1).await;
    assert_eq!(all(&server, "ends").await.1, End::Ended);
    server.until("the job's end", |status| status.journal.as_ref().is_some_and(|journal| journal.jobs == 1)).await;
    assert_eq!(states(&server).await, [("runs".to_owned(), DetachedState::Running)]);
}

#[tokio::test]
async fn status_names_damaged_files_kept_beside_the_journal() {
    let scratch = Scratch::new();
    let server = scratch.server().await;
    detached(&server, detach("one", 1), 10).await;
    server.kill_and_wait().await;
    // The first segment is unreadable.
    std::fs::write(scratch.path().join("0000000001.farpool-journal"), [7; 5000]).expect("cannot write the segment");
    let server = scratch.server().await;
    let told = server.until("a file that is kept", |status| {
        status.journal.as_ref().is_some_and(|journal| !journal.aside.is_empty())
    });
    let journal = told.await.journal.expect("the journal is not configured");
    let (aside, damage) = (journal.aside, journal.damage);
    assert!(damage[0].contains("0000000001.farpool-journal is damaged: "), "{damage:?}");
    assert_eq!((aside.len(), aside[0].bytes), (1, 5000));
    assert!(aside[0].name.starts_with("0000000001.farpool-journal.damaged-"), "{aside:?}");
    assert!(scratch.path().join(&aside[0].name).exists());
}

#[tokio::test]
async fn status_names_missing_segments_of_the_journal() {
    let scratch = Scratch::new();
    let server = scratch.server().await;
    detached(&server, detach("one", 1), 10).await;
    server.kill_and_wait().await;
    std::fs::remove_file(scratch.path().join("0000000001.farpool-journal")).expect("cannot remove the segment");
    let server = scratch.server().await;
    let told = server
        .until("what is missing", |status| status.journal.as_ref().is_some_and(|journal| !journal.damage.is_empty()));
    let journal = told.await.journal.expect("the journal is not configured");
    assert!(journal.damage[0].contains("0000000001.farpool-journal is missing"), "{journal:?}");
    assert!(journal.damage[1].starts_with("jobs may be missing"), "{journal:?}");
}
