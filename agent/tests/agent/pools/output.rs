//! The output of workers.

use std::time::{Duration, Instant};

use farpool_proto::v1::{FailureKind, OutputStream};

use crate::pools::host::{Event, Host};

crate::pools::cases![
    both_streams_are_reported_line_by_line,
    an_unfinished_line_is_reported_as_it_is,
    all_output_is_reported_before_the_death,
    a_flood_is_slowed_down_and_delays_no_other_worker,
    held_outcomes_and_output_arrive_when_released,
];

fn both_streams_are_reported_line_by_line() {
    let mut host = Host::new(1);
    host.pool(1);
    let pid = host.run(1, "pid");
    host.run(1, "out first\nsecond\n");
    host.run(1, "err third\n");
    host.wait_for_output(1, "second\n");
    host.wait(|events| {
        let is_it = |event: &Event| matches!(event, Event::Output(output) if output.stream() == OutputStream::Stderr);
        events.iter().any(is_it).then_some(())
    });
    assert_eq!(host.output(1, OutputStream::Stdout), "first\nsecond\n");
    assert_eq!(host.output(1, OutputStream::Stderr), "third\n");
    for event in &host.events {
        if let Event::Output(output) = event {
            assert_eq!((output.pid.to_string(), output.data.last()), (pid.clone(), Some(&b'\n')));
        }
    }
    host.end();
}

fn an_unfinished_line_is_reported_as_it_is() {
    let mut host = Host::new(1);
    host.pool(1);
    host.run(1, "out half");
    host.run(1, "out  a line");
    let began = Instant::now();
    host.wait_for_output(1, "half a line");
    assert!(began.elapsed() < Duration::from_secs(5));
    host.end();
}

fn all_output_is_reported_before_the_death() {
    let mut host = Host::new(1);
    host.pool(1);
    host.run(1, "out before");
    host.run(1, "err the last words");
    let [dies] = host.assign(1, ["exit 3"]);
    let failure = host.outcome(dies).expect_err("the worker died");
    assert_eq!((failure.kind(), failure.stderr.as_str()), (FailureKind::WorkerDied, "the last words"));
    let before = &host.events[..host.position_of(dies)];
    for (stream, expected) in [(OutputStream::Stdout, "before"), (OutputStream::Stderr, "the last words")] {
        let events = before.iter().filter_map(|event| match event {
            Event::Output(output) if output.stream() == stream => Some(&output.data[..]),
            _ => None,
        });
        assert_eq!(String::from_utf8_lossy(&events.collect::<Vec<_>>().concat()), expected);
    }
    host.end();
}

fn a_flood_is_slowed_down_and_delays_no_other_worker() {
    let mut host = Host::new(2);
    host.pool(1);
    host.pool(2);
    let lines = 60_000;
    let began = Instant::now();
    let [flood] = host.assign(1, [&format!("flood {lines}")]);
    for _ in 0..20 {
        host.run(2, "out heard\n");
    }
    host.wait_for_output(2, &"heard\n".repeat(20));
    let others = began.elapsed();
    host.result(flood);
    let bytes = lines * "a line of sixteen\n".len();
    host.wait(|events| {
        let events = events.iter().map(|event| match event {
            Event::Output(output) if output.pool == 1 => output.data.len(),
            _ => 0,
        });
        (events.sum::<usize>() == bytes).then_some(())
    });
    // 1 MiB, a quarter of which may arrive at once.
    let took = began.elapsed();
    assert!(took > Duration::from_millis(650), "{took:?}");
    assert!(others < took / 2, "{others:?} of {took:?}");
    host.end();
}

fn held_outcomes_and_output_arrive_when_released() {
    let mut host = Host::new(1);
    host.pool(1);
    host.run(1, "echo ready");
    host.agent.hold(true);
    let before = host.events.len();
    let [chunk] = host.assign(1, ["out printed\n"]);
    host.drive_for(Duration::from_millis(30));
    let arrived = host.events[before..].iter().any(|event| matches!(event, Event::RunDone(_) | Event::Output(_)));
    assert!(!arrived, "{:?}", &host.events[before..]);
    host.agent.hold(false);
    host.result(chunk);
    host.wait_for_output(1, "printed\n");
    host.end();
}
