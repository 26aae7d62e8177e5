//! The directory of a member during a ceremony: what is there already, what may be begun, what must be kept.
//!
//! ```text
//! <directory>/
//!   node.key              the member's key, made before
//!   ceremony/             of the running attempt, removed at its end
//!     id                  id of its draft, and a random mark of this directory
//!     begun               present once this member may have dealt: the marks of the others at that time
//!     store/              its secrets: dealer seed, dealings that it received, share
//!     storage/            the chain on which the key is made
//!   spent-share-<id>      the share of an attempt that was given up after the key was made
//!   ceremony.spent        ids of attempts that ended without a key; none of them may begin again
//!   secrets/              the share of the first term, and no other secret of the ceremony
//!   genesis.signatures    written before the genesis
//!   genesis               written last: its presence means that the ceremony succeeded
//! ```
//!
//! Invariants:
//! 1. Before `begun` is on the disk, this member deals nothing; from then on, its seed is on the disk.
//! 2. An attempt that lost its secrets never continues, and never begins again under the same id: a dealer
//!    that deals twice under one id could use acknowledgements of dealings that the others threw away.
//! 3. A signature leaves this machine after the share is on its disk.

use super::{CeremonyError, Draft, mark::Mark};
use crate::{
    config::{ConfigError, hex, lock, unhex},
    engine::PrivateKey,
    epoch::secrets::{Secrets, write_private},
    genesis::{Genesis, SIGNATURES_FILE, Signatures},
};
use commonware_codec::{Copying, DecodeExt as _, Encode as _};
use commonware_consensus::types::Epoch;
use commonware_cryptography::{Signer as _, bls12381::primitives::group::Share, transcript::Summary};
use commonware_glue::dkg::SecretStore as _;
use commonware_math::algebra::Random as _;
use posync_client::volume;
use posync_protocol::Account;
use rand_core::CryptoRng;
use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

const ATTEMPT: &str = "ceremony";
const ENDED: &str = "ceremony.ended";
const SPENT: &str = "ceremony.spent";
const ID: &str = "id";
const BEGUN: &str = "begun";
const STORE: &str = "store";
const STORAGE: &str = "storage";
const SECRETS: &str = "secrets";
const GENESIS: &str = "genesis";
const FIRST_SHARE: &str = "share-00000000000000000000";
/// Beginning of the name under which a share of an attempt that was given up is kept.
const ASIDE: &str = "spent-share-";
/// Free bytes that a ceremony needs; it writes below 8 MiB, and the chain after it begins in the same place.
const ROOM: u64 = 64 << 20;

/// A member's directory, locked for the ceremony of one draft.
pub(super) struct Home {
    directory: PathBuf,
    id: String,
    /// Key of the member.
    pub(super) key: PrivateKey,
    /// The engine's store of secrets.
    pub(super) store: Secrets,
    /// Mark of this directory for this attempt.
    pub(super) mark: Mark,
    /// Marks of the others when this member began to deal; `None` before.
    pub(super) met: Option<Vec<(Account, Mark)>>,
    _lock: File,
}

/// The state of a directory at the start of the program.
pub(super) enum Opened {
    /// The ceremony goes on.
    Running(Box<Home>),
    /// The ceremony of this draft has ended here before, with this genesis.
    Done(Box<Genesis>),
}

