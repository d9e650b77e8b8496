//! The chunks that the ledger knows.

use slab::Slab;

use super::items::Items;

/// A chunk of which items are out, or outcomes are kept.
#[derive(Debug)]
pub(super) struct Chunk {
    /// What tells it from others that had its place before.
    generation: u32,
    /// Where its pool and its job are.
    pub(super) pool: u32,
    pub(super) job: u32,
    /// What the coordinator calls it, and which try it counts as: of interest while the pool has a name.
    pub(super) name: u64,
    pub(super) attempt: u32,
    /// Which item was its first when it was cut.
    pub(super) first: u64,
    /// Items that wait or run.
    pub(super) out: Items,
    /// Outcomes and returns of it that are kept.
    pub(super) kept: u32,
}

impl Chunk {
    pub(super) fn new(told: &farpool_proto::v1::Chunk, pool: u32, job: u32, out: Items) -> Chunk {
        let &farpool_proto::v1::Chunk { chunk: name, attempt, first, .. } = told;
        Chunk { generation: 0, pool, job, name, attempt, first, out, kept: 0 }
    }

    fn is_over(&self) -> bool {
        self.out.is_empty() && self.kept == 0
    }
}

/// All chunks, by the numbers that the agent knows them by.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    slab: Slab<Chunk>,
    generations: u32,
}

impl Chunks {
    /// None, of which none will have the number of one of these.
    pub(super) fn cleared(self) -> Chunks {
        Chunks { slab: Slab::new(), ..self }
    }

    /// Takes a chunk in; returns its number, which is never used for another.
    pub(super) fn insert(&mut self, mut chunk: Chunk) -> u64 {
        self.generations = self.generations.wrapping_add(1);
        chunk.generation = self.generations;
        let key = self.slab.insert(chunk);
        self.number(key)
    }

    /// The number of the chunk at this place.
    pub(super) fn number(&self, key: usize) -> u64 {
        u64::from(self.slab[key].generation) << 32 | key as u64
    }

    /// Where the chunk with this number is; `None`: it is not here any more.
    pub(super) fn find(&self, number: u64) -> Option<usize> {
        let key = usize::try_from(number & u64::from(u32::MAX)).ok()?;
        let chunk = self.slab.get(key)?;
        (u64::from(chunk.generation) == number >> 32).then_some(key)
    }

    pub(super) fn get(&self, key: usize) -> &Chunk {
        &self.slab[key]
    }

    pub(super) fn get_mut(&mut self, key: usize) -> &mut Chunk {
        &mut self.slab[key]
    }

    /// Forgets a chunk if nothing is left of it; returns it then.
    pub(super) fn remove_if_over(&mut self, key: usize) -> Option<Chunk> {
        self.slab[key].is_over().then(|| self.slab.remove(key))
    }

    /// Forgets a chunk, whatever is left of it.
    pub(super) fn remove(&mut self, key: usize) -> Chunk {
        self.slab.remove(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Chunk)> {
        self.slab.iter()
    }

    /// Where the chunks are for which this is true.
    pub(super) fn keys(&self, mut wanted: impl FnMut(&Chunk) -> bool) -> Vec<usize> {
        self.slab.iter().filter(|(_, chunk)| wanted(chunk)).map(|(key, _)| key).collect()
    }
}
