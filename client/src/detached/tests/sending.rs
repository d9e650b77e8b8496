use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use farpool_proto::v1::client_event::Body as Event;
use farpool_proto::v1::{EventFrame, Piece, PoolClosed, ProgramWanted};
use tonic::Status;

use super::*;
use crate::error::{Error, ErrorKind};

fn double(n: u64) -> u64 {
    2 * n
}

/// Detaches a job of so many items in the background.
fn detach(server: &Server, patience: Duration, items: u64) -> JoinHandle<Result<(), Error>> {
    let pool = pool(server, patience, 1 << 30);
    thread::spawn(move || pool.job(double).label("x").retries(5).detach("nightly").map(0..items).map(drop))
}

fn indices(items: &[(u64, Vec<u8>)]) -> Vec<u64> {
    items.iter().map(|(index, _)| *index).collect()
}

#[track_caller]
fn refused(server: &Server, call: Call, client: JoinHandle<Result<(), Error>>, words: &str) -> Error {
    let error = client.join().unwrap().unwrap_err();
    call.hear_the_end();
    assert!(error.to_string().contains(words), "{error}");
    assert!(error.to_string().starts_with("detach \"nightly\""), "{error}");
    server.assert_silent();
    error
}

#[test]
fn a_job_is_detached_with_all_that_it_is() {
    let server = Server::start();
    let client = detach(&server, PATIENCE, 1000);
    let call = server.call();
    let (open, job) = call.hear_detach();
    let detach = job.detach.unwrap();
    assert_eq!((&*detach.name, detach.durable, &*detach.result), ("nightly", 0, "u64"));
    assert_eq!((open.processes, open.secret.len(), open.detached, open.again), (7, 32, true, false));
    assert_eq!((&*job.label, job.retries, job.function.is_empty()), ("x", 5, false));
    call.say_durable(0, false);
    let items = call.hear_all();
    assert_eq!(indices(&items), (0..1000).collect::<Vec<_>>());
    assert_eq!(items[7].1, encoded(7));
    call.say_durable(1000, false);
    assert!(!client.is_finished());
    call.say_durable(1000, true);
    client.join().unwrap().unwrap();
    call.hear_the_end();
    server.assert_silent();
}

#[test]
fn nothing_is_pulled_before_the_coordinator_has_taken_the_job_and_no_more_than_is_bounded() {
    static PULLED: AtomicU64 = AtomicU64::new(0);
    let server = Server::start();
    let pool = pool(&server, PATIENCE, 1 << 30);
    let client = thread::spawn(move || {
        let items = (0..400_u64).map(|_| {
            PULLED.fetch_add(1, Ordering::SeqCst);
            // One item fills a message, which is small enough to be sent in one piece.
            vec![0_u8; 400 << 10]
        });
        pool.job(|bytes: Vec<u8>| bytes.len()).detach("nightly").map(items).map(drop)
    });
    let call = server.call();
    call.hear_detach();
    assert_eq!(PULLED.load(Ordering::SeqCst), 0);
    call.say_durable(0, false);
    let mut next = 0;
    while next < 400 {
        let items = call.hear_items();
        assert_eq!(items.first, next);
        next += items.ends.len() as u64 / 4;
        // 16 MiB beyond what was reported as durable, which is no more than `next`, and a batch that is being made.
        let most = next + 41 + 2;
        assert!(PULLED.load(Ordering::SeqCst) <= most, "{} of {next}", PULLED.load(Ordering::SeqCst));
        if next % 10 == 0 {
            call.say_durable(next, false);
        }
    }
    call.say_durable(next, false);
    call.hear_all();
    call.say_durable(next, true);
    client.join().unwrap().unwrap();
}

#[test]
fn it_goes_on_over_other_connections_from_what_is_durable() {
    let server = Server::start();
    let client = detach(&server, PATIENCE, 1000);
    // Before anything was said, before it was taken, and in the middle.
    server.call().cut();
    let call = server.call();
    let secret = call.hear_detach().0.secret;
    call.cut();
    let call = server.call();
    let (open, _) = call.hear_detach();
    assert_eq!((open.secret, open.again), (secret.clone(), true));
    call.say_durable(0, false);
    call.hear_items();
    call.cut();
    let call = server.call();
    assert_eq!(call.hear_detach().0.secret, secret);
    call.say_durable(0, false);
    assert_eq!(indices(&call.hear_all()), (0..1000).collect::<Vec<_>>());
    // In the middle of a message.
    call.say_durable(333, false);
    call.cut();
    let call = server.call();
    assert_eq!(call.hear_detach().1.detach.unwrap().durable, 333);
    let rest = call.hear_all();
    assert_eq!(indices(&rest), (333..1000).collect::<Vec<_>>());
    assert_eq!(rest[3].1, encoded(336));
    // More than was said.
    call.say_durable(500, false);
    call.cut();
    let call = server.call();
    assert_eq!(call.hear_detach().1.detach.unwrap().durable, 500);
    assert_eq!(indices(&call.hear_all()), (500..1000).collect::<Vec<_>>());
    call.cut();
    // The answer was lost.
    let call = server.call();
    call.hear_detach();
    call.say_durable(1000, true);
    client.join().unwrap().unwrap();
}

