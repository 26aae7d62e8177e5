//! Ranges of fields that several kinds of operations share. Those of one kind alone are checked in the module of
//! its rules.

use super::Redemption;
use crate::{Account, AgreementId, Amount, Code, limits::SLOTS_MAX, record::Address, working::BlockContext};

/// True for an amount that moves anything.
pub(crate) fn amount_fits(amount: Amount) -> bool {
    amount > Amount::ZERO
}

/// True if the slot is one that a provider can have.
pub(crate) const fn id_fits(id: &AgreementId) -> bool {
    id.slot < SLOTS_MAX
}

/// True for non-empty UTF-8 without control characters, which fits on one line.
pub(crate) fn is_text(bytes: &[u8]) -> bool {
    core::str::from_utf8(bytes).is_ok_and(|text| !text.is_empty() && !text.contains(char::is_control))
}

/// True if there is at least one address and each is text.
pub(crate) fn addresses_fit(addresses: &[Address]) -> bool {
    !addresses.is_empty() && addresses.iter().all(|address| is_text(address))
}

/// True if the slots ascend and are in range.
pub(crate) fn slots_fit(slots: &[(u32, Account, u64)]) -> bool {
    slots.iter().all(|(slot, _, _)| *slot < SLOTS_MAX) && slots.windows(2).all(|pair| pair[0].0 < pair[1].0)
}

/// Endings ascend, and none is beyond the epoch after the block's, because later ones cannot be crossed
/// yet. The one epoch of grace lets a node that is a block behind accept operations of one that is not
/// (ST-5).
pub(crate) fn endings_fit(epochs: &[u64], context: &BlockContext) -> bool {
    let last = context.epoch().saturating_add(1);
    epochs.windows(2).all(|pair| pair[0] < pair[1]) && epochs.last().is_none_or(|epoch| *epoch <= last)
}

/// True if every claim covers at least the units of its voucher.
pub(crate) fn redemptions_fit(redemptions: &[Redemption]) -> bool {
    redemptions.iter().all(|redemption| {
        let Redemption { voucher, claim, .. } = redemption;
        let claimed = claim.is_none_or(|claim| voucher.units.is_within(claim));
        id_fits(&voucher.agreement) && claimed
    })
}

/// Only the provider itself may redeem: the operation names its account and its row.
pub(crate) fn check_redemptions(signer: &Account, redemptions: &[Redemption]) -> Result<(), Code> {
    let own = redemptions.iter().all(|redemption| redemption.voucher.agreement.provider == *signer);
    if own { Ok(()) } else { Err(Code::WrongParty) }
}
