//! Codes a segment of a file into eight encrypted shards, any four of which restore it.
//!
//! ```text
//!   4 MiB plain --pad, split--> 4 data ----Reed-Solomon----> 4 data + 4 parity
//!                                                                 | ChaCha20, one key per shard
//!                              name = plain BLAKE3 of the  <------+
//!                              ciphertext
//! ```
//!
//! Each shard is encrypted *after* coding, under a key of its own: four ciphertexts do not yield a fifth,
//! so a provider cannot recompute a shard that it dropped from the others. There is no authenticator: the
//! name authenticates, and a shard is stored at the length that it was coded with.
//!
//! Invariants
//! 1. `rebuild` returns the same bytes, and so the same names, as `encode`: a shard is a function of
//!    (file key, segment, position, plain bytes).
//! 2. No two shards share a key: the file's id is random and a file is never rewritten in place.
//! 3. Every shard of a segment has [`shard_bytes`] bytes, a multiple of 64.
//!
//! A crate of its own, because the cipher is generic code that is compiled where it is called: the test profile
//! optimises this crate, and not the whole gateway.

use blake3::Hasher;
use chacha20::{
    ChaCha20,
    cipher::{KeyIvInit, StreamCipher},
};
use posync_protocol::{Hash, limits::LEAF_BYTES};
use reed_solomon_simd::{ReedSolomonDecoder, ReedSolomonEncoder};
use std::cell::RefCell;

/// Data shards of a segment, and the number of shards that restore it.
pub const DATA: usize = 4;
/// Shards of a segment, data and parity.
pub const SHARDS: usize = 8;
/// Plain bytes of a full segment.
pub const SEGMENT_BYTES: usize = 4 << 20;
/// Bytes that the smallest file counts as: one leaf for each data shard.
const BILLED_BYTES: u64 = DATA as u64 * LEAF_BYTES;
/// Segments of the largest file: 4 TiB.
pub const SEGMENTS_MAX: u32 = 1 << 20;
/// A shard's length is a multiple of this, the block of the Reed-Solomon code's inner loops.
const BLOCK_BYTES: usize = 64;

const FILE_CONTEXT: &str = "posync gateway 2026-11 file key";
const SHARD_CONTEXT: &str = "posync gateway 2026-11 shard key";

/// Key of a file, from which the keys of its shards are derived.
#[derive(Clone)]
pub struct FileKey([u8; 32]);

impl FileKey {
    /// Derives the key of the file with the random name `file` from the gateway's master secret.
    pub fn derive(master: &[u8; 32], file: &[u8; 16]) -> Self {
        Self(*Hasher::new_derive_key(FILE_CONTEXT).update(master).update(file).finalize().as_bytes())
    }

    /// Encrypts or decrypts a shard in place (the stream is its own inverse).
    fn apply(&self, segment: u32, position: usize, bytes: &mut [u8]) {
        let mut hasher = Hasher::new_derive_key(SHARD_CONTEXT);
        hasher.update(&self.0).update(&segment.to_be_bytes()).update(&[position as u8]);
        ChaCha20::new(hasher.finalize().as_bytes().into(), &[0; 12].into()).apply_keystream(bytes);
    }
}

/// An encrypted shard and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// BLAKE3 hash of the bytes, without a key.
    pub name: Hash,
    /// Ciphertext of [`shard_bytes`] bytes.
    pub bytes: Vec<u8>,
}

/// The encrypted shards that are available, by position.
pub type Held = [Option<Vec<u8>>; SHARDS];

/// Why a segment cannot be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Fewer than [`DATA`] shards are available.
    #[error("{0} of {DATA} shards are at hand; more holders must answer")]
    TooFew(usize),
    /// A shard has another length than its segment's shards.
    #[error("a shard has {0} bytes where its segment's have {1}")]
    Length(usize, usize),
}

