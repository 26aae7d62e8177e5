//! Decides which vouchers to redeem, and when: pure.
//!
//! A drawn provider redeems at most 64 vouchers for free in its storage proof. In between it pays a fee, so it
//! redeems on its own only vouchers that would otherwise be lost or are worth the fee; in the last round
//! of an epoch also each that covers as much as one read of an auditor. A report counts only as far as
//! its reads are redeemed by then, a provider cannot recognise such reads, and a provider whose reads
//! never count keeps a quality of one half: avoiding that is worth the fee, but not any fee, since anyone
//! can make a read look like an auditor's and fill blocks as an epoch ends. So all such reads of an epoch
//! cost at most a tenth of the provider's pay in it ([`spare`]): a certain tenth against the half at
//! stake. A provider without pay so far risks four times the voucher's value.

use crate::terms::Terms;
use posync_protocol::{
    Amount, Units, agreement,
    limits::{AUDIT_READ_BYTES, FEE_BYTES_PER_KEY, Parameters},
    operation::Redemption,
};

/// Bytes of one redemption in an operation, with the records that it names.
const REDEMPTION_BYTES: u64 = 192 + 2 * FEE_BYTES_PER_KEY;
/// Divisor: all reads of an epoch cost at most this part of its pay.
const READS_SHARE: u128 = 10;
/// For its epoch's quality, a read is redeemed at a fee of up to this many times its own value.
const READ_WORTH: u128 = 4;

/// The amount that a kept voucher would pay now; `None` if the ledger would refuse it.
pub(crate) fn value(terms: &Terms, kept: &Redemption, round: u64, parameters: &Parameters) -> Option<Amount> {
    let Redemption { voucher, session_key, .. } = kept;
    let delta = agreement::check(&terms.agreement, &terms.usage, voucher, session_key, round, parameters);
    delta.ok().map(|delta| delta.fee)
}

/// The redemption of a kept voucher, with a claim for `overdue` bytes beyond it if they exceed the
/// `disputed` bytes that the ledger already has. A claim can only be attached to a voucher, so a consumer
/// that never pays again is never reported.
pub(crate) fn claiming(kept: &Redemption, overdue: u64, disputed: u64) -> Redemption {
    let Redemption { voucher, .. } = kept;
    let sent = voucher.units.egress.checked_add(overdue).filter(|_| overdue > disputed);
    Redemption { claim: sent.map(|egress| Units { egress, ..voucher.units }), ..*kept }
}

/// Vouchers that pay something, by falling value.
pub(crate) fn payable<'a>(
    kept: impl Iterator<Item = (&'a Terms, &'a Redemption)>,
    round: u64,
    parameters: &Parameters,
) -> Vec<Redemption> {
    let value = |(terms, kept): (&Terms, &Redemption)| {
        value(terms, kept, round, parameters).filter(|fee| *fee > Amount::ZERO).map(|fee| (fee, *kept))
    };
    let mut all: Vec<(Amount, Redemption)> = kept.filter_map(value).collect();
    all.sort_by_key(|(fee, kept)| (std::cmp::Reverse(*fee), kept.voucher.agreement));
    all.into_iter().map(|(_, kept)| kept).collect()
}

/// True if the unredeemed part of a voucher may include an auditor's read.
pub(crate) const fn is_read(terms: &Terms, kept: &Redemption) -> bool {
    kept.voucher.units.egress.saturating_sub(terms.usage.redeemed.egress) >= AUDIT_READ_BYTES
}

/// Fee budget of each of `reads` redemptions for their epoch's quality: together a tenth of the epoch's
/// `pay`, in grains.
pub(crate) fn spare(pay: u128, reads: usize) -> u128 {
    pay / READS_SHARE / (reads as u128).max(1)
}

