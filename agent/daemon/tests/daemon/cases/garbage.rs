//! Coordinators that violate the protocol: each time the daemon logs that, and tries to begin another session.

use std::io::{Read, Write};
use std::net::TcpListener;

use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::{AgentCommand, CommandFrame, Piece, StartPool};
use farpool_proto::version;
use farpool_testkit::folder::Folder;
use farpool_testkit::port::Port;
use tonic::Status;

use crate::coordinator::{Coordinator, send_frames};
use crate::daemon::Daemon;
use crate::pool::{WaitForEvents, assign, start, start_job};

super::cases! { invalid_frames, invalid_commands, a_server_that_is_not_a_coordinator, a_program_that_never_ends }

async fn invalid_frames() {
    let welcome = || frame([Command::Welcome(version())]);
    let piece = |total, bytes: usize| CommandFrame {
        piece: Some(Piece { total, data: vec![0xff; bytes].into() }),
        ..CommandFrame::default()
    };
    let scratch = Folder::for_everybody("daemon");
    let mut coordinator = Coordinator::start();
    let mut daemon = Daemon::start(&coordinator.url(), scratch.path(), &[]);
    for (frames, words) in [
        (vec![frame([start_job(1, 1)])], "not Welcome"),
        (vec![piece(u64::MAX, 10)], "broke the protocol"),
        (vec![welcome(), piece(10, 11)], "11 bytes of a message of which 10 are missing"),
        (vec![welcome(), piece(10, 10)], "cannot be decoded"),
        (vec![welcome(), piece(10, 5), frame([start_job(1, 1)])], "between the pieces"),
        (vec![welcome(), welcome()], "sent Welcome twice"),
        (vec![frame([Command::Welcome(version()), Command::Welcome(version())])], "sent Welcome twice"),
    ] {
        let _events = send_frames(coordinator.arrival().await, frames);
        daemon.wait_for_line(words).await;
    }
    coordinator.session().await;
}

async fn invalid_commands() {
    let scratch = Folder::for_everybody("daemon");
    let mut coordinator = Coordinator::start();
    let mut daemon = Daemon::start(&coordinator.url(), scratch.path(), &[]);
    let twice = || Command::StartPool(Box::new(start(1, b"a program", scratch.path(), "none")));
    for (commands, words) in [
        (vec![start_job(77, 1)], "pool 77"),
        (vec![assign(88, 0..1)], "job 88"),
        (vec![twice(), twice()], "pool 1 was started twice"),
    ] {
        let (mut session, _) = coordinator.session().await;
        commands.into_iter().for_each(|command| session.send(command));
        daemon.wait_for_line(words).await;
        session.is_over().await;
    }
    // An empty command is one of a later release: it is ignored.
    let events = send_frames(
        coordinator.arrival().await,
        [
            frame([Command::Welcome(version())]),
            CommandFrame { messages: vec![AgentCommand { body: None }].into(), ..CommandFrame::default() },
            frame([Command::StartPool(Box::new(StartPool { pool: 3, ..StartPool::default() }))]),
        ],
    );
    daemon.wait_for_line("connected").await;
    drop(events);
}

async fn a_server_that_is_not_a_coordinator() {
    let scratch = Folder::for_everybody("daemon");
    let port = Port::reserve();
    let listener = TcpListener::bind(port.address()).expect("the port is taken");
    let mut daemon = Daemon::start(&port.url(), scratch.path(), &[]);
    // The beginning of an HTTP/2 frame that is longer than what follows, and of another protocol.
    for answer in [&b"\x00\x10\x00\x00\x00\x00\x00\x00\x01ab"[..], b"HTTP/1.1 200 OK\r\n\r\n", b""] {
        let (mut connection, _) = listener.accept().expect("no peer connected");
        connection.read_exact(&mut [0; 14]).expect("no HTTP/2 preface arrived");
        connection.write_all(answer).expect("the agent does not read the answer");
    }
    daemon.wait_for_line("no session").await;
    drop(listener);
    let mut coordinator = Coordinator::start_at(&port);
    coordinator.session().await;
    daemon.wait_for_line("connected").await;
}

async fn a_program_that_never_ends() {
    let scratch = Folder::for_everybody("daemon");
    let mut coordinator = Coordinator::start();
    let mut daemon = Daemon::start(&coordinator.url(), &scratch.path().join("programs"), &[]);
    let (mut session, _) = coordinator.session().await;
    session.send(Command::StartPool(Box::new(start(1, b"a program", scratch.path(), "none"))));
    let mut fetch = coordinator.fetch().await;
    // The session ends during the fetch: the agent does not wait for the program.
    session.fail(Status::unavailable("going down"));
    daemon.wait_for_line("going down").await;
    session.is_over().await;
    let (mut session, hello) = coordinator.session_after_failed_resume().await;
    assert_eq!(hello.held, []);
    fetch.wait_until_cancelled().await;
    session.send(Command::StartPool(Box::new(start(1, b"a program", scratch.path(), "none"))));
    coordinator.fetch().await.refuse(Status::not_found("nobody has it"));
    session.stopped(1).await;
    assert_eq!(scratch.names_in("programs"), [""; 0]);
}

fn frame(commands: impl IntoIterator<Item = Command>) -> CommandFrame {
    let messages: Vec<_> = commands.into_iter().map(|body| AgentCommand { body: Some(body) }).collect();
    CommandFrame { messages: messages.into(), ..CommandFrame::default() }
}
