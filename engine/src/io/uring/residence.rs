//! Maps whose pages are in memory, and whether they still are.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::path::Path;

use memmap2::{Advice, Mmap};

use crate::buffer::Slice;
use crate::limits::{BLOCK_BYTES, READ_CHUNK_BYTES};

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

/// Maps a file that is written no more, after reading all of it, a chunk at a time, so that commits find gaps in between.
pub(super) fn map_resident(path: &Path) -> io::Result<Mmap> {
    let mut file = File::open(path)?;
    // The kernel's own read-ahead would put megabytes in front of a commit's write.
    // SAFETY: the descriptor is open, and no memory is passed. A refusal changes nothing but the speed.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_RANDOM) };
    let mut chunk = vec![0; READ_CHUNK_BYTES];
    while file.read(&mut chunk)? > 0 {}
    // SAFETY: the trait's contract is that the file is written no more, so the bytes do not change.
    let map = unsafe { Mmap::map(&file)? };
    // So that a send does not fault each page in by itself. Kernels before 5.14 cannot, and it goes on without.
    let _ = map.advise(Advice::PopulateRead);
    Ok(map)
}
