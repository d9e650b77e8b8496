//! The counting, for peers with arbitrary counts. Honest peers are in `tests/link`.

use farpool_proto::v1::{Credit, agent_event::Body};

use super::*;
use farpool_proto::v1::AgentEvent;
use proptest::prelude::*;

/// None of these messages is large.
const WHOLE: usize = 1 << 20;

fn message(number: u32) -> AgentEvent {
    AgentEvent { body: Some(Body::Credit(Credit { chunks: number, bytes: 1 })) }
}

fn number(message: &AgentEvent) -> u64 {
    match &message.body {
        Some(Body::Credit(credit)) => u64::from(credit.chunks),
        other => panic!("unexpected message: {other:?}"),
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Push(u32),
    Take,
    /// The peer acknowledges this percentage of the messages that are sent and not acknowledged.
    Acknowledge(u64),
    GoBack(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (1..6u32).prop_map(Step::Push),
        Just(Step::Take),
        (0..=100u64).prop_map(Step::Acknowledge),
        (0..=100u64).prop_map(Step::GoBack),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    #[test]
    fn sent_messages_follow_the_acknowledged_ones(steps in steps()) {
        let (mut kept, mut pushed, mut acknowledged, mut sent, mut size) = (Unacknowledged::default(), 0, 0, 0, 0);
        for step in steps {
            match step {
                Step::Push(count) => {
                    let fresh = (pushed..pushed + count).map(message).map(|message| (message, 5));
                    size += size_of_messages::<AgentEvent>(5 * count as usize, count as usize);
                    kept.fresh.extend(fresh);
                    pushed += count;
                }
                Step::Take => {
                    let Some(taken) = kept.take(WHOLE) else {
                        prop_assert_eq!(sent, u64::from(pushed));
                        continue;
                    };
                    let Taken::Whole(messages, _) = taken else { panic!("the message is small") };
                    for message in messages.iter() {
                        prop_assert_eq!(number(message), sent);
                        sent += 1;
                    }
                }
                Step::Acknowledge(percent) => {
                    acknowledged += (sent - acknowledged) * percent / 100;
                    size -= kept.acknowledge(acknowledged).expect("the count is possible").size;
                }
                Step::GoBack(percent) => {
                    acknowledged += (sent - acknowledged) * percent / 100;
                    size -= kept.resend_from(acknowledged).expect("the count is possible").size;
                    sent = acknowledged;
                }
            }
            prop_assert!(kept.acknowledge(sent + 1).is_err());
            prop_assert!(kept.resend_from(sent + 1).is_err());
            prop_assert!(acknowledged == 0 || kept.acknowledge(acknowledged - 1).is_err());
            prop_assert!(acknowledged == 0 || kept.resend_from(acknowledged - 1).is_err());
            prop_assert_eq!(kept.acknowledged(), acknowledged);
        }
        while kept.take(WHOLE).is_some() {}
        size -= kept.acknowledge(u64::from(pushed)).expect("all is sent").size;
        prop_assert_eq!((size, kept.frames.len()), (0, 0));
    }
}
