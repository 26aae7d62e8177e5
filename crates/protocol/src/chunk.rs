//! Chunks of a shard and their way to its plain BLAKE3 hash.
