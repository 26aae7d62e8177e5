//! A block's work: name the records, then execute over them, all or nothing per operation.
//!
//! ```text
//!   roster_keys -> Roster               who stands, or has a seat, where this block closes the books
//!   touches(op) -> keys, bounded        one batched read by the node
//!   execute: round anchor -> books -> leader's credit -> draws -> operations in order -> System
//!            each operation: charge its fee, run on an overlay, keep it or drop it whole
//! ```
//!
//! Invariants
//! 1. A refused operation leaves only its fee and its nonce behind (LE-2).
//! 2. An operation whose fee cannot be charged, or one outside the paid lane that is refused, makes
//!    the block invalid: a proposer leaves it out ([`Mode::Propose`]), a verifier rejects
//!    ([`Mode::Verify`]) (LE-3).
//! 3. An operation reads and writes only records that it named itself (LE-1), and names a number
//!    that its bytes bound (LE-4).

mod event;
mod fee;
mod select;
mod working;

pub use crate::books::{Roster, roster_keys};
pub use event::{AgreementChange, Event, StandingReason, StandingStep};
pub use fee::{Size, base_fee, fee, floor, next_base_fee};
pub use select::select;
pub use working::Working;

use crate::{
    Account, Body, Code, Hash, Key, Operation, Slot, account, agreement, audit, authority,
    block::{Draw, sha256},
    books, capacity, data_set, faults,
    limits::{BODY_BYTES_MAX, KEYS_MAX, OPERATIONS_MAX, PAID_LANE_BYTES, Parameters, RESERVED_PER_ACCOUNT},
    operation::{Lane, body_fits, check_structure},
    provider,
    record::{AccountState, Newcomer, ProviderAt, RoundInfo, System},
    service, settlement, standing, statement,
};
use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use commonware_codec::{Encode, EncodeSize};

/// Records read for a block: a named key that is absent from state maps to `None`.
pub type Records = BTreeMap<Key, Option<Slot>>;

/// What a block knows of itself before it runs.
#[derive(Clone, Debug)]
pub struct BlockContext {
    /// SHA-256 of the genesis.
    pub chain: Hash,
    /// Genesis parameters.
    pub parameters: Parameters,
    /// This block's height.
    pub height: u64,
    /// Who leads it.
    pub leader: Account,
    /// The parent's digest.
    pub parent: Hash,
    /// Digest of the parent's seed, `None` in the first block of a term.
    pub seed: Option<Hash>,
}

impl BlockContext {
    /// This block's round.
    pub const fn round(&self) -> u64 {
        self.parameters.round(self.height)
    }

    /// This block's epoch.
    pub const fn epoch(&self) -> u64 {
        self.parameters.epoch(self.height)
    }
}

/// Who runs the block: a proposer leaves out what a verifier would reject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Drop operations that would make the block invalid.
    Propose,
    /// Fail on them.
    Verify,
}

/// Why a block is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// An operation could not pay, or one outside the paid lane was refused.
    #[error("operation {index} makes the block invalid: {}", code.explain())]
    Operation {
        /// Its place.
        index: usize,
        /// Why.
        code: Code,
    },
    /// The draws are not those of the beacon.
    #[error("draw {index} is not what the beacon drew")]
    Draw {
        /// Its place.
        index: usize,
    },
    /// More records than a block may name.
    #[error("the block names more than {KEYS_MAX} records")]
    Keys,
    /// More operations, more bytes, or more bytes of paid operations than a body may hold; lanes out
    /// of order; or too many reserved operations of one account.
    #[error(
        "the operations do not fit a body: at most {OPERATIONS_MAX}, {BODY_BYTES_MAX} bytes, {PAID_LANE_BYTES} of them paid; statements, reserved ones, upkeep and paid ones in this order; {RESERVED_PER_ACCOUNT} reserved ones of an account"
    )]
    Body,
    /// A slot does not decode: the state is damaged.
    #[error("a record of the state does not decode; restore this node from a peer")]
    State,
}

/// The records that an operation names.
#[derive(Debug, Default)]
pub struct Touched {
    /// May change; each is charged.
    pub writable: Vec<Key>,
    /// Only read.
    pub readable: Vec<Key>,
}

/// What a block does to the state.
#[derive(Debug, Default)]
pub struct Outcome {
    /// New slots, `None` to delete, in key order.
    pub changes: BTreeMap<Key, Option<Slot>>,
    /// Id and code of each kept operation.
    pub receipts: Vec<(Hash, Code)>,
    /// Places (in the input) of the operations that were kept; all of them under `Verify`.
    pub kept: Vec<usize>,
    /// What happened, for people and books; not part of the state.
    pub events: Vec<Event>,
}

