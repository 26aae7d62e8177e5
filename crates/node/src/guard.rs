//! The guard around the rules: if they panic, which they never should, the node leaves out or refuses
//! the operation that caused it, logs it, and continues.
//! See `docs/decisions/a-block-that-cannot-be-executed.md`.
//!
//! The rules are functions of their inputs, so a panic in them leaves no half-written state.
//!
//! Invariants
//! 1. A proposer leaves out exactly the operations that panic if there are fewer than [`SPARED_MAX`], and
//!    otherwise proposes none at all: the same operations cannot stop it again and again.
//! 2. Only an operation that was found to panic is remembered. Others that a block left out can be in
//!    the next one.

use commonware_utils::sync::Mutex;
use posync_protocol::{Hash, Operation};
use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Operations that one proposal finds by halving. After the last of them it leaves out all others, too.
const SPARED_MAX: usize = 8;
/// Ids of left-out operations that are remembered; the oldest are dropped first.
const CONDEMNED_MAX: usize = 1024;

/// Runs `work` and catches a panic.
///
/// # Errors
/// The message of the panic.
pub(crate) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|cause| {
        let text = cause.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| cause.downcast_ref::<&str>().copied()).unwrap_or("no message").to_string()
    })
}

/// The index of the first of `items` that makes `work` panic: the last item of the shortest prefix
/// that panics, found by halving. `None` if `work` panics without any item.
pub(crate) fn culprit<I, T>(items: &[I], work: impl Fn(&[I]) -> T) -> Option<usize> {
    let panics = |count: usize| guarded(|| work(&items[..count])).is_err();
    let (mut fine, mut broken) = (0, items.len());
    if panics(0) {
        return None;
    }
    while broken - fine > 1 {
        let middle = fine + (broken - fine) / 2;
        if panics(middle) { broken = middle } else { fine = middle }
    }
    broken.checked_sub(1)
}

/// Runs `work` on `items` and removes the items that make it panic. Returns the result and each removed item
/// with the message of its panic. After [`SPARED_MAX`] of them, `work` runs on no items at all.
///
/// # Errors
/// The message of a panic that occurs without any item.
pub(crate) fn sparing<I, T>(
    items: &mut Vec<I>,
    work: impl Fn(&[I]) -> T,
) -> Result<(T, Vec<(I, String)>), String> {
    let mut spared = Vec::new();
    loop {
        let text = match guarded(|| work(items.as_slice())) {
            Ok(done) => return Ok((done, spared)),
            Err(text) => text,
        };
        let Some(place) = culprit(items, &work) else { return Err(text) };
        spared.push((items.remove(place), text.clone()));
        if spared.len() == SPARED_MAX {
            items.clear();
        }
    }
}

/// Operations on which the rules panicked on this node, which it does not try again.
#[derive(Default)]
pub(crate) struct Condemned(Mutex<VecDeque<Hash>>);

impl Condemned {
    /// Remembers left-out operations, and logs an error for each.
    pub(crate) fn add(&self, height: u64, spared: &[(Operation, String)]) {
        let mut known = self.0.lock();
        for (operation, cause) in spared {
            let id = operation.id();
            tracing::error!(
                height,
                operation = %hex(&id),
                signer = %operation.signer,
                cause,
                "the rules panicked on an operation: it is left out of this node's blocks, and the node goes on; \
                 this is a fault in the rules, report it with the operation's id"
            );
            known.push_back(id);
        }
        while known.len() > CONDEMNED_MAX {
            known.pop_front();
        }
    }

    /// Removes the operations that are known to panic.
    pub(crate) fn filter(&self, operations: &mut Vec<Operation>) {
        let known = self.0.lock();
        if !known.is_empty() {
            operations.retain(|operation| !known.contains(&operation.id()));
        }
    }
}

