//! Reading everything back when nothing else goes on, and looking things up in it.

use std::collections::BTreeSet;
use std::ops::Range;

use millstream_engine::error::Refusal;
use millstream_engine::reactor::app::AppToken;
use millstream_engine::shard::request::{Found, Reply, Request, Target};
use millstream_engine::time::WallMs;
use millstream_engine::types::{LeaderEpoch, Offset, PartitionId, ShardId};

use super::model::Model;
use super::node::SimNode;
use super::partition::{Rotten, Stored};

/// Steps after which an answer is given up.
const PATIENCE: u32 = 200_000;

/// The token of what is asked here.
const MINE: AppToken = AppToken(1);

/// Why an audit did not come to its end.
pub enum Cut {
    /// The machine stands still.
    Halted,
    /// Something is wrong; it was noted.
    Violated,
}

/// Asks one thing and waits for the answer.
pub fn ask(node: &mut SimNode, from: ShardId, to: ShardId, request: Request) -> Result<Reply, Cut> {
    let wire = node.wires[usize::from(from.0)].clone();
    wire.borrow_mut().requests.push_back((MINE, to, request));
    for _ in 0..PATIENCE {
        let mut known = wire.borrow_mut();
        if let Some(place) = known.replies.iter().position(|(token, _)| *token == MINE)
            && let Some((_, reply)) = known.replies.remove(place)
        {
            return Ok(reply);
        }
        drop(known);
        if !node.step() {
            return Err(Cut::Halted);
        }
    }
    Err(Cut::Violated)
}

/// Reads every partition from its start to its end, and compares it with what was promised.
pub fn audit(node: &mut SimNode, model: &mut Model) -> Result<(), Cut> {
    let partitions: Vec<PartitionId> = model.partitions.keys().copied().collect();
    for (turn, partition) in partitions.into_iter().enumerate() {
        let Some(owner) = node.metadata(ShardId(0)).shard_of(partition) else {
            model.violated(format!("{partition} is served by nobody"));
            continue;
        };
        let from = ShardId(turn as u16 % node.shards());
        audit_one(node, model, from, owner, partition).inspect_err(|cut| {
            if matches!(cut, Cut::Violated) {
                model.violated(format!("{partition} could not be read back"));
            }
        })?;
    }
    Ok(())
}

fn audit_one(
    node: &mut SimNode,
    model: &mut Model,
    from: ShardId,
    owner: ShardId,
    partition: PartitionId,
) -> Result<(), Cut> {
    let retention = model.partitions.get(&partition).is_some_and(|known| known.retention);
    let mut content: Vec<Stored> = Vec::new();
    let start = find(node, from, owner, partition, Target::Earliest)?.offset.unwrap_or_default().0;
    let mut offset = start;
    let mut high_watermark;
    let mut turn = 0;
    let mut refused = BTreeSet::new();
    loop {
        let max_bytes = [300_000, 1, 20_000][turn % 3];
        turn += 1;
        let request = Request::Read { partition, offset: Offset(offset), max_bytes };
        let read = match ask(node, from, owner, request)? {
            Reply::Read(read) => read,
            Reply::Refused(Refusal::OffsetOutOfRange { start: moved, .. })
                if retention && moved.0 > offset =>
            {
                // Retention went on meanwhile: begin anew.
                return audit_one(node, model, from, owner, partition);
            }
            Reply::Refused(Refusal::CorruptData) if model.rotten_at(partition, offset).is_some() => {
                // Whoever wants the rest goes on behind the damage.
                offset = skip(model, partition, offset, &mut refused);
                continue;
            }
            other => {
                model.violated(format!("{partition}: a read at {offset} was answered {other:?}"));
                return Ok(());
            }
        };
        high_watermark = read.high_watermark.0;
        let mut bytes: Vec<u8> = read.chunk.bytes.iter().flat_map(|slice| slice.to_vec()).collect();
        let mut rest = read.chunk.rest();
        let mut partial = false;
        while let Some(range) = rest {
            match ask(node, from, owner, Request::Load(range))? {
                Reply::Loaded(more) => {
                    bytes.extend(more.bytes.iter().flat_map(|slice| slice.iter()));
                    rest = more.rest();
                }
                Reply::Refused(Refusal::CorruptData) if model.rotten_at(partition, offset).is_some() => {
                    partial = true;
                    break;
                }
                other => {
                    model.violated(format!("{partition}: {range:?} was answered {other:?}"));
                    return Ok(());
                }
            }
        }
        let stored = model.read(partition, offset, &bytes, high_watermark, partial);
        if partial {
            content.extend(stored);
            offset = skip(model, partition, offset, &mut refused);
            continue;
        }
        let Some(last) = stored.last() else { break };
        offset = last.next;
        content.extend(stored);
    }
    let latest = find(node, from, owner, partition, Target::Latest)?.offset.unwrap_or_default().0;
    if latest != high_watermark {
        model.violated(format!("{partition}: the latest offset is {latest}, not {high_watermark}"));
    }
    unnoticed(model, partition, start..high_watermark, &refused);
    let poisoned = node.shard(owner).is_poisoned();
    model.audited(partition, (start, high_watermark), &content, poisoned);
    if !retention && !poisoned && refused.is_empty() {
        check_epochs(node, model, from, owner, partition, high_watermark, &content)?;
    }
    look_up(node, model, from, owner, partition, start, &content)
}

