mod detached;

use std::collections::{BTreeMap, BTreeSet};

use farpool_proto::v1::{CancelJob, EndItems, Items, OpenJob, StopRetries};
use proptest::prelude::*;

use super::*;

fn kept() -> KeptSession {
    KeptSession::new(OpenPool { id: vec![7; 16].into(), weight: 3, ..OpenPool::default() }.into())
}

fn open(job: u64, retries: u32) -> Body {
    Body::OpenJob(Box::new(OpenJob { job, retries, ..OpenJob::default() }))
}

/// Keeps a message as the first one in its session.
fn keep(kept: &mut KeptSession, body: &Body) -> bool {
    kept.keep(body, SendState::Queued(1))
}

/// Ends the session, and resends everything in another one.
fn resend(kept: &mut KeptSession) -> Vec<Body> {
    kept.end_session(1);
    kept.resend(1, 1 << 20)
}

/// Returns the payload of an item. Lengths differ, so that a wrong cut is noticed.
fn payload(job: u64, item: u64) -> Vec<u8> {
    vec![(job * 31 + item) as u8; (item * 7 % 23) as usize]
}

fn items(job: u64, run: Run) -> Items {
    let (mut data, mut ends) = (Vec::new(), Vec::new());
    for item in run.first..run.end() {
        data.extend(payload(job, item));
        ends.extend((data.len() as u32).to_le_bytes());
    }
    Items { job, first: run.first, data: data.into(), ends: ends.into() }
}

fn send(kept: &mut KeptSession, job: u64, first: u64, count: u64) -> u64 {
    let items = items(job, Run::new(first, count));
    let bytes = size(&items);
    assert!(keep(kept, &Body::Items(items)));
    bytes
}

fn size(items: &Items) -> u64 {
    (items.data.len() + items.ends.len()) as u64
}

/// Returns the items in these messages, after checking their payloads.
fn items_in(messages: &[Body]) -> BTreeMap<u64, BTreeSet<u64>> {
    let mut found: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    for message in messages {
        match message {
            Body::OpenJob(open) => assert!(found.insert(open.job, BTreeSet::new()).is_none()),
            Body::Items(sent) => {
                let run = Run::new(sent.first, sent.ends.len() as u64 / 4);
                assert_eq!(*sent, items(sent.job, run));
                assert!(run.count > 0);
                let before = found.get_mut(&sent.job).expect("the job was not opened");
                assert!(before.last().is_none_or(|last| *last < run.first), "indices rise");
                before.extend(run.first..run.end());
            }
            _ => {}
        }
    }
    found
}

#[test]
fn items_without_an_outcome_are_resent_to_a_reopened_pool() {
    let mut kept = kept();
    assert!(keep(&mut kept, &open(1, 2)) && keep(&mut kept, &open(2, 2)));
    let sent = send(&mut kept, 1, 0, 10) + send(&mut kept, 1, 12, 8);
    send(&mut kept, 2, 0, 3);
    assert!(keep(&mut kept, &Body::EndItems(EndItems { job: 2 })));
    assert_eq!(kept.finish(1, 0, 4), Fresh::All);
    assert_eq!(kept.finish(1, 6, 1), Fresh::All);
    assert_eq!(kept.finish(1, 15, 5), Fresh::All);
    kept.end_job(9);
    kept.note_agent(PoolAt { agent: vec![2; 16].into(), gone: false });
    kept.note_agent(PoolAt { agent: vec![1; 16].into(), gone: false });
    kept.note_agent(PoolAt { agent: vec![2; 16].into(), gone: true });
    let Body::OpenPool(pool) = kept.opening(true) else { panic!("the first message is not OpenPool") };
    assert!(pool.again && pool.agents == [vec![1; 16]] && pool.id == vec![7; 16] && pool.weight == 3);
    assert_eq!(kept.welcome(vec![5; 16].into()), []);
    let resent = resend(&mut kept);
    assert_eq!(shape(&resent), ["open 1", "1 4+2", "1 7+3", "1 12+3", "open 2", "2 0+3", "end 2", "reopened"]);
    items_in(&resent);
    // Limits count what was resent, which is less.
    let again: u64 = resent.iter().map(|body| if let Body::Items(items) = body { size(items) } else { 0 }).sum();
    let again = again - size(&items(2, Run::new(0, 3)));
    assert_eq!(kept.translate(1, 1000), 1000 + sent - again);
    assert_eq!(kept.translate(2, 1000), 1000);
}

