//! Which operations go into a block: bytes, keys and lanes. Policy of the proposer; the bounds
//! themselves are checked by [`super::touches`] and [`super::execute`].

use super::{BlockContext, Roster, check_structure, shared_keys, touches_operation, touches_system};
use crate::{
    Body, Key, Operation,
    block::Draw,
    limits::{BODY_BYTES_MAX, FREE_LANE_BYTES, KEYS_MAX, OPERATIONS_MAX},
    record::System,
};
use alloc::{collections::BTreeSet, vec::Vec};
use commonware_codec::EncodeSize;

/// Chooses from `candidates`, given in the order of preference, what one block can hold, and
/// returns their places in the order of the block: statements, oldest challenge first, then the
/// other free ones, then the paid ones. Free operations get their lane and half of the keys
/// before the paid ones get the rest; what those leave over, free ones may fill too. A sender's
/// later operation never overtakes an earlier one: once one does not fit, its others wait.
pub fn select(
    context: &BlockContext,
    system: &System,
    roster: &Roster,
    draws: &[Option<Draw>],
    candidates: &[Operation],
) -> Vec<usize> {
    let mut room = Room::new(context, system, roster, draws);
    let (mut free, paid): (Vec<usize>, Vec<usize>) =
        (0..candidates.len()).partition(|place| candidates[*place].body.is_free());
    free.sort_by_key(|place| match &candidates[*place].body {
        Body::Statement(statement) => (0, statement.height),
        _ => (1, 0),
    });
    room.bytes_max = FREE_LANE_BYTES;
    room.keys_max = KEYS_MAX / 2;
    let (mut chosen, late): (Vec<usize>, Vec<usize>) =
        free.into_iter().partition(|place| room.take(&candidates[*place]));
    room.bytes_max = room.bytes + (BODY_BYTES_MAX - FREE_LANE_BYTES);
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
    chosen.extend(paid);
    chosen
}

/// What a block holds so far, and what it may hold.
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
}

impl<'a> Room<'a> {
    fn new(
        context: &'a BlockContext,
        system: &'a System,
        roster: &Roster,
        draws: &'a [Option<Draw>],
    ) -> Self {
        let touched = touches_system(context, system, roster, draws);
        let mut keys: BTreeSet<Key> = touched.writable.into_iter().chain(touched.readable).collect();
        keys.insert(System::key());
        let (keys_max, bytes_max) = (KEYS_MAX, BODY_BYTES_MAX);
        Self { context, system, draws, keys, keys_max, bytes: 0, bytes_max, count: 0, registrations: 0 }
    }

    /// Takes the operation if it is well formed and fits.
    fn take(&mut self, operation: &Operation) -> bool {
        let bytes = self.bytes + operation.encode_size();
        let fits = self.count < OPERATIONS_MAX && bytes <= self.bytes_max;
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
        true
    }
}
