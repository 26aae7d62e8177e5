//! Key files: an Ed25519 private key as 64 hex digits, readable by its owner alone.
//!
//! Secrets come from files only, never from arguments or the environment, where other users of
//! the machine could read them.

use crate::{
    failure::{Failure, Outcome},
    target,
};
use commonware_codec::{Copying, DecodeExt as _, Encode as _};
use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use commonware_math::algebra::Random as _;
use posync_protocol::Account;
use rand_core::CryptoRng;
use std::{fs, path::Path};

/// Advice when a key's file is damaged.
const LOST: &str = "restore the key's file from a copy: no other machine has it";

/// Generates a key and writes it durably; never overwrites an existing file.
pub(crate) fn create(path: &Path, rng: &mut impl CryptoRng) -> Outcome<PrivateKey> {
    let key = PrivateKey::random(rng);
    let written = target::create(path, hex::encode(key.encode()).as_bytes());
    written.map_err(|error| Failure::file(path, "write the key", error))?;
    Ok(key)
}

/// Reads the key in a file.
pub(crate) fn read(path: &Path) -> Outcome<PrivateKey> {
    let text = fs::read_to_string(path).map_err(|error| Failure::file(path, "read the key", error))?;
    let bytes = hex::decode(text.trim())
        .map_err(|error| Failure::damaged(path, format!("a key is 64 hex digits: {error}"), LOST))?;
    PrivateKey::decode(Copying(&bytes))
        .map_err(|error| Failure::damaged(path, format!("it is no Ed25519 private key: {error}"), LOST))
}

/// The account of a private key: its public key.
pub(crate) fn account(key: &PrivateKey) -> Account {
    Account::of(&key.public_key())
}
