//! Recovery of a journal over a simulated disk whose journal files are built, and damaged, as the input says.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use millstream_engine::buffer::{Pool, Slice};
use millstream_engine::error::Fatal;
use millstream_engine::format::batch::BatchBuilder;
use millstream_engine::format::journal::{
    GROUP_HEADER_BYTES, GroupPlace, RecordHeader, RecordKind, encode_record, seal,
};
use millstream_engine::inspect::{Detail, check};
use millstream_engine::io::fault::Faults;
use millstream_engine::io::sim::{Disk, World};
use millstream_engine::io::{Blocking, OpenMode};
use millstream_engine::journal::{Ring, recover};
use millstream_engine::limits::BLOCK_BYTES;
use millstream_engine::types::{FileEpoch, Lsn, Offset, PartitionId, ShardId, TopicId};

const DIRECTORY: &str = "shards/1-0/journal";
const FILES: [&str; 2] = ["shards/1-0/journal/0000.journal", "shards/1-0/journal/0001.journal"];
const KEY: u64 = 99;
/// The smallest files that there may be.
const RING: Ring<'static> = Ring { directory: DIRECTORY, key: KEY, file_bytes: 1 << 20 };
/// Blocks at each file's start that the input has a say in.
const BLOCKS: usize = 24;
const SIZE: usize = BLOCKS * BLOCK_BYTES;

thread_local! {
    /// Two files of zeros, which take time to make.
    static EMPTY: OnceCell<Disk> = const { OnceCell::new() };
}

/// What recovery accepts are the records that were sealed under these numbers, without a gap, up to its end and not
/// short of what was durable; it finds the same when it is run again; and what it refuses is damaged for an inspection,
/// too.
pub fn run(bytes: &[u8]) {
    let Some(([durable, replay], plan)) = bytes.split_first_chunk() else { return };
    let built = Built::new(plan);
    let checkpoint_lsn = Lsn(u64::from(durable % 4));
    let replay_lsn = Lsn(u64::from(replay % 8) + 1);
    let world = built.world();
    let first = recovered(&world, checkpoint_lsn, replay_lsn);
    match &first {
        Ok((last, records)) => {
            assert!(*last >= checkpoint_lsn, "the journal ends before what was durable");
            let mut next = None;
            for (lsn, payload) in records {
                assert!(next.is_none_or(|next| next == *lsn), "a gap before record {}", lsn.0);
                let sealed = built.sealed.get(lsn).expect("nobody sealed such a record");
                assert!(sealed.contains(payload), "record {} is not what was sealed", lsn.0);
                next = Some(lsn.next());
            }
            assert!(next.is_none_or(|next| next == last.next()), "records are kept back");
            assert_eq!(
                recovered(&world, checkpoint_lsn, replay_lsn),
                first,
                "another recovery finds another end"
            );
        }
        Err(Fatal::Corrupt { file, position, .. }) => {
            assert!(*position <= RING.file_bytes && file.starts_with(DIRECTORY));
        }
        Err(other) => panic!("{other}"),
    }
    let mut io = world.io(ShardId(0));
    let mut disk = Blocking::new(&mut io, Pool::new(128 << 20));
    check(&mut disk, "", Detail::Records, &mut |_| {}).expect("an inspection comes to its end");
}

type Records = Vec<(Lsn, Vec<u8>)>;

fn recovered(world: &World, checkpoint_lsn: Lsn, replay_lsn: Lsn) -> Result<(Lsn, Records), Fatal> {
    let mut io = world.io(ShardId(0));
    let mut disk = Blocking::new(&mut io, Pool::new(128 << 20));
    let mut records = Vec::new();
    let recovered =
        recover(&mut disk, &RING, checkpoint_lsn, replay_lsn, &mut |lsn, _, payload: Slice, _| {
            records.push((lsn, payload.to_vec()));
            Ok(())
        })?;
    Ok((recovered.last_lsn, records))
}

/// The content of both files' starts, and which payloads were ever sealed under each number.
struct Built {
    files: [Vec<u8>; 2],
    sealed: BTreeMap<Lsn, Vec<Vec<u8>>>,
    file: usize,
    block: usize,
    epoch: u64,
    next: u64,
    previous_crc: u32,
}

