//! The secrets of the key reshare (this authority's share, its dealer seed, the dealings it received), and
//! the last view that it signed a proposal for, which must be durable too.
//!
//! A lost write could make a dealer deal twice with different polynomials, or lose a share already in
//! use. So on disk every write is a new file that is synced and renamed into place, and its directory is
//! synced, before the call returns. Only their owner may read the files.
//!
//! The deterministic runtime has no private storage. There the same table lives in memory and is passed from
//! one run of the node to the next, as a disk would be.

use commonware_codec::{Copying, DecodeExt as _, Encode as _, Read};
use commonware_consensus::types::Epoch;
use commonware_cryptography::{
    PublicKey,
    bls12381::{dkg::feldman_desmedt::DealerPrivMsg, primitives::group::Share},
    transcript::Summary,
};
use commonware_glue::dkg::SecretStore;
use commonware_utils::sync::Mutex;
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Name of the entry for the last view with a signed proposal.
const PROPOSED: &str = "proposed";

/// The store of the reshare's secrets.
#[derive(Clone, Debug)]
pub enum Secrets {
    /// One file per secret in this directory.
    Disk(PathBuf),
    /// A table that outlives the simulated node.
    Memory(Arc<Mutex<BTreeMap<String, Vec<u8>>>>),
}

impl Secrets {
    /// Opens the directory and creates it, private to its owner, if it is missing.
    pub fn disk(directory: impl Into<PathBuf>) -> io::Result<Self> {
        let directory = directory.into();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        Ok(Self::Disk(directory))
    }

    /// Creates an empty table in memory.
    pub fn memory() -> Self {
        Self::Memory(Arc::default())
    }

    /// Stores the share dealt at genesis.
    pub fn seed(&self, share: &Share) {
        self.put(&name("share", Epoch::zero(), ""), &share.encode());
    }

    /// Returns true if this authority may sign a proposal in that view: it has signed none in it or in a
    /// later one, in this run or before. The view is durable before this returns (AU-8).
    pub fn may_propose(&self, term: u64, view: u64) -> bool {
        let is_later = self.get::<[u64; 2]>(PROPOSED).is_none_or(|last| last < [term, view]);
        if is_later {
            self.put(PROPOSED, &[term, view].encode());
        }
        is_later
    }

    /// True if nothing is stored.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Disk(directory) => entries(directory).is_empty(),
            Self::Memory(table) => table.lock().is_empty(),
        }
    }

    fn names(&self) -> Vec<String> {
        match self {
            Self::Disk(directory) => entries(directory),
            Self::Memory(table) => table.lock().keys().cloned().collect(),
        }
    }

    /// The share of the first term, if there is one.
    pub(crate) fn first_share(&self) -> Option<Share> {
        self.get(&name("share", Epoch::zero(), ""))
    }

    /// Number of dealers whose dealings of the first term are stored.
    pub(crate) fn first_dealings(&self) -> usize {
        let prefix = name("dealing", Epoch::zero(), "-");
        self.names().iter().filter(|name| name.starts_with(&prefix)).count()
    }

    /// True if the seed of this dealer's own dealings of the first term is stored.
    pub(crate) fn has_first_seed(&self) -> bool {
        self.names().contains(&name("seed", Epoch::zero(), ""))
    }

    /// True if there is a share of the network key.
    pub fn has_share(&self) -> bool {
        self.names().iter().any(|name| name.starts_with("share-"))
    }

    /// True if there is a share from a reshare, so the node has run before.
    pub(crate) fn has_later_share(&self) -> bool {
        let later =
            |name: &String| name.starts_with("share-") && epoch_of(name).is_some_and(|epoch| epoch > 0);
        self.names().iter().any(later)
    }

    /// Moves everything but the last proposed view to `aside`, so that it signs nothing more.
    pub(crate) fn set_shares_aside(&self, aside: &Path) -> io::Result<()> {
        let Self::Disk(directory) = self else { return Ok(()) };
        for name in entries(directory).into_iter().filter(|name| name != PROPOSED) {
            fs::rename(directory.join(&name), aside.join(&name))?;
        }
        File::open(directory)?.sync_all()
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        match self {
            Self::Disk(directory) => write_private(directory, name, bytes)
                .expect("a node that cannot keep a reshare secret must stop"),
            Self::Memory(table) => {
                let mut table = table.lock();
                table.insert(name.into(), bytes.into());
            }
        }
    }

    fn get<T: Read<Cfg = ()>>(&self, name: &str) -> Option<T> {
        let bytes = match self {
            Self::Disk(directory) => match fs::read(directory.join(name)) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
                Err(error) => panic!("cannot read the reshare secret {name}: {error}"),
            },
            Self::Memory(table) => {
                let table = table.lock();
                table.get(name)?.clone()
            }
        };
        Some(T::decode(Copying(&bytes)).expect("a secret is written whole or not at all"))
    }

    fn remove_before(&self, min: Epoch) {
        let old = |name: &str| epoch_of(name).is_some_and(|epoch| epoch < min.get());
        match self {
            Self::Disk(directory) => {
                for name in entries(directory).into_iter().filter(|name| old(name)) {
                    fs::remove_file(directory.join(name))
                        .expect("a node that cannot forget a reshare secret must stop");
                }
            }
            Self::Memory(table) => {
                let mut table = table.lock();
                table.retain(|name, _| !old(name));
            }
        }
    }
}

