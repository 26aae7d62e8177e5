//! Checks of an operation that need no record: size, expiry, ranges of fields.
//!
//! A node runs them on arrival and again in every block. An operation that fails here is never charged
//! and makes a block invalid. In one that passes, every field from which [`crate::ledger::touches`]
//! computes keys is in range.

use super::{
    AnnounceNode, Close, Measure, Open, Operation, Reasked, Redeem, Redemption, RefusedPlacement,
    RegisterProvider, SetDataSet, Settle, StorageProof, TopUp, UpdateProvider,
};
use crate::{
    Account, AgreementId, Amount, Code, capacity,
    limits::{NODES_MAX, OPERATION_BYTES_MAX, PLACES_MAX, PROVIDERS_MAX, Parameters, SLOTS_MAX},
    record::Address,
    working::BlockContext,
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

pub(super) fn amount_fits(amount: Amount) -> bool {
    amount > Amount::ZERO
}

pub(super) const fn id_fits(id: &AgreementId) -> bool {
    id.slot < SLOTS_MAX
}

/// True for non-empty UTF-8 without control characters, which fits on one line.
fn is_text(bytes: &[u8]) -> bool {
    core::str::from_utf8(bytes).is_ok_and(|text| !text.is_empty() && !text.contains(char::is_control))
}

pub(super) fn registration_fits(body: &RegisterProvider) -> bool {
    addresses_fit(&body.addresses) && is_text(&body.region)
}

pub(super) fn update_fits(body: &UpdateProvider) -> bool {
    body.index < PROVIDERS_MAX && addresses_fit(&body.addresses)
}

/// A withdrawal carries nothing but the place.
pub(super) fn announcement_fits(body: &AnnounceNode) -> bool {
    let is_bare = !body.archive && body.region.is_empty() && body.deposit_add == Amount::ZERO;
    let entry = match &body.address {
        Some(address) => is_text(address) && (body.region.is_empty() || is_text(&body.region)),
        None => is_bare && body.displaces.is_none(),
    };
    entry && body.place < NODES_MAX
}

/// True if there is at least one address and each is text.
fn addresses_fit(addresses: &[Address]) -> bool {
    !addresses.is_empty() && addresses.iter().all(|address| is_text(address))
}

pub(super) fn open_fits(body: &Open, parameters: &Parameters) -> bool {
    body.slot < SLOTS_MAX
        && body.quota.iter().all(|(class, asked)| *asked <= parameters.quota_max[class])
        && body.rate.is_within(parameters.rate_max)
}

pub(super) fn top_up_fits(body: &TopUp) -> bool {
    id_fits(&body.agreement) && amount_fits(body.amount)
}

pub(super) const fn close_fits(body: &Close) -> bool {
    id_fits(&body.agreement) && body.index < PROVIDERS_MAX
}

pub(super) const fn set_fits(body: &SetDataSet) -> bool {
    id_fits(&body.claim.agreement) && body.index < PROVIDERS_MAX
}

pub(super) fn storage_proof_fits(body: &StorageProof, context: &BlockContext) -> bool {
    let mut reasked = body.reasked.iter().map(|reasked| match reasked {
        Reasked::Proved(read) => read.slot,
        Reasked::Missing(still) => still.slot,
    });
    body.index < PROVIDERS_MAX
        && body.answers.iter().all(|answer| answer.place() < PLACES_MAX)
        && reasked.all(|slot| slot < SLOTS_MAX)
        && redemptions_fit(&body.vouchers)
        && slots_fit(&body.apply)
        && endings_fit(&body.endings, context)
}

pub(super) fn settle_fits(body: &Settle, context: &BlockContext) -> bool {
    body.index < PROVIDERS_MAX && slots_fit(&body.slots) && endings_fit(&body.endings, context)
}

pub(super) fn refusal_fits(body: &RefusedPlacement) -> bool {
    let own = |id: &AgreementId| id_fits(id) && id.provider == body.provider;
    body.leaves > 0 && body.agreement.as_ref().is_none_or(own)
}

pub(super) fn measure_fits(body: &Measure) -> bool {
    capacity::counts_fit(body) && body.counts.iter().all(|(index, _)| *index < PROVIDERS_MAX)
}

fn slots_fit(slots: &[(u32, Account, u64)]) -> bool {
    slots.iter().all(|(slot, _, _)| *slot < SLOTS_MAX) && slots.windows(2).all(|pair| pair[0].0 < pair[1].0)
}

/// Endings ascend, and none is beyond the epoch after the block's, because later ones cannot be crossed
/// yet. The one epoch of grace lets a node that is a block behind accept operations of one that is not
/// (ST-5).
fn endings_fit(epochs: &[u64], context: &BlockContext) -> bool {
    let last = context.epoch().saturating_add(1);
    epochs.windows(2).all(|pair| pair[0] < pair[1]) && epochs.last().is_none_or(|epoch| *epoch <= last)
}

pub(super) fn redemptions_fit(redemptions: &[Redemption]) -> bool {
    redemptions.iter().all(|redemption| {
        let Redemption { voucher, claim, .. } = redemption;
        let claimed = claim.is_none_or(|claim| voucher.units.is_within(claim));
        id_fits(&voucher.agreement) && claimed
    })
}

/// Only the provider itself may redeem: the operation names its account and its row.
pub(super) fn check_redemptions(signer: &Account, redemptions: &[Redemption]) -> Result<(), Code> {
    let own = redemptions.iter().all(|redemption| redemption.voucher.agreement.provider == *signer);
    if own { Ok(()) } else { Err(Code::WrongParty) }
}

pub(super) fn check_redeem(signer: &Account, body: &Redeem) -> Result<(), Code> {
    if body.vouchers.is_empty() { Err(Code::BadShape) } else { check_redemptions(signer, &body.vouchers) }
}

/// Only the measured provider may submit counts of its bytes.
pub(super) fn check_senders(signer: &Account, body: &Measure) -> Result<(), Code> {
    let own = body.counts.iter().all(|(_, count)| count.sender == *signer);
    if own { Ok(()) } else { Err(Code::WrongParty) }
}
