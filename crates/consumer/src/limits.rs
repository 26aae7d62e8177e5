//! A consumer's bounds that several modules share, with their reasons. Compile-time assertions below check
//! them against each other.

/// Entries that one signature adds, and as many that it removes: the intent row stays below 128 KiB.
pub(crate) const SIGN_BATCH: usize = 1024;
/// Versions of one agreement's data set that are signed and above the ledger's last: fewer than the 32
/// that a provider keeps.
pub const VERSIONS_AHEAD_MAX: u64 = 24;
/// Versions above the ledger's last at which the newest is submitted at once, not at the next look.
pub(crate) const VERSIONS_AHEAD: u64 = 8;
/// Agreements that an account has at one time.
pub const AGREEMENTS_MAX: usize = 4096;
/// Agreement numbers that are assigned before those of gone agreements are used again: by then all work
/// for the gone one is long over.
pub const AGREEMENTS_FRESH: usize = 1024;
/// Bytes of one row of the catalogue.
pub const ROW_BYTES_MAX: usize = 256 << 10;
/// Messages that may wait for an actor.
pub const MAILBOX: usize = 1024;
/// Staged rows after which a group commit takes no further messages.
pub const COMMIT_ROWS_MAX: usize = 4096;
/// Bytes of the largest shard that a gateway makes of a file: free room is counted in whole ones.
pub const SHARD_BYTES: usize = 1 << 20;

const _: () = assert!(VERSIONS_AHEAD < VERSIONS_AHEAD_MAX);
const _: () = assert!(AGREEMENTS_FRESH < AGREEMENTS_MAX);
const _: () = assert!(SIGN_BATCH * 96 < ROW_BYTES_MAX);