impl Home {
    /// Locks the directory, finds out where the attempt stands, and checks that all can be written that will be.
    ///
    /// # Errors
    /// [`CeremonyError`]; nothing has been dealt then.
    pub(super) fn open(
        directory: &Path,
        draft: &Draft,
        rng: &mut impl CryptoRng,
    ) -> Result<Opened, CeremonyError> {
        let lock = lock(directory)?;
        let key = key(directory)?;
        let account = Account::of(&key.public_key());
        if draft.cards.iter().all(|card| card.key != key.public_key()) {
            return Err(CeremonyError::NoCard(account));
        }
        let store = Secrets::Disk(directory.join(ATTEMPT).join(STORE));
        let (directory, id) = (directory.into(), hex(&draft.id));
        let mark = Mark::sign(&key, &draft.id, 0);
        let mut home = Self { directory, id, key, store, mark, met: None, _lock: lock };
        if home.directory.join(ENDED).exists() {
            home.remove(ENDED)?;
        }
        let attempt = home.attempt()?;
        let is_same = attempt.as_ref().is_some_and(|(id, _)| *id == home.id);
        if let Some(genesis) = home.genesis(draft)? {
            if !is_same {
                return Ok(Opened::Done(Box::new(genesis)));
            }
        } else {
            home.check_attempt(attempt.as_ref().map(|(id, _)| id.as_str()))?;
        }
        home.check_writable()?;
        match attempt.filter(|_| is_same) {
            Some((_, number)) => {
                home.mark = Mark::sign(&home.key, &draft.id, number);
                home.met = home.met()?;
                home.check_store()?;
            }
            None => {
                home.mark = Mark::sign(&home.key, &draft.id, rng.next_u64());
                home.make(&Path::new(ATTEMPT).join(STORE))?;
                let text = format!("{} {}\n", home.id, home.mark.number);
                home.write(&Path::new(ATTEMPT).join(ID), text.as_bytes())?;
            }
        }
        Ok(Opened::Running(Box::new(home)))
    }

    /// Id and mark of the attempt that this directory holds.
    fn attempt(&self) -> Result<Option<(String, u64)>, CeremonyError> {
        let path = self.directory.join(ATTEMPT).join(ID);
        let Some(text) = read(&path)? else { return Ok(None) };
        let parsed = text.trim().split_once(' ').and_then(|(id, mark)| Some((id.into(), mark.parse().ok()?)));
        parsed.map(Some).ok_or_else(|| damaged(path))
    }

    /// Marks of the others when this member began, if it began.
    fn met(&self) -> Result<Option<Vec<(Account, Mark)>>, CeremonyError> {
        let path = self.directory.join(ATTEMPT).join(BEGUN);
        let Some(text) = read(&path)? else { return Ok(None) };
        let pair = |line: &str| {
            let (account, mark) = line.split_once(' ')?;
            Some((account.parse().ok()?, Mark::from_text(mark)?))
        };
        let pairs = text.lines().map(pair).collect::<Option<Vec<_>>>();
        pairs.map(Some).ok_or_else(|| damaged(path))
    }

