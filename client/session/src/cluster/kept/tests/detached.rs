//! Jobs that are being detached or read.

use farpool_proto::v1::{Detach, DetachedJob};

use super::*;

fn detaching(retries: u32) -> KeptSession {
    let mut kept = KeptSession::new(OpenPool { detached: true, ..OpenPool::default() }.into());
    let detach = Some(Detach { name: "nightly".to_owned(), ..Detach::default() });
    assert!(keep(&mut kept, &Body::OpenJob(Box::new(OpenJob { job: 1, retries, detach, ..OpenJob::default() }))));
    kept
}

fn is_invalid(noted: Result<(), Violation>) -> bool {
    matches!(noted, Err(Violation::Invalid(_)))
}

#[test]
fn items_are_kept_until_they_are_durable() {
    let mut kept = detaching(2);
    let sent = send(&mut kept, 1, 0, 10) + send(&mut kept, 1, 10, 10);
    assert!(kept.keep(&Body::Items(items(1, Run::new(20, 3))), SendState::Unsent));
    assert!(keep(&mut kept, &Body::EndItems(EndItems { job: 1 })));
    // That the session was accepted is not enough.
    kept.end_session(9);
    let all = ["open 1", "1 0+10", "1 10+10", "1 20+3", "end 1", "reopened"];
    assert_eq!(shape(&kept.resend(1, 1 << 20)), all);
    for (durable, rest) in [(0, &all[1..4]), (4, &["1 4+6", "1 10+10", "1 20+3"]), (12, &["1 12+8", "1 20+3"])] {
        kept.note_durable(1, durable, false).unwrap();
        assert_eq!(kept.progress(), durable);
        let resent = resend(&mut kept);
        assert_eq!(shape(&resent), [&["open 1"], rest, &["end 1", "reopened"]].concat());
        items_in(&resent);
        let Body::OpenJob(open) = &resent[0] else { panic!("the first message is not OpenJob") };
        assert_eq!(open.detach.as_ref().unwrap().durable, durable);
    }
    // Limits count what was resent.
    let again = size(&items(1, Run::new(12, 8)));
    assert_eq!(kept.translate(1, 1000), 1000 + sent - again);
    kept.note_durable(1, 23, false).unwrap();
    assert_eq!(kept.size(), (1, 0));
    assert_eq!(shape(&resend(&mut kept)), ["open 1", "end 1", "reopened"]);
    kept.note_durable(1, 23, true).unwrap();
}

#[test]
fn impossible_durable_reports_are_refused() {
    let mut kept = detaching(2);
    send(&mut kept, 1, 0, 10);
    kept.note_durable(1, 7, false).unwrap();
    assert_eq!(kept.note_durable(1, 6, false), Err(Violation::ItemsLost));
    assert!(is_invalid(kept.note_durable(1, 11, false)));
    assert!(is_invalid(kept.note_durable(1, 10, true)), "more items may follow");
    assert!(keep(&mut kept, &Body::EndItems(EndItems { job: 1 })));
    kept.note_durable(1, 10, true).unwrap();
    // Another job is not checked.
    kept.note_durable(2, 77, true).unwrap();
}

/// No item can have run, although the coordinator is the same.
#[test]
fn at_most_once_items_are_not_lost_while_a_job_is_detached() {
    let coordinator = Bytes::from_static(b"one");
    let mut kept = detaching(0);
    assert_eq!(kept.welcome(coordinator.clone()), []);
    send(&mut kept, 1, 0, 10);
    kept.end_session(9);
    assert_eq!(kept.welcome(coordinator), []);
    assert_eq!(shape(&kept.resend(1, 1 << 20)), ["open 1", "1 0+10", "reopened"]);
}

#[test]
fn messages_before_the_first_welcome_are_not_lost() {
    let mut kept = kept();
    for body in [open(1, 2), Body::Items(items(1, Run::new(0, 4))), Body::AwaitingItems(AwaitingItems { waits: true })]
    {
        assert!(kept.keep(&body, SendState::Unsent));
    }
    kept.end_session(1);
    assert_eq!(shape(&kept.send_first(1, 1 << 20)), ["open 1", "1 0+4", "awaiting true"]);
    assert_eq!(kept.translate(1, 1000), 1000);
}

#[test]
fn reading_resumes_at_the_first_missing_outcome() {
    let attach = Attach { name: "nightly".to_owned(), wait: true, job: 1, ..Attach::default() };
    let mut kept = KeptSession::new(attach.clone().into());
    assert_eq!(kept.opening(false), Body::Attach(Box::new(attach.clone())));
    let job = DetachedJob { items: 10, detached_ms: 5, ..DetachedJob::default() };
    let attached = kept.attached().unwrap();
    assert!(is_invalid(attached.advance(0, 1)), "the job was not described");
    attached.describe(&job).unwrap();
    attached.advance(0, 3).unwrap();
    // Some items may have no outcome.
    attached.advance(5, 2).unwrap();
    for (first, count) in [(6, 1), (0, 1), (7, 4), (u64::MAX, 2)] {
        assert!(is_invalid(attached.advance(first, count)), "{first} {count}");
    }
    assert_eq!(attached.describe(&DetachedJob { detached_ms: 6, ..job.clone() }), Err(Violation::JobReplaced));
    attached.describe(&job).unwrap();
    assert_eq!(kept.progress(), 7);
    assert!(keep(&mut kept, &Body::AwaitingItems(AwaitingItems { waits: true })));
    assert_eq!(kept.opening(true), Body::Attach(Box::new(Attach { first: 7, ..attach })));
    assert_eq!(shape(&resend(&mut kept)), ["awaiting true"]);
}
