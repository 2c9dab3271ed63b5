//! Small images of simulated disks, to be kept in the repository: files with their lengths, and only the blocks that
//! are not zero.
//!
//! `MSDISK1`, then for each file a line `file <length> <blocks> <path>`, then each of its blocks: a line
//! `block <number> <bytes>` and that many bytes; the rest of the block is zeros.

use std::fmt::Write as _;

use millstream_engine::io::sim::World;
use millstream_engine::limits::BLOCK_BYTES;

const MAGIC: &str = "MSDISK1\n";

/// The image of a world's disk, as a reader sees it now.
pub fn save(world: &World) -> Vec<u8> {
    let mut image = MAGIC.as_bytes().to_vec();
    for path in world.list_all() {
        let bytes = world.read_file(&path).expect("it was just listed");
        let blocks = || {
            let numbered = bytes.chunks(BLOCK_BYTES).enumerate();
            numbered.filter(|(_, block)| block.iter().any(|byte| *byte != 0))
        };
        let mut line = String::new();
        writeln!(line, "file {} {} {path}", bytes.len(), blocks().count()).expect("a string takes all");
        image.extend_from_slice(line.as_bytes());
        for (number, block) in blocks() {
            let end = block.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            image.extend_from_slice(format!("block {number} {end}\n").as_bytes());
            image.extend_from_slice(&block[..end]);
        }
    }
    image
}

/// Puts an image's files onto a world's disk, all of them durable. `None` if it is no image.
pub fn load(world: &World, image: &[u8]) -> Option<()> {
    let mut rest = image.strip_prefix(MAGIC.as_bytes())?;
    while !rest.is_empty() {
        let mut words = line(&mut rest)?.splitn(4, ' ');
        (words.next()? == "file").then_some(())?;
        let len: usize = words.next()?.parse().ok()?;
        let blocks: usize = words.next()?.parse().ok()?;
        let path = words.next()?;
        let mut bytes = vec![0; len.next_multiple_of(BLOCK_BYTES)];
        for _ in 0..blocks {
            let (number, size) = line(&mut rest)?.strip_prefix("block ")?.split_once(' ')?;
            let at = number.parse::<usize>().ok()? * BLOCK_BYTES;
            let block = rest.split_off(..size.parse().ok()?)?;
            bytes.get_mut(at..at + block.len())?.copy_from_slice(block);
        }
        bytes.truncate(len);
        world.write_file(path, &bytes);
    }
    Some(())
}

fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let line = rest.split_off(..end)?;
    rest.split_off(..1)?;
    str::from_utf8(line).ok()
}
