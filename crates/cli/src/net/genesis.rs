//! The genesis of a network: read from a directory, or fetched from a node and checked against the network file.
//!
//! ```text
//!   network file: chain = SHA-256(genesis), network key, hash of the parameters
//!   <directory>/genesis ──┐
//!   node 1 ──bytes──✕ another chain: named      checked against all three ──► kept in <directory>
//!   node 2 ──bytes──────┘
//! ```
//!
//! Nobody needs to copy the file: a node that gives other bytes is refused, whoever it is.

use super::{ANSWER, Net, Service, dialled, unreached};
use crate::{
    failure::{Exit, Failure, Outcome},
    keys,
    role::GENESIS_FILE,
    target,
};
use commonware_codec::Encode as _;
use commonware_cryptography::ed25519::PrivateKey;
use commonware_math::algebra::Random as _;
use commonware_runtime::tokio::Context;
use futures::StreamExt as _;
use posync_client::light;
use posync_node::genesis::Genesis;
use posync_protocol::{
    block::sha256,
    wire::node::{Ask, NodeAnswer, Nothing},
};
use std::{
    fs, io,
    path::{Path, PathBuf},
    pin::pin,
    time::Duration,
};

/// Time in which a node gives the genesis, which has a few MB at most.
const GIVEN: Duration = Duration::from_secs(20);
/// Nodes that are asked at once, so that silent ones do not hold up the command.
const ASKED: usize = 4;
/// Advice where to get another copy.
const ANOTHER: &str =
    "remove the file: the command fetches the genesis from a node of the network, and checks it";

impl Net {
    /// The genesis at `path`, if one is named; the one in the network's directory; or that of a node, which is kept in
    /// that directory if there is one.
    ///
    /// # Errors
    /// [`Failure`] if it is not the genesis that the network file names, or no node gives that one.
    pub(crate) async fn genesis(&self, context: &Context, path: Option<&Path>) -> Outcome<Genesis> {
        if let Some(path) = path {
            let bytes = fs::read(path).map_err(|error| Failure::file(path, "read", error))?;
            return self.judged(
                path,
                &bytes,
                "leave --genesis out: the command fetches it from a node, and checks it",
            );
        }
        let kept = self.directory.as_ref().map(|directory| directory.join(GENESIS_FILE));
        if let Some(path) = &kept
            && let Some(genesis) = self.kept_genesis(path)?
        {
            return Ok(genesis);
        }
        let genesis = self.fetch_genesis(context, &self.any_key()?).await?;
        if let Some(path) = kept
            && let Err(failure) = target::replace(&path, &genesis.encode())
        {
            // The directory may be another user's: the next command fetches it again.
            tracing::debug!("the genesis is not kept: {}", failure.in_one_line());
        }
        Ok(genesis)
    }

    /// The genesis in a role's directory; `None` if there is no such file.
    ///
    /// # Errors
    /// [`Failure`] if the file is not the genesis that the network file names.
    pub(crate) fn kept_genesis(&self, path: &PathBuf) -> Outcome<Option<Genesis>> {
        match fs::read(path) {
            Ok(bytes) => self.judged(path, &bytes, ANOTHER).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::file(path, "read", error)),
        }
    }

    fn judged(&self, path: &Path, bytes: &[u8], next: &str) -> Outcome<Genesis> {
        self.check_genesis(bytes).map_err(|why| {
            let what = format!("{} is not the genesis of the network file's network", path.display());
            Failure::new(Exit::Local, what, format!("it {why}"), next)
        })
    }

    /// Fetches the genesis from the first node of the network file that gives the right one.
    ///
    /// # Errors
    /// [`Failure`] with the reason of each node; [`Exit::Unproven`] if most of them give that of another network.
    pub(crate) async fn fetch_genesis(&self, context: &Context, key: &PrivateKey) -> Outcome<Genesis> {
        let mut reasons = Vec::new();
        let mut nodes: Vec<&Service> = self.file.nodes.iter().collect();
        // Every command begins elsewhere, so that no node has all the work.
        let first = usize::from(keys::account(&PrivateKey::random(commonware_utils::sys_rng())).0[0]);
        let count = nodes.len().max(1);
        nodes.rotate_left(first % count);
        let answers =
            nodes.into_iter().map(async |node| (self.name(node), genesis_of(context, node, key).await));
        let mut answers = pin!(futures::stream::iter(answers).buffer_unordered(ASKED));
        while let Some((name, answer)) = answers.next().await {
            match answer {
                Ok(bytes) => match self.check_genesis(&bytes) {
                    Ok(genesis) => return Ok(genesis),
                    Err(why) => reasons.push((true, format!("{name} gives a genesis that {why}"))),
                },
                Err(why) => reasons.push((false, format!("{name}: {why}"))),
            }
        }
        reasons.sort();
        Err(unreached(&reasons))
    }

    /// Decodes a genesis and compares it with the network file.
    ///
    /// # Errors
    /// The difference, as the end of a sentence that begins with the genesis.
    fn check_genesis(&self, bytes: &[u8]) -> Result<Genesis, String> {
        let chain = sha256(bytes);
        if chain != self.file.chain {
            let [theirs, ours] = [chain, self.file.chain].map(|chain| hex::encode(&chain[..8]));
            return Err(format!("is of another chain: {theirs}..., not {ours}..."));
        }
        let genesis = Genesis::from_bytes(bytes).map_err(|error| format!("cannot be read: {error}"))?;
        // The chain's name binds both; a network file that contradicts it was made by hand.
        if light::network_key_bytes(&genesis.network_key()) != self.file.network_key {
            return Err("has another network key than the network file, which is wrong".into());
        }
        if sha256(&genesis.parameters.encode()) != self.file.parameters {
            return Err("has other parameters than the network file, which is wrong".into());
        }
        Ok(genesis)
    }
}

/// The bytes that a node gives as the genesis.
async fn genesis_of(context: &Context, node: &Service, key: &PrivateKey) -> Result<Vec<u8>, String> {
    let late = |limit: Duration| format!("it does not answer within {} s", limit.as_secs());
    let client = tokio::time::timeout(ANSWER, dialled(context, node, key, |_| true));
    let client = client.await.map_err(|_| late(ANSWER))??;
    let asked = tokio::time::timeout(GIVEN, client.call(Ask::Genesis(Nothing {})));
    match asked.await.map_err(|_| late(GIVEN))? {
        Ok(NodeAnswer::Genesis(bytes)) => Ok(bytes.into_inner()),
        Ok(_) => Err("it answers something else".into()),
        Err(error) => Err(format!("it gives no genesis, as a node of an older version: {error}")),
    }
}
