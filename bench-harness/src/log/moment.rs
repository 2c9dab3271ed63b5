//! Has batches that were prepared be made at another moment, without looking at all of their bytes again. A CRC is linear: how
//! a bit that changes changes the CRC depends on where the bit is and on how many bytes there are, and on nothing else.

use millstream_engine::checksum::crc32c;

/// Where a batch has its CRC, where what the CRC covers begins, and where the first and the last timestamp are.
const CRC: usize = 17;
const COVERED: usize = 21;
const TIMESTAMPS: [usize; 2] = [27, 35];

/// What each bit of the timestamps does to the CRC of a batch of one size.
pub struct Moment([u32; 64]);

impl Moment {
    /// Of batches of so many bytes.
    pub fn of(size: usize) -> Moment {
        let mut covered = vec![0; size - COVERED];
        let nothing = crc32c(&covered);
        Moment(std::array::from_fn(|bit| {
            put(&mut covered, COVERED, 1 << bit);
            crc32c(&covered) ^ nothing
        }))
    }

    /// Has a batch, all of whose records were made at the same time, be made at `now_ms`.
    pub fn set(&self, batch: &mut [u8], now_ms: u64) {
        let before_ms = u64::from_be_bytes(field(batch, TIMESTAMPS[0]));
        let changed = before_ms ^ now_ms;
        let mut crc = u32::from_be_bytes(field(batch, CRC));
        for (bit, effect) in self.0.iter().enumerate() {
            if changed >> bit & 1 == 1 {
                crc ^= effect;
            }
        }
        batch[CRC..CRC + 4].copy_from_slice(&crc.to_be_bytes());
        put(batch, 0, now_ms);
    }
}

/// Puts both timestamps into bytes of a batch that begin at `from`.
fn put(bytes: &mut [u8], from: usize, ms: u64) {
    for at in TIMESTAMPS {
        bytes[at - from..][..8].copy_from_slice(&ms.to_be_bytes());
    }
}

fn field<const N: usize>(batch: &[u8], at: usize) -> [u8; N] {
    *batch[at..].first_chunk().expect("a batch has a header")
}

#[cfg(test)]
mod tests {
    use millstream_engine::format::batch::BatchBuilder;

    use super::*;

    #[test]
    fn a_batch_of_another_moment_is_what_would_have_been_made_then() {
        let made = |ms: i64, records: usize| {
            let mut builder = BatchBuilder::new(ms);
            for n in 0..records {
                builder.push(Some(b"key"), Some(&vec![n as u8; n * 7]));
            }
            builder.build()
        };
        for records in [1, 2, 50] {
            let mut batch = made(1_700_000_000_123, records);
            let moment = Moment::of(batch.len());
            for ms in [1_700_000_000_124, 1_800_000_000_000, 0, i64::MAX, 1_700_000_000_123] {
                moment.set(&mut batch, ms.cast_unsigned());
                assert!(batch == made(ms, records), "{records} records at {ms}");
            }
        }
    }
}
