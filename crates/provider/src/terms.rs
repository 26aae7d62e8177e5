//! The ledger's records of one agreement, as the provider last proved them.

use posync_protocol::{
    AgreementId, Code,
    agreement::{check_open, lock_of, start_round, trust},
    amount::{UNIT, mul_div_up},
    limits::Parameters,
    record::{Agreement, DataSet, Usage},
};

/// The records of an agreement at a certified height.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Full name of the agreement.
    pub id: AgreementId,
    /// Certified height at which the records were proved.
    pub height: u64,
    /// Prices, quotas and term of the agreement.
    pub agreement: Agreement,
    /// Usage so far: egress, gas and money.
    pub usage: Usage,
    /// The data set in force and the next one.
    pub data: DataSet,
}

impl Terms {
    /// Checks that the agreement covers new use in `epoch`.
    ///
    /// # Errors
    /// `AgreementClosed`, `AgreementEnded`.
    pub fn check_open(&self, epoch: u64) -> Result<(), Code> {
        check_open(&self.agreement, &self.usage, epoch)
    }

    /// The consumer's trust, as the ledger computes it (BK-9).
    pub fn trust(&self, parameters: &Parameters) -> u64 {
        trust(&self.usage, parameters)
    }

    /// Egress bytes that the ledger has as disputed: the disputed money at the egress price, rounded up.
    pub fn disputed_bytes(&self) -> u64 {
        let price = lock_of(&self.agreement, &self.usage).egress_price.into();
        let bytes = mul_div_up(self.usage.disputed.grains(), UNIT, price).unwrap_or(0);
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// Cumulative egress bytes that can ever be redeemed by `round`: the least of the quota, the rate cap
    /// so far and the bytes that the voucher reserve still buys at the prices in force, after the signed
    /// cumulative `gas` is paid (VO-3). Bytes beyond it are never paid.
    pub fn egress_ceiling(&self, gas: u64, round: u64, parameters: &Parameters) -> u64 {
        let rounds = round.saturating_sub(start_round(&self.agreement, parameters)) + 1;
        let by_rate = self.agreement.rate_egress.saturating_mul(rounds);
        let lock = lock_of(&self.agreement, &self.usage);
        let for_gas = lock.gas_cost(self.usage.gas, gas);
        let left = self.usage.voucher_reserve.grains().saturating_sub(for_gas);
        let by_reserve = lock.egress_reach(self.usage.egress, left);
        self.agreement.quota_egress.min(by_rate).min(by_reserve)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;
    use posync_protocol::{Amount, record::Lock};

    #[test]
    fn the_ceiling_is_what_the_reserve_can_still_pay_at_the_prices_in_force() {
        const P: Parameters = Parameters::LOCAL;
        const MIB: u64 = 1 << 20;
        let mut terms = fixtures::terms();
        terms.agreement.gas_price = 2_000_000;
        terms.usage.voucher_reserve = Amount::new(4_000_000).expect("small");
        (terms.usage.egress, terms.usage.gas) = (MIB, 7);
        let lock = |egress_price| Lock {
            egress_price,
            egress_slow: 1,
            gas_price: 1_000_000,
            gas_slow: 1,
            egress: MIB,
            gas: 7,
            egress_before: 1_000_000,
            egress_base_before: 1,
            gas_before: 1_000_000,
            gas_base_before: 1,
        };
        for (name, gas, lock, expected) in [
            ("four MiB at the opening's price", 0, None, 5 * MIB),
            ("no gas beyond what is redeemed", 7, None, 5 * MIB),
            ("gas that was signed is paid from the same reserve", MIB + 7, None, 3 * MIB),
            ("all of it", 2 * MIB + 7, None, MIB),
            ("more than it holds", u64::MAX, None, MIB),
            ("at the price of the last top-up", 0, Some(lock(2_000_000)), 3 * MIB),
            ("gas too", MIB + 7, Some(lock(3_000_000)), 2 * MIB),
        ] {
            terms.usage.lock = lock;
            assert_eq!(terms.egress_ceiling(gas, 1_000, &P), expected, "{name}");
        }
    }
}
