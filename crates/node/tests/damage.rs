//! Authorities on real disks and sockets with damaged or lost local state fetch it from the others.

use commonware_utils::TestRng;
use futures::FutureExt as _;
use posync_node::{
    config::{Config, Settings},
    epoch::Secrets,
    genesis,
    handle::{Handle, Operations},
    own_key::Word,
    run::{RunError, TokioServices, run_tokio},
    serve::{Serving, over_sockets},
};
use posync_protocol::{Amount, Operation, ledger::BlockContext, limits::Parameters};
use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

/// Upper bound on every wait in these tests.
const PATIENCE: Duration = Duration::from_secs(120);

struct Idle;

impl Operations for Idle {
    fn candidates(&self, _: &BlockContext, _: u64) -> Vec<Operation> {
        Vec::new()
    }

    fn finalized(&self, _: u64, _: &[Operation]) {}
}

/// Finds a free local address.
fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound")
}

/// An authority that runs in a thread of its own.
struct Authority {
    handle: Handle,
    stop: futures::channel::oneshot::Sender<()>,
    thread: thread::JoinHandle<Result<(), RunError>>,
}

impl Authority {
    fn start(directory: &Path) -> Self {
        Self::start_as(directory, Word::default())
    }

    /// Starts it with its operator's word.
    fn start_as(directory: &Path, word: Word) -> Self {
        let (told, handle) = mpsc::channel();
        let (stop, stopped) = futures::channel::oneshot::channel();
        let services: TokioServices = Box::new(move |_, handle, _| {
            let _ = told.send(handle);
            async move {
                let _ = stopped.await;
                Ok(())
            }
            .boxed()
        });
        let directory = directory.to_path_buf();
        let node = move || {
            let mut config = Config::open(&directory, settings_of(&directory))?;
            config.word = word;
            run_tokio(config, Arc::new(Idle), services)
        };
        let thread = thread::Builder::new().stack_size(8 << 20).spawn(node).expect("threads are at hand");
        let handle = handle.recv_timeout(PATIENCE).expect("it starts");
        Self { handle, stop, thread }
    }

    fn reach(&self, height: u64) {
        let (done, reached) = mpsc::channel();
        let mut heights = self.handle.heights();
        thread::spawn(move || {
            let _ = futures::executor::block_on(heights.wait_for(|applied| *applied >= height));
            let _ = done.send(());
        });
        reached.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("it stands at {}", self.handle.applied()));
    }

    /// Waits until it ends by itself; returns why.
    fn ended(self) -> RunError {
        let (done, ended) = mpsc::channel();
        let (thread, _stop) = (self.thread, self.stop);
        thread::spawn(move || done.send(thread.join()));
        let ended = ended.recv_timeout(PATIENCE).expect("it ends");
        ended.expect("it does not panic").expect_err("nobody asked it to stop")
    }

    fn stop(self) {
        self.stop.send(()).expect("it runs");
        self.thread.join().expect("it does not panic").expect("it was asked to stop");
    }
}

/// The files of the partitions whose names start with `partition`.
fn data_files(directory: &Path, partition: &str) -> Vec<PathBuf> {
    let names = |path: &Path| {
        let entries = fs::read_dir(path).expect("a directory").map(|entry| entry.expect("readable").path());
        entries.collect::<Vec<_>>()
    };
    let starts =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(partition));
    let storage = names(&directory.join("storage")).into_iter();
    let files: Vec<PathBuf> = storage.filter(starts).flat_map(|at| names(&at)).collect();
    assert!(!files.is_empty(), "there is such a partition");
    files
}

/// Copies a directory, as a backup does.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("writable");
    for entry in fs::read_dir(from).expect("a directory").map(|entry| entry.expect("readable")) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).expect("writable");
        }
    }
}

/// Four authorities on disks and sockets of their own.
fn network(home: &Path) -> Vec<PathBuf> {
    let addresses: Vec<SocketAddr> = (0..4).map(|_| free()).collect();
    let supply = Amount::sync(1_000_000_000);
    let (genesis, secrets) =
        genesis::deal(&addresses, Parameters::LOCAL, supply, Vec::new(), TestRng::new(7)).expect("valid");
    let directories: Vec<PathBuf> = (0..4).map(|index| home.join(index.to_string())).collect();
    let signatures = genesis::sign_all(&genesis, &secrets);
    for ((directory, secret), address) in directories.iter().zip(&secrets).zip(&addresses) {
        Config::deal(directory, &genesis, &signatures, secret).expect("writable");
        let text = format!("{address} {}", free());
        fs::write(directory.join("addresses"), text).expect("writable");
    }
    directories
}