/// Writes `bytes` to `directory/name`, readable by the owner only, and durable on return.
pub fn write_private(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = directory.join(format!(".{name}.new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, directory.join(name))?;
    File::open(directory)?.sync_all()
}

fn name(kind: &str, epoch: Epoch, suffix: &str) -> String {
    format!("{kind}-{:020}{suffix}", epoch.get())
}

fn epoch_of(name: &str) -> Option<u64> {
    name.split('-').nth(1)?.parse().ok()
}

fn dealing<P: PublicKey>(epoch: Epoch, dealer: &P) -> String {
    let hex: String = dealer.encode().iter().map(|b| format!("{b:02x}")).collect();
    name("dealing", epoch, &format!("-{hex}"))
}

fn entries(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("the secret directory was opened at start");
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect()
}

impl SecretStore for Secrets {
    async fn put_share(&mut self, epoch: Epoch, share: Share) {
        self.put(&name("share", epoch, ""), &share.encode());
    }

    async fn get_share(&mut self, epoch: Epoch) -> Option<Share> {
        self.get(&name("share", epoch, ""))
    }

    async fn put_seed(&mut self, epoch: Epoch, seed: Summary) {
        self.put(&name("seed", epoch, ""), &seed.encode());
    }

    async fn get_seed(&mut self, epoch: Epoch) -> Option<Summary> {
        self.get(&name("seed", epoch, ""))
    }

    async fn put_dealing<P: PublicKey>(&mut self, epoch: Epoch, dealer: P, private: DealerPrivMsg) {
        self.put(&dealing(epoch, &dealer), &private.encode());
    }

    async fn get_dealing<P: PublicKey>(&mut self, epoch: Epoch, dealer: &P) -> Option<DealerPrivMsg> {
        self.get(&dealing(epoch, dealer))
    }

    async fn prune(&mut self, min: Epoch) {
        self.remove_before(min);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_is_proposed_in_once_also_after_a_restart() {
        let home = tempfile::tempdir().expect("a temporary directory");
        let memory = Secrets::memory();
        let open = || Secrets::disk(home.path()).expect("writable");
        for again in [&(|| memory.clone()) as &dyn Fn() -> Secrets, &open] {
            let cases =
                [(0, 3, true), (0, 3, false), (0, 2, false), (0, 5, true), (1, 1, true), (0, 9, false)];
            for (term, view, may) in cases {
                assert_eq!(again().may_propose(term, view), may, "term {term}, view {view}");
            }
            again().remove_before(Epoch::new(9));
            assert!(!again().may_propose(1, 1), "forgetting old shares does not forget it");
        }
    }
}
