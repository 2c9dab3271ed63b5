//! How many records go by in a stretch of record batches, which comes in pieces of any size.

use millstream_engine::format::batch::HEADER_BYTES;

/// Where a batch says how many bytes of it follow this field, and how many records it holds (version 2).
const LENGTH: std::ops::Range<usize> = 8..12;
const RECORDS: std::ops::Range<usize> = 57..61;

/// A count of records. Only the batches' headers are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Tally {
    /// Bytes to pass before the next header.
    pass: usize,
    /// A header that has come in part.
    header: [u8; HEADER_BYTES],
    filled: usize,
}

impl Default for Tally {
    fn default() -> Tally {
        Tally { pass: 0, header: [0; HEADER_BYTES], filled: 0 }
    }
}

impl Tally {
    /// Takes the next piece: how many records the batches hold whose headers end in it.
    pub fn count(&mut self, mut bytes: &[u8]) -> u64 {
        let mut records = 0;
        loop {
            let (passed, behind) = bytes.split_at(self.pass.min(bytes.len()));
            self.pass -= passed.len();
            let (part, behind) = behind.split_at((HEADER_BYTES - self.filled).min(behind.len()));
            bytes = behind;
            if part.is_empty() {
                return records;
            }
            self.header[self.filled..self.filled + part.len()].copy_from_slice(part);
            self.filled += part.len();
            if self.filled == HEADER_BYTES {
                self.filled = 0;
                let field = |place: std::ops::Range<usize>| {
                    let bytes = self.header[place].try_into().expect("four bytes");
                    u32::from_be_bytes(bytes)
                };
                records += u64::from(field(RECORDS));
                // Stored batches are sound; one that were not would only spoil this count.
                self.pass = (field(LENGTH) as usize + LENGTH.end).saturating_sub(HEADER_BYTES);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use millstream_engine::format::batch::BatchBuilder;

    use super::*;

    #[test]
    fn records_are_counted_however_the_bytes_are_cut() {
        let mut stretch = Vec::new();
        for records in [1, 3, 2] {
            let mut builder = BatchBuilder::new(0);
            for _ in 0..records {
                builder.push(None, Some(&[7; 40]));
            }
            stretch.extend(builder.build());
        }
        for piece in 1..=stretch.len() {
            let mut tally = Tally::default();
            let records: u64 = stretch.chunks(piece).map(|bytes| tally.count(bytes)).sum();
            assert_eq!(records, 6, "in pieces of {piece}");
        }
    }

    #[test]
    fn a_batch_that_is_cut_off_counts_with_its_header() {
        let batch = BatchBuilder::new(0).push(None, Some(&[7; 40])).build();
        assert_eq!(Tally::default().count(&batch[..HEADER_BYTES]), 1);
        assert_eq!(Tally::default().count(&batch[..HEADER_BYTES - 1]), 0);
    }
}
