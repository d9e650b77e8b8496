//! When a side says what it has taken in, and what that does to the other one's queue.

use std::sync::Arc;

use farpool_net::outgoing;
use farpool_proto::v1::{ClientEvent, ClientFrame, ClientMessage, EventFrame};
use tokio::sync::Notify;

use crate::pair::{LIMIT, Pair, ask, tell};
use crate::wire::{Way, hear, next_frame, now};

/// What a queue says by itself when so many messages, so large, came in one frame each.
fn said_after(count: u64, bytes: usize) -> Option<EventFrame> {
    let (queue, mut frames) = outgoing::<ClientEvent>(0, Arc::default());
    let say = |number| ClientFrame { messages: vec![ask(number, bytes)].into(), ..ClientFrame::default() };
    let mut incoming = queue.incoming::<ClientMessage>(Way::<ClientMessage>::of((0..count).map(say)), LIMIT);
    while hear(&mut incoming).is_some() {}
    assert_eq!(queue.received(), count);
    let frame = next_frame(&mut frames);
    assert!(next_frame(&mut frames).is_none(), "it says it once");
    frame
}

#[test]
fn a_frame_only_for_that_comes_when_much_was_taken_in() {
    let only = |received| Some(EventFrame { received, ..EventFrame::default() });
    assert_eq!(said_after(1024, 10), None);
    assert_eq!(said_after(1025, 10), only(1025));
    assert_eq!(said_after(5, 100_000), None);
    assert_eq!(said_after(6, 100_000), only(6));
    assert_eq!(said_after(1, 3_000_000), only(1));
}

#[test]
fn frames_that_go_anyway_say_it() {
    let mut pair = Pair::new();
    pair.tell(10);
    pair.settle();
    assert_eq!((pair.client.acknowledged(), pair.client.bytes()), (1, 0));
    assert_eq!(pair.coordinator.acknowledged(), 0);
    pair.ask(10);
    assert_eq!(pair.client.pushed() - pair.client.acknowledged(), 1);
    pair.settle();
    assert_eq!((pair.coordinator.acknowledged(), pair.coordinator.bytes()), (1, 0));
}

#[test]
fn a_full_window_holds_messages_back_until_some_are_acknowledged() {
    let (queue, mut sent) = outgoing::<ClientEvent>(0, Arc::default());
    queue.set_window(1);
    let way = Way::<ClientMessage>::default();
    let mut incoming = queue.incoming::<ClientMessage>(Way::clone(&way), LIMIT);
    let messages = |frame: Option<EventFrame>| frame.map(|frame| frame.messages.len());
    // It is a mebibyte at least, and what has begun goes out as a whole.
    (0..6).for_each(|number| queue.push(tell(number, 300_000)));
    let frames: Vec<_> = std::iter::from_fn(|| messages(next_frame(&mut sent))).collect();
    assert_eq!(frames, [1; 4]);
    assert!(queue.waiting() > 600_000, "{}", queue.waiting());
    // What was taken in is said all the same.
    queue.acknowledge();
    way.say(ClientFrame { messages: vec![ask(0, 10)].into(), ..ClientFrame::default() });
    assert_eq!(hear(&mut incoming).map(|heard| heard.len()), Some(1));
    assert_eq!(next_frame(&mut sent), Some(EventFrame { received: 1, ..EventFrame::default() }));
    way.say(ClientFrame { received: 1, ..ClientFrame::default() });
    assert_eq!(hear(&mut incoming), Some(vec![]));
    assert_eq!([messages(next_frame(&mut sent)), messages(next_frame(&mut sent))], [Some(1), None]);
    // At its end nothing is held back.
    queue.finish();
    assert_eq!(messages(next_frame(&mut sent)), Some(1));
}

#[test]
fn what_is_for_one_connection_is_not_kept() {
    let (queue, mut frames) = outgoing::<ClientMessage>(0, Arc::default());
    queue.for_one_connection();
    let way = Way::<ClientEvent>::default();
    let mut incoming = queue.incoming::<ClientEvent>(Way::clone(&way), LIMIT);
    // One of them travels in pieces.
    [10, 3_000_000, 10].into_iter().for_each(|bytes| queue.push(ask(0, bytes)));
    while queue.waiting() > 0 {
        assert!(queue.bytes() > 0);
        next_frame(&mut frames).expect("there is more");
    }
    assert_eq!((queue.bytes(), queue.acknowledged()), (0, 3));
    // What the other side says of it does not matter.
    for received in [1, 3, 9] {
        way.say(EventFrame { received, ..EventFrame::default() });
        assert_eq!(hear(&mut incoming), Some(vec![]));
    }
}

/// Also while the connection sends nothing else: a full queue is drained by what only the other side can say.
#[test]
fn whoever_waits_for_the_queue_hears_of_it() {
    let drained = Arc::new(Notify::new());
    let (queue, mut frames) = outgoing::<ClientMessage>(1 << 20, Arc::clone(&drained));
    let way = Way::<ClientEvent>::default();
    let mut incoming = queue.incoming::<ClientEvent>(Way::clone(&way), LIMIT);
    (0..20).for_each(|number| queue.push(ask(number, 100_000)));
    let all = queue.bytes();
    assert!(now(drained.notified()).is_none());
    while queue.waiting() > 0 {
        next_frame(&mut frames).expect("there is more");
    }
    assert!(now(drained.notified()).is_some(), "little waits to be sent");
    assert_eq!(queue.bytes(), all);
    let only = |received| EventFrame { received, ..EventFrame::default() };
    way.say(only(4));
    assert_eq!(hear(&mut incoming), Some(vec![]));
    assert_eq!(queue.acknowledged(), 4);
    assert!(queue.bytes() < all && queue.bytes() > 1 << 20);
    assert!(now(drained.notified()).is_none());
    way.say(only(20));
    way.say(EventFrame { messages: vec![tell(0, 1)].into(), ..EventFrame::default() });
    assert_eq!(hear(&mut incoming), Some(vec![tell(0, 1)]));
    assert_eq!((queue.acknowledged(), queue.bytes()), (20, 0));
    assert!(now(drained.notified()).is_some(), "little is kept");
}
