//! Versioned data sets: growth by both, shrink by the consumer.

use crate::{
    Account, Code,
    ledger::{Touched, Working},
    operation::SetDataSet,
};

/// Names the records of a change beyond the signer's account.
pub(crate) fn touches(_body: &SetDataSet, _touched: &mut Touched) {}

/// Puts a version in force, or in `next`.
pub(crate) fn apply(_working: &mut Working<'_>, _body: &SetDataSet) -> Result<(), Code> {
    Err(Code::BadShape)
}

/// Takes what the agreement at `slot` holds out of every sum, as if it shrank to nothing, and
/// drops `next`: trees, `phi`, `paid`, `paid_base`, the ending record. It was charged before and
/// no challenge is open. The caller deletes the record.
pub(crate) fn clear(_working: &mut Working<'_>, _provider: &Account, _slot: u32) -> Result<(), Code> {
    Ok(())
}
