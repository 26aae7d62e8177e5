//! Sizes, quotas, timeouts and partitions of the engine. Every queue and cache of it is bounded here.

use super::{AUTHORITIES_MAX, Block, Digest, PublicKey, Scheme, StoreOperation, Variant};
use crate::epoch::elector::Hybrid;
use commonware_codec::FixedSize as _;
use commonware_consensus::{
    marshal::{self, standard::Standard},
    simplex::{
        SkipBudget,
        config::{ForwardPolicy, SkipPolicy},
    },
    types::ViewDelta,
};
use commonware_glue::{
    dkg::{self, orchestrator, probe},
    stateful::{
        PruneConfig,
        db::{SyncEngineConfig, p2p as state_resolver},
    },
};
use commonware_p2p::max_message_size;
use commonware_parallel::Sequential;
use commonware_runtime::{
    Quota, Storage,
    buffer::paged::{CacheRef, page_size},
};
use commonware_storage::{
    archive::prunable, journal::contiguous::fixed::Config as LogConfig, merkle::full::Config as MerkleConfig,
    mmr, qmdb::current::FixedConfig, translator::EightCap,
};
use commonware_utils::{NZDuration, NZU32, NZU64, NZUsize};
use posync_protocol::limits::{self, BLOCKS_KEPT, Parameters};
use std::{
    num::{NonZeroU16, NonZeroU64, NonZeroUsize},
    time::Duration,
};

/// The p2p channels of the authorities.
pub mod channels {
    /// Votes of the running term.
    pub const VOTES: u64 = 0;
    /// Certificates of the running term.
    pub(crate) const CERTIFICATES: u64 = 1;
    /// Requests for certificates that a node lacks.
    pub(crate) const RESOLVER: u64 = 2;
    /// Requests for blocks that a node lacks.
    pub(crate) const BACKFILL: u64 = 3;
    /// Broadcast of newly proposed blocks.
    pub const BROADCAST: u64 = 4;
    /// State for a node that starts without any.
    pub(crate) const STATE: u64 = 5;
    /// Dealings and acknowledgements of the key reshare.
    pub(crate) const RESHARE: u64 = 6;
    /// Requests for the block at which a node without state begins.
    pub(crate) const PROBE: u64 = 7;
    /// Batches of operations; served by the mempool.
    pub(crate) const MEMPOOL: u64 = 8;
    /// Headers and evidence that authorities saw others sign; served by the equivocation watcher.
    pub(crate) const EQUIVOCATION: u64 = 9;
    /// Each authority's newest proposal that the others hold, and their clocks.
    pub(crate) const OWN_KEY: u64 = 10;
    /// Channels of the engine itself, in the order in which a transport carries them.
    pub(crate) const ENGINE: [u64; 10] =
        [VOTES, CERTIFICATES, RESOLVER, BACKFILL, BROADCAST, STATE, RESHARE, PROBE, EQUIVOCATION, OWN_KEY];
}

/// Bytes of a page on disk; changing it destroys stored data.
pub(super) const PAGE_SIZE: NonZeroU16 = page_size(4_096);
pub(super) const MAILBOX: NonZeroUsize = NZUsize!(1_024);
pub(super) const BUFFER: NonZeroUsize = NZUsize!(65_536);
pub(super) const ITEMS_PER_SECTION: NonZeroU64 = NZU64!(2_048);
/// Operations of the store in one answer of state sync: about 90 kB.
pub(super) const SYNC_BATCH: NonZeroU64 = NZU64!(256);
/// Finalized blocks that the state machine may hold before it acknowledges the first.
pub(super) const PENDING_ACKS: NonZeroUsize = NZUsize!(16);
/// Blocks whose operations the store keeps, for nodes that sync.
pub(super) const STATE_BLOCKS_KEPT: usize = 256;
/// Views whose votes and unfinished blocks stay on disk. Each view is a file, and a term with fewer views
/// keeps files of the terms before it, 16 each; so this is well below the shortest term.
pub(super) const VIEWS_KEPT: ViewDelta = ViewDelta::new(16);
/// Blocks in a file of an archive node, which keeps every file open: 6 files for this many blocks.
const ARCHIVE_ITEMS_PER_SECTION: NonZeroU64 = NZU64!(1 << 20);
/// Entries of the state's log, and nodes of its tree, in a file of an archive node, which prunes none.
const ARCHIVE_ITEMS_PER_BLOB: NonZeroU64 = NZU64!(1 << 22);
pub(super) const FETCH_TIMEOUT: Duration = Duration::from_secs(2);
pub(super) const FETCH_RETRY: Duration = Duration::from_millis(100);
pub(super) const RESHARE_NAMESPACE: &[u8] = b"posync/reshare/1";

