//! Whether a map's pages are in memory.

use crate::buffer::Slice;
use crate::limits::BLOCK_BYTES;

/// Pages that are asked for at a time: more than a chunk of a read has.
const PAGES: usize = 128;

/// Whether all of these mapped bytes are in the page cache.
pub(super) fn is_resident(mapped: &Slice) -> bool {
    let start = mapped.as_ptr().addr();
    let first = start - start % BLOCK_BYTES;
    let mut pages = (start + mapped.len() - first).div_ceil(BLOCK_BYTES);
    let mut page = mapped.as_ptr().wrapping_sub(start - first);
    let mut residence = [0; PAGES];
    while pages > 0 {
        let count = pages.min(PAGES);
        // SAFETY: mincore reads no memory of ours and writes one byte per page, for which there is room.
        let outcome =
            unsafe { libc::mincore(page.cast_mut().cast(), count * BLOCK_BYTES, residence.as_mut_ptr()) };
        if outcome != 0 || residence.iter().take(count).any(|residence| residence & 1 == 0) {
            return false;
        }
        page = page.wrapping_add(count * BLOCK_BYTES);
        pages -= count;
    }
    true
}
