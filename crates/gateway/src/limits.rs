//! Every bound of the gateway, with its reason. They argue at compile time below.

use crate::coding::{SEGMENT_BYTES, SHARDS};
use posync_protocol::limits::{FRAME_BYTES_MAX, SHARD_BYTES_MAX};

/// Shards of a segment that must be durable and signed before a put is acknowledged: two more may
/// be lost at once without waiting for repair, and two slow providers delay nobody.
pub const ACKNOWLEDGE_SHARDS: usize = 6;
/// Bytes of segments that are coded and of shards on their way, over all puts: five whole segments, each
/// of 4 MiB and its shards of 8 MiB. What is smaller takes less.
pub const CODING_BYTES_MAX: usize = 60 << 20;
/// Part of [`CODING_BYTES_MAX`] and of [`SEGMENTS_READ_MAX`] that one account may have, in percent.
pub const ACCOUNT_PERCENT: usize = 80;
/// Segments of one put whose shards are stored and wait for signatures: hashes only.
pub const SEGMENTS_UNSIGNED_MAX: usize = 64;
/// Segments that one get reads ahead.
pub const SEGMENTS_READ_AHEAD: usize = 2;
/// Segments that gets gather and decode at once, up to 12 MiB each; none is kept for a reader's pace.
pub const SEGMENTS_READ_MAX: usize = 5;
/// Segments that repair and renewal have in memory at once: their own, whatever users do.
pub const SEGMENTS_MENDED_MAX: usize = 4;
/// Accounts that a gateway serves beside its owner.
pub const USERS_MAX: usize = 63;
/// Plain bytes of segments that arrive, or that readers have not taken yet, over all accounts: in each
/// direction.
pub const BUFFERS_BYTES: usize = 256 << 20;
/// The same for one account: 32 uploads and 32 downloads of any slowness at once.
pub const SHARE_BYTES_MAX: usize = 128 << 20;
/// Files of one account on their way in, and as many on their way out, at once; more wait.
pub const TRANSFERS_PER_ACCOUNT: usize = 256;
/// Acknowledged segments whose last shards are still on their way; repair brings those of more.
pub const TAILS_MAX: usize = 4096;
/// Shards rebuilt at once: a segment is 12 MiB in memory.
pub const REPAIRS_AT_ONCE: usize = 2;
/// Entries that one signature adds or takes out: the intent row stays below 128 KiB.
pub const SIGN_BATCH: usize = 1024;
/// Holdings of a segment: eight in force and those that wait to be taken out.
pub const HOLDINGS_MAX: usize = 32;
/// Versions of one agreement's data set that are signed and above the ledger's last: below the 32
/// that a provider keeps.
pub const VERSIONS_AHEAD_MAX: u64 = 24;
/// Versions above the ledger's last from which on the newest is brought at once, not at the next look.
pub const VERSIONS_AHEAD: u64 = 8;
/// Agreements of a gateway at one time.
pub const DEEDS_MAX: usize = 4096;
/// Numbers of agreements that are given away before those of agreements that are gone are used again:
/// what is still under way for one that is gone is long over by then.
pub const DEEDS_FRESH: usize = 1024;
/// Files of one gateway.
pub const FILES_MAX: usize = 1 << 22;
/// Faults remembered; the oldest goes.
pub const FAULTS_MAX: usize = 256;
/// A row of the catalogue.
pub const ROW_BYTES_MAX: usize = 256 << 10;
/// Messages that wait for an actor.
pub const MAILBOX: usize = 1024;
/// Rows that one group commit takes together.
pub const COMMIT_ROWS_MAX: usize = 4096;

const _: () = assert!(ACKNOWLEDGE_SHARDS > crate::coding::DATA && ACKNOWLEDGE_SHARDS <= SHARDS);
const _: () = assert!(VERSIONS_AHEAD < VERSIONS_AHEAD_MAX);
const _: () = assert!(DEEDS_FRESH < DEEDS_MAX);
const _: () = assert!(SIGN_BATCH * 96 < ROW_BYTES_MAX);
const _: () = assert!((SEGMENT_BYTES / crate::coding::DATA) as u64 <= SHARD_BYTES_MAX);
const _: () = assert!(SEGMENT_BYTES / crate::coding::DATA < FRAME_BYTES_MAX);
const _: () = assert!(CODING_BYTES_MAX * ACCOUNT_PERCENT / 100 >= 3 * SEGMENT_BYTES);
const _: () = assert!(CODING_BYTES_MAX + (SEGMENTS_READ_MAX + SEGMENTS_MENDED_MAX) * (12 << 20) < 192 << 20);
const _: () = assert!(REPAIRS_AT_ONCE < SEGMENTS_MENDED_MAX, "renewal goes on beside repair");
