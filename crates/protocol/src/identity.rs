//! Identities: one Ed25519 key is both an account and a node. Also the ids of agreements and contents.
//!
//! Keys are kept as 32 plain bytes. A curve point is decoded only where a signature is verified, once
//! per node and in batches. Accounts are shown as bech32m with the prefix `sync` (BIP 350).

use alloc::string::{String, ToString};
use commonware_cryptography::ed25519;
use core::{fmt, str::FromStr};

/// A BLAKE3 (contents) or SHA-256 (headers, state) digest.
pub type Hash = [u8; 32];
/// An Ed25519 signature as raw bytes.
pub type Signature = [u8; 64];

const PREFIX: bech32::Hrp = bech32::Hrp::parse_unchecked("sync");

/// An account: the bytes of an Ed25519 public key.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Account(pub [u8; 32]);

impl Account {
    /// The account that belongs to a public key.
    pub fn of(key: &ed25519::PublicKey) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(key.as_ref());
        Self(bytes)
    }

    /// The public key; `None` if the bytes are not a valid curve point.
    pub fn public_key(&self) -> Option<ed25519::PublicKey> {
        commonware_codec::DecodeExt::decode(commonware_codec::Copying(&self.0)).ok()
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = bech32::encode::<bech32::Bech32m>(PREFIX, &self.0).map_err(|_| fmt::Error)?;
        f.write_str(&text)
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", &self.to_string()[..12])
    }
}

impl FromStr for Account {
    type Err = String;
    /// Parses the bech32m form. The error says what is wrong with the text.
    fn from_str(text: &str) -> Result<Self, String> {
        let (prefix, bytes) =
            bech32::decode(text).map_err(|e| alloc::format!("'{text}' is not a bech32m account: {e}"))?;
        if prefix != PREFIX {
            return Err(alloc::format!("'{text}' starts with '{prefix}', an account starts with 'sync'"));
        }
        let bytes = <[u8; 32]>::try_from(bytes.as_slice())
            .map_err(|_| alloc::format!("'{text}' holds {} bytes, an account holds 32", bytes.len()))?;
        Ok(Self(bytes))
    }
}

impl commonware_codec::Write for Account {
    fn write(&self, buf: &mut impl bytes::BufMut) {
        self.0.write(buf);
    }
}

impl commonware_codec::FixedSize for Account {
    const SIZE: usize = 32;
}

impl commonware_codec::Read for Account {
    type Cfg = ();
    fn read_cfg(buf: &mut impl commonware_codec::Buf, _: &()) -> Result<Self, commonware_codec::Error> {
        Ok(Self(<[u8; 32]>::read_cfg(buf, &())?))
    }
}

encoded! {
    #[json]
    /// Identifies an agreement forever: a slot can be reused, but not with the same opening height
    /// (AG-1).
    #[derive(Copy, PartialOrd, Ord)]
    AgreementId {
        /// Provider of the agreement.
        provider: Account,
        /// The provider's slot, below [`crate::limits::SLOTS_MAX`].
        slot: u32,
        /// Height of the block that opened the agreement.
        opened: u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn an_account_is_read_as_it_is_written_and_nothing_else_is() {
        let account = Account([7; 32]);
        let text = account.to_string();
        assert_eq!(text.parse(), Ok(account));
        let other = bech32::encode::<bech32::Bech32m>(bech32::Hrp::parse_unchecked("bc"), &[7; 32]);
        let short = bech32::encode::<bech32::Bech32m>(PREFIX, &[7; 31]);
        for (wrong, reason) in [
            (other.expect("it is short"), "starts with 'bc', an account starts with 'sync'"),
            (short.expect("it is short"), "holds 31 bytes, an account holds 32"),
            (text[1..].to_string(), "is not a bech32m account"),
        ] {
            let error = wrong.parse::<Account>().expect_err("it is no account");
            assert!(error.contains(reason), "{error}");
        }
    }
}
