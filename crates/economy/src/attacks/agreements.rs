//! Attacks on agreements: credit windows, closes and repair.

use crate::{
    row::{Row, Runs},
    world::Terms,
};
use posync_protocol::{
    Class,
    agreement::credit_window,
    amount::{Amount, ONE, SYNC, UNIT},
    fees::split_fee,
    limits::{CREDIT_LOST_MAX, CREDIT_MIN, FEE_BYTES_PER_KEY, Parameters},
};

const RULES: Parameters = Parameters::PRODUCTION;

/// Burn of opening an agreement: some 400 bytes and six writable records at the least base fee, in grains.
pub(crate) fn opening_fee() -> u128 {
    RULES.base_fee.grains() * u128::from(400 + 6 * FEE_BYTES_PER_KEY)
}

fn value(bytes: u64) -> u128 {
    u128::from(bytes) * RULES.prices[Class::Egress] / UNIT
}

fn signed(grains: u128) -> i128 {
    i128::try_from(grains).expect("below the supply")
}

/// How the credit window grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Window {
    /// A sixteenth of the paid bytes, minus the lost bytes, between 64 KiB and 4 MiB: the rule.
    Sixteenth,
    /// Twice the last window after each voucher: a mutant.
    Doubling,
}

/// Bytes that a consumer reads without paying, and the bytes it signed for. It signs honestly for
/// `paid` bytes, then reads the open window, disconnects, returns and reads the next, until none is
/// left. No provider ever claims, so that trust in it stays whole.
fn theft(window: Window, paid: u64) -> (u64, u64) {
    if window == Window::Sixteenth {
        let mut lost = 0;
        while credit_window(paid, lost, ONE) > 0 {
            lost += credit_window(paid, lost, ONE);
        }
        return (lost, paid);
    }
    let (mut signed, mut open) = (0, CREDIT_MIN);
    while signed < paid {
        signed += open.min(paid - signed);
        open = open.saturating_mul(2);
    }
    (open, signed)
}

/// Worth of the stolen windows above a seventeenth of all traffic and the opening fee. At most zero
/// means that the theft is within the published bound.
pub(crate) fn window_theft(window: Window) -> i128 {
    let sizes = (16..36).map(|bits| 1u64 << bits).chain([0, 1, 1 << 40]);
    let profit = |paid: u64| {
        let (stolen, signed_for) = theft(window, paid);
        signed(value(stolen)) - signed(value((stolen + signed_for) / 17)) - signed(opening_fee())
    };
    sizes.map(profit).max().expect("some sizes")
}

/// Profit of a consumer that opens, reads all windows open to it, never signs, and opens again.
pub(crate) fn refuses_to_sign() -> i128 {
    let (stolen, paid) = theft(Window::Sixteenth, 0);
    assert_eq!((stolen, paid), (CREDIT_LOST_MAX + CREDIT_MIN, 0), "four slices are the whole loss");
    signed(value(stolen)) - signed(opening_fee())
}

/// Profit of a ring in which one provider fails a read for good so that its friend repairs. The
/// penalty and the unspent reserve move to the friend's agreement, which uses them up.
pub(crate) fn repair_ring(unspent: u128, epoch_fee: u128) -> i128 {
    let penalty = 2 * epoch_fee;
    let amount = |grains| Amount::new(grains).expect("below the supply");
    let pay = |fee: u128| {
        let split = split_fee(amount(fee), amount(fee), Terms::DEFAULT.burn, Terms::DEFAULT.committee);
        split.expect("a base equal to the fee").pay.grains()
    };
    // Four shards are read to rebuild one; the smallest shard has the cheapest reads.
    let reads = 4 * value(1 << 20);
    let ring = signed(pay(unspent + penalty)) - signed(penalty) - signed(reads) - signed(opening_fee());
    ring - signed(pay(unspent))
}

/// The rows of this module.
pub(crate) fn rows() -> Vec<Row> {
    let ring = [0, SYNC, 1_000 * SYNC].map(|unspent| repair_ring(unspent, SYNC));
    vec![
        Row::attack(
            "A10 refusing to sign",
            "four slices of 64 KiB against the opening fee",
            refuses_to_sign(),
        ),
        Row::attack(
            "A24 window theft, beyond 1/17 of traffic",
            "any traffic up to a TiB, opening fee counted",
            window_theft(Window::Sixteenth),
        ),
        Row::attack(
            "A26 repair ring",
            "a rule that does not exist yet: reserve of 0 to 1,000 times the epoch's fee",
            ring.into_iter().max().expect("some reserves"),
        )
        .runs(Runs::Formula),
        Row::mutant("mutant: window doubling", "any traffic up to a TiB", window_theft(Window::Doubling)),
    ]
}

#[cfg(test)]
mod tests {
    use super::{Window, refuses_to_sign, theft, window_theft};
    use posync_protocol::amount::ONE;

    #[test]
    fn a_doubling_window_is_robbed_of_half() {
        let (stolen, paid) = theft(Window::Doubling, 1 << 30);
        assert!(stolen >= paid, "{stolen} of {paid}");
        let (stolen, paid) = theft(Window::Sixteenth, ONE);
        assert!(stolen > paid / 16 && stolen <= (stolen + paid) / 17 + (256 << 10));
    }

    #[test]
    fn the_figures_that_are_published() {
        assert_eq!((refuses_to_sign(), window_theft(Window::Sixteenth)), (-97_200, -111_905));
    }
}
