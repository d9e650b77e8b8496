//! When a side acknowledges, and the effect on the other side's queue.

use std::sync::Arc;

use farpool_net::outgoing;
use farpool_proto::v1::{ClientEvent, ClientFrame, ClientMessage, EventFrame};
use tokio::sync::Notify;

use crate::pair::{LIMIT, Pair, event, request};
use crate::wire::{Inbound, next_frame, now, receive};

/// Returns what a queue acknowledges by itself when this many messages of this size arrived in one frame each.
fn acknowledged_after(count: u64, bytes: usize) -> Option<EventFrame> {
    let (queue, mut frames) = outgoing::<ClientEvent>(0, Arc::default());
    let frame = |number| ClientFrame { messages: vec![request(number, bytes)].into(), ..ClientFrame::default() };
    let mut incoming = queue.incoming::<ClientMessage>(Inbound::<ClientMessage>::of((0..count).map(frame)), LIMIT);
    while receive(&mut incoming).is_some() {}
    assert_eq!(queue.received(), count);
    let frame = next_frame(&mut frames);
    assert!(next_frame(&mut frames).is_none(), "the queue acknowledges once");
    frame
}

#[test]
fn a_frame_only_for_that_is_sent_when_much_was_received() {
    let only = |received| Some(EventFrame { received, ..EventFrame::default() });
    assert_eq!(acknowledged_after(1024, 10), None);
    assert_eq!(acknowledged_after(1025, 10), only(1025));
    assert_eq!(acknowledged_after(5, 100_000), None);
    assert_eq!(acknowledged_after(6, 100_000), only(6));
    assert_eq!(acknowledged_after(1, 3_000_000), only(1));
}

#[test]
fn frames_that_are_sent_anyway_acknowledge() {
    let mut pair = Pair::new();
    pair.event(10);
    pair.settle();
    assert_eq!((pair.client.acknowledged(), pair.client.bytes()), (1, 0));
    assert_eq!(pair.coordinator.acknowledged(), 0);
    pair.request(10);
    assert_eq!(pair.client.pushed() - pair.client.acknowledged(), 1);
    pair.settle();
    assert_eq!((pair.coordinator.acknowledged(), pair.coordinator.bytes()), (1, 0));
}

#[test]
fn a_full_window_holds_messages_back_until_some_are_acknowledged() {
    let (queue, mut sent) = outgoing::<ClientEvent>(0, Arc::default());
    queue.set_window(1);
    let inbound = Inbound::<ClientMessage>::default();
    let mut incoming = queue.incoming::<ClientMessage>(Inbound::clone(&inbound), LIMIT);
    let messages = |frame: Option<EventFrame>| frame.map(|frame| frame.messages.len());
    // The window is at least a mebibyte, and a message that was begun is sent completely.
    (0..6).for_each(|number| queue.push(event(number, 300_000)));
    let frames: Vec<_> = std::iter::from_fn(|| messages(next_frame(&mut sent))).collect();
    assert_eq!(frames, [1; 4]);
    assert!(queue.waiting() > 600_000, "{}", queue.waiting());
    // Acknowledgements are still sent.
    queue.acknowledge();
    inbound.send(ClientFrame { messages: vec![request(0, 10)].into(), ..ClientFrame::default() });
    assert_eq!(receive(&mut incoming).map(|received| received.len()), Some(1));
    assert_eq!(next_frame(&mut sent), Some(EventFrame { received: 1, ..EventFrame::default() }));
    inbound.send(ClientFrame { received: 1, ..ClientFrame::default() });
    assert_eq!(receive(&mut incoming), Some(vec![]));
    assert_eq!([messages(next_frame(&mut sent)), messages(next_frame(&mut sent))], [Some(1), None]);
    // At its end nothing is held back.
    queue.finish();
    assert_eq!(messages(next_frame(&mut sent)), Some(1));
}

#[test]
fn the_level_that_counts_as_drained_can_change() {
    let drained = Arc::new(Notify::new());
    let (queue, mut sent) = outgoing::<ClientEvent>(1 << 20, Arc::clone(&drained));
    queue.set_low(1000);
    [500_000, 1100].into_iter().for_each(|bytes| queue.push(event(0, bytes)));
    next_frame(&mut sent).expect("there is more");
    assert!(now(drained.notified()).is_none(), "more than that waits");
    next_frame(&mut sent).expect("there is more");
    assert!(now(drained.notified()).is_some());
}

/// Also while the connection sends nothing else: only acknowledgements of the other side drain a full queue.
#[test]
fn a_full_queue_notifies_when_it_is_acknowledged() {
    let drained = Arc::new(Notify::new());
    let (queue, mut frames) = outgoing::<ClientMessage>(1 << 20, Arc::clone(&drained));
    let inbound = Inbound::<ClientEvent>::default();
    let mut incoming = queue.incoming::<ClientEvent>(Inbound::clone(&inbound), LIMIT);
    (0..20).for_each(|number| queue.push(request(number, 100_000)));
    let all = queue.bytes();
    assert!(now(drained.notified()).is_none());
    while queue.waiting() > 0 {
        next_frame(&mut frames).expect("there is more");
    }
    assert!(now(drained.notified()).is_some(), "little waits to be sent");
    assert_eq!(queue.bytes(), all);
    let only = |received| EventFrame { received, ..EventFrame::default() };
    inbound.send(only(4));
    assert_eq!(receive(&mut incoming), Some(vec![]));
    assert_eq!(queue.acknowledged(), 4);
    assert!(queue.bytes() < all && queue.bytes() > 1 << 20);
    assert!(now(drained.notified()).is_none());
    inbound.send(only(20));
    inbound.send(EventFrame { messages: vec![event(0, 1)].into(), ..EventFrame::default() });
    assert_eq!(receive(&mut incoming), Some(vec![event(0, 1)]));
    assert_eq!((queue.acknowledged(), queue.bytes()), (20, 0));
    assert!(now(drained.notified()).is_some(), "little is kept");
}
