//! A node's directory: the files that it needs to start, and the lock that keeps a second node out.
//!
//! ```text
//! <directory>/
//!   genesis        initial data of the network, the same file on every member
//!   genesis.signatures   signatures of all authorities under it
//!   node.key       this node's Ed25519 key, hex, readable by its owner alone
//!   secrets/       shares of the network key (0700)
//!   storage/       blocks, certificates, state
//!   format         number of the files' format, and the version that wrote it
//!   lock           held while the node runs
//! ```
//!
//! Restore `secrets` and `storage` from the same moment or not at all: an older share with newer
//! blocks, or the reverse, makes the authority a faulty member of its committee.

use crate::{
    engine::PrivateKey,
    epoch::secrets::{Secrets, write_private},
    genesis::{AuthoritySecret, Genesis, GenesisError, SIGNATURES_FILE, Signatures},
    own_key::Word,
};
use commonware_codec::{Copying, DecodeExt as _, Encode as _};
use commonware_cryptography::Signer as _;
use posync_client::{directory_lock::hold_member, format_mark};
use std::{
    fs::{self, File},
    io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};
use thiserror::Error;

/// Why a node's directory cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// Another process runs on the directory.
    #[error("another node runs on {0}; stop it first, two nodes with one key would be a fault")]
    Locked(PathBuf),
    /// The directory already holds a node.
    #[error("{0} already holds a node; choose an empty directory")]
    Occupied(PathBuf),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Error of the file system.
        source: io::Error,
    },
    /// A file's contents are damaged.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        /// Path of the damaged file.
        path: PathBuf,
        /// Description of the damage, for the operator.
        reason: String,
    },
    /// Other authorities would not wait so long for a block.
    #[error("quiet_ms is {0}; at most {1} leaves the other authorities time before they pass over this one")]
    Quiet(u64, u64),
    /// The key belongs to no authority of the genesis.
    #[error("the key in {0} is no authority of its genesis; a node without a seat follows as a client")]
    NoAuthority(PathBuf),
    /// The genesis does not decode or contradicts itself.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
}

/// The settings of one node that the network does not need to agree on.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address at which the other authorities reach this one.
    pub listen: SocketAddr,
    /// Address at which clients reach the node service.
    pub service: SocketAddr,
    /// Pages of 4 KiB that the storage cache holds: at least the active set.
    pub page_cache_pages: usize,
    /// If true, nothing is pruned: the node answers about every block since the first.
    pub archive: bool,
    /// If true, peers at private and loopback addresses are dialled, as a private network needs.
    pub private: bool,
    /// Milliseconds between blocks while no operation waits, if that is more than `block_ms` of the genesis.
    pub quiet_ms: u64,
}

const fn page_cache_pages() -> usize {
    16_384
}

/// Most milliseconds between blocks while no operation waits: a quarter of the time for which the other authorities
/// wait for a leader is left for the block's way to them.
const fn quiet_ms_max(genesis: &Genesis) -> u64 {
    genesis.parameters.leader_timeout_ms / 4 * 3
}

impl Settings {
    /// Settings of a node on a local network.
    pub const fn local(listen: SocketAddr, service: SocketAddr, archive: bool) -> Self {
        Self { listen, service, page_cache_pages: page_cache_pages(), archive, private: true, quiet_ms: 0 }
    }
}

/// A node's directory, opened and locked.
#[derive(Debug)]
pub struct Config {
    /// Path of the node's directory.
    pub directory: PathBuf,
    /// Genesis of the network, the same on every member.
    pub genesis: Genesis,
    /// Settings of this node.
    pub settings: Settings,
    /// Private key of this node.
    pub key: PrivateKey,
    /// Store of this node's shares of the network key.
    pub secrets: Secrets,
    /// The operator's word about the key, for this start.
    pub word: Word,
    _lock: File,
}