#[test]
fn a_session_that_is_known_goes_on_where_it_was() {
    let server = Server::start();
    server.remember();
    let client = detach(&server, PATIENCE, 1000);
    let call = server.call();
    call.hear_detach();
    call.cut();
    server.wait_until_resumed(1);
    call.say_durable(0, false);
    call.cut();
    server.wait_until_resumed(2);
    assert_eq!(indices(&call.hear_all()), (0..1000).collect::<Vec<_>>());
    call.say_durable(333, false);
    call.cut();
    server.wait_until_resumed(3);
    call.say_durable(1000, true);
    client.join().unwrap().unwrap();
    server.assert_silent();
}

#[test]
fn a_coordinator_that_is_restarted_is_waited_for() {
    let server = Server::start();
    let client = detach(&server, PATIENCE, 10);
    let call = server.call();
    call.hear_detach();
    let at = server.stop();
    let server = Server::start_at(&at);
    let call = server.call();
    call.hear_detach();
    call.say_durable(0, false);
    assert_eq!(call.hear_all().len(), 10);
    call.say_durable(10, true);
    client.join().unwrap().unwrap();
}

#[test]
fn a_coordinator_that_does_not_come_back_is_given_up() {
    let server = Server::start();
    let client = detach(&server, Duration::from_millis(300), 10);
    let call = server.call();
    call.hear_detach();
    call.say_durable(0, false);
    call.hear_all();
    server.stop();
    let error = client.join().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("within 300ms") && error.to_string().contains("`farpool results`"), "{error}");
}

