//! The index of a long queue, paged out.
//!
//! What is known of messages that nobody will want for a while can be put elsewhere, a page at a time, and is asked for in
//! time. A page is chunks in a row that are full of ready messages none of which has failed; of it the index keeps only which
//! messages there are. Its list names it by its first chunk. A page is not a way to store a queue: it is good for as long as
//! the queue that wrote it lives.
//!
//! ```text
//!   page     crc32c of the rest u32 | chunks u16 | chunk ..
//!   chunk    number u64 | ready u64 | delivered u64 | persistent u64 | whether any expires u8 | message ..
//!   message  locator u64 | size u32 | expiry i64, if any of the chunk's expires        one for each bit of `ready`
//! ```
//! All numbers are little-endian.

use std::collections::BTreeMap;

use zerocopy::little_endian::{I64, U16, U32, U64};

use super::chunk::{Chunk, ChunkNo, Entry, NEVER, Places, State};
use super::index::Index;
use super::state::Queue;
use super::{Locator, Output, PageId};
use crate::checksum::crc32c;
use crate::format::damage::Damage;
use crate::format::take::take;
use crate::limits::{PAGE_CHUNKS, PAGE_CHUNKS_AHEAD, PAGE_CHUNKS_LOOKED_AT};
use crate::time::WallMs;
use crate::types::Seq;

const CRC_BYTES: usize = 4;

/// What is known of a chunk that is elsewhere.
struct Outline {
    no: ChunkNo,
    ready: u64,
    persistent: u64,
}

/// A page that is elsewhere.
struct Page {
    outlines: Box<[Outline]>,
    earliest: WallMs,
    state: State,
    wanted: bool,
}

/// The pages that are elsewhere, by their first chunks.
pub(super) struct Pages {
    /// Chunks in a page, and chunks that stay because they are delivered first.
    size: usize,
    ahead: usize,
    elsewhere: BTreeMap<ChunkNo, Page>,
    /// Those to be asked for, and how many have been wanted and are not back.
    wanted: Vec<ChunkNo>,
    awaited: usize,
    /// Where to look for the next page to put elsewhere.
    cursor: Option<ChunkNo>,
}

impl Default for Pages {
    fn default() -> Pages {
        let (size, ahead) = (PAGE_CHUNKS, PAGE_CHUNKS_AHEAD);
        Pages { size, ahead, elsewhere: BTreeMap::new(), wanted: Vec::new(), awaited: 0, cursor: None }
    }
}

impl Pages {
    /// Whether one is wanted that is not back.
    pub fn are_awaited(&self) -> bool {
        self.awaited > 0
    }

    /// The page that a chunk is in.
    pub fn page_of(&self, no: ChunkNo) -> Option<ChunkNo> {
        let (first, page) = self.elsewhere.range(..=no).next_back()?;
        page.outlines.binary_search_by_key(&no, |outline| outline.no).is_ok().then_some(*first)
    }

    /// The first page that has chunks from one to another.
    pub fn between(&self, first: ChunkNo, last: ChunkNo) -> Option<ChunkNo> {
        let before = self.elsewhere.range(..=first).next_back();
        let before =
            before.filter(|(_, page)| page.outlines.last().is_some_and(|outline| outline.no >= first));
        let next = before.or_else(|| self.elsewhere.range(first..=last).next());
        next.map(|(first, _)| *first)
    }

    /// Of a chunk that is elsewhere, which messages there are.
    pub fn mask(&self, no: ChunkNo) -> u64 {
        let page = self.page_of(no).and_then(|first| self.elsewhere.get(&first));
        let outline = page.and_then(|page| page.outlines.iter().find(|outline| outline.no == no));
        outline.map_or(0, |outline| outline.ready)
    }

    /// Wants a page back.
    pub fn want(&mut self, first: ChunkNo) {
        let page =
            self.elsewhere.get_mut(&first).expect("a chunk that is listed is in the directory or paged out");
        if !page.wanted {
            page.wanted = true;
            self.awaited += 1;
            self.wanted.push(first);
        }
    }

    /// Gives all messages of a page another state.
    pub fn shift(&mut self, first: ChunkNo, to: State) {
        self.elsewhere.get_mut(&first).expect("a page that is listed is paged out").state = to;
    }
}

impl Queue {
    /// Puts a page elsewhere: appends it to `bytes`, to be given to [`Queue::page_in`] when [`Output::PageIn`] asks for it. Only
    /// messages go whose bytes will stay where they are for good, as `stays` says of their locators. `None`: there are not
    /// enough of these for a page, or they are wanted soon.
    pub fn page_out(&mut self, stays: impl Fn(Locator) -> bool, bytes: &mut Vec<u8>) -> Option<PageId> {
        self.index.page_out(stays, bytes)
    }

