//! Agreements: terms, reserves, vouchers.

use crate::{
    Account, AgreementId, Amount, Code, fees, fenwick,
    ledger::{BlockContext, Touched, Working},
    limits::{PROVIDERS_MAX, Parameters, SLOTS_MAX},
    operation::{Close, CloseAlone, Open, Redemption, RotateKey, TopUp, Voucher},
    record::{AccountState, Agreement, Audit, DataSet, Ending, FeeTree, Provider, SlotTree, Use},
};

/// What a voucher adds to what was redeemed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delta {
    /// Egress bytes.
    pub egress: u64,
    /// Gas.
    pub gas: u64,
    /// What the consumer pays: at most what is left of the voucher reserve.
    pub fee: Amount,
    /// The provider's base, at the lower of price and slow price.
    pub base: Amount,
}

/// THE voucher check: providers run it before they send on, the ledger when it pays.
///
/// # Errors
/// The lowest code that applies.
pub fn check(
    _agreement: &Agreement,
    _usage: &Use,
    _voucher: &Voucher,
    _session_key: &Account,
    _round: u64,
    _parameters: &Parameters,
) -> Result<Delta, Code> {
    Err(Code::BadShape)
}

/// Names what [`remove`] and the clearing of the data set before it need: the provider's totals
/// and paths, the agreement's records, the consumer's account.
pub(crate) fn touches_removal(
    provider: &Account,
    index: u32,
    slot: u32,
    consumer: &Account,
    end_epoch: u64,
    touched: &mut Touched,
) {
    touched.readable.push(Audit::key(provider));
    touched.writable.extend([
        Provider::key(provider),
        Agreement::key(provider, slot),
        Use::key(provider, slot),
        DataSet::key(provider, slot),
        Ending::key(provider, end_epoch),
        AccountState::key(consumer),
    ]);
    let slots = fenwick::path(slot, SLOTS_MAX).map(|node| SlotTree::key(provider, node));
    touched.writable.extend(slots);
    touched.writable.extend(fenwick::path(index, PROVIDERS_MAX).map(FeeTree::key));
}

/// Whether nothing more can be redeemed, so that the records may go: closed and its epoch
/// reached, or the redemption window after the end is over.
pub fn is_over(agreement: &Agreement, usage: &Use, epoch: u64, parameters: &Parameters) -> bool {
    let end = agreement.end_epoch.saturating_add(parameters.redemption_epochs);
    epoch >= usage.closing_epoch.unwrap_or(end).min(end)
}

/// Deletes an agreement that [`is_over`], was charged and whose data set was cleared
/// (`settlement::charge`, then `data_set::clear`): returns both reserves and the deposit to the
/// consumer, frees slot and capacity, drops the ending record with its last agreement, burns the
/// pool's dust with the provider's last agreement. Needs the keys of [`touches_removal`].
pub(crate) fn remove(_working: &mut Working<'_>, _provider: &Account, _slot: u32) -> Result<(), Code> {
    Err(Code::BadShape)
}

/// Names the records of redemptions by `provider`: agreements, uses, its account, the epoch's row.
pub(crate) fn touches_redeem(
    context: &BlockContext,
    provider: &Account,
    redemptions: &[Redemption],
    touched: &mut Touched,
) {
    fees::touches(context, provider, touched);
    for redemption in redemptions {
        let AgreementId { provider, slot, .. } = redemption.voucher.agreement;
        touched.readable.push(Agreement::key(&provider, slot));
        touched.writable.push(Use::key(&provider, slot));
    }
}

/// Redeems vouchers of `provider`, each judged apart: a refused one is told as an event. Used by
/// statements. Returns how many were accepted and the lowest code of the refused.
pub(crate) fn redeem(
    _working: &mut Working<'_>,
    _provider: &Account,
    _redemptions: &[Redemption],
) -> Result<(usize, Option<Code>), Code> {
    Err(Code::BadShape)
}

pub(crate) fn redeem_paid(w: &mut Working<'_>, signer: &Account, r: &[Redemption]) -> Result<(), Code> {
    redeem(w, signer, r).map(|_| ())
}
pub(crate) fn touches_open(_body: &Open, _touched: &mut Touched) {}
pub(crate) fn touches_top_up(_body: &TopUp, _touched: &mut Touched) {}
pub(crate) fn touches_close(body: &Close, touched: &mut Touched) {
    let AgreementId { provider, slot, .. } = body.agreement;
    touches_removal(&provider, body.index, slot, &body.consumer, body.end_epoch, touched);
}
pub(crate) fn touches_close_alone(_body: &CloseAlone, _touched: &mut Touched) {}
pub(crate) fn touches_rotate(_body: &RotateKey, _touched: &mut Touched) {}
pub(crate) fn open(_w: &mut Working<'_>, _signer: &Account, _body: &Open) -> Result<(), Code> {
    Err(Code::BadShape)
}
pub(crate) fn top_up(_w: &mut Working<'_>, _signer: &Account, _body: &TopUp) -> Result<(), Code> {
    Err(Code::BadShape)
}
pub(crate) fn close(_w: &mut Working<'_>, _signer: &Account, _body: &Close) -> Result<(), Code> {
    Err(Code::BadShape)
}
pub(crate) fn close_alone(_w: &mut Working<'_>, _signer: &Account, _body: &CloseAlone) -> Result<(), Code> {
    Err(Code::BadShape)
}
pub(crate) fn rotate(_w: &mut Working<'_>, _signer: &Account, _body: &RotateKey) -> Result<(), Code> {
    Err(Code::BadShape)
}