#[test]
fn one_that_answers_and_never_goes_on_is_given_up_too() {
    let server = Server::start();
    let client = detach(&server, Duration::from_millis(300), 10);
    while !client.is_finished() {
        if let Some(call) = server.try_call() {
            call.welcome();
            call.say_durable(0, false);
            call.cut();
        }
    }
    assert_eq!(client.join().unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
}

#[test]
fn what_the_coordinator_refuses_is_told_with_what_to_do() {
    for (status, kind, words) in [
        (Status::already_exists("another job is called so"), ErrorKind::InvalidArgument, "choose another name"),
        (Status::invalid_argument("a name has no spaces"), ErrorKind::InvalidArgument, "has no spaces"),
        (Status::failed_precondition("start it with --journal DIR"), ErrorKind::Unavailable, "--journal DIR"),
        (Status::resource_exhausted("the journal is full"), ErrorKind::Unavailable, "--journal-size"),
        (Status::resource_exhausted("the memory is full"), ErrorKind::Unavailable, "refused: the memory is full"),
        (Status::unimplemented(""), ErrorKind::Unavailable, "another version"),
        (Status::unauthenticated("who are you"), ErrorKind::Unauthenticated, "who are you"),
    ] {
        // At once, or when it has read what the job is.
        let server = Server::start();
        server.refuse(status.clone());
        let error = detach(&server, PATIENCE, 10).join().unwrap().unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        let client = detach(&server, PATIENCE, 10);
        let call = server.call();
        call.hear_detach();
        call.fail(status);
        assert_eq!(client.join().unwrap().unwrap_err().to_string(), error.to_string());
        server.assert_silent();
    }
}

#[test]
fn items_that_cannot_be_sent_leave_nothing_behind() {
    let server = Server::start();
    let pool = pool(&server, PATIENCE, 100);
    let client = thread::spawn(move || {
        let items = (0..50).map(|item| "x".repeat(if item == 40 { 200 } else { 10 }));
        pool.job(|text: String| text.len()).detach("nightly").map(items).map(drop)
    });
    let call = server.call();
    call.hear_detach();
    call.say_durable(0, false);
    call.hear_withdrawal();
    let error = client.join().unwrap().unwrap_err();
    assert_eq!((error.kind(), error.item()), (ErrorKind::PayloadTooLarge, Some(40)));
    call.hear_the_end();
    server.assert_silent();
}

#[test]
fn an_input_that_panics_leaves_nothing_behind() {
    let server = Server::start();
    let pool = pool(&server, PATIENCE, 100);
    let client = thread::spawn(move || {
        let items = (0..50).map(|item| if item == 40 { panic!("no more") } else { item });
        pool.job(double).detach("nightly").map(items).map(drop)
    });
    let call = server.call();
    call.hear_detach();
    call.say_durable(0, false);
    call.hear_withdrawal();
    assert_eq!(*client.join().unwrap_err().downcast::<&str>().unwrap(), "no more");
    call.hear_the_end();
}

#[test]
fn a_coordinator_that_does_not_answer_a_withdrawal_is_left() {
    let server = Server::start();
    let pool = pool(&server, PATIENCE, 100);
    let client = thread::spawn(move || {
        let items = (0..50).map(|item| if item == 40 { panic!("no more") } else { item });
        pool.job(double).detach("nightly").map(items).map(drop)
    });
    let call = server.call();
    call.hear_detach();
    call.say_durable(0, false);
    assert_eq!(*client.join().unwrap_err().downcast::<&str>().unwrap(), "no more");
    call.hear_the_end();
}

#[test]
fn what_the_coordinator_has_dropped_is_told() {
    let server = Server::start();
    let client = detach(&server, PATIENCE, 1000);
    let call = server.call();
    call.hear_detach();
    call.say_durable(0, false);
    call.hear_items();
    call.say_durable(1, false);
    call.cut();
    let call = server.call();
    assert_eq!(call.hear_detach().1.detach.unwrap().durable, 1);
    call.fail(Status::data_loss("the coordinator has dropped the incomplete job"));
    let error = refused(&server, call, client, "has dropped the incomplete job: the connection was lost for too long");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[test]
fn the_program_is_sent_when_it_is_wanted() {
    let server = Server::start();
    let client = detach(&server, PATIENCE, 10);
    let call = server.call();
    let digest = Program::unpacked(&call.hear_detach().0.program).unwrap().unwrap().digest;
    call.say_durable(0, false);
    // Somebody else's is nothing to this client.
    call.say(Event::ProgramWanted(ProgramWanted { digest: vec![7; 32].into() }));
    call.hear_all();
    call.say(Event::ProgramWanted(ProgramWanted { digest }));
    let own = std::fs::metadata("/proc/self/exe").unwrap().len();
    assert_eq!(server.asked(), format!("program of {own} bytes"));
    call.say_durable(10, true);
    client.join().unwrap().unwrap();
}

#[test]
fn lies_are_errors() {
    let server = Server::start();
    type Lie = fn(&Call);
    let lies: [(&str, Lie); 6] = [
        ("that it was never sent", |call| call.say_durable(11, false)),
        ("that it was never sent", |call| call.say_durable(0, true)),
        ("has dropped the incomplete job", |call| {
            call.say_durable(0, false);
            call.hear_all();
            call.say_durable(7, false);
            call.say_durable(6, false);
        }),
        ("before the whole of it was durable", |call| call.say_ended(false)),
        ("before the whole of it was durable", |call| call.say(Event::PoolClosed(PoolClosed {}))),
        ("an invalid frame", |call| {
            let piece = Some(Piece { total: 5, data: vec![0; 9].into() });
            call.say_frame(EventFrame { piece, ..EventFrame::default() });
        }),
    ];
    for (words, lie) in lies {
        let client = detach(&server, PATIENCE, 10);
        let call = server.call();
        call.hear_detach();
        lie(&call);
        assert_eq!(refused(&server, call, client, words).kind(), ErrorKind::Unavailable);
    }
}

#[test]
fn a_pool_without_a_cluster_or_one_that_is_closed_detaches_nothing() {
    let (_, local) = FakeSession::mapping(double).pool();
    let error = local.job(double).detach("nightly").map(0..3).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("FARPOOL_ADDRESS"), "{error}");
    let server = Server::start();
    let pool = pool(&server, PATIENCE, 100);
    let error = pool.job(double).chunksize(0).detach("nightly").map(0..3).unwrap_err();
    assert!(error.to_string().starts_with("detach \"nightly\": chunksize must be"), "{error}");
    pool.close();
    assert_eq!(pool.job(double).detach("nightly").apply((3,)).unwrap_err().kind(), ErrorKind::Closed);
    server.assert_silent();
}
