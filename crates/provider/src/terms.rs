//! The ledger's records of one agreement, as the provider last proved them.

use posync_protocol::{
    AgreementId, Class, Code,
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
    pub(crate) fn check_open(&self, epoch: u64) -> Result<(), Code> {
        check_open(&self.agreement, &self.usage, epoch)
    }

    /// The consumer's trust, as the ledger computes it (BK-9).
    pub(crate) fn trust(&self, parameters: &Parameters) -> u64 {
        trust(&self.usage, parameters)
    }

    /// Egress bytes that the ledger has as disputed: the disputed money at the egress price, rounded up.
    pub(crate) fn disputed_bytes(&self) -> u64 {
        let price = lock_of(&self.agreement, &self.usage).prices.egress.price.into();
        let bytes = mul_div_up(self.usage.disputed.grains(), UNIT, price).unwrap_or(0);
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// Cumulative egress bytes that can ever be redeemed by `round`: the least of the quota, the rate cap
    /// so far and the bytes that the voucher reserve still buys at the prices in force, after the signed
    /// cumulative `gas` is paid (VO-3). Bytes beyond it are never paid.
    pub(crate) fn egress_ceiling(&self, gas: u64, round: u64, parameters: &Parameters) -> u64 {
        let rounds = round.saturating_sub(start_round(&self.agreement, parameters)) + 1;
        let by_rate = self.agreement.rate.egress.saturating_mul(rounds);
        let lock = lock_of(&self.agreement, &self.usage);
        let for_gas = lock.gas_cost(self.usage.redeemed.gas, gas);
        let left = self.usage.voucher_reserve.grains().saturating_sub(for_gas);
        let by_reserve = lock.egress_reach(self.usage.redeemed.egress, left);
        self.agreement.quota[Class::Egress].min(by_rate).min(by_reserve)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;
    use posync_protocol::{
        Amount, Metered, Units,
        record::{Before, Lock, Pair},
    };

    #[test]
    fn the_ceiling_is_what_the_reserve_can_still_pay_at_the_prices_in_force() {
        const P: Parameters = Parameters::LOCAL;
        const MIB: u64 = 1 << 20;
        const MILLION: Before = Before { price: 1_000_000, base: 1 };
        let mut terms = fixtures::terms();
        terms.agreement.prices[Class::Compute].price = 2_000_000;
        terms.usage.voucher_reserve = Amount::new(4_000_000).expect("small");
        (terms.usage.redeemed.egress, terms.usage.redeemed.gas) = (MIB, 7);
        let lock = |price| Lock {
            prices: Metered { egress: Pair { price, slow: 1 }, gas: Pair { price: 1_000_000, slow: 1 } },
            from: Units { egress: MIB, gas: 7 },
            before: Metered { egress: MILLION, gas: MILLION },
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
