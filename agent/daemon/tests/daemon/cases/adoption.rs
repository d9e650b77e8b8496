//! Lost sessions, and what becomes of their workers.

use std::time::Duration;

use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::{AdoptPool, AdoptedChunk, AdoptedJob, AgentHello, HeldPool, Settled, StopPool};
use farpool_testkit::coordinator::agents::Session;
use nix::sys::signal::Signal;

use crate::coordinator::Coordinator;
use crate::pool::{WaitForEvents, assign};
use crate::running::{CHUNKS, Running};

super::cases! {
    another_coordinator_adopts_the_pool, a_pool_that_is_not_adopted_is_stopped,
    workers_without_a_coordinator_are_killed, an_agent_whose_host_slept_is_adopted, drains_in_another_session,
    draining_ends_with_the_orphan_timeout, a_session_is_lost_before_the_adoption,
    leaves_without_a_session_while_it_holds_items,
}

/// Adopts these chunks of a pool: names from 100 on, attempt 2, pool 11 and job 15.
fn adopt(held: &HeldPool, chunks: impl IntoIterator<Item = usize>) -> Command {
    let chunk =
        |at: usize| AdoptedChunk { held: held.chunks[at].chunk, chunk: 100 + held.chunks[at].first, attempt: 2 };
    Command::AdoptPool(Box::new(AdoptPool {
        held: held.pool,
        pool: 11,
        processes: held.processes,
        weight: 1,
        jobs: vec![AdoptedJob { number: 5, job: 15 }],
        chunks: chunks.into_iter().map(chunk).collect(),
    }))
}

fn only(hello: &AgentHello) -> &HeldPool {
    let [pool] = &hello.held[..] else { panic!("{hello:?}") };
    assert_eq!((&pool.id[..], pool.pool >> 63, pool.processes), (&[9; 16][..], 1, 1));
    pool
}

/// Waits for the next result. Returns its chunk, attempt and first item.
async fn result(session: &mut Session) -> (u64, u32, u64) {
    session
        .find(|event| match event {
            Event::RunDone(done) => Some((done.chunk, done.attempt, done.first)),
            Event::ItemFault(fault) => panic!("unexpected fault: {fault:?}"),
            _ => None,
        })
        .await
}

/// The coordinator is replaced: one item is done, one runs, two wait.
async fn another_coordinator_adopts_the_pool() {
    let mut running = Running::new(&[]).await;
    drop(running.pipe.reader().await);
    running.session.results(1).await;
    let item = running.pipe.reader().await;
    let program = running.program();
    drop(running.coordinator);
    running.coordinator = Coordinator::start_at(&running.port);
    let coordinator = &mut running.coordinator;
    let (mut session, hello) = coordinator.session_after_failed_resume().await;
    let pool = only(&hello);
    assert_eq!((pool.chunks.len() as u64, hello.wasted), (CHUNKS, 0));
    for (first, chunk) in pool.chunks.iter().enumerate() {
        assert_eq!(
            (chunk.job, chunk.attempt, chunk.first, &chunk.runs[..]),
            (5, 1, first as u64, &[first as u64, 1][..])
        );
    }
    // The third is no longer wanted.
    session.send(adopt(pool, [0, 1, 3]));
    session.started(11).await;
    assert_eq!(result(&mut session).await, (100, 2, 0), "earlier outcomes are sent first");
    drop(item);
    assert_eq!(result(&mut session).await, (101, 2, 1));
    drop(running.pipe.reader().await);
    assert_eq!(result(&mut session).await, (103, 2, 3));
    session.send(assign(15, 200..201));
    drop(running.pipe.reader().await);
    assert_eq!(result(&mut session).await, (200, 1, 200));
    assert!(!program.is_over(), "the same process still runs");
    // Settled outcomes are no longer held.
    session.send(Command::Settled(Settled { pool: 11, report: 4 }));
    session.send(assign(15, 300..301));
    drop(running.pipe.reader().await);
    assert_eq!(result(&mut session).await, (300, 1, 300));
    session.cut();
    let (session, hello) = coordinator.session_after_failed_resume().await;
    assert_eq!(only(&hello).chunks.iter().map(|chunk| chunk.first).collect::<Vec<_>>(), [300]);
    drop(session);
}

async fn a_pool_that_is_not_adopted_is_stopped() {
    let mut running = Running::new(&[]).await;
    let _item = running.pipe.reader().await;
    let program = running.program();
    running.session.cut();
    let (session, hello) = running.coordinator.session_after_failed_resume().await;
    session.send(Command::StopPool(StopPool { pool: only(&hello).pool, now: true }));
    while !program.is_over() {
        tokio::task::yield_now().await;
    }
    session.fail(tonic::Status::unavailable("going down"));
    let (_session, hello) = running.coordinator.session_after_failed_resume().await;
    assert_eq!(hello.held, []);
}

