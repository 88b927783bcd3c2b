//! What every stored byte goes through besides compression: checksums and encryption.

use std::hint::black_box;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use criterion::{BenchmarkId, Criterion, Throughput};
use sha2::Digest as _;

/// A small body when it is compressed, a large one, and a chunk.
const SIZES: [usize; 3] = [2 << 10, 16 << 10, 1 << 20];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    checksums(&mut criterion);
    encryption(&mut criterion);
    criterion.final_summary();
}

/// CRC-32C of batches and values, BLAKE3 of chunks and files, SHA-256 of documents.
fn checksums(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("checksum");
    for size in SIZES {
        let bytes = vec![7_u8; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_with_input(
            BenchmarkId::new("crc32c", size),
            &bytes,
            |bencher, bytes| {
                bencher.iter(|| crc32c::crc32c(black_box(bytes)));
            },
        );
        group.bench_with_input(
            BenchmarkId::new("blake3", size),
            &bytes,
            |bencher, bytes| {
                bencher.iter(|| blake3::hash(black_box(bytes)));
            },
        );
        group.bench_with_input(
            BenchmarkId::new("sha256", size),
            &bytes,
            |bencher, bytes| {
                bencher.iter(|| sha2::Sha256::digest(black_box(bytes)));
            },
        );
    }
    group.finish();
}

/// AES-256-GCM in place, as bodies are sealed and opened.
fn encryption(criterion: &mut Criterion) {
    let key = UnboundKey::new(&AES_256_GCM, &[9; 32]).expect("a key");
    let key = LessSafeKey::new(key);
    let nonce = || Nonce::assume_unique_for_key([1; NONCE_LEN]);
    let mut group = criterion.benchmark_group("encrypt");
    for size in SIZES {
        let plain = vec![7_u8; size];
        let mut sealed = plain.clone();
        key.seal_in_place_append_tag(nonce(), Aad::empty(), &mut sealed)
            .expect("it is short enough");
        group.throughput(Throughput::Bytes(size as u64));
        let mut room = plain.clone();
        group.bench_function(BenchmarkId::new("seal", size), |bencher| {
            bencher.iter(|| {
                room.copy_from_slice(&plain);
                key.seal_in_place_separate_tag(nonce(), Aad::empty(), black_box(&mut room))
                    .expect("it is short enough")
            });
        });
        let mut room = sealed.clone();
        group.bench_function(BenchmarkId::new("open", size), |bencher| {
            bencher.iter(|| {
                room.copy_from_slice(&sealed);
                let opened = key.open_in_place(nonce(), Aad::empty(), black_box(&mut room));
                opened.expect("it was sealed here").len()
            });
        });
    }
    group.finish();
}