impl Config {
    /// Writes what a dealer gives to an authority: genesis with its signatures, key, and the share in its store of
    /// secrets.
    ///
    /// # Errors
    /// [`ConfigError`] if the directory holds a node or cannot be written.
    pub fn deal(
        directory: &Path,
        genesis: &Genesis,
        signatures: &Signatures,
        secret: &AuthoritySecret,
    ) -> Result<(), ConfigError> {
        let at = |path: &Path| {
            let path = path.to_path_buf();
            move |source| ConfigError::File { path, source }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(at(directory))?;
        if directory.join("genesis").exists() {
            return Err(ConfigError::Occupied(directory.into()));
        }
        format_mark::claim(directory)
            .map_err(|error| ConfigError::File { path: directory.into(), source: io::Error::other(error) })?;
        let secrets = Secrets::disk(directory.join("secrets")).map_err(at(directory))?;
        secrets.seed(&secret.share);
        write_private(directory, "node.key", hex(&secret.key.encode()).as_bytes()).map_err(at(directory))?;
        write_private(directory, SIGNATURES_FILE, signatures.to_text().as_bytes()).map_err(at(directory))?;
        // The genesis is written last: its presence means that the directory holds a node.
        write_private(directory, "genesis", &genesis.encode()).map_err(at(directory))
    }

    /// Locks and reads a node's directory, with these settings.
    ///
    /// # Errors
    /// [`ConfigError`]: another node runs on it, or a file is missing or damaged.
    pub fn open(directory: &Path, settings: Settings) -> Result<Self, ConfigError> {
        let lock = lock(directory)?;
        let genesis = Genesis::from_bytes(&read(directory, "genesis")?)?;
        // A genesis without the file is one that nobody signed.
        let signatures = match read(directory, SIGNATURES_FILE) {
            Err(ConfigError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        let most = quiet_ms_max(&genesis);
        if settings.quiet_ms > most {
            return Err(ConfigError::Quiet(settings.quiet_ms, most));
        }
        let signatures = Signatures::from_text(&signatures);
        signatures.and_then(|signatures| signatures.check(&genesis)).map_err(GenesisError::from)?;
        let damaged =
            |name: &str, reason: String| ConfigError::Damaged { path: directory.join(name), reason };
        let key = unhex(&read(directory, "node.key")?)
            .and_then(|bytes| PrivateKey::decode(Copying(&bytes)).ok())
            .ok_or_else(|| damaged("node.key", "it is not 64 hex digits of an Ed25519 key".into()))?;
        let public = key.public_key();
        if genesis.authorities.iter().all(|authority| authority.key != public) {
            return Err(ConfigError::NoAuthority(directory.into()));
        }
        let secrets = Secrets::disk(directory.join("secrets"))
            .map_err(|source| ConfigError::File { path: directory.join("secrets"), source })?;
        Ok(Self {
            directory: directory.into(),
            genesis,
            settings,
            key,
            secrets,
            word: Word::default(),
            _lock: lock,
        })
    }
}

/// Locks a node's directory until the file is dropped.
pub(crate) fn lock(directory: &Path) -> Result<File, ConfigError> {
    let path = directory.join("lock");
    let held = hold_member(&path).map_err(|source| ConfigError::File { path, source })?;
    held.ok_or_else(|| ConfigError::Locked(directory.into()))
}

fn read(directory: &Path, name: &str) -> Result<Vec<u8>, ConfigError> {
    let path = directory.join(name);
    fs::read(&path).map_err(|source| ConfigError::File { path, source })
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?.trim();
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::genesis::{
        deal,
        signatures::{SignaturesError, sign_all},
    };
    use commonware_utils::TestRng;
    use posync_protocol::{Amount, limits::Parameters};
    use std::os::unix::fs::PermissionsExt as _;

    fn created(directory: &Path) -> Result<(), ConfigError> {
        let address = SocketAddr::from(([127, 0, 0, 1], 9_000));
        let (genesis, secrets) =
            deal(&[address], Parameters::LOCAL, Amount::sync(10_000), Vec::new(), TestRng::new(1))
                .expect("valid");
        let signatures = sign_all(&genesis, &secrets);
        Config::deal(directory, &genesis, &signatures, &secrets[0])
    }

    fn opened(directory: &Path) -> Result<Config, ConfigError> {
        let address = SocketAddr::from(([127, 0, 0, 1], 9_000));
        Config::open(directory, Settings::local(address, address, false))
    }

    #[test]
    fn a_directory_has_one_node_at_a_time() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("node");
        created(&path).expect("the directory is empty");
        assert!(matches!(created(&path), Err(ConfigError::Occupied(_))));
        let first = opened(&path).expect("it was just written");
        assert!(matches!(opened(&path), Err(ConfigError::Locked(_))));
        assert!(first.secrets.has_share());
        drop(first);
        opened(&path).expect("the lock is free again");
    }

    #[test]
    fn a_pause_for_which_nobody_waits_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("node");
        created(&path).expect("the directory is empty");
        let address = SocketAddr::from(([127, 0, 0, 1], 9_000));
        let with = |quiet_ms| Settings { quiet_ms, ..Settings::local(address, address, false) };
        assert!(matches!(Config::open(&path, with(751)), Err(ConfigError::Quiet(751, 750))));
        Config::open(&path, with(750)).expect("the others wait for a second");
    }

    #[test]
    fn a_genesis_without_all_signatures_starts_no_node() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("node");
        created(&path).expect("the directory is empty");
        let file = path.join(SIGNATURES_FILE);
        let text = fs::read_to_string(&file).expect("it was just written");
        let refused = || match opened(&path) {
            Err(ConfigError::Genesis(GenesisError::Signatures(error))) => error,
            other => panic!("{other:?}"),
        };
        fs::write(&file, "").expect("writable");
        assert!(matches!(refused(), SignaturesError::Missing(_)));
        let mut damaged = text.into_bytes();
        let digit = damaged.len() - 2;
        damaged[digit] = if damaged[digit] == b'0' { b'1' } else { b'0' };
        fs::write(&file, damaged).expect("writable");
        assert!(matches!(refused(), SignaturesError::Wrong(_)));
        fs::remove_file(&file).expect("it was there");
        assert!(matches!(refused(), SignaturesError::Missing(_)));
    }

    #[test]
    fn secrets_are_private_and_damage_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("node");
        created(&path).expect("the directory is empty");
        let mode =
            |name: &str| fs::metadata(path.join(name)).expect("it exists").permissions().mode() & 0o777;
        assert_eq!(
            [mode("node.key"), mode("secrets"), mode("secrets/share-00000000000000000000")],
            [0o600, 0o700, 0o600]
        );
        fs::write(path.join("node.key"), hex(&PrivateKey::from_seed(9).encode())).expect("writable");
        assert!(matches!(opened(&path), Err(ConfigError::NoAuthority(_))));
        fs::write(path.join("node.key"), "no key").expect("writable");
        assert!(matches!(opened(&path), Err(ConfigError::Damaged { .. })));
        fs::write(path.join("genesis"), [0; 40]).expect("writable");
        assert!(matches!(opened(&path), Err(ConfigError::Genesis(_))));
    }
}