/// Number of segments of a file of `bytes` bytes, 0 for an empty one; `None` above [`SEGMENTS_MAX`].
pub fn segments(bytes: u64) -> Option<u32> {
    let count = u32::try_from(bytes.div_ceil(SEGMENT_BYTES as u64)).ok();
    count.filter(|count| *count <= SEGMENTS_MAX)
}

/// Bytes that a file of `bytes` plain bytes counts as: what its shards take at the providers in whole leaves,
/// divided by the code's expansion. That is the next multiple of [`BILLED_BYTES`]. An empty file counts as one,
/// for its name.
pub fn billed(bytes: u64) -> u64 {
    bytes.max(1).checked_next_multiple_of(BILLED_BYTES).unwrap_or(u64::MAX)
}

/// Plain bytes of segment `segment` of a file of `bytes` bytes.
pub fn segment_bytes(bytes: u64, segment: u32) -> usize {
    let left = bytes.saturating_sub(u64::from(segment) * SEGMENT_BYTES as u64);
    usize::try_from(left).map_or(SEGMENT_BYTES, |left| left.min(SEGMENT_BYTES))
}

/// Bytes of each shard of a segment of `plain` bytes.
pub const fn shard_bytes(plain: usize) -> usize {
    plain.div_ceil(DATA).next_multiple_of(BLOCK_BYTES)
}

/// Codes, encrypts and names a segment of 1 to [`SEGMENT_BYTES`] bytes.
pub fn encode(key: &FileKey, segment: u32, plain: &[u8]) -> [Shard; SHARDS] {
    let size = shard_bytes(plain.len());
    let mut data: [Vec<u8>; DATA] = std::array::from_fn(|position| {
        let start = (position * size).min(plain.len());
        let end = (start + size).min(plain.len());
        let mut shard = Vec::with_capacity(size);
        shard.extend_from_slice(&plain[start..end]);
        shard.resize(size, 0);
        shard
    });
    let mut parity = parity(&data);
    std::array::from_fn(|position| {
        let slot = if position < DATA { &mut data[position] } else { &mut parity[position - DATA] };
        seal(key, segment, position, std::mem::take(slot))
    })
}

/// Decodes a segment of `plain` bytes from any [`DATA`] of its shards. Takes the shards that it uses out
/// of `held`.
///
/// # Errors
/// [`Error`], before a shard is taken.
pub fn decode(key: &FileKey, segment: u32, plain: usize, held: &mut Held) -> Result<Vec<u8>, Error> {
    let data = open(key, segment, plain, held)?;
    let mut bytes = Vec::with_capacity(DATA * shard_bytes(plain));
    for shard in data {
        bytes.extend_from_slice(&shard);
    }
    bytes.truncate(plain);
    Ok(bytes)
}

/// Rebuilds all shards of a segment from any [`DATA`] of them, byte for byte.
///
/// # Errors
/// [`Error`], before a shard is taken.
pub fn rebuild(key: &FileKey, segment: u32, plain: usize, held: &mut Held) -> Result<[Shard; SHARDS], Error> {
    Ok(encode(key, segment, &decode(key, segment, plain, held)?))
}

/// Decrypts the data shards, and decodes those that are missing.
fn open(key: &FileKey, segment: u32, plain: usize, held: &mut Held) -> Result<[Vec<u8>; DATA], Error> {
    let size = shard_bytes(plain);
    let count = held.iter().flatten().count();
    if count < DATA {
        return Err(Error::TooFew(count));
    }
    if let Some(wrong) = held.iter().flatten().find(|shard| shard.len() != size) {
        return Err(Error::Length(wrong.len(), size));
    }
    let mut chosen: Held = Default::default();
    for (position, slot) in held.iter_mut().enumerate().filter(|(_, slot)| slot.is_some()).take(DATA) {
        let mut shard = slot.take().expect("filtered to those at hand");
        key.apply(segment, position, &mut shard);
        chosen[position] = Some(shard);
    }
    if chosen[..DATA].iter().any(Option::is_none) {
        restore(size, &mut chosen);
    }
    let [a, b, c, d, ..] = chosen;
    Ok([a, b, c, d].map(|shard| shard.expect("restored above")))
}

