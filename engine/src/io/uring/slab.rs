//! Values named by small numbers, which the kernel carries around for us.

struct Entry<T> {
    /// How often this place has been given up.
    generation: u32,
    value: Option<T>,
}

/// A table whose places are reused.
pub(super) struct Slab<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub(super) fn new() -> Slab<T> {
        Slab { entries: Vec::new(), free: Vec::new() }
    }

    /// Puts a value in a free place; gives the place and its generation.
    pub(super) fn insert(&mut self, make: impl FnOnce(u32, u32) -> T) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry { generation: 0, value: None });
            u32::try_from(self.entries.len() - 1).expect("fewer than 2^32 operations are in flight")
        });
        let entry = &mut self.entries[index as usize];
        entry.value = Some(make(index, entry.generation));
        index
    }

    pub(super) fn get(&self, index: u32) -> Option<&T> {
        self.entries.get(index as usize)?.value.as_ref()
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.entries.get_mut(index as usize)?.value.as_mut()
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<T> {
        let entry = self.entries.get_mut(index as usize)?;
        let value = entry.value.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(index);
        Some(value)
    }

    pub(super) fn indexes(&self) -> impl Iterator<Item = u32> {
        (0u32..).zip(&self.entries).filter(|(_, entry)| entry.value.is_some()).map(|(index, _)| index)
    }
}
