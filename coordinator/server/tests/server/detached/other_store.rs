//! A store other than the embedded one, which stalls and fails. Only those who wait for it are affected.

use std::time::Instant;

use farpool_proto::v1::{CancelJob, DetachedState};
use tonic::Code;

use super::fake_store::{Disk, Mode};
use super::*;
use crate::agent::{Agent, Command};
use crate::restart::{assigned, result_of};

const WHY: &str = "the database is gone";

/// Starts a server with the contents of this disk, and the programs in this folder.
async fn server(disk: &Disk, programs: &Scratch) -> Server {
    Server::with_store(disk.open(), |settings| {
        settings.programs = programs.path().join("programs");
        settings.heartbeat_timeout = Duration::from_millis(1500);
        settings.window = 1000;
    })
    .await
}

/// A job with one item per chunk.
fn one_by_one(name: &str, id: u8) -> Opening {
    let mut job = detach(name, id);
    job.job.chunksize = 1;
    job
}

/// Has an agent echo many windows of items.
async fn check_works_beyond_its_window(client: &mut Client) {
    const ITEMS: u64 = 100;
    client.open_job(1);
    let (mut sent, mut limit, mut next, mut results) = (0, client.window, 0, 0);
    while results < ITEMS {
        while next < ITEMS && sent < limit {
            client.items(1, next, &[&[7; 96]]);
            (sent, next) = (sent + 100, next + 1);
        }
        match client.try_next().await.expect("the session ended").expect("the session ended") {
            Event::Window(window) => limit = limit.max(window.limit),
            Event::ItemsDone(done) => results += done.ends.len() as u64 / 4,
            _ => {}
        }
    }
    assert!(client.window < 100 * ITEMS, "the test's precondition does not hold");
}

#[tokio::test]
async fn a_stalled_store_stops_only_those_who_wait_for_it() {
    let (disk, programs) = (Disk::new(), Scratch::new());
    let server = server(&disk, &programs).await;
    let mut agent = Agent::joined(&server, 1, 1).await;
    detached(&server, one_by_one("one", 1), 100).await;
    let assign = assigned(&mut agent).await;
    disk.set(Mode::Stalls);
    agent.send(result_of(&assign.chunks[0], assign.chunks[0].first, b"A"));
    let mut two = detaching(server.connect().await, detach("two", 2)).await;
    send(&two, 0, 10);
    // Agents are told at once that a job is cancelled. The operator is answered when that is durable.
    let mut asking = jobs(&server).await;
    let request = CancelDetachedRequest { name: "one".to_owned(), ..CancelDetachedRequest::default() };
    let cancelled = tokio::spawn(async move { asking.cancel(request).await });
    'told: loop {
        for command in
            soon("the cancellation", agent.next()).await.expect("the session ended").expect("the session ended")
        {
            if matches!(command, Command::EndJob(_)) {
                break 'told;
            }
        }
    }
    let _agent = tokio::spawn(agent.work());
    let _other = Agent::echo(&server, 2, 2).await;
    let mut client = Client::open(&server).await;
    check_works_beyond_its_window(&mut client).await;
    assert_eq!(states(&server).await[0], ("one".to_owned(), DetachedState::Running));
    assert!(!cancelled.is_finished());
    disk.set(Mode::Works);
    soon("an answer", cancelled).await.expect("the call panicked").expect("cannot cancel the job");
    two.end_items(1);
    until_complete(&server, &mut two, 10).await;
    assert_eq!(all(&server, "two").await, (echoes(0..10), End::Ended));
    let (outcomes, end) = all(&server, "one").await;
    assert_eq!((outcomes.first(), end), (Some(&(0, Ok(b"A".to_vec()))), End::Cancelled));
}

