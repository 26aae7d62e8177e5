//! What a provider weighs in the fee tree: what it is paid for, or nothing while it is asleep.
//!
//! ```text
//!   awake: weighed = paid --draw by fee finds a challenge past its deadline--> asleep: weighed = 0
//!     ^-- it answers, or sends a `Settle` itself while no challenge is open --------+
//! ```
//!
//! Who is silent would else eat the draws of those who answer: each that finds its challenge open
//! is lost (DR-6). It is drawn in turn as ever, and what it holds is paid as ever.

use crate::{
    Account, Code, fenwick,
    ledger::{Touched, Working},
    limits::PROVIDERS_MAX,
    record::{Audit, FeeTree, Provider},
};

/// Whether draws by fee reach the provider as far as it is paid.
pub const fn is_awake(provider: &Provider) -> bool {
    provider.weighed == provider.paid
}

/// Names a provider's path in the fee tree.
pub(crate) fn touches_weight(index: u32, touched: &mut Touched) {
    touched.writable.extend(fenwick::update_path(index, PROVIDERS_MAX).into_iter().map(FeeTree::key));
}

/// Makes a provider weigh what it is paid for, or nothing. The caller writes the provider.
/// Named by the caller: [`touches_weight`].
pub(crate) fn weigh(working: &mut Working<'_>, provider: &mut Provider, awake: bool) -> Result<(), Code> {
    let (before, after) = (provider.weighed, if awake { provider.paid } else { 0 });
    if before == after {
        return Ok(());
    }
    let moved = |sum: u128| {
        let rest = sum.checked_sub(before).ok_or(Code::Balance)?;
        rest.checked_add(after).ok_or(Code::Balance)
    };
    provider.weighed = after;
    working.system.phi = moved(working.system.phi)?;
    for node in fenwick::update_path(provider.index, PROVIDERS_MAX) {
        let key = FeeTree::key(node);
        let sum = moved(working.get::<FeeTree>(key)?.map_or(0, |node| node.sum))?;
        if sum == 0 { working.delete(key)? } else { working.put(key, &FeeTree { sum })? }
    }
    Ok(())
}

/// Puts a provider that is asleep back into the fee tree, if no challenge of it is open; whether it
/// was (DR-6).
pub(crate) fn wake(working: &mut Working<'_>, account: &Account) -> Result<bool, Code> {
    let audit: Audit = working.need(Audit::key(account), Code::ProviderUnknown)?;
    let mut provider: Provider = working.need(Provider::key(account), Code::ProviderUnknown)?;
    if audit.challenge.is_some() || is_awake(&provider) {
        return Ok(false);
    }
    weigh(working, &mut provider, true)?;
    working.put(Provider::key(account), &provider)?;
    Ok(true)
}
