//! Calls are answered before their session is known.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use farpool_net::{Replies, outgoing, replies};
use farpool_proto::v1::{ClientEvent, EventFrame};
use futures_core::Stream;
use tonic::{Code, Status};

use crate::pair::event;
use crate::wire::context;

fn poll(replies: &mut Replies<ClientEvent>) -> Poll<Option<Result<EventFrame, Code>>> {
    let polled = Pin::new(replies).poll_next(&mut context());
    polled.map(|reply| reply.map(|reply| reply.map_err(|status| status.code())))
}

#[test]
fn replies_are_the_sessions_frames() {
    let (reply, mut replies) = replies();
    assert_eq!(poll(&mut replies), Poll::Pending);
    let (queue, frames) = outgoing(0, Arc::default());
    queue.push(event(0, 10));
    reply.with(frames);
    let frame = EventFrame { messages: vec![event(0, 10)].into(), ..EventFrame::default() };
    assert_eq!(poll(&mut replies), Poll::Ready(Some(Ok(frame))));
    assert_eq!(poll(&mut replies), Poll::Pending);
    queue.finish();
    assert_eq!(poll(&mut replies), Poll::Ready(None));
}

#[test]
fn replies_end_without_a_session() {
    let (reply, mut refused) = replies();
    reply.refuse(Status::not_found("who is that"));
    assert_eq!(poll(&mut refused), Poll::Ready(Some(Err(Code::NotFound))));
    assert_eq!(poll(&mut refused), Poll::Ready(None));
    let (reply, mut dropped) = replies();
    drop(reply);
    assert_eq!(poll(&mut dropped), Poll::Ready(None));
}

#[test]
fn a_session_notices_that_its_connection_is_gone() {
    let (reply, dropped) = replies();
    drop(dropped);
    let (queue, frames) = outgoing::<ClientEvent>(0, Arc::default());
    reply.with(frames);
    assert!(queue.is_gone());
}
