//! Absurd numbers and sizes from clients and workers: only their sender fails.

use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::{FailureKind, StartPool, WorkerSettings};
use farpool_testkit::coordinator::agents::Session;
use farpool_testkit::folder::Folder;

use crate::coordinator::Coordinator;
use crate::daemon::Daemon;
use crate::pipe::Pipe;
use crate::pool::{WaitForEvents, assign, own_program, start, start_job};

super::cases! { a_bad_pool_or_job_fails_alone, an_announced_length_takes_no_memory }

async fn a_bad_pool_or_job_fails_alone() {
    let scratch = Folder::for_everybody("daemon");
    let pipe = Pipe::new(scratch.path().join("pipe"));
    let mut coordinator = Coordinator::start();
    let mut daemon = Daemon::start(&coordinator.url(), scratch.path(), &["--slots", "3"]);
    let (mut session, _) = coordinator.session().await;
    let program = own_program();
    session.send(Command::StartPool(Box::new(start(1, &program, scratch.path(), &pipe.behaviour()))));
    coordinator.fetch().await.send(&program);
    session.started(1).await;
    session.send(start_job(1, 10));
    session.send(assign(10, 100..101));
    let item = pipe.reader().await;
    // A pool whose results could have any size.
    let settings = WorkerSettings { payload_limit: 1 << 63, ..WorkerSettings::default() };
    let bad = StartPool { settings: Some(settings), ..start(2, &program, scratch.path(), "none") };
    session.send(Command::StartPool(Box::new(bad)));
    session.refused(2, FailureKind::InvalidArgument, &["payload_limit"]).await;
    // The item that ran all the time still runs.
    drop(item);
    session.results(1).await;
    assert_eq!(daemon.count_lines("broke the protocol"), 0);
}

async fn an_announced_length_takes_no_memory() {
    const MOST: u64 = 2 << 30;
    let scratch = Folder::for_everybody("daemon");
    let mut coordinator = Coordinator::start();
    let daemon = Daemon::start(&coordinator.url(), scratch.path(), &["--slots", "1"]);
    let (mut session, _) = coordinator.session().await;
    let program = own_program();
    for (pool, announced) in [(1, MOST), (2, 1 << 46), (3, 1 << 63)] {
        let settings = WorkerSettings { payload_limit: MOST, ..WorkerSettings::default() };
        let behaviour = format!("announces:{announced}");
        let start = StartPool { settings: Some(settings), ..start(pool, &program, scratch.path(), &behaviour) };
        session.send(Command::StartPool(Box::new(start)));
        if pool == 1 {
            coordinator.fetch().await.send(&program);
        }
        session.started(pool).await;
        let before = daemon.largest_size();
        session.send(start_job(pool, pool));
        session.send(assign(pool, 100 * pool..100 * pool + 3));
        let failure = fault_of(&mut session, 100 * pool).await;
        assert_eq!(failure.kind(), FailureKind::WorkerDied, "{failure:?}");
        session.results(2).await;
        let grown = daemon.largest_size() - before;
        assert!(grown < 512 << 20, "{announced} bytes were announced, and the agent took {grown} more");
    }
}

async fn fault_of(session: &mut Session, chunk: u64) -> farpool_proto::v1::Failure {
    let found = session.find(|event| match event {
        Event::ItemFault(fault) if fault.chunk == chunk => fault.failure.clone(),
        Event::PoolFault(fault) => panic!("unexpected fault: {fault:?}"),
        _ => None,
    });
    found.await
}