/// Registrations among `operations`.
fn registrations(operations: &[Operation]) -> u32 {
    let count = operations.iter().filter(|o| matches!(o.body, Body::RegisterProvider(_))).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The records that `count` registrations need and that follow from the parent's `System`: the
/// next indices, the first vacant one, and the newcomers' next places (each draw may free one).
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

/// The records of the system step: the round's anchor, the books and the draws.
fn touches_system(
    context: &BlockContext,
    system: &System,
    roster: &Roster,
    draws: &[Option<Draw>],
) -> Touched {
    let mut touched = Touched::default();
    books::touches(context, system, roster, &mut touched);
    service::touches_round(context, &mut touched);
    authority::touches(context, roster.seats(), &mut touched);
    let place = context.round() % context.parameters.round_ring;
    touched.writable.push(RoundInfo::key(place));
    faults::touches_round(context, &mut touched);
    audit::touches_draws(context, system, draws, &mut touched);
    capacity::touches_seed(context, &mut touched);
    touched
}

/// The records that one operation names, its signer's account included. Depends on nothing but
/// the operation, the genesis and the epoch, so that a wallet computes its size alone. An operation
/// whose fields are out of range names no more than that account.
pub fn touches_operation(context: &BlockContext, operation: &Operation) -> Touched {
    let mut touched = Touched::default();
    if !operation.body.is_free() {
        touched.writable.push(AccountState::key(&operation.signer));
    }
    if !body_fits(&operation.body, context) {
        return touched;
    }
    let signer = &operation.signer;
    match &operation.body {
        Body::Transfer(body) => account::touches(body, &mut touched),
        Body::RegisterProvider(_) => provider::touches_register(signer, &mut touched),
        Body::UpdateProvider(body) => provider::touches_update(context, signer, body, &mut touched),
        Body::Open(body) => agreement::touches_open(body, &mut touched),
        Body::TopUp(body) => agreement::touches_top_up(body, &mut touched),
        Body::Close(body) => agreement::touches_close(body, &mut touched),
        Body::CloseAlone(body) => agreement::touches_close_alone(body, &mut touched),
        Body::RotateKey(body) => agreement::touches_rotate(body, &mut touched),
        Body::SetDataSet(body) => data_set::touches(body, &mut touched),
        Body::Statement(body) => statement::touches(context, signer, body, &mut touched),
        Body::Redeem(body) => agreement::touches_redeem(context, signer, &body.vouchers, &mut touched),
        Body::Settle(body) => settlement::touches(context, signer, body, &mut touched),
        Body::Refusal(body) => provider::touches_cut(body, &mut touched),
        Body::Unjail(_) => standing::touches_unjail(signer, &mut touched),
        Body::AuditCommit(body) => service::touches_commit(signer, body, &mut touched),
        Body::AuditReveal(body) => service::touches_reveal(signer, body, &mut touched),
        Body::Evidence(body) => authority::touches_evidence(body, &context.parameters, &mut touched),
        Body::Measure(body) => capacity::touches(signer, body, &mut touched),
    }
    touched
}

/// Every record that the block names, sorted and unique, for one batched read. `system` is the
/// parent's; its own key is among them. `roster` is read before ([`roster_keys`]).
///
/// # Errors
/// [`Invalid::Keys`] above [`KEYS_MAX`]; [`Invalid::Operation`] for one whose structure is wrong.
pub fn touches(
    context: &BlockContext,
    system: &System,
    roster: &Roster,
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
    name(touches_system(context, system, roster, draws))?;
    for (index, operation) in operations.iter().enumerate() {
        check_structure(operation, context).map_err(|code| Invalid::Operation { index, code })?;
        name(touches_operation(context, operation))?;
    }
    Ok(keys.into_iter().collect())
}

/// Operations fit a body: their number, their bytes, the order of the lanes, and what the paid lane
/// and an account in the reserved lane may hold (RD-8). Kinds alone decide.
fn check_body(operations: &[Operation]) -> Result<(), Invalid> {
    let (mut all, mut paid) = (0_usize, 0_usize);
    let mut reserved: BTreeMap<Account, usize> = BTreeMap::new();
    for operation in operations {
        let bytes = operation.encode_size();
        all = all.saturating_add(bytes);
        match operation.body.lane() {
            Lane::Paid => paid = paid.saturating_add(bytes),
            Lane::Reserved => *reserved.entry(operation.signer).or_default() += 1,
            Lane::Statement | Lane::Upkeep => {}
        }
    }
    let fits = operations.len() <= OPERATIONS_MAX
        && all <= BODY_BYTES_MAX
        && paid <= PAID_LANE_BYTES
        && operations.is_sorted_by_key(|operation| operation.body.lane())
        && reserved.values().all(|count| *count <= RESERVED_PER_ACCOUNT);
    if fits { Ok(()) } else { Err(Invalid::Body) }
}

/// Runs a block on the records that [`touches`] named. Structure is checked here, signatures
/// were checked before, in batches ([`Operation::signatures`]).
///
/// # Errors
/// [`Invalid`]: the block may not be built or voted for.
pub fn execute(
    context: &BlockContext,
    draws: &[Option<Draw>],
    operations: &[Operation],
    records: &Records,
    mode: Mode,
) -> Result<Outcome, Invalid> {
    check_body(operations)?;
    let mut working = Working::new(context, records)?;
    let roster = Roster::new(context, &working.system, records)?;
    working.begin(touches_system(context, &working.system, &roster, draws));
    let shared = shared_keys(&working.system, draws, registrations(operations));
    open_round(&mut working).map_err(|_| Invalid::State)?;
    service::open_round(&mut working).map_err(|_| Invalid::State)?;
    faults::judge(&mut working).map_err(|_| Invalid::State)?;
    capacity::fix_seed(&mut working).map_err(|_| Invalid::State)?;
    books::close(&mut working, &roster).map_err(|_| Invalid::State)?;
    authority::lead(&mut working).map_err(|_| Invalid::State)?;
    audit::apply_draws(&mut working, draws)?;
    working.check_sound()?;
    working.commit();
    working.share(shared);
    let parent = base_fee(&working.system, &context.parameters);
    let (mut outcome, mut paid) = (Outcome::default(), Size::default());
    for (index, operation) in operations.iter().enumerate() {
        let result = apply(&mut working, parent, operation);
        working.check_sound()?;
        match result {
            Ok((code, size)) => {
                working.commit();
                if operation.body.lane() == Lane::Paid {
                    paid.add(size);
                }
                outcome.kept.push(index);
                outcome.receipts.push((sha256(&operation.encode()), code));
            }
            Err(_) if mode == Mode::Propose => {}
            Err(code) => return Err(Invalid::Operation { index, code }),
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

/// Runs a free operation alone on `records`, those of [`touches_free`], and keeps nothing of it: what a
/// node does before it lets the operation wait, because one that may stand in no block costs its author
/// nothing (LE-3).
///
/// # Errors
/// The code of its refusal; `BadShape` for an operation that is not free, or records without `System`.
pub fn check_free(context: &BlockContext, operation: &Operation, records: &Records) -> Result<(), Code> {
    if !operation.body.is_free() {
        return Err(Code::BadShape);
    }
    let mut working = Working::new(context, records).map_err(|_| Code::BadShape)?;
    apply(&mut working, 0, operation).map(|_| ())
}

/// The first block of a round fixes the round's anchor: its parent. (Round 0 begins after genesis.)
fn open_round(working: &mut Working<'_>) -> Result<(), Code> {
    let context = working.context;
    if !context.height.is_multiple_of(context.parameters.round_blocks) && context.height != 1 {
        return Ok(());
    }
    let round = context.round();
    let info = RoundInfo { round, anchor: context.parent, ..RoundInfo::default() };
    working.put(RoundInfo::key(round % context.parameters.round_ring), &info)
}

/// Charges and runs one operation. `Ok`: it stands in the block with that receipt.
/// `Err(code)`: it may not stand in a block, and nothing of it stays.
fn apply(working: &mut Working<'_>, base_fee: u64, operation: &Operation) -> Result<(Code, Size), Code> {
    check_structure(operation, working.context)?;
    let touched = touches_operation(working.context, operation);
    let size = Size::new(operation, &touched);
    let fee = fee::fee_of(working.context, base_fee, operation.body.lane(), size);
    working.begin(touched);
    let code = match operation.body.lane() {
        Lane::Statement | Lane::Upkeep => {
            working.atomically(|w| dispatch(w, operation))?;
            Code::Done
        }
        Lane::Reserved => {
            working.atomically(|w| {
                account::charge(w, operation, fee)?;
                dispatch(w, operation)
            })?;
            Code::Done
        }
        Lane::Paid => {
            working.atomically(|w| account::charge(w, operation, fee))?;
            working.atomically(|w| dispatch(w, operation)).err().unwrap_or(Code::Done)
        }
    };
    Ok((code, size))
}

fn dispatch(working: &mut Working<'_>, operation: &Operation) -> Result<(), Code> {
    let signer = &operation.signer;
    match &operation.body {
        Body::Transfer(body) => account::transfer(working, signer, body),
        Body::RegisterProvider(body) => provider::register(working, signer, body),
        Body::UpdateProvider(body) => provider::update(working, signer, body),
        Body::Open(body) => agreement::open(working, signer, body),
        Body::TopUp(body) => agreement::top_up(working, signer, body),
        Body::Close(body) => agreement::close(working, signer, body),
        Body::CloseAlone(body) => agreement::close_alone(working, signer, body),
        Body::RotateKey(body) => agreement::rotate(working, signer, body),
        Body::SetDataSet(body) => data_set::apply(working, body),
        Body::Statement(body) => statement::apply(working, signer, body),
        Body::Redeem(body) => agreement::redeem(working, &body.vouchers).map(|_| ()),
        Body::Settle(body) => settlement::apply(working, signer, body),
        Body::Refusal(body) => provider::cut(working, body),
        Body::Unjail(body) => standing::unjail(working, signer, body),
        Body::AuditCommit(body) => service::commit(working, signer, body),
        Body::AuditReveal(body) => service::reveal(working, signer, body),
        Body::Evidence(body) => authority::apply(working, signer, body),
        Body::Measure(body) => capacity::measure(working, signer, body),
    }
}
