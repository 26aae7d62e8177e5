//! Attacks on seats, identities, slashing and commitments.

use super::{Doing, held};
use crate::{
    chance::Chance,
    row::{Row, Runs},
    seats::{account, candidate, seated},
    world::{Deal, Mark, Terms, World},
};
use posync_protocol::{
    amount::{ONE, SYNC},
    economics::{
        seats::{Candidate, Track, elect},
        slash,
    },
};

const STAKE: u128 = 1_000 * SYNC;

fn share(whole: u128, parts: u64) -> u128 {
    whole * u128::from(parts) / u128::from(ONE)
}

fn signed(grains: u128) -> i128 {
    i128::try_from(grains).expect("below the supply")
}

/// Profit of incumbents that veto a newcomer to keep its share of the committee's pool. The
/// newcomer is in sync from the first epoch on, a seat is open, and no seat votes.
pub(crate) fn incumbents(seats: usize, cartel: usize) -> i128 {
    const PROVIDERS: u64 = 10_000;
    let seated: Vec<_> = (0..seats).map(|node| seated(node, ONE)).collect();
    let run = |veto: bool| {
        let world = World::new(Terms::DEFAULT, seats + 1, seats, 1);
        let members: Vec<usize> = (0..cartel).collect();
        let mut track = Track::default();
        held(world, 40, (&members, &[]), |_, running| {
            track = track.after(ONE);
            let vetoes = members.iter().filter(|_| veto).map(|node| account(*node)).collect();
            let newcomer = Candidate { vetoes, ..candidate(seats, ONE, track) };
            if !elect(&seated, &[newcomer], PROVIDERS).admitted.is_empty() {
                running.nodes[seats].credit = 1;
            }
            let deals = (0..=seats).map(|node| Deal::plain(0, node, STAKE)).collect();
            Doing { deals, marks: vec![Some(Mark::PERFECT); seats + 1] }
        })
    };
    (run(true) - run(false)) / 40
}

/// Profit of a fork made with bought keys of a past committee, `age` epochs old, against a verifier
/// whose checkpoint is `checkpoint` epochs old. The fork is worth at most the bonds of a third of
/// the seats.
pub(crate) fn long_range(age: u64, checkpoint: u64) -> i128 {
    const UNBONDING: u64 = 21;
    let seats = 64u64;
    let quorum = 2 * seats / 3 + 1;
    if age > checkpoint {
        // The fork contradicts the checkpoint.
        return 0;
    }
    let bonded = age < UNBONDING;
    let taken = if bonded { share(STAKE, slash::equivocation(seats, quorum)) } else { 0 };
    signed(STAKE * u128::from(seats / 3)) - signed(taken * u128::from(quorum))
}

/// Profit per epoch of committing to compute receipts, `fake` parts per billion of them never
/// computed, and not opening those that are drawn. Each such receipt costs the slash share of the
/// stake.
pub(crate) fn unveiled(seed: u64, fake: u64) -> i128 {
    let mut chance = Chance::new(seed, "unveiled");
    let (rounds, value) = (10_000u64, 1_000_000u128);
    let caught_ppm = {
        let kept = ONE - fake;
        let four = [kept; 4]
            .into_iter()
            .fold(u128::from(ONE), |product, x| product * u128::from(x) / u128::from(ONE));
        (u128::from(ONE) - four) * 3 / 4
    };
    // s >= 2 g (1 - d') / d'
    let gained = share(value, fake);
    let slashed = 2 * gained * (u128::from(ONE) - caught_ppm) / caught_ppm + gained;
    let mut profit = 0;
    for _ in 0..rounds {
        let drawn = (0..4).any(|_| chance.below(ONE) < fake);
        profit += if drawn { -signed(slashed) } else { signed(gained) };
    }
    profit / i128::from(rounds)
}

/// The rows of this module.
pub(crate) fn rows(seed: u64) -> Vec<Row> {
    let forks = (0..60).flat_map(|age| (0..21).map(move |checkpoint| long_range(age, checkpoint)));
    let fakes = [ONE / 100, ONE / 10, ONE / 2].map(|fake| unveiled(seed, fake));
    vec![
        Row::attack(
            "A13 incumbent cartel",
            "vetoes of up to a third of 12 or 64 seats",
            incumbents(12, 4).max(incumbents(64, 21)),
        ),
        Row::attack(
            "A18 long-range keys",
            "a rule that does not exist yet: checkpoint younger than unbonding, worth up to a third of the bonds",
            forks.max().expect("some forks"),
        )
        .runs(Runs::Formula),
        Row::attack(
            "A27 unveiled compute commitments",
            "a rule that does not exist yet: 1, 10, 50 % of receipts fake, four draws a round",
            fakes.into_iter().max().expect("some shares"),
        )
        .runs(Runs::Formula),
    ]
}

#[cfg(test)]
mod tests {
    use super::{incumbents, long_range};

    #[test]
    fn each_rule_is_what_stops_its_attack() {
        assert!(incumbents(12, 5) > 0, "more than a third can veto");
        assert!(long_range(30, 40) > 0, "an old checkpoint does not protect");
    }
}
