//! Large data, and how much of it the client holds at once.

use std::fs;

use crate::conformance::tasks::{bytes, identity, length, square};
use crate::pools;

crate::runner::cases![
    a_hundred_mebibytes_pass_each_way,
    large_results_are_streamed,
    growing_results_wait_for_a_slow_consumer,
    large_items_of_imap_are_streamed,
    large_items_of_map_are_streamed,
    an_endless_input_takes_constant_memory,
];

const MIB: usize = 1 << 20;

/// Returns the peak resident memory of this process in MiB.
fn peak() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
}

fn a_hundred_mebibytes_pass_each_way() {
    let pool = pools::of(2);
    let mut large = Vec::from_iter(0..251_u8).repeat(100 * MIB / 251 + 1);
    large.truncate(100 * MIB);
    assert!(pool.apply(identity::<Vec<u8>>, (large.clone(),)).unwrap() == large);
    assert_eq!(pool.map(length, [large.clone(), vec![1], large.clone()]).unwrap(), [100 * MIB, 1, 100 * MIB]);
    let results = pool.imap(bytes, [100 * MIB, 1, 100 * MIB]);
    assert!(results.map(|bytes| bytes.unwrap().len()).eq([100 * MIB, 1, 100 * MIB]));
    // Not plain bytes: these are encoded and decoded value by value.
    let words: Vec<(u32, String)> = (0..2_000_000).map(|n| (n, "word".to_owned())).collect();
    assert!(pool.apply(identity::<Vec<(u32, String)>>, (words.clone(),)).unwrap() == words);
}

/// Checks that of the 800 MiB that pass, only a bounded part is in memory at once: the window's 64 MiB, and what is in transit.
fn check_peak(before: usize) {
    let grown = peak().saturating_sub(before);
    assert!(grown < 112, "the client held {grown} MiB");
}

fn large_results_are_streamed() {
    let pool = pools::of(2);
    let before = peak();
    let results = pool.imap(bytes, std::iter::repeat_n(MIB, 800));
    assert_eq!(results.map(|bytes| bytes.unwrap().len()).sum::<usize>(), 800 * MIB);
    let results = pool.imap_unordered(bytes, std::iter::repeat_n(MIB, 400));
    assert_eq!(results.map(|bytes| bytes.unwrap().len()).sum::<usize>(), 400 * MIB);
    check_peak(before);
}

/// Tiny results make the window grow; then they become large, and the consumer pauses.
fn growing_results_wait_for_a_slow_consumer() {
    let pool = pools::of(2);
    let before = peak();
    let sizes = std::iter::repeat_n(1, 30_000).chain(std::iter::repeat(200 << 10));
    let mut results = pool.imap(bytes, sizes);
    assert_eq!(results.by_ref().take(29_000).filter(|result| result.is_ok()).count(), 29_000);
    for _ in 0..10 {
        std::thread::sleep(std::time::Duration::from_millis(100));
        results.next().unwrap().unwrap();
    }
    check_peak(before);
}

/// Slower than the input: without a window, all items would wait in memory.
fn slow_length(item: Vec<u8>) -> usize {
    std::thread::sleep(std::time::Duration::from_millis(2));
    item.len()
}

fn large_items_of_imap_are_streamed() {
    let pool = pools::of(2);
    let before = peak();
    let lengths = pool.imap(slow_length, std::iter::repeat_with(|| bytes(MIB)).take(600));
    assert_eq!(lengths.map(Result::unwrap).sum::<usize>(), 600 * MIB);
    check_peak(before);
}

fn large_items_of_map_are_streamed() {
    let pool = pools::of(2);
    let before = peak();
    let items = || std::iter::repeat_with(|| bytes(MIB)).take(600);
    assert_eq!(pool.map(slow_length, items()).unwrap().len(), 600);
    assert_eq!(pool.map_async(slow_length, items()).get().unwrap().len(), 600);
    check_peak(before);
}

fn an_endless_input_takes_constant_memory() {
    let pool = pools::of(2);
    let mut outcomes = pool.imap(square, 0..);
    assert_eq!(outcomes.by_ref().take(100_000).filter(|outcome| outcome.is_ok()).count(), 100_000);
    let before = peak();
    assert_eq!(outcomes.by_ref().take(1_500_000).filter(|outcome| outcome.is_ok()).count(), 1_500_000);
    let grown = peak().saturating_sub(before);
    assert!(grown < 24, "the client grew by {grown} MiB over a million and a half items");
}
