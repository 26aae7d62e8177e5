//! Ends a node one block before rules that it does not know.

use posync_client::watch;
use posync_protocol::{block::Header, rules::Rules};

/// The network has reached rules that this program does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the network's block {height} follows version {version} of the rules, where this program knows {known}, the \
     newest being {newest}: this node stops at block {}, and nothing is lost. Install a posync that knows version \
     {version} at that height and start the node again; it goes on from there",
    height.saturating_sub(1)
)]
pub struct UnknownRules {
    /// Height of the first block that this program cannot apply.
    pub height: u64,
    /// Version that the block's header names.
    pub version: u16,
    /// Version that this program knows for the height.
    pub known: u16,
    /// Newest version that this program knows.
    pub newest: u16,
}

/// The rules of a running node, and the end that an unknown version brings; clones share it.
#[derive(Clone)]
pub(crate) struct Versions {
    rules: Rules,
    unknown: watch::Sender<Option<UnknownRules>>,
}

impl Versions {
    /// Starts with these rules.
    pub(crate) fn new(rules: Rules) -> Self {
        Self { rules, unknown: watch::Sender::new(None) }
    }

    /// The version of a block at `height`.
    pub(crate) fn at(&self, height: u64) -> u16 {
        self.rules.version_at(height)
    }

    /// True if the header's version is the one for its height.
    pub(crate) fn fits(&self, header: &Header) -> bool {
        header.version == self.at(header.height)
    }

    /// Ends the node because of a final block, which must not be applied.
    pub(crate) fn end(&self, header: &Header) {
        let (height, version) = (header.height, header.version);
        let unknown = UnknownRules { height, version, known: self.at(height), newest: self.rules.newest() };
        tracing::error!(%unknown, "this node ends");
        self.unknown.send_replace(Some(unknown));
    }

    /// Waits until the node must end.
    pub(crate) async fn ended(&self) -> UnknownRules {
        let mut unknown = self.unknown.subscribe();
        loop {
            if let Some(unknown) = &*unknown.borrow_and_update() {
                return unknown.clone();
            }
            // The sender lives in self.
            let _ = unknown.changed().await;
        }
    }
}
