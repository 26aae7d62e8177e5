//! The checks of an operation that need no read of the ledger.
//!
//! ```text
//!   bytes ──decode──► operation ──structure, fee──► standing ──► signatures, in batches ──► mempool
//!            TooLarge             Expired, BadShape,  (mempool)     BadSignature
//!            Malformed            FeeAboveMaximum
//! ```
//!
//! Signatures come last, and the signer's own before those that the operation carries. So a sender without
//! standing in the state costs a look-up, and one that did not sign costs one signature check.
//!
//! A node verifies a signature once: the mempool knows an operation that passed here by its id, and a block
//! that holds it does not verify it again.

use crate::guard;
use commonware_codec::{Copying, DecodeExt as _, Encode as _};
use commonware_cryptography::{BatchEntry, BatchVerifier as _, ed25519};
use commonware_parallel::Sequential;
use posync_protocol::{
    Code, Halt, Hash, Operation,
    ledger::{self, BlockContext},
    limits::OPERATION_BYTES_MAX,
    operation::check_structure,
};
use rand_core::CryptoRng;

/// Decodes an operation from its only encoding. Bytes beyond the bound are rejected undecoded.
///
/// # Errors
/// `TooLarge`, `Malformed`.
pub(crate) fn decode(bytes: &[u8]) -> Result<Operation, Code> {
    if bytes.len() > OPERATION_BYTES_MAX {
        return Err(Code::TooLarge);
    }
    let operation = Operation::decode(Copying(bytes)).map_err(|_| Code::Malformed)?;
    if operation.encode() == *bytes { Ok(operation) } else { Err(Code::Malformed) }
}

/// Checks an operation's own fields for the next block, whose paid operations pay `base_fee`.
///
/// # Errors
/// `Expired`, `BadShape`, `FeeAboveMaximum`.
pub(crate) fn check(operation: &Operation, next: &BlockContext, base_fee: u64) -> Result<(), Code> {
    guarded(operation, || {
        check_structure(operation, next)?;
        if ledger::fee(next, base_fee, operation) > operation.max_fee {
            Err(Code::FeeAboveMaximum)
        } else {
            Ok(())
        }
    })
}

/// Judges an operation by the rules, and logs it if they panic on it.
///
/// # Errors
/// The error of `work`, or `BadShape` if it panics.
pub(crate) fn guarded<T>(operation: &Operation, work: impl FnOnce() -> Result<T, Code>) -> Result<T, Code> {
    guard::guarded(work).unwrap_or_else(|cause| {
        log_panic(operation, &cause);
        Err(Code::BadShape)
    })
}

fn log_panic(operation: &Operation, cause: &str) {
    let id = guard::hex(&operation.id());
    tracing::error!(operation = id, cause, "the rules panicked on a new operation: it is rejected");
}

/// The code with which an operation is turned away whose rules stopped on the applied state. If the state is
/// broken, logs that: the operation is not at fault, and the next block will fail on it.
pub(crate) fn refusal(operation: &Operation, stopped: Halt) -> Code {
    match stopped {
        Halt::Refused(code) => code,
        Halt::Broken(broken) => {
            let id = guard::hex(&operation.id());
            tracing::error!(
                operation = id,
                %broken,
                "the state contradicts the rules: an operation is rejected, and blocks may fail \
                 on it; restore this node from a peer, and report this if it stays"
            );
            Code::BadShape
        }
    }
}

struct Check {
    namespace: &'static [u8],
    message: bytes::Bytes,
    key: ed25519::PublicKey,
    signature: ed25519::Signature,
}

/// The signatures of an operation that are checked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The signer's own signature.
    Own,
    /// All signatures, including those of the parts that the operation carries.
    All,
}

fn checks(chain: &Hash, operation: &Operation, part: Part) -> Option<Vec<Check>> {
    let decode = |check: posync_protocol::operation::SignatureCheck| {
        Some(Check {
            namespace: check.namespace,
            message: check.message,
            key: check.key.public_key()?,
            signature: ed25519::Signature::decode(Copying(&check.signature)).ok()?,
        })
    };
    let most = if part == Part::Own { 1 } else { usize::MAX };
    operation.signatures(chain).into_iter().take(most).map(decode).collect()
}

fn entry<'a>(_: usize, check: &'a &Check) -> BatchEntry<'a, ed25519::PublicKey> {
    BatchEntry {
        namespace: check.namespace,
        message: &check.message,
        public_key: &check.key,
        signature: &check.signature,
    }
}

