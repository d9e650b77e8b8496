use bytes::Bytes;
use farpool_session::{Held, Interest};
use proptest::prelude::*;

use super::*;

fn inbox(items: u64) -> Inbox {
    let inbox = Inbox::new(1, "map", "", Interest::Outcomes);
    inbox.set_pulled(items);
    inbox
}

/// Returns results for items `first..first + count`: each is its index.
fn done(first: u64, count: u64) -> Delivery {
    let (mut data, mut ends) = (Vec::new(), Vec::new());
    for item in first..first + count {
        codec::encode(&item, &mut data).unwrap();
        ends.extend((data.len() as u32).to_le_bytes());
    }
    Delivery::Done { first, data: data.into(), ends: ends.into(), attempts: 0, held: Held::default() }
}

fn failed(item: u64) -> Delivery {
    failed_alike(item, 1)
}

fn failed_alike(first: u64, count: u64) -> Delivery {
    let error = farpool_session::Error::new(ErrorKind::Panicked, format!("number {first}"));
    Delivery::Failed { first, count, error, held: Held::default() }
}

fn collect(items: u64, deliveries: Vec<Delivery>) -> Result<Vec<u64>, Error> {
    let inbox = inbox(items);
    let mut collector = Collector::new(0);
    for delivery in deliveries {
        collector.accept(delivery, &inbox)?;
    }
    collector.finish(items)
}

proptest! {
    #[test]
    fn results_are_sorted_whatever_their_order_of_arrival(
        runs in proptest::collection::vec(0_u64..9, 0..40).prop_flat_map(|lengths| {
            let mut next = 0;
            let runs: Vec<_> = lengths.iter().map(|&n| { next += n; (next - n, n) }).collect();
            (Just(next), Just(runs).prop_shuffle())
        })
    ) {
        let (items, runs) = runs;
        let values = collect(items, runs.into_iter().map(|(first, n)| done(first, n)).collect()).unwrap();
        prop_assert_eq!(values, (0..items).collect::<Vec<_>>());
    }
}

#[test]
fn the_failure_with_the_lowest_index_wins() {
    let error = collect(6, vec![done(4, 2), failed(3), done(0, 1), failed(1), failed(2)]).unwrap_err();
    assert_eq!((error.item(), error.message()), (Some(1), "number 1"));
    let error = collect(9, vec![failed_alike(5, 4), done(0, 2), failed_alike(2, 3)]).unwrap_err();
    assert_eq!((error.item(), error.message()), (Some(2), "number 2"));
    for (first, count) in [(8, 2), (u64::MAX, 2)] {
        let error = collect(9, vec![failed_alike(first, count)]).unwrap_err();
        assert!(error.message().contains("items that do not exist"), "{error}");
    }
    let undecodable = Delivery::Done {
        first: 0,
        data: Bytes::new(),
        ends: Bytes::from_static(&[0; 4]),
        attempts: 0,
        held: Held::default(),
    };
    let error = collect(2, vec![failed(1), undecodable]).unwrap_err();
    assert_eq!((error.item(), error.kind()), (Some(0), ErrorKind::Codec));
}

#[test]
fn protocol_violations_are_detected() {
    for deliveries in [vec![done(0, 2), done(1, 1)], vec![done(1, 1), done(1, 1)], vec![done(0, 4)], vec![done(1, 2)]] {
        assert_eq!(collect(3, deliveries).unwrap_err().kind(), ErrorKind::Unavailable);
    }
}
