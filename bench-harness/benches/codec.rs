//! What a batch costs on its way in, without any I/O: parse its header, verify its checksum, copy it into a group and
//! stamp it there. Run with `cargo bench -p millstream-bench`; the workload is one batch of 1 KiB records.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use millstream_engine::checksum::crc32c;
use millstream_engine::format::batch::{BatchBuilder, BatchHeader, check_produced, stamp};
use millstream_engine::limits::GROUP_BYTES_MAX;
use millstream_engine::types::{LeaderEpoch, Offset};

/// Records per batch: about 1, 4, 64 and 256 KiB.
const RECORDS: [usize; 4] = [1, 4, 64, 256];

fn batch(records: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(0);
    for _ in 0..records {
        builder.push(None, Some(&[0x5a; 1016]));
    }
    builder.build()
}

fn codec(c: &mut Criterion) {
    let mut group = c.benchmark_group("batch");
    for records in RECORDS {
        let batch = batch(records);
        let size = batch.len() as u64;
        group.throughput(Throughput::Bytes(size));
        group.bench_with_input(BenchmarkId::new("crc", size), &batch, |b, batch| {
            b.iter(|| crc32c(black_box(batch)));
        });
        group.bench_with_input(BenchmarkId::new("parse header", size), &batch, |b, batch| {
            b.iter(|| BatchHeader::parse(black_box(batch)));
        });
        group.bench_with_input(BenchmarkId::new("check", size), &batch, |b, batch| {
            b.iter(|| check_produced(black_box(batch)));
        });
        let mut place = vec![0; GROUP_BYTES_MAX];
        group.bench_with_input(BenchmarkId::new("check, copy, stamp", size), &batch, |b, batch| {
            let mut at = 0;
            b.iter(|| {
                let header = check_produced(black_box(batch));
                // Batches lie one behind the other, as in a group; a full group is started over.
                at = if at + batch.len() <= GROUP_BYTES_MAX { at } else { 0 };
                let copy = &mut place[at..at + batch.len()];
                copy.copy_from_slice(batch);
                stamp(copy, Offset(7), LeaderEpoch(1));
                at += batch.len();
                header
            });
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    codec(&mut criterion);
    criterion.final_summary();
}
