//! The proposer's choice of operations for a block. This is policy; [`super::touches`] and
//! [`super::execute`] check the bounds themselves.

use super::{BlockContext, ClosingSet, check_structure, shared_keys, touches_operation, touches_system};
use crate::{
    Account, Body, Key, Operation,
    block::Draw,
    limits::{
        BODY_BYTES_MAX, FREE_LANE_BYTES, KEYS_MAX, OPERATIONS_MAX, PAID_LANE_BYTES, PAID_LANE_KEYS,
        RESERVED_PER_ACCOUNT,
    },
    operation::Lane,
    record::System,
};
use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use commonware_codec::EncodeSize;

/// Selects from `candidates`, sorted by preference within each lane, those that fit one block. Returns
/// their positions in the order of the block: storage proofs, oldest challenge first; reserved ones, at most
/// two of an account; upkeep; paid ones. The other lanes get their share of the bytes and half of the
/// keys before the paid lane gets the rest, and then also what the paid lane leaves over. A sender's
/// paid operations never overtake each other: once one does not fit, its later ones wait.
pub fn select(
    context: &BlockContext,
    system: &System,
    closing_set: &ClosingSet,
    draws: &[Option<Draw>],
    candidates: &[Operation],
) -> Vec<usize> {
    let mut room = Room::new(context, system, closing_set, draws);
    let (paid, mut others): (Vec<usize>, Vec<usize>) =
        (0..candidates.len()).partition(|place| candidates[*place].body.lane() == Lane::Paid);
    let order = |place: &usize| match &candidates[*place].body {
        Body::StorageProof(storage_proof) => (Lane::StorageProof, storage_proof.height),
        body => (body.lane(), 0),
    };
    others.sort_by_key(|place| candidates[*place].body.lane());
    room.bytes_max = FREE_LANE_BYTES;
    room.keys_max = KEYS_MAX - PAID_LANE_KEYS;
    let (mut chosen, late): (Vec<usize>, Vec<usize>) =
        others.into_iter().partition(|place| room.take(&candidates[*place]));
    room.bytes_max = room.bytes + PAID_LANE_BYTES;
    room.keys_max = KEYS_MAX;
    let mut waiting = BTreeSet::new();
    let paid: Vec<usize> = paid
        .into_iter()
        .filter(|place| {
            let operation = &candidates[*place];
            let fits = !waiting.contains(&operation.signer) && room.take(operation);
            if !fits {
                waiting.insert(operation.signer);
            }
            fits
        })
        .collect();
    room.bytes_max = BODY_BYTES_MAX;
    chosen.extend(late.into_iter().filter(|place| room.take(&candidates[*place])));
    chosen.sort_by_key(order);
    chosen.extend(paid);
    chosen
}

/// The contents of the block so far, and the limits that apply.
struct Room<'a> {
    context: &'a BlockContext,
    system: &'a System,
    draws: &'a [Option<Draw>],
    keys: BTreeSet<Key>,
    keys_max: usize,
    bytes: usize,
    bytes_max: usize,
    count: usize,
    registrations: u32,
    reserved: BTreeMap<Account, usize>,
}

impl<'a> Room<'a> {
    fn new(
        context: &'a BlockContext,
        system: &'a System,
        closing_set: &ClosingSet,
        draws: &'a [Option<Draw>],
    ) -> Self {
        let touched = touches_system(context, system, closing_set, draws);
        let mut keys: BTreeSet<Key> = touched.writable.into_iter().chain(touched.readable).collect();
        keys.insert(System::key());
        Self {
            context,
            system,
            draws,
            keys,
            keys_max: KEYS_MAX,
            bytes: 0,
            bytes_max: BODY_BYTES_MAX,
            count: 0,
            registrations: 0,
            reserved: BTreeMap::new(),
        }
    }

    /// Adds the operation if it is well-formed and fits. Returns true if it was added.
    fn take(&mut self, operation: &Operation) -> bool {
        let bytes = self.bytes + operation.encode_size();
        let is_reserved = operation.body.lane() == Lane::Reserved;
        let reserved = self.reserved.get(&operation.signer).copied().unwrap_or(0) + usize::from(is_reserved);
        let fits = self.count < OPERATIONS_MAX
            && bytes <= self.bytes_max
            && (!is_reserved || reserved <= RESERVED_PER_ACCOUNT);
        if !fits || check_structure(operation, self.context).is_err() {
            return false;
        }
        let touched = touches_operation(self.context, operation);
        let registers = matches!(operation.body, Body::RegisterProvider(_));
        let registrations = self.registrations + u32::from(registers);
        let shared = if registers { shared_keys(self.system, self.draws, registrations) } else { Vec::new() };
        let named = touched.writable.into_iter().chain(touched.readable).chain(shared);
        let new: BTreeSet<Key> = named.filter(|key| !self.keys.contains(key)).collect();
        if self.keys.len() + new.len() > self.keys_max {
            return false;
        }
        self.keys.extend(new);
        (self.bytes, self.registrations) = (bytes, registrations);
        self.count += 1;
        if is_reserved {
            self.reserved.insert(operation.signer, reserved);
        }
        true
    }
}
