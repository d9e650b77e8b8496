use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::mpsc;
use std::task::{Wake, Waker};
use std::time::Duration;

use super::*;
use crate::error::ErrorKind;

#[derive(Default)]
struct CountWakes(AtomicU32);

impl Wake for CountWakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn inbox(interest: Interest) -> Arc<Inbox> {
    Arc::new(Inbox::new(1, "map", "", interest))
}

fn done(inbox: &Inbox, first: u64, items: usize) {
    inbox.deliver_done(first, Bytes::new(), vec![0; 4 * items].into(), 0).wake();
}

/// How often a waker is woken by two outcomes and an end, set again after each.
fn check_wakes(interest: Interest, expected: [u32; 3]) {
    let inbox = inbox(interest);
    let wakes = Arc::new(CountWakes::default());
    let woken = || {
        inbox.set_waker(&Arc::clone(&wakes).into());
        wakes.0.load(Ordering::Relaxed)
    };
    woken();
    done(&inbox, 0, 1);
    let first = woken();
    inbox.deliver_failed(1, 1, Failure::default()).wake();
    let second = woken();
    inbox.end(End::Finished).wake();
    assert_eq!([first, second, woken()], expected);
}

#[test]
fn a_consumer_is_woken_for_what_it_waits_for() {
    check_wakes(Interest::Outcomes, [1, 2, 3]);
    check_wakes(Interest::End, [0, 0, 1]);
}

#[test]
fn a_consumer_of_the_end_gets_only_the_lowest_failure_and_what_precedes_it() {
    let firsts = |interest| {
        let inbox = inbox(interest);
        done(&inbox, 0, 2);
        for first in [9, 11, 7] {
            inbox.deliver_failed(first, 1, Failure::default()).wake();
            done(&inbox, 2 * first, 1);
            done(&inbox, first / 2, 1);
        }
        assert_eq!(inbox.finished(), 2 + 3 * 3);
        let mut deliveries = VecDeque::new();
        inbox.take(&mut deliveries);
        deliveries
            .iter()
            .map(|delivery| (delivery.first(), matches!(delivery, Delivery::Failed { .. })))
            .collect::<Vec<_>>()
    };
    assert_eq!(firsts(Interest::End), [(0, false), (7, true), (4, false), (5, false), (3, false)]);
    assert_eq!(firsts(Interest::Outcomes).len(), 1 + 3 * 3);
}

/// A waker that owns its task, as in some executors: dropping the last one drops what the task owns, which may use the
/// same job.
struct OwnsTask(Arc<Inbox>);

impl Wake for OwnsTask {
    fn wake(self: Arc<Self>) {}
}

impl Drop for OwnsTask {
    fn drop(&mut self) {
        self.0.discard();
    }
}

#[test]
fn a_waker_that_is_replaced_may_do_anything() {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let inbox = inbox(Interest::Outcomes);
        for _ in 0..2 {
            inbox.set_waker(&Arc::new(OwnsTask(Arc::clone(&inbox))).into());
        }
        sender.send(()).unwrap();
    });
    receiver.recv_timeout(Duration::from_secs(10)).expect("the first waker was dropped under the lock");
}

#[test]
fn outcomes_are_taken_once_and_the_last_take_reports_the_end() {
    let inbox = inbox(Interest::Outcomes);
    assert!(!inbox.has_arrivals());
    done(&inbox, 0, 3);
    assert!(inbox.has_arrivals());
    let mut deliveries = VecDeque::new();
    assert!(!inbox.take(&mut deliveries));
    assert_eq!((deliveries.len(), inbox.finished(), inbox.has_arrivals()), (1, 3, false));
    done(&inbox, 3, 1);
    inbox.end(End::Finished).wake();
    inbox.end(End::Cancelled).wake();
    deliveries.clear();
    assert!(inbox.take(&mut deliveries));
    assert_eq!(deliveries.len(), 1);
    assert!(inbox.has_arrivals());
    assert!(inbox.end_error().is_none());
}

#[test]
fn a_discarding_inbox_keeps_counting_but_holds_nothing() {
    let inbox = inbox(Interest::End);
    done(&inbox, 0, 1);
    inbox.discard();
    done(&inbox, 1, 2);
    let mut deliveries = VecDeque::new();
    inbox.take(&mut deliveries);
    assert_eq!((deliveries.len(), inbox.finished()), (0, 3));
}

#[test]
fn hooks_run_once_at_the_end_or_at_once_after_it() {
    let inbox = inbox(Interest::End);
    let runs = Arc::new(AtomicU32::new(0));
    let hook = || -> EndHook {
        let runs = Arc::clone(&runs);
        Box::new(move || {
            runs.fetch_add(1, Ordering::Relaxed);
        })
    };
    inbox.at_end(hook());
    done(&inbox, 0, 1);
    assert_eq!(runs.load(Ordering::Relaxed), 0);
    inbox.end(End::Finished).wake();
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    inbox.at_end(hook());
    assert_eq!(runs.load(Ordering::Relaxed), 2);
}

