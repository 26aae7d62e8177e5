//! The signed envelope of an operation: its id, and all signatures on which the operation depends.

use super::{Body, OPERATION_NAMESPACE, Operation, SignatureCheck, sign};
use crate::{Account, Amount, Hash, bodies::unsigned, header::sha256, working::BlockContext};
use alloc::vec::Vec;
use bytes::Bytes;
use commonware_codec::Encode;
use commonware_cryptography::{Signer, ed25519};

impl Operation {
    /// Builds and signs an operation.
    pub fn signed(
        key: &ed25519::PrivateKey,
        chain: &Hash,
        nonce: u64,
        max_fee: Amount,
        expires: u64,
        body: Body,
    ) -> Self {
        let signer = Account::of(&key.public_key());
        let mut operation = Self { signer, nonce, max_fee, expires, body, signature: [0; 64] };
        operation.signature = sign(key, OPERATION_NAMESPACE, &operation.signed_bytes(chain));
        operation
    }

    /// The operation's id: SHA-256 of its encoding.
    pub fn id(&self) -> Hash {
        sha256(&self.encode())
    }

    /// Bytes that the envelope's signature covers: chain id and every field before it.
    pub fn signed_bytes(&self, chain: &Hash) -> Bytes {
        unsigned(chain, self, &self.signature)
    }

    /// The most that the operation may take out of its signer's balance, beside the fee, in a block of
    /// `context`'s height or a later one. It reads no record, so it counts the burn for an account that may
    /// exist already, and each price at its bound in the fields.
    pub fn takes(&self, context: &BlockContext) -> Amount {
        self.body.takes(self.expires, context)
    }

    /// All signatures that the operation depends on, its own first.
    pub fn signatures(&self, chain: &Hash) -> Vec<SignatureCheck> {
        let mut checks = alloc::vec![SignatureCheck {
            namespace: OPERATION_NAMESPACE,
            message: self.signed_bytes(chain),
            key: self.signer,
            signature: self.signature,
        }];
        checks.extend(self.body.signatures(&self.signer, chain));
        checks
    }
}
