use std::net::TcpListener;
use std::time::{Duration, Instant};

use farpool_proto::v1::client_event::Body as Event;
use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::{Failure, FailureKind, PoolFailed, Program, Waiting, Welcome};
use farpool_session::labels;
use tonic::Status;

use super::*;
use crate::error::ErrorKind;

fn refused(address: &Address, kind: ErrorKind, words: &[&str]) {
    let error = open(address, settings(1)).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{word:?} is missing in: {error}");
    }
}

#[test]
fn a_coordinator_is_told_everything_about_the_pool() {
    let server = Server::start();
    let address = server.address.clone();
    let client = thread::spawn(move || {
        let require = vec![labels::required("gpu", "a100")];
        let environment = vec![("A".into(), "b".into())];
        open(&address, Settings { require, weight: 3, environment, ..settings(5) })
    });
    let peer = server.session();
    let told = peer.welcome(2);
    assert_eq!((told.processes, told.weight), (5, 3));
    assert_eq!(told.version, Some(farpool_proto::version()));
    assert_eq!(told.require, [labels::required("gpu", "a100")]);
    let program = Program::unpacked(&told.program).unwrap().unwrap();
    let own = std::fs::read("/proc/self/exe").unwrap();
    assert_eq!(program.size, own.len() as u64);
    assert_eq!(program.digest, farpool_session::by_hand::own_digest().unwrap());
    assert_eq!((&*program.environment[0].name, &*program.environment[0].value), (&b"A"[..], &b"b"[..]));
    assert_eq!(program.directory, std::env::current_dir().unwrap().into_os_string().into_encoded_bytes());
    assert!(!program.arguments.is_empty());
    // What was asked for counts, whatever there is.
    assert_eq!(client.join().unwrap().unwrap().processes(), 5);
}

#[test]
fn nobody_at_the_address_is_told_with_what_to_do() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::parse(&listener.local_addr().unwrap().to_string()).unwrap();
    drop(listener);
    let words = [&*address.to_string(), "refused", "is farpool-coordinator running there?", "FARPOOL_ADDRESS"];
    refused(&address, ErrorKind::Unavailable, &words);
    let unknown = Address::parse("no-such-host.invalid:7070").unwrap();
    refused(&unknown, ErrorKind::Unavailable, &["no-such-host.invalid", "is farpool-coordinator running there?"]);
}

/// It takes connections and never says a word.
#[test]
fn a_silent_peer_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::parse(&listener.local_addr().unwrap().to_string()).unwrap();
    let start = Instant::now();
    refused(&address, ErrorKind::Unavailable, &[&address.to_string(), "is farpool-coordinator running there?"]);
    assert!(start.elapsed() < Duration::from_secs(8), "it took {:?}", start.elapsed());
}

#[test]
fn a_refusal_is_told_in_the_coordinators_words() {
    let mismatch = Status::failed_precondition("the coordinator is farpool 9.8.7 and the client is farpool 0.1.0");
    let server = Server::refusing(Some(mismatch));
    refused(&server.address, ErrorKind::Unavailable, &["9.8.7", "0.1.0", &server.address.to_string()]);
    let server = Server::refusing(Some(Status::invalid_argument("a label has no name")));
    refused(&server.address, ErrorKind::InvalidArgument, &["a label has no name"]);
    let server = Server::refusing(Some(Status::unauthenticated("no token")));
    refused(&server.address, ErrorKind::Unauthenticated, &["no token"]);
}

#[test]
fn a_refusal_after_the_first_message_is_told_too() {
    let server = Server::start();
    let address = server.address.clone();
    let client = thread::spawn(move || open(&address, settings(1)).unwrap_err());
    let peer = server.session();
    peer.hear();
    peer.refuse(Status::failed_precondition("install the same release on both sides"));
    let error = client.join().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("install the same release"), "{error}");
}

#[test]
fn a_pool_that_fails_at_once_is_not_opened() {
    let server = Server::start();
    let address = server.address.clone();
    let client = thread::spawn(move || open(&address, settings(1)).unwrap_err());
    let peer = server.session();
    peer.hear();
    peer.say(Event::Welcome(Welcome { version: Some(farpool_proto::version()), window: 1, ..Welcome::default() }));
    let failure =
        Failure { kind: FailureKind::ProgramRejected.into(), message: "wrong machine".into(), ..Failure::default() };
    peer.say(Event::PoolFailed(Box::new(PoolFailed { failure: Some(failure) })));
    let error = client.join().unwrap();
    assert_eq!((error.kind(), error.message()), (ErrorKind::ProgramRejected, "wrong machine"));
}

#[test]
fn a_pool_is_open_while_it_waits_and_follows_the_slots() {
    let server = Server::start();
    let address = server.address.clone();
    let client = thread::spawn(move || open(&address, settings(0)).unwrap());
    let peer = server.session();
    let Body::OpenPool(open) = peer.hear() else { panic!("the pool comes first") };
    assert_eq!(open.processes, 0);
    peer.say(Event::Welcome(Welcome {
        version: Some(farpool_proto::version()),
        window: 1 << 20,
        ..Welcome::default()
    }));
    peer.say(Event::Waiting(Waiting { reason: "no agent is connected".into() }));
    let pool = client.join().unwrap();
    assert_eq!(pool.processes(), 0);
    let mut result = pool.apply_async(double, (4,));
    let error = result.get_timeout(Duration::from_millis(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WaitTimedOut);
    let story = error.to_string();
    assert!(story.contains("no agent is connected") && story.contains(&server.address.to_string()), "{story}");
    peer.say(Event::PoolOpened(farpool_proto::v1::PoolOpened { slots: 7 }));
    let (job, _) = peer.hear_job();
    peer.say_done(job, 0, &encoded(&8_u64));
    peer.say_ended(job, false);
    assert_eq!(result.get().unwrap(), 8);
    assert_eq!(pool.processes(), 7);
}
