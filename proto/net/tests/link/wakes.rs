//! Whoever waits for a frame is woken when there may be one.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use bytes::Bytes;
use farpool_net::{Frames, Outgoing, outgoing};
use farpool_proto::v1::{ClientEvent, ClientMessage, EventFrame, Resumed};
use futures_core::Stream;

use crate::pair::{LIMIT, ask, tell};
use crate::wire::{Way, hear, next_frame, now};

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Whether this wakes who waits for the frames.
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
fn by_what_is_pushed_and_by_the_end() {
    let (queue, mut frames) = client();
    assert!(wakes(&mut frames, || queue.push(ask(0, 10))));
    next_frame(&mut frames);
    assert!(wakes(&mut frames, || queue.finish()));
    let (queue, mut frames) = client();
    assert!(wakes(&mut frames, || drop(queue)));
}

#[test]
fn not_by_what_may_wait_for_company() {
    let (queue, mut frames) = client();
    assert!(!wakes(&mut frames, || queue.extend_later([ask(0, 10)])));
    let (queue, mut frames) = client();
    assert!(next_frame(&mut frames).is_none());
    queue.extend_later([ask(0, 10)]);
    queue.push(ask(1, 10));
    assert!(next_frame(&mut frames).is_some_and(|frame| *frame.messages == [ask(0, 10), ask(1, 10)]));
    let woken = wakes(&mut frames, || {
        queue.extend_later([ask(2, 10)]);
        queue.flush();
    });
    assert!(woken && next_frame(&mut frames).is_some_and(|frame| *frame.messages == [ask(2, 10)]));
}

#[test]
fn by_what_is_to_be_acknowledged() {
    let (queue, mut frames) = client();
    let way = Way::<ClientEvent>::default();
    let mut incoming = queue.incoming::<ClientEvent>(Way::clone(&way), LIMIT);
    let mut say = |count: u64| {
        way.say(EventFrame {
            messages: (0..count).map(|at| tell(at, 1)).collect::<Vec<_>>().into(),
            ..Default::default()
        });
        hear(&mut incoming);
    };
    assert!(!wakes(&mut frames, || say(1024)));
    assert!(wakes(&mut frames, || say(1)));
    assert_eq!(next_frame(&mut frames).map(|frame| frame.received), Some(1025));
}

#[test]
fn by_another_connection_and_its_answer() {
    let (queue, mut old) = client();
    queue.push(ask(0, 10));
    next_frame(&mut old);
    let mut new = None;
    assert!(wakes(&mut old, || new = Some(queue.resume(Bytes::new()))));
    let mut new = new.expect("it was made");
    next_frame(&mut new);
    let answer = EventFrame { resumed: Some(Resumed { received: 0 }), ..EventFrame::default() };
    assert!(wakes(&mut new, || {
        let answered = now(queue.resumed::<ClientEvent>(Way::<ClientEvent>::of([answer]), LIMIT));
        assert!(answered.is_some_and(|answered| answered.is_ok()));
    }));
    assert!(next_frame(&mut new).is_some_and(|frame| *frame.messages == [ask(0, 10)]));
    let mut waits = queue.resume(Bytes::new());
    next_frame(&mut waits);
    assert!(wakes(&mut waits, || drop(queue)));
}