fn seal(key: &FileKey, segment: u32, position: usize, mut bytes: Vec<u8>) -> Shard {
    key.apply(segment, position, &mut bytes);
    Shard { name: *blake3::hash(&bytes).as_bytes(), bytes }
}

thread_local! {
    static ENCODER: RefCell<Option<ReedSolomonEncoder>> = const { RefCell::new(None) };
    static DECODER: RefCell<Option<ReedSolomonDecoder>> = const { RefCell::new(None) };
}

/// Computes the parity shards of four data shards of equal length. Each thread keeps one encoder.
fn parity(data: &[Vec<u8>; DATA]) -> [Vec<u8>; SHARDS - DATA] {
    const WHY: &str = "4 of 8 with even lengths is always supported";
    ENCODER.with_borrow_mut(|kept| {
        let size = data[0].len();
        let mut encoder = kept
            .take()
            .unwrap_or_else(|| ReedSolomonEncoder::new(DATA, SHARDS - DATA, BLOCK_BYTES).expect(WHY));
        encoder.reset(DATA, SHARDS - DATA, size).expect(WHY);
        for shard in data {
            encoder.add_original_shard(shard).expect(WHY);
        }
        let coded = encoder.encode().expect(WHY);
        let parity = std::array::from_fn(|i| coded.recovery(i).expect("one per index below four").to_vec());
        drop(coded);
        *kept = Some(encoder);
        parity
    })
}