#[tokio::test]
async fn a_failing_store_refuses_new_jobs_with_the_reason_and_accepted_ones_wait() {
    let (disk, programs) = (Disk::new(), Scratch::new());
    let mut server = server(&disk, &programs).await;
    detached(&server, detach("one", 1), 10).await;
    // One that has begun, and one whose completion the store has not acknowledged.
    let mut two = detaching(server.connect().await, detach("two", 2)).await;
    assert_eq!(durable(&server, &mut two).await, (0, false));
    let mut three = detaching(server.connect().await, detach("three", 3)).await;
    assert_eq!(durable(&server, &mut three).await, (0, false));
    disk.set(Mode::Stalls);
    send(&two, 0, 5);
    send(&three, 0, 5);
    three.end_items(1);
    let all_there = async || list(&server).await.iter().filter(|job| job.items == 5).count() == 2;
    while !all_there().await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    disk.set(Mode::Fails(WHY));
    let mut four = detaching(server.connect().await, detach("four", 4)).await;
    for refused in [&mut two, &mut three, &mut four] {
        refused.must_be_refused(Code::FailedPrecondition, WHY).await;
    }
    let status = server.status().await;
    assert_eq!(status.journal.map(|store| store.failing), Some(WHY.to_owned()));
    assert_eq!(states(&server).await, [("one".to_owned(), DetachedState::Running)]);
    let refused = discard(&server, "one").await.expect_err("the discard was accepted");
    assert!(refused.message().contains(WHY), "{refused:?}");
    disk.set(Mode::Works);
    let _agent = Agent::echo(&server, 1, 2).await;
    assert_eq!(all(&server, "one").await, (echoes(0..10), End::Ended));
    detached(&server, detach("four", 4), 3).await;
    assert_eq!(all(&server, "four").await, (echoes(0..3), End::Ended));
    // Nothing of the refused jobs is left.
    server.stop();
    server.ended().await;
    let server = self::server(&disk, &programs).await;
    let finished = |name: &str| (name.to_owned(), DetachedState::Finished);
    assert_eq!(states(&server).await, [finished("four"), finished("one")]);
}

#[tokio::test]
async fn acknowledged_outcomes_survive_a_failed_store_and_its_coordinator() {
    const ITEMS: u64 = 200;
    let (disk, programs) = (Disk::new(), Scratch::new());
    let server = server(&disk, &programs).await;
    detached(&server, one_by_one("one", 1), ITEMS).await;
    let mut agent = Agent::joined(&server, 1, 1).await;
    let (settled, last) = tokio::sync::watch::channel(0);
    let fails_at = disk.clone();
    let agent = tokio::spawn(async move {
        while let Ok(Some(commands)) = agent.next().await {
            for command in commands {
                if let Command::Settled(settle) = &command {
                    settled.send_replace(settle.report);
                }
                agent.execute(command);
            }
            if fails_at.outcomes("one") >= 50 {
                fails_at.set(Mode::Fails(WHY));
            }
        }
    });
    let fails =
        |status: &farpool_proto::v1::StatusReply| status.journal.as_ref().is_some_and(|store| store.failing == WHY);
    server.until("a store that fails", fails).await;
    // Results keep arriving for a moment: agents keep those that are not written.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let written = disk.outcomes("one");
    assert!((50..ITEMS as usize).contains(&written), "{written} are written");
    assert_eq!(*last.borrow() as usize, written);
    server.kill_and_wait().await;
    agent.abort();
    // The job waits while it cannot be read.
    let server = self::server(&disk, &programs).await;
    let [job] = &list(&server).await[..] else { panic!("not exactly one job") };
    assert_eq!((job.state(), job.done as usize), (DetachedState::Running, written));
    let _agent = Agent::echo(&server, 2, 2).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut attached = attach(server.connect().await, "one", 0, true).await;
    attached.must_be_refused(Code::Unavailable, WHY).await;
    disk.set(Mode::Works);
    assert_eq!(all(&server, "one").await, (echoes(0..ITEMS), End::Ended));
}

#[tokio::test]
async fn items_whose_read_stalls_are_given_out_when_it_completes() {
    let (disk, programs) = (Disk::new(), Scratch::new());
    let server = server(&disk, &programs).await;
    detached(&server, detach("one", 1), 10).await;
    server.kill_and_wait().await;
    disk.set(Mode::Stalls);
    let server = self::server(&disk, &programs).await;
    let _agent = Agent::echo(&server, 1, 2).await;
    let mut client = Client::open(&server).await;
    let begun = Instant::now();
    client.check_works(1).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "took {:?}", begun.elapsed());
    let mut attached = attach(server.connect().await, "one", 0, true).await;
    assert!(matches!(attached.next().await, Event::DetachedJob(_)));
    disk.set(Mode::Works);
    assert_eq!(rest(&mut attached).await, (echoes(0..10), End::Ended));
}

