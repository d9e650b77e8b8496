use std::net::TcpListener;
use std::time::{Duration, Instant};

use farpool_proto::v1::client_event::Body as Event;
use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::{Failure, FailureKind, PoolFailed, Program, Waiting, Welcome};
use farpool_session::labels;
use tonic::Status;

use super::*;
use crate::error::ErrorKind;

fn rejected(address: &Address, kind: ErrorKind, words: &[&str]) {
    let error = open(address, settings(1)).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{word:?} is missing in: {error}");
    }
}

#[test]
fn a_coordinator_receives_everything_about_the_pool() {
    let server = Server::start();
    let address = address_of(&server);
    let client = thread::spawn(move || {
        let require = vec![labels::required("gpu", "a100")];
        let environment = vec![("A".into(), "b".into())];
        open(&address, Settings { require, weight: 3, environment, ..settings(5) })
    });
    let peer = server.next_session();
    let sent = peer.welcome(2);
    assert_eq!((sent.processes, sent.weight), (5, 3));
    assert_eq!(sent.version, Some(farpool_proto::version()));
    assert_eq!(sent.require, [labels::required("gpu", "a100")]);
    let program = Program::unpacked(&sent.program).unwrap().unwrap();
    let own = std::fs::read("/proc/self/exe").unwrap();
    assert_eq!(program.size, own.len() as u64);
    assert_eq!(program.digest, farpool_session::caller_driven::own_digest().unwrap());
    assert_eq!((&*program.environment[0].name, &*program.environment[0].value), (&b"A"[..], &b"b"[..]));
    assert_eq!(program.directory, std::env::current_dir().unwrap().into_os_string().into_encoded_bytes());
    assert!(!program.arguments.is_empty());
    // The requested number counts, however many slots there are.
    assert_eq!(client.join().unwrap().unwrap().processes(), 5);
}

#[test]
fn a_refused_connection_is_reported_with_advice() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::parse(&listener.local_addr().unwrap().to_string()).unwrap();
    drop(listener);
    let words = [&*address.to_string(), "refused", "is farpool-coordinator running there?", "FARPOOL_ADDRESS"];
    rejected(&address, ErrorKind::Unavailable, &words);
    let unknown = Address::parse("no-such-host.invalid:7070").unwrap();
    rejected(&unknown, ErrorKind::Unavailable, &["no-such-host.invalid", "is farpool-coordinator running there?"]);
}

/// It accepts connections and never sends anything.
#[test]
fn a_silent_peer_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::parse(&listener.local_addr().unwrap().to_string()).unwrap();
    let start = Instant::now();
    rejected(&address, ErrorKind::Unavailable, &[&address.to_string(), "is farpool-coordinator running there?"]);
    assert!(start.elapsed() < Duration::from_secs(8), "took {:?}", start.elapsed());
}

#[test]
fn a_refusal_has_the_coordinators_message() {
    let server = Server::start();
    let mismatch = Status::failed_precondition("the coordinator is farpool 9.8.7 and the client is farpool 0.1.0");
    server.refuse(Some(mismatch));
    let words = ["9.8.7", "0.1.0", &address_of(&server).to_string()];
    rejected(&address_of(&server), ErrorKind::Unavailable, &words);
    server.refuse(Some(Status::invalid_argument("a label has no name")));
    rejected(&address_of(&server), ErrorKind::InvalidArgument, &["a label has no name"]);
    server.refuse(Some(Status::unauthenticated("no token")));
    rejected(&address_of(&server), ErrorKind::Unauthenticated, &["no token"]);
}

#[test]
fn a_refusal_after_the_first_message_is_reported() {
    let server = Server::start();
    let address = address_of(&server);
    let client = thread::spawn(move || open(&address, settings(1)).unwrap_err());
    let peer = server.next_session();
    peer.receive();
    peer.refuse(Status::failed_precondition("install the same release on both sides"));
    let error = client.join().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("install the same release"), "{error}");
}

#[test]
fn a_pool_that_fails_at_once_is_not_opened() {
    let server = Server::start();
    let address = address_of(&server);
    let client = thread::spawn(move || open(&address, settings(1)).unwrap_err());
    let peer = server.next_session();
    peer.receive();
    peer.send(Event::Welcome(Welcome { version: Some(farpool_proto::version()), window: 1, ..Welcome::default() }));
    let failure =
        Failure { kind: FailureKind::ProgramRejected.into(), message: "wrong machine".into(), ..Failure::default() };
    peer.send(Event::PoolFailed(Box::new(PoolFailed { failure: Some(failure) })));
    let error = client.join().unwrap();
    assert_eq!((error.kind(), error.message()), (ErrorKind::ProgramRejected, "wrong machine"));
}

#[test]
fn a_pool_is_open_while_it_waits_and_follows_the_slots() {
    let server = Server::start();
    let address = address_of(&server);
    let client = thread::spawn(move || open(&address, settings(0)).unwrap());
    let peer = server.next_session();
    let Body::OpenPool(open) = peer.receive() else { panic!("the first message is not OpenPool") };
    assert_eq!(open.processes, 0);
    peer.send(Event::Welcome(Welcome {
        version: Some(farpool_proto::version()),
        window: 1 << 20,
        ..Welcome::default()
    }));
    peer.send(Event::Waiting(Waiting { reason: "no agent is connected".into() }));
    let pool = client.join().unwrap();
    assert_eq!(pool.processes(), 0);
    let mut result = pool.apply_async(double, (4,));
    let error = result.get_timeout(Duration::from_millis(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WaitTimedOut);
    let message = error.to_string();
    assert!(
        message.contains("no agent is connected") && message.contains(&address_of(&server).to_string()),
        "{message}"
    );
    peer.send(Event::PoolOpened(farpool_proto::v1::PoolOpened { slots: 7 }));
    let (job, _) = peer.receive_job();
    peer.send_done(job, 0, &encoded(&8_u64));
    peer.send_job_ended(job, false);
    assert_eq!(result.get().unwrap(), 8);
    assert_eq!(pool.processes(), 7);
}
