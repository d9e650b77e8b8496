use std::time::Instant;

use bytes::Bytes;
use farpool_proto::v1::Items;
use farpool_session::{Held, Interest};

use super::*;

fn inbox() -> Inbox {
    Inbox::new(1, "map", "", Interest::Outcomes).in_session(u64::MAX, None)
}

/// Feeds everything and returns each message: its first item and how many; `None` for the end.
fn feed_all<A: Args>(input: impl Iterator<Item = A>, room: u64, payload_limit: u64) -> Vec<Option<(u64, usize)>> {
    let (inbox, mut messages) = (inbox(), Vec::new());
    let mut feeder = Feeder::new(input, 1, 0, payload_limit.into());
    while !feeder.exhausted() {
        let before = feeder.pulled();
        feeder.feed(room, &inbox, &mut messages);
        assert!(feeder.pulled() - before <= room);
    }
    assert_eq!(inbox.pulled(), feeder.pulled());
    messages
        .into_iter()
        .map(|message| match message {
            Body::Items(Items { first, ends, .. }) => Some((first, ends.len() / 4)),
            Body::EndItems(_) => None,
            other => panic!("unexpected: {other:?}"),
        })
        .collect()
}

#[test]
fn the_first_batch_is_one_item() {
    assert_eq!(feed_all(std::iter::empty::<()>(), 100, 10), [None]);
    assert_eq!(feed_all([(1_u64,)].into_iter(), 100, 10), [Some((0, 1)), None]);
    let messages = feed_all((0..1000_u64).map(|n| (n,)), u64::MAX, 10);
    assert_eq!(messages[0], Some((0, 1)));
    assert_eq!(messages.iter().flatten().map(|(_, items)| items).sum::<usize>(), 1000);
    assert!(messages.last().unwrap().is_none());
}

#[test]
fn the_room_is_respected() {
    let messages = feed_all((0..10_u64).map(|n| (n,)), 4, 10);
    assert!(messages.iter().flatten().all(|&(_, items)| items <= 4));
}

#[test]
fn an_item_above_the_limit_leaves_a_gap() {
    let items = [1, 1, 9, 1, 9, 9, 1].map(|bytes| (vec![0_u8; bytes],));
    let messages = feed_all(items.into_iter(), u64::MAX, 5);
    let items: Vec<u64> = messages.iter().flatten().flat_map(|&(first, items)| first..first + items as u64).collect();
    assert_eq!(items, [0, 1, 3, 6]);
}

#[test]
fn at_most_one_message_is_made_at_a_time() {
    let (inbox, mut messages) = (inbox(), Vec::new());
    let items = [1, 9, 9, 1, 9, 1, 1].map(|bytes| (vec![0_u8; bytes],));
    let mut feeder = Feeder::new(items.into_iter().cycle().take(7000), 1, 0, 5.into());
    while !feeder.exhausted() {
        feeder.feed(u64::MAX, &inbox, &mut messages);
        assert!(messages.drain(..).filter(|message| matches!(message, Body::Items(_))).count() <= 1);
    }
    assert_eq!((feeder.pulled(), inbox.finished()), (7000, 3000));
}

#[test]
fn the_limit_is_respected_except_to_complete_a_chunk() {
    let check = |chunksize, limit, held, finished: usize, expected| {
        let inbox = Inbox::new(1, "map", "", Interest::Outcomes).in_session(limit, None);
        let mut feeder = Feeder::new((0..1000_u64).map(|n| (vec![n as u8; 95],)), 1, chunksize, 1000.into());
        let mut messages = Vec::new();
        // Three messages of one item each: 100 bytes including its length and its end.
        for _ in 0..3 {
            feeder.feed(1, &inbox, &mut messages);
        }
        inbox.deliver_done(0, Bytes::new(), vec![0; 4 * finished].into(), 0).wake();
        assert_eq!(feeder.may_feed(&inbox, held), expected, "{chunksize} {limit} {held} {finished}");
    };
    check(0, 301, 0, 0, true);
    check(0, 300, 0, 0, false);
    check(0, 300, 0, 3, false);
    check(0, 400, 99, 0, true);
    check(0, 400, 100, 0, false);
    check(4, 10, 0, 0, true);
    check(3, 10, 0, 0, false);
    check(3, 10, 0, 1, true);
    check(1, 10, 0, 3, true);
}

/// `cargo test -p farpool --release -- --ignored --nocapture measure_caller`
#[test]
#[ignore = "a measurement"]
fn measure_caller() {
    const ITEMS: u64 = 4_000_000;
    for round in 0..3 {
        let (inbox, mut messages) = (inbox(), Vec::new());
        let mut feeder = Feeder::new((0..ITEMS).map(|n| (n,)), 1, 0, (1 << 30).into());
        let mut collector = crate::collector::Collector::<u64>::new(feeder.size().0);
        let mut feeding = std::time::Duration::ZERO;
        let start = Instant::now();
        while !feeder.exhausted() {
            let before = Instant::now();
            feeder.feed(u64::MAX, &inbox, &mut messages);
            feeding += before.elapsed();
            for message in messages.drain(..) {
                if let Body::Items(Items { first, data, ends, .. }) = message {
                    let delivery =
                        farpool_session::Delivery::Done { first, data, ends, attempts: 0, held: Held::default() };
                    collector.accept(delivery, &inbox).unwrap();
                }
            }
        }
        let values = collector.finish(ITEMS).unwrap();
        let each = |time: std::time::Duration| time.as_nanos() as f64 / ITEMS as f64;
        println!("{round}: feed {:.1} ns an item, feed + collect {:.1} ns", each(feeding), each(start.elapsed()));
        assert_eq!(values.len() as u64, ITEMS);
    }
}
