//! The gateway's bounds that several modules share, beside those of its account, with their reasons.
//! Compile-time assertions below check them against each other.

pub(crate) use posync_consumer::limits::*;

use crate::coding::{SEGMENT_BYTES, SHARDS};
use posync_protocol::limits::{FRAME_BYTES_MAX, SHARD_BYTES_MAX};

/// Shards of a segment that must be durable and signed before a put is acknowledged: two more may be lost
/// at once without waiting for repair, and two slow providers delay no put.
pub(crate) const ACKNOWLEDGE_SHARDS: usize = 6;
/// Bytes of segments being coded and of shards being sent, over all puts: five whole segments, each of 4
/// MiB and with 8 MiB of shards. Smaller segments take less.
pub(crate) const CODING_BYTES_MAX: usize = 60 << 20;
/// Share of [`CODING_BYTES_MAX`] and of [`SEGMENTS_READ_MAX`] that one account may have, in percent.
pub(crate) const ACCOUNT_PERCENT: usize = 80;
/// Segments of one put whose shards are stored and wait for signatures; only hashes are kept.
pub(crate) const SEGMENTS_UNSIGNED_MAX: usize = 64;
/// Segments that one get reads ahead.
pub(crate) const SEGMENTS_READ_AHEAD: usize = 2;
/// Segments that gets gather and decode at once, up to 12 MiB each; a slow reader holds none of them.
pub(crate) const SEGMENTS_READ_MAX: usize = 5;
/// Segments that repair and renewal have in memory at once, apart from those of users.
pub(crate) const SEGMENTS_MENDED_MAX: usize = 4;
/// Accounts that a gateway serves beside its owner.
pub(crate) const USERS_MAX: usize = 63;
/// Plain bytes of segments that are arriving, or that readers have not taken yet, over all accounts; in
/// each direction.
pub(crate) const BUFFERS_BYTES: usize = 256 << 20;
/// The same for one account: 32 uploads and 32 downloads at once, however slow.
pub(crate) const SHARE_BYTES_MAX: usize = 128 << 20;
/// Files of one account being stored, and as many being read, at once; more wait.
pub(crate) const TRANSFERS_PER_ACCOUNT: usize = 256;
/// Acknowledged segments whose last shards are still being sent; beyond that, repair stores them.
pub(crate) const TAILS_MAX: usize = 4096;
/// Shards rebuilt at once; each takes a segment of 12 MiB in memory.
pub(crate) const REPAIRS_AT_ONCE: usize = 2;
/// Holdings of a segment: eight in force and those that wait to be removed.
pub(crate) const HOLDINGS_MAX: usize = 32;
/// Names of files in one gateway's catalogue; its accounts have equal shares of them.
pub(crate) const FILES_MAX: usize = 1 << 22;
/// Jobs of a user above which it begins no put: its puts under way, and its files that are removed and not
/// freed yet. The reaper works off as many in two minutes.
pub(crate) const JOBS_PER_ACCOUNT: u64 = 1 << 14;
/// Faults remembered; a new one replaces the oldest.
pub(crate) const FAULTS_MAX: usize = 256;

const _: () = assert!(ACKNOWLEDGE_SHARDS > crate::coding::DATA && ACKNOWLEDGE_SHARDS <= SHARDS);
const _: () = assert!(SEGMENT_BYTES / crate::coding::DATA == SHARD_BYTES);
const _: () = assert!((SEGMENT_BYTES / crate::coding::DATA) as u64 <= SHARD_BYTES_MAX);
const _: () = assert!(SEGMENT_BYTES / crate::coding::DATA < FRAME_BYTES_MAX);
const _: () = assert!(CODING_BYTES_MAX * ACCOUNT_PERCENT / 100 >= 3 * SEGMENT_BYTES);
const _: () = assert!(CODING_BYTES_MAX + (SEGMENTS_READ_MAX + SEGMENTS_MENDED_MAX) * (12 << 20) < 192 << 20);
const _: () = assert!(FILES_MAX / (1 + USERS_MAX) > 2 * TRANSFERS_PER_ACCOUNT);
const _: () = assert!(JOBS_PER_ACCOUNT > TRANSFERS_PER_ACCOUNT as u64);
const _: () = assert!(REPAIRS_AT_ONCE < SEGMENTS_MENDED_MAX, "renewal goes on beside repair");
