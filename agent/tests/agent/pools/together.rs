//! Chunks that move from one worker to another, and some that must stay together.

use farpool_proto::v1::{Assign, Segment, StartJob};

use crate::pools::host::{Event, Gate, Host, segment};
use crate::pools::protocol::{Command, chunk, job_of};

crate::pools::cases![a_chunk_that_was_given_in_two_parts_moves_as_one, items_behind_a_long_item_move_too];

/// Returns the results of a chunk's items that were reported so far.
fn results_of(events: &[Event], of: u64) -> Vec<String> {
    let mut results = Vec::new();
    for done in events.iter().filter_map(|event| if let Event::RunDone(done) = event { Some(done) } else { None }) {
        let ends = done.ends.chunks_exact(4).map(|end| u32::from_le_bytes(end.try_into().unwrap()) as usize);
        let mut start = 0;
        for end in ends.filter(|_| done.chunk == of) {
            results.push(String::from_utf8_lossy(&done.data[start..end]).into_owned());
            start = end;
        }
    }
    results
}

/// The chunk waits behind a long item, and two other workers become free at the same time.
fn a_chunk_that_was_given_in_two_parts_moves_as_one() {
    // The long item and the worker that is free first vary.
    for round in 0..15 {
        let continues = round % 3;
        let mut host = Host::new(3);
        let gates = ["one", "two", "three"].map(|name| Gate::new(&format!("together-{round}-{name}")));
        host.pool(1);
        host.send(Command::StartJob(StartJob { whole_chunks: true, ..job_of(1, 8) }));
        // Quick items first, so that workers are given items in advance.
        for _ in 0..50 {
            host.run(1, "echo");
        }
        let items: Vec<String> = gates.iter().map(|gate| format!("hear {}", gate.path())).collect();
        host.assign(1, [&items[0], &items[1], &items[2]]);
        for read in 1..=3 {
            host.wait_for_output(1, &"listening\n".repeat(read));
        }
        let segments = vec![segment("pid"), segment("pid")];
        host.send(Command::Assign(Assign { chunks: vec![chunk(1, 8, 2)], segments }));
        gates.iter().enumerate().filter(|&(at, _)| at != continues).for_each(|(_, gate)| gate.open());
        let workers = host.wait(|events| Some(results_of(events, 1)).filter(|results| results.len() == 2));
        assert_eq!(workers[0], workers[1], "the chunk was split between two workers");
        gates[continues].open();
        host.end();
    }
}

/// Half of a chunk moves to an idle worker, and the worker that had it runs a long item before the rest.
fn items_behind_a_long_item_move_too() {
    for round in 0..10 {
        let mut host = Host::new(2);
        let gate = Gate::new(&format!("left-{round}"));
        host.pool(1);
        for _ in 0..20 {
            host.run(1, "pid");
        }
        let waits = format!("hear {}", gate.path());
        let mut items = Segment::default();
        let (mut data, mut ends) = (Vec::new(), Vec::new());
        for item in [&waits[..], "pid", "pid", "pid", "pid", "pid", "pid", "pid"] {
            data.extend_from_slice(item.as_bytes());
            ends.extend_from_slice(&(data.len() as u32).to_le_bytes());
        }
        (items.data, items.ends) = (data.into(), ends.into());
        host.send(Command::Assign(Assign { chunks: vec![chunk(1000, 1, 1)], segments: vec![items] }));
        host.wait(|events| (results_of(events, 1000).len() == 7).then_some(()));
        gate.open();
        host.end();
    }
}
