//! Execution of a block: name the records, then run the operations over them, each all or nothing.
//!
//! ```text
//!   closing_set_keys -> closing set          providers and seats whose books this block closes
//!   touches(op) -> keys, bounded        one batched read by the node
//!   execute: round anchor -> books -> leader's credit -> draws -> operations in order -> System
//!            each operation: charge its fee, run on an overlay, keep it or drop it whole
//! ```
//!
//! Invariants
//! 1. A refused operation has no effect but its fee and its nonce (LE-2).
//! 2. A block is invalid with an operation whose fee cannot be charged, or with a refused one outside
//!    the paid lane (LE-3). A proposer leaves such operations out ([`Mode::Propose`]), a verifier
//!    rejects the block ([`Mode::Verify`]).
//! 3. An operation reads and writes only records that it named itself (LE-1), and its size bounds how
//!    many it names (LE-4).

mod fee;
mod select;
mod working;

pub use crate::{
    books::{ClosingSet, closing_set_keys},
    event::{AgreementChange, Event, ReputationReason, ReputationStep},
};
pub use fee::{Size, base_fee, fee, floor, next_base_fee};
pub use select::select;
pub use working::Working;
pub(crate) use working::decode;

use crate::{
    Account, Body, Broken, Code, Halt, Hash, Key, Operation, Slot, account, audit, authority,
    block::{Draw, sha256},
    books, capacity, faults,
    limits::{BODY_BYTES_MAX, KEYS_MAX, OPERATIONS_MAX, PAID_LANE_BYTES, Parameters, RESERVED_PER_ACCOUNT},
    operation::{Lane, check_structure},
    record::{AccountState, Newcomer, ProviderAt, RoundInfo, System},
    service,
};
use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use commonware_codec::{Encode, EncodeSize};

/// Records read for a block. A named key that is absent from the state maps to `None`.
pub type Records = BTreeMap<Key, Option<Slot>>;

/// Facts about a block that are known before it runs.
#[derive(Clone, Debug)]
pub struct BlockContext {
    /// Chain id: SHA-256 of the genesis.
    pub chain: Hash,
    /// Parameters that the genesis fixes.
    pub parameters: Parameters,
    /// Height of this block.
    pub height: u64,
    /// Authority that leads the block.
    pub leader: Account,
    /// Digest of the parent block.
    pub parent: Hash,
    /// Digest of the parent's seed; `None` in the first block of a term.
    pub seed: Option<Hash>,
}

impl BlockContext {
    /// The round of this block's height.
    pub const fn round(&self) -> u64 {
        self.parameters.round(self.height)
    }

    /// The epoch of this block's height.
    pub const fn epoch(&self) -> u64 {
        self.parameters.epoch(self.height)
    }
}

/// How a block runs. A proposer leaves out what would make a verifier reject the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Skip operations that would make the block invalid.
    Propose,
    /// Fail on the first such operation.
    Verify,
}

/// Why a block may be neither built nor voted for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// An operation is malformed or cannot pay its fee, or one outside the paid lane was refused.
    #[error("operation {index} makes the block invalid: {}", code.explain())]
    Operation {
        /// Position of the operation in the body.
        index: usize,
        /// Receipt code that says why.
        code: Code,
    },
    /// A draw differs from the beacon's.
    #[error("draw {index} is not what the beacon drew")]
    Draw {
        /// Position of the draw in the body.
        index: usize,
    },
    /// The block names more records than [`KEYS_MAX`].
    #[error("the block names more than {KEYS_MAX} records")]
    Keys,
    /// The body exceeds its limits on operations, bytes or paid bytes; its lanes are out of order; or an
    /// account has too many reserved operations.
    #[error(
        "the operations do not fit a body: at most {OPERATIONS_MAX}, {BODY_BYTES_MAX} bytes, {PAID_LANE_BYTES} of them paid; storage proofs, reserved ones, upkeep and paid ones in this order; {RESERVED_PER_ACCOUNT} reserved ones of an account"
    )]
    Body,
    /// The state is damaged, or contradicts the rules: no block can be built on it.
    #[error(
        "the state contradicts the rules ({0}); restore this node from a peer, and report this if it stays"
    )]
    State(#[from] Broken),
}

/// The keys that an operation names before it runs.
#[derive(Debug, Default)]
pub struct Touched {
    /// Keys that may be written; the fee counts each.
    pub writable: Vec<Key>,
    /// Keys that may only be read; free.
    pub readable: Vec<Key>,
}

