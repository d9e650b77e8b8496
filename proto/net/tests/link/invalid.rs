//! Impossible messages of a peer are refused, and nothing else happens.

use std::sync::Arc;

use bytes::Bytes;
use farpool_net::{Opening, outgoing};
use farpool_proto::v1::{ClientEvent, ClientFrame, ClientMessage, EventFrame, Piece, Resume, Resumed};
use tonic::{Code, Status};

use crate::pair::{LIMIT, event, open, request};
use crate::wire::{Inbound, next_frame, now, receive};

fn check(status: &Status, words: &str) {
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().contains(words), "{status}");
}

fn acknowledging(received: u64) -> ClientFrame {
    ClientFrame { received, ..ClientFrame::default() }
}

fn requesting() -> ClientFrame {
    ClientFrame { messages: vec![request(0, 10)].into(), ..ClientFrame::default() }
}

fn resuming() -> ClientFrame {
    ClientFrame { resume: Some(Resume { received: 1, ..Resume::default() }), ..ClientFrame::default() }
}

fn piece() -> Option<Piece> {
    Some(Piece { total: 10, data: vec![1; 5].into() })
}

#[test]
fn on_a_connection() {
    let ends = |frames: Vec<ClientFrame>, words: &str| {
        let (queue, mut sent) = outgoing::<ClientEvent>(0, Arc::default());
        (0..3).for_each(|number| queue.push(event(number, 10)));
        assert_eq!(next_frame(&mut sent).map(|frame| frame.messages.len()), Some(3));
        queue.push(event(3, 10));
        let last = frames.len() as u64;
        let inbound = Inbound::<ClientMessage>::of(frames);
        let mut incoming = queue.incoming::<ClientMessage>(inbound, LIMIT);
        let status = loop {
            match now(incoming.next()).expect("the stream ends") {
                Ok(received) => assert!(received.is_some()),
                Err(status) => break status,
            }
        };
        check(&status, words);
        assert!(incoming.peer_broke_protocol());
        assert!(queue.received() < last, "the last frame is not accepted");
        assert!(queue.acknowledged() <= 3);
        // The queue continues.
        assert_eq!(next_frame(&mut sent).map(|frame| frame.messages.len()), Some(1));
    };
    ends(vec![acknowledging(4)], "received 4 messages, but 3 were sent");
    ends(vec![requesting(), acknowledging(u64::MAX)], "messages, but 3 were sent");
    ends(vec![acknowledging(3), acknowledging(2)], "received 2 messages, but said 3 before");
    ends(vec![ClientFrame { received: 4, ..requesting() }], "but 3 were sent");
    ends(vec![resuming()], "not alone in the first frame");
    ends(vec![requesting(), resuming()], "not alone in the first frame");
    ends(vec![ClientFrame { piece: piece(), ..ClientFrame::default() }, requesting()], "between the pieces");
}

/// A large message is not sent before its last piece is.
#[test]
fn about_a_large_message() {
    let (queue, mut sent) = outgoing::<ClientEvent>(0, Arc::default());
    queue.push(event(0, 3_000_000));
    // Pieces without the last one.
    (1..3_000_000_usize.div_ceil(256 << 10)).for_each(|_| drop(next_frame(&mut sent)));
    let inbound = Inbound::<ClientMessage>::default();
    let mut incoming = queue.incoming::<ClientMessage>(Inbound::clone(&inbound), LIMIT);
    inbound.send(acknowledging(1));
    check(&now(incoming.next()).expect("the stream ends").expect_err("the frame is refused"), "but 0 were sent");
    next_frame(&mut sent);
    let mut incoming = queue.incoming::<ClientMessage>(Inbound::<ClientMessage>::of([acknowledging(1)]), LIMIT);
    assert_eq!(receive(&mut incoming), Some(vec![]));
    assert_eq!(queue.bytes(), 0);
}

#[test]
fn at_the_beginning() {
    let refused = |frames: Vec<ClientFrame>, words: &str| {
        check(&open(Inbound::of(frames)).expect_err("the stream is refused"), words);
    };
    refused(vec![ClientFrame { resume: resuming().resume, ..requesting() }], "a Resume is not alone");
    refused(vec![ClientFrame { piece: piece(), ..resuming() }], "a Resume is not alone");
    refused(vec![ClientFrame { received: 1, ..resuming() }], "a Resume is not alone");
    refused(vec![ClientFrame::default(), resuming()], "a Resume is not alone");
    refused(vec![ClientFrame { received: 1, ..requesting() }], "received 1 messages, but the session starts here");
    let twice = open(Inbound::of([resuming(), resuming()])).expect("the stream begins without an error");
    let Opening::Resume { rest, .. } = twice else { panic!("the session is resumed") };
    let (queue, _frames) = outgoing::<ClientEvent>(0, Arc::default());
    let mut incoming = rest.incoming(&queue);
    check(
        &now(incoming.next()).expect("the stream ends").expect_err("the frame is refused"),
        "not alone in the first frame",
    );
}

