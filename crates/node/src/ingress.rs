//! The door: what can be told wrong about an operation without reading the ledger.
//!
//! ```text
//!   bytes ──decode──► operation ──structure, fee──► signatures, in one batch with its neighbours ──► mempool
//!            TooLarge             Expired, BadShape,             BadSignature
//!            Malformed            FeeAboveMaximum
//! ```
//!
//! A signature is verified once per node: whoever comes
//! through here is known to the mempool by its id, and a block that brings it is not verified again.

use commonware_codec::{Copying, DecodeExt as _, Encode as _};
use commonware_cryptography::{BatchEntry, BatchVerifier as _, ed25519};
use commonware_parallel::Sequential;
use posync_protocol::{
    Code, Hash, Operation,
    ledger::{self, BlockContext},
    limits::OPERATION_BYTES_MAX,
    operation::check_structure,
};
use rand_core::CryptoRng;

/// Reads an operation from its only encoding. What is too large is not read at all.
///
/// # Errors
/// `TooLarge`, `Malformed`.
pub fn decode(bytes: &[u8]) -> Result<Operation, Code> {
    if bytes.len() > OPERATION_BYTES_MAX {
        return Err(Code::TooLarge);
    }
    let operation = Operation::decode(Copying(bytes)).map_err(|_| Code::Malformed)?;
    if operation.encode() == *bytes { Ok(operation) } else { Err(Code::Malformed) }
}

/// Checks what the operation says of itself for the next block.
///
/// # Errors
/// `Expired`, `BadShape`, `FeeAboveMaximum`.
pub fn check(operation: &Operation, next: &BlockContext) -> Result<(), Code> {
    check_structure(operation, next)?;
    if ledger::fee(next, operation) > operation.max_fee { Err(Code::FeeAboveMaximum) } else { Ok(()) }
}

struct Check {
    namespace: &'static [u8],
    message: bytes::Bytes,
    key: ed25519::PublicKey,
    signature: ed25519::Signature,
}

fn checks(chain: &Hash, operation: &Operation) -> Option<Vec<Check>> {
    let decode = |check: posync_protocol::operation::SignatureCheck| {
        Some(Check {
            namespace: check.namespace,
            message: check.message,
            key: check.key.public_key()?,
            signature: ed25519::Signature::decode(Copying(&check.signature)).ok()?,
        })
    };
    operation.signatures(chain).into_iter().map(decode).collect()
}

fn entry<'a>(_: usize, check: &'a &Check) -> BatchEntry<'a, ed25519::PublicKey> {
    BatchEntry {
        namespace: check.namespace,
        message: &check.message,
        public_key: &check.key,
        signature: &check.signature,
    }
}

/// Whether every signature of all operations verifies, in one batch.
pub fn verify_all<'a>(
    mut rng: impl CryptoRng,
    chain: &Hash,
    operations: impl IntoIterator<Item = &'a Operation>,
) -> bool {
    let checks: Option<Vec<Vec<Check>>> =
        operations.into_iter().map(|operation| checks(chain, operation)).collect();
    let Some(checks) = checks else { return false };
    holds(&mut rng, &checks.iter().flatten().collect::<Vec<_>>())
}

fn holds(rng: &mut impl CryptoRng, batch: &[&Check]) -> bool {
    batch.is_empty() || ed25519::PublicKey::verify_batch(rng, batch, entry, &Sequential)
}

/// Which of the operations carry only signatures that verify, in one batch; a bad one among n good
/// ones costs about log n batches more.
pub fn verify<'a>(
    mut rng: impl CryptoRng,
    chain: &Hash,
    operations: impl IntoIterator<Item = &'a Operation>,
) -> Vec<bool> {
    let checks: Vec<Option<Vec<Check>>> =
        operations.into_iter().map(|operation| checks(chain, operation)).collect();
    let mut good = vec![false; checks.len()];
    let decoded: Vec<usize> = (0..checks.len()).filter(|index| checks[*index].is_some()).collect();
    let mut open = vec![decoded];
    while let Some(indices) = open.pop() {
        let batch: Vec<&Check> = indices.iter().flat_map(|index| checks[*index].iter().flatten()).collect();
        if holds(&mut rng, &batch) {
            indices.iter().for_each(|index| good[*index] = true);
        } else if indices.len() > 1 {
            let (left, right) = indices.split_at(indices.len() / 2);
            open.extend([left.to_vec(), right.to_vec()]);
        }
    }
    good
}
