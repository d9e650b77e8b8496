//! How connections and sessions end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use farpool_net::{Frames, Replies, SessionMessage, outgoing};
use farpool_proto::v1::{ClientEvent, ClientMessage};
use futures_core::Stream;
use tonic::{Code, Status};

use crate::pair::{LIMIT, event, request};
use crate::wire::{Inbound, context, next_frame, now};

fn client() -> (farpool_net::Outgoing<ClientMessage>, Frames<ClientMessage>) {
    outgoing(0, Arc::default())
}

fn has_ended<M: SessionMessage>(frames: &mut Frames<M>) -> bool {
    matches!(Pin::new(frames).poll_next(&mut context()), Poll::Ready(None))
}

fn next_reply(replies: &mut Replies<ClientEvent>) -> Option<Result<usize, Code>> {
    match Pin::new(replies).poll_next(&mut context()) {
        Poll::Ready(Some(reply)) => Some(reply.map(|frame| frame.messages.len()).map_err(|status| status.code())),
        Poll::Ready(None) => panic!("the replies have ended"),
        Poll::Pending => None,
    }
}

#[test]
fn the_end_follows_pushed_messages_on_each_connection() {
    let (queue, frames) = outgoing::<ClientEvent>(0, Arc::default());
    let mut replies = Replies::from(frames);
    queue.push(event(0, 10));
    queue.fail(Status::cancelled("enough"));
    queue.push(event(1, 10));
    assert_eq!(queue.pushed(), 1);
    assert_eq!(next_reply(&mut replies), Some(Ok(1)));
    assert_eq!(next_reply(&mut replies), Some(Err(Code::Cancelled)));
    let mut replies = Replies::from(queue.reconnect(0).expect("the peer has received nothing"));
    assert_eq!(next_reply(&mut replies), Some(Ok(0)), "the answer");
    assert_eq!(next_reply(&mut replies), Some(Ok(1)));
    assert_eq!(next_reply(&mut replies), Some(Err(Code::Cancelled)));
}

#[test]
fn a_connection_ends_when_another_one_takes_its_place() {
    let (queue, mut old) = client();
    let mut received = queue.incoming::<ClientEvent>(Inbound::<ClientEvent>::default(), LIMIT);
    queue.push(request(0, 10));
    let new = queue.resume(Bytes::new());
    assert!(has_ended(&mut old));
    drop(old);
    assert!(!queue.is_gone(), "only the old connection is gone");
    let inbound = Inbound::<ClientEvent>::of([SessionMessage::frame(farpool_net::Parts {
        messages: vec![event(0, 10)].into(),
        ..Default::default()
    })]);
    drop(std::mem::replace(&mut received, queue.incoming(inbound, LIMIT)));
    let newer = queue.resume(Bytes::new());
    let status = now(received.next()).expect("there is a frame").expect_err("the session was resumed elsewhere");
    assert_eq!((status.code(), received.peer_broke_protocol(), queue.received()), (Code::Aborted, false, 0));
    drop(newer);
    assert!(queue.is_gone());
    drop(new);
    let mut last = queue.resume(Bytes::new());
    assert!(!queue.is_gone());
    assert!(next_frame(&mut last).is_some_and(|frame| frame.resume.is_some()));
}

/// On a server that is an error: a peer that still reads the old connection has lost the session.
#[test]
fn replies_report_that_another_connection_took_over() {
    let (queue, frames) = outgoing::<ClientEvent>(0, Arc::default());
    let mut old = Replies::from(frames);
    assert_eq!(next_reply(&mut old), None);
    let _new = queue.reconnect(0).expect("the peer has received nothing");
    assert_eq!(next_reply(&mut old), Some(Err(Code::Aborted)));
}

#[test]
fn a_large_message_stops_when_another_connection_takes_over() {
    let (queue, mut old) = client();
    queue.push(request(0, 5_000_000));
    assert!(next_frame(&mut old).is_some_and(|frame| frame.piece.is_some()));
    let _new = queue.resume(Bytes::new());
    assert!(has_ended(&mut old));
}

/// The answer can no longer be read.
#[test]
fn a_connection_that_waits_for_its_answer_ends_with_the_session() {
    let (queue, _) = client();
    let mut frames = queue.resume(Bytes::new());
    assert!(next_frame(&mut frames).is_some_and(|frame| frame.resume.is_some()));
    queue.push(request(0, 10));
    assert!(next_frame(&mut frames).is_none());
    drop(queue);
    assert!(has_ended(&mut frames));
}

#[test]
fn messages_pushed_without_a_connection_wait_for_one() {
    let (queue, frames) = outgoing::<ClientEvent>(0, Arc::default());
    drop(frames);
    assert!(queue.is_gone());
    queue.push(event(0, 10));
    let mut frames = queue.reconnect(0).expect("the peer has received nothing");
    assert!(next_frame(&mut frames).is_some_and(|frame| frame.resumed.is_some() && frame.messages.is_empty()));
    assert!(next_frame(&mut frames).is_some_and(|frame| *frame.messages == [event(0, 10)]));
}

#[test]
fn an_abandoned_session_knows_what_may_have_arrived() {
    let (queue, mut old) = client();
    assert_eq!(queue.abandon(), 0);
    assert!(has_ended(&mut old));
    let (queue, mut old) = client();
    queue.extend([request(0, 10), request(1, 10)]);
    assert!(next_frame(&mut old).is_some_and(|frame| frame.messages.len() == 2));
    // In flight in pieces.
    queue.push(request(2, 5_000_000));
    assert!(next_frame(&mut old).is_some_and(|frame| frame.piece.is_some()));
    queue.push(request(3, 10));
    // Resent or not, they have been in frames.
    let mut new = queue.resume(Bytes::new());
    queue.push(request(4, 10));
    assert_eq!(queue.abandon(), 3);
    assert!(has_ended(&mut new));
    queue.push(request(5, 10));
    assert!(has_ended(&mut new));
}