#[test]
fn a_reopened_pool_is_closed_again() {
    let mut kept = kept();
    assert!(keep(&mut kept, &Body::ClosePool(ClosePool { now: false })));
    assert!(matches!(resend(&mut kept)[..], [Body::PoolReopened(_), Body::ClosePool(ClosePool { now: false })]));
    // The pool was terminated while it was being reopened: nothing must run, whatever was sent before or after.
    assert!(keep(&mut kept, &Body::ClosePool(ClosePool { now: true })));
    assert!(keep(&mut kept, &Body::ClosePool(ClosePool { now: false })));
    assert!(matches!(resend(&mut kept)[..], [Body::PoolReopened(_), Body::ClosePool(ClosePool { now: true })]));
}

#[test]
fn nothing_is_sent_for_a_job_that_has_ended() {
    let mut kept = kept();
    assert!(keep(&mut kept, &open(1, 2)));
    kept.end_job(1);
    for body in [Body::Items(items(1, Run::new(0, 1))), Body::EndItems(EndItems { job: 1 })] {
        assert!(!keep(&mut kept, &body));
    }
    assert!(!keep(&mut kept, &Body::CancelJob(CancelJob { job: 1 })));
    assert!(matches!(resend(&mut kept)[..], [Body::PoolReopened(_)]));
}

#[test]
fn a_cancelled_job_is_not_reopened() {
    let mut kept = kept();
    for job in [1, 2, 3] {
        assert!(keep(&mut kept, &open(job, 2)));
    }
    assert!(
        keep(&mut kept, &Body::CancelJob(CancelJob { job: 3 }))
            && keep(&mut kept, &Body::CancelJob(CancelJob { job: 1 }))
    );
    let cancelled = |job| JobEnded { job, cancelled: true };
    assert_eq!(kept.take_ended(), [cancelled(1), cancelled(3)]);
    assert_eq!(items_in(&resend(&mut kept)).into_keys().collect::<Vec<_>>(), [2]);
}

#[test]
fn a_job_with_all_outcomes_needs_no_coordinator() {
    let mut kept = kept();
    for job in [1, 2] {
        assert!(keep(&mut kept, &open(job, 2)));
        send(&mut kept, job, 0, 2);
        assert!(matches!(kept.finish(job, 0, 2), Fresh::All));
    }
    assert!(keep(&mut kept, &Body::EndItems(EndItems { job: 2 })));
    assert_eq!(kept.take_ended(), [JobEnded { job: 2, cancelled: false }]);
    assert_eq!(kept.take_ended(), []);
}

#[test]
fn a_job_is_reopened_without_stopped_retries() {
    let mut kept = kept();
    for job in [1, 2] {
        let open = OpenJob { job, retries: 2, retry_failed: true, retry_panics: true, ..OpenJob::default() };
        assert!(keep(&mut kept, &Body::OpenJob(Box::new(open))));
    }
    assert!(keep(&mut kept, &Body::StopRetries(StopRetries { job: 1 })));
    assert!(!keep(&mut kept, &Body::StopRetries(StopRetries { job: 3 })), "there is no such job");
    let resent = resend(&mut kept);
    let opened = resent.iter().filter_map(|body| if let Body::OpenJob(open) = body { Some(open) } else { None });
    let opened: Vec<_> = opened.map(|open| (open.job, open.retries, open.retry_failed, open.retry_panics)).collect();
    assert_eq!(opened, [(1, 2, false, false), (2, 2, true, true)]);
}

#[test]
fn a_repeated_outcome_is_not_delivered() {
    let mut kept = kept();
    assert!(keep(&mut kept, &open(1, 2)));
    send(&mut kept, 1, 0, 100);
    send(&mut kept, 1, 100, 100);
    assert_eq!(kept.finish(1, 10, 80), Fresh::All);
    assert_eq!(kept.finish(1, 20, 5), Fresh::Some(vec![]));
    assert_eq!(kept.finish(1, 0, 110), Fresh::Some(vec![Run::new(0, 10), Run::new(90, 20)]));
    assert_eq!(kept.finish(1, 0, 1), Fresh::Some(vec![]));
    assert_eq!(kept.finish(1, 50, 100), Fresh::Some(vec![Run::new(110, 40)]));
    assert_eq!(kept.repeated(), 5 + 80 + 1 + 60);
    // Items that were never sent are not known here: the consumer reports them.
    assert_eq!(kept.finish(1, 199, 2), Fresh::All);
    assert_eq!(kept.finish(1, u64::MAX, 2), Fresh::All);
    assert_eq!(kept.finish(4, 0, 1), Fresh::All);
    // The other outcomes are new.
    assert_eq!(kept.finish(1, 150, 50), Fresh::All);
    assert_eq!(items_in(&resend(&mut kept))[&1], BTreeSet::new());
}

