//! Records of network faults: the number of faulty rounds, and which ones they were. See
//! [`crate::faults`].
//!
//! Both are written only when a round is found faulty, so a network without faults pays nothing for
//! them.

use super::{Key, Record, key};
use crate::limits::{FAULT_EPOCHS, FAULT_RING};
use crate::number::{bound, count};

/// Size in bytes of the ring of bits for rounds.
pub const FAULT_BYTES: usize = bound(FAULT_RING) / 8;

records! {
    /// Number of faulty rounds in each of the last epochs; it bounds how many there may be (NF-2).
    23 FaultRing "faulty rounds by epoch" () [] {
        /// Epoch of the newest faulty round.
        epoch: u64,
        /// Faulty rounds of each epoch, at epoch mod `FAULT_EPOCHS`, for the ring's span that ends with
        /// `epoch`.
        counts: [u16; FAULT_EPOCHS],
    }

    /// Bits that mark faulty rounds, for challenges that are closed much later (NF-5).
    29 FaultBits "faulty rounds" () [] {
        /// The newest faulty round.
        last: u64,
        /// Bit `round mod FAULT_RING` for each round of the ring's span that ends with `last`.
        bits: [u8; FAULT_BYTES],
    }
}

impl Default for FaultRing {
    fn default() -> Self {
        Self { epoch: 0, counts: [0; FAULT_EPOCHS] }
    }
}

impl Default for FaultBits {
    fn default() -> Self {
        Self { last: 0, bits: [0; FAULT_BYTES] }
    }
}

impl FaultRing {
    /// Number of faulty rounds in the span of epochs that ends with `epoch`, which must not precede the
    /// newest faulty round's.
    pub fn recent(&self, epoch: u64) -> u64 {
        let span = count(FAULT_EPOCHS);
        let first = epoch.saturating_sub(span - 1).max(self.epoch.saturating_sub(span - 1));
        (first..=self.epoch).map(|epoch| u64::from(self.counts[Self::place(epoch)])).sum()
    }

    /// Counts one more faulty round. Its epoch must not precede the last one counted.
    pub fn add(&mut self, epoch: u64) {
        let epoch = epoch.max(self.epoch);
        let passed = (epoch - self.epoch).min(count(FAULT_EPOCHS));
        for ahead in 0..passed {
            self.counts[Self::place(epoch - ahead)] = 0;
        }
        self.epoch = epoch;
        let count = &mut self.counts[Self::place(epoch)];
        *count = count.saturating_add(1);
    }

    const fn place(epoch: u64) -> usize {
        bound(epoch % count(FAULT_EPOCHS))
    }
}

impl FaultBits {
    /// True if the round is known to be faulty. A round that precedes the newest faulty one by a whole
    /// ring is forgotten and counts as any other.
    pub fn is_faulty(&self, round: u64) -> bool {
        let (byte, bit) = Self::place(round);
        let is_kept = round <= self.last && self.last - round < FAULT_RING;
        is_kept && self.bits[byte] & bit != 0
    }

    /// Marks a round as faulty. It must not precede the last one marked.
    pub fn mark(&mut self, round: u64) {
        let round = round.max(self.last);
        for ahead in 0..(round - self.last).min(FAULT_RING) {
            let (byte, bit) = Self::place(round - ahead);
            self.bits[byte] &= !bit;
        }
        self.last = round;
        let (byte, bit) = Self::place(round);
        self.bits[byte] |= bit;
    }

    const fn place(round: u64) -> (usize, u8) {
        let at = round % FAULT_RING;
        (bound(at / 8), 1 << (at % 8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{collections::BTreeSet, vec::Vec};

    /// Steps between one faulty round (or epoch) and the next, with spans that wrap the rings.
    fn steps() -> impl Iterator<Item = u64> {
        let mut state = 7_u64;
        (0..4_000).map(move |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            match state >> 60 {
                0 => (state >> 40) % 5_000,
                1..4 => (state >> 40) % 70,
                _ => (state >> 40) % 3,
            }
        })
    }

    #[test]
    fn the_ring_counts_what_a_list_counts() {
        let (mut ring, mut all, mut epoch) = (FaultRing::default(), Vec::new(), 0);
        for step in steps() {
            epoch += step;
            ring.add(epoch);
            all.push(epoch);
            for later in [0, 1, 30, 63, 64, 200] {
                let now = epoch + later;
                let listed = all.iter().filter(|past| **past + count(FAULT_EPOCHS) > now).count();
                assert_eq!(ring.recent(now), listed as u64, "epoch {epoch}, seen from {now}");
            }
        }
    }

    #[test]
    fn the_bits_know_what_a_set_knows() {
        let (mut bits, mut all, mut round) = (FaultBits::default(), BTreeSet::new(), 0);
        for step in steps() {
            round += step;
            bits.mark(round);
            all.insert(round);
            let oldest = round.saturating_sub(FAULT_RING - 1);
            for asked in (oldest.saturating_sub(5)..oldest + 5).chain(round.saturating_sub(9)..round + 9) {
                assert_eq!(bits.is_faulty(asked), asked >= oldest && all.contains(&asked), "round {asked}");
            }
        }
    }
}
