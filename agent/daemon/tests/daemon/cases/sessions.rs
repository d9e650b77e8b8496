//! How sessions begin and end.

use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::{Settled, StopPool, Version};
use farpool_proto::{PROTOCOL, version};
use farpool_testkit::folder::Folder;
use farpool_testkit::port::Port;
use tonic::Status;

use crate::coordinator::Coordinator;
use crate::daemon::Daemon;
use crate::pool::{WaitForEvents, assign, own_program, start, start_job};
use crate::program::{Start, starts};

super::cases! {
    sends_its_hello, another_agents_version, another_coordinators_version, a_refused_hello_is_fatal,
    a_refusal_is_logged_once, starts_before_the_coordinator, a_coordinator_that_sends_no_welcome_is_retried,
    an_idle_agent_stays_asleep, a_coordinator_that_does_not_read,
}

async fn sends_its_hello() {
    let scratch = Folder::for_everybody("daemon");
    let mut coordinator = Coordinator::start();
    let arguments = ["--slots", "3", "--label", "gpu=a100", "--label", "rack=7"];
    let mut daemon = Daemon::start(&coordinator.url(), scratch.path(), &arguments);
    let line = daemon.wait_for_line("version=").await;
    for part in
        [&*coordinator.url(), "slots=3", "host=here", "label=\"gpu=a100,rack=7\"", "program-cache=4GiB", "programs=/"]
    {
        assert!(line.contains(part), "{part}: {line}");
    }
    let (_session, hello) = coordinator.session().await;
    assert_eq!((&*hello.host, hello.slots, hello.version, hello.secret.len()), ("here", 3, Some(version()), 32));
    let labels: Vec<_> = hello.labels.iter().map(|label| format!("{}={}", label.key, label.value)).collect();
    let own = [format!("arch={}", std::env::consts::ARCH), format!("os={}", std::env::consts::OS)];
    assert_eq!(labels, ["host=here", &own[0], &own[1], "gpu=a100", "rack=7"]);
    daemon.wait_for_line("connected to the coordinator").await;

    let other = Daemon::start(&coordinator.url(), scratch.path(), &[]);
    let (_session, other_hello) = coordinator.session().await;
    assert_ne!(hello.secret, other_hello.secret);
    assert!(other_hello.slots >= 1);
    drop(other);
}

async fn another_agents_version() {
    check_fatal(Status::failed_precondition("farpool 1.2.3 here, and 4.5.6 there"), "1.2.3 here, and 4.5.6 there")
        .await;
}

async fn a_refused_hello_is_fatal() {
    check_fatal(Status::invalid_argument("a host has a name"), "a host has a name").await;
}

async fn check_fatal(status: Status, words: &str) {
    let scratch = Folder::for_everybody("daemon");
    let mut coordinator = Coordinator::start();
    let daemon = Daemon::start(&coordinator.url(), scratch.path(), &[]);
    coordinator.arrival().await.refuse(status.clone());
    let ended = daemon.ended().await;
    assert!(ended.code == Some(1) && ended.output.contains(words), "{ended:?}");

    // A fatal status later in a session also ends the agent.
    let daemon = Daemon::start(&coordinator.url(), scratch.path(), &[]);
    let (session, _) = coordinator.session().await;
    session.fail(status);
    let ended = daemon.ended().await;
    assert!(ended.code == Some(1) && ended.output.contains(words), "{ended:?}");
}

async fn another_coordinators_version() {
    let scratch = Folder::for_everybody("daemon");
    let mut coordinator = Coordinator::start();
    let daemon = Daemon::start(&coordinator.url(), scratch.path(), &[]);
    let session = coordinator.arrival().await.accept();
    session.send(Command::Welcome(Version { release: "9.8.7".into(), protocol: PROTOCOL + 70 }));
    let ended = daemon.ended().await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for words in ["farpool 9.8.7", &format!("protocol {}", PROTOCOL + 70), &version().release, "same release"] {
        assert!(ended.output.contains(words), "{words}: {ended:?}");
    }
}