/// Every epoch ends where the next one's batches start.
fn check_epochs(
    node: &mut SimNode,
    model: &mut Model,
    from: ShardId,
    owner: ShardId,
    partition: PartitionId,
    high_watermark: u64,
    content: &[Stored],
) -> Result<(), Cut> {
    let first_of = |epoch| content.iter().find(|stored| stored.epoch > epoch).map(|stored| stored.base);
    let epochs: BTreeSet<u32> = content.iter().map(|stored| stored.epoch).collect();
    for epoch in epochs {
        let end = Offset(first_of(epoch).unwrap_or(high_watermark));
        let request = Request::EpochEnd { partition, epoch: LeaderEpoch(epoch) };
        match ask(node, from, owner, request)? {
            Reply::EpochEnd(found) if found == Some((LeaderEpoch(epoch), end)) => {}
            other => model.violated(format!("{partition}: epoch {epoch} ends at {end}, not {other:?}")),
        }
    }
    Ok(())
}

/// The offset behind the damaged segment that a read was refused for.
fn skip(model: &Model, partition: PartitionId, offset: u64, refused: &mut BTreeSet<u64>) -> u64 {
    let rotten = model.rotten_at(partition, offset).expect("the caller has looked");
    refused.insert(rotten.from);
    rotten.to
}

/// Everything was read, so that every damage had to be met.
fn unnoticed(model: &mut Model, partition: PartitionId, read: Range<u64>, refused: &BTreeSet<u64>) {
    let Some(known) = model.partitions.get(&partition) else { return };
    let missed: Vec<Rotten> = known
        .unreadable()
        .filter(|rotten| {
            read.start <= rotten.from && rotten.to <= read.end && !refused.contains(&rotten.from)
        })
        .collect();
    for rotten in missed {
        model.violated(format!("{partition}: {rotten:?} was passed off as data"));
    }
}

/// Looks for a few timestamps, and compares what is found with what was read.
fn look_up(
    node: &mut SimNode,
    model: &mut Model,
    from: ShardId,
    owner: ShardId,
    partition: PartitionId,
    start: u64,
    content: &[Stored],
) -> Result<(), Cut> {
    let times: Vec<i64> = content.iter().map(|stored| stored.max_timestamp).collect();
    let Some(largest) = times.iter().max().copied() else { return Ok(()) };
    let unreadable =
        model.partitions.get(&partition).is_some_and(|known| known.unreadable().next().is_some());
    if unreadable {
        return Ok(());
    }
    let middle = times[times.len() / 2];
    let targets = [
        (Target::Timestamp(WallMs(0)), 0),
        (Target::Timestamp(WallMs(middle)), middle),
        (Target::Timestamp(WallMs(middle + 1)), middle + 1),
        (Target::Timestamp(WallMs(largest + 1)), largest + 1),
        (Target::MaxTimestamp, largest),
    ];
    for (target, time) in targets {
        let found = find(node, from, owner, partition, target)?;
        let expected =
            content.iter().find(|stored| stored.max_timestamp >= time).map(|stored| stored.base.max(start));
        let offset = found.offset.map(|offset| offset.0);
        // The largest timestamp may belong to a record before the log's start; and retention goes on meanwhile.
        let trimmed = target == Target::MaxTimestamp && start > 0 && offset.is_none();
        // Of a segment that holds what is not durable, the engine knows the largest timestamp in memory only.
        let poisoned = target == Target::MaxTimestamp && node.shard(owner).is_poisoned();
        let moving = model.partitions.get(&partition).is_some_and(|known| known.retention);
        if offset != expected && !trimmed && !poisoned && !moving {
            model
                .violated(format!("{partition}: {target:?} was found at {offset:?} instead of {expected:?}"));
        }
    }
    Ok(())
}

fn find(
    node: &mut SimNode,
    from: ShardId,
    owner: ShardId,
    partition: PartitionId,
    target: Target,
) -> Result<Found, Cut> {
    match ask(node, from, owner, Request::Find { partition, target })? {
        Reply::Found(found) => Ok(found),
        Reply::Refused(Refusal::Busy) => Ok(Found::default()),
        _ => Err(Cut::Violated),
    }
}
