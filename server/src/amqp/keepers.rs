//! Who gets deliveries: the names that the engine knows consumers by, and whose they are.

use millstream_engine::shard::message::ConsumerId;

use super::operations::Who;

/// A consumer's place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// On which channel.
    pub who: Who,
    /// Which of its keepers.
    pub keeper: u32,
}

/// Places by name. A name is an index and how often it was used before, so that none is used twice.
#[derive(Debug, Default)]
pub struct Keepers {
    slots: Vec<(u32, Option<Place>)>,
    free: Vec<u32>,
}

impl Keepers {
    /// A name for a place.
    pub fn insert(&mut self, place: Place) -> ConsumerId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            self.slots.len() as u32 - 1
        });
        let (generation, slot) = self.slots.get_mut(index as usize).expect("free slots exist");
        *slot = Some(place);
        ConsumerId(u64::from(*generation) << 32 | u64::from(index))
    }

    /// The place of that name, if it is in use.
    pub fn get(&self, id: ConsumerId) -> Option<Place> {
        let (generation, place) = self.slots.get(id.0 as u32 as usize)?;
        place.filter(|_| u64::from(*generation) == id.0 >> 32)
    }

    /// Ends the use of a name.
    pub fn remove(&mut self, id: ConsumerId) {
        if self.get(id).is_none() {
            return;
        }
        if let Some((generation, place)) = self.slots.get_mut(id.0 as u32 as usize) {
            *generation = generation.wrapping_add(1);
            *place = None;
            self.free.push(id.0 as u32);
        }
    }

    /// How many names are in use.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether none is in use.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use millstream_engine::io::ConnId;

    use super::*;

    #[test]
    fn a_name_is_good_for_one_use() {
        let place = |keeper| Place { who: Who { conn: ConnId(1), channel: 1, life: 1 }, keeper };
        let mut keepers = Keepers::default();
        let first = keepers.insert(place(1));
        assert_eq!(keepers.get(first), Some(place(1)));
        keepers.remove(first);
        keepers.remove(first);
        let second = keepers.insert(place(2));
        assert_eq!((keepers.get(first), keepers.get(second)), (None, Some(place(2))));
        assert_eq!(keepers.len(), 1);
    }
}
