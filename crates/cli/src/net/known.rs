//! The nodes that commands learned from the ledger, in a file of the directory that `--net` names.
//!
//! Invariants
//! 1. The file names nodes that have answered, and is a help and no more. Without it, or if it is damaged or cannot be
//!    written, a command asks the nodes of the network file alone.
//! 2. A list that cannot be read costs one command in [`AGAIN`] at most twice [`PATIENCE`]: the attempt is noted in the
//!    file before it begins.

use super::file::NetworkFile;
use crate::target;
use posync_client::{
    connection::{Connection, Learned},
    known::{self, Listed},
};
use posync_protocol::Hash;
use std::{
    fs::{self, File},
    io::Read as _,
    path::Path,
    time::Duration,
};

/// Name of the file.
const FILE: &str = "nodes.known";
/// Age at which the list is read anew.
const FRESH: Duration = Duration::from_secs(600);
/// Time from an attempt that failed, or was cut short, to the next one.
const AGAIN: Duration = Duration::from_secs(120);
/// Numbers of the writing: the list was read, or an attempt to read it began.
const READ: u64 = 0;
const BEGUN: u64 = 1;
/// Time that a command spends on it.
const PATIENCE: Duration = Duration::from_secs(3);
/// Most bytes that are read: more than the largest list.
const BYTES_MAX: u64 = 64 << 10;

/// The nodes that an earlier command learned.
pub(super) fn read(directory: &Path, file: &NetworkFile) -> Vec<Learned> {
    decoded(&directory.join(FILE), &file.chain).map(|(_, nodes)| nodes).unwrap_or_default()
}

/// The number of the writing and the nodes in the file, if it is intact and of this chain.
fn decoded(path: &Path, chain: &Hash) -> Option<(u64, Vec<Learned>)> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(BYTES_MAX).read_to_end(&mut bytes).ok()?;
    known::decode(chain, &bytes)
}

/// True if the list is to be read: it is old, an attempt to read it failed some time ago, or there is none.
fn is_due(path: &Path, chain: &Hash) -> bool {
    let age = fs::metadata(path).and_then(|about| about.modified()).ok().and_then(|at| at.elapsed().ok());
    let rest = match decoded(path, chain) {
        Some((READ, _)) => FRESH,
        _ => AGAIN,
    };
    age.is_none_or(|age| age >= rest)
}

/// Reads the ledger's list if it is due, and keeps those of its nodes that have answered this or an earlier command;
/// `kept` are the earlier ones. A directory in which nothing can be kept, such as one that another user owns, is left
/// as it is.
pub(crate) async fn renew(directory: &Path, connection: &Connection, kept: &[Learned]) {
    let (path, chain) = (directory.join(FILE), connection.light().chain());
    let keep = |number, nodes: &[Learned]| target::replace(&path, &known::encode(&chain, number, nodes));
    if !is_due(&path, &chain) || keep(BEGUN, kept).is_err() {
        return;
    }
    let Ok(Ok(listed)) = tokio::time::timeout(PATIENCE, known::listed(connection)).await else {
        return;
    };
    let listed: Vec<Learned> = listed.iter().map(Listed::learned).collect();
    connection.learn(&listed);
    let _ = tokio::time::timeout(PATIENCE, connection.sound_out()).await;
    let mut nodes = connection.learned_and_heard();
    for old in kept {
        let still = listed.iter().find(|node| node.endpoint == old.endpoint);
        nodes.extend(still.filter(|still| nodes.iter().all(|node| node.endpoint != still.endpoint)).cloned());
    }
    // If this fails, the note of the attempt stands.
    let _ = keep(READ, &nodes);
}

#[cfg(test)]
mod tests {
    use super::{super::file::tests::network, *};
    use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
    use commonware_runtime::{Runner as _, Supervisor as _, tokio::Runner};
    use posync_client::connection::Endpoint;
    use std::{net::TcpListener, time::SystemTime};

    /// A connection to one node, at the address of `listener`.
    fn connection(context: &commonware_runtime::tokio::Context, listener: &TcpListener) -> Connection {
        let account = posync_protocol::Account::of(&PrivateKey::from_seed(1).public_key());
        let node = Endpoint { account, address: listener.local_addr().expect("bound").into() };
        let light = network(1).light().expect("a key");
        let (reading, over) = (context.child("reading"), context.child("network"));
        Connection::new(reading, over, PrivateKey::from_seed(2), vec![node], light)
    }

    /// Sets the time of the last writing.
    fn age(path: &Path, by: Duration) {
        let file = File::options().write(true).open(path).expect("there");
        file.set_modified(SystemTime::now() - by).expect("its owner may");
    }

    #[test]
    fn a_list_that_cannot_be_read_is_asked_for_once_in_two_minutes_and_what_was_learned_stays() {
        let home = tempfile::tempdir().expect("a directory");
        let (path, file) = (home.path().join(FILE), network(1));
        // It takes connections, and nobody answers.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("possible");
        let asked = || listener.accept().is_ok();
        Runner::default().start(async |context| {
            let endpoint = Endpoint {
                account: posync_protocol::Account([9; 32]),
                address: "node.example.org:4001".parse().expect("an address"),
            };
            let learned = Learned { endpoint, has_seat: true };
            let connection = connection(&context, &listener);
            let kept = std::slice::from_ref(&learned);
            renew(home.path(), &connection, kept).await;
            assert!(asked(), "the first command asks");
            while asked() {}
            assert_eq!(decoded(&path, &file.chain), Some((BEGUN, vec![learned.clone()])));
            for (since, is_due_then) in [(Duration::ZERO, false), (AGAIN / 2, false), (AGAIN, true)] {
                age(&path, since);
                assert_eq!(is_due(&path, &file.chain), is_due_then, "{since:?}");
            }
            age(&path, Duration::ZERO);
            renew(home.path(), &connection, kept).await;
            assert!(!asked(), "the second command goes on at once");
            assert_eq!(read(home.path(), &file), [learned]);
        });
    }

    #[test]
    fn a_list_that_was_read_is_fresh_for_ten_minutes_and_a_damaged_file_is_read_anew() {
        let home = tempfile::tempdir().expect("a directory");
        let (path, chain) = (home.path().join(FILE), network(1).chain);
        assert!(is_due(&path, &chain), "there is none");
        fs::write(&path, known::encode(&chain, READ, &[])).expect("writable");
        age(&path, FRESH - Duration::from_secs(10));
        assert!(!is_due(&path, &chain));
        age(&path, FRESH);
        assert!(is_due(&path, &chain));
        fs::write(&path, b"damaged").expect("writable");
        age(&path, AGAIN);
        assert!(is_due(&path, &chain));
    }

    #[test]
    fn nobody_is_asked_for_a_list_that_cannot_be_kept() {
        let home = tempfile::tempdir().expect("a directory");
        let gone = home.path().join("gone");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("possible");
        Runner::default().start(async |context| {
            renew(&gone, &connection(&context, &listener), &[]).await;
        });
        assert!(listener.accept().is_err() && !gone.exists());
    }
}
