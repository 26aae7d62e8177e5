//! The nodes that commands learned from the ledger, in a file of the directory that `--net` names.
//!
//! Invariant: the file names nodes that have answered, and is a help and no more. Without it, or if it is damaged or cannot be written, a command asks
//! the nodes of the network file alone.

use super::file::NetworkFile;
use crate::target;
use posync_client::{
    connection::{Connection, Learned},
    known::{self, Listed},
};
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
/// Time that a command spends on it.
const PATIENCE: Duration = Duration::from_secs(3);
/// Most bytes that are read: more than the largest list.
const BYTES_MAX: u64 = 64 << 10;

/// The nodes that an earlier command learned.
pub(super) fn read(directory: &Path, file: &NetworkFile) -> Vec<Learned> {
    let mut bytes = Vec::new();
    let opened = File::open(directory.join(FILE));
    if opened.and_then(|file| file.take(BYTES_MAX).read_to_end(&mut bytes)).is_err() {
        return Vec::new();
    }
    known::decode(&file.chain, &bytes).map(|(_, nodes)| nodes).unwrap_or_default()
}

/// Reads the ledger's list if the file is old, and keeps those of its nodes that have answered this or an earlier
/// command; `kept` are the earlier ones.
pub(crate) async fn renew(directory: &Path, connection: &Connection, kept: &[Learned]) {
    let path = directory.join(FILE);
    let age = fs::metadata(&path).and_then(|about| about.modified()).ok().and_then(|at| at.elapsed().ok());
    if age.is_some_and(|age| age < FRESH) {
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
    // A directory that another user owns is read only.
    let _ = target::replace(&path, &known::encode(&connection.light().chain(), 0, &nodes));
}