#[test]
fn the_new_part_of_a_run_has_the_same_results() {
    let Items { first, data, ends, .. } = items(1, Run::new(20, 10));
    let parts = part(
        &ItemsDone { job: 1, first, data, ends, failed: false, attempts: 0 },
        &[Run::new(20, 1), Run::new(23, 4), Run::new(29, 1)],
    );
    let runs = [Run::new(20, 1), Run::new(23, 4), Run::new(29, 1)];
    for (part, run) in parts.into_iter().zip(runs) {
        let Items { job, first, data, ends } = items(1, run);
        assert_eq!(part, ItemsDone { job, first, data, ends, failed: false, attempts: 0 });
    }
}

#[test]
fn results_with_invalid_ends_are_cut_without_a_panic() {
    let ends: Bytes = [9_u32, 3, u32::MAX, 0].iter().flat_map(|end| end.to_le_bytes()).collect();
    let done = ItemsDone { job: 1, first: 0, data: vec![1, 2, 3, 4].into(), ends, failed: false, attempts: 0 };
    for first in 0..4 {
        for count in 1..=4 - first {
            part(&done, &[Run::new(first, count)]);
        }
    }
}

#[test]
fn at_most_once_items_are_lost_only_at_the_same_coordinator() {
    let (first, second) = (Bytes::from_static(b"first"), Bytes::from_static(b"second"));
    let mut kept = kept();
    assert_eq!(kept.welcome(first.clone()), []);
    assert!(keep(&mut kept, &open(1, 0)) && keep(&mut kept, &open(2, 1)));
    send(&mut kept, 1, 0, 5);
    send(&mut kept, 2, 0, 5);
    assert_eq!(kept.finish(1, 1, 1), Fresh::All);
    // This message was never sent.
    assert!(kept.keep(&Body::Items(items(1, Run::new(5, 2))), SendState::Queued(2)));
    kept.end_session(1);
    // Another coordinator learns the state from the agents.
    assert_eq!(kept.welcome(second.clone()), []);
    let again = kept.resend(1, 1 << 20);
    assert_eq!(items_in(&again), BTreeMap::from([(1, [0, 2, 3, 4, 5, 6].into()), (2, (0..5).collect())]));
    assert!(kept.keep(&Body::Items(items(1, Run::new(7, 1))), SendState::Queued(again.len() as u64 + 2)));
    kept.end_session(again.len() as u64 + 1);
    kept.note_agent(PoolAt { agent: vec![1; 16].into(), gone: false });
    assert_eq!(kept.welcome(second.clone()), [(1, Run::new(0, 1)), (1, Run::new(2, 3)), (1, Run::new(5, 2))]);
    assert_eq!(items_in(&kept.resend(1, 1 << 20)), BTreeMap::from([(1, [7].into()), (2, (0..5).collect())]));
    // Only the coordinator can report that the pool no longer runs at an agent.
    assert!(matches!(kept.opening(true), Body::OpenPool(open) if open.agents.len() == 1));
    // Limits still count from the start.
    assert_eq!(kept.translate(1, 0), (0..7).map(|item| payload(1, item).len() as u64 + 4).sum::<u64>());
    // A session that no coordinator accepted changes nothing.
    kept.end_session(1);
    assert_eq!(kept.welcome(second), []);
}

/// Describes the messages in order, with the place of `PoolReopened`.
fn shape(resent: &[Body]) -> Vec<String> {
    let text = |body: &Body| match body {
        Body::OpenJob(open) => format!("open {}", open.job),
        Body::Items(items) => format!("{} {}+{}", items.job, items.first, items.ends.len() / 4),
        Body::EndItems(end) => format!("end {}", end.job),
        Body::PoolReopened(_) => "reopened".to_owned(),
        Body::AwaitingItems(awaiting) => format!("awaiting {}", awaiting.waits),
        other => panic!("unexpected message among the resent ones: {other:?}"),
    };
    resent.iter().map(text).collect()
}