async fn workers_without_a_coordinator_are_killed() {
    let mut running = Running::new(&["--orphan-timeout", "1s"]).await;
    let _item = running.pipe.reader().await;
    let program = running.program();
    drop(running.coordinator);
    running.daemon.wait_for_line("no connection").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!program.is_over());
    let line = running.daemon.wait_for_line("orphan timeout expired").await;
    assert!(line.contains("ERROR") && line.contains("orphan-timeout=1s"), "{line}");
    let mut coordinator = Coordinator::start_at(&running.port);
    // It does not try to resume the session that it has ended itself.
    let (_session, hello) = coordinator.session().await;
    assert!(program.is_over() && hello.held.is_empty(), "{hello:?}");
}

/// The agent's host slept for longer than its coordinator waits.
async fn an_agent_whose_host_slept_is_adopted() {
    let mut running = Running::new(&[]).await;
    let item = running.pipe.reader().await;
    running.daemon.signal(Signal::SIGSTOP);
    running.session.cut();
    drop(item);
    tokio::time::sleep(Duration::from_millis(300)).await;
    running.daemon.signal(Signal::SIGCONT);
    let (mut session, hello) = running.coordinator.session_after_failed_resume().await;
    session.send(adopt(only(&hello), [0]));
    session.started(11).await;
    assert_eq!(result(&mut session).await, (100, 2, 0));
    assert_eq!(running.programs().len(), 1);
}

async fn drains_in_another_session() {
    let mut running = Running::new(&[]).await;
    let item = running.pipe.reader().await;
    running.daemon.signal(Signal::SIGTERM);
    running.session.find(|event| matches!(event, Event::Draining(_)).then_some(())).await;
    running.session.cut();
    drop(item);
    let (mut session, hello) = running.coordinator.session_after_failed_resume().await;
    let pool = only(&hello);
    assert_eq!(pool.chunks.len(), 1, "the others were given back");
    session.find(|event| matches!(event, Event::Draining(_)).then_some(())).await;
    // It does not leave before the coordinator has decided which items it adopts.
    tokio::time::sleep(Duration::from_millis(200)).await;
    session.send(adopt(pool, [0]));
    assert_eq!(result(&mut session).await, (100, 2, 0));
    while session.next().await.is_some() {}
    drop(session);
    assert_eq!(running.daemon.ended().await.code, Some(0));
}

async fn draining_ends_with_the_orphan_timeout() {
    let mut running = Running::new(&["--orphan-timeout", "1s"]).await;
    let _item = running.pipe.reader().await;
    let program = running.program();
    running.daemon.signal(Signal::SIGTERM);
    running.session.find(|event| matches!(event, Event::Draining(_)).then_some(())).await;
    drop(running.coordinator);
    let ended = running.daemon.ended().await;
    assert!(
        ended.code == Some(0)
            && ended.output.contains("orphan timeout expired; killing all running items orphan-timeout=1s"),
        "{ended:?}"
    );
    assert!(program.is_over());
}

async fn a_session_is_lost_before_the_adoption() {
    let mut running = Running::new(&[]).await;
    drop(running.pipe.reader().await);
    running.session.results(1).await;
    running.session.cut();
    for _ in 0..3 {
        let (mut session, hello) = running.coordinator.session_after_failed_resume().await;
        assert_eq!(only(&hello).chunks.len() as u64, CHUNKS);
        // It arrives after the welcome.
        session.find(|event| matches!(event, Event::Credit(_)).then_some(())).await;
        session.cut();
    }
    let (mut session, hello) = running.coordinator.session_after_failed_resume().await;
    session.find(|event| matches!(event, Event::Credit(_)).then_some(())).await;
    session.send(adopt(only(&hello), [0]));
    // And before the agent knows that.
    session.cut();
    running.coordinator.accept_resume(&mut session).await;
    session.started(11).await;
    assert_eq!(result(&mut session).await, (100, 2, 0));
}

/// There is no session, so it does not wait for running items.
async fn leaves_without_a_session_while_it_holds_items() {
    let mut running = Running::new(&[]).await;
    let _item = running.pipe.reader().await;
    let program = running.program();
    running.session.cut();
    running.coordinator.arrival().await.refuse_resume().await;
    running.daemon.wait_for_line("does not resume the session").await;
    running.daemon.signal(Signal::SIGTERM);
    assert_eq!(running.daemon.ended().await.code, Some(0));
    assert!(program.is_over());
}