impl Built {
    /// Takes two bytes for each step.
    fn new(plan: &[u8]) -> Built {
        let mut built = Built {
            files: [vec![0; SIZE], vec![0; SIZE]],
            sealed: BTreeMap::new(),
            file: 0,
            block: 0,
            epoch: 1,
            next: 1,
            previous_crc: 0,
        };
        let (steps, _) = plan.as_chunks::<2>();
        for [step, value] in steps.iter().take(64) {
            built.step(*step, *value);
        }
        built
    }

    fn step(&mut self, step: u8, value: u8) {
        let value = usize::from(value);
        match step % 12 {
            0..=5 => self.group(step, value),
            // The next file is started.
            6 => {
                (self.file, self.block) = (1 - self.file, 0);
                self.epoch += 1;
            }
            // A bit rots.
            7 => self.bytes(value * 61, |bytes| bytes[0] ^= 1 << (value % 8)),
            // A block is lost, or comes from the other file.
            8 => self.bytes(value % BLOCKS * BLOCK_BYTES, |block| block[..BLOCK_BYTES].fill(0)),
            9 => {
                let at = value % BLOCKS * BLOCK_BYTES;
                let other = self.files[1 - self.file][at..at + BLOCK_BYTES].to_vec();
                self.bytes(at, |block| block[..BLOCK_BYTES].copy_from_slice(&other));
            }
            // A group is written in another place than it was meant for.
            10 => self.block = value % BLOCKS,
            // History goes on from elsewhere.
            _ => self.next = value as u64 % 16 + 1,
        }
    }

    fn bytes(&mut self, at: usize, change: impl FnOnce(&mut [u8])) {
        if let Some(bytes) = self.files[self.file].get_mut(at % SIZE..) {
            change(bytes);
        }
    }

    fn group(&mut self, kind: u8, value: usize) {
        let count = value % 3 + 1;
        let mut group = vec![0; GROUP_HEADER_BYTES];
        for number in 0..count {
            let (kind, payload) = match (usize::from(kind) + number) % 3 {
                0 => {
                    let batch = BatchBuilder::new(0).push(None, Some(&vec![value as u8; value * 16])).build();
                    (RecordKind::Batch, batch)
                }
                1 => (RecordKind::Carry, vec![value as u8; value]),
                _ => (RecordKind::LogStart, Vec::new()),
            };
            let header = RecordHeader {
                kind,
                partition: PartitionId { topic: TopicId([1; 16]), index: 0 },
                segment: Offset(0),
                position: 0,
                aux: 0,
                len: payload.len(),
            };
            group.extend_from_slice(&encode_record(&header));
            group.extend_from_slice(&payload);
            group.resize(group.len().next_multiple_of(8), 0);
            self.sealed.entry(Lsn(self.next + number as u64)).or_default().push(payload);
        }
        let used = group.len();
        group.resize(used.next_multiple_of(BLOCK_BYTES), 0);
        let place = GroupPlace {
            previous_crc: self.previous_crc,
            file_epoch: FileEpoch(self.epoch),
            first_lsn: Lsn(self.next),
            durable_lsn: Lsn(self.next - 1),
            key: if value == 255 { KEY + 1 } else { KEY },
        };
        let crc = seal(&mut group, used, count as u32, &place);
        let at = self.block * BLOCK_BYTES;
        let Some(room) = self.files[self.file].get_mut(at..at + group.len()) else { return };
        room.copy_from_slice(&group);
        self.previous_crc = crc;
        self.next += count as u64;
        self.block += group.len() / BLOCK_BYTES;
    }

    fn world(&self) -> World {
        let empty = EMPTY.with(|empty| {
            let made = empty.get_or_init(|| {
                let world = World::new(1, Faults::default());
                for path in FILES {
                    world.write_file(path, &vec![0; RING.file_bytes as usize]);
                }
                world.snapshot_disk()
            });
            made.clone()
        });
        let world = World::from_disk(1, empty, Faults::default());
        let mut io = world.io(ShardId(0));
        let mut disk = Blocking::new(&mut io, Pool::new(1 << 20));
        for (path, bytes) in FILES.into_iter().zip(&self.files) {
            let (file, _) = disk.open(path, OpenMode::Buffered).expect("it was made");
            disk.write(file, path, 0, Slice::from(bytes.clone())).expect("the disk has no faults");
            disk.flush(file, path).expect("the disk has no faults");
            disk.close(file);
        }
        drop(io);
        world
    }
}
