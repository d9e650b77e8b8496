//! Draining and leaving.

use std::path::PathBuf;
use std::time::Duration;

use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::{Drain, StartPool};
use farpool_proto::version;
use farpool_testkit::folder::Folder;
use farpool_testkit::port::Port;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tonic::Status;

use crate::coordinator::Coordinator;
use crate::daemon::Daemon;
use crate::pool::{start, start_job};
use crate::running::{CHUNKS, Running};

super::cases! {
    drains_on_sigterm, drains_on_sigint, drains_on_command, a_second_signal_ends_it_at_once,
    without_a_session_it_ends_at_once, drains_during_a_program_fetch, a_session_that_ends_while_it_drains,
    a_signal_while_pools_are_killed, a_hangup_is_logged_and_ends_nothing,
}

/// The running item finishes, all others are returned, and the agent leaves.
async fn check_drains(ask: impl FnOnce(&mut Running)) {
    let mut running = Running::new(&[]).await;
    let item = running.pipe.reader().await;
    ask(&mut running);
    let session = &mut running.session;
    let mut returned = 0;
    let mut draining = false;
    while !draining || returned < CHUNKS - 1 {
        match session.event().await {
            Event::Draining(_) => draining = true,
            Event::Returned(back) => returned += back.count,
            Event::RunDone(_) => panic!("an item finished early"),
            _ => {}
        }
    }
    // Commands in flight do no harm.
    session.send(Command::StartPool(Box::new(StartPool { pool: 2, ..StartPool::default() })));
    session.send(start_job(2, 6));
    drop(item);
    let mut done = 0;
    while let Some(event) = session.next().await {
        match event {
            Event::RunDone(run) => done += run.ends.len() / 4,
            Event::Returned(back) => returned += back.count,
            _ => {}
        }
    }
    assert_eq!((done, returned), (1, CHUNKS - 1));
    drop(running.session);
    let ended = running.daemon.ended().await;
    assert!(ended.code == Some(0) && ended.output.contains("draining; "), "{ended:?}");
    drop(running.coordinator);
}

async fn drains_on_sigterm() {
    check_drains(|running| running.daemon.signal(Signal::SIGTERM)).await;
}

async fn drains_on_sigint() {
    check_drains(|running| running.daemon.signal(Signal::SIGINT)).await;
}

async fn drains_on_command() {
    check_drains(|running| running.session.send(Command::Drain(Drain {}))).await;
}

async fn a_second_signal_ends_it_at_once() {
    let mut running = Running::new(&[]).await;
    let _item = running.pipe.reader().await;
    running.daemon.signal(Signal::SIGTERM);
    running.session.find(|event| matches!(event, Event::Draining(_)).then_some(())).await;
    let program = running.program();
    running.daemon.signal(Signal::SIGTERM);
    let ended = running.daemon.ended().await;
    assert_eq!(ended.code, Some(128 + Signal::SIGTERM as i32), "{ended:?}");
    assert!(program.is_over(), "the agent's workers are gone");
    assert!(!PathBuf::from(&program.directory).exists(), "the working directory is removed");
    running.session.is_over().await;
}

async fn without_a_session_it_ends_at_once() {
    let scratch = Folder::for_everybody("daemon");
    let port = Port::reserve();
    let mut daemon = Daemon::start(&port.url(), scratch.path(), &[]);
    daemon.wait_for_line("Connection refused").await;
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ended().await.code, Some(0));
    // It also ends at once while the coordinator is silent.
    let mut coordinator = Coordinator::start();
    let mut daemon = Daemon::start(&coordinator.url(), scratch.path(), &[]);
    let _silent = coordinator.arrival().await;
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ended().await.code, Some(0));
}

async fn drains_during_a_program_fetch() {
    let scratch = Folder::for_everybody("daemon");
    let mut coordinator = Coordinator::start();
    let mut daemon = Daemon::start(&coordinator.url(), &scratch.path().join("programs"), &[]);
    let (mut session, _) = coordinator.session().await;
    session.send(Command::StartPool(Box::new(start(1, b"a program", scratch.path(), "none"))));
    let mut fetch = coordinator.fetch().await;
    daemon.signal(Signal::SIGTERM);
    fetch.wait_until_cancelled().await;
    // The coordinator may not know that yet.
    session.send(start_job(1, 5));
    while session.next().await.is_some() {}
    drop(session);
    let ended = daemon.ended().await;
    assert!(ended.code == Some(0) && !ended.output.contains("protocol"), "{ended:?}");
}

async fn a_session_that_ends_while_it_drains() {
    let mut running = Running::new(&[]).await;
    let _item = running.pipe.reader().await;
    running.daemon.signal(Signal::SIGTERM);
    running.session.find(|event| matches!(event, Event::Draining(_)).then_some(())).await;
    running.session.fail(Status::invalid_argument("what a draining"));
    let ended = running.daemon.ended().await;
    assert!(ended.code == Some(0) && ended.output.contains("what a draining"), "{ended:?}");
}

/// The coordinator violates the protocol, and a signal arrives before the workers are gone: the agent does not begin another
/// session.
async fn a_signal_while_pools_are_killed() {
    let mut running = Running::new(&[]).await;
    let _item = running.pipe.reader().await;
    let fork_server = running.program();
    let pid = Pid::from_raw(fork_server.pid.cast_signed());
    // It reaps no process until the agent stops waiting.
    kill(pid, Signal::SIGSTOP).expect("no such process");
    running.session.send(Command::Welcome(version()));
    // If the signal came first, the agent would leave as well.
    tokio::time::sleep(Duration::from_millis(200)).await;
    running.daemon.signal(Signal::SIGTERM);
    let ended = running.daemon.ended().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    drop(running.coordinator);
    let _ = kill(pid, Signal::SIGCONT);
}

async fn a_hangup_is_logged_and_ends_nothing() {
    let scratch = Folder::for_everybody("daemon");
    let mut coordinator = Coordinator::start();
    let mut daemon = Daemon::start(&coordinator.url(), &scratch.path().join("programs"), &[]);
    let (mut session, _) = coordinator.session().await;
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_line("SIGHUP").await;
    daemon.signal(Signal::SIGTERM);
    while session.next().await.is_some() {}
    drop(session);
    assert_eq!(daemon.ended().await.code, Some(0));
}
