//! Valid and invalid commands of a coordinator.

use std::time::Duration;

use farpool_proto::limits;
pub(crate) use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::{
    Assign, CancelChunks, Chunk, Drain, EndJob, FailureKind, OutputStream, ResizePool, Retract, StartJob, StartPool,
    StopPool, Version, WorkerSettings,
};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::pools::host::{Event, Gate, Host, is_alive, output_of, program, segment, start};

crate::pools::cases![
    one_assign_for_several_pools,
    invalid_commands_are_refused,
    a_bad_pool_fails_alone,
    a_bad_job_fails_alone,
    a_large_function_arrives,
    a_large_function_goes_only_where_it_is_needed,
    an_item_does_not_wait_for_a_stopped_worker_that_gets_its_function,
    shared_values_reach_every_worker_before_its_items,
    a_job_ends_while_a_large_item_is_being_sent,
    commands_about_a_failed_pool_are_valid,
    stopped_pools_forget_their_jobs,
    fewer_workers_and_more,
    draining_returns_items_that_have_not_begun,
    a_chunk_that_must_stay_together_is_finished_when_draining,
    a_welcome_is_ignored,
];

pub(crate) fn start_job(pool: u64, job: u64) -> Command {
    Command::StartJob(StartJob { pool, job, function: vec![1].into(), ..StartJob::default() })
}

pub(crate) fn chunk(chunk: u64, job: u64, segments: u32) -> Chunk {
    Chunk { chunk, job, first: 10 * chunk, attempt: 1, segments }
}

fn one_assign_for_several_pools() {
    let mut host = Host::new(2);
    host.pool(1);
    host.pool(2);
    host.send(start_job(1, 11));
    let chunks = vec![chunk(1, 1, 1), chunk(2, 2, 1), chunk(3, 11, 1), chunk(4, 2, 1)];
    let segments = ["echo a", "echo b", "echo c", "echo d"].map(segment).to_vec();
    host.send(Command::Assign(Assign { chunks, segments }));
    assert_eq!([1, 2, 3, 4].map(|chunk| host.result(chunk)), ["a", "b", "c", "d"]);
    host.end();
}

fn invalid_commands_are_refused() {
    let check = |body: Command, words: &str| {
        let mut host = Host::new(1);
        host.pool(1);
        let refused = host.try_send(body).expect_err("the command is invalid").to_string();
        assert!(refused.contains(words), "{refused}");
        // Only the session is over; the agent is intact.
        host.end();
    };
    let assign = |chunks: &[Chunk], items: &[&str]| {
        let segments = items.iter().copied().map(segment).collect();
        Command::Assign(Assign { chunks: chunks.to_vec(), segments })
    };
    check(Command::StartPool(Box::new(StartPool { pool: 1, ..start() })), "pool 1 was started twice");
    check(start_job(1, 1), "started twice");
    check(start_job(9, 9), "which does not exist here");
    check(assign(&[chunk(1, 9, 1)], &["echo"]), "was not started");
    check(assign(&[chunk(1, 1, 2)], &["echo"]), "missing");
    check(assign(&[chunk(1, 1, 1)], &["echo", "echo"]), "belong to no chunk");
    check(assign(&[chunk(1, 1, 0)], &[]), "malformed");
    let mut lies = assign(&[chunk(1, 1, 1)], &["echo"]);
    if let Command::Assign(lies) = &mut lies {
        lies.segments[0].start = 100;
    }
    check(lies, "malformed");
}

