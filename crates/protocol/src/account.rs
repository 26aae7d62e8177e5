//! Accounts: nonces, fees and transfers (AC-1).

use crate::{
    Account, Amount, Code, Operation,
    ledger::{Touched, Working},
    operation::Transfer,
    record::AccountState,
};

/// Names the records of a transfer, except the signer's account.
pub(crate) fn touches(body: &Transfer, touched: &mut Touched) {
    touched.writable.push(AccountState::key(&body.to));
}

/// Takes `amount` from a balance.
///
/// # Errors
/// `Balance` if the balance is below `amount`.
pub fn debit(working: &mut Working<'_>, account: &Account, amount: Amount) -> Result<(), Code> {
    let key = AccountState::key(account);
    let mut state: AccountState = working.need(key, Code::Balance)?;
    state.balance = state.balance.checked_sub(amount).ok_or(Code::Balance)?;
    working.system.balances = working.system.balances.checked_sub(amount).ok_or(Code::Balance)?;
    working.put(key, &state)
}

/// Adds `amount` to a balance and creates the account if it does not exist. An amount of zero creates
/// none.
///
/// # Errors
/// `Balance` above the bound of all money, which conservation rules out.
pub fn credit(working: &mut Working<'_>, account: &Account, amount: Amount) -> Result<(), Code> {
    if amount == Amount::ZERO {
        return Ok(());
    }
    let key = AccountState::key(account);
    let mut state: AccountState = working.get(key)?.unwrap_or_default();
    state.balance = state.balance.checked_add(amount).ok_or(Code::Balance)?;
    working.system.balances = working.system.balances.checked_add(amount).ok_or(Code::Balance)?;
    working.put(key, &state)
}

/// Checks the nonce, if the operation carries one, and burns the fee (AC-2).
///
/// # Errors
/// `UnknownAccount`, `NonceOld`, `NonceGap`, `FeeAboveMaximum`, `Balance`; with any of them the
/// operation may not be in a block.
pub(crate) fn charge(working: &mut Working<'_>, operation: &Operation, fee: Amount) -> Result<(), Code> {
    let key = AccountState::key(&operation.signer);
    let mut state: AccountState = working.need(key, Code::UnknownAccount)?;
    if operation.body.has_nonce() {
        match operation.nonce.cmp(&state.nonce) {
            core::cmp::Ordering::Less => return Err(Code::NonceOld),
            core::cmp::Ordering::Greater => return Err(Code::NonceGap),
            core::cmp::Ordering::Equal => state.nonce += 1,
        }
        working.put(key, &state)?;
    }
    if fee > operation.max_fee {
        return Err(Code::FeeAboveMaximum);
    }
    debit(working, &operation.signer, fee)?;
    working.system.burned = working.system.burned.checked_add(fee).ok_or(Code::Balance)?;
    Ok(())
}

/// Moves money from the signer. Creating the receiving account burns `account_burn` on top (AC-4).
///
/// # Errors
/// `Balance` if the signer's balance does not cover both.
pub(crate) fn transfer(working: &mut Working<'_>, from: &Account, body: &Transfer) -> Result<(), Code> {
    if working.get::<AccountState>(AccountState::key(&body.to))?.is_none() {
        let burned = working.context.parameters.account_burn;
        debit(working, from, burned)?;
        working.system.burned = working.system.burned.checked_add(burned).ok_or(Code::Balance)?;
    }
    debit(working, from, body.amount)?;
    credit(working, &body.to, body.amount)
}
