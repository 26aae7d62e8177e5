//! The signatures of all authorities under a genesis: no chain starts to which one of them did not agree.
//!
//! Each authority signs the chain's name, the SHA-256 of the genesis, with its Ed25519 key. The file
//! `genesis.signatures` lies beside the genesis; it holds one line for each authority: its account, a space,
//! and the signature as 128 hex digits.

use super::{AuthoritySecret, Genesis};
use crate::engine::PrivateKey;
use commonware_codec::{Copying, DecodeExt as _, Encode as _};
use commonware_cryptography::{Signer as _, Verifier as _, ed25519};
use posync_protocol::{Account, Signature};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};
use thiserror::Error;

/// Name of the file beside the genesis.
pub const SIGNATURES_FILE: &str = "genesis.signatures";
/// Separates these signatures from all others of the same key.
const NAMESPACE: &[u8] = b"posync/genesis/1";

/// Why the signatures under a genesis are refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SignaturesError {
    /// A line of the file has another form.
    #[error(
        "line {0} of {SIGNATURES_FILE} is no account with a signature; copy the file from another authority of this \
         network"
    )]
    Line(usize),
    /// An authority has not signed.
    #[error(
        "{} of this genesis did not sign it: {}; copy {SIGNATURES_FILE} from an authority that has all \
         signatures, or finish the ceremony",
        count(.0), list(.0)
    )]
    Missing(Vec<Account>),
    /// A signature does not verify.
    #[error(
        "the signature of {0} is for another genesis or by another key: do not start this chain; compare the \
         genesis with the other authorities, or copy genesis and {SIGNATURES_FILE} from one of them"
    )]
    Wrong(Account),
    /// A signature belongs to no authority of this genesis.
    #[error(
        "{0} signed, but is no authority of this genesis: genesis and {SIGNATURES_FILE} belong to different networks; \
         copy both from one authority"
    )]
    Stranger(Account),
}

fn count(accounts: &[Account]) -> String {
    match accounts.len() {
        1 => "an authority".into(),
        many => format!("{many} authorities"),
    }
}

fn list(accounts: &[Account]) -> String {
    accounts.iter().map(Account::to_string).collect::<Vec<_>>().join(", ")
}

/// Signatures under one genesis, by the accounts of their authorities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signatures(pub BTreeMap<Account, Signature>);

/// Signs a dealt genesis with every key of its dealer.
pub fn sign_all(genesis: &Genesis, secrets: &[AuthoritySecret]) -> Signatures {
    let sign = |secret: &AuthoritySecret| (Account::of(&secret.key.public_key()), genesis.sign(&secret.key));
    Signatures(secrets.iter().map(sign).collect())
}

impl Genesis {
    /// Signs this genesis with an authority's key.
    pub fn sign(&self, key: &PrivateKey) -> Signature {
        let mut bytes = [0; 64];
        bytes.copy_from_slice(&key.sign(NAMESPACE, &self.chain()).encode());
        bytes
    }

    /// Returns true if `account` signed this genesis with that signature.
    pub(crate) fn is_signed_by(&self, account: &Account, signature: &Signature) -> bool {
        let signature = ed25519::Signature::decode(Copying(signature));
        let (Some(key), Ok(signature)) = (account.public_key(), signature) else { return false };
        key.verify(NAMESPACE, &self.chain(), &signature)
    }
}

impl Signatures {
    /// Checks that exactly the authorities of `genesis` signed it.
    ///
    /// # Errors
    /// [`SignaturesError`] names the first authority whose signature is wrong, or all that are missing.
    pub(crate) fn check(&self, genesis: &Genesis) -> Result<(), SignaturesError> {
        let authorities: BTreeSet<Account> =
            genesis.authorities.iter().map(|a| Account::of(&a.key)).collect();
        for (account, signature) in &self.0 {
            if !authorities.contains(account) {
                return Err(SignaturesError::Stranger(*account));
            }
            if !genesis.is_signed_by(account, signature) {
                return Err(SignaturesError::Wrong(*account));
            }
        }
        let missing: Vec<Account> = authorities.into_iter().filter(|a| !self.0.contains_key(a)).collect();
        if missing.is_empty() { Ok(()) } else { Err(SignaturesError::Missing(missing)) }
    }

