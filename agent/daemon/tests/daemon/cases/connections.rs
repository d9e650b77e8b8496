//! Lost connections of sessions that continue.

use std::collections::BTreeSet;

use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::{Drain, Settled};
use farpool_testkit::folder::Folder;
use nix::sys::signal::Signal;
use tonic::Status;

use crate::coordinator::Coordinator;
use crate::daemon::Daemon;
use crate::pool::{WaitForEvents, assign, own_program, start, start_job};
use crate::running::{CHUNKS, Running};

super::cases! {
    nothing_is_lost_and_nothing_is_reported_twice,
    a_coordinator_that_knows_the_session_after_losing_its_connections, a_program_fetch_survives_a_lost_connection,
    a_coordinator_of_another_version_takes_over, drains_over_another_connection, leaves_at_once_with_nothing_to_do,
}

async fn nothing_is_lost_and_nothing_is_reported_twice() {
    const ROUNDS: u64 = 30;
    const CHUNKS: u64 = 40;
    let (scratch, notes) = (Folder::for_everybody("daemon"), Folder::for_everybody("daemon"));
    let mut coordinator = Coordinator::start();
    let mut daemon = Daemon::start(&coordinator.url(), &scratch.path().join("programs"), &["--slots", "1"]);
    let (mut session, _) = coordinator.session().await;
    let program = own_program();
    session.send(Command::StartPool(Box::new(start(1, &program, notes.path(), "none"))));
    coordinator.fetch().await.send(&program);
    session.started(1).await;
    session.send(start_job(1, 5));
    let (mut told, mut reports) = (BTreeSet::new(), 0);
    for round in 0..ROUNDS {
        // At every point: before the commands have arrived, and among the results.
        session.send(assign(5, round * CHUNKS..(round + 1) * CHUNKS));
        if round % 3 == 0 {
            session.cut();
            coordinator.accept_resume(&mut session).await;
        }
        while (told.len() as u64) < (round + 1) * CHUNKS - round % 7 {
            match session.event().await {
                Event::RunDone(done) => {
                    reports += 1;
                    let items = done.first..done.first + done.ends.len() as u64 / 4;
                    items.for_each(|item| assert!(told.insert(item), "{item} is reported twice"));
                }
                Event::ItemFault(fault) => panic!("unexpected fault: {fault:?}"),
                _ => {}
            }
        }
        session.cut();
        coordinator.accept_resume(&mut session).await;
    }
    while (told.len() as u64) < ROUNDS * CHUNKS {
        if let Event::RunDone(done) = session.event().await {
            reports += 1;
            (done.first..done.first + done.ends.len() as u64 / 4).for_each(|item| assert!(told.insert(item)));
        }
    }
    // A repeated log line is only counted.
    assert!(daemon.count_lines("the test has cut the connection") >= 1);
    // Settled outcomes are no longer held.
    session.send(Command::Settled(Settled { pool: 1, report: reports }));
    session.send(assign(5, ROUNDS * CHUNKS..ROUNDS * CHUNKS + 1));
    session.results(1).await;
    session.cut();
    let (_session, hello) = coordinator.session_after_failed_resume().await;
    let [pool] = &hello.held[..] else { panic!("{hello:?}") };
    assert_eq!(pool.chunks.len(), 1);
}

/// The coordinator knows the session: it has lost its connections, but nothing else.
async fn a_coordinator_that_knows_the_session_after_losing_its_connections() {
    let mut running = Running::new(&[]).await;
    let item = running.pipe.reader().await;
    drop(running.coordinator);
    running.daemon.wait_for_line("no connection to the coordinator").await;
    drop(item);
    running.coordinator = Coordinator::start_at(&running.port);
    running.coordinator.accept_resume(&mut running.session).await;
    running.daemon.wait_for_line("reconnected").await;
    running.session.results(1).await;
    for _ in 1..CHUNKS {
        drop(running.pipe.reader().await);
        running.session.results(1).await;
    }
    assert!(!running.programs()[0].is_over());
}

async fn a_program_fetch_survives_a_lost_connection() {
    let (scratch, notes) = (Folder::for_everybody("daemon"), Folder::for_everybody("daemon"));
    let port = farpool_testkit::port::Port::reserve();
    let mut coordinator = Coordinator::start_at(&port);
    let _daemon = Daemon::start(&coordinator.url(), &scratch.path().join("programs"), &[]);
    let (mut session, _) = coordinator.session().await;
    let program = own_program();
    session.send(Command::StartPool(Box::new(start(1, &program, notes.path(), "none"))));
    let _fetch = coordinator.fetch().await;
    drop(coordinator);
    let mut coordinator = Coordinator::start_at(&port);
    coordinator.accept_resume(&mut session).await;
    coordinator.fetch().await.send(&program);
    session.started(1).await;
}

async fn a_coordinator_of_another_version_takes_over() {
    let mut running = Running::new(&[]).await;
    running.session.cut();
    let status = Status::failed_precondition("farpool 1.2.3 here, and 4.5.6 there");
    running.coordinator.arrival().await.refuse(status);
    let program = running.program();
    let ended = running.daemon.ended().await;
    assert!(ended.code == Some(1) && ended.output.contains("1.2.3 here, and 4.5.6 there"), "{ended:?}");
    assert!(program.is_over());
}

async fn drains_over_another_connection() {
    let mut running = Running::new(&[]).await;
    let item = running.pipe.reader().await;
    drop(running.coordinator);
    running.daemon.wait_for_line("no connection to the coordinator").await;
    running.daemon.signal(Signal::SIGTERM);
    running.daemon.wait_for_line("draining; ").await;
    drop(item);
    let mut coordinator = Coordinator::start_at(&running.port);
    coordinator.accept_resume(&mut running.session).await;
    let (mut done, mut returned) = (0, 0);
    // The connection is lost again during the last messages: it may not leave before the coordinator knows that it does.
    running.session.lets_leave = false;
    running.session.find(|event| matches!(event, Event::Draining(_)).then_some(())).await;
    running.session.cut();
    running.session.send(Command::Drain(Drain {}));
    coordinator.accept_resume(&mut running.session).await;
    while let Some(event) = running.session.next().await {
        match event {
            Event::RunDone(run) => done += run.ends.len() / 4,
            Event::Returned(back) => returned += back.count,
            _ => {}
        }
    }
    assert_eq!((done, returned), (1, CHUNKS - 1));
    drop(running.session);
    assert_eq!(running.daemon.ended().await.code, Some(0));
}

async fn leaves_at_once_with_nothing_to_do() {
    let scratch = Folder::for_everybody("daemon");
    let mut coordinator = Coordinator::start();
    let mut daemon = Daemon::start(&coordinator.url(), scratch.path(), &[]);
    let (_session, _) = coordinator.session().await;
    daemon.wait_for_line("connected").await;
    drop(coordinator);
    daemon.wait_for_line("no connection").await;
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ended().await.code, Some(0));
}
