//! When samples are due and what they read. Pure decisions; sends nothing.

use super::{IN_TIME_MS, SPREAD_MS, SampleResult};
use crate::{
    agreement::{Arrived, Part},
    peer::Error,
    sample::names::Named,
};
use posync_protocol::{
    Account, Hash,
    limits::{AUDIT_READ_BYTES, Parameters},
};

/// Samples of each provider in an epoch: a single one could meet a brief delay, and each costs a voucher.
pub(crate) const SAMPLES: u64 = 2;

/// Most requests that one sample makes.
pub(crate) const REQUESTS_MAX: u64 = 64;

const CONTEXT: &str = "posync gateway 2026-11 sample";

/// A number below `bound` that is unpredictable without `secret`.
fn draw(secret: &Hash, epoch: u64, provider: &Account, number: u64, bound: u64) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(secret).update(&epoch.to_be_bytes()).update(&provider.0).update(&number.to_be_bytes());
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    u64::try_from(u128::from_be_bytes(bytes) % u128::from(bound.max(1))).expect("below a u64")
}

/// The heights at which `provider` is sampled in `epoch`. A read from any of them ends before the last
/// round, so that its payment can be redeemed within the epoch and is known at its end.
pub fn moments(secret: &Hash, epoch: u64, provider: &Account, p: &Parameters) -> [u64; SAMPLES as usize] {
    let takes = (IN_TIME_MS + 2 * SPREAD_MS).div_ceil(p.block_ms.max(1));
    let room = p.epoch_blocks().saturating_sub(p.round_blocks + takes).max(1);
    let start = epoch * p.epoch_blocks();
    std::array::from_fn(|number| start + draw(secret, epoch, provider, number as u64, room))
}

/// The epochs of the samples of `provider` that became due after the height `seen`, up to `height`; one
/// entry per sample. Moments more than a round back are skipped, so that a late start does not read a
/// whole epoch at once.
pub(crate) fn due(secret: &Hash, provider: &Account, seen: u64, height: u64, p: &Parameters) -> Vec<u64> {
    let seen = seen.max(height.saturating_sub(p.round_blocks));
    let epochs = p.epoch(seen)..=p.epoch(height);
    let all = epochs.flat_map(|epoch| moments(secret, epoch, provider, p).map(|at| (epoch, at)));
    all.filter(|(_, at)| (seen + 1..=height).contains(at)).map(|(epoch, _)| epoch).collect()
}

/// The parts that one sample reads: a slice of one of the shards that are large enough. If there are
/// none, whole small shards, one after another from a random one on and cyclically, until they add up to
/// a slice: fewer bytes back no report (SQ-5). Shards below a 64th of a slice would need more requests
/// than a sample may make, so a provider that holds only such shards is not sampled.
pub(crate) fn parts(names: &[Named], random: &Hash) -> Vec<(Named, Part)> {
    let (place, slice) = random.split_at(16);
    let below = |bytes: &[u8], bound: u64| {
        let number = u128::from_be_bytes(bytes.try_into().expect("half of 32 bytes"));
        u64::try_from(number % u128::from(bound.max(1))).expect("below a u64")
    };
    let from = |shards: &[&Named]| usize::try_from(below(place, shards.len() as u64)).unwrap_or(0);
    let large: Vec<&Named> = names.iter().filter(|named| named.length >= AUDIT_READ_BYTES).collect();
    if let Some(named) = large.get(from(&large)) {
        let offset = below(slice, named.length / AUDIT_READ_BYTES) * AUDIT_READ_BYTES;
        let part = Part { name: named.shard, length: named.length, offset, bytes: AUDIT_READ_BYTES };
        return vec![(**named, part)];
    }
    let small: Vec<&Named> =
        names.iter().filter(|named| named.length >= AUDIT_READ_BYTES / REQUESTS_MAX).collect();
    let mut bytes = 0;
    let in_turn = small.iter().cycle().skip(from(&small)).take_while(|named| {
        let more = bytes < AUDIT_READ_BYTES;
        bytes += named.length;
        more
    });
    in_turn.map(|named| (**named, Part::whole(named.shard, named.length))).collect()
}

