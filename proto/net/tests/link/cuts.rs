//! Whatever happens to connections, each message arrives once and in order.

use farpool_testkit::doses;
use proptest::prelude::*;

use crate::pair::Pair;

#[derive(Clone, Debug)]
enum Step {
    Ask(usize),
    Tell(usize),
    CarryUp(usize),
    CarryDown(usize),
    HearUp,
    HearDown,
    Cut,
    /// Breaks again after so many frames.
    Reconnect(usize),
}

fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![
        8 => 0..200usize,
        2 => 100_000..400_000usize,
        1 => (2usize << 20) - 100..(2usize << 20) + 100,
        1 => 3_000_000..5_000_000usize,
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => sizes().prop_map(Step::Ask),
        3 => sizes().prop_map(Step::Tell),
        3 => (1..4usize).prop_map(Step::CarryUp),
        3 => (1..4usize).prop_map(Step::CarryDown),
        2 => Just(Step::HearUp),
        2 => Just(Step::HearDown),
        1 => Just(Step::Cut),
        2 => (0..5usize).prop_map(Step::Reconnect),
    ];
    prop::collection::vec(step, 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(doses::cases(128)))]
    #[test]
    fn each_message_arrives_once_and_in_order(steps in steps()) {
        let mut pair = Pair::new();
        for step in steps {
            match step {
                Step::Ask(bytes) => pair.ask(bytes),
                Step::Tell(bytes) => pair.tell(bytes),
                Step::CarryUp(count) => drop(pair.carry_up(count)),
                Step::CarryDown(count) => drop(pair.carry_down(count)),
                Step::HearUp => drop(pair.hear_up()),
                Step::HearDown => drop(pair.hear_down()),
                Step::Cut => pair.cut(),
                Step::Reconnect(breaks) => pair.reconnect(breaks),
            }
            prop_assert_eq!([pair.client.pushed(), pair.coordinator.pushed()], pair.said);
            prop_assert!(pair.client.acknowledged() <= pair.heard[0]);
            prop_assert!(pair.coordinator.acknowledged() <= pair.heard[1]);
            prop_assert!(pair.client.waiting() <= pair.client.bytes());
        }
        pair.reconnect(2);
        pair.settle();
        prop_assert_eq!(pair.heard, pair.said);
        prop_assert_eq!((pair.client.waiting(), pair.coordinator.waiting()), (0, 0));
        // What is said last has the other side know that all arrived.
        pair.ask(1);
        pair.settle();
        pair.tell(1);
        pair.settle();
        prop_assert_eq!((pair.client.acknowledged(), pair.client.bytes()), (pair.said[0], 0));
        pair.ask(1);
        pair.settle();
        prop_assert_eq!((pair.coordinator.acknowledged(), pair.coordinator.bytes()), (pair.said[1], 0));
    }
}

/// Each frame of a large message, and of what is around it, is the last one that arrives.
#[test]
fn a_large_message_is_cut_anywhere() {
    for cut in 0..8 {
        let mut pair = Pair::new();
        [10, 5_000_000, 20].into_iter().for_each(|bytes| pair.ask(bytes));
        let all = pair.client.bytes();
        pair.carry_up(cut);
        assert!(cut == 0 || pair.client.waiting() < all);
        while pair.hear_up().is_some() {}
        pair.cut();
        pair.reconnect(2);
        assert_eq!(pair.client.waiting(), pair.client.bytes());
        pair.settle();
        assert_eq!(pair.heard, [4, 0], "cut after {cut} frames");
    }
}

/// What had been taken in when another connection took over is not sent again, and what is heard later on the old one is
/// not taken in.
#[test]
fn half_open_connections_take_nothing_in() {
    let mut pair = Pair::new();
    (0..3).for_each(|_| pair.ask(10));
    pair.carry_up(1);
    pair.hear_up();
    pair.ask(10);
    pair.carry_up(1);
    // It is on its way when the client connects anew.
    pair.reconnect(2);
    pair.settle();
    assert_eq!(pair.heard, [5, 0]);
}
