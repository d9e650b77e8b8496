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

/// Detaches a job of this many items in the background.
fn detach(server: &Server, reconnect_timeout: Duration, items: u64) -> JoinHandle<Result<(), Error>> {
    let pool = pool(server, reconnect_timeout, 1 << 30);
    thread::spawn(move || pool.job(double).label("x").retries(5).detach("nightly").map(0..items).map(drop))
}

fn indices(items: &[(u64, Vec<u8>)]) -> Vec<u64> {
    items.iter().map(|(index, _)| *index).collect()
}

#[track_caller]
fn refused(server: &Server, peer: Peer, client: JoinHandle<Result<(), Error>>, words: &str) -> Error {
    let error = client.join().unwrap().unwrap_err();
    peer.wait_for_disconnect();
    assert!(error.to_string().contains(words), "{error}");
    assert!(error.to_string().starts_with("detach \"nightly\""), "{error}");
    server.assert_no_requests();
    error
}

#[test]
fn a_job_is_detached_with_all_its_options() {
    let server = start();
    let client = detach(&server, RECONNECT_TIMEOUT, 1000);
    let peer = server.next_session();
    let (open, job) = peer.receive_detach();
    let detach = job.detach.unwrap();
    assert_eq!((&*detach.name, detach.durable, &*detach.result), ("nightly", 0, "u64"));
    assert_eq!((open.processes, open.secret.len(), open.detached, open.again), (7, 32, true, false));
    assert_eq!((&*job.label, job.retries, job.function.is_empty()), ("x", 5, false));
    peer.send_durable(0, false);
    let items = peer.receive_all_items();
    assert_eq!(indices(&items), (0..1000).collect::<Vec<_>>());
    assert_eq!(items[7].1, encoded(7));
    peer.send_durable(1000, false);
    assert!(!client.is_finished());
    peer.send_durable(1000, true);
    client.join().unwrap().unwrap();
    peer.wait_for_disconnect();
    server.assert_no_requests();
}

#[test]
fn pulling_starts_after_acceptance_and_is_bounded() {
    static PULLED: AtomicU64 = AtomicU64::new(0);
    let server = start();
    let pool = pool(&server, RECONNECT_TIMEOUT, 1 << 30);
    let client = thread::spawn(move || {
        let items = (0..400_u64).map(|_| {
            PULLED.fetch_add(1, Ordering::SeqCst);
            // One item fills a message, which is small enough to be sent in one piece.
            vec![0_u8; 400 << 10]
        });
        pool.job(|bytes: Vec<u8>| bytes.len()).detach("nightly").map(items).map(drop)
    });
    let peer = server.next_session();
    peer.receive_detach();
    assert_eq!(PULLED.load(Ordering::SeqCst), 0);
    peer.send_durable(0, false);
    let mut next = 0;
    while next < 400 {
        let items = peer.receive_items();
        assert_eq!(items.first, next);
        next += items.ends.len() as u64 / 4;
        // 16 MiB beyond what was reported as durable, which is no more than `next`, and a batch that is being made.
        let most = next + 41 + 2;
        assert!(PULLED.load(Ordering::SeqCst) <= most, "{} of {next}", PULLED.load(Ordering::SeqCst));
        if next % 10 == 0 {
            peer.send_durable(next, false);
        }
    }
    peer.send_durable(next, false);
    peer.receive_all_items();
    peer.send_durable(next, true);
    client.join().unwrap().unwrap();
}

#[test]
fn sending_resumes_after_the_durable_items() {
    let server = start();
    let client = detach(&server, RECONNECT_TIMEOUT, 1000);
    // Cut before the first message, before the job was accepted, and while it is being sent.
    server.next_session().cut_when_sent();
    let peer = server.next_session();
    let secret = peer.receive_detach().0.secret;
    peer.cut_when_sent();
    let peer = server.next_session();
    let (open, _) = peer.receive_detach();
    assert_eq!((open.secret, open.again), (secret.clone(), true));
    peer.send_durable(0, false);
    peer.receive_items();
    peer.cut_when_sent();
    let peer = server.next_session();
    assert_eq!(peer.receive_detach().0.secret, secret);
    peer.send_durable(0, false);
    assert_eq!(indices(&peer.receive_all_items()), (0..1000).collect::<Vec<_>>());
    // In the middle of a message.
    peer.send_durable(333, false);
    peer.cut_when_sent();
    let peer = server.next_session();
    assert_eq!(peer.receive_detach().1.detach.unwrap().durable, 333);
    let rest = peer.receive_all_items();
    assert_eq!(indices(&rest), (333..1000).collect::<Vec<_>>());
    assert_eq!(rest[3].1, encoded(336));
    // More is durable than was reported.
    peer.send_durable(500, false);
    peer.cut_when_sent();
    let peer = server.next_session();
    assert_eq!(peer.receive_detach().1.detach.unwrap().durable, 500);
    assert_eq!(indices(&peer.receive_all_items()), (500..1000).collect::<Vec<_>>());
    peer.cut_when_sent();
    // The answer was lost.
    let peer = server.next_session();
    peer.receive_detach();
    peer.send_durable(1000, true);
    client.join().unwrap().unwrap();
}

