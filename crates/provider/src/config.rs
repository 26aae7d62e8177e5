//! What a provider is told at its start.

use crate::{
    report::Reporter,
    segments::{SEGMENT_BYTES_MIN, StoreConfig, Volume},
};
use commonware_cryptography::ed25519::PrivateKey;
use posync_client::{connection::Endpoint, hold::hold, light::NetworkKey};
use posync_protocol::{
    Amount, Bounded, Hash,
    limits::{ADDRESS_BYTES_MAX, LEAF_BYTES, OPERATOR_BYTES, Parameters, REGION_BYTES_MAX},
    operation::RegisterProvider,
};
use std::{
    fs::File,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// A provider's configuration.
#[derive(Clone)]
pub struct Config {
    /// Its key: account and node identity.
    pub key: PrivateKey,
    /// Prefix of its storage partitions.
    pub partition: String,
    /// Where it listens; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Where others reach it, `host:port`, as registered; `None`: the address it listens on.
    pub advertised: Option<String>,
    /// Its region's name.
    pub region: String,
    /// Its operator's name.
    pub operator: String,
    /// Money to lock at registration.
    pub bond: Amount,
    /// Bytes of shards that it offers to keep.
    pub capacity_bytes: u64,
    /// Most bytes that the files with its shards may take; above what the capacity needs, no bound.
    /// Below, shards are refused although there is room for them by what was declared (PV-5).
    pub space_bytes: u64,
    /// Egress that it offers, bytes a second: also the most that it sends while it is measured.
    pub egress_rate: u64,
    /// Size at which a segment file is sealed.
    pub segment_bytes: u64,
    /// Gas that it offers, an epoch.
    pub capacity_gas: u64,
    /// Least price that it accepts for storage, for egress, and for gas.
    pub reserve_prices: (u64, u64, u64),
    /// Longest agreement that it takes, in epochs: for how long its prices are locked.
    pub term_max: u32,
    /// Nodes of the ledger, tried in turn.
    pub nodes: Vec<Endpoint>,
    /// SHA-256 of the genesis.
    pub chain: Hash,
    /// Under which every certificate of the network verifies.
    pub network_key: NetworkKey,
    /// Of the genesis.
    pub parameters: Parameters,
    /// Time between two scrubs.
    pub scrub: Duration,
    /// Time after which a shard that was put but never signed for is removed.
    pub loose: Duration,
    /// Time for which everything of an agreement is kept whose absence from the ledger was proved,
    /// counted in certified blocks.
    pub grace: Duration,
    /// Tells the operator what is about to go wrong.
    pub report: Reporter,
}

/// Longest agreement that a provider takes unless it is told otherwise, in epochs.
pub const TERM_MAX: u32 = 720;
/// Egress that a provider of a local network offers: 4 MiB a second.
pub const EGRESS_LOCAL: u64 = 4 << 20;
/// Sealed size of a segment file.
pub const SEGMENT_BYTES: u64 = 256 << 20;
/// Time between scrubs on a local network; 14 days in production.
pub const SCRUB_LOCAL: Duration = Duration::from_secs(20);
/// Time for which an agreement that is gone is kept all the same, in production.
pub const GRACE: Duration = Duration::from_secs(6 * 3_600);
/// The same on a local network.
pub const GRACE_LOCAL: Duration = Duration::from_secs(20);
/// Time for a signature after a put.
pub const LOOSE: Duration = Duration::from_secs(120);

/// What is wrong with a configuration or its directory.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A text is empty, too long or not one line.
    #[error("the {what} is {length} bytes; it must be one line of 1 to {most}")]
    Text {
        /// Which.
        what: &'static str,
        /// Its bytes.
        length: usize,
        /// Most bytes.
        most: usize,
    },
    /// A number is outside its range.
    #[error("{0}")]
    Range(&'static str),
    /// Another process uses the directory.
    #[error("{0} is used by another process; stop it, or choose another directory")]
    Locked(PathBuf),
    /// The directory cannot be used.
    #[error("the data directory {0} cannot be used: {1}; mount the volume and check its permissions")]
    Directory(PathBuf, std::io::Error),
}

/// Takes the data directory for this process; hold the file until the process ends.
///
/// # Errors
/// `Locked`, or `Directory` when the volume is missing or not writable.
pub fn lock(directory: &Path) -> Result<File, ConfigError> {
    let held = hold(&directory.join("provider.lock"));
    let held = held.map_err(|error| ConfigError::Directory(directory.into(), error))?;
    held.ok_or_else(|| ConfigError::Locked(directory.into()))
}

fn text<const MAX: usize>(what: &'static str, text: &str) -> Result<Bounded<u8, MAX>, ConfigError> {
    let bad = ConfigError::Text { what, length: text.len(), most: MAX };
    if text.is_empty() || text.contains(char::is_control) {
        return Err(bad);
    }
    Bounded::new(text.as_bytes().to_vec()).ok_or(bad)
}

impl Config {
    /// How its shards are kept.
    pub fn store(&self) -> StoreConfig {
        StoreConfig::for_capacity(&self.partition, self.capacity_bytes, self.segment_bytes)
            .within(self.space_bytes)
            .on(Volume::of(self.report.volume()))
    }

    /// Blocks for which an agreement that is gone is kept all the same.
    pub fn grace_blocks(&self) -> u64 {
        let blocks = self.grace.as_millis() / u128::from(self.parameters.block_ms.max(1));
        u64::try_from(blocks).unwrap_or(u64::MAX).max(1)
    }

    /// Leaves that it offers: no more than it has room for.
    pub fn capacity_leaves(&self) -> u64 {
        self.capacity_bytes.min(self.store().room_bytes()) / LEAF_BYTES
    }

    /// The registration, `bound` being the address it listens on.
    ///
    /// # Errors
    /// `Text`, `Range`.
    pub fn registration(&self, bound: SocketAddr) -> Result<RegisterProvider, ConfigError> {
        let name: Bounded<u8, OPERATOR_BYTES> = text("operator's name", &self.operator)?;
        let mut operator = [0; OPERATOR_BYTES];
        operator[..name.len()].copy_from_slice(&name);
        let address = self.advertised.clone().unwrap_or_else(|| bound.to_string());
        if self.capacity_leaves() == 0 {
            return Err(ConfigError::Range(
                "there is room for less than one leaf of 1 KiB; offer more, or give it more space (18 MiB \
                 are for moving shards)",
            ));
        }
        if self.segment_bytes < SEGMENT_BYTES_MIN {
            return Err(ConfigError::Range("a segment file is at least 1 MiB"));
        }
        Ok(RegisterProvider {
            operator,
            bond: self.bond,
            capacity: self.capacity_leaves(),
            capacity_egress: self.parameters.bytes_per_epoch(self.egress_rate),
            reserve_storage: self.reserve_prices.0,
            capacity_gas: self.capacity_gas,
            reserve_egress: self.reserve_prices.1,
            reserve_gas: self.reserve_prices.2,
            term_max: self.term_max,
            addresses: Bounded::new(vec![text::<ADDRESS_BYTES_MAX>("address", &address)?]).expect("one"),
            region: text::<REGION_BYTES_MAX>("region", &self.region)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_a_directory() {
        let directory = tempfile::tempdir().expect("a directory");
        let held = lock(directory.path()).expect("free");
        assert!(matches!(lock(directory.path()), Err(ConfigError::Locked(_))));
        drop(held);
        lock(directory.path()).expect("free again");
        let missing = directory.path().join("not mounted");
        let error = lock(&missing).expect_err("missing");
        assert!(error.to_string().contains("mount the volume"), "{error}");
    }

    #[test]
    fn texts_are_one_line_within_their_bound() {
        for (given, good) in
            [("", false), ("a", true), ("12345678", true), ("123456789", false), ("a\nb", false)]
        {
            assert_eq!(text::<8>("name", given).is_ok(), good, "{given:?}");
        }
    }
}
