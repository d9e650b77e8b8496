use std::time::{Duration, Instant};

use farpool_proto::v1::client_event::Body as Event;
use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::{Output, ProgramWanted};
use tonic::Status;

use super::*;
use crate::error::ErrorKind;

#[test]
fn a_job_is_sent_and_its_outcomes_are_returned() {
    let (_server, peer, pool) = opened();
    assert_eq!(pool.processes(), 2);
    thread::scope(|scope| {
        let map = scope.spawn(|| pool.map(double, 0..3));
        let (job, items) = peer.receive_job();
        assert_eq!(items, 3);
        for item in [2, 0, 1] {
            peer.send_done(job, item, &encoded(&(2 * item)));
        }
        peer.send_job_ended(job, false);
        assert_eq!(map.join().unwrap().unwrap(), [0, 2, 4]);
    });
    thread::scope(|scope| {
        let end = scope.spawn(|| {
            pool.close();
            assert_eq!(pool.map(double, [1]).unwrap_err().kind(), ErrorKind::Closed);
            pool.join()
        });
        assert!(matches!(peer.receive(), Body::ClosePool(close) if !close.now));
        peer.send_closed();
        end.join().unwrap().unwrap();
    });
    peer.wait_for_disconnect();
}

#[test]
fn the_program_is_sent_on_request_while_jobs_continue() {
    let (server, peer, pool) = opened();
    let own = farpool_session::caller_driven::own_digest().unwrap();
    // Nothing is sent for a program that is not this one.
    peer.send(Event::ProgramWanted(ProgramWanted { digest: vec![1; 32].into() }));
    peer.send(Event::ProgramWanted(ProgramWanted { digest: own.clone() }));
    let result = pool.apply_async(double, (4,));
    let (job, _) = peer.receive_job();
    peer.send_done(job, 0, &encoded(&8_u64));
    peer.send_job_ended(job, false);
    assert_eq!(result.get().unwrap(), 8);
    let pieces = server.next_program();
    assert_eq!(pieces[0].digest, own);
    let sent: Vec<u8> = pieces.iter().flat_map(|piece| piece.data.iter().copied()).collect();
    let own = std::fs::read("/proc/self/exe").unwrap();
    assert_eq!(pieces[0].size, own.len() as u64);
    assert!(sent.len() < own.len() / 2, "{} bytes of {}", sent.len(), own.len());
    assert!(zstd::decode_all(&sent[..]).unwrap() == own);
}

#[test]
fn a_lost_connection_fails_everything_with_the_reason() {
    let (server, peer, pool) = opened();
    let address = address_of(&server);
    let waiting = pool.map_async(double, [1, 2]);
    peer.receive_job();
    thread::scope(|scope| {
        let map = scope.spawn(|| pool.map(double, [3]).unwrap_err());
        peer.receive_job();
        server.stop();
        for error in [map.join().unwrap(), waiting.get().unwrap_err(), pool.apply(double, (1,)).unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            let message = error.to_string();
            let lost = format!("the connection to {address} was lost while 2 jobs were open: ");
            assert!(message.contains(&lost), "{message}");
        }
    });
    pool.close();
    assert_eq!(pool.join().unwrap_err().kind(), ErrorKind::Unavailable);
    let start = Instant::now();
    drop(pool);
    assert!(start.elapsed() < Duration::from_millis(500));
}

#[test]
fn the_end_of_a_session_has_the_coordinators_message() {
    let (_server, peer, pool) = opened();
    peer.refuse(Status::invalid_argument("job 7 does not exist"));
    let error = loop {
        if let Err(error) = pool.apply_async(double, (1,)).get_timeout(Duration::from_millis(20))
            && error.kind() != ErrorKind::WaitTimedOut
        {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("job 7 does not exist"), "{error}");
}

/// It takes every message and answers none.
#[test]
fn a_pool_can_be_dropped_though_the_coordinator_does_not_answer() {
    let (_server, peer, pool) = opened();
    peer.stop_closing_terminated();
    let doomed = pool.apply_async(double, (1,));
    let start = Instant::now();
    drop(pool);
    assert!(start.elapsed() < Duration::from_millis(2500), "took {:?}", start.elapsed());
    // The handle of the result still wants the session.
    drop(doomed);
    peer.wait_for_disconnect();
}

#[test]
fn output_without_a_reader_is_harmless() {
    let (_server, peer, pool) = opened();
    let output = |data: &[u8]| Output { host: "node7".into(), pid: 7, stream: 1, data: data.to_vec().into() };
    peer.send(Event::Output(output(b"a line of a worker's\n")));
    peer.send(Event::Output(output(&vec![b'x'; 2 << 20])));
    let result = pool.apply_async(double, (4,));
    let (job, _) = peer.receive_job();
    peer.send_done(job, 0, &encoded(&8_u64));
    peer.send_job_ended(job, false);
    assert_eq!(result.get().unwrap(), 8);
}