/// While nothing becomes durable, the window does not grow, and nothing is read beyond it.
#[tokio::test]
async fn a_client_that_exceeds_the_window_is_refused() {
    let (disk, programs) = (Disk::new(), Scratch::new());
    let server = server(&disk, &programs).await;
    let mut clients = Vec::new();
    for (name, id) in [("within", 1), ("beyond", 2)] {
        let mut client = detaching(server.connect().await, detach(name, id)).await;
        assert_eq!(durable(&server, &mut client).await, (0, false));
        clients.push(client);
    }
    disk.set(Mode::Stalls);
    let large = vec![7; 1 << 20];
    for (client, items) in clients.iter().zip([16, 17]) {
        (0..items).for_each(|at| client.send(Request::Items(batch(1, at, &[&large]))));
    }
    clients[1].must_be_refused(Code::InvalidArgument, "beyond the 16777216 bytes that were granted").await;
    disk.set(Mode::Works);
    while durable(&server, &mut clients[0]).await.0 < 16 {}
    clients[0].send(Request::Items(batch(1, 16, &[&large])));
    clients[0].end_items(1);
    until_complete(&server, &mut clients[0], 17).await;
}

/// The record that completes the job is with the writer when the job is withdrawn, and then writing begins to fail.
#[tokio::test]
async fn a_withdrawal_is_answered_when_the_job_can_no_longer_be_complete() {
    let (disk, programs) = (Disk::new(), Scratch::new());
    let server = server(&disk, &programs).await;
    detached(&server, detach("other", 2), 1).await;
    let mut client = detaching(server.connect().await, detach("one", 1)).await;
    assert_eq!(durable(&server, &mut client).await, (0, false));
    disk.set(Mode::Stalls);
    send(&client, 0, 5);
    client.end_items(1);
    while !disk.may_complete("one") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    client.send(Request::CancelJob(CancelJob { job: 1 }));
    disk.set(Mode::Fails(WHY));
    while !matches!(client.next().await, Event::PoolClosed(_)) {}
    assert!(!disk.may_complete("one"));
    disk.set(Mode::Works);
    while list(&server).await.len() > 1 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_job_can_be_withdrawn_while_the_store_fails() {
    let (disk, programs) = (Disk::new(), Scratch::new());
    let mut server = server(&disk, &programs).await;
    let mut clients = Vec::new();
    for (name, id) in [("comes", 1), ("whole", 2)] {
        let mut client = detaching(server.connect().await, detach(name, id)).await;
        assert_eq!(durable(&server, &mut client).await, (0, false));
        clients.push(client);
    }
    // The program has arrived by now.
    detached(&server, detach("other", 3), 1).await;
    disk.set(Mode::Stalls);
    clients.iter().for_each(|client| send(client, 0, 5));
    clients[1].end_items(1);
    let all_there = async || list(&server).await.iter().filter(|job| job.items == 5).count() == 2;
    while !all_there().await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    disk.set(Mode::Fails(WHY));
    server
        .until("a store that fails", |status| status.journal.as_ref().is_some_and(|store| store.failing == WHY))
        .await;
    clients.push(detaching(server.connect().await, detach("new", 4)).await);
    for (client, next) in clients.iter_mut().zip([Some(5), None, Some(0)]) {
        // They are parked: nothing can be written.
        next.into_iter().for_each(|next| client.send(Request::Items(some_items(next, 5))));
        client.send(Request::CancelJob(CancelJob { job: 1 }));
        loop {
            match client.try_next().await.expect("the session ended").expect("the session ended") {
                Event::JobEnded(ended) => assert!(ended.cancelled),
                Event::PoolClosed(_) => break,
                _ => {}
            }
        }
    }
    assert!(!disk.may_complete("whole"), "the job's end is withdrawn before its client is answered");
    disk.set(Mode::Works);
    let gone = async || list(&server).await.len() == 1;
    while !gone().await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let _agent = Agent::echo(&server, 1, 2).await;
    assert_eq!(all(&server, "other").await, (echoes(0..1), End::Ended));
    server.stop();
    server.ended().await;
    let server = self::server(&disk, &programs).await;
    assert_eq!(states(&server).await, [("other".to_owned(), DetachedState::Finished)]);
}
