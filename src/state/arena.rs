//! Values that refer to each other by key: a key of a value that was removed is never taken for another's.

use std::ops::{Index, IndexMut};

/// Names a value of an [`Arena`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    index: u32,
    /// How many values had this index before.
    generation: u32,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

/// Values under keys; indices of removed values are used again. Indexing by the key of a removed value panics.
#[derive(Debug)]
pub(super) struct Arena<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Arena { entries: Vec::new(), free: Vec::new() }
    }
}

impl<T> Arena<T> {
    /// Adds a value.
    pub fn insert(&mut self, value: T) -> Key {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry { generation: 0, value: None });
            // Room for all indices, so that removing allocates nothing.
            self.free.reserve(self.entries.len());
            (self.entries.len() - 1) as u32
        });
        let entry = &mut self.entries[index as usize];
        entry.value = Some(value);
        Key { index, generation: entry.generation }
    }

    /// Takes a value out; `None` if it is gone already.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let entry = &mut self.entries[key.index as usize];
        if entry.generation != key.generation {
            return None;
        }
        let value = entry.value.take();
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(key.index);
        value
    }

    /// The value, unless it was removed.
    pub fn get(&self, key: Key) -> Option<&T> {
        let entry = self.entries.get(key.index as usize)?;
        entry.value.as_ref().filter(|_| entry.generation == key.generation)
    }

    /// All values, by index.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.entries.iter().enumerate().filter_map(|(index, entry)| {
            let key = Key { index: index as u32, generation: entry.generation };
            entry.value.as_ref().map(|value| (key, value))
        })
    }
}

impl<T> Index<Key> for Arena<T> {
    type Output = T;

    fn index(&self, key: Key) -> &T {
        self.get(key).expect("the key's value was removed")
    }
}

impl<T> IndexMut<Key> for Arena<T> {
    fn index_mut(&mut self, key: Key) -> &mut T {
        let entry = &mut self.entries[key.index as usize];
        let value = entry.value.as_mut().filter(|_| entry.generation == key.generation);
        value.expect("the key's value was removed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_removed_value_is_not_taken_for_anothers() {
        let mut arena = Arena::default();
        let a = arena.insert('a');
        assert_eq!(arena.remove(a), Some('a'));
        let b = arena.insert('b');
        assert_eq!((a.index, arena.get(a), arena.get(b)), (b.index, None, Some(&'b')));
        assert_eq!((arena.remove(a), arena[b]), (None, 'b'));
    }

    #[test]
    #[should_panic(expected = "was removed")]
    fn a_removed_value_cannot_be_changed() {
        let mut arena = Arena::default();
        let a = arena.insert('a');
        arena.remove(a);
        arena.insert('b');
        arena[a] = 'c';
    }
}