    /// Uses pages of so many chunks of 64 messages, at a distance of so many, instead of those in [`crate::limits`]: tests reach
    /// more with less.
    pub fn page_by(&mut self, size: usize, ahead: usize) {
        (self.index.pages.size, self.index.pages.ahead) = (size, ahead);
    }

    /// Bytes of memory that the index takes, without what is little and what is paged out.
    pub fn index_bytes(&self) -> usize {
        self.index.bytes()
    }

    /// Whether anything is paged out.
    pub fn has_pages(&self) -> bool {
        !self.index.pages.elsewhere.is_empty()
    }

    /// The page that has a message's chunk, if it is paged out.
    pub fn page_of(&self, seq: Seq) -> Option<PageId> {
        self.index.pages.page_of(ChunkNo::of(seq)).map(|first| PageId(first.0))
    }

    /// The first page that has chunks of messages with numbers from `first` to `last`.
    pub fn page_between(&self, first: Seq, last: Seq) -> Option<PageId> {
        self.index.pages.between(ChunkNo::of(first), ChunkNo::of(last)).map(|first| PageId(first.0))
    }

    /// Takes a page back. On damage nothing has changed. [`Queue::run`] is to be called afterwards.
    pub fn page_in(&mut self, page: PageId, bytes: &[u8]) -> Result<(), Damage> {
        self.index.page_in(page, bytes)
    }

    /// Of each 64 numbers, beginning with the first, which messages are not settled and are kept over a restart: bit 0 is the
    /// first. In the order of the numbers, those that are paged out included.
    pub fn persistent(&self) -> impl Iterator<Item = (Seq, u64)> {
        self.index.persistent_masks()
    }

    /// Asks for the pages that are wanted, or will be soon.
    pub(super) fn ask_for_pages(&mut self, out: &mut Vec<Output>) {
        if !self.index.pages.elsewhere.is_empty() {
            self.index.look_ahead();
            out.extend(self.index.pages.wanted.drain(..).map(|first| Output::PageIn(PageId(first.0))));
        }
    }
}

impl Index {
    fn page_out(&mut self, stays: impl Fn(Locator) -> bool, bytes: &mut Vec<u8>) -> Option<PageId> {
        let soon = *self.lists[State::Ready as usize].iter().nth(self.pages.ahead)?;
        let from = self.pages.cursor.take().map_or(soon, |cursor| cursor.max(soon));
        let mut row: Vec<ChunkNo> = Vec::new();
        for (&no, &slot) in self.directory.range(from..).take(PAGE_CHUNKS_LOOKED_AT) {
            let fits = self.is_closed(no) && can_go(self.chunk(slot), &stays);
            if !fits || row.last().is_some_and(|last| last.next() != no) {
                row.clear();
            }
            if fits {
                row.push(no);
            }
            if row.len() == self.pages.size {
                self.pages.cursor = Some(no.next());
                break;
            }
        }
        if row.len() < self.pages.size {
            return None;
        }
        let chunks: Vec<_> = row
            .iter()
            .map(|no| {
                let slot = self.find(*no).expect("the directory named it");
                self.take_out(slot)
            })
            .collect();
        let first = row[0];
        let page = Page {
            outlines: chunks
                .iter()
                .map(|chunk| Outline {
                    no: chunk.no,
                    ready: chunk.mask(State::Ready),
                    persistent: chunk.persistent & chunk.live(),
                })
                .collect(),
            earliest: chunks.iter().map(|chunk| chunk.earliest).min().unwrap_or(NEVER),
            state: State::Ready,
            wanted: false,
        };
        if page.earliest != NEVER {
            self.deadlines.insert((page.earliest, first));
        }
        self.lists[State::Ready as usize].insert(first);
        self.pages.elsewhere.insert(first, page);
        encode(&chunks, bytes);
        Some(PageId(first.0))
    }

    fn page_in(&mut self, page: PageId, bytes: &[u8]) -> Result<(), Damage> {
        let first = ChunkNo(page.0);
        let Some(page) = self.pages.elsewhere.get(&first) else {
            return Err(Damage { position: 0, what: "the page is not paged out" });
        };
        let chunks = decode(bytes)?;
        let names = |outline: &Outline, chunk: &Chunk| {
            (outline.no, outline.ready) == (chunk.no, chunk.mask(State::Ready))
        };
        if chunks.len() != page.outlines.len()
            || !page.outlines.iter().zip(&chunks).all(|(outline, chunk)| names(outline, chunk))
        {
            return Err(Damage { position: 0, what: "the page is another one" });
        }
        let (state, earliest, wanted) = (page.state, page.earliest, page.wanted);
        self.pages.elsewhere.remove(&first);
        if wanted {
            self.pages.awaited -= 1;
            self.pages.wanted.retain(|wanted| *wanted != first);
        }
        self.deadlines.remove(&(earliest, first));
        self.lists[state as usize].remove(&first);
        for mut chunk in chunks {
            chunk.masks.swap(State::Ready as usize, state as usize);
            self.put_in(chunk, state);
        }
        Ok(())
    }

