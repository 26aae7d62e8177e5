//! When samples are due and what they read: decides, sends nothing.

use super::Found;
use crate::{
    deed::{Arrived, Part},
    link::Error,
    sample::names::Named,
};
use posync_protocol::{
    Account, Hash,
    limits::{SLICE_BYTES, Parameters},
};

/// Reads of each provider in an epoch: one could meet a moment's hiccup, and each costs a voucher.
pub const SAMPLES: u64 = 2;

const CONTEXT: &str = "posync gateway 2026-11 sample";

/// A number below `bound` that only who knows `secret` can foresee.
fn draw(secret: &Hash, epoch: u64, provider: &Account, number: u64, bound: u64) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(secret).update(&epoch.to_be_bytes()).update(&provider.0).update(&number.to_be_bytes());
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    u64::try_from(u128::from_be_bytes(bytes) % u128::from(bound.max(1))).expect("below a u64")
}

/// The heights at which `provider` is read in `epoch`: anywhere but in its last round and the half
/// round before it, so that what is paid can be redeemed within the epoch.
pub fn moments(secret: &Hash, epoch: u64, provider: &Account, p: &Parameters) -> [u64; SAMPLES as usize] {
    let room = p.epoch_blocks().saturating_sub(p.round_blocks + p.round_blocks / 2).max(1);
    let start = epoch * p.epoch_blocks();
    std::array::from_fn(|number| start + draw(secret, epoch, provider, number as u64, room))
}

/// How many reads of `provider` became due after the height `seen`, up to `height`, and in which
/// epoch. Moments that lie more than a round back are let go: nobody reads a whole epoch at once.
pub fn due(secret: &Hash, provider: &Account, seen: u64, height: u64, p: &Parameters) -> Vec<u64> {
    let seen = seen.max(height.saturating_sub(p.round_blocks));
    let epochs = p.epoch(seen)..=p.epoch(height);
    let all = epochs.flat_map(|epoch| moments(secret, epoch, provider, p).map(|at| (epoch, at)));
    all.filter(|(_, at)| (seen + 1..=height).contains(at)).map(|(epoch, _)| epoch).collect()
}

/// One slice of one of the shards that hold one; `None` if none does.
pub fn part(names: &[Named], random: &Hash) -> Option<Part> {
    let large: Vec<&Named> = names.iter().filter(|named| named.length >= SLICE_BYTES).collect();
    let (place, slice) = random.split_at(16);
    let number = |bytes: &[u8]| u128::from_be_bytes(bytes.try_into().expect("half of 32 bytes"));
    let below = |bytes: &[u8], bound: u64| u64::try_from(number(bytes) % u128::from(bound)).ok();
    let named = large.get(usize::try_from(below(place, (large.len() as u64).max(1))?).ok()?)?;
    let offset = below(slice, named.length / SLICE_BYTES)? * SLICE_BYTES;
    Some(Part { name: named.shard, length: named.length, offset, bytes: SLICE_BYTES })
}

/// What a read that ended so found.
pub fn found(result: &Result<Arrived, Error>) -> Found {
    match result {
        Ok(arrived) => Found::Bytes {
            bytes: arrived.bytes.len() as u64,
            first: arrived.first,
            whole: arrived.whole,
        },
        Err(error) if error.shows_loss() => Found::Wrong,
        Err(_) => Found::Silence,
    }
}