/// Settings with the addresses that [`network`] noted in the directory.
fn settings_of(directory: &Path) -> Settings {
    let text = fs::read_to_string(directory.join("addresses")).expect("it was written");
    let mut addresses = text.split(' ').map(|address| address.parse().expect("an address"));
    let mut next = || addresses.next().expect("two addresses");
    Settings::local(next(), next(), false)
}

fn start_all(directories: &[PathBuf]) -> Vec<Authority> {
    let start = |directory: &PathBuf| {
        let directory = directory.clone();
        thread::spawn(move || Authority::start(&directory))
    };
    let starting: Vec<_> = directories.iter().map(start).collect();
    starting.into_iter().map(|thread| thread.join().expect("it starts")).collect()
}

/// A whole directory is copied, its authority goes on and leads, and the copy takes its place: it would propose
/// views again that it proposed before. It is refused with both views; after its operator's word it waits a whole
/// term and signs again, and nobody is slashed.
#[test]
fn a_restored_directory_is_refused_on_real_disks() {
    let home = tempfile::tempdir().expect("a directory");
    let directories = network(home.path());
    let backup = home.path().join("backup");
    let mut running = start_all(&directories);
    running[0].reach(8);
    running.remove(0).stop();
    copy(&directories[0], &backup);
    let own = Secrets::disk(backup.join("secrets")).expect("readable").proposed();
    let first = Authority::start(&directories[0]);
    let then = running[0].handle.applied();
    first.reach(then + 16);
    first.stop();
    fs::rename(&directories[0], home.path().join("lost")).expect("movable");
    fs::rename(&backup, &directories[0]).expect("movable");
    for _ in 0..2 {
        let RunError::SecondSigner(directory, refusal) = Authority::start(&directories[0]).ended() else {
            panic!("it ends for another reason");
        };
        assert_eq!((&directory, refusal.own), (&directories[0], own));
        assert!(Some(refusal.seen) > own && refusal.height.is_none_or(|height| height > 8), "{refusal}");
    }
    let secrets = Secrets::disk(directories[0].join("secrets")).expect("readable");
    assert_eq!(secrets.proposed(), own, "it signed nothing");
    assert!(!directories[0].join("set-aside-0").exists(), "it is no damage");

    let first = Authority::start_as(&directories[0], Word { other_stopped: true, agreed: None });
    let term = Parameters::LOCAL.term_blocks();
    let from = running[0].handle.applied() / term + 2;
    first.reach(from * term + 2);
    // It signs in the next term, or in the one after if the next was near.
    assert!(secrets.proposed() >= Some([from - 2, u64::MAX]), "{:?}", secrets.proposed());
    running.remove(0).stop();
    first.reach(first.handle.applied() + 12);
    let accused = running[0].handle.accused();
    assert!(accused.is_empty(), "{accused:?} signed twice");
    running.push(first);
    running.into_iter().for_each(Authority::stop);
}

/// A copy from the end of a term takes the place of its authority in the next one, in which that one has dealt already.
/// The copy deals with a seed of its own, and all others acknowledge the first dealing: it blocks none of them for that,
/// is refused, and signs again after its operator's word.
#[test]
fn a_copy_whose_authority_has_dealt_since_still_hears_the_others() {
    let home = tempfile::tempdir().expect("a directory");
    let directories = network(home.path());
    let backup = home.path().join("backup");
    let term = Parameters::LOCAL.term_blocks();
    let mut running = start_all(&directories);
    // The dealings of a term are over at its middle, and the share of the next one comes of them.
    running[0].reach(term - 10);
    running.remove(0).stop();
    copy(&directories[0], &backup);
    let first = Authority::start(&directories[0]);
    first.reach(running[0].handle.applied().max(term) + 3);
    first.stop();
    fs::rename(&directories[0], home.path().join("lost")).expect("movable");
    copy(&backup, &directories[0]);
    // Its operator's word lets it follow from the start on, so nothing ends it before its dealing is acknowledged.
    let then = running[0].handle.applied();
    let again = Authority::start_as(&directories[0], Word { other_stopped: true, agreed: None });
    let from = then / term + 3;
    again.reach(from * term + 2);
    let secrets = Secrets::disk(directories[0].join("secrets")).expect("readable");
    assert!(secrets.proposed() >= Some([then / term, u64::MAX]), "{:?}", secrets.proposed());
    again.stop();

    // Without that word it is refused.
    fs::rename(&directories[0], home.path().join("lost-too")).expect("movable");
    fs::rename(&backup, &directories[0]).expect("movable");
    let ended = Authority::start(&directories[0]).ended();
    assert!(matches!(ended, RunError::SecondSigner(..)), "{ended}");
    running.into_iter().for_each(Authority::stop);
}