#[test]
fn nothing_at_the_beginning() {
    let refused = |inbound: Inbound<ClientMessage>, code: Code| {
        assert_eq!(open(inbound).map(drop).expect_err("the stream is refused").code(), code);
    };
    refused(Inbound::of([]), Code::DeadlineExceeded);
    refused(Inbound::of([ClientFrame::default(), ClientFrame::default()]), Code::DeadlineExceeded);
    let ended = Inbound::of([]);
    ended.end(Ok(()));
    refused(ended, Code::InvalidArgument);
    let broken = Inbound::of([]);
    broken.end(Err(Status::unavailable("the connection is cut")));
    refused(broken, Code::Unavailable);
}

#[test]
fn in_a_resume() {
    let (queue, mut frames) = outgoing::<ClientEvent>(0, Arc::default());
    (0..3).for_each(|number| queue.push(event(number, 10)));
    next_frame(&mut frames);
    let mut incoming = queue.incoming::<ClientMessage>(Inbound::<ClientMessage>::of([acknowledging(2)]), LIMIT);
    assert_eq!(receive(&mut incoming), Some(vec![]));
    check(&queue.reconnect(4).expect_err("the count is refused"), "received 4 messages, but 3 were sent");
    check(&queue.reconnect(1).expect_err("the count is refused"), "received 1 messages, but said 2 before");
    // The current connection continues.
    queue.push(event(3, 10));
    assert_eq!(next_frame(&mut frames).map(|frame| frame.messages.len()), Some(1));
    assert_eq!(receive(&mut incoming), None);
    let mut frames = queue.reconnect(2).expect("the count is possible");
    assert_eq!(
        next_frame(&mut frames),
        Some(EventFrame { resumed: Some(Resumed::default()), ..EventFrame::default() })
    );
    assert!(next_frame(&mut frames).is_some_and(|frame| *frame.messages == [event(2, 10)]));
}

#[test]
fn in_the_answer() {
    let answered = |answers: Vec<EventFrame>, end: Option<Result<(), Status>>| {
        let (queue, mut frames) = outgoing::<ClientMessage>(0, Arc::default());
        queue.push(request(0, 10));
        next_frame(&mut frames);
        let mut frames = queue.resume(Bytes::new());
        assert!(next_frame(&mut frames).is_some_and(|frame| frame.resume.is_some()));
        let inbound = Inbound::<ClientEvent>::of(answers);
        end.into_iter().for_each(|end| inbound.end(end));
        let status = now(queue.resumed::<ClientEvent>(inbound, LIMIT))
            .expect("there is an answer")
            .expect_err("the answer is refused");
        assert!(next_frame(&mut frames).is_none(), "the stream waits for a better answer");
        status
    };
    let resumed = |received| EventFrame { resumed: Some(Resumed { received }), ..EventFrame::default() };
    let refused = |answer, words: &str| check(&answered(vec![answer], None), words);
    refused(resumed(2), "received 2 messages, but 1 were sent");
    refused(EventFrame { received: 1, ..resumed(1) }, "a Resumed is not alone");
    refused(EventFrame { piece: piece(), ..resumed(1) }, "a Resumed is not alone");
    refused(EventFrame { messages: vec![event(0, 1)].into(), ..resumed(1) }, "a Resumed is not alone");
    refused(EventFrame { messages: vec![event(0, 1)].into(), ..EventFrame::default() }, "does not answer the Resume");
    refused(EventFrame::default(), "does not answer the Resume");
    assert_eq!(answered(vec![], Some(Ok(()))).code(), Code::Unavailable);
    assert_eq!(answered(vec![], Some(Err(Status::not_found("unknown")))).code(), Code::NotFound);
}

/// The answer of a connection that another one has replaced.
#[test]
fn late_answers() {
    let (queue, _) = outgoing::<ClientMessage>(0, Arc::default());
    let answer =
        || Inbound::<ClientEvent>::of([EventFrame { resumed: Some(Resumed::default()), ..EventFrame::default() }]);
    let status =
        now(queue.resumed::<ClientEvent>(answer(), LIMIT)).expect("there is an answer").expect_err("nobody asked");
    assert_eq!(status.code(), Code::Aborted);
    let _frames = queue.resume(Bytes::new());
    let inbound = Inbound::<ClientEvent>::default();
    let mut waits = Box::pin(queue.resumed::<ClientEvent>(Inbound::clone(&inbound), LIMIT));
    assert!(now(waits.as_mut()).is_none());
    let _newer = queue.resume(Bytes::new());
    inbound.send(EventFrame { resumed: Some(Resumed::default()), ..EventFrame::default() });
    assert_eq!(now(waits).expect("there is an answer").expect_err("the answer is too late").code(), Code::Aborted);
    assert!(now(queue.resumed::<ClientEvent>(answer(), LIMIT)).expect("there is an answer").is_ok());
}
