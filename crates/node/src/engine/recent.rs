//! The store of final blocks or certificates, with the newest ones in memory.
//!
//! Each new block is read several times within its first second: by the state machine, by the next proposal,
//! by the feed of receipts and by the services. Without this memory each of them costs a read of the disk and
//! a decoding. Everything else goes to the archive below, and so does every write.
//!
//! Invariants:
//! 1. Only a value that the archive took as its highest is remembered, so a read returns the same value with
//!    this memory as without it.
//! 2. At most [`REMEMBERED_MAX`] values are in memory.

use super::{Block, Digest, Finalization, Scheme};
use commonware_consensus::{
    Heightable as _,
    marshal::store::{Blocks, Certificates},
    types::Height,
};
use commonware_runtime::Handle;
use commonware_storage::archive::Identifier;
use std::{collections::VecDeque, sync::Arc};

/// Values that stay in memory: 8 MiB of the largest blocks.
const REMEMBERED_MAX: usize = 8;

/// An archive `A` of values `V`, with its newest values in memory.
pub(super) struct Recent<A, V> {
    archive: A,
    newest: VecDeque<(Height, Digest, V)>,
}

impl<A, V: Clone> Recent<A, V> {
    /// Wraps an archive that was just opened.
    pub(super) const fn new(archive: A) -> Self {
        Self { archive, newest: VecDeque::new() }
    }

    fn remembered(&self, id: &Identifier<'_, Digest>) -> Option<V> {
        let is_it = |height: &Height, digest: &Digest| match id {
            Identifier::Index(index) => height.get() == *index,
            Identifier::Key(key) => digest == *key,
        };
        self.newest
            .iter()
            .rev()
            .find(|(height, digest, _)| is_it(height, digest))
            .map(|found| found.2.clone())
    }

    /// Keeps the memory over the archive that `work` returns.
    async fn over<E, F: Future<Output = Result<A, E>>>(self, work: impl FnOnce(A) -> F) -> Result<Self, E> {
        let Self { archive, newest } = self;
        Ok(Self { archive: work(archive).await?, newest })
    }

    fn remember(&mut self, height: Height, digest: Digest, value: &V) {
        if self.newest.len() == REMEMBERED_MAX {
            self.newest.pop_front();
        }
        self.newest.push_back((height, digest, value.clone()));
    }
}

impl<A> Certificates for Recent<A, Finalization>
where
    A: Certificates<BlockDigest = Digest, Commitment = Digest, Scheme = Scheme>,
{
    type BlockDigest = Digest;
    type Commitment = Digest;
    type Scheme = Scheme;
    type Error = A::Error;

    async fn put(
        self,
        height: Height,
        digest: Digest,
        finalization: &Finalization,
    ) -> Result<Self, A::Error> {
        let Self { archive, newest } = self;
        let is_highest = archive.last_index().is_none_or(|last| height > last);
        let mut stored = Self { archive: archive.put(height, digest, finalization).await?, newest };
        if is_highest {
            stored.remember(height, digest, finalization);
        }
        Ok(stored)
    }

    async fn sync(self) -> Result<Self, A::Error> {
        self.over(A::sync).await
    }

    async fn start_sync(self) -> Result<(Self, Handle<()>), A::Error> {
        let Self { archive, newest } = self;
        archive.start_sync().await.map(|(archive, syncing)| (Self { archive, newest }, syncing))
    }

    async fn get(&self, id: Identifier<'_, Digest>) -> Result<Option<Finalization>, A::Error> {
        match self.remembered(&id) {
            Some(finalization) => Ok(Some(finalization)),
            None => self.archive.get(id).await,
        }
    }

    async fn has(&self, height: Height) -> Result<bool, A::Error> {
        self.archive.has(height).await
    }

    async fn prune(self, min: Height) -> Result<Self, A::Error> {
        self.over(|archive| archive.prune(min)).await
    }

    fn last_index(&self) -> Option<Height> {
        self.archive.last_index()
    }

    fn ranges_from(&self, from: Height) -> impl Iterator<Item = (Height, Height)> {
        self.archive.ranges_from(from)
    }
}

impl<A: Blocks<Block = Arc<Block>>> Blocks for Recent<A, Arc<Block>> {
    type Block = Arc<Block>;
    type Error = A::Error;

    async fn put(self, digest: Digest, block: &Arc<Block>) -> Result<Self, A::Error> {
        let Self { archive, newest } = self;
        let is_highest = archive.last_index().is_none_or(|last| block.height() > last);
        let mut stored = Self { archive: archive.put(digest, block).await?, newest };
        if is_highest {
            stored.remember(block.height(), digest, block);
        }
        Ok(stored)
    }

