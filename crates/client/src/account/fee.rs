//! The fee that an operation offers for its place in a block.

use commonware_cryptography::ed25519::PrivateKey;
use posync_protocol::{
    Account, Amount, Body, Hash, Operation,
    ledger::{self, BlockContext},
    limits::{MEMPOOL_REPLACE_PERCENT, Parameters},
};

/// Factor by which the highest fee of an operation exceeds the fee at today's base fee. Twelve full
/// blocks raise the base fee as much.
pub(super) const FEE_MARGIN: u128 = 4;

/// The context that fees are computed with at a height; leader, parent and seed play no part in a fee.
pub const fn paying(chain: Hash, parameters: Parameters, height: u64) -> BlockContext {
    BlockContext { chain, parameters, height, leader: Account([0; 32]), parent: [0; 32], seed: None }
}

/// Signs an operation that may be charged `margin` times its fee at `base_fee` in `context`.
pub fn sign_paying(
    key: &PrivateKey,
    context: &BlockContext,
    base_fee: u64,
    margin: u128,
    nonce: u64,
    expires: u64,
    body: &Body,
) -> Operation {
    let sign = |fee| Operation::signed(key, &context.chain, nonce, fee, expires, body.clone());
    let fee = ledger::fee(context, base_fee, &sign(Amount::ZERO)).grains().saturating_mul(margin);
    sign(Amount::new(fee).unwrap_or(Amount::MAX))
}

/// Signs a paid operation again if it offers less than its fee at `base_fee`. The nonce stays the same, so
/// at most one of the two is ever included, and the offer rises by enough for nodes to replace the first.
/// Returns `None` if the first offers enough.
pub(crate) fn outbid(
    key: &PrivateKey,
    context: &BlockContext,
    base_fee: u64,
    expires: u64,
    operation: &Operation,
) -> Option<Operation> {
    let offered = operation.max_fee;
    if !operation.body.has_nonce() || ledger::fee(context, base_fee, operation) <= offered {
        return None;
    }
    let expires = expires.max(operation.expires);
    let raised = sign_paying(key, context, base_fee, FEE_MARGIN, operation.nonce, expires, &operation.body);
    let least = offered.grains().saturating_mul(MEMPOOL_REPLACE_PERCENT).div_ceil(100);
    (raised.max_fee.grains() >= least).then_some(raised)
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonware_cryptography::Signer as _;
    use posync_protocol::operation::Transfer;

    /// Returns a key, a context, and a payment under nonce 7 that offers four times its fee at base fee 100.
    fn waiting() -> (PrivateKey, BlockContext, Operation) {
        let (key, context) = (PrivateKey::from_seed(1), paying([9; 32], Parameters::LOCAL, 50));
        let body = Body::Transfer(Transfer { to: Account([2; 32]), amount: Amount::sync(1) });
        let operation = sign_paying(&key, &context, 100, FEE_MARGIN, 7, 90, &body);
        (key, context, operation)
    }

    #[test]
    fn what_offers_too_little_is_signed_again_under_its_nonce_for_a_tenth_more_at_least() {
        let (key, context, operation) = waiting();
        for base_fee in [0, 100, 400] {
            assert_eq!(outbid(&key, &context, base_fee, 120, &operation), None, "it pays {base_fee}");
        }
        let mut last = operation.clone();
        for base_fee in [401, 1_700, 6_900, 1 << 40] {
            let raised = outbid(&key, &context, base_fee, 120, &last).expect("it offers too little");
            assert_eq!((raised.nonce, &raised.body, raised.expires), (7, &operation.body, 120));
            assert!(raised.max_fee.grains() * 100 >= last.max_fee.grains() * MEMPOOL_REPLACE_PERCENT);
            assert!(raised.max_fee >= ledger::fee(&context, base_fee, &raised));
            assert_eq!(outbid(&key, &context, base_fee, 120, &raised), None, "once for a base fee");
            last = raised;
        }
        // It expires no earlier than the first; else the nonce could be reused while the first may be
        // included.
        let raised = outbid(&key, &context, 401, 60, &operation).expect("it offers too little");
        assert_eq!(raised.expires, 90);
    }

    #[test]
    fn what_cannot_offer_a_tenth_more_or_is_free_is_not_signed_again() {
        let (key, context, operation) = waiting();
        let most = Operation { max_fee: Amount::MAX, ..operation };
        assert_eq!(outbid(&key, &context, u64::MAX, 120, &most), None);
        let settle = posync_protocol::operation::Settle {
            provider: Account([3; 32]),
            index: 0,
            slots: posync_protocol::Bounded::default(),
            endings: posync_protocol::Bounded::default(),
        };
        let free = sign_paying(&key, &context, 100, 0, 0, 90, &Body::Settle(settle));
        assert_eq!(outbid(&key, &context, u64::MAX, 120, &free), None);
    }
}