async fn a_refusal_is_logged_once() {
    let scratch = Folder::for_everybody("daemon");
    let mut coordinator = Coordinator::start();
    let mut daemon = Daemon::start(&coordinator.url(), scratch.path(), &[]);
    for _ in 0..3 {
        coordinator.arrival().await.refuse(Status::already_exists("this agent has a session"));
    }
    let _session = coordinator.session().await;
    daemon.wait_for_line("connected").await;
    assert_eq!(daemon.count_lines("this agent has a session"), 1, "the refusal is logged once, not at every attempt");
}

async fn starts_before_the_coordinator() {
    let scratch = Folder::for_everybody("daemon");
    let port = Port::reserve();
    let mut daemon = Daemon::start(&port.url(), scratch.path(), &[]);
    daemon.wait_for_line("Connection refused").await;
    let mut coordinator = Coordinator::start_at(&port);
    let _session = coordinator.session().await;
    daemon.wait_for_line("connected").await;
    assert_eq!(daemon.count_lines("Connection refused"), 1);
}

async fn a_coordinator_that_sends_no_welcome_is_retried() {
    let scratch = Folder::for_everybody("daemon");
    let mut coordinator = Coordinator::start();
    let mut daemon = Daemon::start(&coordinator.url(), scratch.path(), &[]);
    let _silent = coordinator.arrival().await.accept();
    daemon.wait_for_line("did not answer within 10s").await;
    coordinator.session().await;
}

/// An idle agent uses no CPU time.
async fn an_idle_agent_stays_asleep() {
    let scratch = Folder::for_everybody("daemon");
    let mut coordinator = Coordinator::start();
    let mut daemon = Daemon::start(&coordinator.url(), scratch.path(), &["--heartbeat-timeout", "1h"]);
    let _session = coordinator.session().await;
    daemon.wait_for_line("connected").await;
    daemon.wait_until_idle().await;
}

/// Outcomes that a coordinator does not read stay with the workers, which then wait; commands are still handled.
async fn a_coordinator_that_does_not_read() {
    const ITEMS: u64 = 4000;
    let (scratch, notes) = (Folder::for_everybody("daemon"), Folder::for_everybody("daemon"));
    let mut coordinator = Coordinator::start();
    let arguments = ["--heartbeat-timeout", "1h", "--slots", "2"];
    let daemon = Daemon::start(&coordinator.url(), &scratch.path().join("programs"), &arguments);
    let (mut session, _) = coordinator.session().await;
    let program = own_program();
    for pool in [1, 2] {
        session.send(Command::StartPool(Box::new(start(pool, &program, notes.path(), "results-of:65536"))));
    }
    coordinator.fetch().await.send(&program);
    session.started(1).await;
    session.started(2).await;
    session.send(start_job(1, 5));
    session.send(assign(5, 0..ITEMS));
    daemon.wait_until_idle().await;
    assert!(daemon.memory() < 120 << 20, "{} bytes", daemon.memory());
    while starts(notes.path()).len() < 2 {
        tokio::task::yield_now().await;
    }
    session.send(Command::StopPool(StopPool { pool: 2, now: true }));
    // One of the two programs ends.
    while !starts(notes.path()).iter().any(Start::is_over) {
        tokio::task::yield_now().await;
    }
    let (mut results, mut reports, mut stopped) = (0, 0, false);
    while results < ITEMS || !stopped {
        match session.event().await {
            Event::RunDone(done) => {
                results += done.ends.len() as u64 / 4;
                reports += 1;
                session.send(Command::Settled(Settled { pool: 1, report: reports }));
            }
            Event::PoolStopped(_) => stopped = true,
            Event::ItemFault(fault) => panic!("unexpected fault: {fault:?}"),
            _ => {}
        }
    }
}
