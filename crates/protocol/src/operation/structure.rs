//! Checks of an operation that need no record: size, expiry, and the ranges that its declaration names.
//!
//! A node runs them on arrival and again in every block. An operation that fails here is never charged
//! and makes a block invalid. In one that passes, every field from which [`crate::ledger::touches`]
//! computes keys is in range.

use super::Operation;
use crate::{Amount, Code, limits::OPERATION_BYTES_MAX, working::BlockContext};
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
