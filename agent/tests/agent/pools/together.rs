//! Chunks that move from one worker to another, and some that must stay together.

use farpool_proto::v1::{Assign, Segment, StartJob};

use crate::pools::host::{Event, Host, Word, segment};
use crate::pools::protocol::{Command, chunk, job_of};

crate::pools::cases![a_chunk_that_was_given_in_two_parts_moves_as_one, what_is_left_behind_a_long_item_moves_too];

/// The results of a chunk's items, as far as they are told.
fn results_of(told: &[Event], of: u64) -> Vec<String> {
    let mut results = Vec::new();
    for done in told.iter().filter_map(|event| if let Event::RunDone(done) = event { Some(done) } else { None }) {
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
    // Which of them it waits behind, and who is free first, differs.
    for round in 0..15 {
        let goes_on = round % 3;
        let mut host = Host::new(3);
        let words = ["one", "two", "three"].map(|name| Word::new(&format!("together-{round}-{name}")));
        host.pool(1);
        host.say(Command::StartJob(StartJob { whole_chunks: true, ..job_of(1, 8) }));
        // Quick ones first, so that workers are given something ahead.
        for _ in 0..50 {
            host.run(1, "echo");
        }
        let items: Vec<String> = words.iter().map(|word| format!("hear {}", word.path())).collect();
        host.assign(1, [&items[0], &items[1], &items[2]]);
        for heard in 1..=3 {
            host.wait_for_output(1, &"listening\n".repeat(heard));
        }
        let segments = vec![segment("pid"), segment("pid")];
        host.say(Command::Assign(Assign { chunks: vec![chunk(1, 8, 2)], segments }));
        words.iter().enumerate().filter(|&(at, _)| at != goes_on).for_each(|(_, word)| word.say());
        let workers = host.wait(|told| Some(results_of(told, 1)).filter(|results| results.len() == 2));
        assert_eq!(workers[0], workers[1], "it was torn apart");
        words[goes_on].say();
        host.end();
    }
}

/// Half of a chunk moves to a worker that idles, and the worker that had it is on a long item with the rest behind that.
fn what_is_left_behind_a_long_item_moves_too() {
    for round in 0..10 {
        let mut host = Host::new(2);
        let word = Word::new(&format!("left-{round}"));
        host.pool(1);
        for _ in 0..20 {
            host.run(1, "pid");
        }
        let hear = format!("hear {}", word.path());
        let mut items = Segment::default();
        let (mut data, mut ends) = (Vec::new(), Vec::new());
        for item in [&hear[..], "pid", "pid", "pid", "pid", "pid", "pid", "pid"] {
            data.extend_from_slice(item.as_bytes());
            ends.extend_from_slice(&(data.len() as u32).to_le_bytes());
        }
        (items.data, items.ends) = (data.into(), ends.into());
        host.say(Command::Assign(Assign { chunks: vec![chunk(1000, 1, 1)], segments: vec![items] }));
        host.wait(|told| (results_of(told, 1000).len() == 7).then_some(()));
        word.say();
        host.end();
    }
}
