//! Authorities on real disks and sockets with damaged or lost local state fetch it from the others.

use commonware_utils::TestRng;
use futures::FutureExt as _;
use posync_node::{
    config::{Config, Settings},
    genesis,
    handle::{Handle, Operations},
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
    fn start(directory: &Path, settings: Settings) -> Self {
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
        let config = Config::open(directory, settings).expect("it is an authority's");
        let node = move || run_tokio(config, Arc::new(Idle), services);
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

#[test]
fn an_authority_takes_damaged_or_lost_state_from_the_others() {
    let home = tempfile::tempdir().expect("a directory");
    let addresses: Vec<SocketAddr> = (0..4).map(|_| free()).collect();
    let supply = Amount::sync(1_000_000_000);
    let (genesis, secrets) =
        genesis::deal(&addresses, Parameters::LOCAL, supply, Vec::new(), TestRng::new(7)).expect("valid");
    let directories: Vec<PathBuf> = (0..4).map(|index| home.path().join(index.to_string())).collect();
    let signatures = genesis::signatures::sign_all(&genesis, &secrets);
    for (directory, secret) in directories.iter().zip(&secrets) {
        Config::deal(directory, &genesis, &signatures, secret).expect("writable");
    }
    let settings: Vec<Settings> =
        addresses.iter().map(|address| Settings::local(*address, free(), false)).collect();
    let start = |index: usize| {
        let (directory, settings) = (directories[index].clone(), settings[index].clone());
        thread::spawn(move || Authority::start(&directory, settings))
    };
    let starting: Vec<_> = (0..4).map(start).collect();
    let mut running: Vec<Authority> =
        starting.into_iter().map(|thread| thread.join().expect("it starts")).collect();
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
        let first = Authority::start(&directories[0], settings[0].clone());
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
    let second = Authority::start(&directories[1], settings[1].clone());
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
        let signatures = genesis::signatures::sign_all(&genesis, &secrets);
        Config::deal(home.path(), &genesis, &signatures, &secrets[0]).expect("writable");
        let (operations, services) = over_sockets(Serving { key: secrets[0].key.clone(), address: service });
        let config = Config::open(home.path(), settings).expect("it is an authority's");
        let node = move || run_tokio(config, operations, services);
        let thread = thread::Builder::new().stack_size(8 << 20).spawn(node).expect("threads are at hand");
        let ended = thread.join().expect("it does not panic");
        let told = ended.expect_err("it cannot listen").to_string();
        assert!(told.contains("cannot listen") && told.contains(&taken.0.to_string()), "{told}");
        assert!(!home.path().join("set-aside-0").exists(), "{told}");
    }
}
