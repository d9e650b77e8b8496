//! A task that waits for a frame is woken when there may be one.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use bytes::Bytes;
use farpool_net::{Frames, Outgoing, outgoing};
use farpool_proto::v1::{ClientEvent, ClientMessage, EventFrame, Resumed};
use futures_core::Stream;

use crate::pair::{LIMIT, event, request};
use crate::wire::{Inbound, next_frame, now, receive};

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Whether this wakes the task that waits for the frames.
fn wakes(frames: &mut Frames<ClientMessage>, what: impl FnOnce()) -> bool {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    assert!(Pin::new(frames).poll_next(&mut Context::from_waker(&waker)).is_pending());
    what();
    woken.0.load(Ordering::SeqCst)
}

fn client() -> (Outgoing<ClientMessage>, Frames<ClientMessage>) {
    outgoing(0, Arc::default())
}

#[test]
fn by_pushed_messages_and_by_the_end() {
    let (queue, mut frames) = client();
    assert!(wakes(&mut frames, || queue.push(request(0, 10))));
    next_frame(&mut frames);
    assert!(wakes(&mut frames, || queue.finish()));
    let (queue, mut frames) = client();
    assert!(wakes(&mut frames, || drop(queue)));
}

#[test]
fn not_by_messages_that_may_wait() {
    let (queue, mut frames) = client();
    assert!(!wakes(&mut frames, || queue.extend_later([request(0, 10)])));
    let (queue, mut frames) = client();
    assert!(next_frame(&mut frames).is_none());
    queue.extend_later([request(0, 10)]);
    queue.push(request(1, 10));
    assert!(next_frame(&mut frames).is_some_and(|frame| *frame.messages == [request(0, 10), request(1, 10)]));
    let woken = wakes(&mut frames, || {
        queue.extend_later([request(2, 10)]);
        queue.flush();
    });
    assert!(woken && next_frame(&mut frames).is_some_and(|frame| *frame.messages == [request(2, 10)]));
}

#[test]
fn by_due_acknowledgements() {
    let (queue, mut frames) = client();
    let inbound = Inbound::<ClientEvent>::default();
    let mut incoming = queue.incoming::<ClientEvent>(Inbound::clone(&inbound), LIMIT);
    let mut send = |count: u64| {
        inbound.send(EventFrame {
            messages: (0..count).map(|at| event(at, 1)).collect::<Vec<_>>().into(),
            ..Default::default()
        });
        receive(&mut incoming);
    };
    assert!(!wakes(&mut frames, || send(1024)));
    assert!(wakes(&mut frames, || send(1)));
    assert_eq!(next_frame(&mut frames).map(|frame| frame.received), Some(1025));
}

#[test]
fn by_another_connection_and_its_answer() {
    let (queue, mut old) = client();
    queue.push(request(0, 10));
    next_frame(&mut old);
    let mut new = None;
    assert!(wakes(&mut old, || new = Some(queue.resume(Bytes::new()))));
    let mut new = new.expect("the stream was made");
    next_frame(&mut new);
    let answer = EventFrame { resumed: Some(Resumed { received: 0 }), ..EventFrame::default() };
    assert!(wakes(&mut new, || {
        let answered = now(queue.resumed::<ClientEvent>(Inbound::<ClientEvent>::of([answer]), LIMIT));
        assert!(answered.is_some_and(|answered| answered.is_ok()));
    }));
    assert!(next_frame(&mut new).is_some_and(|frame| *frame.messages == [request(0, 10)]));
    let mut waits = queue.resume(Bytes::new());
    next_frame(&mut waits);
    assert!(wakes(&mut waits, || drop(queue)));
}