#[test]
fn parked_threads_are_unparked() {
    let inbox = inbox(Interest::End);
    thread::scope(|scope| {
        let waiters = [(); 2].map(|()| {
            scope.spawn(|| {
                while !inbox.has_arrivals() {
                    inbox.park(None);
                }
            })
        });
        let feeder = scope.spawn(|| inbox.park_until_room(Room { sent_bytes: 1, finished: 2 }));
        thread::sleep(Duration::from_millis(10));
        done(&inbox, 0, 1);
        done(&inbox, 1, 1);
        feeder.join().unwrap();
        thread::sleep(Duration::from_millis(10));
        assert!(waiters.iter().all(|waiter| !waiter.is_finished()), "a waiter was woken before the job's end");
        inbox.end(End::Finished).wake();
    });
    let start = Instant::now();
    let never = Inbox::new(2, "map", "", Interest::End);
    never.park(Some(start + Duration::from_millis(5)));
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_broken_job_reports_why_whatever_its_end() {
    let inbox = Inbox::new(1, "map", "render", Interest::End);
    inbox.break_with(Error::new(ErrorKind::Panicked, "the input iterator panicked"));
    inbox.break_with(Error::invalid("later"));
    assert!(inbox.end_error().is_none());
    inbox.end(End::Cancelled).wake();
    let error = inbox.end_error().unwrap();
    assert_eq!(error.kind(), ErrorKind::Panicked);
    assert_eq!(error.to_string(), "map \"render\": the input iterator panicked");
}

#[test]
fn hooks_have_run_when_the_end_is_seen() {
    let inbox = inbox(Interest::End);
    let (saw_end, seen) = (Arc::new(AtomicBool::new(true)), Arc::clone(&inbox));
    let note = Arc::clone(&saw_end);
    inbox.at_end(Box::new(move || note.store(seen.ended(), Ordering::Relaxed)));
    inbox.end(End::Finished).wake();
    assert!(!saw_end.load(Ordering::Relaxed) && inbox.ended());
}

#[test]
fn room_wakes_only_a_consumer_of_outcomes() {
    // Room wakes a consumer of outcomes, but not one that waits for the end.
    let (eager, patient) = (inbox(Interest::Outcomes), inbox(Interest::End));
    for (inbox, woken) in [(&eager, true), (&patient, false)] {
        let wakes = Arc::new(CountWakes::default());
        inbox.set_waker(&Arc::clone(&wakes).into());
        inbox.grant(10).wake();
        assert_eq!((inbox.has_arrivals(), wakes.0.load(Ordering::Relaxed)), (woken, u32::from(woken)));
        assert!(!inbox.take(&mut VecDeque::new()) && !inbox.has_arrivals());
        // The limit never falls, and granting it again wakes no consumer.
        inbox.grant(10).wake();
        inbox.grant(9).wake();
        assert_eq!((inbox.limit(), inbox.has_arrivals()), (10, false));
    }
}

#[test]
fn a_feeder_wakes_for_any_kind_of_room() {
    let room = Room { sent_bytes: 10, finished: 3 };
    let check = |makes_none: &dyn Fn(&Inbox), makes_some: &dyn Fn(&Inbox)| {
        let inbox = inbox(Interest::End);
        thread::scope(|scope| {
            let feeder = scope.spawn(|| inbox.park_until_room(room));
            thread::sleep(Duration::from_millis(5));
            makes_none(&inbox);
            thread::sleep(Duration::from_millis(5));
            assert!(!feeder.is_finished());
            makes_some(&inbox);
        });
        // Earlier changes are not waited for.
        inbox.park_until_room(room);
    };
    check(&|inbox| inbox.grant(10).wake(), &|inbox| inbox.grant(11).wake());
    check(&|inbox| done(inbox, 0, 2), &|inbox| done(inbox, 2, 1));
    check(&|inbox| done(inbox, 0, 1), &|inbox| inbox.end(End::Cancelled).wake());
}

#[test]
fn a_task_waits_only_while_nothing_has_arrived() {
    let inbox = Inbox::new(1, "get", "nightly", Interest::Outcomes);
    assert!(!inbox.is_waited_for());
    assert!(!inbox.wake_on_arrival(Waker::noop()));
    assert!(inbox.is_waited_for());
    inbox.deliver_failed(0, 1, Failure::default()).wake();
    assert!(!inbox.is_waited_for());
    assert!(inbox.wake_on_arrival(Waker::noop()), "an outcome has arrived");
    assert!(!inbox.is_waited_for(), "the task handles the outcome");
    let mut deliveries = VecDeque::new();
    assert!(!inbox.take(&mut deliveries) && deliveries.len() == 1);
    assert!(!inbox.wake_on_arrival(Waker::noop()));
}
