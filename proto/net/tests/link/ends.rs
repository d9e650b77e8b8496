//! How connections and sessions end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use farpool_net::{Frames, Replies, SessionMessage, outgoing};
use farpool_proto::v1::{ClientEvent, ClientMessage};
use futures_core::Stream;
use tonic::{Code, Status};

use crate::pair::{LIMIT, ask, tell};
use crate::wire::{Way, context, next_frame, now};

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
fn the_end_comes_behind_what_was_pushed_on_each_connection() {
    let (queue, frames) = outgoing::<ClientEvent>(0, Arc::default());
    let mut replies = Replies::from(frames);
    queue.push(tell(0, 10));
    queue.fail(Status::cancelled("enough"));
    queue.push(tell(1, 10));
    assert_eq!(queue.pushed(), 1);
    assert_eq!(next_reply(&mut replies), Some(Ok(1)));
    assert_eq!(next_reply(&mut replies), Some(Err(Code::Cancelled)));
    let mut replies = Replies::from(queue.reconnect(0).expect("nothing was taken in"));
    assert_eq!(next_reply(&mut replies), Some(Ok(0)), "the answer");
    assert_eq!(next_reply(&mut replies), Some(Ok(1)));
    assert_eq!(next_reply(&mut replies), Some(Err(Code::Cancelled)));
}

#[test]
fn a_connection_ends_when_another_one_takes_its_place() {
    let (queue, mut old) = client();
    let mut heard = queue.incoming::<ClientEvent>(Way::<ClientEvent>::default(), LIMIT);
    queue.push(ask(0, 10));
    let new = queue.resume(Bytes::new());
    assert!(has_ended(&mut old));
    drop(old);
    assert!(!queue.is_gone(), "only the old one is");
    let way = Way::<ClientEvent>::of([SessionMessage::frame(farpool_net::Parts {
        messages: vec![tell(0, 10)].into(),
        ..Default::default()
    })]);
    drop(std::mem::replace(&mut heard, queue.incoming(way, LIMIT)));
    let newer = queue.resume(Bytes::new());
    let status = now(heard.next()).expect("there is a frame").expect_err("it is too late");
    assert_eq!((status.code(), heard.is_garbled(), queue.received()), (Code::Aborted, false, 0));
    drop(newer);
    assert!(queue.is_gone());
    drop(new);
    let mut last = queue.resume(Bytes::new());
    assert!(!queue.is_gone());
    assert!(next_frame(&mut last).is_some_and(|frame| frame.resume.is_some()));
}

/// On a server that is an error: whoever still hears the old connection has lost the session.
#[test]
fn replies_say_that_another_connection_took_over() {
    let (queue, frames) = outgoing::<ClientEvent>(0, Arc::default());
    let mut old = Replies::from(frames);
    assert_eq!(next_reply(&mut old), None);
    let _new = queue.reconnect(0).expect("nothing was taken in");
    assert_eq!(next_reply(&mut old), Some(Err(Code::Aborted)));
}

#[test]
fn a_large_message_stops_when_another_connection_takes_over() {
    let (queue, mut old) = client();
    queue.push(ask(0, 5_000_000));
    assert!(next_frame(&mut old).is_some_and(|frame| frame.piece.is_some()));
    let _new = queue.resume(Bytes::new());
    assert!(has_ended(&mut old));
}

/// Nobody is there any more who could read the answer.
#[test]
fn a_connection_that_waits_for_its_answer_ends_with_the_session() {
    let (queue, _) = client();
    let mut frames = queue.resume(Bytes::new());
    assert!(next_frame(&mut frames).is_some_and(|frame| frame.resume.is_some()));
    queue.push(ask(0, 10));
    assert!(next_frame(&mut frames).is_none());
    drop(queue);
    assert!(has_ended(&mut frames));
}

#[test]
fn what_is_pushed_without_a_connection_waits_for_one() {
    let (queue, frames) = outgoing::<ClientEvent>(0, Arc::default());
    drop(frames);
    assert!(queue.is_gone());
    queue.push(tell(0, 10));
    let mut frames = queue.reconnect(0).expect("nothing was taken in");
    assert!(next_frame(&mut frames).is_some_and(|frame| frame.resumed.is_some() && frame.messages.is_empty()));
    assert!(next_frame(&mut frames).is_some_and(|frame| *frame.messages == [tell(0, 10)]));
}

#[test]
fn of_a_session_that_is_given_up_it_is_known_what_can_have_arrived() {
    let (queue, mut old) = client();
    assert_eq!(queue.abandon(), 0);
    assert!(has_ended(&mut old));
    let (queue, mut old) = client();
    queue.extend([ask(0, 10), ask(1, 10)]);
    assert!(next_frame(&mut old).is_some_and(|frame| frame.messages.len() == 2));
    // On its way in pieces.
    queue.push(ask(2, 5_000_000));
    assert!(next_frame(&mut old).is_some_and(|frame| frame.piece.is_some()));
    queue.push(ask(3, 10));
    // Sent again or not, they have been in frames.
    let mut new = queue.resume(Bytes::new());
    queue.push(ask(4, 10));
    assert_eq!(queue.abandon(), 3);
    assert!(has_ended(&mut new));
    queue.push(ask(5, 10));
    assert!(has_ended(&mut new));
}
