//! Slots that pools share.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use farpool_proto::v1::{StartPool, StopPool, WorkerSettings};

use crate::pools::host::{Event, Gate, Host, is_alive, start};
use crate::pools::protocol::Command;

crate::pools::cases![
    a_warm_worker_of_an_idle_pool_exits_for_another_pool,
    no_worker_exits_without_need,
    more_pools_than_slots_take_turns,
    a_long_queue_yields_to_another_pool,
    workers_are_replaced_while_others_run,
    workers_are_replaced_after_their_chunks,
    slowly_exiting_workers_keep_no_slots,
    a_pool_without_a_turn_finishes_before_it_stops,
    an_ended_pool_frees_its_slots,
    one_credit_for_all_pools,
];

fn a_warm_worker_of_an_idle_pool_exits_for_another_pool() {
    let mut host = Host::new(1);
    host.pool(1);
    let first = host.run(1, "pid");
    host.pool(2);
    let second = host.run(2, "pid");
    assert!(!is_alive(&first) && is_alive(&second));
    let third = host.run(1, "pid");
    assert!(!is_alive(&second) && is_alive(&third));
    host.end();
}

fn no_worker_exits_without_need() {
    let mut host = Host::new(2);
    host.pool(1);
    let both = |host: &mut Host, name: &str| {
        let gates = [Gate::new(&format!("{name}-1")), Gate::new(&format!("{name}-2"))];
        let waiting_items = gates.each_ref().map(|gate| format!("hear {}", gate.path()));
        host.events.clear();
        let chunks = host.assign(1, [&waiting_items[0], &waiting_items[1]]);
        host.wait_for_output(1, "listening\nlistening\n");
        gates.iter().for_each(Gate::open);
        chunks.into_iter().for_each(|chunk| drop(host.result(chunk)));
        host.events
            .iter()
            .filter_map(|event| match event {
                Event::Output(output) => Some(output.pid.to_string()),
                _ => None,
            })
            .collect::<HashSet<_>>()
    };
    let pids = both(&mut host, "warm");
    assert_eq!(pids.len(), 2);
    // An idle pool takes nothing, and one that wants a slot takes one.
    host.pool(2);
    assert_eq!(both(&mut host, "still-warm"), pids, "{:?}", host.events);
    host.run(2, "pid");
    assert_eq!(pids.iter().filter(|pid| is_alive(pid)).count(), 1);
    host.end();
}

fn more_pools_than_slots_take_turns() {
    let mut host = Host::new(1);
    let pools = [1, 2, 3];
    pools.into_iter().for_each(|pool| host.pool(pool));
    let chunks = pools.map(|pool| host.assign(pool, ["sleep 10"; 30]));
    for chunk in chunks.iter().flatten() {
        host.result(*chunk);
    }
    // All had begun before any was finished.
    let first = chunks.each_ref().map(|chunks| chunks.iter().map(|&chunk| host.position_of(chunk)).min().unwrap());
    let last = chunks.each_ref().map(|chunks| chunks.iter().map(|&chunk| host.position_of(chunk)).max().unwrap());
    assert!(first.iter().max() < last.iter().min(), "{first:?} {last:?}");
    host.end();
}

fn a_long_queue_yields_to_another_pool() {
    let mut host = Host::new(2);
    host.pool(1);
    host.pool(2);
    let long = host.assign(1, ["sleep 5"; 200]);
    host.result(long[0]);
    let [short] = host.assign(2, ["echo short"]);
    host.result(short);
    for chunk in long {
        host.result(chunk);
    }
    assert!(host.position_of(short) < host.position_of(long[150]));
    // Each of them had one outcome.
    let outcomes = host.events.iter().filter(|event| matches!(event, Event::RunDone(_) | Event::ItemFault(_))).count();
    assert_eq!(outcomes, 201);
    host.end();
}

fn workers_are_replaced_while_others_run() {
    let mut host = Host::new(1);
    let settings = WorkerSettings { max_tasks_per_child: 2, ..start().settings.unwrap() };
    host.pool_of(StartPool { pool: 1, settings: Some(settings), ..start() });
    host.pool(2);
    let (often, once) = (host.assign(1, ["pid"; 8]), host.assign(2, ["pid"; 8]));
    let pids: HashSet<_> = often.into_iter().map(|chunk| host.result(chunk)).collect();
    assert!(pids.len() >= 4, "a worker ran more than two items: {pids:?}");
    once.into_iter().for_each(|chunk| drop(host.result(chunk)));
    host.end();
}

