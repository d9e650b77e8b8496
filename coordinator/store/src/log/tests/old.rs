//! Journals of earlier versions.

use super::model::{Act, World, contents, open};
use crate::Ended;
use crate::log::simulated::Files;

/// Written by commit a341fb2, which did not note what was durable.
const FIRST: [(u32, &[u8]); 3] = [
    (2, include_bytes!("old/0000000002.farpool-journal")),
    (3, include_bytes!("old/0000000003.farpool-journal")),
    (4, include_bytes!("old/0000000004.farpool-journal")),
];

/// Segments of half a kibibyte.
const SIZE: u64 = 64 << 10;

/// The acts that wrote the files.
fn acts() -> Vec<Act> {
    let long = 60;
    let mut acts =
        vec![Act::Open { long: 90 }, Act::Items { job: 0, count: 5, long }, Act::Open { long: 0 }, Act::Sync];
    acts.extend([Act::EndItems { job: 0 }, Act::Fed { job: 0 }, Act::Placed { job: 0, agent: 1, gone: false }]);
    acts.extend([Act::Done { job: 0, at: 1, count: 2, long }, Act::Failed { job: 0, at: 0, count: 1 }, Act::Sync]);
    acts.extend([Act::Items { job: 1, count: 3, long: 300 }, Act::Pool, Act::Open { long: 30 }, Act::Sync]);
    acts.extend([Act::Done { job: 0, at: 0, count: 2, long: 9 }, Act::End { job: 0, how: Ended::Finished }]);
    acts.extend([Act::Empty { segment: 0 }, Act::Progress, Act::Sync, Act::Sync, Act::Sync, Act::Sync]);
    acts.extend([Act::Forget { job: 1 }, Act::Items { job: 1, count: 4, long: 100 }, Act::Sync, Act::Open { long: 9 }]);
    acts.extend([Act::EndItems { job: 1 }, Act::End { job: 1, how: Ended::Cancelled }, Act::Sync]);
    acts
}

#[test]
fn the_first_version_is_read() {
    let mut world = World::new(SIZE);
    for act in acts() {
        world.act(&act);
    }
    let files: Files = FIRST.iter().map(|(number, file)| (*number, file.to_vec())).collect();
    let (journal, warnings) = open(files, SIZE);
    assert_eq!((contents(&journal.expect("cannot open the journal")), warnings), (world.model, Vec::new()));
}
