//! Every constant limit, with its unit and its reason; how they relate is asserted when this compiles.

use std::time::Duration;

/// Largest document after decoding, in bytes (`psp-api.md`, section 2).
pub const MAX_DOCUMENT_BYTES: usize = 52_428_800;
/// Deepest nesting of a document (`design.md`, section 14).
pub const MAX_DEPTH: usize = 128;
/// Above this sealed size, in bytes, a body travels as chunks ahead of its manifest.
pub const MAX_INLINE_BYTES: usize = 256 * 1024;
/// Largest chunk, in bytes.
pub const MAX_CHUNK_BYTES: usize = 256 * 1024;
/// Most chunks of one body: the largest document, not compressible, with room for envelopes.
pub const MAX_CHUNKS: usize = 256;
/// Longest time for which a command may be applied after its request arrived.
pub const MAX_NOT_AFTER: Duration = Duration::from_secs(65);
/// How many request outcomes a session remembers at the least, also when their time is over.
pub const MIN_REMEMBERED: usize = 16;
/// How many live request outcomes a session remembers at the most; then 429.
pub const MAX_REMEMBERED: usize = 1024;
/// How long an `Idempotency-Key` is remembered, in log time.
pub const IDEMPOTENCY_TTL: Duration = Duration::from_hours(24);
/// Live idempotency keys for each tenant and slot; then 429.
pub const MAX_IDEMPOTENCY_KEYS: u64 = 10_000;
/// How long an expired session can be renewed before it is purged, in log time.
pub const PURGE_AFTER: Duration = Duration::from_hours(24);
/// How long a tombstone lives, in log time.
pub const TOMBSTONE_TTL: Duration = Duration::from_hours(7 * 24);
/// How long a chunk may stay without a reference, in log time.
pub const CHUNK_TTL: Duration = Duration::from_mins(10);
/// Bytes of unreferenced chunks that a tenant may have in one shard.
pub const MAX_LOOSE_CHUNK_BYTES: u64 = 256 * 1024 * 1024;
/// Most due items that one sweep handles, so that no entry takes long to apply.
pub const MAX_SWEEP: usize = 256;
/// Most commands in one entry.
pub const MAX_BATCH_COMMANDS: usize = 512;
/// Bytes of commands after which an entry is full; one larger command still fits alone.
pub const MAX_BATCH_BYTES: usize = 1024 * 1024;
/// Largest stored or transmitted value that is decoded, in bytes.
pub const MAX_VALUE_BYTES: usize = 8 * 1024 * 1024;
/// Sessions in one answer to a list.
pub const MAX_LIST: usize = 1000;
/// Shards of a region of three nodes (`design.md`, section 5).
pub const DEFAULT_SHARDS: u16 = 6;

const _: () = assert!(MAX_CHUNKS * MAX_CHUNK_BYTES > MAX_DOCUMENT_BYTES + MAX_DOCUMENT_BYTES / 100);
const _: () = assert!(MAX_CHUNK_BYTES + 64 * 1024 < MAX_VALUE_BYTES);
const _: () = assert!(MAX_BATCH_BYTES + MAX_CHUNK_BYTES < MAX_VALUE_BYTES);
const _: () = assert!(MIN_REMEMBERED < MAX_REMEMBERED);
const _: () = assert!(MAX_NOT_AFTER.as_secs() < CHUNK_TTL.as_secs());