/// Starts an authority several times with an old copy of `storage/` beside the newest secrets: the record of
/// proposals is whole, and the journal of votes is not. Each start is refused by the votes that the others heard.
/// Before a start with `true` its operator asks for a new state.
fn an_old_journal_is_refused(starts: &[bool]) {
    let home = tempfile::tempdir().expect("a directory");
    let directories = network(home.path());
    let (storage, backup) = (directories[0].join("storage"), home.path().join("backup"));
    let mut running = start_all(&directories);
    running[0].reach(8);
    running.remove(0).stop();
    copy(&storage, &backup);
    let first = Authority::start(&directories[0]);
    first.reach(running[0].handle.applied() + 8);
    first.stop();
    fs::rename(&storage, home.path().join("lost")).expect("movable");
    fs::rename(&backup, &storage).expect("movable");
    let mut own = None;
    for (start, asks) in starts.iter().enumerate() {
        if *asks {
            fs::write(directories[0].join("set-state-aside"), "").expect("writable");
        }
        let RunError::SecondSigner(_, refusal) = Authority::start(&directories[0]).ended() else {
            panic!("start {start} ends for another reason");
        };
        assert_eq!(refusal.height, None, "{refusal}");
        assert!(Some(refusal.seen) > refusal.own, "{refusal}");
        assert_eq!(*own.get_or_insert(refusal.own), refusal.own, "what consensus wrote meanwhile is no vote");
    }
    running.into_iter().for_each(Authority::stop);
}

#[test]
fn an_old_journal_of_votes_is_refused_by_the_votes_alone() {
    an_old_journal_is_refused(&[false, false, false, false]);
}

/// The repair keeps the journal of votes, and so the comparison with it.
#[test]
fn an_old_journal_of_votes_is_refused_also_where_the_state_is_fetched_anew() {
    an_old_journal_is_refused(&[true, true, false]);
}

/// Two of four machines got their directories back as they were an hour ago: the other two are no quorum, so no term
/// ends. Each of the two starts with the height on which all agreed, and the network goes on with the same blocks.
#[test]
fn two_of_four_restored_copies_go_on_from_the_height_that_all_agreed_on() {
    let home = tempfile::tempdir().expect("a directory");
    let directories = network(home.path());
    let mut running = start_all(&directories);
    running[0].reach(8);
    let restored: Vec<Authority> = running.drain(..2).collect();
    restored.into_iter().for_each(Authority::stop);
    let backups = [home.path().join("backup-0"), home.path().join("backup-1")];
    directories.iter().zip(&backups).for_each(|(from, to)| copy(from, to));
    let again = start_all(&directories[..2]);
    again[0].reach(running[0].handle.applied() + 12);
    again.into_iter().for_each(Authority::stop);
    let agreed = running.iter().map(|kept| kept.handle.applied()).max().expect("two");
    running.iter().for_each(|kept| kept.reach(agreed));
    let header = futures::executor::block_on(running[0].handle.header(agreed)).expect("kept");
    for (index, backup) in backups.iter().enumerate() {
        fs::rename(&directories[index], home.path().join(format!("lost-{index}"))).expect("movable");
        fs::rename(backup, &directories[index]).expect("movable");
    }
    for directory in &directories[..2] {
        let ended = Authority::start(directory).ended();
        assert!(matches!(ended, RunError::SecondSigner(..)), "{ended}");
    }
    let word = Word { other_stopped: false, agreed: Some(agreed) };
    let starting: Vec<_> = directories[..2]
        .iter()
        .cloned()
        .map(|directory| thread::spawn(move || Authority::start_as(&directory, word)))
        .collect();
    running.extend(starting.into_iter().map(|thread| thread.join().expect("it starts")));
    // Into the next term, where they propose again.
    let term = Parameters::LOCAL.term_blocks();
    let goal = (agreed / term + 2) * term + 4;
    running.iter().for_each(|authority| authority.reach(goal));
    for authority in &running {
        let same = futures::executor::block_on(authority.handle.header(agreed));
        assert_eq!(same.as_ref(), Some(&header), "no block up to that height is replaced");
        let accused = authority.handle.accused();
        assert!(accused.is_empty(), "{accused:?} signed twice");
    }
    running.into_iter().for_each(Authority::stop);
}

