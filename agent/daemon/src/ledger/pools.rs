//! The pools of the ledger, under the agent's numbers and the coordinator's names.

use std::collections::BTreeMap;
use std::ops::{Index, IndexMut};

use slab::Slab;

use super::pool::Pool;

/// Most stopped pools that are remembered, because messages about them may still arrive.
pub(super) const MAX_STOPPED_POOLS: usize = 1024;
/// Most bytes of outcomes that stopped pools keep for a resend, all together; the last pool may keep more.
pub(super) const MAX_STOPPED_BYTES: usize = 16 << 20;
/// The bit that marks the numbers of held pools; coordinators never set it.
pub(super) const HELD: u64 = 1 << 63;

/// The pools of the ledger, by keys that are reused.
#[derive(Debug, Default)]
pub(super) struct KnownPools {
    pools: Slab<Pool>,
    /// The coordinator's names of pools, and their keys.
    names: BTreeMap<u64, u32>,
}

impl Index<usize> for KnownPools {
    type Output = Pool;

    fn index(&self, key: usize) -> &Pool {
        &self.pools[key]
    }
}

impl IndexMut<usize> for KnownPools {
    fn index_mut(&mut self, key: usize) -> &mut Pool {
        &mut self.pools[key]
    }
}

impl KnownPools {
    pub(super) fn is_empty(&self) -> bool {
        self.pools.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Pool)> {
        self.pools.iter()
    }

    /// Returns the keys of all pools.
    pub(super) fn keys(&self) -> Vec<usize> {
        self.pools.iter().map(|(key, _)| key).collect()
    }

    /// Adds a pool.
    pub(super) fn insert(&mut self, pool: Pool) {
        let name = pool.name;
        let key = self.pools.insert(pool);
        if let Some(name) = name {
            self.set_name(key, name);
        }
    }

    /// Removes a pool, and its name if it has one.
    pub(super) fn remove(&mut self, key: usize) {
        let pool = self.pools.remove(key);
        if let Some(name) = pool.name {
            self.names.remove(&name);
        }
    }

    /// Gives a pool the coordinator's name for it.
    pub(super) fn set_name(&mut self, key: usize, name: u64) {
        self.pools[key].name = Some(name);
        self.names.insert(name, u32::try_from(key).unwrap_or(u32::MAX));
    }

    /// Takes the names from all pools.
    pub(super) fn clear_names(&mut self) {
        self.names.clear();
        self.pools.iter_mut().for_each(|(_, pool)| pool.name = None);
    }

    /// Returns the pool with this name at the coordinator.
    pub(super) fn named(&self, name: u64) -> Option<usize> {
        self.names.get(&name).map(|&key| key as usize)
    }

    /// Returns the pool with this number at the agent.
    pub(super) fn numbered(&self, number: u64) -> Option<usize> {
        self.pools.iter().find(|(_, pool)| pool.number == number).map(|(key, _)| key)
    }

    /// Returns the held pool with this number from the hello.
    pub(super) fn held(&self, number: u64) -> Option<usize> {
        let number = number & !HELD;
        self.pools.iter().find(|(_, pool)| pool.number == number && pool.name.is_none()).map(|(key, _)| key)
    }

    /// Returns whether some of them are not adopted.
    pub(super) fn has_held(&self) -> bool {
        self.pools.iter().any(|(_, pool)| pool.name.is_none())
    }

    /// Returns the oldest stopped pool, if there are too many of them, or they keep too much.
    pub(super) fn next_to_evict(&self) -> Option<usize> {
        let gone = self.pools.iter().filter(|(_, pool)| pool.stopped);
        let (count, bytes) =
            gone.clone().fold((0, 0), |(count, bytes), (_, pool)| (count + 1, bytes + pool.outcomes.bytes()));
        if count <= MAX_STOPPED_POOLS && (bytes <= MAX_STOPPED_BYTES || count <= 1) {
            return None;
        }
        gone.min_by_key(|(_, pool)| pool.number).map(|(key, _)| key)
    }

    #[cfg(test)]
    pub(super) fn has_names(&self) -> bool {
        !self.names.is_empty()
    }
}
