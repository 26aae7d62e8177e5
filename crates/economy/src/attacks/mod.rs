//! The attacks on the economics, one small scenario each, and the mutants that make them pay.
//!
//! A profit is per epoch: the coalition's holdings, minus its holdings after honest business in the
//! same world under the same seed. It includes costs that the ledger does not see.

pub(crate) mod agreements;
pub(crate) mod audits;
pub(crate) mod authority;
pub(crate) mod fees;
pub(crate) mod identities;
pub(crate) mod market;
pub(crate) mod pumped;
pub(crate) mod redeemed;
pub(crate) mod reports;
pub(crate) mod reserving;
pub(crate) mod rooms;
pub(crate) mod stored;
pub(crate) mod usage;

use crate::{
    row::Row,
    world::{Deal, Mark, World},
};

/// The rows of all attacks, exceptions and mutants.
pub fn all(seed: u64) -> Vec<Row> {
    let parts = [
        usage::rows(seed),
        audits::rows(seed),
        reports::rows(seed),
        redeemed::rows(seed),
        stored::rows(seed),
        identities::rows(seed),
        reserving::rows(seed),
        fees::rows(),
        pumped::rows(),
        rooms::rows(),
        market::rows(),
        agreements::rows(),
        authority::rows(seed),
    ];
    let mut rows: Vec<Row> = parts.into_iter().flatten().collect();
    rows.sort_by_key(|row| number(&row.name));
    rows
}

/// The number in a name such as "A7 price pump"; mutants come last.
fn number(name: &str) -> u64 {
    let digits: String = name.chars().skip(1).take_while(char::is_ascii_digit).collect();
    if name.starts_with('A') { digits.parse().unwrap_or(u64::MAX) } else { u64::MAX }
}

/// The fees that a behaviour settles in an epoch, and the marks of all nodes.
pub(crate) struct Doing {
    pub(crate) deals: Vec<Deal>,
    pub(crate) marks: Vec<Option<Mark>>,
}

/// Runs a behaviour for some epochs. Returns the coalition's holdings at the end, in grains.
pub(crate) fn held(
    mut world: World,
    epochs: u64,
    coalition: (&[usize], &[usize]),
    mut behave: impl FnMut(u64, &mut World) -> Doing,
) -> i128 {
    for epoch in 0..epochs {
        let doing = behave(epoch, &mut world);
        world.close(doing.deals, &doing.marks);
    }
    i128::try_from(world.wealth(coalition.0, coalition.1)).expect("below the supply")
}