    async fn sync(self) -> Result<Self, A::Error> {
        self.over(A::sync).await
    }

    async fn start_sync(self) -> Result<(Self, Handle<()>), A::Error> {
        let Self { archive, newest } = self;
        archive.start_sync().await.map(|(archive, syncing)| (Self { archive, newest }, syncing))
    }

    async fn get(&self, id: Identifier<'_, Digest>) -> Result<Option<Arc<Block>>, A::Error> {
        match self.remembered(&id) {
            Some(block) => Ok(Some(block)),
            None => self.archive.get(id).await,
        }
    }

    async fn prune(self, min: Height) -> Result<Self, A::Error> {
        self.over(|archive| archive.prune(min)).await
    }

    fn missing_items(&self, start: Height, max: usize) -> Vec<Height> {
        self.archive.missing_items(start, max)
    }

    fn next_gap(&self, value: Height) -> (Option<Height>, Option<Height>) {
        self.archive.next_gap(value)
    }

    fn last_index(&self) -> Option<Height> {
        self.archive.last_index()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::{Files, PrivateKey},
        genesis::{Genesis, deal},
    };
    use commonware_cryptography::{Digestible as _, Signer as _};
    use commonware_runtime::{Runner as _, Supervisor as _, deterministic};
    use commonware_storage::{archive::prunable, translator::EightCap};
    use commonware_utils::{NZUsize, TestRng};
    use posync_protocol::{
        Amount, Bounded,
        block::{BlockBody, Header},
        limits::Parameters,
    };

    type Archive = prunable::Archive<EightCap, deterministic::Context, Digest, Arc<Block>>;
    type Stored = Recent<Archive, Arc<Block>>;

    fn genesis() -> Genesis {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 9_000));
        let dealt = deal(&[address], Parameters::LOCAL, Amount::sync(10_000), Vec::new(), TestRng::new(1));
        dealt.expect("valid").0
    }

    /// A block at this height, which differs by its time.
    fn block(genesis: &Genesis, height: u64, time_ms: u64) -> Arc<Block> {
        let first = genesis.block::<deterministic::Context>();
        let header = Header { height, time_ms, ..first.header().clone() };
        let (draws, operations, dkg) = (Bounded::default(), Bounded::default(), Bounded::default());
        let body = BlockBody { draws, operations, dkg };
        Arc::new(Block::sign(header, body, None, &PrivateKey::from_seed(1)))
    }

    async fn archive(context: &deterministic::Context, name: &'static str) -> Archive {
        let files = Files::open(context, "node".into(), NZUsize!(64), false).await;
        Archive::init(context.child(name), files.archive("blocks")).await.expect("opens")
    }

    async fn expect_all<S>(store: &S, blocks: &[Arc<Block>])
    where
        S: Blocks<Block = Arc<Block>>,
    {
        for block in blocks {
            let (height, digest) = (block.header().height, block.digest());
            for id in [Identifier::Index(height), Identifier::Key(&digest)] {
                let found = store.get(id).await.expect("reads").expect("stored");
                assert_eq!(found.digest(), digest, "height {height}");
            }
        }
    }

    #[test]
    fn a_block_from_memory_is_the_one_that_the_archive_holds() {
        deterministic::Runner::default().start(|context| async move {
            let genesis = genesis();
            let count = 3 * REMEMBERED_MAX as u64;
            let mut blocks: Vec<_> = (1..=count).map(|height| block(&genesis, height, 1)).collect();
            // A gap that is filled late, far below the newest.
            let late = blocks.remove(4);
            blocks.push(late.clone());
            let mut stored = Stored::new(archive(&context, "blocks").await);
            for block in &blocks {
                stored = stored.put(block.digest(), block).await.expect("writes");
            }
            assert_eq!(stored.newest.len(), REMEMBERED_MAX);
            assert!(stored.remembered(&Identifier::Index(count)).is_some());
            assert!(stored.remembered(&Identifier::Key(&late.digest())).is_none(), "it is not new");
            // The archive ignores a second block of a height, and so does the memory.
            for height in [1, count] {
                let second = block(&genesis, height, 2);
                stored = stored.put(second.digest(), &second).await.expect("writes");
                assert!(stored.get(Identifier::Key(&second.digest())).await.expect("reads").is_none());
            }
            expect_all(&stored, &blocks).await;
            assert!(stored.get(Identifier::Index(count + 1)).await.expect("reads").is_none());
            drop(stored.sync().await.expect("writes"));
            expect_all(&archive(&context, "again").await, &blocks).await;
        });
    }
}