    /// The genesis that this directory holds, if it is of this draft and signed by all.
    fn genesis(&self, draft: &Draft) -> Result<Option<Genesis>, CeremonyError> {
        let path = self.directory.join(GENESIS);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(ConfigError::File { path, source }.into()),
        };
        let is_signed = |genesis: &Genesis| self.signatures().check(genesis).is_ok();
        let genesis = Genesis::from_bytes(&bytes).ok();
        let genesis = genesis.filter(|genesis| draft.is_of(genesis) && is_signed(genesis));
        genesis.map(Some).ok_or_else(|| CeremonyError::Occupied(self.directory.clone()))
    }

    /// Checks that this draft may begin or go on here.
    fn check_attempt(&self, attempt: Option<&str>) -> Result<(), CeremonyError> {
        if self.directory.join(STORAGE).exists() || (attempt.is_none() && self.share().exists()) {
            return Err(CeremonyError::Occupied(self.directory.clone()));
        }
        if self.spent()?.contains(&self.id) {
            return Err(CeremonyError::Spent);
        }
        match attempt {
            // An attempt is given up for another one; its secrets must not serve twice.
            Some(other) if other != self.id => self.spend(other),
            _ => Ok(()),
        }
    }

    /// The file of the share of the first term.
    fn share(&self) -> PathBuf {
        self.directory.join(SECRETS).join(FIRST_SHARE)
    }

    /// Checks that every file of the ceremony can be written, by writing one in each place.
    fn check_writable(&self) -> Result<(), CeremonyError> {
        for file in [GENESIS, SIGNATURES_FILE, SPENT] {
            let path = self.directory.join(file);
            if path.is_dir() {
                return Err(file_error(path, io::ErrorKind::IsADirectory.into()));
            }
        }
        for place in ["", SECRETS, ATTEMPT] {
            self.make(Path::new(place))?;
            let probe = Path::new(place).join("probe");
            self.write(&probe, b"written by the ceremony to see that it can")?;
            let path = self.directory.join(&probe);
            fs::remove_file(&path).map_err(|source| file_error(path, source))?;
        }
        let free = volume::free(&self.directory).unwrap_or(u64::MAX);
        if free < ROOM {
            return Err(CeremonyError::Full { free, needed: ROOM });
        }
        Ok(())
    }

    /// Checks that an attempt that has begun still has its secrets and its chain.
    fn check_store(&self) -> Result<(), CeremonyError> {
        if self.met.is_none() {
            return self.make(&Path::new(ATTEMPT).join(STORE));
        }
        let at = self.directory.join(ATTEMPT);
        let has_store = at.join(STORE).is_dir() && self.store.has_first_seed();
        let has_storage = at.join(STORAGE).is_dir();
        // The share is stored after the last block; with all dealings, votes were cast before.
        let has_blocks = || at.join(STORAGE).join(format!("{}-blocks-value", super::PREFIX)).is_dir();
        let needs_blocks = has_store && self.store.first_share().is_some();
        if !has_store || !has_storage || (needs_blocks && !has_blocks()) {
            self.spend_this()?;
            return Err(CeremonyError::StoreGone);
        }
        Ok(())
    }

    /// Records that this member deals from now on, and the marks of the others. Its seed is on the disk before.
    pub(super) async fn begin(
        &mut self,
        marks: Vec<(Account, Mark)>,
        rng: &mut impl CryptoRng,
    ) -> Result<(), CeremonyError> {
        if self.met.is_none() {
            self.make(&Path::new(ATTEMPT).join(STORAGE))?;
            self.store.put_seed(Epoch::zero(), Summary::random(rng)).await;
            let text: String =
                marks.iter().map(|(account, mark)| format!("{account} {}\n", mark.to_text())).collect();
            self.write(&Path::new(ATTEMPT).join(BEGUN), text.as_bytes())?;
            self.met = Some(marks);
        }
        Ok(())
    }

    /// Directory of the runtime's storage.
    pub(super) fn storage(&self) -> PathBuf {
        self.directory.join(ATTEMPT).join(STORAGE)
    }

    /// Copies the share of the first term, and nothing else, to where the authority expects it.
    pub(super) fn keep_share(&self) -> Result<Share, CeremonyError> {
        let share = self.store.first_share().ok_or(CeremonyError::StoreGone)?;
        let secrets = Secrets::disk(self.directory.join(SECRETS));
        let secrets = secrets.map_err(|source| file_error(self.directory.join(SECRETS), source))?;
        if secrets.first_share().is_none() {
            secrets.seed(&share);
        }
        Ok(share)
    }

    /// The signatures of a genesis that is in place already.
    pub(super) fn signatures(&self) -> Signatures {
        let text = fs::read(self.directory.join(SIGNATURES_FILE)).unwrap_or_default();
        Signatures::from_text(&text).unwrap_or_default()
    }

    /// Writes the signed genesis, if it is not there yet; the genesis itself last.
    pub(super) fn keep_genesis(
        &self,
        genesis: &Genesis,
        signatures: &Signatures,
    ) -> Result<(), CeremonyError> {
        if !self.directory.join(GENESIS).exists() {
            self.write(Path::new(SIGNATURES_FILE), signatures.to_text().as_bytes())?;
            self.write(Path::new(GENESIS), &genesis.encode())?;
        }
        Ok(())
    }

    /// Removes the ceremony's storage and store, at its end.
    pub(super) fn finish(&self) -> Result<(), CeremonyError> {
        let (from, to) = (self.directory.join(ATTEMPT), self.directory.join(ENDED));
        fs::rename(&from, to).map_err(|source| file_error(from, source))?;
        self.remove(ENDED)
    }

    /// Gives this attempt up for ever.
    pub(super) fn spend_this(&self) -> Result<(), CeremonyError> {
        self.spend(&self.id)
    }

    /// Gives the attempt with that id up: it is remembered as spent before its secrets are removed.
    fn spend(&self, id: &str) -> Result<(), CeremonyError> {
        let mut spent = self.spent()?;
        spent.push(id.to_owned());
        self.write(Path::new(SPENT), (spent.join("\n") + "\n").as_bytes())?;
        if self.share().exists() && !self.directory.join(GENESIS).exists() {
            // The key may have been made, and the others may yet sign it: nothing is deleted.
            let aside = self.directory.join(format!("{ASIDE}{}", &id[..id.len().min(16)]));
            fs::rename(self.share(), &aside).map_err(|source| file_error(aside, source))?;
        }
        if self.directory.join(ATTEMPT).exists() { self.finish() } else { Ok(()) }
    }

    fn spent(&self) -> Result<Vec<String>, CeremonyError> {
        let text = read(&self.directory.join(SPENT))?.unwrap_or_default();
        Ok(text.lines().map(str::to_owned).collect())
    }

    fn remove(&self, name: &str) -> Result<(), CeremonyError> {
        let path = self.directory.join(name);
        fs::remove_dir_all(&path).map_err(|source| file_error(path, source))
    }

    fn make(&self, name: &Path) -> Result<(), CeremonyError> {
        let path = self.directory.join(name);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(|source| file_error(path, source))
    }

    fn write(&self, name: &Path, bytes: &[u8]) -> Result<(), CeremonyError> {
        let path = self.directory.join(name);
        let (place, name) = (path.parent(), path.file_name().and_then(|name| name.to_str()));
        let (place, name) = place.zip(name).expect("a file has a place and a plain name");
        write_private(place, name, bytes).map_err(|source| file_error(path.clone(), source))
    }
}

