//! Every verb, and the order of its outcomes.

use std::collections::BTreeSet;

use crate::conformance::tasks::{nap, noted, square};
use crate::log::Log;
use crate::pools;

crate::runner::cases![
    every_verb_gives_every_result,
    no_items_give_no_results,
    results_are_in_input_order,
    unordered_outcomes_are_returned_as_they_arrive,
    a_large_map_is_complete_and_in_order,
    every_item_runs_exactly_once,
    input_may_borrow_from_the_caller,
    input_of_unknown_length_is_read_to_its_end,
    slow_input_is_sent_as_it_arrives,
];

fn squares(n: u64) -> Vec<u64> {
    (0..n).map(|n| n * n).collect()
}

fn every_verb_gives_every_result() {
    let pool = pools::of(2);
    for n in [1, 2, 3, 100, 1000] {
        let pairs = || (0..n).map(|n| (n, 2));
        assert_eq!(pool.apply(square, (n,)).unwrap(), n * n);
        assert_eq!(pool.apply_async(square, (n,)).get().unwrap(), n * n);
        assert_eq!(pool.map(square, 0..n).unwrap(), squares(n));
        assert_eq!(pool.map_async(square, 0..n).get().unwrap(), squares(n));
        assert_eq!(pool.starmap(u64::pow, pairs()).unwrap(), squares(n));
        assert_eq!(pool.starmap_async(u64::pow, pairs()).get().unwrap(), squares(n));
        assert_eq!(pool.imap(square, 0..n).collect::<Result<Vec<_>, _>>().unwrap(), squares(n));
        let unordered = pool.imap_unordered(square, 0..n).collect::<Result<Vec<_>, _>>().unwrap();
        assert_eq!(unordered.len(), squares(n).len());
        assert_eq!(BTreeSet::from_iter(unordered), BTreeSet::from_iter(squares(n)));
    }
}

fn no_items_give_no_results() {
    let pool = pools::of(2);
    assert!(pool.map(square, []).unwrap().is_empty());
    assert!(pool.map_async(square, Vec::new()).get().unwrap().is_empty());
    assert!(pool.starmap(u64::pow, []).unwrap().is_empty());
    assert!(pool.starmap_async(u64::pow, Vec::new()).get().unwrap().is_empty());
    assert!(pool.imap(square, []).next().is_none());
    assert!(pool.imap_unordered(square, []).next().is_none());
    assert!(pool.job(square).chunksize(5).map([]).unwrap().is_empty());
    // An empty input that does not know its length.
    assert!(pool.map(square, (0..9).filter(|&n| n > 9)).unwrap().is_empty());
    assert_eq!(pool.map(square, [3]).unwrap(), [9]);
}

fn results_are_in_input_order() {
    let pool = pools::of(4);
    let naps = [120, 0, 60, 5, 30, 0, 0, 20];
    assert_eq!(pool.job(nap).chunksize(1).map(naps).unwrap(), naps);
    assert_eq!(pool.map(nap, naps).unwrap(), naps);
    assert_eq!(pool.map_async(nap, naps).get().unwrap(), naps);
    assert_eq!(pool.starmap(nap, naps.map(|nap| (nap,))).unwrap(), naps);
    assert_eq!(pool.imap(nap, naps).map(Result::unwrap).collect::<Vec<_>>(), naps);
}

fn unordered_outcomes_are_returned_as_they_arrive() {
    let pool = pools::of(2);
    pool.map(nap, [5; 4]).unwrap();
    let outcomes: Vec<u64> = pool.imap_unordered(nap, [300, 0, 1, 2]).map(Result::unwrap).collect();
    assert_eq!(outcomes.last(), Some(&300), "{outcomes:?}");
    assert_eq!(BTreeSet::from_iter(outcomes), BTreeSet::from([0, 1, 2, 300]));
}

fn a_large_map_is_complete_and_in_order() {
    let pool = pools::of(3);
    let results = pool.map(|n: u64| n ^ 1, 0..300_000).unwrap();
    assert_eq!(results.len(), 300_000);
    assert!(results.iter().enumerate().all(|(at, &result)| result == at as u64 ^ 1));
}

fn every_item_runs_exactly_once() {
    let (pool, log) = (pools::of(4), Log::new("runs"));
    pool.starmap(noted, (0..500).map(|item| (log.path(), item))).unwrap();
    let mut lines: Vec<u64> = log.lines().iter().map(|line| line.parse().unwrap()).collect();
    lines.sort_unstable();
    assert_eq!(lines, (0..500).collect::<Vec<_>>());
}

fn input_may_borrow_from_the_caller() {
    let pool = pools::of(2);
    let words = ["one".to_owned(), "three".to_owned()];
    assert_eq!(pool.map(|word: String| word.len(), words.iter().cloned()).unwrap(), [3, 5]);
    let lengths = pool.imap(|word: String| word.len(), words.iter().cloned());
    assert_eq!(lengths.map(Result::unwrap).collect::<Vec<_>>(), [3, 5]);
}

fn input_of_unknown_length_is_read_to_its_end() {
    let pool = pools::of(2);
    let mut left = 50;
    let input = std::iter::from_fn(|| {
        left -= 1;
        (left >= 0).then_some(3)
    });
    assert_eq!(pool.map(square, input).unwrap(), [9; 50]);
    let (sender, receiver) = std::sync::mpsc::channel();
    let result = pool.map_async(square, receiver);
    (0..3).for_each(|n| sender.send(n).unwrap());
    assert!(!result.ready());
    drop(sender);
    assert_eq!(result.get().unwrap(), [0, 1, 4]);
}

/// Items of a slow input run while the next item is awaited.
fn slow_input_is_sent_as_it_arrives() {
    let (pool, log) = (pools::of(2), Log::new("runs"));
    let mut seen = Vec::new();
    let input = (0..5).map(|item| {
        seen.push(log.lines().len());
        std::thread::sleep(std::time::Duration::from_millis(150));
        (log.path(), item)
    });
    assert_eq!(pool.starmap(noted, input).unwrap(), [0, 1, 2, 3, 4]);
    assert!(*seen.last().unwrap() > 0, "no item ran while the input was waited for: {seen:?}");
}