/// Formats a digest in hexadecimal.
pub(crate) fn hex(hash: &Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use posync_protocol::{Account, Amount, Body, operation::Transfer};

    /// Adds numbers up; panics on multiples of seven, as an overflow would.
    fn sum(items: &[u64]) -> u64 {
        items
            .iter()
            .map(|item| item.checked_rem(item % 7).map_or_else(|| panic!("{item} broke it"), |_| *item))
            .sum()
    }

    #[test]
    fn a_panic_comes_back_as_what_it_said() {
        assert_eq!(guarded(|| 5), Ok(5));
        assert_eq!(guarded(|| sum(&[1, 14])), Err("14 broke it".into()));
        assert_eq!(guarded(|| panic!("plain")), Err::<(), _>("plain".into()));
    }

    #[test]
    fn only_what_panics_is_left_out_wherever_it_stands() {
        for place in 0..40 {
            let mut items: Vec<u64> = (0..40).map(|item| item * 7 + 1).collect();
            items.insert(place, 21);
            assert_eq!(culprit(&items, sum), Some(place));
            let (total, spared) = sparing(&mut items, sum).expect("the rest is fine");
            assert_eq!(spared, [(21, "21 broke it".into())]);
            assert_eq!((items.len(), total), (40, items.iter().sum()));
        }
    }

    #[test]
    fn several_are_left_out_and_too_many_leave_an_empty_list() {
        let mut few: Vec<u64> = vec![1, 7, 2, 14, 3];
        let (total, spared) = sparing(&mut few, sum).expect("the rest is fine");
        assert_eq!((total, few, spared.len()), (6, vec![1, 2, 3], 2));
        let mut many: Vec<u64> = (1..=100).flat_map(|item| [item * 7, item * 7 + 1]).collect();
        let (total, spared) = sparing(&mut many, sum).expect("nothing is left to panic on");
        assert_eq!((total, many.len(), spared.len()), (0, 0, SPARED_MAX));
        assert!(spared.iter().all(|(item, _)| item % 7 == 0), "what is remembered was found");
    }

    #[test]
    fn a_panic_without_any_item_is_told_apart() {
        let always = |_: &[u64]| -> u64 { panic!("the ground broke") };
        assert_eq!(culprit(&[1, 2], always), None);
        assert_eq!(sparing(&mut vec![1, 2], always), Err("the ground broke".into()));
    }

    fn operation(nonce: u64) -> Operation {
        Operation {
            signer: Account([1; 32]),
            nonce,
            max_fee: Amount::ZERO,
            expires: 9,
            body: Body::Transfer(Transfer { to: Account([2; 32]), amount: Amount::ZERO }),
            signature: [0; 64],
        }
    }

    /// If harmless operations were remembered too, those that panic would be dropped and tried again.
    #[test]
    fn what_does_not_panic_is_not_condemned_and_what_does_stays_so() {
        let work = |items: &[Operation]| {
            assert!(items.iter().all(|operation| operation.nonce >= 8), "it broke");
        };
        let all: Vec<Operation> = (0..1_200).map(operation).collect();
        let mut items = all.clone();
        let ((), spared) = sparing(&mut items, work).expect("an empty block is fine");
        let condemned = Condemned::default();
        condemned.add(7, &spared);
        let mut next = all;
        condemned.filter(&mut next);
        assert!(guarded(|| work(&next)).is_ok(), "the same operations stop it again");
        assert_eq!(next.len(), 1_192, "nothing is refused that does not panic");
    }

    #[test]
    fn what_was_left_out_is_not_tried_again_and_the_memory_is_bounded() {
        let condemned = Condemned::default();
        condemned.add(7, &[(operation(1), "overflow".into())]);
        let mut candidates = vec![operation(0), operation(1), operation(2)];
        condemned.filter(&mut candidates);
        assert_eq!(candidates, [operation(0), operation(2)]);
        let many: Vec<_> =
            (2..CONDEMNED_MAX as u64 + 2).map(|nonce| (operation(nonce), String::new())).collect();
        condemned.add(8, &many);
        let mut first = vec![operation(1)];
        condemned.filter(&mut first);
        assert_eq!(first.len(), 1, "the oldest is forgotten");
    }
}
