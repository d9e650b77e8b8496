//! Whatever happens to connections, each message arrives once and in order.

use farpool_testkit::doses;
use proptest::prelude::*;

use crate::pair::Pair;

#[derive(Clone, Debug)]
enum Step {
    Request(usize),
    Event(usize),
    CarryUp(usize),
    CarryDown(usize),
    ReceiveUp,
    ReceiveDown,
    Cut,
    /// Breaks again after this many frames.
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
        3 => sizes().prop_map(Step::Request),
        3 => sizes().prop_map(Step::Event),
        3 => (1..4usize).prop_map(Step::CarryUp),
        3 => (1..4usize).prop_map(Step::CarryDown),
        2 => Just(Step::ReceiveUp),
        2 => Just(Step::ReceiveDown),
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
                Step::Request(bytes) => pair.request(bytes),
                Step::Event(bytes) => pair.event(bytes),
                Step::CarryUp(count) => drop(pair.carry_up(count)),
                Step::CarryDown(count) => drop(pair.carry_down(count)),
                Step::ReceiveUp => drop(pair.receive_up()),
                Step::ReceiveDown => drop(pair.receive_down()),
                Step::Cut => pair.cut(),
                Step::Reconnect(breaks) => pair.reconnect(breaks),
            }
            prop_assert_eq!([pair.client.pushed(), pair.coordinator.pushed()], pair.sent);
            prop_assert!(pair.client.acknowledged() <= pair.received[0]);
            prop_assert!(pair.coordinator.acknowledged() <= pair.received[1]);
            prop_assert!(pair.client.waiting() <= pair.client.bytes());
        }
        pair.reconnect(2);
        pair.settle();
        prop_assert_eq!(pair.received, pair.sent);
        prop_assert_eq!((pair.client.waiting(), pair.coordinator.waiting()), (0, 0));
        // The last message makes the other side acknowledge all.
        pair.request(1);
        pair.settle();
        pair.event(1);
        pair.settle();
        prop_assert_eq!((pair.client.acknowledged(), pair.client.bytes()), (pair.sent[0], 0));
        pair.request(1);
        pair.settle();
        prop_assert_eq!((pair.coordinator.acknowledged(), pair.coordinator.bytes()), (pair.sent[1], 0));
    }
}

/// Each frame of a large message and of its neighbours is the last one to arrive in one of the runs.
#[test]
fn a_large_message_is_cut_anywhere() {
    for cut in 0..8 {
        let mut pair = Pair::new();
        [10, 5_000_000, 20].into_iter().for_each(|bytes| pair.request(bytes));
        let all = pair.client.bytes();
        pair.carry_up(cut);
        assert!(cut == 0 || pair.client.waiting() < all);
        while pair.receive_up().is_some() {}
        pair.cut();
        pair.reconnect(2);
        assert_eq!(pair.client.waiting(), pair.client.bytes());
        pair.settle();
        assert_eq!(pair.received, [4, 0], "cut after {cut} frames");
    }
}

/// Messages that had been received when another connection took over are not resent, and later frames of the old one
/// are refused.
#[test]
fn replaced_connections_receive_nothing() {
    let mut pair = Pair::new();
    (0..3).for_each(|_| pair.request(10));
    pair.carry_up(1);
    pair.receive_up();
    pair.request(10);
    pair.carry_up(1);
    // It is in flight when the client reconnects.
    pair.reconnect(2);
    pair.settle();
    assert_eq!(pair.received, [5, 0]);
}