/// The result of running a block.
#[derive(Debug, Default)]
pub struct Outcome {
    /// New slots in key order; `None` deletes the record.
    pub changes: BTreeMap<Key, Option<Slot>>,
    /// Id and code of each kept operation.
    pub receipts: Vec<(Hash, Code)>,
    /// Positions in the input of the operations that were kept; all of them under `Verify`.
    pub kept: Vec<usize>,
    /// Events for users and statistics; not part of the state.
    pub events: Vec<Event>,
}

/// Number of registrations among `operations`.
fn registrations(operations: &[Operation]) -> u32 {
    let count = operations.iter().filter(|o| matches!(o.body, Body::RegisterProvider(_))).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Keys that `count` registrations need and that follow from the parent's `System`: the next indices,
/// the first vacant one, and the newcomers' next places (each draw may free one).
fn shared_keys(system: &System, draws: &[Option<Draw>], count: u32) -> Vec<Key> {
    if count == 0 {
        return Vec::new();
    }
    let freed = u32::try_from(draws.len()).unwrap_or(u32::MAX);
    let indices = system.providers..system.providers.saturating_add(count);
    let places = system.newcomers.saturating_sub(freed)..system.newcomers.saturating_add(count);
    let keys = indices.map(ProviderAt::key).chain(places.map(Newcomer::key));
    keys.chain(system.vacant.map(ProviderAt::key)).collect()
}

/// Keys of the system step: fault findings, books, draws, the round's anchor and the epoch's seeds.
fn touches_system(
    context: &BlockContext,
    system: &System,
    closing_set: &ClosingSet,
    draws: &[Option<Draw>],
) -> Touched {
    let mut touched = Touched::default();
    books::touches(context, system, closing_set, &mut touched);
    service::touches_round(context, &mut touched);
    authority::touches(context, closing_set.seats(), &mut touched);
    let place = context.round() % context.parameters.round_ring;
    touched.writable.push(RoundInfo::key(place));
    faults::touches_round(context, &mut touched);
    audit::touches_draws(context, system, draws, &mut touched);
    capacity::touches_seed(context, &mut touched);
    touched
}

/// Keys that one operation names, including its signer's account. They depend only on the operation, the
/// genesis and the epoch, so a wallet can compute its size by itself. An operation with a field out of
/// range names only that account.
pub fn touches_operation(context: &BlockContext, operation: &Operation) -> Touched {
    let mut touched = Touched::default();
    if !operation.body.is_free() {
        touched.writable.push(AccountState::key(&operation.signer));
    }
    if operation.body.fits(context) {
        operation.body.touches(&operation.signer, context, &mut touched);
    }
    touched
}

/// All keys that the block names, sorted and unique, for one batched read. `system` is the parent's
/// record; its key is included. `closing_set` must have been read before ([`closing_set_keys`]).
///
/// # Errors
/// [`Invalid::Keys`] above [`KEYS_MAX`]; [`Invalid::Operation`] if [`check_structure`] fails.
pub fn touches(
    context: &BlockContext,
    system: &System,
    closing_set: &ClosingSet,
    draws: &[Option<Draw>],
    operations: &[Operation],
) -> Result<Vec<Key>, Invalid> {
    let mut keys: BTreeSet<Key> = shared_keys(system, draws, registrations(operations)).into_iter().collect();
    keys.insert(System::key());
    let mut name = |touched: Touched| {
        keys.extend(touched.writable);
        keys.extend(touched.readable);
        if keys.len() > KEYS_MAX { Err(Invalid::Keys) } else { Ok(()) }
    };
    name(touches_system(context, system, closing_set, draws))?;
    for (index, operation) in operations.iter().enumerate() {
        check_structure(operation, context).map_err(|code| Invalid::Operation { index, code })?;
        name(touches_operation(context, operation))?;
    }
    Ok(keys.into_iter().collect())
}

/// Checks the operations against the limits of a body: their number, bytes and order of lanes, the bytes
/// of the paid lane, and the reserved operations per account (RD-8). Only kinds and sizes matter.
fn check_body(operations: &[Operation]) -> Result<(), Invalid> {
    let (mut all, mut paid) = (0_usize, 0_usize);
    let mut reserved: BTreeMap<Account, usize> = BTreeMap::new();
    for operation in operations {
        let bytes = operation.encode_size();
        all = all.saturating_add(bytes);
        match operation.body.lane() {
            Lane::Paid => paid = paid.saturating_add(bytes),
            Lane::Reserved => *reserved.entry(operation.signer).or_default() += 1,
            Lane::StorageProof | Lane::Upkeep => {}
        }
    }
    let fits = operations.len() <= OPERATIONS_MAX
        && all <= BODY_BYTES_MAX
        && paid <= PAID_LANE_BYTES
        && operations.is_sorted_by_key(|operation| operation.body.lane())
        && reserved.values().all(|count| *count <= RESERVED_PER_ACCOUNT);
    if fits { Ok(()) } else { Err(Invalid::Body) }
}

/// Runs a block on the records that [`touches`] named. It checks structure; signatures must have been
/// verified before, in batches ([`Operation::signatures`]).
///
/// # Errors
/// [`Invalid`] if the block may be neither built nor voted for.
pub fn execute(
    context: &BlockContext,
    draws: &[Option<Draw>],
    operations: &[Operation],
    records: &Records,
    mode: Mode,
) -> Result<Outcome, Invalid> {
    check_body(operations)?;
    let mut working = Working::new(context, records)?;
    let closing_set = ClosingSet::new(context, &working.system, records)?;
    working.begin(touches_system(context, &working.system, &closing_set, draws));
    let shared = shared_keys(&working.system, draws, registrations(operations));
    open_round(&mut working)?;
    service::open_round(&mut working)?;
    faults::judge(&mut working)?;
    capacity::fix_seed(&mut working)?;
    books::close(&mut working, &closing_set)?;
    authority::lead(&mut working)?;
    audit::apply_draws(&mut working, draws)?;
    working.commit();
    working.share(shared);
    let parent = base_fee(&working.system, &context.parameters);
    let (mut outcome, mut paid) = (Outcome::default(), Size::default());
    for (index, operation) in operations.iter().enumerate() {
        match apply(&mut working, parent, operation) {
            Ok((code, size)) => {
                working.commit();
                if operation.body.lane() == Lane::Paid {
                    paid.add(size);
                }
                outcome.kept.push(index);
                outcome.receipts.push((sha256(&operation.encode()), code));
            }
            Err(Halt::Broken(broken)) => return Err(broken.into()),
            Err(Halt::Refused(_)) if mode == Mode::Propose => {}
            Err(Halt::Refused(code)) => return Err(Invalid::Operation { index, code }),
        }
    }
    working.system.base_fee = next_base_fee(parent, floor(&context.parameters), paid);
    Ok(working.finish(outcome))
}

/// The records that [`check_free`] reads, for one free operation.
pub fn touches_free(context: &BlockContext, operation: &Operation) -> Vec<Key> {
    let Touched { writable, readable } = touches_operation(context, operation);
    let mut keys: Vec<Key> = writable.into_iter().chain(readable).chain([System::key()]).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Runs a free operation alone on `records`, those of [`touches_free`], and discards the result. A node does
/// this before the operation may wait, because an operation that can stand in no block costs its author
/// nothing (LE-3).
///
/// # Errors
/// The code of its refusal, `BadShape` for an operation that is not free; [`Broken`] as for a block.
pub fn check_free(context: &BlockContext, operation: &Operation, records: &Records) -> Result<(), Halt> {
    if !operation.body.is_free() {
        return Err(Code::BadShape.into());
    }
    let mut working = Working::new(context, records)?;
    apply(&mut working, 0, operation).map(|_| ())
}

/// Records the anchor of a new round: the parent of its first block. Round 0 begins with block 1.
fn open_round(working: &mut Working<'_>) -> Result<(), Broken> {
    let context = working.context;
    if !context.height.is_multiple_of(context.parameters.round_blocks) && context.height != 1 {
        return Ok(());
    }
    let round = context.round();
    let info = RoundInfo { round, anchor: context.parent, ..RoundInfo::default() };
    working.put(RoundInfo::key(round % context.parameters.round_ring), &info)
}

/// Charges and runs one operation. `Ok` has the receipt's code and the size that was charged. With `Err`
/// the operation may not be in a block, and all its effects are undone.
fn apply(working: &mut Working<'_>, base_fee: u64, operation: &Operation) -> Result<(Code, Size), Halt> {
    check_structure(operation, working.context)?;
    let touched = touches_operation(working.context, operation);
    let size = Size::new(operation, &touched);
    let fee = fee::fee_of(working.context, base_fee, operation.body.lane(), size);
    working.begin(touched);
    let code = match operation.body.lane() {
        Lane::StorageProof | Lane::Upkeep => {
            working.atomically(|w| operation.body.apply(&operation.signer, w))?;
            Code::Done
        }
        Lane::Reserved => {
            working.atomically(|w| {
                account::charge(w, operation, fee)?;
                operation.body.apply(&operation.signer, w)
            })?;
            Code::Done
        }
        Lane::Paid => {
            working.atomically(|w| account::charge(w, operation, fee))?;
            match working.atomically(|w| operation.body.apply(&operation.signer, w)) {
                Ok(()) => Code::Done,
                Err(Halt::Refused(code)) => code,
                Err(broken) => return Err(broken),
            }
        }
    };
    Ok((code, size))
}
