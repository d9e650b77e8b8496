//! The chunks of the ledger.

use slab::Slab;

use super::items::Items;

/// A chunk with pending items or kept outcomes.
#[derive(Debug)]
pub(super) struct Chunk {
    /// Distinguishes it from earlier chunks in the same slot.
    generation: u32,
    /// The key of its pool; `job`: that of its job.
    pub(super) pool: u32,
    pub(super) job: u32,
    /// The coordinator's name for it, and the attempt; only used while the pool has a name.
    pub(super) name: u64,
    pub(super) attempt: u32,
    /// The index of its first item.
    pub(super) first: u64,
    /// Items that are queued or running.
    pub(super) pending: Items,
    /// Number of kept outcomes and returns of it.
    pub(super) kept: u32,
}

impl Chunk {
    pub(super) fn new(assigned: &farpool_proto::v1::Chunk, pool: u32, job: u32, pending: Items) -> Chunk {
        let &farpool_proto::v1::Chunk { chunk: name, attempt, first, .. } = assigned;
        Chunk { generation: 0, pool, job, name, attempt, first, pending, kept: 0 }
    }

    fn is_done(&self) -> bool {
        self.pending.is_empty() && self.kept == 0
    }
}

/// All chunks, by the agent's numbers.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    slab: Slab<Chunk>,
    generations: u32,
}

impl Chunks {
    /// Removes all chunks. Their numbers are not reused.
    pub(super) fn into_empty(self) -> Chunks {
        Chunks { slab: Slab::new(), ..self }
    }

    /// Adds a chunk. Returns its number, which is never reused.
    pub(super) fn insert(&mut self, mut chunk: Chunk) -> u64 {
        self.generations = self.generations.wrapping_add(1);
        chunk.generation = self.generations;
        let key = self.slab.insert(chunk);
        self.number(key)
    }

    /// Returns the number of the chunk with this key.
    pub(super) fn number(&self, key: usize) -> u64 {
        u64::from(self.slab[key].generation) << 32 | key as u64
    }

    /// Returns the key of the chunk with this number, if it still exists.
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

    /// Removes a chunk if it is done, and returns it.
    pub(super) fn remove_if_done(&mut self, key: usize) -> Option<Chunk> {
        self.slab[key].is_done().then(|| self.slab.remove(key))
    }

    /// Removes a chunk.
    pub(super) fn remove(&mut self, key: usize) -> Chunk {
        self.slab.remove(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Chunk)> {
        self.slab.iter()
    }

    /// Returns the keys of the chunks that match.
    pub(super) fn keys(&self, mut wanted: impl FnMut(&Chunk) -> bool) -> Vec<usize> {
        self.slab.iter().filter(|(_, chunk)| wanted(chunk)).map(|(key, _)| key).collect()
    }
}
