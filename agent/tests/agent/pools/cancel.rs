//! Chunks that are cancelled one by one.

use farpool_proto::v1::{Assign, CancelChunks, StartJob, StartPool, WorkerSettings};

use crate::pools::host::{Event, Host, Word, is_alive, segment, start};
use crate::pools::protocol::{Command, chunk, job_of};

crate::pools::cases![
    what_runs_is_killed_and_what_waits_is_dropped,
    chunks_that_share_a_worker_are_not_harmed,
    a_chunk_that_must_stay_together_is_dropped_whole,
    chunks_that_are_not_here_are_no_nonsense,
];

fn cancel(chunks: &[u64]) -> Command {
    Command::CancelChunks(CancelChunks { chunks: chunks.to_vec() })
}

/// Whether anything was told of a chunk.
fn is_told(told: &[Event], of: u64) -> bool {
    told.iter().any(|event| match event {
        Event::RunDone(done) => done.chunk == of,
        Event::ItemFault(fault) => fault.chunk == of,
        Event::Returned(back) => back.chunk == of,
        _ => false,
    })
}

fn what_runs_is_killed_and_what_waits_is_dropped() {
    let (mut host, word) = (Host::new(1), Word::new("cancelled"));
    host.pool(1);
    let worker = host.run(1, "pid");
    let [runs] = host.assign(1, [&format!("hear {}", word.path())]);
    host.wait_for_output(1, "listening");
    let [waits] = host.assign(1, ["echo never"]);
    let [stays] = host.assign(1, ["pid"]);
    // Out of order, and more than once.
    host.say(cancel(&[waits, runs, waits]));
    let successor = host.result(stays);
    assert!(successor != worker && !is_alive(&worker));
    assert!(!is_told(&host.told, runs) && !is_told(&host.told, waits));
    host.agent.drain();
    host.drive(std::time::Instant::now() + std::time::Duration::from_secs(30), |agent, _| {
        agent.is_drained().then_some(())
    })
    .expect("nothing is left of them");
    host.end();
}

/// With several items at once in one worker, and some behind them.
fn chunks_that_share_a_worker_are_not_harmed() {
    let mut host = Host::new(1);
    let settings = WorkerSettings { payload_limit: 1 << 20, max_tasks_per_child: 0, ..WorkerSettings::default() };
    host.pool_of(StartPool { pool: 1, settings: Some(settings), ..start() });
    // Quick ones first, so that a worker is given many ahead.
    for _ in 0..50 {
        host.run(1, "echo");
    }
    let word = Word::new("shares");
    let [runs] = host.assign(1, [&format!("hear {}", word.path())]);
    let behind = host.assign(1, ["echo a", "echo b", "echo c"]);
    host.wait_for_output(1, "listening");
    let [cancelled, ..] = behind;
    host.say(cancel(&[runs, cancelled]));
    assert_eq!(behind[1..].iter().map(|&chunk| host.result(chunk)).collect::<Vec<_>>(), ["b", "c"]);
    assert!(!is_told(&host.told, runs) && !is_told(&host.told, cancelled));
    let faults = host.told.iter().filter(|event| matches!(event, Event::ItemFault(_))).count();
    assert_eq!(faults, 0, "nothing has died that had not begun");
    host.end();
}

fn a_chunk_that_must_stay_together_is_dropped_whole() {
    let (mut host, word) = (Host::new(1), Word::new("together"));
    host.pool(1);
    host.say(Command::StartJob(StartJob { whole_chunks: true, ..job_of(1, 8) }));
    // More than a worker's ring has room for, so that the rest of it waits.
    let long = format!("echo {}", "x".repeat(200_000));
    let mut items = vec![segment(&format!("hear {}", word.path()))];
    items.extend((0..40).map(|_| segment(&long)));
    let segments = u32::try_from(items.len()).unwrap();
    host.say(Command::Assign(Assign { chunks: vec![chunk(1, 8, segments)], segments: items }));
    host.wait_for_output(1, "listening");
    let [stays] = host.assign(1, ["echo a"]);
    host.say(cancel(&[1]));
    assert_eq!(host.result(stays), "a");
    assert!(!is_told(&host.told, 1));
    host.end();
}

fn chunks_that_are_not_here_are_no_nonsense() {
    let mut host = Host::new(1);
    host.pool(1);
    host.say(cancel(&[7, 8]));
    host.say(cancel(&[]));
    let [over] = host.assign(1, ["echo a"]);
    assert_eq!(host.result(over), "a");
    host.say(cancel(&[over]));
    assert_eq!(host.run(1, "echo b"), "b");
    host.end();
}
