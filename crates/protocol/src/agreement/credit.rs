//! Credit: how far a provider sends ahead of payment. Both sides compute it from the same figures, the
//! provider to stop in time, the consumer to pay in time.
//!
//! Bytes that earlier downloads left unpaid are *lost*: taken, or in flight when a connection broke. They
//! count against the next downloads until a sixteenth of the paid bytes outgrows them.
//!
//! Invariants
//! 1. A window is zero or at least one slice, so a consumer that may go on can go on.
//! 2. More paid or more trust never shrinks a window; more lost never widens it.
//! 3. In whatever order a consumer pays and does not pay, at most `paid / 16 + 4 slices` are ever unpaid when
//!    everything paid was paid before: a consumer that takes all it can has paid for 16 of 17 bytes, or got
//!    less than its opening fee is worth (VO-8).

use crate::{
    amount::{ONE, mul_div},
    economics::score,
    limits::{CREDIT_LOST_MAX, CREDIT_MAX, CREDIT_MIN, Parameters},
    record::Usage,
};

/// The trust of an agreement, parts per billion (BK-9): (genesis deposit + signed) / (genesis deposit +
/// signed + disputed), as the ledger counts both sums.
pub fn trust(usage: &Usage, parameters: &Parameters) -> u64 {
    score::books(usage.signed.grains(), usage.disputed.grains(), parameters.deposit.grains())
}

/// Bytes that running downloads may owe together (VO-5): a sixteenth of the bytes paid, scaled by `trust`,
/// less the bytes that earlier downloads lost, within [`CREDIT_MIN`] and [`CREDIT_MAX`]. Zero if the lost
/// bytes exceed that sixteenth by more than [`CREDIT_LOST_MAX`] (VO-8).
pub fn credit_window(paid: u64, lost: u64, trust: u64) -> u64 {
    let share = mul_div(u128::from(paid / 16), trust.min(ONE).into(), ONE.into());
    let share = share.and_then(|share| u64::try_from(share).ok()).unwrap_or(paid / 16);
    if lost > share.saturating_add(CREDIT_LOST_MAX) {
        return 0;
    }
    share.saturating_sub(lost).clamp(CREDIT_MIN, CREDIT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Amount;
    use proptest::prelude::*;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;

    #[test]
    fn the_window_is_a_sixteenth_within_bounds() {
        for (paid, expected) in [
            (0, 64 * KIB),
            (64 * KIB, 64 * KIB),
            (MIB, 64 * KIB),
            (MIB + 16, 64 * KIB + 1),
            (2 * MIB, 128 * KIB),
            (64 * MIB - 16, 4 * MIB - 1),
            (64 * MIB, 4 * MIB),
            (65 * MIB, 4 * MIB),
            (u64::MAX, 4 * MIB),
        ] {
            assert_eq!(credit_window(paid, 0, ONE), expected, "{paid}");
        }
    }

    #[test]
    fn trust_and_loss_narrow_it_to_a_slice_and_then_to_nothing() {
        for (paid, lost, trust, expected) in [
            (16 * MIB, 0, ONE, MIB),
            (16 * MIB, 0, ONE / 2, 512 * KIB),
            (16 * MIB, 0, 0, 64 * KIB),
            (16 * MIB, 256 * KIB, ONE, 768 * KIB),
            (16 * MIB, 256 * KIB, ONE / 2, 256 * KIB),
            (16 * MIB, MIB, ONE, 64 * KIB),
            (16 * MIB, MIB + 192 * KIB, ONE, 64 * KIB),
            (16 * MIB, MIB + 192 * KIB + 1, ONE, 0),
            (16 * MIB, MIB, ONE / 2, 0),
            (0, 192 * KIB, ONE, 64 * KIB),
            (0, 192 * KIB + 1, ONE, 0),
            // Outgrown: the loss is small beside the traffic.
            (1 << 40, 64 * MIB, ONE, 4 * MIB),
        ] {
            assert_eq!(credit_window(paid, lost, trust), expected, "{paid} {lost} {trust}");
        }
    }

    #[test]
    fn trust_is_what_was_signed_of_all() {
        let deposit = Parameters::LOCAL.deposit.grains();
        for (signed, disputed, expected) in [
            (0, 0, ONE),
            (deposit, 0, ONE),
            (deposit, deposit, ONE / 3 * 2),
            (9 * deposit, 10 * deposit, ONE / 2),
        ] {
            let [signed, disputed] = [signed, disputed].map(|grains| Amount::new(grains).expect("little"));
            let usage = Usage { signed, disputed, ..Usage::default() };
            assert!(trust(&usage, &Parameters::LOCAL).abs_diff(expected) < 2, "{signed} {disputed}");
        }
    }

    proptest! {
        #[test]
        fn more_paid_or_trusted_never_narrows_it_and_more_lost_never_widens_it(
            (paid, lost) in (0u64..1 << 31, 0u64..1 << 27), trust in 0..=ONE,
            more in 0u64..1 << 31, trusted in 0..=ONE,
        ) {
            let window = credit_window(paid, lost, trust);
            prop_assert!(window == 0 || (CREDIT_MIN..=CREDIT_MAX).contains(&window));
            prop_assert!(credit_window(paid + more, lost, trust) >= window);
            prop_assert!(credit_window(paid, lost, trust.max(trusted)) >= window);
            prop_assert!(credit_window(paid, lost + more, trust) <= window);
        }

        #[test]
        fn whoever_takes_every_window_has_paid_sixteen_times_as_much_but_for_four_slices(
            payments in proptest::collection::vec((0u64..1 << 26, 0..=ONE), 1..100),
        ) {
            let (mut paid, mut lost) = (0, 0);
            for (payment, trust) in payments {
                paid += payment;
                while credit_window(paid, lost, trust) > 0 {
                    lost += credit_window(paid, lost, trust);
                }
                prop_assert!(lost <= paid / 16 + CREDIT_LOST_MAX + CREDIT_MIN, "{lost} of {paid}");
            }
        }
    }
}