    /// The text of the file, in the order of accounts.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (account, signature) in &self.0 {
            let _ = writeln!(text, "{account} {}", crate::config::hex(signature));
        }
        text
    }

    /// Parses the text of the file.
    ///
    /// # Errors
    /// [`SignaturesError::Line`] with the number of the line that has another form.
    pub(crate) fn from_text(text: &[u8]) -> Result<Self, SignaturesError> {
        let text = std::str::from_utf8(text).map_err(|_| SignaturesError::Line(1))?;
        let mut signatures = BTreeMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let (account, signature) = parse(line).ok_or(SignaturesError::Line(number))?;
            if signatures.insert(account, signature).is_some() {
                return Err(SignaturesError::Line(number));
            }
        }
        Ok(Self(signatures))
    }
}

fn parse(line: &str) -> Option<(Account, Signature)> {
    let (account, digits) = line.split_once(' ')?;
    let bytes = crate::config::unhex(digits.as_bytes())?;
    Some((account.parse().ok()?, bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::genesis::deal;
    use commonware_utils::TestRng;
    use posync_protocol::{Amount, limits::Parameters};
    use std::net::SocketAddr;

    fn dealt(seed: u64) -> (Genesis, Vec<AuthoritySecret>) {
        let addresses: Vec<_> = (0..4).map(|i| SocketAddr::from(([127, 0, 0, 1], 9_000 + i))).collect();
        deal(&addresses, Parameters::LOCAL, Amount::sync(40_000), Vec::new(), TestRng::new(seed))
            .expect("valid")
    }

    #[test]
    fn a_genesis_that_one_authority_did_not_sign_is_refused_with_its_name() {
        let (genesis, secrets) = dealt(1);
        let all = sign_all(&genesis, &secrets);
        all.check(&genesis).expect("all signed");
        for secret in &secrets {
            let account = Account::of(&secret.key.public_key());
            let mut fewer = all.clone();
            fewer.0.remove(&account);
            assert_eq!(fewer.check(&genesis), Err(SignaturesError::Missing(vec![account])));
            let mut wrong = all.clone();
            wrong.0.entry(account).and_modify(|signature| signature[9] ^= 1);
            assert_eq!(wrong.check(&genesis), Err(SignaturesError::Wrong(account)));
        }
        let nobody = Signatures::default().check(&genesis).expect_err("nobody signed");
        assert!(nobody.to_string().starts_with("4 authorities of this genesis"), "{nobody}");
    }

    #[test]
    fn signatures_are_for_one_genesis_and_of_its_authorities() {
        let (genesis, secrets) = dealt(1);
        let (other, strangers) = dealt(2);
        let changed = Genesis { time_ms: 1, ..genesis.clone() };
        assert!(matches!(sign_all(&changed, &secrets).check(&genesis), Err(SignaturesError::Wrong(_))));
        assert!(matches!(sign_all(&genesis, &strangers).check(&genesis), Err(SignaturesError::Stranger(_))));
        assert!(matches!(sign_all(&other, &strangers).check(&genesis), Err(SignaturesError::Stranger(_))));
    }

    #[test]
    fn the_file_of_signatures_survives_its_text_and_names_a_damaged_line() {
        let (genesis, secrets) = dealt(1);
        let all = sign_all(&genesis, &secrets);
        let text = all.to_text();
        assert_eq!(Signatures::from_text(text.as_bytes()), Ok(all));
        let lines: Vec<&str> = text.lines().collect();
        for (damaged, line) in [
            (text.replacen("sync1", "sink1", 1), 1),
            (format!("{text}{}\n", lines[0]), 5),
            (format!("{text}\n"), 5),
            (text[..text.len() - 3].to_owned(), 4),
        ] {
            assert_eq!(Signatures::from_text(damaged.as_bytes()), Err(SignaturesError::Line(line)));
        }
        assert_eq!(Signatures::from_text(&[0xff; 9]), Err(SignaturesError::Line(1)));
    }
}
