//! The operations of an example's blocks: one account pays another.

use commonware_cryptography::{Signer as _, ed25519};
use posync_node::handle::Operations;
use posync_protocol::{Account, Amount, Body, Hash, Operation, ledger::BlockContext, operation::Transfer};
use std::sync::atomic::{AtomicU64, Ordering};

/// One account that pays another whenever a block is requested.
pub(crate) struct Load {
    transfers: u64,
    chain: Hash,
    nonce: AtomicU64,
}

impl Load {
    /// A load of that many transfers a block.
    pub(crate) const fn new(transfers: u64, chain: Hash) -> Self {
        Self { transfers, chain, nonce: AtomicU64::new(0) }
    }
}

/// Key of the account that pays.
pub(crate) fn payer() -> ed25519::PrivateKey {
    ed25519::PrivateKey::from_seed(1)
}

impl Operations for Load {
    fn candidates(&self, context: &BlockContext, _: u64) -> Vec<Operation> {
        let first = self.nonce.load(Ordering::Relaxed);
        let transfer = |nonce| {
            let body = Body::Transfer(Transfer { to: Account([9; 32]), amount: Amount::sync(1) });
            Operation::signed(&payer(), &self.chain, nonce, Amount::sync(1), context.height + 100, body)
        };
        (first..first + self.transfers).map(transfer).collect()
    }

    fn finalized(&self, _: u64, operations: &[Operation]) {
        if let Some(last) = operations.last() {
            self.nonce.fetch_max(last.nonce + 1, Ordering::Relaxed);
        }
    }
}
