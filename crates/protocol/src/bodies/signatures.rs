//! Signatures that the body of an operation carries.

use super::{
    CLOSE_NAMESPACE, Close, DATA_SET_NAMESPACE, Evidence, Measure, PROBE_NAMESPACE, ProbeCount,
    REFUSAL_NAMESPACE, Redemption, RefusedPlacement, SetDataSet, VOUCHER_NAMESPACE, Voucher,
};
use crate::{
    Account, AgreementId, Hash, Signature, Units,
    header::{HEADER_NAMESPACE, Header, with_chain},
};
use alloc::vec::Vec;
use bytes::Bytes;
use commonware_codec::{Copying, DecodeExt, Encode};
use commonware_cryptography::{Signer, Verifier, ed25519};

/// One signature that an operation depends on. Verified in batches, once per node.
#[derive(Clone, Debug)]
pub struct SignatureCheck {
    /// Namespace that separates kinds of messages.
    pub namespace: &'static [u8],
    /// Bytes that were signed, without the namespace.
    pub message: Bytes,
    /// Account whose key must have signed.
    pub key: Account,
    /// Raw Ed25519 signature to verify.
    pub signature: Signature,
}

impl SignatureCheck {
    /// Verifies this signature on its own, outside a batch.
    pub fn verify(&self) -> bool {
        let Some(key) = self.key.public_key() else { return false };
        let Ok(signature) = ed25519::Signature::decode(Copying(&self.signature)) else { return false };
        key.verify(self.namespace, &self.message, &signature)
    }
}

/// Signs `message` in `namespace`.
pub fn sign(key: &ed25519::PrivateKey, namespace: &[u8], message: &[u8]) -> Signature {
    let mut bytes = [0; 64];
    bytes.copy_from_slice(key.sign(namespace, message).as_ref());
    bytes
}

impl Close {
    /// The signature of the party that does not send the close.
    pub(crate) fn check(&self, chain: &Hash, sender: &Account) -> SignatureCheck {
        let second = if *sender == self.consumer { self.agreement.provider } else { self.consumer };
        SignatureCheck {
            namespace: CLOSE_NAMESPACE,
            message: with_chain(chain, &(self.agreement, self.last)),
            key: second,
            signature: self.second,
        }
    }
}

impl SetDataSet {
    /// Signatures of both parties; the provider's may be absent.
    pub(crate) fn signatures(&self, chain: &Hash) -> impl Iterator<Item = SignatureCheck> {
        let message = with_chain(chain, &self.claim);
        let consumer = SignatureCheck {
            namespace: DATA_SET_NAMESPACE,
            message: message.clone(),
            key: self.storage_key,
            signature: self.consumer_signature,
        };
        let provider = self.provider_signature.map(|signature| SignatureCheck {
            namespace: DATA_SET_NAMESPACE,
            message,
            key: self.claim.agreement.provider,
            signature,
        });
        core::iter::once(consumer).chain(provider)
    }
}

/// Bytes that are signed of a value whose last field is its signature: the chain id and everything
/// before it.
pub(crate) fn unsigned(chain: &Hash, value: &impl Encode, signature: &Signature) -> Bytes {
    let all = with_chain(chain, value);
    all.slice(..all.len() - signature.len())
}

impl Header {
    /// The leader's signature on the header, ready to verify.
    pub fn check(&self) -> SignatureCheck {
        SignatureCheck {
            namespace: HEADER_NAMESPACE,
            message: self.signed_bytes(),
            key: self.leader,
            signature: self.signature,
        }
    }
}

impl Evidence {
    /// The seat's contradicting signatures. A header carries the chain id itself, a commitment does not.
    pub(crate) fn signatures(&self, chain: &Hash) -> Vec<SignatureCheck> {
        match self {
            Self::Proposals(pair) => pair.headers.iter().map(Header::check).collect(),
            Self::Commitments(pair) => {
                pair.commits.iter().map(|commit| commit.check(chain, pair.seat)).collect()
            }
        }
    }
}

impl RefusedPlacement {
    /// Signs with the provider's key and replaces `self.signature`.
    pub fn signed(mut self, key: &ed25519::PrivateKey, chain: &Hash) -> Self {
        self.signature = sign(key, REFUSAL_NAMESPACE, &unsigned(chain, &self, &self.signature));
        self
    }

    /// The provider's signature, ready to verify.
    pub fn check(&self, chain: &Hash) -> SignatureCheck {
        SignatureCheck {
            namespace: REFUSAL_NAMESPACE,
            message: unsigned(chain, self, &self.signature),
            key: self.provider,
            signature: self.signature,
        }
    }
}

impl ProbeCount {
    /// Signs with the receiver's key and replaces `self.signature`.
    pub fn signed(mut self, key: &ed25519::PrivateKey, chain: &Hash) -> Self {
        self.signature = sign(key, PROBE_NAMESPACE, &unsigned(chain, &self, &self.signature));
        self
    }

    /// The receiver's signature, ready to verify.
    pub fn check(&self, chain: &Hash) -> SignatureCheck {
        SignatureCheck {
            namespace: PROBE_NAMESPACE,
            message: unsigned(chain, self, &self.signature),
            key: self.receiver,
            signature: self.signature,
        }
    }
}

impl Measure {
    /// Signatures of the receivers on their counts.
    pub(crate) fn signatures(&self, chain: &Hash) -> impl Iterator<Item = SignatureCheck> {
        self.counts.iter().map(|(_, count)| count.check(chain))
    }
}

/// The session keys' signatures on vouchers.
pub(crate) fn of_redemptions(
    redemptions: &[Redemption],
    chain: &Hash,
) -> impl Iterator<Item = SignatureCheck> {
    redemptions.iter().map(|redemption| redemption.voucher.check(chain, redemption.session_key))
}

impl Voucher {
    /// Builds a voucher for cumulative units and signs it with the session key.
    pub fn signed(key: &ed25519::PrivateKey, chain: &Hash, agreement: AgreementId, units: Units) -> Self {
        let mut voucher = Self { agreement, units, signature: [0; 64] };
        voucher.signature = sign(key, VOUCHER_NAMESPACE, &voucher.signed_bytes(chain));
        voucher
    }

    /// Bytes that the session key signs: chain id and every field before the signature.
    pub fn signed_bytes(&self, chain: &Hash) -> Bytes {
        unsigned(chain, self, &self.signature)
    }

    /// The voucher's signature, to verify against `key` as its session key.
    pub fn check(&self, chain: &Hash, key: Account) -> SignatureCheck {
        SignatureCheck {
            namespace: VOUCHER_NAMESPACE,
            message: self.signed_bytes(chain),
            key,
            signature: self.signature,
        }
    }
}