/// Most peers of one term: its dealers, its players and the players of the next, which may all differ, those
/// that wait, and this node. The transport panics at a larger set.
pub const PEERS_MAX: NonZeroUsize =
    NZUsize!(3 * AUTHORITIES_MAX.get() as usize + limits::WAITING_MAX as usize + 1);
/// Recent terms whose peers stay connected: the running one and the one before it.
pub const PEER_SETS: NonZeroUsize = NZUsize!(2);

/// The quota of a channel with few peers, per peer and direction.
pub const fn quota() -> Quota {
    Quota::per_second(NZU32!(256))
}

/// The quota of a channel of a running network, per peer and direction. The transport allocates a place for
/// every message of a burst from each of [`PEERS_MAX`] peers, so bursts are small and rates are not.
pub(crate) const fn quota_of(channel: u64) -> Quota {
    let (rate, burst) = match channel {
        channels::VOTES | channels::CERTIFICATES => (NZU32!(256), NZU32!(32)),
        channels::BACKFILL | channels::STATE => (NZU32!(256), NZU32!(32)),
        channels::MEMPOOL => (NZU32!(256), NZU32!(64)),
        channels::PROBE | channels::OWN_KEY => (NZU32!(8), NZU32!(4)),
        _ => (NZU32!(64), NZU32!(16)),
    };
    Quota::per_second(rate).allow_burst(burst)
}

/// The largest message of the engine.
pub fn message_bytes_max() -> u32 {
    let authorities = AUTHORITIES_MAX.get();
    max_message_size(&[
        orchestrator::max_payload_size::<Scheme, Digest>(authorities),
        marshal::max_payload_size::<Standard<Block>, Scheme>(authorities, &()),
        probe::max_payload_size::<Standard<Block>, Scheme>(authorities, &()),
        dkg::max_payload_size::<Variant, PublicKey>(AUTHORITIES_MAX),
        state_resolver::max_payload_size::<mmr::Family, Digest>(SYNC_BATCH, StoreOperation::SIZE),
    ])
}

/// The amount of history that is kept, and the interval of pruning.
pub(super) const fn prune_config() -> PruneConfig {
    PruneConfig {
        maintenance_interval: NZUsize!(64),
        retained_marshal_blocks: BLOCKS_KEPT as usize,
        retained_qmdb_blocks: STATE_BLOCKS_KEPT,
    }
}

/// Batch sizes and limits of state sync.
pub(super) const fn sync_config() -> SyncEngineConfig {
    SyncEngineConfig {
        fetch_batch_size: SYNC_BATCH,
        apply_batch_size: NZU64!(1_024),
        max_outstanding_requests: NZUsize!(8),
    }
}

/// Names of a node's partitions, and the page cache that they share.
#[derive(Clone)]
pub(crate) struct Files {
    prefix: String,
    page_cache: CacheRef,
    /// True if files have the larger size of a node that prunes nothing.
    is_large: bool,
}

impl Files {
    /// Uses partitions that start with `prefix`, and a cache of `pages`. An archive has large files, unless
    /// its directory already has small ones, whose size is fixed.
    pub(crate) async fn open<E: Storage>(
        context: &E,
        prefix: String,
        pages: NonZeroUsize,
        archive: bool,
    ) -> Self {
        let files = Self { prefix, page_cache: CacheRef::new(PAGE_SIZE, pages), is_large: false };
        let is_large = archive && context.scan(&files.partition("blocks-metadata")).await.is_err();
        Self { is_large, ..files }
    }

    /// The partition, or prefix of partitions, of one part of the node.
    pub(crate) fn partition(&self, part: &str) -> String {
        format!("{}-{part}", self.prefix)
    }

    /// The partition of a part whose files are larger in an archive.
    fn sized(&self, part: &str) -> String {
        self.partition(&if self.is_large { format!("archive-{part}") } else { part.into() })
    }

