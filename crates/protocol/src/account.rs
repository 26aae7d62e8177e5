//! Accounts: nonces, fees and transfers (AC-1).

use crate::{
    Account, Amount, Broken, Code, Halt,
    bodies::Transfer,
    record::AccountState,
    working::{Touched, Working},
};

/// Names the records of a transfer, except the signer's account.
pub(crate) fn touches(body: &Transfer, touched: &mut Touched) {
    touched.writable.push(AccountState::key(&body.to));
}

/// Takes `amount` from a balance.
///
/// # Errors
/// `Balance` if the balance is below `amount`.
pub fn debit(working: &mut Working<'_>, account: &Account, amount: Amount) -> Result<(), Halt> {
    let key = AccountState::key(account);
    let mut state: AccountState = working.need(key, Code::Balance)?;
    state.balance = state.balance.checked_sub(amount).ok_or(Code::Balance)?;
    working.system.balances.lose(amount, "System.balances")?;
    Ok(working.put(key, &state)?)
}

/// Adds `amount` to a balance and creates the account if it does not exist. An amount of zero creates
/// none.
///
/// # Errors
/// [`Broken`] above the bound of all money.
pub fn credit(working: &mut Working<'_>, account: &Account, amount: Amount) -> Result<(), Broken> {
    if amount == Amount::ZERO {
        return Ok(());
    }
    let key = AccountState::key(account);
    let mut state: AccountState = working.get(key)?.unwrap_or_default();
    state.balance.gain(amount, "AccountState.balance")?;
    working.system.balances.gain(amount, "System.balances")?;
    working.put(key, &state)
}

/// Moves money from the signer. Creating the receiving account burns `account_burn` on top (AC-4).
///
/// # Errors
/// `Balance` if the signer's balance does not cover both.
pub(crate) fn transfer(working: &mut Working<'_>, from: &Account, body: &Transfer) -> Result<(), Halt> {
    if working.get::<AccountState>(AccountState::key(&body.to))?.is_none() {
        let burned = working.context.parameters.account_burn;
        debit(working, from, burned)?;
        working.system.burned.gain(burned, "System.burned")?;
    }
    debit(working, from, body.amount)?;
    Ok(credit(working, &body.to, body.amount)?)
}
