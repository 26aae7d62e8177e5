//! The weight of a provider in the fee tree: what it is paid for, or zero while it is asleep.
//!
//! ```text
//!   awake: weighed = paid --draw by fee finds a challenge past its deadline--> asleep: weighed = 0
//!     |                   --an answer without a passed read------------------------->  |
//!     ^-- a read passes, or it sends a `Settle` itself while no challenge is open -----+
//!         and the last reads that it answered did not all fail
//! ```
//!
//! A draw that finds an open challenge is lost (DR-5), so a silent provider would otherwise use up draws of
//! those that answer (DR-6). The same holds for a provider that answers and proves nothing. A provider that
//! is asleep is still drawn in turn. It earns nothing for that time, because it is not asked.

use crate::number::bound_u32;
use crate::{
    Account, Broken, fenwick,
    limits::{HISTORY, PROVIDERS_MAX, READS},
    record::{Audit, FeeTree, Provider},
    working::{Touched, Working},
};

/// Returns true if the provider has its full weight. (A provider that is paid for nothing is awake.)
pub const fn is_awake(provider: &Provider) -> bool {
    provider.weighed == provider.paid
}

/// Returns true if no read passed in the last challenge with reads that the provider answered, as far as its
/// histories go back. Then only a passed read wakes it (DR-6).
pub fn proved_nothing(audit: &Audit) -> bool {
    let group = (1_u64 << READS) - 1;
    let noted = audit.drawn.min(HISTORY) / bound_u32(READS);
    let groups = (0..noted).map(|place| place * bound_u32(READS));
    let mut answered = groups.filter(|shift| audit.silent >> shift & group == 0);
    answered.next().is_some_and(|shift| audit.history >> shift & group == 0)
}

/// Names the path of a provider in the fee tree.
pub(crate) fn touches_weight(index: u32, touched: &mut Touched) {
    touched.writable.extend(fenwick::update_path(index, PROVIDERS_MAX).into_iter().map(FeeTree::key));
}

/// Sets a provider's weight: what it is paid for if `awake`, else zero. The caller writes the provider and
/// has named [`touches_weight`].
///
/// # Errors
/// [`Broken`] if the sums do not hold the old weight.
pub(crate) fn weigh(working: &mut Working<'_>, provider: &mut Provider, awake: bool) -> Result<(), Broken> {
    let (before, after) = (provider.weighed, if awake { provider.paid } else { 0 });
    if before == after {
        return Ok(());
    }
    let moved = |sum: u128, what| {
        let rest = sum.checked_sub(before).and_then(|rest| rest.checked_add(after));
        rest.ok_or(Broken::bound(what))
    };
    provider.weighed = after;
    working.system.fee_weight = moved(working.system.fee_weight, "System.fee_weight")?;
    for node in fenwick::update_path(provider.index, PROVIDERS_MAX) {
        let key = FeeTree::key(node);
        let sum = moved(working.get::<FeeTree>(key)?.map_or(0, |node| node.sum), "FeeTree.sum")?;
        if sum == 0 { working.delete(key)? } else { working.put(key, &FeeTree { sum })? }
    }
    Ok(())
}

/// Puts a provider that is asleep back into the fee tree, unless it has an open challenge or proved nothing
/// when it last answered (DR-6). The time asleep is not paid. Returns true if it woke the provider.
///
/// # Errors
/// `ProviderUnknown`.
pub(crate) fn wake(working: &mut Working<'_>, account: &Account) -> Result<bool, Broken> {
    let audit: Audit = working.kept(Audit::key(account))?;
    let mut provider: Provider = working.kept(Provider::key(account))?;
    if audit.challenge.is_some() || is_awake(&provider) || proved_nothing(&audit) {
        return Ok(false);
    }
    provider.settled_round = working.context.round();
    weigh(working, &mut provider, true)?;
    working.put(Provider::key(account), &provider)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_challenge_that_was_answered_says_whether_anything_was_proved() {
        // Groups of four reads, the newest lowest: passed, and silent.
        for (history, silent, drawn, nothing) in [
            (0x0_u64, 0x0_u64, 0, false),
            (0x0, 0x0, 4, true),
            (0x1, 0x0, 4, false),
            (0x8, 0x0, 4, false),
            (0xf0, 0x0, 8, true),
            (0x0f, 0x0, 8, false),
            (0x0, 0xf, 4, false),
            (0xf0, 0x0f, 8, false),
            (0x00, 0x0f, 8, true),
            (0x00, 0xf0, 8, true),
            (0x0f, 0xf0, 8, false),
        ] {
            let audit = Audit { history, silent, drawn, ..Audit::default() };
            assert_eq!(proved_nothing(&audit), nothing, "{history:x} {silent:x} {drawn}");
        }
    }
}
