//! One member of a network on this machine: its settings, its first directory, its run.
//!
//! ```text
//!   posync init ROLE --dir D ──► D/node.key, D/config.toml, D/network.toml   (init, settings, table)
//!   posync start --dir D     ──► the role, until a signal                    (start)
//!   posync devnet            ──► the same files with a dealt key, the same start, as children
//! ```

mod announcing;
mod follower;
pub(crate) mod init;
mod on_volume;
pub(crate) mod ports;
pub(crate) mod settings;
pub(crate) mod start;
mod table;
pub(crate) mod watching;

/// Name of a member's key file.
pub(crate) const KEY_FILE: &str = "node.key";
/// Name of the file that holds the genesis, in an authority's directory.
pub(crate) const GENESIS_FILE: &str = "genesis";