/// Reads a small file; `None` if it is not there.
fn read(path: &Path) -> Result<Option<String>, CeremonyError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(file_error(path.into(), source)),
    }
}

fn damaged(path: PathBuf) -> CeremonyError {
    let reason =
        "the ceremony did not write this; remove the directory `ceremony` and make a new draft".into();
    ConfigError::Damaged { path, reason }.into()
}

/// Reads the member's key.
fn key(directory: &Path) -> Result<PrivateKey, CeremonyError> {
    let path = directory.join("node.key");
    let text = fs::read(&path).map_err(|source| file_error(path.clone(), source))?;
    let key = unhex(&text).and_then(|bytes| PrivateKey::decode(Copying(&bytes)).ok());
    let reason = "it is not 64 hex digits of an Ed25519 key".into();
    key.ok_or_else(|| ConfigError::Damaged { path, reason }.into())
}

fn file_error(path: PathBuf, source: io::Error) -> CeremonyError {
    ConfigError::File { path, source }.into()
}

#[cfg(test)]
mod tests {
    use super::{super::draft::tests::draft, *};
    use commonware_utils::TestRng;
    use std::os::unix::fs::PermissionsExt as _;

    fn member(seed: u64) -> tempfile::TempDir {
        let home = tempfile::tempdir().expect("a directory");
        let key = PrivateKey::from_seed(seed);
        fs::write(home.path().join("node.key"), hex(&key.encode())).expect("writable");
        home
    }

    fn running(directory: &Path, draft: &Draft) -> Home {
        match Home::open(directory, draft, &mut TestRng::new(2)) {
            Ok(Opened::Running(home)) => *home,
            Ok(Opened::Done(_)) => panic!("it is done"),
            Err(error) => panic!("{error}"),
        }
    }

    fn refused(directory: &Path, draft: &Draft) -> CeremonyError {
        Home::open(directory, draft, &mut TestRng::new(2)).err().expect("it is refused")
    }

    fn met() -> (Account, Mark) {
        (Account([1; 32]), Mark::sign(&PrivateKey::from_seed(1), &[1; 32], 9))
    }

    fn begin(home: &mut Home) {
        futures::executor::block_on(home.begin(vec![met()], &mut TestRng::new(1))).expect("writable");
    }

    #[test]
    fn an_attempt_goes_on_after_every_end_of_the_process_that_kept_its_secrets() {
        let (directory, draft) = (member(0), draft(4));
        let home = running(directory.path(), &draft);
        assert!(home.met.is_none());
        let mark = home.mark;
        drop(home);
        let mut home = running(directory.path(), &draft);
        begin(&mut home);
        drop(home);
        let home = running(directory.path(), &draft);
        assert_eq!((home.met.as_deref(), home.mark), (Some([met()].as_slice()), mark));
    }