    /// Wants the pages that will be needed before long.
    fn look_ahead(&mut self) {
        for no in self.lists[State::Ready as usize].iter().take(self.pages.ahead.div_ceil(2)) {
            if self.pages.elsewhere.contains_key(no) {
                self.pages.want(*no);
            }
        }
    }

    fn persistent_masks(&self) -> impl Iterator<Item = (Seq, u64)> {
        let outlines = self.pages.elsewhere.values().flat_map(|page| &page.outlines);
        let mut paged = outlines.map(|outline| (outline.no, outline.persistent)).peekable();
        let chunks = self.chunks_from(ChunkNo(0));
        let mut here = chunks.map(|chunk| (chunk.no, chunk.persistent & chunk.live())).peekable();
        let merged = std::iter::from_fn(move || match (paged.peek(), here.peek()) {
            (Some((elsewhere, _)), Some((no, _))) if elsewhere < no => paged.next(),
            (Some(_), None) => paged.next(),
            _ => here.next(),
        });
        merged.filter(|(_, mask)| *mask != 0).map(|(no, mask)| (no.seq(0), mask))
    }
}

/// Whether a chunk can be elsewhere: all that there is to know of its messages is in a page.
fn can_go(chunk: &Chunk, stays: impl Fn(Locator) -> bool) -> bool {
    let ready = chunk.mask(State::Ready);
    let plain = |entry: &Entry| entry.failures == 0 && stays(entry.locator);
    ready != 0 && chunk.live() == ready && Places(ready).all(|place| plain(chunk.entry(place)))
}

fn encode(chunks: &[Box<Chunk>], bytes: &mut Vec<u8>) {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; CRC_BYTES]);
    let count = u16::try_from(chunks.len()).expect("a page has few chunks");
    bytes.extend_from_slice(&count.to_le_bytes());
    for chunk in chunks {
        let ready = chunk.mask(State::Ready);
        for word in [chunk.no.0, ready, chunk.delivered, chunk.persistent] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        let expires = chunk.earliest != NEVER;
        bytes.push(u8::from(expires));
        for place in Places(ready) {
            let entry = chunk.entry(place);
            bytes.extend_from_slice(&entry.locator.0.to_le_bytes());
            bytes.extend_from_slice(&entry.size.to_le_bytes());
            if expires {
                bytes.extend_from_slice(&chunk.expiry(place).0.to_le_bytes());
            }
        }
    }
    let crc = crc32c(&bytes[start + CRC_BYTES..]);
    bytes[start..start + CRC_BYTES].copy_from_slice(&crc.to_le_bytes());
}

#[expect(clippy::vec_box, reason = "the index takes the boxes as they are")]
fn decode(bytes: &[u8]) -> Result<Vec<Box<Chunk>>, Damage> {
    let mut rest = bytes;
    let cut = Damage { position: bytes.len() as u64, what: "the page is cut short" };
    let crc = take::<U32>(&mut rest).ok_or(cut)?;
    if crc32c(rest) != crc.get() {
        return Err(Damage { position: 0, what: "the page's checksum does not match" });
    }
    let count = take::<U16>(&mut rest).ok_or(cut)?;
    (0..count.get()).map(|_| decode_chunk(&mut rest).ok_or(cut)).collect()
}

fn decode_chunk(bytes: &mut &[u8]) -> Option<Box<Chunk>> {
    let mut word = || take::<U64>(bytes).map(U64::get);
    let mut chunk = Chunk::new(ChunkNo(word()?));
    let ready = word()?;
    chunk.masks[State::Ready as usize] = ready;
    chunk.delivered = word()?;
    chunk.persistent = word()?;
    let expires = take::<u8>(bytes)? != 0;
    for place in Places(ready) {
        let locator = Locator(take::<U64>(bytes)?.get());
        let size = take::<U32>(bytes)?.get();
        *chunk.entry_mut(place) = Entry { locator, size, ..Entry::default() };
        if expires {
            let expiry = WallMs(take::<I64>(bytes)?.get());
            chunk.set_expiry(place, expiry);
            chunk.earliest = chunk.earliest.min(expiry);
        }
    }
    Some(chunk)
}
