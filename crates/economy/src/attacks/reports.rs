//! Attacks by auditors, and attacks on the reports about a provider.

use super::{Doing, held};
use crate::{
    chance::Chance,
    row::{Bound, GRAINS, Row, Topic},
    world::{Deal, Mark, Terms, World},
};
use posync_protocol::{
    amount::{ONE, SYNC},
    economics::{score, split::floor_carry},
};

const AUDITORS: usize = 61;
/// Seats of the cartel: below a third of 61.
const CARTEL: usize = 18;
const EPOCHS: u64 = 200;
const NOISE: u64 = ONE / 50;
const BASE: u128 = 1_000 * SYNC;

/// The cartel's report: a figure, or silence after its commitment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// The same figure in every epoch.
    Figure(u64),
    /// The highest figure that is still paid: a tenth above the truth.
    Paid,
    /// Commits and withholds the reveal.
    Silence,
}

/// The honest reports of an epoch around `truth`, and the median of all reports with the cartel's.
fn figures(chance: &mut Chance, truth: u64, lie: Option<Lie>) -> (Vec<u64>, u64) {
    let mut reports: Vec<u64> = (0..AUDITORS).map(|_| chance.around(truth, NOISE)).collect();
    let honest = reports[CARTEL..].to_vec();
    match lie {
        Some(Lie::Figure(figure)) => reports[..CARTEL].fill(figure),
        Some(Lie::Paid) => reports[..CARTEL].fill((truth + ONE / 10 - NOISE).min(ONE)),
        Some(Lie::Silence) => drop(reports.drain(..CARTEL)),
        None => {}
    }
    assert!(3 * reports.len() >= 2 * AUDITORS, "below a third, a cartel cannot break the quorum");
    let weighted: Vec<(u64, u128)> = reports.iter().map(|figure| (*figure, 1)).collect();
    (honest, score::lower_weighted_median(&weighted).expect("some reports"))
}

/// `(profit, most)` per epoch of a cartel with a friend whose true availability is `truth`. The
/// profit is the friend's subsidy and the cartel's own audit pay, minus those of honesty. `most` is
/// the friend's gain if the median were the highest honest report.
pub(crate) fn cartel(seed: u64, truth: u64, lie: Lie) -> (i128, i128) {
    let run = |lie: Option<Lie>, best: bool| {
        let mut chance = Chance::new(seed, "cartel");
        let mut lost = 0;
        let end = held(World::new(Terms::DEFAULT, 4, 1, 1), EPOCHS, (&[1], &[]), |_, _| {
            let (honest, median) = figures(&mut chance, truth, lie);
            let figure = if best { *honest.iter().max().expect("some are honest") } else { median };
            let paid = match lie {
                Some(Lie::Figure(figure)) => figure.abs_diff(median) <= ONE / 10,
                Some(Lie::Silence) => false,
                _ => true,
            };
            lost += i128::from(!paid) * i128::try_from(audit_pay(CARTEL)).expect("small");
            let mut marks = vec![Some(Mark::PERFECT); 4];
            marks[1] = Some(Mark::of(figure));
            Doing { deals: (0..4).map(|node| Deal::plain(0, node, BASE)).collect(), marks }
        });
        end - lost
    };
    let honest = run(None, false);
    let per_epoch = |end: i128| (end - honest) / i128::from(EPOCHS);
    (per_epoch(run(Some(lie), false)), per_epoch(run(None, true)))
}

/// Pay for `reports` reports on one of four providers: from the audits' half of the committee's
/// pool, split by credit.
fn audit_pay(reports: usize) -> u128 {
    let pool = BASE * u128::from(Terms::DEFAULT.committee) / u128::from(ONE) / 2;
    let (shares, _) = floor_carry(pool, &[1; AUDITORS]);
    shares[0] * reports as u128
}

/// Effect of a claimant that never pays: `(profit, the victim's books)`. It opens an agreement and
/// disputes without end, and the dispute counts for at most the amount that it signed.
pub(crate) fn griefed_books(claimed: u128) -> (i128, u64) {
    let signed = 20 * 100 * SYNC;
    let own = 100 * SYNC;
    let disputed = own.min(claimed.saturating_sub(own));
    let books = score::books(signed + own, disputed, SYNC);
    let run = |grief: bool| {
        held(World::new(Terms::DEFAULT, 4, 1, 2), 8, (&[], &[1]), |epoch, world| {
            if grief && epoch == 0 {
                world.burn(1, super::agreements::opening_fee());
            }
            // Books do not affect quality: the victim's mark and pay stay the same.
            let deals = vec![Deal::plain(0, 0, signed), Deal::plain(1, 0, own)];
            Doing { deals, marks: vec![Some(Mark::PERFECT); 4] }
        })
    };
    ((run(true) - run(false)) / 8, books)
}

fn bounded(name: &str, lie: Lie, seed: u64, truth: u64) -> Row {
    let (profit, most) = cartel(seed, truth, lie);
    let region = format!("18 of 61 seats, noise 0.02; at most the highest honest report ({most})");
    Row::new(Topic::Attack, name, region, profit, GRAINS, Bound::AtMost(most.max(0)))
}

/// The rows of this module.
pub(crate) fn rows(seed: u64) -> Vec<Row> {
    let (grief, books) = griefed_books(1_000_000 * SYNC);
    let (down, _) = cartel(seed, ONE / 10 * 9, Lie::Figure(0));
    vec![
        Row::attack(
            "A5 auditor cartel, up",
            "18 of 61 seats say 1.0 of 0.5, noise 0.02",
            cartel(seed, ONE / 2, Lie::Figure(ONE)).0,
        ),
        bounded("A5 auditor cartel, still paid", Lie::Paid, seed, ONE / 2),
        Row::attack("A5 auditor cartel, down", "18 of 61 seats say 0 of 0.9", down),
        Row::attack("A16 withheld reveals", "18 of 61 seats silent", cartel(seed, ONE / 2, Lie::Silence).0),
        Row::attack("A19 books griefing", "claims of 10^6 against signatures of 100", grief),
        Row::new(
            Topic::Attack,
            "A19 the victim's books",
            "one counterparty takes less than half",
            books.into(),
            "parts per billion",
            Bound::AtLeast((ONE / 2).into()),
        ),
    ]
}