#[test]
fn a_known_session_is_resumed() {
    let server = Server::start();
    let client = detach(&server, RECONNECT_TIMEOUT, 1000);
    let peer = server.next_session();
    peer.receive_detach();
    peer.cut_when_sent();
    server.wait_until_resumed(1);
    peer.send_durable(0, false);
    peer.cut_when_sent();
    server.wait_until_resumed(2);
    assert_eq!(indices(&peer.receive_all_items()), (0..1000).collect::<Vec<_>>());
    peer.send_durable(333, false);
    peer.cut_when_sent();
    server.wait_until_resumed(3);
    peer.send_durable(1000, true);
    client.join().unwrap().unwrap();
    server.assert_no_requests();
}

#[test]
fn the_client_waits_for_a_restarted_coordinator() {
    let server = start();
    let client = detach(&server, RECONNECT_TIMEOUT, 10);
    let peer = server.next_session();
    peer.receive_detach();
    let server = start_at(server.stop());
    let peer = server.next_session();
    peer.receive_detach();
    peer.send_durable(0, false);
    assert_eq!(peer.receive_all_items().len(), 10);
    peer.send_durable(10, true);
    client.join().unwrap().unwrap();
}

#[test]
fn the_client_gives_up_on_a_lost_coordinator() {
    let server = start();
    let client = detach(&server, Duration::from_millis(300), 10);
    let peer = server.next_session();
    peer.receive_detach();
    peer.send_durable(0, false);
    peer.receive_all_items();
    server.stop();
    let error = client.join().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("within 300ms") && error.to_string().contains("`farpool results`"), "{error}");
}