#[test]
fn unsent_messages_follow_pool_reopened() {
    let mut kept = kept();
    let bodies = [
        open(1, 2),
        Body::Items(items(1, Run::new(0, 4))),
        open(2, 2),
        Body::Items(items(2, Run::new(0, 4))),
        Body::EndItems(EndItems { job: 2 }),
        Body::Items(items(1, Run::new(4, 4))),
        open(3, 2),
        Body::Items(items(3, Run::new(0, 4))),
        Body::EndItems(EndItems { job: 3 }),
        Body::EndItems(EndItems { job: 1 }),
    ];
    for (number, body) in (1..).zip(&bodies) {
        assert!(kept.keep(body, SendState::Queued(number)));
    }
    assert!(kept.keep(&open(4, 2), SendState::Unsent));
    kept.finish(1, 1, 1);
    kept.end_session(4);
    let last = ["1 4+4", "end 1", "open 3", "3 0+4", "end 3", "open 4"];
    let resent = kept.resend(1, 1 << 20);
    assert_eq!(
        shape(&resent),
        [&["open 1", "1 0+1", "1 2+2", "open 2", "2 0+4", "end 2", "reopened"][..], &last].concat()
    );
    // Half of job 1 is sent again. What was sent once stays sent.
    kept.end_session(2);
    assert_eq!(shape(&kept.resend(1, 1 << 20)), shape(&resent));
    // The first of the unsent messages is sent too.
    kept.end_session(9);
    let first = ["open 1", "1 0+1", "1 2+2", "1 4+4", "end 1", "open 2", "2 0+4", "end 2", "reopened"];
    assert_eq!(shape(&kept.resend(1, 1 << 20)), [&first[..], &last[2..]].concat());
}

/// After `PoolReopened` a window bounds the messages, and the next coordinator's may be smaller.
#[test]
fn messages_beyond_a_smaller_window_precede_pool_reopened() {
    let bytes = |first| size(&items(1, Run::new(first, 2)));
    for (window, chunksize, waits) in [
        (bytes(0) + bytes(2) + 1, 0, true),
        (bytes(0) + bytes(2), 0, false),
        (1, 0, false),
        (0, 0, false),
        // No chunk is complete without the rest.
        (1, 5, true),
        (1, 4, false),
    ] {
        let mut kept = kept();
        let open = Body::OpenJob(Box::new(OpenJob { job: 1, chunksize, ..OpenJob::default() }));
        assert!(keep(&mut kept, &open));
        for (first, number) in [(0, 1), (2, 2), (4, 3)] {
            assert!(kept.keep(&Body::Items(items(1, Run::new(first, 2))), SendState::Queued(number)));
        }
        kept.end_session(1);
        let resent = kept.resend(1, window);
        let expected = match waits {
            true => ["open 1", "1 0+2", "reopened", "1 2+2", "1 4+2"],
            false => ["open 1", "1 0+2", "1 2+2", "1 4+2", "reopened"],
        };
        assert_eq!(shape(&resent), expected, "{window} {chunksize}");
        assert_eq!(kept.translate(1, 5), 5);
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// A job, how many items are skipped, and how many are sent.
    Send(u64, u64, u64),
    /// A job, the position of an item, and how many items get an outcome, if they have none.
    Finish(u64, u64, u64),
    Again,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..3_u64, 0..3_u64, 1..90_u64).prop_map(|(job, gap, count)| Step::Send(job, gap, count)),
        8 => (0..3_u64, any::<u64>(), 1..150_u64).prop_map(|(job, at, count)| Step::Finish(job, at, count)),
        1 => Just(Step::Again),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #[test]
    fn exactly_the_items_without_an_outcome_are_resent(steps in steps()) {
        let mut kept = kept();
        let mut unfinished_runs: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        let (mut ends, mut sent) = ([0; 3], [0; 3]);
        for job in 0..3 {
            prop_assert!(keep(&mut kept, &open(job, 2)));
            unfinished_runs.insert(job, BTreeSet::new());
        }
        let mut expect_repeated = 0;
        for step in steps.into_iter().chain([Step::Again]) {
            match step {
                Step::Send(job, gap, count) => {
                    let first = ends[job as usize] + gap;
                    sent[job as usize] += send(&mut kept, job, first, count);
                    ends[job as usize] = first + count;
                    unfinished_runs.get_mut(&job).unwrap().extend(first..first + count);
                }
                Step::Finish(job, at, count) => {
                    let end = ends[job as usize];
                    if end == 0 {
                        continue;
                    }
                    let first = at % end;
                    let count = count.min(end - first);
                    let unfinished_runs = unfinished_runs.get_mut(&job).unwrap();
                    let fresh: BTreeSet<u64> = (first..first + count).filter(|item| unfinished_runs.remove(item)).collect();
                    expect_repeated += count - fresh.len() as u64;
                    let reported = match kept.finish(job, first, count) {
                        Fresh::All => (first..first + count).collect(),
                        Fresh::Some(runs) => runs.iter().flat_map(|run| run.first..run.end()).collect(),
                    };
                    prop_assert_eq!(fresh, reported);
                }
                Step::Again => {
                    let resent = resend(&mut kept);
                    prop_assert_eq!(&items_in(&resent), &unfinished_runs);
                    for job in 0..3 {
                        let again: u64 = resent
                            .iter()
                            .map(|body| match body {
                                Body::Items(items) if items.job == job => size(items),
                                _ => 0,
                            })
                            .sum();
                        prop_assert_eq!(kept.translate(job, again), sent[job as usize]);
                    }
                }
            }
        }
        prop_assert_eq!(kept.repeated(), expect_repeated);
    }
}

