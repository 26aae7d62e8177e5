//! Counts the verified and the signed egress bytes of an agreement, and decides when a voucher is due.
//!
//! Invariants
//! 1. `signed <= verified`: only verified bytes are paid.
//! 2. `signed` never decreases, and is on disk before a voucher with it leaves.
//! 3. A provider that waits for money within its credit window (VO-5) always gets it: a voucher is due
//!    at half the window, at the end of every stream, and when no slice arrives for a moment.

use posync_protocol::agreement::credit_window;

/// The meter of one agreement, in bytes of egress since it opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meter {
    verified: u64,
    signed: u64,
    acknowledged: u64,
    barred: bool,
}

impl Meter {
    /// The meter after a start: signed bytes count as verified; bytes verified and not signed are forgotten.
    pub(crate) const fn resumed(signed: u64) -> Self {
        Self { verified: signed, signed, acknowledged: 0, barred: false }
    }

    /// True if a signed voucher may not have reached the provider.
    pub(crate) const fn is_unacknowledged(&self) -> bool {
        self.acknowledged < self.signed
    }

    /// Records that the provider has a voucher over `egress` bytes.
    pub(crate) fn acknowledge(&mut self, egress: u64) {
        self.acknowledged = self.acknowledged.max(egress);
    }

    /// Egress bytes that vouchers were signed for.
    pub(crate) const fn signed(&self) -> u64 {
        self.signed
    }

    /// Egress bytes that arrived and verified.
    pub(crate) const fn verified(&self) -> u64 {
        self.verified
    }

    /// Egress bytes of `quota` that are not read yet.
    pub(crate) const fn left(&self, quota: u64) -> u64 {
        quota.saturating_sub(self.verified)
    }

    /// Records whether the provider refuses to send on credit. Bytes that a broken connection lost stay owed,
    /// and beyond a bound the provider sends no more until they are paid (VO-8). This consumer never pays
    /// them.
    pub(crate) const fn bar(&mut self, barred: bool) {
        self.barred = barred;
    }

    /// True while the provider refuses to send on credit ([`Self::bar`]).
    pub(crate) const fn is_barred(&self) -> bool {
        self.barred
    }

    /// Counts `bytes` that arrived and verified.
    pub(crate) const fn verify(&mut self, bytes: u64) {
        self.verified = self.verified.saturating_add(bytes);
    }

    /// The cumulative bytes, at most `most`, that the next voucher should name, if one is due. With `all`, it
    /// is due as soon as a byte is unpaid. `trust` is the agreement's trust (BK-9), in parts per billion.
    pub(crate) fn due(&self, all: bool, most: u64, trust: u64) -> Option<u64> {
        let target = self.verified.min(most);
        let unpaid = target.checked_sub(self.signed)?;
        (unpaid > 0 && (all || unpaid >= credit_window(self.signed, 0, trust) / 2)).then_some(target)
    }

    /// Records that a voucher over `target` bytes is on disk.
    ///
    /// # Panics
    /// If `target` is below the signed or above the verified bytes: a bug of the caller.
    pub(crate) fn sign(&mut self, target: u64) {
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