    const fn pick(&self, small: NonZeroU64, large: NonZeroU64) -> NonZeroU64 {
        if self.is_large { large } else { small }
    }

    /// The partition to which consensus of a term writes.
    pub(super) fn consensus(&self, term: u64) -> String {
        format!("{}_consensus_{term}", self.partition("orchestrator"))
    }

    /// The page cache that all partitions share.
    pub(super) fn page_cache(&self) -> CacheRef {
        self.page_cache.clone()
    }

    /// Configuration of an archive that is indexed by height and digest.
    pub(crate) fn archive(&self, name: &str) -> prunable::Config<EightCap, ()> {
        prunable::Config {
            translator: EightCap,
            metadata_partition: self.sized(&format!("{name}-metadata")),
            key_partition: self.sized(&format!("{name}-key")),
            key_page_cache: self.page_cache.clone(),
            value_partition: self.sized(&format!("{name}-value")),
            compression: None,
            codec_config: (),
            items_per_section: self.pick(ITEMS_PER_SECTION, ARCHIVE_ITEMS_PER_SECTION),
            key_write_buffer: BUFFER,
            value_write_buffer: BUFFER,
            replay_buffer: BUFFER,
        }
    }

    /// Configuration of the record store.
    pub(super) fn store(&self) -> FixedConfig<EightCap, Sequential> {
        FixedConfig {
            merkle_config: MerkleConfig {
                journal_partition: self.sized("state-merkle-journal"),
                metadata_partition: self.sized("state-merkle-metadata"),
                items_per_blob: self.pick(NZU64!(65_536), ARCHIVE_ITEMS_PER_BLOB),
                write_buffer: BUFFER,
                replay_buffer: BUFFER,
                strategy: Sequential,
                page_cache: self.page_cache.clone(),
            },
            journal_config: LogConfig {
                partition: self.sized("state-log"),
                items_per_blob: self.pick(NZU64!(8_192), ARCHIVE_ITEMS_PER_BLOB),
                page_cache: self.page_cache.clone(),
                write_buffer: BUFFER,
                replay_buffer: BUFFER,
            },
            grafted_metadata_partition: self.sized("state-grafted"),
            translator: EightCap,
            init_cache: Some(NZUsize!(65_536)),
            init_buffer: NZUsize!(1 << 20),
            init_concurrency: (),
        }
    }

    /// Configuration of the consensus of one term.
    pub(super) fn simplex(
        &self,
        parameters: &Parameters,
        elector: Hybrid,
    ) -> orchestrator::SimplexConfig<Hybrid> {
        let leader = Duration::from_millis(parameters.leader_timeout_ms);
        let certification = Duration::from_millis(parameters.certification_timeout_ms);
        orchestrator::SimplexConfig {
            elector,
            mailbox_size: MAILBOX,
            replay_buffer: BUFFER,
            write_buffer: BUFFER,
            page_cache: self.page_cache(),
            leader_timeout: leader,
            certification_timeout: certification,
            timeout_retry: leader / 2,
            fetch_timeout: NZDuration!(FETCH_TIMEOUT),
            fetch_retry_delay: FETCH_RETRY,
            view_retention: VIEWS_KEPT,
            skip: SkipPolicy::Enabled { timeout: 2 * certification, budget: SkipBudget::Participants },
            forward: ForwardPolicy::Disabled,
            track_historical_votes: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The transport allocates places for every peer's burst: 224 bytes each, inbound, and as many outbound.
    #[test]
    fn the_largest_term_fits_and_its_queues_stay_small() {
        let most = AUTHORITIES_MAX.get() as usize;
        assert!(
            PEERS_MAX.get() > 3 * most + limits::WAITING_MAX as usize,
            "three disjoint sets, and this node"
        );
        let all = channels::ENGINE.into_iter().chain([channels::MEMPOOL]);
        let bursts: usize = all.map(|channel| quota_of(channel).burst_size().get() as usize).sum();
        let bytes = bursts * PEERS_MAX.get() * PEER_SETS.get() * 224;
        assert!(bytes < 24 << 20, "{bytes} bytes");
        assert!(message_bytes_max() < 8 << 20, "{}", message_bytes_max());
    }
}
