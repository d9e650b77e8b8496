//! Tables whose look-up is an array access that also checks the generation.

use std::marker::PhantomData;

use crate::ids::Id;

/// Values under ids that the caller gives out.
///
/// It takes memory up to the largest index ever used. It is meant for ids of a [`Slab`], which reuses indices.
pub struct Table<I, T> {
    entries: Vec<TableEntry<T>>,
    len: usize,
    ids: PhantomData<I>,
}

struct TableEntry<T> {
    generation: u32,
    value: Option<T>,
}

impl<I: Id, T> Default for Table<I, T> {
    fn default() -> Self {
        Self { entries: Vec::new(), len: 0, ids: PhantomData }
    }
}

impl<I: Id, T> Table<I, T> {
    /// Stores `value` under `id`.
    ///
    /// # Panics
    /// If the index is taken: then the caller gave it out twice.
    pub fn put(&mut self, id: I, value: T) {
        let index = id.index() as usize;
        if self.entries.len() <= index {
            self.entries.resize_with(index + 1, || TableEntry { generation: 0, value: None });
        }
        let entry = &mut self.entries[index];
        assert!(entry.value.is_none(), "index {index} was given out twice");
        *entry = TableEntry { generation: id.generation(), value: Some(value) };
        self.len += 1;
    }

    /// Removes and returns the value under `id`, if it is still there.
    pub fn take(&mut self, id: I) -> Option<T> {
        let entry = self.entries.get_mut(id.index() as usize)?;
        if entry.generation != id.generation() {
            return None;
        }
        let value = entry.value.take()?;
        self.len -= 1;
        Some(value)
    }

    /// Returns the value under `id`, if it is still there.
    #[inline]
    pub fn get(&self, id: I) -> Option<&T> {
        let entry = self.entries.get(id.index() as usize)?;
        if entry.generation == id.generation() { entry.value.as_ref() } else { None }
    }

    /// Returns the value under `id`, if it is still there.
    #[inline]
    pub fn get_mut(&mut self, id: I) -> Option<&mut T> {
        let entry = self.entries.get_mut(id.index() as usize)?;
        if entry.generation == id.generation() { entry.value.as_mut() } else { None }
    }

    /// Returns the id of the current value at `index`.
    #[inline]
    pub fn id_at(&self, index: u32) -> Option<I> {
        let entry = self.entries.get(index as usize)?;
        entry.value.as_ref().map(|_| I::new(index, entry.generation))
    }

    /// Returns all values, by index.
    pub fn iter(&self) -> impl Iterator<Item = (I, &T)> {
        let entries = self.entries.iter().enumerate();
        entries.filter_map(|(index, entry)| Some((I::new(index as u32, entry.generation), entry.value.as_ref()?)))
    }

    /// Returns all values, by index.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (I, &mut T)> {
        let entries = self.entries.iter_mut().enumerate();
        entries.filter_map(|(index, entry)| Some((I::new(index as u32, entry.generation), entry.value.as_mut()?)))
    }

    /// Returns how many values there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Values under ids that the slab gives out itself. Freed indices are used again, the last one first because it is
/// still in the cache.
pub struct Slab<I, T> {
    table: Table<I, T>,
    free: Vec<u32>,
}

impl<I: Id, T> Default for Slab<I, T> {
    fn default() -> Self {
        Self { table: Table::default(), free: Vec::new() }
    }
}

impl<I: Id, T> Slab<I, T> {
    /// Stores `value` and returns its id.
    pub fn insert(&mut self, value: T) -> I {
        self.insert_with(|_| value)
    }

    /// Stores what `make` returns for the new id.
    #[inline]
    pub fn insert_with(&mut self, make: impl FnOnce(I) -> T) -> I {
        let table = &mut self.table;
        table.len += 1;
        if let Some(index) = self.free.pop() {
            let entry = &mut table.entries[index as usize];
            // Generation 0 is skipped when the count wraps, so that no id is the number 0.
            entry.generation = entry.generation.wrapping_add(1).max(1);
            let id = I::new(index, entry.generation);
            entry.value = Some(make(id));
            return id;
        }
        let index = u32::try_from(table.entries.len()).expect("too many entries");
        let id = I::new(index, 1);
        table.entries.push(TableEntry { generation: 1, value: Some(make(id)) });
        id
    }

    /// Removes and returns the value under `id`, if it is still there.
    #[inline]
    pub fn remove(&mut self, id: I) -> Option<T> {
        let value = self.table.take(id)?;
        self.free.push(id.index());
        Some(value)
    }

    /// Returns the value under `id`, if it is still there.
    #[inline]
    pub fn get(&self, id: I) -> Option<&T> {
        self.table.get(id)
    }

    /// Returns the value under `id`, if it is still there.
    #[inline]
    pub fn get_mut(&mut self, id: I) -> Option<&mut T> {
        self.table.get_mut(id)
    }

    /// Returns the id of the current value at `index`.
    #[inline]
    pub fn id_at(&self, index: u32) -> Option<I> {
        self.table.id_at(index)
    }

    /// Returns the current value at `index`.
    #[inline]
    pub(crate) fn get_at(&self, index: u32) -> Option<&T> {
        self.table.entries.get(index as usize)?.value.as_ref()
    }

    /// Returns the current value at `index`.
    #[inline]
    pub(crate) fn get_at_mut(&mut self, index: u32) -> Option<&mut T> {
        self.table.entries.get_mut(index as usize)?.value.as_mut()
    }

    /// Returns how many indices there are, free ones included.
    pub(crate) fn index_count(&self) -> u32 {
        self.table.entries.len() as u32
    }

    /// Returns all values, by index.
    pub fn iter(&self) -> impl Iterator<Item = (I, &T)> {
        self.table.iter()
    }

    /// Returns all values, by index.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (I, &mut T)> {
        self.table.iter_mut()
    }

    /// Returns how many values there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }
}
