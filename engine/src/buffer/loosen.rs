//! Parting with memory that a few bytes keep from being used again.

use super::{Block, Slice};
use crate::limits::LOOSE_BYTES;

impl Slice {
    /// Whether this slice keeps about as much memory as it is long, or little at all, so that a copy would gain nothing.
    pub fn is_loose(&self) -> bool {
        self.pinned() <= LOOSE_BYTES.max(2 * self.len())
    }

    /// Moves these bytes to memory of their own, unless they are loose.
    pub fn loosen(&mut self) {
        if !self.is_loose() {
            *self = Slice::from(self.to_vec());
        }
    }

    /// The same, unless they keep less than twice their own length: for what may be kept for as long as somebody likes. Of
    /// messages that are read back, each keeps a group, and a hundred of these may be all there is.
    pub fn tighten(&mut self) {
        if self.pinned() > 2 * self.len() {
            *self = Slice::from(self.to_vec());
        }
    }
}

/// Bytes of room that [`loosen`] needs for these slices; 0 if they are all loose.
pub fn tight_bytes(slices: &[Slice]) -> usize {
    slices.iter().filter(|slice| !slice.is_loose()).map(|slice| slice.len()).sum()
}

/// Copies those slices that are not loose into `room`, as far as it goes, and lets the memory go that they were in.
pub fn loosen<'a>(slices: impl IntoIterator<Item = &'a mut Slice>, mut room: Block) {
    for slice in slices.into_iter().filter(|slice| !slice.is_loose()) {
        if slice.len() <= room.spare() {
            room.push(slice);
            *slice = room.split_frozen();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Pool;
    use crate::limits::JOURNAL_SLAB_BYTES;

    #[test]
    fn small_parts_of_a_slab_are_copied_and_the_slab_goes_home() {
        let (slabs, rooms) = (Pool::new(16 << 20), Pool::new(1 << 20));
        let mut slab = slabs.block(JOURNAL_SLAB_BYTES).unwrap();
        slab.push(b"some bytes of many");
        let slab = slab.freeze();
        let mut slices = [slab.slice(0..4), Slice::from(b"own".to_vec()), slab.slice(5..10)];
        drop(slab);
        assert_eq!(tight_bytes(&slices), 9);
        loosen(&mut slices, rooms.block(9).unwrap());
        let bytes: Vec<&[u8]> = slices.iter().map(|slice| &slice[..]).collect();
        assert_eq!(bytes, [&b"some"[..], b"own", b"bytes"]);
        assert_eq!((slabs.usage().in_use, tight_bytes(&slices)), (0, 0));
    }

    #[test]
    fn what_has_no_room_stays_where_it_is() {
        let mut slab = Pool::new(16 << 20).block(JOURNAL_SLAB_BYTES).unwrap();
        slab.push_zeros(10_000);
        let mut slices = [slab.split_frozen()];
        loosen(&mut slices, Pool::new(1 << 20).block(1).unwrap());
        assert!(!slices[0].is_loose());
        slices[0].loosen();
        assert!(slices[0].is_loose() && slices[0].len() == 10_000);
    }

    #[test]
    fn most_of_a_slab_is_not_worth_a_copy() {
        let mut slab = Pool::new(16 << 20).block(JOURNAL_SLAB_BYTES).unwrap();
        slab.push_zeros(JOURNAL_SLAB_BYTES / 2);
        assert!(slab.freeze().is_loose());
    }
}
