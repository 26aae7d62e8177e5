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
/// Name of the entry that shows that a node has run with these secrets.
const BEGUN: &str = "begun";
/// Name of the entry for a wait ([`Wait`]).
const WAITS: &str = "waits";
/// Name of the entry for the last vote of a node that lost, or has not gained, its right to sign.
const VOTED: &str = "voted";
/// Entries that stay when shares are set aside: each can only keep the node from signing.
const KEPT: [&str; 4] = [PROPOSED, BEGUN, WAITS, VOTED];

/// Term and view of a proposal or a vote.
pub(crate) type SignedAt = [u64; 2];

/// A wait for whole terms in which the node signs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// First term in which the node signs.
    pub from: u64,
    /// The newest proposal of this node's key that the network knew when the wait began.
    pub newest: Option<SignedAt>,
}

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
    pub(crate) fn may_propose(&self, term: u64, view: u64) -> bool {
        let is_later = self.get::<[u64; 2]>(PROPOSED).is_none_or(|last| last < [term, view]);
        if is_later {
            self.put(PROPOSED, &[term, view].encode());
        }
        is_later
    }

    /// The last view in which a proposal was signed.
    pub fn proposed(&self) -> Option<SignedAt> {
        self.get(PROPOSED)
    }

    /// The wait that has begun and not ended.
    pub fn wait(&self) -> Option<Wait> {
        let [from, known, term, view] = self.get::<[u64; 4]>(WAITS)?;
        (from > 0).then(|| Wait { from, newest: (known > 0).then_some([term, view]) })
    }

    /// Begins a wait. It is durable before this returns.
    pub(crate) fn begin_wait(&self, wait: Wait) {
        let [term, view] = wait.newest.unwrap_or_default();
        self.put(WAITS, &[wait.from, wait.newest.is_some().into(), term, view].encode());
    }

    /// Ends a wait: no proposal of an earlier term will be signed.
    pub(crate) fn end_wait(&self, from: u64) {
        let last = [from.saturating_sub(1), u64::MAX];
        if self.proposed() < Some(last) {
            self.put(PROPOSED, &last.encode());
        }
        // Written over and not removed, so that a crash leaves the wait or its end.
        self.begin_wait(Wait { from: 0, newest: None });
    }

    /// The last vote as it was kept, itself `None` if there was none; `None` while the node signs, when its journal
    /// of votes is the record.
    pub(crate) fn kept_vote(&self) -> Option<Option<SignedAt>> {
        let [kept, term, view] = self.get::<[u64; 3]>(VOTED)?;
        (kept > 0).then(|| (kept > 1).then_some([term, view]))
    }

    /// Keeps the last vote of a node that signs nothing. It is durable before this returns.
    pub(crate) fn keep_vote(&self, vote: Option<SignedAt>) {
        let [term, view] = vote.unwrap_or_default();
        self.put(VOTED, &[1 + u64::from(vote.is_some()), term, view].encode());
    }

    /// Gives the record back to the journal of votes, before the node signs the next one.
    pub(crate) fn release_vote(&self) {
        if self.kept_vote().is_some() {
            // Written over and not removed: after a crash, an older vote would make the node refuse itself.
            self.put(VOTED, &[0_u64; 3].encode());
        }
    }

    /// Records that a node runs with these secrets, and so may sign.
    pub(crate) fn begin(&self) {
        if !self.names().iter().any(|name| name == BEGUN) {
            self.put(BEGUN, &[]);
        }
    }

    /// True if a node has run with these secrets, whatever became of its storage.
    pub(crate) fn has_run(&self) -> bool {
        let ran = |name: &String| name == BEGUN || name == PROPOSED;
        self.names().iter().any(ran) || self.has_later_share()
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

    /// The terms of which there is a share of the network key.
    pub(crate) fn shares(&self) -> Vec<u64> {
        self.names()
            .iter()
            .filter(|name| name.starts_with("share-"))
            .filter_map(|name| epoch_of(name))
            .collect()
    }

    /// True if there is a share from a reshare, so the node has run before.
    pub(crate) fn has_later_share(&self) -> bool {
        self.shares().iter().any(|term| *term > 0)
    }

    /// Moves shares, seeds and dealings to `aside`, so that the node signs nothing more. A table in memory
    /// forgets them.
    pub(crate) fn set_shares_aside(&self, aside: &Path) -> io::Result<()> {
        let directory = match self {
            Self::Disk(directory) => directory,
            Self::Memory(table) => {
                table.lock().retain(|name, _| KEPT.contains(&name.as_str()));
                return Ok(());
            }
        };
        for name in entries(directory).into_iter().filter(|name| !KEPT.contains(&name.as_str())) {
            move_private(directory, aside, &name)?;
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
pub(crate) fn write_private(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = directory.join(format!(".{name}.new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, directory.join(name))?;
    File::open(directory)?.sync_all()
}

/// Moves a file, also to another volume.
fn move_private(from: &Path, to: &Path, name: &str) -> io::Result<()> {
    match fs::rename(from.join(name), to.join(name)) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            write_private(to, name, &fs::read(from.join(name))?)?;
            fs::remove_file(from.join(name))
        }
        result => result,
    }
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