/// True if every signature of all operations verifies; they are checked in one batch.
pub(crate) fn verify_all<'a>(
    mut rng: impl CryptoRng,
    chain: &Hash,
    operations: impl IntoIterator<Item = &'a Operation>,
) -> bool {
    let checks: Option<Vec<Vec<Check>>> =
        operations.into_iter().map(|operation| checks(chain, operation, Part::All)).collect();
    let Some(checks) = checks else { return false };
    holds(&mut rng, &checks.iter().flatten().collect::<Vec<_>>())
}

fn holds(rng: &mut impl CryptoRng, batch: &[&Check]) -> bool {
    batch.is_empty() || ed25519::PublicKey::verify_batch(rng, batch, entry, &Sequential)
}

/// Marks the operations whose signatures in that part all verify, in one batch; a bad one among n good ones
/// costs about log n further batches. If the rules panic, each operation is judged alone, and one on which
/// they panic is bad.
pub(crate) fn verify_guarded<'a>(
    mut rng: impl CryptoRng,
    chain: &Hash,
    operations: impl IntoIterator<Item = &'a Operation>,
    part: Part,
) -> Vec<bool> {
    let operations: Vec<&Operation> = operations.into_iter().collect();
    let all = guard::guarded(|| verify(&mut rng, chain, operations.iter().copied(), part));
    all.unwrap_or_else(|_| {
        let mut alone = |operation| {
            guard::guarded(|| verify(&mut rng, chain, [operation], part)).unwrap_or_else(|cause| {
                log_panic(operation, &cause);
                vec![false]
            })
        };
        operations.into_iter().flat_map(&mut alone).collect()
    })
}

