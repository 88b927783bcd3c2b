//! What a document costs its leader: it is read and merged into what is there, compressed, and compared.
//!
//! Documents are those of the loads (`data.rs`), as they are in a browser in use.

use std::hint::black_box;

use benches::data::{self, Text};
use criterion::{BenchmarkId, Criterion, Throughput};
use model::document;

const SIZES: [usize; 4] = [4 << 10, 16 << 10, 64 << 10, 1 << 20];
/// As bodies are compressed.
const LEVEL: i32 = 1;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    reading(&mut criterion);
    compression(&mut criterion);
    criterion.final_summary();
}

/// A new document, and one that replaces another.
fn reading(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("document");
    for size in SIZES {
        let (first, second) = (
            data::state(1, 1, size, Text::Real),
            data::state(1, 2, size, Text::Real),
        );
        let before = document::create(&first).expect("a document").sections;
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_with_input(BenchmarkId::new("create", size), &first, |bencher, body| {
            bencher.iter(|| document::create(black_box(body)).expect("a document"));
        });
        group.bench_with_input(BenchmarkId::new("put", size), &second, |bencher, body| {
            bencher.iter(|| document::put(&before, black_box(body)).expect("a document"));
        });
    }
    group.finish();
}

/// Its sections, as they are before they are sealed.
fn compression(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compress");
    for size in SIZES {
        let body = data::state(1, 1, size, Text::Real);
        let plain = document::create(&body)
            .expect("a document")
            .sections
            .encode();
        group.throughput(Throughput::Bytes(size as u64));
        let mut compressor = zstd::bulk::Compressor::new(LEVEL).expect("a level of zstd");
        let packed = compressor.compress(&plain).expect("memory");
        group.bench_function(BenchmarkId::new("zstd", size), |bencher| {
            bencher.iter(|| compressor.compress(black_box(&plain)).expect("memory"));
        });
        let mut decompressor = zstd::bulk::Decompressor::new().expect("memory");
        group.bench_function(BenchmarkId::new("unzstd", size), |bencher| {
            bencher.iter(|| {
                let plain = decompressor.decompress(black_box(&packed), plain.len());
                plain.expect("it was compressed here")
            });
        });
    }
    group.finish();
}
