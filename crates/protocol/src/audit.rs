//! Draws, dependent reads, their proofs.

use crate::{
    block::Draw,
    ledger::{BlockContext, Invalid, Touched, Working},
    record::System,
};

/// Names the records of the block's draws. `system` is the parent's.
pub(crate) fn touches_draws(
    _context: &BlockContext,
    _system: &System,
    _draws: &[Option<Draw>],
    _touched: &mut Touched,
) {
}

/// Checks the block's draws against the beacon and marks who was drawn.
pub(crate) fn apply_draws(_working: &mut Working<'_>, _draws: &[Option<Draw>]) -> Result<(), Invalid> {
    Ok(())
}