/// Marks the operations whose signatures in that part all verify, in one batch.
pub(crate) fn verify<'a>(
    mut rng: impl CryptoRng,
    chain: &Hash,
    operations: impl IntoIterator<Item = &'a Operation>,
    part: Part,
) -> Vec<bool> {
    let checks: Vec<Option<Vec<Check>>> =
        operations.into_iter().map(|operation| checks(chain, operation, part)).collect();
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

#[cfg(test)]
mod tests {
    use super::*;
    use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
    use commonware_utils::TestRng;
    use posync_protocol::{
        Account, AgreementId, Amount, Body, Bounded, Units,
        limits::Parameters,
        operation::{CLOSE_NAMESPACE, Close, Redeem, Redemption, Settle, Transfer, Voucher, sign},
    };

    const CHAIN: Hash = [9; 32];

    fn key(seed: u64) -> PrivateKey {
        PrivateKey::from_seed(seed)
    }

    fn account(seed: u64) -> Account {
        Account::of(&key(seed).public_key())
    }

    fn next() -> BlockContext {
        BlockContext {
            chain: CHAIN,
            parameters: Parameters::LOCAL,
            height: 50,
            leader: Account::default(),
            parent: [0; 32],
            seed: None,
        }
    }

    fn signed(seed: u64, max_fee: Amount, expires: u64, body: Body) -> Operation {
        Operation::signed(&key(seed), &CHAIN, 0, max_fee, expires, body)
    }

    fn pay(seed: u64) -> Operation {
        let body = Body::Transfer(Transfer { to: account(1), amount: Amount::sync(1) });
        signed(seed, Amount::sync(1), 100, body)
    }

    #[test]
    fn an_operation_on_which_the_rules_panic_is_turned_away() {
        let judged = guarded(&pay(1), || -> Result<(), Code> { panic!("it broke") });
        assert_eq!(judged, Err(Code::BadShape));
        assert_eq!(guarded(&pay(1), || Ok(7)), Ok(7));
        assert_eq!(guarded(&pay(1), || Err::<(), _>(Code::Expired)), Err(Code::Expired));
    }

    #[test]
    fn an_operation_that_meets_a_broken_state_is_turned_away_and_a_refusal_keeps_its_code() {
        let broken = posync_protocol::Broken::Missing { what: "System" };
        assert_eq!(refusal(&pay(1), broken.into()), Code::BadShape);
        assert_eq!(refusal(&pay(1), Code::NotDrawn.into()), Code::NotDrawn);
    }

    #[test]
    fn only_the_one_encoding_is_read() {
        let bytes = pay(2).encode();
        assert_eq!(decode(&bytes), Ok(pay(2)));
        assert_eq!(decode(&[]), Err(Code::Malformed));
        assert_eq!(decode(&bytes[1..]), Err(Code::Malformed));
        assert_eq!(decode(&[&bytes[..], &[0]].concat()), Err(Code::Malformed));
        assert_eq!(decode(&vec![0; OPERATION_BYTES_MAX]), Err(Code::Malformed));
        assert_eq!(decode(&vec![0; OPERATION_BYTES_MAX + 1]), Err(Code::TooLarge));
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]), Err(Code::Malformed), "cut at {cut}");
        }
    }

    #[test]
    fn codes_in_their_order() {
        let last = 50 + Parameters::LOCAL.expiry_blocks_max;
        let base_fee = 1_000;
        let fee = ledger::fee(&next(), base_fee, &pay(2));
        let with = |max_fee, expires| signed(2, max_fee, expires, pay(2).body);
        let settle =
            Settle { provider: account(3), index: 0, slots: Bounded::default(), endings: Bounded::default() };
        let free = |nonce, max_fee| {
            Operation::signed(&key(2), &CHAIN, nonce, max_fee, 100, Body::Settle(settle.clone()))
        };
        let short = fee.checked_sub(Amount::new(1).expect("small")).expect("a fee is positive");
        let table = [
            ("good", with(fee, 100), Ok(())),
            ("the last height", with(fee, 50), Ok(())),
            ("one too late", with(fee, 49), Err(Code::Expired)),
            ("as far ahead as may be", with(fee, last), Ok(())),
            ("one too far", with(fee, last + 1), Err(Code::Expired)),
            ("expired before short", with(short, 49), Err(Code::Expired)),
            ("a grain short", with(short, 100), Err(Code::FeeAboveMaximum)),
            ("free", free(0, Amount::ZERO), Ok(())),
            ("free with a nonce", free(1, Amount::ZERO), Err(Code::BadShape)),
            ("free with a fee", free(0, fee), Err(Code::BadShape)),
        ];
        for (name, operation, verdict) in table {
            assert_eq!(check(&operation, &next(), base_fee), verdict, "{name}");
        }
    }

    fn redeem(good: bool) -> Operation {
        let agreement = AgreementId { provider: account(2), slot: 0, opened: 1 };
        let voucher = Voucher::signed(&key(5), &CHAIN, agreement, Units::egress(10));
        let session_key = if good { account(5) } else { account(6) };
        let redemption = Redemption { voucher, session_key, claim: None };
        let body = Body::Redeem(Redeem { vouchers: Bounded::new(vec![redemption; 3]).expect("few") });
        signed(2, Amount::sync(1), 100, body)
    }

    fn close(good: bool) -> Operation {
        let agreement = AgreementId { provider: account(3), slot: 0, opened: 1 };
        let message = posync_protocol::block::with_chain(&CHAIN, &(agreement, 100u64));
        let second = sign(&key(if good { 3 } else { 4 }), CLOSE_NAMESPACE, &message);
        let close = Close { agreement, consumer: account(2), end_epoch: 5, index: 0, last: 100, second };
        signed(2, Amount::sync(1), 100, Body::Close(close))
    }

    /// All bad operations among good ones are found, and only those.
    #[test]
    fn a_batch_tells_bad_from_good() {
        let forged = |seed| Operation { nonce: 1, ..pay(seed) };
        let no_key = (0..=u8::MAX).map(|b| Account([b; 32])).find(|account| account.public_key().is_none());
        let nobody = Operation { signer: no_key.expect("half of all strings are no points"), ..pay(1) };
        let other = Operation::signed(&key(1), &[1; 32], 0, Amount::sync(1), 100, pay(1).body);
        let mixed = vec![
            (pay(1), true),
            (forged(2), false),
            (redeem(true), true),
            (redeem(false), false),
            (close(true), true),
            (close(false), false),
            (nobody, false),
            (other, false),
            (pay(7), true),
        ];
        for start in 0..mixed.len() {
            let rotated: Vec<_> = mixed[start..].iter().chain(&mixed[..start]).collect();
            let operations = rotated.iter().map(|(operation, _)| operation);
            let expected: Vec<bool> = rotated.iter().map(|(_, good)| *good).collect();
            assert_eq!(
                verify(TestRng::new(1), &CHAIN, operations.clone(), Part::All),
                expected,
                "from {start}"
            );
            assert!(!verify_all(TestRng::new(1), &CHAIN, operations));
            let singly: Vec<bool> = rotated
                .iter()
                .map(|(operation, _)| operation.signatures(&CHAIN).iter().all(|check| check.verify()))
                .collect();
            assert_eq!(singly, expected, "a batch and single checks agree");
        }
        let own = verify(TestRng::new(1), &CHAIN, mixed.iter().map(|(operation, _)| operation), Part::Own);
        assert_eq!(own, [true, false, true, true, true, true, false, false, true], "only the signer's own");
        let good: Vec<Operation> = (0..100).map(pay).chain([redeem(true), close(true)]).collect();
        assert!(verify(TestRng::new(1), &CHAIN, &good, Part::All).iter().all(|good| *good));
        assert!(verify_all(TestRng::new(1), &CHAIN, &good));
        assert!(
            verify(TestRng::new(1), &CHAIN, [], Part::All).is_empty()
                && verify_all(TestRng::new(1), &CHAIN, [])
        );
    }
}