#[test]
fn the_client_gives_up_without_progress() {
    let server = start();
    let client = detach(&server, Duration::from_millis(300), 10);
    while !client.is_finished() {
        if let Some(peer) = server.try_next_session() {
            peer.welcome_job();
            peer.send_durable(0, false);
            peer.cut_when_sent();
        }
    }
    assert_eq!(client.join().unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
}

#[test]
fn errors_about_refusals_say_what_to_do() {
    for (status, kind, words) in [
        (Status::already_exists("another job is called so"), ErrorKind::InvalidArgument, "choose another name"),
        (Status::invalid_argument("a name has no spaces"), ErrorKind::InvalidArgument, "has no spaces"),
        (Status::failed_precondition("start it with --journal DIR"), ErrorKind::Unavailable, "--journal DIR"),
        (Status::resource_exhausted("the journal is full"), ErrorKind::Unavailable, "--journal-size"),
        (Status::resource_exhausted("the memory is full"), ErrorKind::Unavailable, "refused: the memory is full"),
        (Status::unimplemented(""), ErrorKind::Unavailable, "another version"),
        (Status::unauthenticated("who are you"), ErrorKind::Unauthenticated, "who are you"),
    ] {
        // At once, or after the coordinator has received the job.
        let server = start();
        server.refuse_next(status.clone());
        let error = detach(&server, RECONNECT_TIMEOUT, 10).join().unwrap().unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        let client = detach(&server, RECONNECT_TIMEOUT, 10);
        let peer = server.next_session();
        peer.receive_detach();
        peer.refuse(status);
        assert_eq!(client.join().unwrap().unwrap_err().to_string(), error.to_string());
        server.assert_no_requests();
    }
}

#[test]
fn an_item_that_cannot_be_sent_withdraws_the_job() {
    let server = start();
    let pool = pool(&server, RECONNECT_TIMEOUT, 100);
    let client = thread::spawn(move || {
        let items = (0..50).map(|item| "x".repeat(if item == 40 { 200 } else { 10 }));
        pool.job(|text: String| text.len()).detach("nightly").map(items).map(drop)
    });
    let peer = server.next_session();
    peer.receive_detach();
    peer.send_durable(0, false);
    peer.receive_withdrawal();
    let error = client.join().unwrap().unwrap_err();
    assert_eq!((error.kind(), error.item()), (ErrorKind::PayloadTooLarge, Some(40)));
    peer.wait_for_disconnect();
    server.assert_no_requests();
}

#[test]
fn a_panic_in_the_input_withdraws_the_job() {
    let server = start();
    let pool = pool(&server, RECONNECT_TIMEOUT, 100);
    let client = thread::spawn(move || {
        let items = (0..50).map(|item| if item == 40 { panic!("no more") } else { item });
        pool.job(double).detach("nightly").map(items).map(drop)
    });
    let peer = server.next_session();
    peer.receive_detach();
    peer.send_durable(0, false);
    peer.receive_withdrawal();
    assert_eq!(*client.join().unwrap_err().downcast::<&str>().unwrap(), "no more");
    peer.wait_for_disconnect();
}

#[test]
fn a_withdrawal_without_an_answer_times_out() {
    let server = start();
    let pool = pool(&server, RECONNECT_TIMEOUT, 100);
    let client = thread::spawn(move || {
        let items = (0..50).map(|item| if item == 40 { panic!("no more") } else { item });
        pool.job(double).detach("nightly").map(items).map(drop)
    });
    let peer = server.next_session();
    peer.receive_detach();
    peer.send_durable(0, false);
    assert_eq!(*client.join().unwrap_err().downcast::<&str>().unwrap(), "no more");
    peer.wait_for_disconnect();
}

#[test]
fn a_dropped_incomplete_job_is_reported() {
    let server = start();
    let client = detach(&server, RECONNECT_TIMEOUT, 1000);
    let peer = server.next_session();
    peer.receive_detach();
    peer.send_durable(0, false);
    peer.receive_items();
    peer.send_durable(1, false);
    peer.cut_when_sent();
    let peer = server.next_session();
    assert_eq!(peer.receive_detach().1.detach.unwrap().durable, 1);
    peer.refuse(Status::data_loss("the coordinator has dropped the incomplete job"));
    let error = refused(&server, peer, client, "has dropped the incomplete job: the connection was lost for too long");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[test]
fn the_program_is_sent_on_request() {
    let server = start();
    let client = detach(&server, RECONNECT_TIMEOUT, 10);
    let peer = server.next_session();
    let digest = Program::unpacked(&peer.receive_detach().0.program).unwrap().unwrap().digest;
    peer.send_durable(0, false);
    // Requests for another program are ignored.
    peer.send(Event::ProgramWanted(ProgramWanted { digest: vec![7; 32].into() }));
    peer.receive_all_items();
    peer.send(Event::ProgramWanted(ProgramWanted { digest }));
    let own = std::fs::metadata("/proc/self/exe").unwrap().len();
    let sent: Vec<u8> = server.next_program().iter().flat_map(|piece| piece.data.to_vec()).collect();
    assert_eq!(zstd::decode_all(&sent[..]).unwrap().len() as u64, own);
    peer.send_durable(10, true);
    client.join().unwrap().unwrap();
}

#[test]
fn invalid_messages_are_errors() {
    let server = start();
    type SendInvalid = fn(&Peer);
    let cases: [(&str, SendInvalid); 6] = [
        ("that it was never sent", |peer| peer.send_durable(11, false)),
        ("that it was never sent", |peer| peer.send_durable(0, true)),
        ("has dropped the incomplete job", |peer| {
            peer.send_durable(0, false);
            peer.receive_all_items();
            peer.send_durable(7, false);
            peer.send_durable(6, false);
        }),
        ("before the whole of it was durable", |peer| peer.send_ended(false)),
        ("before the whole of it was durable", |peer| peer.send(Event::PoolClosed(PoolClosed {}))),
        ("an invalid frame", |peer| {
            let piece = Some(Piece { total: 5, data: vec![0; 9].into() });
            peer.send_frame(EventFrame { piece, ..EventFrame::default() });
        }),
    ];
    for (words, send_invalid) in cases {
        let client = detach(&server, RECONNECT_TIMEOUT, 10);
        let peer = server.next_session();
        peer.receive_detach();
        send_invalid(&peer);
        assert_eq!(refused(&server, peer, client, words).kind(), ErrorKind::Unavailable);
    }
}

#[test]
fn only_an_open_pool_on_a_cluster_detaches() {
    let (_, local) = FakeSession::mapping(double).pool();
    let error = local.job(double).detach("nightly").map(0..3).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("FARPOOL_ADDRESS"), "{error}");
    let server = start();
    let pool = pool(&server, RECONNECT_TIMEOUT, 100);
    let error = pool.job(double).chunksize(0).detach("nightly").map(0..3).unwrap_err();
    assert!(error.to_string().starts_with("detach \"nightly\": chunksize must be"), "{error}");
    pool.close();
    assert_eq!(pool.job(double).detach("nightly").apply((3,)).unwrap_err().kind(), ErrorKind::Closed);
    server.assert_no_requests();
}
