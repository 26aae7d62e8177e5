//! Checks of an operation that need no record: size, expiry, ranges of fields. The ranges of one kind's fields
//! are checked in the module of its rules, with the functions here that several kinds share.
//!
//! A node runs them on arrival and again in every block. An operation that fails here is never charged
//! and makes a block invalid. In one that passes, every field from which [`crate::ledger::touches`]
//! computes keys is in range.

use super::{Operation, Redemption};
use crate::{
    Account, AgreementId, Amount, Code,
    ledger::BlockContext,
    limits::{OPERATION_BYTES_MAX, SLOTS_MAX},
    record::Address,
};
use commonware_codec::EncodeSize;

/// Checks size, expiry and the ranges of fields, in the order of the codes.
///
/// # Errors
/// `TooLarge`, `Expired`, `BadShape`, `NotEvidence`; `WrongParty` for vouchers or counts of another
/// provider.
pub fn check_structure(operation: &Operation, context: &BlockContext) -> Result<(), Code> {
    if operation.encode_size() > OPERATION_BYTES_MAX {
        return Err(Code::TooLarge);
    }
    let last = context.height.saturating_add(context.parameters.expiry_blocks_max);
    if operation.expires < context.height || operation.expires > last {
        return Err(Code::Expired);
    }
    let is_bare = (operation.body.has_nonce() || operation.nonce == 0)
        && (!operation.body.is_free() || operation.max_fee == Amount::ZERO);
    if !is_bare {
        return Err(Code::BadShape);
    }
    if !operation.body.fits(context) {
        return Err(Code::BadShape);
    }
    operation.body.check(&operation.signer, context)
}

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