/// Fills in the missing data shards; `shards` holds exactly [`DATA`] shards of `size` bytes.
fn restore(size: usize, shards: &mut Held) {
    const WHY: &str = "four shards of one even length always decode";
    DECODER.with_borrow_mut(|kept| {
        let mut decoder = kept
            .take()
            .unwrap_or_else(|| ReedSolomonDecoder::new(DATA, SHARDS - DATA, BLOCK_BYTES).expect(WHY));
        decoder.reset(DATA, SHARDS - DATA, size).expect(WHY);
        for (position, shard) in shards.iter().enumerate() {
            match shard {
                Some(shard) if position < DATA => decoder.add_original_shard(position, shard).expect(WHY),
                Some(shard) => decoder.add_recovery_shard(position - DATA, shard).expect(WHY),
                None => {}
            }
        }
        let restored = decoder.decode().expect(WHY);
        for (position, bytes) in restored.restored_original_iter() {
            shards[position] = Some(bytes.to_vec());
        }
        drop(restored);
        *kept = Some(decoder);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plain(bytes: usize) -> Vec<u8> {
        (0..bytes as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
    }

    fn key() -> FileKey {
        FileKey::derive(&[7; 32], &[9; 16])
    }

    fn held(shards: &[Shard; SHARDS], mask: u8) -> Held {
        std::array::from_fn(|i| (mask & (1 << i) != 0).then(|| shards[i].bytes.clone()))
    }

    #[test]
    fn a_file_counts_as_the_leaves_of_its_shards_divided_by_the_expansion() {
        let edges = EDGES.into_iter().chain([4095, 4096, 4097, SEGMENT_BYTES + 1, 3 * SEGMENT_BYTES - 4096]);
        for size in edges.map(|size| size as u64) {
            let of = |segment| shard_bytes(segment_bytes(size, segment)).div_ceil(LEAF_BYTES as usize);
            let leaves: usize = (0..segments(size).expect("few")).map(|segment| of(segment) * SHARDS).sum();
            assert_eq!(billed(size), leaves as u64 * LEAF_BYTES * DATA as u64 / SHARDS as u64, "{size}");
        }
        assert_eq!((billed(0), billed(u64::MAX)), (BILLED_BYTES, u64::MAX));
    }

    const EDGES: [usize; 17] = [
        1,
        2,
        63,
        64,
        65,
        255,
        256,
        257,
        1023,
        1024,
        1025,
        65_535,
        65_536,
        100_003,
        1 << 20,
        SEGMENT_BYTES - 1,
        SEGMENT_BYTES,
    ];

    #[test]
    fn any_four_of_eight_give_every_small_size_back() {
        for size in EDGES.into_iter().filter(|size| *size <= 1025) {
            let plain = plain(size);
            let shards = encode(&key(), 3, &plain);
            for mask in (0..=255u8).filter(|mask| mask.count_ones() == 4) {
                let back = decode(&key(), 3, size, &mut held(&shards, mask)).expect("four shards");
                assert_eq!(back, plain, "{size} bytes, shards {mask:08b}");
            }
        }
    }

    #[test]
    fn a_rebuilt_shard_has_its_old_name() {
        for size in EDGES {
            let plain = plain(size);
            let shards = encode(&key(), 0, &plain);
            for (position, shard) in shards.iter().enumerate() {
                assert_eq!(shard.bytes.len(), shard_bytes(size));
                assert_eq!(shard.name, *blake3::hash(&shard.bytes).as_bytes(), "{size}, {position}");
            }
            for mask in [0b1111_0000, 0b0000_1111, 0b0101_1010, 0b1110_0001] {
                let again = rebuild(&key(), 0, size, &mut held(&shards, mask)).expect("four shards");
                assert_eq!(again, shards, "{size} bytes from {mask:08b}");
            }
        }
    }

    #[test]
    fn equal_segments_have_no_equal_shards() {
        let other = FileKey::derive(&[7; 32], &[10; 16]);
        let mut names = std::collections::BTreeSet::new();
        for (key, segment) in [(key(), 0), (key(), 1), (other, 0)] {
            names.extend(encode(&key, segment, &[0; 4096]).map(|shard| shard.name));
        }
        assert_eq!(names.len(), 3 * SHARDS);
    }

    #[test]
    fn refusals() {
        let shards = encode(&key(), 0, &plain(1000));
        for (mask, left) in [(0, 0), (0b1000_0000, 1), (0b1010_1000, 3)] {
            let mut held = held(&shards, mask);
            assert_eq!(decode(&key(), 0, 1000, &mut held), Err(Error::TooFew(left)));
            assert_eq!(held.iter().flatten().count(), left, "nothing was taken");
        }
        let mut short = held(&shards, 0b1111);
        short[2].as_mut().expect("held").pop();
        assert_eq!(decode(&key(), 0, 1000, &mut short), Err(Error::Length(255, 256)));
    }

    #[test]
    fn shape_of_files() {
        let segment = SEGMENT_BYTES as u64;
        for (bytes, count, last) in [
            (0, 0, 0),
            (1, 1, 1),
            (segment - 1, 1, SEGMENT_BYTES - 1),
            (segment, 1, SEGMENT_BYTES),
            (segment + 1, 2, 1),
            (256 * segment, 256, SEGMENT_BYTES),
        ] {
            assert_eq!(segments(bytes), Some(count));
            assert_eq!(segment_bytes(bytes, count.saturating_sub(1)), last, "{bytes}");
        }
        let most = u64::from(SEGMENTS_MAX) * segment;
        assert_eq!((segments(most), segments(most + 1)), (Some(SEGMENTS_MAX), None), "4 TiB");
        assert_eq!(segments(u64::MAX), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn rebuilds_from_any_four(size in 1usize..200_000, segment in any::<u32>(), pick in any::<u64>()) {
            let plain = plain(size);
            let shards = encode(&key(), segment, &plain);
            let masks: Vec<u8> = (0..=255u8).filter(|mask| mask.count_ones() == 4).collect();
            let mask = masks[(pick % masks.len() as u64) as usize];
            let again = rebuild(&key(), segment, size, &mut held(&shards, mask)).expect("four shards");
            prop_assert_eq!(again, shards);
        }
    }
}
