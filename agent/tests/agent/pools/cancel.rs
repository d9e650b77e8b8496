//! Chunks that are cancelled one by one.

use farpool_proto::v1::{Assign, CancelChunks, StartJob, StartPool, WorkerSettings};

use crate::pools::host::{Event, Gate, Host, is_alive, segment, start};
use crate::pools::protocol::{Command, chunk, job_of};

crate::pools::cases![
    running_items_are_killed_and_waiting_items_dropped,
    chunks_that_share_a_worker_survive,
    a_chunk_that_must_stay_together_is_dropped_whole,
    unknown_chunks_are_valid,
];

fn cancel(chunks: &[u64]) -> Command {
    Command::CancelChunks(CancelChunks { chunks: chunks.to_vec() })
}

/// Returns whether anything was reported about a chunk.
fn is_reported(events: &[Event], of: u64) -> bool {
    events.iter().any(|event| match event {
        Event::RunDone(done) => done.chunk == of,
        Event::ItemFault(fault) => fault.chunk == of,
        Event::Returned(back) => back.chunk == of,
        _ => false,
    })
}

fn running_items_are_killed_and_waiting_items_dropped() {
    let (mut host, gate) = (Host::new(1), Gate::new("cancelled"));
    host.pool(1);
    let worker = host.run(1, "pid");
    let [runs] = host.assign(1, [&format!("hear {}", gate.path())]);
    host.wait_for_output(1, "listening");
    let [waits] = host.assign(1, ["echo never"]);
    let [stays] = host.assign(1, ["pid"]);
    // Out of order, and more than once.
    host.send(cancel(&[waits, runs, waits]));
    let successor = host.result(stays);
    assert!(successor != worker && !is_alive(&worker));
    assert!(!is_reported(&host.events, runs) && !is_reported(&host.events, waits));
    host.agent.drain();
    host.drive(std::time::Instant::now() + std::time::Duration::from_secs(30), |agent, _| {
        agent.is_drained().then_some(())
    })
    .expect("nothing is left of them");
    host.end();
}

/// One worker runs several items at once, and has some more.
fn chunks_that_share_a_worker_survive() {
    let mut host = Host::new(1);
    let settings = WorkerSettings { payload_limit: 1 << 20, max_tasks_per_child: 0, ..WorkerSettings::default() };
    host.pool_of(StartPool { pool: 1, settings: Some(settings), ..start() });
    // Quick items first, so that a worker is given many in advance.
    for _ in 0..50 {
        host.run(1, "echo");
    }
    let gate = Gate::new("shares");
    let [runs] = host.assign(1, [&format!("hear {}", gate.path())]);
    let behind = host.assign(1, ["echo a", "echo b", "echo c"]);
    host.wait_for_output(1, "listening");
    let [cancelled, ..] = behind;
    host.send(cancel(&[runs, cancelled]));
    assert_eq!(behind[1..].iter().map(|&chunk| host.result(chunk)).collect::<Vec<_>>(), ["b", "c"]);
    assert!(!is_reported(&host.events, runs) && !is_reported(&host.events, cancelled));
    let faults = host.events.iter().filter(|event| matches!(event, Event::ItemFault(_))).count();
    assert_eq!(faults, 0, "only items that had begun failed");
    host.end();
}

fn a_chunk_that_must_stay_together_is_dropped_whole() {
    let (mut host, gate) = (Host::new(1), Gate::new("together"));
    host.pool(1);
    host.send(Command::StartJob(StartJob { whole_chunks: true, ..job_of(1, 8) }));
    // More than fits into a worker's ring, so that the rest waits.
    let long = format!("echo {}", "x".repeat(200_000));
    let mut items = vec![segment(&format!("hear {}", gate.path()))];
    items.extend((0..40).map(|_| segment(&long)));
    let segments = u32::try_from(items.len()).unwrap();
    host.send(Command::Assign(Assign { chunks: vec![chunk(1, 8, segments)], segments: items }));
    host.wait_for_output(1, "listening");
    let [stays] = host.assign(1, ["echo a"]);
    host.send(cancel(&[1]));
    assert_eq!(host.result(stays), "a");
    assert!(!is_reported(&host.events, 1));
    host.end();
}

fn unknown_chunks_are_valid() {
    let mut host = Host::new(1);
    host.pool(1);
    host.send(cancel(&[7, 8]));
    host.send(cancel(&[]));
    let [over] = host.assign(1, ["echo a"]);
    assert_eq!(host.result(over), "a");
    host.send(cancel(&[over]));
    assert_eq!(host.run(1, "echo b"), "b");
    host.end();
}
