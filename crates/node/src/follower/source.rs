//! Fetches the certified chain from the upstream nodes and brings it to the block store, run by run.
//!
//! ```text
//!   upstream ──headers, certificate──► Follow ──► run ──bodies──► blocks ──► Store
//!                                                    one run is fetched while the one before is applied
//! ```
//!
//! Invariants
//! 1. Only a block whose header is certified, and whose body its header names, reaches the store.
//! 2. At most two runs, of [`HEADERS_MAX`] blocks each, are in memory: 170 MB if every block were full.
//! 3. An upstream that lies, lags or hangs is left by [`Connection`]; when none is left, this waits and tries
//!    again without end. What the node has, it serves meanwhile.

use crate::{
    engine::{Block, Finalization, Runtime, Store},
    genesis::hash,
    handle::Handle,
};
use commonware_codec::{Copying, DecodeExt as _};
use commonware_cryptography::Digestible as _;
use futures::{StreamExt as _, stream};
use posync_client::{
    Backoff,
    connection::{Connection, Error, Follow, Run},
    light,
};
use posync_protocol::{block::Header, limits::HEADERS_MAX, wire::node::Unavailable};
use std::time::Duration;

/// Bodies that are fetched at the same time.
const BODIES_AT_ONCE: usize = 8;
/// Pauses after a failure of all upstream nodes.
const PAUSE: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(10));
const _: () = assert!(BODIES_AT_ONCE <= HEADERS_MAX);

/// The certified chain is not the one that this node holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "block {height} is certified, but does not follow the block that this node holds before it: the network has two \
     histories, or this directory's storage is damaged; keep the directory, and ask the operators of other nodes \
     which block {} they have", height - 1
)]
pub struct Forked {
    /// Height of the block that does not follow.
    pub height: u64,
}

/// Brings blocks to the store until the node stops.
///
/// # Errors
/// [`Forked`].
pub(crate) async fn run<E: Runtime>(
    context: E,
    connection: Connection,
    handle: Handle,
    mut store: Store,
) -> Result<(), Forked> {
    let mut upstream = Upstream { context, connection };
    let mut applied = handle.heights();
    let mut sent = handle.applied().max(store.begins());
    let mut parent = digest_at::<E>(&handle, sent).await;
    let mut follow = upstream.connection.follow(sent + 1);
    loop {
        let run = upstream.next_run(&mut follow, sent + 1).await;
        let first = run.headers.first().expect("a run has a header");
        if parent.is_some_and(|parent| first.parent != parent) {
            return Err(Forked { height: first.height });
        }
        let (blocks, certificate) = upstream.fetch(run).await;
        handle.taking().wait_on().await;
        // The run before must be in the state first, so that no more than two are in memory.
        let before = sent;
        if applied.wait_for(|applied| *applied >= before).await.is_err() {
            return Ok(());
        }
        let last = blocks.last().expect("as many as headers");
        (sent, parent) = (last.header().height, Some(hash(&last.digest())));
        store.put(handle.applied(), blocks, certificate);
    }
}

/// The digest of the block at `height`, if it is kept.
async fn digest_at<E: Runtime>(handle: &Handle, height: u64) -> Option<[u8; 32]> {
    if height == 0 {
        return Some(hash(&handle.genesis().block::<E>().digest()));
    }
    Some(handle.header(height).await?.digest())
}

/// The upstream nodes, and the clock for the pauses between attempts.
struct Upstream<E> {
    context: E,
    connection: Connection,
}

impl<E: Runtime> Upstream<E> {
    /// The next run; waits for as long as the upstream nodes give none.
    async fn next_run(&mut self, follow: &mut Follow, wanted: u64) -> Run {
        let mut condition = Condition::new("certified headers", wanted);
        loop {
            match follow.next_run().await {
                Ok(run) => {
                    condition.over();
                    return run;
                }
                Err(error) => self.context.sleep(condition.log(&error)).await,
            }
        }
    }

    /// The blocks of a run and the certificate of the last one.
    async fn fetch(&self, run: Run) -> (Vec<Block>, Finalization) {
        let certificate = Finalization::decode(Copying(&run.certificate)).expect("it was verified");
        let blocks = stream::iter(run.headers).map(|header| self.block(header)).buffered(BODIES_AT_ONCE);
        (blocks.collect().await, certificate)
    }

    /// The block of a certified header; waits for as long as the upstream nodes do not give its body.
    async fn block(&self, header: Header) -> Block {
        let mut condition = Condition::new("a body", header.height);
        loop {
            let body = self.connection.body(&header).await;
            let block = body.and_then(|body| {
                // The authorities certified what this program cannot read.
                let unread = |_| light::Error::Malformed("a certified block").into();
                Block::assemble(header.clone(), body).map_err(unread)
            });
            match block {
                Ok(block) => {
                    condition.over();
                    return block;
                }
                Err(error) => self.context.sleep(condition.log(&error)).await,
            }
        }
    }
}

/// A failure of all upstream nodes: its log lines and its pauses.
pub(super) struct Condition {
    wanted: &'static str,
    height: u64,
    pauses: Backoff,
    last: Option<String>,
}

impl Condition {
    pub(super) const fn new(wanted: &'static str, height: u64) -> Self {
        Self { wanted, height, pauses: PAUSE, last: None }
    }

    /// Logs an error that is new, and returns the pause before the next attempt.
    pub(super) fn log(&mut self, error: &Error) -> Duration {
        let text = self.text(error);
        if self.last.as_ref() != Some(&text) {
            tracing::error!(height = self.height, "{text}");
            self.last = Some(text);
        }
        self.pauses.next().unwrap_or(Duration::from_secs(10))
    }

    fn text(&self, error: &Error) -> String {
        let Self { wanted, height, .. } = self;
        if matches!(error, Error::Unavailable(Unavailable::Pruned)) {
            format!(
                "no upstream node keeps what this node asks for any more ({wanted}, block {height}), so it cannot go on: \
                 name an archive as upstream, a node with `archive = true` in its settings, or move `storage` in its \
                 directory away, and it takes a recent state instead; what this node has, it serves"
            )
        } else {
            format!("no upstream node gives {wanted}: {error}; this node serves what it has and tries again")
        }
    }

    pub(super) fn over(&self) {
        if self.last.is_some() {
            tracing::info!(height = self.height, "the upstream nodes answer again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_learns_that_only_an_archive_has_the_block() {
        let condition = Condition::new("certified headers", 7);
        let pruned = condition.text(&Error::Unavailable(Unavailable::Pruned));
        assert!(pruned.contains("block 7") && pruned.contains("archive = true"), "{pruned}");
        let lost = condition.text(&Error::Unreachable("refused".into()));
        assert!(lost.contains("refused") && lost.contains("tries again"), "{lost}");
    }

    #[test]
    fn pauses_after_failures_grow_and_stay_bounded() {
        let mut condition = Condition::new("a body", 1);
        let pauses: Vec<Duration> = (0..20).map(|_| condition.log(&Error::NoEndpoint)).collect();
        assert!(pauses.is_sorted() && pauses[19] == Duration::from_secs(10));
    }
}