    #[test]
    fn an_attempt_that_lost_its_secrets_or_its_chain_never_goes_on() {
        for lost in [STORE, STORAGE] {
            let (directory, draft) = (member(0), draft(4));
            let mut home = running(directory.path(), &draft);
            begin(&mut home);
            drop(home);
            fs::remove_dir_all(directory.path().join(ATTEMPT).join(lost)).expect("it was there");
            assert!(matches!(refused(directory.path(), &draft), CeremonyError::StoreGone), "{lost}");
            assert!(matches!(refused(directory.path(), &draft), CeremonyError::Spent), "{lost}");
            assert!(!directory.path().join(ATTEMPT).exists(), "nothing of it serves twice");
        }
    }

    #[test]
    fn a_new_draft_ends_the_attempt_before_it_for_ever() {
        let directory = member(0);
        let (first, second) = (draft(4), draft(5));
        let mut home = running(directory.path(), &first);
        begin(&mut home);
        drop(home);
        let secrets = directory.path().join(SECRETS);
        fs::write(secrets.join(FIRST_SHARE), "x").expect("writable");
        assert!(running(directory.path(), &second).met.is_none());
        assert!(!secrets.join(FIRST_SHARE).exists(), "its share is no share of the second key");
        let aside = format!("{ASIDE}{}", &hex(&first.id)[..16]);
        assert!(directory.path().join(aside).exists(), "nothing is deleted");
        assert!(matches!(refused(directory.path(), &first), CeremonyError::Spent));
    }

    #[test]
    fn a_place_that_cannot_be_written_is_found_before_anything_is_dealt() {
        let draft = draft(4);
        for (blocked, as_directory) in
            [(GENESIS, true), (SIGNATURES_FILE, true), (SECRETS, false), (ATTEMPT, false)]
        {
            let directory = member(0);
            let path = directory.path().join(blocked);
            if as_directory { fs::create_dir(&path) } else { fs::write(&path, "") }.expect("writable");
            let error = refused(directory.path(), &draft).to_string();
            assert!(error.contains(blocked), "{error}");
            assert!(!directory.path().join(ATTEMPT).join(BEGUN).exists());
        }
        let directory = member(0);
        fs::create_dir(directory.path().join(SECRETS)).expect("writable");
        fs::set_permissions(directory.path().join(SECRETS), fs::Permissions::from_mode(0o500))
            .expect("owned");
        // A process with all rights may write everywhere.
        let may = fs::write(directory.path().join(SECRETS).join("try"), "").is_ok();
        assert_eq!(Home::open(directory.path(), &draft, &mut TestRng::new(2)).is_ok(), may);
    }

    #[test]
    fn a_directory_with_a_network_and_a_key_without_a_card_are_refused() {
        let draft = draft(4);
        let stranger = member(9);
        assert!(matches!(refused(stranger.path(), &draft), CeremonyError::NoCard(_)));
        let used = member(1);
        fs::write(used.path().join(GENESIS), "another").expect("writable");
        assert!(matches!(refused(used.path(), &draft), CeremonyError::Occupied(_)));
        let shared = member(2);
        fs::create_dir(shared.path().join(SECRETS)).expect("writable");
        fs::write(shared.path().join(SECRETS).join(FIRST_SHARE), "x").expect("writable");
        assert!(matches!(refused(shared.path(), &draft), CeremonyError::Occupied(_)));
        let ran = member(3);
        fs::create_dir(ran.path().join(STORAGE)).expect("writable");
        assert!(matches!(refused(ran.path(), &draft), CeremonyError::Occupied(_)));
        let held = member(0);
        let open = running(held.path(), &draft);
        let second = std::thread::scope(|scope| scope.spawn(|| refused(held.path(), &draft)).join());
        assert!(matches!(second.expect("it ends"), CeremonyError::Directory(ConfigError::Locked(_))));
        drop(open);
    }
}
