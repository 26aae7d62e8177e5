//! Configuration of a provider, given at its start.

use crate::{
    alerts::Reporter,
    left::Left,
    packs::{PACK_BYTES_MIN, StoreConfig, Volume},
};
use commonware_cryptography::ed25519::PrivateKey;
use posync_client::{connection::Endpoint, directory_lock::hold_member, light::NetworkKey};
use posync_protocol::{
    Amount, Bounded, Hash, PerClass,
    limits::{ADDRESS_BYTES_MAX, LEAF_BYTES, OPERATOR_BYTES, Parameters, REGION_BYTES_MAX},
    operation::RegisterProvider,
};
use std::{
    fs::File,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// Configuration of a provider process.
#[derive(Clone)]
pub struct Config {
    /// Private key of its account and node identity.
    pub key: PrivateKey,
    /// Prefix of its storage partitions.
    pub partition: String,
    /// Address to listen on; port 0 picks any free one.
    pub listen: SocketAddr,
    /// Registered address, `host:port`, at which others reach it; `None`: the address it listens on.
    pub advertised: Option<String>,
    /// Name of its region.
    pub region: String,
    /// Name of its operator.
    pub operator: String,
    /// Amount to lock as a bond at registration.
    pub bond: Amount,
    /// Bytes of shards that it offers to keep.
    pub capacity_bytes: u64,
    /// Maximum size of its shard files in bytes; has no effect above what the capacity needs. Below that,
    /// shards are refused although the declared capacity has room for them (PV-5).
    pub space_bytes: u64,
    /// Egress offered, in bytes a second; also the rate limit while egress is measured.
    pub egress_rate: u64,
    /// Size in bytes at which a pack is sealed.
    pub pack_bytes: u64,
    /// Gas offered per epoch.
    pub capacity_gas: u64,
    /// Minimum prices that it accepts for storage, egress and gas.
    pub reserve_prices: PerClass<u64>,
    /// Longest agreement that it accepts, in epochs: prices stay locked for that long.
    pub term_max: u32,
    /// Ledger nodes, tried in turn.
    pub nodes: Vec<Endpoint>,
    /// SHA-256 of the genesis.
    pub chain: Hash,
    /// Public key that verifies every certificate of the network.
    pub network_key: NetworkKey,
    /// Protocol parameters from the genesis.
    pub parameters: Parameters,
    /// Interval between two scrubs.
    pub scrub: Duration,
    /// Minimum rate at which a scrub reads, in bytes a second.
    pub scrub_rate: u64,
    /// Time after which a shard that was put but never signed for is removed.
    pub loose: Duration,
    /// Grace period for which everything of an agreement is kept after its absence from the ledger was
    /// proved; counted in certified blocks.
    pub grace: Duration,
    /// Sends the operator's alerts.
    pub report: Reporter,
    /// The mark that it leaves: with it, it does not register.
    pub left: Left,
}

/// Default for the longest agreement that a provider accepts, in epochs.
pub const TERM_MAX: u32 = 720;
/// Default size in bytes at which a pack is sealed.
pub const PACK_BYTES: u64 = 256 << 20;
/// Default for the minimum rate of a scrub, in bytes a second.
pub const SCRUB_RATE: u64 = 1 << 20;
/// Interval between scrubs on a local network; it is 14 days in production.
pub const SCRUB_LOCAL: Duration = Duration::from_secs(20);
/// Grace period for an agreement that is gone, on a local network.
pub const GRACE_LOCAL: Duration = Duration::from_secs(20);
/// Time allowed between a put and the signature that covers it.
pub const LOOSE: Duration = Duration::from_secs(120);

/// Errors in a configuration or its directory.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A text is empty, too long or spans several lines.
    #[error("the {what} is {length} bytes; it must be one line of 1 to {most}")]
    Text {
        /// Name of the configuration value.
        what: &'static str,
        /// Length of the text in bytes.
        length: usize,
        /// Maximum length in bytes.
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

/// Locks the data directory for this process; keep the file open until the process ends.
///
/// # Errors
/// `Locked`, or `Directory` when the volume is missing or not writable.
pub fn lock(directory: &Path) -> Result<File, ConfigError> {
    let held = hold_member(&directory.join("provider.lock"));
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
    /// Configuration of its shard store.
    pub(crate) fn store(&self) -> StoreConfig {
        StoreConfig::for_capacity(&self.partition, self.capacity_bytes, self.pack_bytes)
            .within(self.space_bytes)
            .on(Volume::of(self.report.volume(), self.report.in_use()))
    }

    /// Number of blocks for which an agreement that is gone is still kept.
    pub(crate) fn grace_blocks(&self) -> u64 {
        let blocks = self.grace.as_millis() / u128::from(self.parameters.block_ms.max(1));
        u64::try_from(blocks).unwrap_or(u64::MAX).max(1)
    }

    /// Leaves to offer: no more than there is room for.
    pub fn capacity_leaves(&self) -> u64 {
        self.capacity_bytes.min(self.store().room_bytes()) / LEAF_BYTES
    }

    /// Builds the registration; `bound` is the address it listens on.
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
        if self.pack_bytes < PACK_BYTES_MIN {
            return Err(ConfigError::Range("a pack is at least 1 MiB"));
        }
        Ok(RegisterProvider {
            operator,
            bond: self.bond,
            capacity: PerClass::new(
                self.capacity_leaves(),
                self.parameters.bytes_per_epoch(self.egress_rate),
                self.capacity_gas,
            ),
            reserve: self.reserve_prices,
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