fn workers_are_replaced_after_their_chunks() {
    let mut host = Host::new(1);
    let settings = WorkerSettings { max_chunks_per_child: 2, ..start().settings.unwrap() };
    host.pool_of(StartPool { pool: 1, settings: Some(settings), ..start() });
    let chunks = host.assign(1, ["pid"; 8]);
    let pids: Vec<_> = chunks.into_iter().map(|chunk| host.result(chunk)).collect();
    assert_eq!(pids.iter().collect::<HashSet<_>>().len(), 4, "a worker ran more or less than two chunks: {pids:?}");
    host.end();
}

/// Each worker of one pool runs one item, and then takes ten seconds to exit.
fn slowly_exiting_workers_keep_no_slots() {
    const SLOTS: usize = 2;
    let mut host = Host::new(SLOTS as u32);
    let settings = WorkerSettings { max_tasks_per_child: 1, ..start().settings.unwrap() };
    host.pool_with(StartPool { pool: 1, settings: Some(settings), ..start() }, "lingers");
    host.pool(2);
    let slow = host.assign(1, ["pid"; 60]);
    let (mut pids, mut most) = (Vec::new(), 0);
    let mut slowest = Duration::ZERO;
    for (at, chunk) in slow.into_iter().enumerate() {
        pids.push(host.result(chunk));
        most = most.max(pids.iter().filter(|pid| is_alive(pid)).count());
        if at % 10 == 9 {
            // By then as many are exiting as allowed.
            let begun = Instant::now();
            let quick = host.assign(2, ["echo quick"; 4]);
            quick.into_iter().for_each(|chunk| assert_eq!(host.result(chunk), "quick"));
            slowest = slowest.max(begun.elapsed());
        }
    }
    eprintln!("{most} workers of the slow pool at once, and the other one waited for {slowest:?} at most");
    // The exiting workers, and in each slot one that runs and one that was just killed.
    assert!(most <= SLOTS + 4 + 2 * SLOTS, "{most} workers of the slow pool existed at once");
    assert!(slowest < Duration::from_secs(5), "the other pool waited for {slowest:?}");
    host.end();
}

fn a_pool_without_a_turn_finishes_before_it_stops() {
    let mut host = Host::new(1);
    host.pool(1);
    host.pool(2);
    let gate = Gate::new("turn");
    let [runs] = host.assign(1, [&format!("hear {}", gate.path())]);
    host.wait_for_output(1, "listening");
    let [waits] = host.assign(2, ["echo late"]);
    host.send(Command::StopPool(StopPool { pool: 2, now: false }));
    gate.open();
    host.result(runs);
    assert_eq!(host.result(waits), "late");
    host.wait_for_event(|event| matches!(event, Event::PoolStopped(stopped) if stopped.pool == 2));
    host.end();
}

fn an_ended_pool_frees_its_slots() {
    let mut host = Host::new(1);
    host.pool(1);
    let gate = Gate::new("ends");
    host.assign(1, [&format!("hear {}", gate.path())]);
    host.wait_for_output(1, "listening");
    host.pool(2);
    let [waits] = host.assign(2, ["echo next"]);
    host.send(Command::StopPool(StopPool { pool: 1, now: true }));
    assert_eq!(host.result(waits), "next");
    host.end();
}

fn one_credit_for_all_pools() {
    let mut host = Host::new(4);
    host.wait(|events| (!events.is_empty()).then_some(()));
    assert_eq!(host.credit(), Some(4));
    let bytes = host.events.iter().find_map(|event| match event {
        Event::Credit(credit) => Some(credit.bytes),
        _ => None,
    });
    assert_eq!(bytes, Some(256 << 20));
    let threads = WorkerSettings { threads: 3, ..start().settings.unwrap() };
    host.pool_of(StartPool { pool: 1, settings: Some(threads), ..start() });
    host.wait_for_event(|event| matches!(event, Event::Credit(credit) if credit.chunks == 12));
    // Half of the chunks in advance, since both pools may have all slots.
    host.pool(2);
    host.wait_for_event(|event| matches!(event, Event::Credit(credit) if credit.chunks == 8));
    host.send(Command::StopPool(StopPool { pool: 1, now: true }));
    host.wait_for_event(|event| matches!(event, Event::PoolStopped(_)));
    assert_eq!(host.credit(), Some(4));
    host.end();
}
