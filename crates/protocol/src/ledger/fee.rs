//! Fees of operations, and the base fee that follows the fullness of blocks.
//!
//! ```text
//!   fee of the paid lane     = base fee of the parent x (bytes + 512 per record named as writable)
//!   fee of the reserved lane = the same at the fee floor, the base fee of the genesis
//!   base fee of this block   = base fee of the parent, moved by the fullness of the paid lane
//! ```
//!
//! Invariants
//! 1. The base fee is never below the fee floor. A block changes it by at most an eighth, or by one
//!    grain (AC-5).
//! 2. Only the paid lane moves the base fee (AC-5).

use super::{BlockContext, Touched, Working, touches_operation};
use crate::number::{count, widest};
use crate::{
    Amount, Code, Halt, Key, Operation,
    account::debit,
    amount::ONE,
    limits::{FEE_BYTES_PER_KEY, PAID_LANE_BYTES, PAID_LANE_KEYS, Parameters},
    operation::Lane,
    record::{AccountState, System},
};
use alloc::collections::BTreeSet;
use commonware_codec::EncodeSize;

/// Fullness at which the base fee stays the same, in parts per billion.
const TARGET: u128 = widest(ONE) / 2;
/// A full or an empty block changes the base fee by one part in this many.
const STEP_DIVISOR: u128 = 8;

/// The size of an operation, or of several, from which fees are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Bytes of the encoding.
    pub bytes: u64,
    /// Number of distinct records named as writable.
    pub records: u64,
}

impl Size {
    /// The size of one operation in a block of `context`.
    pub fn of(context: &BlockContext, operation: &Operation) -> Self {
        Self::new(operation, &touches_operation(context, operation))
    }

    pub(super) fn new(operation: &Operation, touched: &Touched) -> Self {
        let keys: BTreeSet<&Key> = touched.writable.iter().collect();
        Self { bytes: count(operation.encode_size()), records: count(keys.len()) }
    }

    /// The units that are paid for: bytes, plus [`FEE_BYTES_PER_KEY`] for each record.
    pub const fn units(&self) -> u64 {
        self.bytes.saturating_add(self.records.saturating_mul(FEE_BYTES_PER_KEY))
    }

    pub(super) const fn add(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.records = self.records.saturating_add(other.records);
    }
}

/// The fee floor: the lowest base fee, in grains per unit, which the genesis fixes.
pub fn floor(parameters: &Parameters) -> u64 {
    u64::try_from(parameters.base_fee.grains()).unwrap_or(u64::MAX)
}

/// The base fee, in grains per unit, of the block after the one that wrote `system`. Never below the
/// floor.
pub fn base_fee(system: &System, parameters: &Parameters) -> u64 {
    system.base_fee.max(floor(parameters))
}

/// The fee of an operation in a block whose parent left `base_fee` (AC-3): zero for free ones, at the
/// floor in the reserved lane. Saturates.
pub fn fee(context: &BlockContext, base_fee: u64, operation: &Operation) -> Amount {
    fee_of(context, base_fee, operation.body.lane(), Size::of(context, operation))
}

pub(super) fn fee_of(context: &BlockContext, base_fee: u64, lane: Lane, size: Size) -> Amount {
    let price = match lane {
        Lane::StorageProof | Lane::Upkeep => return Amount::ZERO,
        Lane::Reserved => floor(&context.parameters),
        Lane::Paid => base_fee,
    };
    Amount::new(u128::from(price) * u128::from(size.units())).unwrap_or(Amount::MAX)
}

/// The base fee after a block whose paid operations total `paid` (AC-5). The fullness is u = max(bytes /
/// 512 KiB, records / 8,192), at most 1. Above one half the fee rises by max(1, base x (u - 1/2) / 4),
/// below it falls by base x (1/2 - u) / 4, never below `floor`. Saturates.
pub fn next_base_fee(base_fee: u64, floor: u64, paid: Size) -> u64 {
    let share = |part: u64, whole: usize| u128::from(part) * u128::from(ONE) / widest(count(whole));
    let fullness = share(paid.bytes, PAID_LANE_BYTES).max(share(paid.records, PAID_LANE_KEYS));
    let fullness = fullness.min(u128::from(ONE));
    let base = u128::from(base_fee.max(floor));
    let step = |gap: u128| base * gap / TARGET / STEP_DIVISOR;
    let moved = match fullness.checked_sub(TARGET) {
        Some(0) => base,
        Some(above) => base + step(above).max(1),
        None => base.saturating_sub(step(TARGET - fullness)),
    };
    u64::try_from(moved).unwrap_or(u64::MAX).max(floor)
}

/// Checks the nonce, if the operation carries one, and burns the fee (AC-2).
///
/// # Errors
/// `UnknownAccount`, `NonceOld`, `NonceGap`, `FeeAboveMaximum`, `Balance`; with any of them the
/// operation may not be in a block.
pub(super) fn charge(working: &mut Working<'_>, operation: &Operation, fee: Amount) -> Result<(), Halt> {
    let key = AccountState::key(&operation.signer);
    let mut state: AccountState = working.need(key, Code::UnknownAccount)?;
    if operation.body.has_nonce() {
        match operation.nonce.cmp(&state.nonce) {
            core::cmp::Ordering::Less => return Err(Code::NonceOld.into()),
            core::cmp::Ordering::Greater => return Err(Code::NonceGap.into()),
            core::cmp::Ordering::Equal => state.nonce += 1,
        }
        working.put(key, &state)?;
    }
    if fee > operation.max_fee {
        return Err(Code::FeeAboveMaximum.into());
    }
    debit(working, &operation.signer, fee)?;
    working.system.burned.gain(fee, "System.burned")?;
    Ok(())
}