/// Its storage is there and its secrets are gone: it follows, and votes again within three terms.
#[test]
fn an_authority_that_lost_its_secrets_votes_again_within_three_terms() {
    let home = tempfile::tempdir().expect("a directory");
    let directories = network(home.path());
    let mut running = start_all(&directories);
    running[0].reach(12);
    running.pop().expect("four").stop();
    fs::remove_dir_all(directories[3].join("secrets")).expect("it was there");
    let last = Authority::start(&directories[3]);
    let then = running[0].handle.applied();
    last.reach(then + 4);
    let aside = fs::read_dir(directories[3].join("set-aside-0")).expect("its state is kept");
    let is_log = |entry: fs::DirEntry| entry.file_name().to_string_lossy().starts_with("posync-state-log");
    assert!(aside.map(|entry| entry.expect("readable")).any(is_log), "nothing is deleted");
    assert!(!directories[3].join("set-aside-1").exists());
    let term = Parameters::LOCAL.term_blocks();
    last.reach((then / term + 3) * term + 2);
    running.remove(0).stop();
    let goal = running[0].handle.applied() + 12;
    last.reach(goal);
    running.push(last);
    running.into_iter().for_each(Authority::stop);
}

#[test]
fn an_authority_takes_damaged_or_lost_state_from_the_others() {
    let home = tempfile::tempdir().expect("a directory");
    let directories = network(home.path());
    let mut running = start_all(&directories);
    running[0].reach(12);

    // The log of the state, or the file that records its length, loses a short or a long part of its tail.
    for (partition, keep) in [("posync-state-log", 2), ("posync-state-log", 64), ("posync-state-merkle", 64)]
    {
        running.remove(0).stop();
        for file in data_files(&directories[0], partition) {
            let length = fs::metadata(&file).expect("readable").len();
            let file = fs::OpenOptions::new().write(true).open(&file).expect("writable");
            file.set_len(length / keep).expect("cut");
        }
        let first = Authority::start(&directories[0]);
        let then = running[0].handle.applied();
        first.reach(then + 4);
        running.insert(0, first);
    }
    assert!(directories[0].join("set-aside-0").is_dir(), "what was damaged is kept");
    assert!(directories[0].join("secrets/share-00000000000000000000").exists(), "its share stays in use");

    // A node that fetched its state from the others has a key share again in the term after the next.
    let term = Parameters::LOCAL.term_blocks();
    running[0].reach((running[0].handle.applied() / term + 2) * term + 4);

    // All of storage is gone, but the shares are present.
    running.remove(1).stop();
    fs::remove_dir_all(directories[1].join("storage")).expect("it was there");
    let second = Authority::start(&directories[1]);
    let then = running[0].handle.applied();
    second.reach(then + 4);
    let aside = fs::read_dir(directories[1].join("set-aside-0")).expect("what is left is kept");
    let is_share = |entry: fs::DirEntry| entry.file_name().to_string_lossy().starts_with("share-");
    assert!(aside.map(|entry| entry.expect("readable")).any(is_share), "nothing is deleted");
    running.insert(1, second);
    for authority in running {
        authority.stop();
    }
}

/// A service that cannot listen ends the authority with an error that says so. An address that another
/// process holds is no damage: no state is set aside for it.
#[test]
fn a_taken_port_is_an_error() {
    for of_service in [true, false] {
        let home = tempfile::tempdir().expect("a directory");
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let taken = (taken.local_addr().expect("it is bound"), taken);
        let mut addresses: Vec<SocketAddr> = (0..4).map(|_| free()).collect();
        let service = if of_service { taken.0 } else { free() };
        if !of_service {
            addresses[0] = taken.0;
        }
        let supply = Amount::sync(1_000_000_000);
        let (genesis, secrets) =
            genesis::deal(&addresses, Parameters::LOCAL, supply, Vec::new(), TestRng::new(7)).expect("valid");
        let settings = Settings::local(addresses[0], service, false);
        let signatures = genesis::sign_all(&genesis, &secrets);
        Config::deal(home.path(), &genesis, &signatures, &secrets[0]).expect("writable");
        let key = secrets[0].key.clone();
        let (operations, services) = over_sockets(Serving { key, address: service, private: true });
        let config = Config::open(home.path(), settings).expect("it is an authority's");
        let node = move || run_tokio(config, operations, services);
        let thread = thread::Builder::new().stack_size(8 << 20).spawn(node).expect("threads are at hand");
        let ended = thread.join().expect("it does not panic");
        let told = ended.expect_err("it cannot listen").to_string();
        assert!(told.contains("cannot listen") && told.contains(&taken.0.to_string()), "{told}");
        assert!(!home.path().join("set-aside-0").exists(), "{told}");
    }
}
