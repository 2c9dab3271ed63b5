//! A start of the whole engine on a golden data directory of which the input damages segments, indexes, the checkpoint
//! and the journal.

use std::cell::OnceCell;

use millstream_engine::buffer::Pool;
use millstream_engine::checksum::crc32c;
use millstream_engine::error::Fatal;
use millstream_engine::inspect::{Detail, check, salvage};
use millstream_engine::io::Blocking;
use millstream_engine::io::fault::Faults;
use millstream_engine::io::sim::{Disk, World};
use millstream_engine::types::{PartitionId, ShardId};
use millstream_tests::golden_data::{RECORDS, open, value};
use millstream_tests::solo::{Solo, config};

use crate::overwrite;

const SOUND: &[u8] = include_bytes!("../../tests/golden/data/v1/sound.disk");
const CHECKPOINT: &str = "shards/1-0/checkpoint";
const JOURNAL: &str = "shards/1-0/journal/0000.journal";
/// The journal's first bytes, which is all that was ever written.
const JOURNAL_BYTES: usize = 52 * 4096;

thread_local! {
    static DISK: OnceCell<Disk> = const { OnceCell::new() };
}

/// A start succeeds or says what is damaged; what is served afterwards is what was stored, or a refusal; an inspection
/// and a salvage come to their end.
pub fn run(bytes: &[u8]) {
    let disk = DISK.with(|disk| disk.get_or_init(|| open(SOUND).snapshot_disk()).clone());
    let world = World::from_disk(1, disk, Faults::default());
    let paths: Vec<String> = world
        .list_all()
        .into_iter()
        .filter(|path| path.starts_with("logs/") && !path.ends_with(".metadata"))
        .collect();
    let (steps, _) = bytes.as_chunks::<5>();
    let mut offsets_vouched_for = true;
    for [what, which, high, low, with] in steps.iter().take(8) {
        let at = usize::from(u16::from_be_bytes([*high, *low]));
        let path = match what % 4 {
            0 | 1 => &paths[usize::from(*which) % paths.len()][..],
            2 => CHECKPOINT,
            _ => JOURNAL,
        };
        offsets_vouched_for &= damage(&world, path, *which, at, *with);
    }
    look(&world);
    let mut node = match Solo::start(&world, config()) {
        Ok(node) => node,
        Err(Fatal::Corrupt { .. }) => return,
        Err(other) => panic!("{other}"),
    };
    for index in 0..2 {
        let partition = PartitionId { topic: node.topic("orders"), index };
        let Ok(values) = node.read_all(partition) else { continue };
        let stored: Vec<_> = (0..RECORDS).map(|number| value(index, number)).collect();
        assert!(values.iter().all(|value| stored.contains(value)), "what nobody stored is served");
        if offsets_vouched_for {
            assert!(stored.starts_with(&values) || stored.ends_with(&values), "records are left out");
        }
    }
}

/// Changes a byte of a file, or cuts it. Says whether the offsets that batches claim are still vouched for.
fn damage(world: &World, path: &str, how: u8, at: usize, with: u8) -> bool {
    let mut bytes = world.read_file(path).unwrap_or_default();
    let len = if path == JOURNAL { JOURNAL_BYTES } else { bytes.len() };
    if len == 0 {
        return true;
    }
    if path.starts_with("logs/") && how >= 240 {
        bytes.truncate(at % len);
        world.write_file(path, &bytes);
        return true;
    }
    if path == CHECKPOINT {
        // A checksum that chance would never hit: what is behind it is looked at, too.
        overwrite(&mut bytes, 8 + at % (len - 8), &[with]);
        let crc = crc32c(&bytes[8..]);
        overwrite(&mut bytes, 4, &crc.to_le_bytes());
        world.write_file(path, &bytes);
        return false;
    }
    for bit in (0..8).filter(|bit| with >> bit & 1 == 1) {
        let at = if path == JOURNAL { at * 4 } else { at };
        world.rot(path, (at % len) as u64, bit);
    }
    // A batch's CRC does not cover its offset, and an open segment has no sums yet.
    path.rsplit('.').next() != Some("log")
}

fn look(world: &World) {
    let (mut from, mut to) = (world.io(ShardId(0)), world.io(ShardId(1)));
    let mut from = Blocking::new(&mut from, Pool::new(128 << 20));
    let mut to = Blocking::new(&mut to, Pool::new(128 << 20));
    check(&mut from, "", Detail::Records, &mut |_| {}).expect("an inspection comes to its end");
    salvage(&mut from, "", &mut to, "saved", &mut |_| {}).expect("a salvage comes to its end");
}