fn a_bad_pool_fails_alone() {
    let mut host = Host::new(1);
    host.pool(1);
    let worker = host.run(1, "pid");
    fn settings(start: &mut StartPool) -> &mut WorkerSettings {
        start.settings.get_or_insert_default()
    }
    type Bad = (fn(&mut StartPool), &'static str);
    let bad: [Bad; 10] = [
        (|start| settings(start).payload_limit = (2 << 30) + 1, "(payload_limit): 2147483649"),
        (|start| settings(start).payload_limit = 1 << 63, "(payload_limit): 9223372036854775808"),
        (|start| settings(start).payload_limit = u64::MAX, "(payload_limit): 18446744073709551615"),
        (|start| settings(start).threads = 1025, "threads in a worker: 1025"),
        (|start| settings(start).name = "x".repeat(1025), "the pool's name: 1025"),
        (|start| settings(start).initializer = vec![0; (1 << 30) + 1].into(), "the initializer's function: 1073741825"),
        (|start| start.weight = 10_001, "(weight): 10001"),
        (|start| start.weight = u32::MAX, "(weight): 4294967295"),
        (|start| start.processes = (1 << 20) + 1, "workers in the pool: 1048577"),
        (|start| start.processes = u32::MAX, "workers in the pool: 4294967295"),
    ];
    for (pool, (change, words)) in (2..).zip(bad) {
        let mut bad = StartPool { pool, ..start() };
        change(&mut bad);
        host.agent.start_pool(bad, program("serves")).expect("the coordinator is not to blame");
        let failure = host.pool_fault(pool);
        assert_eq!(failure.kind(), FailureKind::InvalidArgument);
        assert!(failure.message.contains(words), "{words}: {failure:?}");
        host.wait_for_event(|event| matches!(event, Event::PoolStopped(stopped) if stopped.pool == pool));
    }
    assert_eq!(host.run(1, "pid"), worker, "the other pool keeps its worker");
    host.end();
}

fn a_bad_job_fails_alone() {
    let mut host = Host::new(1);
    host.pool(1);
    let worker = host.run(1, "pid");
    let function = vec![0; limits::FUNCTION_BYTES + 1].into();
    host.send(Command::StartJob(StartJob { pool: 1, job: 5, function, ..StartJob::default() }));
    // More items than are reported in one turn, and another chunk that is no longer wanted.
    let many = vec!["echo"; 3000];
    let segments = many.iter().chain(&["echo"]).copied().map(segment).collect();
    host.send(Command::Assign(Assign { chunks: vec![chunk(70, 5, 3000), chunk(71, 5, 1)], segments }));
    host.send(Command::CancelChunks(CancelChunks { chunks: vec![71] }));
    let faults = |events: &[Event]| {
        let faults = events.iter().filter_map(|event| match event {
            Event::ItemFault(fault) => Some((fault.chunk, fault.item, fault.failure.clone().unwrap_or_default())),
            _ => None,
        });
        faults.collect::<Vec<_>>()
    };
    let events = host.wait(|events| (faults(events).len() >= 3000).then(|| faults(events)));
    for (at, (chunk, item, failure)) in (700..).zip(&events) {
        assert_eq!((*chunk, *item, failure.kind()), (70, at, FailureKind::InvalidArgument), "{failure:?}");
        assert!(failure.message.contains(": 1073741825"), "{failure:?}");
    }
    assert_eq!(host.run(1, "pid"), worker, "the other job keeps its worker");
    assert_eq!(faults(&host.events).len(), 3000);
    host.send(Command::EndJob(EndJob { job: 5, kill: false }));
    host.agent.drain();
    host.wait_until(|agent| agent.is_drained());
    host.end();
}

fn a_large_function_arrives() {
    let mut host = Host::new(2);
    host.pool(1);
    for (job, bytes) in [(5, 300_000), (6, 5 << 20), (7, 33 << 20)] {
        let function = vec![1; bytes].into();
        host.send(Command::StartJob(StartJob { pool: 1, job, function, ..StartJob::default() }));
    }
    let segments = ["echo a", "echo b", "echo c", "echo d"].map(segment).to_vec();
    let chunks = vec![chunk(7, 7, 1), chunk(8, 5, 1), chunk(9, 7, 1), chunk(10, 6, 1)];
    host.send(Command::Assign(Assign { chunks, segments }));
    assert_eq!([7, 8, 9, 10].map(|chunk| host.result(chunk)), ["a", "b", "c", "d"]);
    host.end();
}

/// Starts a pool of two workers, which are ready and have run an item each. Returns their process ids. `name`: of the gates.
fn two_idle_workers(name: &str) -> (Host, [Pid; 2]) {
    let mut host = Host::new(2);
    host.pool_of(StartPool { pool: 1, processes: 2, ..start() });
    let gates = ["a", "b"].map(|gate| Gate::new(&format!("{name}-{gate}")));
    let waiting_items = gates.each_ref().map(|gate| format!("after {} pid", gate.path()));
    let running = host.assign(1, [&waiting_items[0], &waiting_items[1]]);
    host.wait_for_output(1, "listening\nlistening\n");
    gates.iter().for_each(Gate::open);
    let pids = running.map(|chunk| {
        let result = host.result(chunk);
        let digits = result.trim_start_matches(|letter: char| !letter.is_ascii_digit());
        Pid::from_raw(digits.parse().expect("a process id"))
    });
    (host, pids)
}

/// A worker that gets it takes the item after it: no other worker needs it. Workers that are idle afterwards do not keep it.
fn a_large_function_goes_only_where_it_is_needed() {
    let (mut host, _) = two_idle_workers("needed");
    let function = vec![1; 33 << 20].into();
    host.send(Command::StartJob(StartJob { pool: 1, job: 5, function, ..StartJob::default() }));
    host.send(Command::Assign(Assign { chunks: vec![chunk(70, 5, 1)], segments: vec![segment("echo a")] }));
    assert_eq!(host.result(70), "a");
    host.send(Command::EndJob(EndJob { job: 5, kill: false }));
    let forgets = |events: &[Event]| output_of(events, 1, OutputStream::Stderr).contains("forgets");
    host.wait(|events| forgets(events).then_some(()));
    assert_eq!(host.output(1, OutputStream::Stderr), "learns\nforgets\n");

    // Both workers need it if there is an item for each.
    let gates = [Gate::new("needed-3"), Gate::new("needed-4")];
    let waiting_items = gates.each_ref().map(|gate| segment(&format!("hear {}", gate.path())));
    host.events.clear();
    let function = vec![1; 33 << 20].into();
    host.send(Command::StartJob(StartJob { pool: 1, job: 6, function, ..StartJob::default() }));
    let chunks = vec![chunk(80, 6, 1), chunk(81, 6, 1)];
    host.send(Command::Assign(Assign { chunks, segments: waiting_items.to_vec() }));
    host.wait_for_output(1, "listening\nlistening\n");
    gates.iter().for_each(Gate::open);
    host.end();
}

fn an_item_does_not_wait_for_a_stopped_worker_that_gets_its_function() {
    for stopped in [0, 1] {
        let (mut host, pids) = two_idle_workers(&format!("stop-{stopped}"));
        kill(pids[stopped], Signal::SIGSTOP).expect("the worker runs");
        let function = vec![1; 33 << 20].into();
        host.send(Command::StartJob(StartJob { pool: 1, job: 5, function, ..StartJob::default() }));
        host.send(Command::Assign(Assign { chunks: vec![chunk(70, 5, 1)], segments: vec![segment("pid")] }));
        assert_eq!(host.result(70), pids[1 - stopped].to_string());
        host.end();
    }
}

/// A large one takes several rounds to write.
fn shared_values_reach_every_worker_before_its_items() {
    let mut host = Host::new(2);
    host.pool(1);
    let share =
        |job, bytes| StartJob { pool: 1, job, function: vec![1; bytes].into(), shared: true, ..StartJob::default() };
    host.send(Command::StartJob(share(5, 40 << 20)));
    host.send(Command::StartJob(share(6, 1)));
    let both = ((40 << 20) + 1).to_string();
    assert_eq!(host.run(1, "shared"), both);
    host.send(Command::EndJob(EndJob { job: 5, kill: false }));
    host.send(Command::Assign(Assign { chunks: vec![chunk(100, 1, 1)], segments: vec![segment("exit 3")] }));
    host.wait_for_event(|event| matches!(event, Event::ItemFault(_)));
    let found = [host.run(1, "shared"), host.run(1, "shared")];
    assert!(found.contains(&"1".to_owned()) && found.iter().all(|sum| *sum == both || sum == "1"), "{found:?}");
    host.end();
}

/// The worker is told to forget the function of the job that has ended, but not between the pieces of the item.
fn a_job_ends_while_a_large_item_is_being_sent() {
    let mut host = Host::new(1);
    let settings = WorkerSettings { payload_limit: 64 << 20, ..WorkerSettings::default() };
    host.pool_of(StartPool { pool: 1, settings: Some(settings), ..start() });
    let worker = Pid::from_raw(host.run(1, "pid").parse().expect("a process id"));
    host.send(start_job(1, 11));
    kill(worker, Signal::SIGSTOP).expect("the worker runs");
    let item = format!("length {}", "x".repeat(9 << 20));
    host.send(Command::Assign(Assign { chunks: vec![chunk(7, 11, 1)], segments: vec![segment(&item)] }));
    host.drive_for(Duration::from_millis(20));
    host.send(Command::EndJob(EndJob { job: 1, kill: false }));
    host.drive_for(Duration::from_millis(20));
    kill(worker, Signal::SIGCONT).expect("the worker runs");
    assert_eq!(host.result(7), (9 << 20).to_string());
    host.send(Command::Assign(Assign { chunks: vec![chunk(8, 11, 1)], segments: vec![segment("pid")] }));
    assert_eq!(host.result(8), worker.to_string(), "the worker was not replaced");
    host.end();
}

/// The coordinator could not know that yet.
fn commands_about_a_failed_pool_are_valid() {
    let mut host = Host::new(1);
    host.pool(1);
    host.agent.start_pool(StartPool { pool: 2, ..start() }, program("complains")).unwrap();
    host.send(start_job(2, 2));
    host.pool_fault(2);
    host.send(start_job(2, 22));
    host.wait_for_event(|event| matches!(event, Event::PoolStopped(stopped) if stopped.pool == 2));
    host.send(start_job(2, 222));
    let chunks = vec![chunk(1, 2, 1), chunk(2, 1, 1), chunk(3, 22, 1), chunk(4, 222, 1)];
    let segments = ["echo a", "echo b", "echo c", "echo d"].map(segment).to_vec();
    host.send(Command::Assign(Assign { chunks, segments }));
    host.send(Command::Retract(Retract { chunks: vec![1, 3] }));
    host.send(Command::ResizePool(ResizePool { pool: 2, processes: 3 }));
    assert_eq!(host.result(2), "b");
    host.send(Command::EndJob(EndJob { job: 22, kill: true }));
    // Now the coordinator knows.
    host.send(Command::StopPool(StopPool { pool: 2, now: true }));
    assert!(host.try_send(start_job(2, 3)).is_err());
    host.end();
}

fn stopped_pools_forget_their_jobs() {
    let mut host = Host::new(1);
    host.pool(1);
    assert_eq!(host.run(1, "echo a"), "a");
    host.send(Command::StopPool(StopPool { pool: 1, now: false }));
    host.wait_for_event(|event| matches!(event, Event::PoolStopped(_)));
    assert!(host.agent.is_empty());
    // The same numbers may be used again.
    host.events.clear();
    host.pool(1);
    assert_eq!(host.run(1, "echo b"), "b");
    host.end();
}

fn fewer_workers_and_more() {
    let mut host = Host::new(3);
    host.pool_of(StartPool { pool: 1, processes: 2, ..start() });
    let gates = [Gate::new("fewer-1"), Gate::new("fewer-2")];
    let waiting_items = gates.each_ref().map(|gate| format!("hear {}", gate.path()));
    let running = host.assign(1, [&waiting_items[0], &waiting_items[1]]);
    host.wait_for_output(1, "listening\nlistening\n");
    host.send(Command::ResizePool(ResizePool { pool: 1, processes: 1 }));
    gates.iter().for_each(Gate::open);
    running.into_iter().for_each(|chunk| drop(host.result(chunk)));
    let pids = host.assign(1, ["pid"; 6]).map(|chunk| host.result(chunk));
    assert!(pids.iter().all(|pid| *pid == pids[0]), "more than one worker runs items: {pids:?}");
    host.send(Command::ResizePool(ResizePool { pool: 1, processes: 3 }));
    let gates = [Gate::new("more-1"), Gate::new("more-2"), Gate::new("more-3")];
    let waiting_items = gates.each_ref().map(|gate| format!("hear {}", gate.path()));
    host.events.clear();
    let running = host.assign(1, [&waiting_items[0], &waiting_items[1], &waiting_items[2]]);
    host.wait_for_output(1, "listening\nlistening\nlistening\n");
    gates.iter().for_each(Gate::open);
    running.into_iter().for_each(|chunk| drop(host.result(chunk)));
    host.end();
}

fn returned(events: &[Event], chunk: u64) -> Option<u64> {
    events.iter().find_map(|event| match event {
        Event::Returned(back) if back.chunk == chunk => Some(back.count),
        _ => None,
    })
}

fn draining_returns_items_that_have_not_begun() {
    let mut host = Host::new(1);
    host.pool(1);
    host.pool(2);
    let gate = Gate::new("drain");
    let [runs] = host.assign(1, [&format!("hear {}", gate.path())]);
    host.wait_for_output(1, "listening");
    let waiting = [host.assign(1, ["echo a"]), host.assign(2, ["echo b"])].concat();
    host.send(Command::Drain(Drain {}));
    host.agent.drain();
    // Items in flight are returned too.
    let [late] = host.assign(2, ["echo c"]);
    for chunk in waiting.into_iter().chain([late]) {
        assert_eq!(host.wait(|events| returned(events, chunk)), 1);
    }
    host.agent.start_pool(StartPool { pool: 3, ..start() }, program("serves")).unwrap();
    assert!(host.pool_fault(3).message.contains("leaving"));
    assert!(!host.agent.is_drained());
    gate.open();
    assert_eq!(host.result(runs), "go on");
    assert!(host.agent.is_drained());
    let draining = host.events.iter().filter(|event| matches!(event, Event::Draining(_))).count();
    assert_eq!(draining, 1, "draining is reported once");
    host.end();
}

fn a_chunk_that_must_stay_together_is_finished_when_draining() {
    let mut host = Host::new(1);
    host.pool(1);
    host.send(Command::StartJob(StartJob { whole_chunks: true, ..job_of(1, 8) }));
    let gate = Gate::new("whole");
    let items = [&format!("hear {}", gate.path()), "echo b", "echo c"].map(segment).to_vec();
    host.send(Command::Assign(Assign { chunks: vec![chunk(1, 8, 3)], segments: items }));
    host.wait_for_output(1, "listening");
    host.agent.drain();
    gate.open();
    let items: u64 = 3;
    host.wait(|events| {
        let done = events.iter().map(|event| match event {
            Event::RunDone(done) if done.chunk == 1 => done.ends.len() as u64 / 4,
            _ => 0,
        });
        (done.sum::<u64>() == items).then_some(())
    });
    assert!(returned(&host.events, 1).is_none());
    assert!(host.agent.is_drained());
    host.end();
}

pub(crate) fn job_of(pool: u64, job: u64) -> StartJob {
    StartJob { pool, job, function: vec![1].into(), ..StartJob::default() }
}

fn a_welcome_is_ignored() {
    let mut host = Host::new(1);
    host.send(Command::Welcome(Version::default()));
    host.pool(1);
    let pid = host.run(1, "pid");
    assert!(is_alive(&pid));
    host.end();
    assert!(!is_alive(&pid));
}