/// The outcome of a read with this result.
pub(crate) fn found(result: &Result<Arrived, Error>) -> SampleResult {
    match result {
        Ok(arrived) => SampleResult::Bytes {
            bytes: arrived.bytes.len() as u64,
            first: arrived.first,
            whole: arrived.whole,
        },
        Err(error) if error.shows_loss() => SampleResult::Wrong,
        Err(_) => SampleResult::PeerHealth,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use posync_protocol::wire::provider::Refusal;
    use std::{collections::BTreeSet, time::Duration};

    const P: Parameters = Parameters::LOCAL;

    fn provider(id: u8) -> Account {
        Account([id; 32])
    }

    #[test]
    fn moments_are_private_and_end_before_the_last_round() {
        let mut seen = BTreeSet::new();
        for epoch in 0..200 {
            let start = epoch * P.epoch_blocks();
            for at in moments(&[1; 32], epoch, &provider(1), &P) {
                let over = at + (IN_TIME_MS + 2 * SPREAD_MS).div_ceil(P.block_ms);
                assert!(start <= at && over <= start + P.epoch_blocks() - P.round_blocks, "{at} in {epoch}");
                seen.insert(at - start);
            }
        }
        assert_eq!(seen.len(), 20, "every height that is early enough is met");
        let all = |secret: u8, id: u8| (0..50).map(move |e| moments(&[secret; 32], e, &provider(id), &P));
        assert!(!all(1, 1).eq(all(2, 1)) && !all(1, 1).eq(all(1, 2)));
    }

    #[test]
    fn every_moment_is_due_once_however_heights_come() {
        let secret = [3; 32];
        let expected: Vec<u64> = (0..20).flat_map(|epoch| [epoch; 2]).collect();
        for step in 1..=P.round_blocks {
            let mut met = Vec::new();
            // The very first height never comes after a seen one.
            for height in (step..=20 * P.epoch_blocks()).step_by(usize::try_from(step).expect("small")) {
                met.extend(due(&secret, &provider(4), height - step, height, &P));
            }
            let first = moments(&secret, 0, &provider(4), &P).iter().filter(|at| **at == 0).count();
            assert_eq!(met.len() + first, expected.len(), "in steps of {step}");
            assert!(met.is_sorted());
        }
        let late = due(&secret, &provider(4), 0, 20 * P.epoch_blocks(), &P);
        assert!(late.len() <= 2, "what was slept through is let go: {late:?}");
    }

    #[test]
    fn one_slice_of_a_shard_that_has_one() {
        let named = |id: u8, length| Named { shard: [id; 32], length, slot: 0, root: [0; 32] };
        let names =
            [named(1, AUDIT_READ_BYTES - 1), named(2, AUDIT_READ_BYTES), named(3, 3 * AUDIT_READ_BYTES + 5)];
        let mut met = BTreeSet::new();
        for seed in 0..200u8 {
            let parts = parts(&names, blake3::hash(&[seed]).as_bytes());
            let [(of, part)] = parts[..] else { panic!("two hold a slice: {parts:?}") };
            assert_eq!((of.shard, of.length), (part.name, part.length));
            assert_eq!((part.bytes, part.offset % AUDIT_READ_BYTES), (AUDIT_READ_BYTES, 0));
            assert!(part.offset + part.bytes <= part.length);
            met.insert((part.name[0], part.offset / AUDIT_READ_BYTES));
        }
        assert_eq!(met, BTreeSet::from([(2, 0), (3, 0), (3, 1), (3, 2)]));
    }

    #[test]
    fn small_shards_are_read_whole_until_a_slice_is_together() {
        let least = AUDIT_READ_BYTES / REQUESTS_MAX;
        for (lengths, requests) in [
            (vec![], 0),
            (vec![least - 1; 4], 0),
            (vec![least], 64),
            (vec![least - 1, least, least - 1], 64),
            (vec![AUDIT_READ_BYTES - 1], 2),
            (vec![AUDIT_READ_BYTES / 4; 4], 4),
            (vec![AUDIT_READ_BYTES / 4; 9], 4),
            (vec![AUDIT_READ_BYTES / 4, AUDIT_READ_BYTES], 1),
        ] {
            let named = |(id, length): (usize, &u64)| Named {
                shard: [id as u8; 32],
                length: *length,
                slot: 0,
                root: [0; 32],
            };
            let names: Vec<Named> = lengths.iter().enumerate().map(named).collect();
            let mut first = BTreeSet::new();
            for seed in 0..50u8 {
                let parts = parts(&names, blake3::hash(&[seed]).as_bytes());
                assert_eq!(parts.len(), requests, "{lengths:?}");
                let read: u64 = parts.iter().map(|(_, part)| part.bytes).sum();
                assert!(parts.is_empty() || (AUDIT_READ_BYTES..2 * AUDIT_READ_BYTES).contains(&read));
                first.extend(parts.first().map(|(named, _)| named.shard));
            }
            let able = lengths.iter().filter(|length| **length >= least).count();
            let expected = if requests == 1 { 1 } else { able };
            assert_eq!(first.len(), expected, "any of them may be the first: {lengths:?}");
        }
    }

    #[test]
    fn what_a_read_found() {
        let account = provider(1);
        let arrived =
            Arrived { bytes: vec![0; 9], first: Duration::from_millis(3), whole: Duration::from_millis(4) };
        let refused = |why| Err(Error::Refused(account, why, String::new()));
        for (result, expected) in [
            (
                Ok(arrived.clone()),
                SampleResult::Bytes { bytes: 9, first: arrived.first, whole: arrived.whole },
            ),
            (Err(Error::Slow(account)), SampleResult::PeerHealth),
            (Err(Error::Unreachable(account, String::new())), SampleResult::PeerHealth),
            (refused(Refusal::Busy), SampleResult::PeerHealth),
            (refused(Refusal::Credit), SampleResult::PeerHealth),
            (refused(Refusal::Unknown), SampleResult::Wrong),
            (refused(Refusal::Damaged), SampleResult::Wrong),
            (Err(Error::Wrong(account, "bytes")), SampleResult::Wrong),
        ] {
            assert_eq!(found(&result), expected, "{result:?}");
        }
    }
}
