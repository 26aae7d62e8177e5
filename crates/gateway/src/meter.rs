//! How much of an agreement's egress was verified and how much is signed away: decides when a
//! voucher is due.
//!
//! Invariants
//! 1. `signed <= verified`: nothing is paid that did not verify.
//! 2. `signed` never goes back, and is on disk before a voucher with it leaves.
//! 3. A provider that waits for money within its credit window (VO-5) always gets it: a voucher is due
//!    at half the window, at the end of every stream, and when nothing comes for a moment.

use posync_protocol::agreement::credit_window;

/// The meter of one agreement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meter {
    verified: u64,
    signed: u64,
    acknowledged: u64,
    barred: bool,
}

impl Meter {
    /// After a start: what was signed was verified; what was verified and not signed is forgotten.
    pub const fn resumed(signed: u64) -> Self {
        Self { verified: signed, signed, acknowledged: 0, barred: false }
    }

    /// Whether a voucher may have been lost on the way.
    pub const fn is_unacknowledged(&self) -> bool {
        self.acknowledged < self.signed
    }

    /// The provider has a voucher over `egress` bytes.
    pub fn acknowledge(&mut self, egress: u64) {
        self.acknowledged = self.acknowledged.max(egress);
    }

    /// Egress bytes signed away.
    pub const fn signed(&self) -> u64 {
        self.signed
    }

    /// Egress bytes that a quota still pays for.
    pub const fn left(&self, quota: u64) -> u64 {
        quota.saturating_sub(self.verified)
    }

    /// The provider sends nothing more on credit, or does again: what it sent and a broken connection lost
    /// stays owed, and beyond a bound nothing is sent until it is paid (VO-8), which it never is.
    pub const fn bar(&mut self, barred: bool) {
        self.barred = barred;
    }

    /// See [`Self::bar`].
    pub const fn is_barred(&self) -> bool {
        self.barred
    }

    /// Bytes arrived and verified.
    pub const fn verify(&mut self, bytes: u64) {
        self.verified = self.verified.saturating_add(bytes);
    }

    /// The cumulative bytes that the next voucher should name, if one is due (`all`: as soon as
    /// anything is unpaid), at most `most`; `trust` is what the ledger gives the consumer.
    pub fn due(&self, all: bool, most: u64, trust: u64) -> Option<u64> {
        let target = self.verified.min(most);
        let unpaid = target.checked_sub(self.signed)?;
        (unpaid > 0 && (all || unpaid >= credit_window(self.signed, 0, trust) / 2)).then_some(target)
    }

    /// A voucher over `target` is durable.
    ///
    /// # Panics
    /// If it is below what was signed or above what was verified: our bug.
    pub fn sign(&mut self, target: u64) {
        assert!(self.signed <= target && target <= self.verified, "a voucher only follows what verified");
        self.signed = target;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use posync_protocol::amount::ONE;
    use proptest::prelude::*;

    const KIB: u64 = 1024;

    #[test]
    fn rows() {
        let max = u64::MAX;
        for (signed, verified, all, most, trust, due) in [
            (0, 0, true, max, ONE, None),
            (0, 1, false, max, ONE, None),
            (0, 1, true, max, ONE, Some(1)),
            (0, 32 * KIB - 1, false, max, ONE, None),
            (0, 32 * KIB, false, max, ONE, Some(32 * KIB)),
            (KIB * KIB, KIB * KIB + 64 * KIB, false, max, ONE, Some(KIB * KIB + 64 * KIB)),
            (64 * KIB * KIB, 66 * KIB * KIB - 1, false, max, ONE, None),
            (64 * KIB * KIB, 66 * KIB * KIB, false, max, ONE, Some(66 * KIB * KIB)),
            (64 * KIB * KIB, 65 * KIB * KIB - 1, false, max, ONE / 2, None),
            (64 * KIB * KIB, 65 * KIB * KIB, false, max, ONE / 2, Some(65 * KIB * KIB)),
            (100, 200, true, 150, ONE, Some(150)),
            (150, 200, true, 150, ONE, None),
            (150, 200, true, 100, ONE, None),
        ] {
            let mut meter = Meter::resumed(signed);
            meter.verify(verified - signed);
            assert_eq!(meter.due(all, most, trust), due, "{signed} of {verified}, {all}, {most}, {trust}");
        }
    }

    proptest! {
        #[test]
        fn signed_follows_verified_and_never_goes_back(
            steps in proptest::collection::vec((0u64..200_000, any::<bool>(), any::<bool>()), 1..200),
        ) {
            let (mut meter, mut received, mut last) = (Meter::default(), 0u64, 0u64);
            for (bytes, all, crash) in steps {
                received += bytes;
                meter.verify(bytes);
                if let Some(target) = meter.due(all, u64::MAX, ONE) {
                    meter.sign(target);
                    prop_assert!(target > last && target <= received);
                    last = target;
                }
                prop_assert!(meter.verified - meter.signed() < credit_window(meter.signed(), 0, ONE) / 2 || !all);
                if crash {
                    meter = Meter::resumed(meter.signed());
                    received = meter.signed();
                }
            }
        }

        #[test]
        fn a_provider_within_its_window_is_never_left_waiting(slices in 1u64..5_000, trust in 0..=ONE) {
            let (mut meter, mut sent) = (Meter::default(), 0u64);
            for _ in 0..slices {
                let slice = 64 * KIB;
                let window = credit_window(meter.signed(), 0, trust);
                prop_assert!(sent + slice - meter.signed() <= window, "it would wait");
                sent += slice;
                meter.verify(slice);
                if let Some(target) = meter.due(false, u64::MAX, trust) {
                    meter.sign(target);
                }
            }
        }
    }
}