/// True if a voucher is worth an operation of its own at this height and base fee: its agreement's window is
/// about to close, it is worth half of the remaining reserve, or the epoch is in its last
/// round, an auditor's read may be in it, and its fee is at most `spare` or four times its value.
pub(crate) fn is_due(
    terms: &Terms,
    kept: &Redemption,
    height: u64,
    base_fee: u64,
    spare: u128,
    parameters: &Parameters,
) -> bool {
    let (round, epoch) = (parameters.round(height), parameters.epoch(height));
    let Some(fee) = value(terms, kept, round, parameters) else { return false };
    let own = u128::from(base_fee) * u128::from(REDEMPTION_BYTES);
    let closes = terms.usage.closing_epoch.unwrap_or(u64::MAX);
    let over = terms.agreement.end_epoch.saturating_add(parameters.redemption_epochs).min(closes);
    let is_last = epoch + 1 >= over;
    let is_much = fee.grains().saturating_mul(2) >= terms.usage.voucher_reserve.grains();
    let epoch_ends = round + 1 >= parameters.epoch_start(epoch + 1);
    let is_worth = own <= spare.max(fee.grains().saturating_mul(READ_WORTH));
    (epoch_ends && is_read(terms, kept) && is_worth) || (fee.grains() > own && (is_last || is_much))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{CHAIN, id, session, terms};
    use commonware_cryptography::Signer as _;
    use posync_protocol::{Account, AgreementId, operation::Voucher};

    const P: Parameters = Parameters::LOCAL;
    const MIB: u64 = 1 << 20;

    fn kept(slot: u32, egress: u64) -> Redemption {
        let agreement = AgreementId { slot, ..id() };
        let voucher = Voucher::signed(&session(), &CHAIN, agreement, Units::egress(egress));
        Redemption { voucher, session_key: Account::of(&session().public_key()), claim: None }
    }

    #[test]
    fn a_claim_goes_along_while_it_says_something_new() {
        for (overdue, disputed, expected) in [
            (0, 0, None),
            (1, 0, Some(Units::egress(MIB + 1))),
            (1, 1, None),
            (500, 499, Some(Units::egress(MIB + 500))),
            (500, 501, None),
            (u64::MAX, 0, None),
        ] {
            let redemption = claiming(&kept(0, MIB), overdue, disputed);
            assert_eq!(redemption, Redemption { claim: expected, ..kept(0, MIB) }, "{overdue} {disputed}");
        }
    }

    #[test]
    fn what_pays_most_comes_first_and_what_pays_nothing_stays() {
        let terms = terms();
        let all = [kept(0, MIB), kept(1, 5 * MIB), kept(2, 0), kept(3, 2 * MIB), kept(4, 1)];
        let got = payable(all.iter().map(|kept| (&terms, kept)), 10, &P);
        assert_eq!(got, [all[1], all[3], all[0]]);
    }

    #[test]
    fn a_voucher_is_redeemed_alone_only_when_it_must_or_is_worth_it() {
        let round = P.round_blocks;
        let last_round = (P.epoch_rounds - 1) * round;
        let mut closing = terms();
        closing.usage.closing_epoch = Some(2);
        let read = || {
            let mut read = terms();
            read.usage.redeemed.egress = MIB;
            read
        };
        let mut small = terms();
        small.usage.voucher_reserve = Amount::new(2_000_000).expect("small");
        let floor = 100;
        for (name, terms, egress, height, expected) in [
            ("early in the epoch", &terms(), 2 * MIB, round, false),
            ("epoch ends", &terms(), 2 * MIB, last_round, true),
            ("epoch ends, one auditor's read", &terms(), MIB / 16, last_round, true),
            ("epoch ends, less than that", &terms(), MIB / 16 - 1, last_round, false),
            ("epoch ends, no more than that beyond what is redeemed", &read(), MIB + 1, last_round, false),
            ("closing soon", &closing, MIB, P.epoch_blocks(), true),
            ("closing, not yet", &closing, MIB, round, false),
            ("closing, below its fee", &closing, MIB / 16, P.epoch_blocks(), false),
            ("half of the reserve", &small, MIB, round, true),
            ("refused by the ledger", &small, u64::MAX, round, false),
        ] {
            assert_eq!(is_due(terms, &kept(0, egress), height, floor, 0, &P), expected, "{name}");
        }
        let dear = 1_000_000 / REDEMPTION_BYTES + 1;
        assert!(!is_due(&closing, &kept(0, MIB), P.epoch_blocks(), dear, 0, &P), "not above a fee that rose");
    }

    #[test]
    fn reads_of_an_epoch_are_redeemed_for_at_most_a_tenth_of_its_pay_together() {
        let last_round = (P.epoch_rounds - 1) * P.round_blocks;
        let (read, pay) = (kept(0, MIB / 16), 1_000_000_000u128);
        for reads in [0, 1, 7, 61] {
            let spare = spare(pay, reads);
            assert!(spare * reads as u128 <= pay / 10, "{reads}");
            let dear = u64::try_from(spare / u128::from(REDEMPTION_BYTES)).expect("small");
            let due = |base_fee| is_due(&terms(), &read, last_round, base_fee, spare, &P);
            assert!(due(dear) && !due(dear + 1), "{reads}");
        }
        // Without pay the limit is four times the read's own value.
        let worth = value(&terms(), &read, 4, &P).expect("good").grains();
        let dear = u64::try_from(4 * worth / u128::from(REDEMPTION_BYTES)).expect("small");
        let due = |base_fee| is_due(&terms(), &read, last_round, base_fee, spare(0, 1), &P);
        assert!(due(dear) && !due(dear + 1));
    }

    #[test]
    fn no_read_is_redeemed_at_a_fee_beyond_all_that_it_is_worth() {
        let last_round = (P.epoch_rounds - 1) * P.round_blocks;
        // After 40 full blocks above the floor: 13 million grains for a voucher of 62,500; 60: 137 million.
        for base_fee in [10_712, 112_929] {
            let fee = u128::from(base_fee) * u128::from(REDEMPTION_BYTES);
            let worth = value(&terms(), &kept(0, MIB / 16), 4, &P).expect("good").grains();
            assert!(
                !is_due(&terms(), &kept(0, MIB / 16), last_round, base_fee, spare(fee * 10 - 1, 1), &P),
                "a fee of {fee} for {worth} grains"
            );
        }
    }
}
