//! A heap in which the key of each member can change.

const ABSENT: u32 = u32::MAX;

/// Members known by a small number, the one with the least key on top. All changes are O(log n).
pub(crate) struct IndexedHeap<K> {
    heap: Vec<Entry<K>>,
    // Where in `heap` each member is.
    positions: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Entry<K> {
    key: K,
    member: u32,
}

impl<K> Default for IndexedHeap<K> {
    fn default() -> Self {
        Self { heap: Vec::new(), positions: Vec::new() }
    }
}

impl<K: Ord + Copy> IndexedHeap<K> {
    /// The member with the least key.
    #[inline]
    pub(crate) fn first(&self) -> Option<(u32, K)> {
        self.heap.first().map(|entry| (entry.member, entry.key))
    }

    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    /// The key of a member, if it is one.
    pub(crate) fn key(&self, member: u32) -> Option<K> {
        self.position(member).map(|at| self.heap[at].key)
    }

    /// Puts `member` in, takes it out, or changes its key.
    #[inline]
    pub(crate) fn set(&mut self, member: u32, key: Option<K>) {
        match (self.position(member), key) {
            (None, None) => {}
            (None, Some(key)) => self.insert(member, key),
            (Some(at), None) => self.remove(at),
            (Some(at), Some(key)) => {
                let before = self.heap[at].key;
                self.heap[at].key = key;
                if key < before {
                    self.rise(at)
                } else if key > before {
                    self.sink(at)
                }
            }
        }
    }

    #[inline]
    fn position(&self, member: u32) -> Option<usize> {
        self.positions.get(member as usize).filter(|&&at| at != ABSENT).map(|&at| at as usize)
    }

    fn insert(&mut self, member: u32, key: K) {
        if self.positions.len() <= member as usize {
            self.positions.resize(member as usize + 1, ABSENT);
        }
        self.heap.push(Entry { key, member });
        self.rise(self.heap.len() - 1);
    }

    fn remove(&mut self, at: usize) {
        let gone = self.heap.swap_remove(at);
        self.positions[gone.member as usize] = ABSENT;
        if at < self.heap.len() {
            // One of the two does nothing.
            self.rise(at);
            self.sink(at);
        }
    }

    fn rise(&mut self, mut at: usize) {
        let entry = self.heap[at];
        while at > 0 {
            let parent = (at - 1) / 2;
            if self.heap[parent].key <= entry.key {
                break;
            }
            self.place(at, self.heap[parent]);
            at = parent;
        }
        self.place(at, entry);
    }

    fn sink(&mut self, mut at: usize) {
        let entry = self.heap[at];
        loop {
            let mut child = 2 * at + 1;
            if child + 1 < self.heap.len() && self.heap[child + 1].key < self.heap[child].key {
                child += 1;
            }
            if child >= self.heap.len() || self.heap[child].key >= entry.key {
                break;
            }
            self.place(at, self.heap[child]);
            at = child;
        }
        self.place(at, entry);
    }

    #[inline]
    fn place(&mut self, at: usize, entry: Entry<K>) {
        self.heap[at] = entry;
        self.positions[entry.member as usize] = at as u32;
    }

    /// That it is a heap and that every position is right.
    pub(crate) fn check(&self) {
        for (at, entry) in self.heap.iter().enumerate() {
            assert_eq!(self.positions[entry.member as usize] as usize, at, "the position of a member is wrong");
            assert!(at == 0 || self.heap[(at - 1) / 2].key <= entry.key, "a key is less than its parent's");
        }
        let present = self.positions.iter().filter(|&&at| at != ABSENT).count();
        assert_eq!(present, self.heap.len(), "a member has a position but no entry");
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
            assert_eq!(heap.first().map(|(_, key)| key), model.iter().flatten().min().copied());
            assert_eq!(heap.key(member), key);
            assert_eq!(heap.len(), model.iter().flatten().count());
        }
    }
}
