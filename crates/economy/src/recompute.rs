//! Recomputes a closed epoch from its fees and qualities alone.
//!
//! Plain 128-bit arithmetic, written out without the rules' functions: if both agree on every
//! grain, the rules' functions are right. 128 bits suffice because a simulated epoch stays below
//! 2^68 grains of base.

use crate::world::{ClosedEpoch, Terms};

const ONE: u128 = 1_000_000_000;

/// Describes the first line that differs from the books; `None` if all agree.
pub(crate) fn differs(terms: &Terms, books: &ClosedEpoch) -> Option<String> {
    let nodes = books.lines.len();
    let (mut base, mut pay, mut burned) = (vec![0u128; nodes], vec![0u128; nodes], 0u128);
    for deal in &books.fees {
        let burn = (deal.base * u128::from(terms.burn)).div_ceil(ONE);
        let committee = deal.base * u128::from(terms.committee) / ONE;
        base[deal.provider] += deal.base;
        pay[deal.provider] += deal.base - burn - committee;
        burned += burn + deal.paid - deal.base;
    }
    let least = |qualities: &[u64]| u128::from(qualities.iter().copied().min().unwrap_or(0));
    let weights: Vec<u128> =
        books.lines.iter().zip(&base).map(|(line, base)| base * least(&line.qualities) / ONE).collect();
    let total: u128 = weights.iter().sum();
    let cap = total * u128::from(terms.burn) / ONE * u128::from(terms.kappa) / ONE;
    let emission = books.before.0 / terms.divisor;
    let pool = if total == 0 { 0 } else { cap.min(emission * u128::from(terms.gamma) / ONE) };
    if pool != books.pool || pool - pool.min(books.before.1) != books.drawn || burned != books.burned {
        return Some(format!(
            "pool {pool}, burned {burned}: the books say {} and {}",
            books.pool, books.burned
        ));
    }
    for (index, line) in books.lines.iter().enumerate() {
        let subsidy = long_share(pool, weights[index], total);
        if (line.base, line.pay, line.subsidy) != (base[index], pay[index], subsidy) {
            return Some(format!("node {index}: {} and {subsidy}, the books say {line:?}", pay[index]));
        }
    }
    None
}

/// `floor(pool x weight / total)` by long multiplication, bit by bit, so that no product needs 256 bits.
fn long_share(pool: u128, weight: u128, total: u128) -> u128 {
    if total == 0 {
        return 0;
    }
    let (mut quotient, mut rest) = (0u128, 0u128);
    for bit in (0..128 - pool.leading_zeros()).rev() {
        (quotient, rest) = (quotient * 2, rest * 2);
        if pool >> bit & 1 == 1 {
            rest += weight;
        }
        quotient += rest / total;
        rest %= total;
    }
    quotient
}

#[cfg(test)]
mod tests {
    use super::{differs, long_share};
    use crate::world::{Deal, Mark, Terms, World};

    #[test]
    fn long_shares_are_floors() {
        assert_eq!(long_share(10, 1, 3), 3);
        assert_eq!(long_share(1 << 100, 7, 7), 1 << 100);
        assert_eq!(long_share(5, 0, 3), 0);
    }

    #[test]
    fn one_grain_is_noticed() {
        let mut world = World::new(Terms::DEFAULT, 3, 1, 1);
        let deals = (0..3).map(|node| Deal::plain(0, node, 1_000_003 + node as u128)).collect();
        let mut books = world.close(deals, &[Some(Mark::PERFECT); 3]);
        assert_eq!(differs(&Terms::DEFAULT, &books), None);
        books.lines[1].subsidy += 1;
        assert!(differs(&Terms::DEFAULT, &books).is_some());
    }
}