/// `cargo test -p farpool-session --release --lib -- --ignored --nocapture measure_keeping`
#[test]
#[ignore = "a measurement"]
fn measure_keeping() {
    const ITEMS: u64 = 1_000_000;
    // The CPU time of this thread, however busy the machine is.
    let now =
        || std::time::Duration::from(nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
    for (batch, run, shuffle) in [(16_384, 1, 0), (16_384, 1, 7), (16_384, 5000, 0), (64, 1, 7)] {
        let mut kept = kept();
        assert!(keep(&mut kept, &open(1, 2)));
        let messages: Vec<Body> = (0..ITEMS / batch)
            .map(|at| {
                let ends = vec![0; 4 * batch as usize].into();
                Body::Items(Items { job: 1, first: at * batch, data: Bytes::new(), ends })
            })
            .collect();
        let start = now();
        assert!(messages.iter().all(|message| keep(&mut kept, message)));
        let keeping = now() - start;
        let sent = ITEMS / batch * batch;
        let start = now();
        let mut first = 0;
        while first < sent {
            let count = run.min(sent - first);
            // Out of order within groups of eight.
            let item = if shuffle > 0 { (first ^ shuffle).min(sent - count) } else { first };
            assert_eq!(kept.finish(1, item, count), Fresh::All);
            first += count;
        }
        let (keeping, finished) =
            (keeping.as_nanos() as u64 / (sent / batch), (now() - start).as_nanos() as u64 / sent.div_ceil(run));
        println!(
            "batches of {batch}, outcomes of {run}: {keeping} ns a message of items, {finished} ns one of outcomes"
        );
    }
}

/// Jobs that were opened before may use them; a dropped one stays until these jobs are known.
#[test]
fn shared_values_come_first_and_are_dropped_last() {
    let mut kept = kept();
    keep(&mut kept, &open(1, 0));
    send(&mut kept, 1, 0, 2);
    let shared = |job| Body::OpenJob(Box::new(OpenJob { job, shared: true, ..OpenJob::default() }));
    keep(&mut kept, &shared(2));
    kept.end_session(1);
    // During the outage:
    kept.keep(&shared(3), SendState::Unsent);
    kept.keep(&Body::Items(items(1, Run::new(2, 1))), SendState::Unsent);
    kept.keep(&Body::CancelJob(CancelJob { job: 2 }), SendState::Unsent);
    assert_eq!(kept.take_ended(), []);
    let sent = kept.resend(1, 1 << 20);
    let opened = sent.iter().filter_map(|body| if let Body::OpenJob(open) = body { Some(open.job) } else { None });
    assert_eq!(opened.collect::<Vec<_>>(), [2, 3, 1]);
    assert_eq!(sent.last(), Some(&Body::CancelJob(CancelJob { job: 2 })));
    kept.end_job(2);
    assert_eq!(resend(&mut kept).iter().filter(|body| matches!(body, Body::CancelJob(_))).count(), 0);
}
