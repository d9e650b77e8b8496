//! A heap in which the key of each member can change.

const ABSENT: u32 = u32::MAX;

/// Members known by a small number, the one with the least key on top. All changes are O(log n).
///
/// The positions of members are kept outside, so that many small heaps over the same numbers can share them if no
/// member is in two heaps.
pub(crate) struct Heap<K> {
    entries: Vec<Entry<K>>,
}

#[derive(Clone, Copy)]
struct Entry<K> {
    key: K,
    member: u32,
}

/// The positions of members in their heaps.
#[derive(Default)]
pub(crate) struct Positions {
    all: Vec<u32>,
}

/// A heap that has the positions for itself.
pub(crate) struct IndexedHeap<K> {
    heap: Heap<K>,
    positions: Positions,
}

impl<K> Default for Heap<K> {
    fn default() -> Self {
        Self { entries: Vec::new() }
    }
}

impl<K> Default for IndexedHeap<K> {
    fn default() -> Self {
        Self { heap: Heap::default(), positions: Positions::default() }
    }
}

impl Positions {
    #[inline]
    fn of(&self, member: u32) -> Option<usize> {
        self.all.get(member as usize).filter(|&&at| at != ABSENT).map(|&at| at as usize)
    }

    fn make_room(&mut self, member: u32) {
        if self.all.len() <= member as usize {
            self.all.resize(member as usize + 1, ABSENT);
        }
    }
}

impl<K: Ord + Copy> Heap<K> {
    /// Returns the member with the least key.
    #[inline]
    pub(crate) fn first(&self) -> Option<(u32, K)> {
        self.entries.first().map(|entry| (entry.member, entry.key))
    }

    /// Returns the member with the least key, not counting this one.
    pub(crate) fn first_except(&self, member: u32) -> Option<(u32, K)> {
        let entries = self.entries.iter().take(3).filter(|entry| entry.member != member);
        entries.min_by_key(|entry| entry.key).map(|entry| (entry.member, entry.key))
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the key of a member, if it is one.
    #[inline]
    pub(crate) fn key(&self, member: u32, positions: &Positions) -> Option<K> {
        self.position(member, positions).map(|at| self.entries[at].key)
    }

    /// Puts `member` in, takes it out, or changes its key.
    #[inline]
    pub(crate) fn set(&mut self, member: u32, key: Option<K>, positions: &mut Positions) {
        match (self.position(member, positions), key) {
            (None, None) => {}
            (None, Some(key)) => self.insert(member, key, positions),
            (Some(at), None) => self.remove(at, positions),
            (Some(at), Some(key)) => {
                let before = std::mem::replace(&mut self.entries[at].key, key);
                if self.entries.len() > 1 {
                    self.move_from(at, before, positions);
                }
            }
        }
    }

    fn move_from(&mut self, at: usize, before: K, positions: &mut Positions) {
        let key = self.entries[at].key;
        if key < before {
            self.rise(at, positions);
        } else if key > before {
            self.sink(at, positions);
        }
    }

    #[inline]
    fn position(&self, member: u32, positions: &Positions) -> Option<usize> {
        let at = positions.of(member)?;
        debug_assert_eq!(self.entries.get(at).map(|entry| entry.member), Some(member), "the entry is in another heap");
        Some(at)
    }

    fn insert(&mut self, member: u32, key: K, positions: &mut Positions) {
        positions.make_room(member);
        self.entries.push(Entry { key, member });
        self.rise(self.entries.len() - 1, positions);
    }

    fn remove(&mut self, at: usize, positions: &mut Positions) {
        let gone = self.entries.swap_remove(at);
        positions.all[gone.member as usize] = ABSENT;
        if at < self.entries.len() {
            // At most one of the two does something.
            self.rise(at, positions);
            self.sink(at, positions);
        }
    }

    fn rise(&mut self, mut at: usize, positions: &mut Positions) {
        let entry = self.entries[at];
        while at > 0 {
            let parent = (at - 1) / 2;
            if self.entries[parent].key <= entry.key {
                break;
            }
            self.place(at, self.entries[parent], positions);
            at = parent;
        }
        self.place(at, entry, positions);
    }

    fn sink(&mut self, mut at: usize, positions: &mut Positions) {
        let entry = self.entries[at];
        loop {
            let mut child = 2 * at + 1;
            if child + 1 < self.entries.len() && self.entries[child + 1].key < self.entries[child].key {
                child += 1;
            }
            if child >= self.entries.len() || self.entries[child].key >= entry.key {
                break;
            }
            self.place(at, self.entries[child], positions);
            at = child;
        }
        self.place(at, entry, positions);
    }

    #[inline]
    fn place(&mut self, at: usize, entry: Entry<K>, positions: &mut Positions) {
        self.entries[at] = entry;
        positions.all[entry.member as usize] = at as u32;
    }

    /// Checks that it is a heap and that every position is right.
    pub(crate) fn check(&self, positions: &Positions) {
        for (at, entry) in self.entries.iter().enumerate() {
            assert_eq!(positions.of(entry.member), Some(at), "the position of a member is wrong");
            assert!(at == 0 || self.entries[(at - 1) / 2].key <= entry.key, "a key is less than its parent's");
        }
    }
}

impl<K: Ord + Copy> IndexedHeap<K> {
    /// Returns the member with the least key.
    #[inline]
    pub(crate) fn first(&self) -> Option<(u32, K)> {
        self.heap.first()
    }

    /// Returns the member with the least key, not counting this one.
    pub(crate) fn first_except(&self, member: u32) -> Option<(u32, K)> {
        self.heap.first_except(member)
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// Returns the key of a member, if it is one.
    pub(crate) fn key(&self, member: u32) -> Option<K> {
        self.heap.key(member, &self.positions)
    }

    /// Puts `member` in, takes it out, or changes its key.
    #[inline]
    pub(crate) fn set(&mut self, member: u32, key: Option<K>) {
        self.heap.set(member, key, &mut self.positions);
    }

    /// Checks that it is a heap and that every position is right.
    pub(crate) fn check(&self) {
        self.heap.check(&self.positions);
        let present = self.positions.all.iter().filter(|&&at| at != ABSENT).count();
        assert_eq!(present, self.heap.entries.len(), "a member has a position but no entry");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_key_is_first() {
        let mut heap = IndexedHeap::default();
        let mut model = vec![None; 32];
        for step in 0..5000u64 {
            let member = (step * 7919 % 31) as u32;
            let key = (step % 5 > 0).then(|| step * 104_729 % 97);
            heap.set(member, key);
            model[member as usize] = key;
            heap.check();
            let least = |except: Option<usize>| {
                let others = model.iter().enumerate().filter(|(member, _)| Some(*member) != except);
                others.filter_map(|(_, key)| *key).min()
            };
            assert_eq!(heap.first().map(|(_, key)| key), least(None));
            assert_eq!(heap.first_except(member).map(|(_, key)| key), least(Some(member as usize)));
            assert_eq!(heap.key(member), key);
            assert_eq!(heap.is_empty(), least(None).is_none());
        }
    }

    #[test]
    fn heaps_share_positions() {
        let mut positions = Positions::default();
        let mut heaps = [Heap::default(), Heap::default()];
        for step in 0..2000u64 {
            let member = (step * 7919 % 31) as u32;
            let key = (step % 5 > 0).then(|| step * 104_729 % 97);
            heaps[member as usize % 2].set(member, key, &mut positions);
            heaps.iter().for_each(|heap| heap.check(&positions));
            assert_eq!(heaps[member as usize % 2].key(member, &positions), key);
        }
    }
}
