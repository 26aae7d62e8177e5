//! The answer to a challenge.

use crate::{
    Account, Code,
    ledger::{BlockContext, Touched, Working},
    operation::Statement,
};

/// Names the records of a statement.
pub(crate) fn touches(_context: &BlockContext, _signer: &Account, _body: &Statement, _touched: &mut Touched) {
}

/// Judges a statement of `signer`.
pub(crate) fn apply(_working: &mut Working<'_>, _signer: &Account, _body: &Statement) -> Result<(), Code> {
    Err(Code::BadShape)
}
