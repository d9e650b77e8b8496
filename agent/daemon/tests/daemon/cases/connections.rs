//! Connections that are lost, while the session goes on.

use std::collections::BTreeSet;

use farpool_proto::v1::Settled;
use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::agent_event::Body as Event;
use farpool_testkit::folder::Folder;
use nix::sys::signal::Signal;
use tonic::Status;

use crate::coordinator::Coordinator;
use crate::daemon::Daemon;
use crate::pool::{Waits, assign, own_program, start, start_job};
use crate::running::{CHUNKS, Running};

super::cases! {
    nothing_is_lost_and_nothing_is_told_twice, a_coordinator_that_is_reached_anew, a_program_on_its_way,
    another_version_has_come, drains_over_another_connection, leaves_at_once_with_nothing_to_do,
}

async fn nothing_is_lost_and_nothing_is_told_twice() {
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
        // In every place: before the commands have arrived, and among the results.
        session.send(assign(5, round * CHUNKS..(round + 1) * CHUNKS));
        if round % 3 == 0 {
            session.cut();
            coordinator.resumes(&mut session).await;
        }
        while (told.len() as u64) < (round + 1) * CHUNKS - round % 7 {
            match session.event().await {
                Event::RunDone(done) => {
                    reports += 1;
                    let items = done.first..done.first + done.ends.len() as u64 / 4;
                    items.for_each(|item| assert!(told.insert(item), "{item} is told twice"));
                }
                Event::ItemFault(fault) => panic!("{fault:?}"),
                _ => {}
            }
        }
        session.cut();
        coordinator.resumes(&mut session).await;
    }
    while (told.len() as u64) < ROUNDS * CHUNKS {
        if let Event::RunDone(done) = session.event().await {
            reports += 1;
            (done.first..done.first + done.ends.len() as u64 / 4).for_each(|item| assert!(told.insert(item)));
        }
    }
    // The same line again is only counted.
    assert!(daemon.times_said("somebody has cut it") >= 1);
    // What was settled is not held any more.
    session.send(Command::Settled(Settled { pool: 1, report: reports }));
    session.send(assign(5, ROUNDS * CHUNKS..ROUNDS * CHUNKS + 1));
    session.results(1).await;
    session.cut();
    let (_session, hello) = coordinator.session_after_one_that_is_given_up().await;
    let [pool] = &hello.held[..] else { panic!("{hello:?}") };
    assert_eq!(pool.chunks.len(), 1);
}

/// The process is another one, but it knows the session: its connections are gone, and nothing else.
async fn a_coordinator_that_is_reached_anew() {
    let mut running = Running::new(&[]).await;
    let item = running.pipe.reader().await;
    drop(running.coordinator);
    running.daemon.says("no connection to the coordinator").await;
    drop(item);
    running.coordinator = Coordinator::start_at(&running.port);
    running.coordinator.resumes(&mut running.session).await;
    running.daemon.says("reconnected").await;
    running.session.results(1).await;
    for _ in 1..CHUNKS {
        drop(running.pipe.reader().await);
        running.session.results(1).await;
    }
    assert!(!running.programs()[0].is_over());
}

async fn a_program_on_its_way() {
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
    coordinator.resumes(&mut session).await;
    coordinator.fetch().await.send(&program);
    session.started(1).await;
}

async fn another_version_has_come() {
    let mut running = Running::new(&[]).await;
    running.session.cut();
    let status = Status::failed_precondition("farpool 1.2.3 here, and 4.5.6 there");
    running.coordinator.arrival().await.refuse(status);
    let program = running.program();
    let ended = running.daemon.ended().await;
    assert!(ended.code == Some(1) && ended.said.contains("1.2.3 here, and 4.5.6 there"), "{ended:?}");
    assert!(program.is_over());
}

async fn drains_over_another_connection() {
    let mut running = Running::new(&[]).await;
    let item = running.pipe.reader().await;
    drop(running.coordinator);
    running.daemon.says("no connection to the coordinator").await;
    running.daemon.signal(Signal::SIGTERM);
    running.daemon.says("draining; ").await;
    drop(item);
    let mut coordinator = Coordinator::start_at(&running.port);
    coordinator.resumes(&mut running.session).await;
    let (mut done, mut returned) = (0, 0);
    // It is lost once more in the midst of the last words.
    running.session.find(|event| matches!(event, Event::Draining(_)).then_some(())).await;
    running.session.cut();
    coordinator.resumes(&mut running.session).await;
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
    daemon.says("connected").await;
    drop(coordinator);
    daemon.says("no connection").await;
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ended().await.code, Some(0));
}
