//! Storage pay: intervals, endings, upkeep.

use crate::{
    Account, Code,
    ledger::{BlockContext, Touched, Working},
    operation::Settle,
};

/// Names the records of an upkeep.
pub(crate) fn touches(_context: &BlockContext, _body: &Settle, _touched: &mut Touched) {}

/// Expires a stale challenge, applies `next`, charges and removes ended agreements.
pub(crate) fn apply(_working: &mut Working<'_>, _body: &Settle) -> Result<(), Code> {
    Err(Code::BadShape)
}

/// Charges the agreement at `slot` for storage up to now (or up to its end): moves its
/// `Use::acc` forward and takes the charge off `Use::storage_reserve`, never below zero.
/// Named by the caller: Provider, Agreement, DataSet, Ending readable; Use writable.
pub(crate) fn charge(_working: &mut Working<'_>, _provider: &Account, _slot: u32) -> Result<(), Code> {
    Ok(())
}
