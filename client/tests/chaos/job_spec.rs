//! The description of a detached job, from which every process can check its outcomes.

use std::time::Duration;

use farpool_testkit::random::Random;
use serde::{Deserialize, Serialize};

use crate::work::{Behavior, Task};

/// A detached job: its name, its options, and how its items are drawn.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct JobSpec {
    pub(crate) name: String,
    pub(crate) retries: u32,
    pub(crate) chunksize: Option<u64>,
    pub(crate) items: u64,
    /// The file where items record their starts.
    log: String,
    seed: u64,
    kind: Kind,
    /// How long an item takes at most, in ms.
    longest: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    Plain,
    Panicking,
    /// Some items kill their workers.
    Poisoned,
    Heavy,
}

const KINDS: [Kind; 5] = [Kind::Plain, Kind::Plain, Kind::Panicking, Kind::Poisoned, Kind::Heavy];

impl JobSpec {
    pub(crate) fn draw(random: &mut Random, name: String, log: String) -> Self {
        let kind = random.pick(&KINDS);
        let most = if kind == Kind::Heavy { 30 } else { 120 };
        Self {
            name,
            // At-most-once jobs suffer most from the loss of a coordinator.
            retries: random.pick(&[0, 0, 1, 2, 3]),
            chunksize: (!random.one_in(2)).then(|| random.within(1..20)),
            // Sometimes none at all.
            items: random.below(most),
            log,
            seed: random.next(),
            kind,
            // Some items run longer than most faults last.
            longest: random.pick(&[1, 5, 20, 300]),
        }
    }

    /// Returns its items, the same ones each time.
    pub(crate) fn tasks(&self) -> impl Iterator<Item = Task> + use<> {
        let (log, kind, longest) = (self.log.clone(), self.kind, self.longest);
        let mut random = Random::new(self.seed);
        (0..self.items).map(move |item| {
            let behavior = match kind {
                Kind::Panicking if random.one_in(10) => Behavior::Panics,
                Kind::Poisoned if random.one_in(30) => Behavior::KillsItsWorker,
                _ => Behavior::Returns,
            };
            let bytes = if kind == Kind::Heavy { 100_000 } else { 20 };
            let nap: Duration = random.millis(0..longest);
            let ballast = vec![item as u8; random.below(bytes) as usize];
            Task { log: log.clone(), item, nap, behavior, ballast }
        })
    }
}
