//! Marks: a random number of a member's directory for one attempt, signed by the member.
//!
//! A directory that was made anew has another mark. Members that began remember the marks of the others, so a
//! member that lost its attempt learns it from them. The signature keeps one member from inventing a mark of
//! another one, and so from ending its attempt.

use crate::engine::PrivateKey;
use bytes::BufMut;
use commonware_codec::ReadExt as _;
use commonware_codec::{
    Buf, Copying, DecodeExt as _, Encode as _, Error as CodecError, FixedSize, Read, Write,
};
use commonware_cryptography::{Signer as _, Verifier as _, ed25519};
use posync_protocol::{Account, Hash, Signature};

/// Domain of the signatures under marks.
const NAMESPACE: &[u8] = b"posync/ceremony-mark/1";

/// A mark with its member's signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Random number of the directory for this attempt.
    pub(super) number: u64,
    /// Signature of the member over the draft's id and the number.
    signature: Signature,
}

fn signed(id: &Hash, number: u64) -> Vec<u8> {
    [&id[..], &number.to_be_bytes()].concat()
}

impl Mark {
    /// The mark of `key`'s directory in the attempt of the draft `id`.
    pub(super) fn sign(key: &PrivateKey, id: &Hash, number: u64) -> Self {
        let mut signature = [0; 64];
        signature.copy_from_slice(&key.sign(NAMESPACE, &signed(id, number)).encode());
        Self { number, signature }
    }

    /// Returns true if `account` signed this mark in the attempt of the draft `id`.
    pub(super) fn is_of(&self, account: &Account, id: &Hash) -> bool {
        let signature = ed25519::Signature::decode(Copying(&self.signature));
        let (Some(key), Ok(signature)) = (account.public_key(), signature) else { return false };
        key.verify(NAMESPACE, &signed(id, self.number), &signature)
    }

    /// The mark as two words of a line.
    pub(super) fn to_text(self) -> String {
        format!("{} {}", self.number, crate::config::hex(&self.signature))
    }

    /// Reads the words of [`Mark::to_text`].
    pub(super) fn from_text(text: &str) -> Option<Self> {
        let (number, signature) = text.split_once(' ')?;
        let signature = crate::config::unhex(signature.as_bytes())?.try_into().ok()?;
        Some(Self { number: number.parse().ok()?, signature })
    }
}

impl Write for Mark {
    fn write(&self, buf: &mut impl BufMut) {
        self.number.write(buf);
        self.signature.write(buf);
    }
}

impl FixedSize for Mark {
    const SIZE: usize = u64::SIZE + Signature::SIZE;
}

impl Read for Mark {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, CodecError> {
        Ok(Self { number: u64::read(buf)?, signature: Signature::read(buf)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_of_its_member_and_draft_alone_and_survives_its_text() {
        let key = |seed| PrivateKey::from_seed(seed);
        let account = |seed| Account::of(&key(seed).public_key());
        let mark = Mark::sign(&key(1), &[7; 32], 9);
        assert!(mark.is_of(&account(1), &[7; 32]));
        assert!(!mark.is_of(&account(2), &[7; 32]) && !mark.is_of(&account(1), &[8; 32]));
        assert!(!Mark { number: 10, ..mark }.is_of(&account(1), &[7; 32]));
        assert_eq!(Mark::from_text(&mark.to_text()), Some(mark));
        assert_eq!(Mark::decode(Copying(&mark.encode())).expect("its own bytes"), mark);
        for text in ["", "9", "9 00", "x 00"] {
            assert_eq!(Mark::from_text(text), None, "{text}");
        }
    }
}
