//! The rows that a gateway keeps in its catalogue beside those of its agreements, and their keys. Segments
//! are stored under their file's id.

pub(crate) use posync_consumer::catalogue::row::*;

use crate::{
    coding::{SEGMENTS_MAX, SHARDS},
    limits::HOLDINGS_MAX,
};
use commonware_codec::{Buf, EncodeSize, Read, Write};
use posync_consumer::rows;
use posync_protocol::{Account, Bounded, Hash, encoded, wire::gateway::Name};

rows! {
    1 FileRow (number: u32) [number.to_be_bytes()];
    2 SegmentRow (file: &FileId, segment: u32) [file, segment.to_be_bytes()];
    6 JobRow (number: u32) [number.to_be_bytes()];
    7 FaultRow (number: u32) [number.to_be_bytes()];
}

/// The key of the mark that a restore is under way.
pub(super) fn restoring() -> Key {
    place(RESTORING, &[])
}

/// The owner of a file: an account that the gateway's owner lists or, if `None`, the gateway's owner.
/// Rows from before there were users end where this field begins; they decode as the owner's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner(pub Option<Account>);

impl Write for Owner {
    fn write(&self, buf: &mut impl bytes::BufMut) {
        self.0.iter().for_each(|account| account.write(buf));
    }
}

impl EncodeSize for Owner {
    fn encode_size(&self) -> usize {
        self.0.as_ref().map_or(0, EncodeSize::encode_size)
    }
}

impl Read for Owner {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, (): &()) -> Result<Self, commonware_codec::Error> {
        if buf.has_remaining() { Ok(Self(Some(Account::read_cfg(buf, &())?))) } else { Ok(Self(None)) }
    }
}

/// The key of a file for its users: each account has names of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named(pub Owner, pub Vec<u8>);

/// A name among the files of the gateway's owner.
impl From<Vec<u8>> for Named {
    fn from(name: Vec<u8>) -> Self {
        Self(Owner::default(), name)
    }
}

encoded! {
    /// A file whose put is complete.
    FileRow {
        /// Its name, unique for its owner.
        name: Name,
        /// Its id, from which its segments' keys and its encryption key derive.
        id: FileId,
        /// Its length in plain bytes.
        bytes: u64,
        /// BLAKE3 hash of the plain bytes.
        blake3: Hash,
        /// Number of its segments.
        segments: u32,
        /// Its owner. Must stay the last field: see [`Owner`].
        owner: Owner,
    }
}

encoded! {
    /// A shard of a segment that is held under an agreement.
    #[derive(Copy)]
    Holding {
        /// Position of the shard in its segment, 0 to 7.
        position: u8,
        /// Number of the agreement.
        agreement: u32,
        /// Its sequence number in the agreement's data set.
        sequence: u64,
        /// Lost or no longer wanted: it is to be removed from the data set, and never read.
        dropped: bool,
    }
}

encoded! {
    /// A segment: the names of its shards, and the agreements that hold them.
    SegmentRow {
        /// Plain bytes of the segment.
        plain: u32,
        /// Names of the shards, by position.
        names: Bounded<Hash, SHARDS>,
        /// Holdings of the shards, including dropped ones.
        holdings: Bounded<Holding, HOLDINGS_MAX>,
    }
}

impl SegmentRow {
    /// Bytes of each shard.
    pub(crate) const fn shard_bytes(&self) -> u64 {
        crate::coding::shard_bytes(self.plain as usize) as u64
    }

    /// Returns true if it names eight shards, and every holding is of one of them.
    pub(crate) fn is_sound(&self) -> bool {
        self.names.len() == SHARDS && self.holdings.iter().all(|h| usize::from(h.position) < SHARDS)
    }

    /// The holding in force at a position.
    pub(crate) fn holder(&self, position: usize) -> Option<&Holding> {
        self.holdings.iter().find(|h| usize::from(h.position) == position && !h.dropped)
    }

    /// Positions without a holder.
    pub(crate) fn open_positions(&self) -> impl Iterator<Item = usize> + '_ {
        (0..SHARDS).filter(|position| self.holder(*position).is_none())
    }

    /// Replaces the holdings by the result of `change`; `None` if there are too many.
    pub(crate) fn with_holdings(&self, change: impl FnOnce(&mut Vec<Holding>)) -> Option<Self> {
        let mut holdings = self.holdings.to_vec();
        change(&mut holdings);
        Some(Self { holdings: Bounded::new(holdings)?, ..self.clone() })
    }
}

encoded! {
    /// Segments to be removed: those of an open or failed put, or of a removed or replaced file.
    #[derive(Copy, Default)]
    JobRow {
        /// The file whose segments are removed.
        file: FileId,
        /// All of its segments that have rows have lower numbers. Rows from before this was kept hold what the
        /// put announced: see [`JobRow::placed`].
        segments: u32,
        /// The account for which the file counts until it is removed. Must stay the last field: see [`Owner`].
        owner: Owner,
    }
}

impl JobRow {
    /// The number below which its segments have rows. An older row with more than
    /// [`SEGMENTS_MAX`] is of a put that announced them and went away.
    pub(crate) fn placed(&self) -> u32 {
        self.segments.min(SEGMENTS_MAX)
    }
}

encoded! {
    /// A provider that failed, and the progress of the repair.
    #[derive(Copy)]
    FaultRow {
        /// Account of the provider.
        provider: Account,
        /// The way it was found; see [`posync_protocol::wire::gateway::Fault::found_by`].
        found_by: u8,
        /// The round in which it was found.
        round: u64,
        /// Shards of this gateway that it held.
        lost: u32,
        /// Shards rebuilt elsewhere so far.
        repaired: u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonware_codec::{Decode as _, Encode as _};

    #[test]
    fn a_job_of_before_there_were_quotas_counts_for_the_owner() {
        let before = [&[1; 16][..], &7_u32.encode()].concat();
        let job = JobRow { file: [1; 16], segments: 7, owner: Owner::default() };
        assert_eq!(JobRow::decode_cfg(bytes::Bytes::from(before), &()).expect("it decodes"), job);
        let job = JobRow { owner: Owner(Some(Account([7; 32]))), ..job };
        assert_eq!(JobRow::decode_cfg(job.encode(), &()).expect("it decodes"), job);
    }

    #[test]
    fn a_file_of_before_there_were_users_is_the_owners() {
        let name = Bounded::new(b"name".to_vec()).expect("short");
        let of = |owner| FileRow {
            name: name.clone(),
            id: [1; 16],
            bytes: 9,
            blake3: [2; 32],
            segments: 1,
            owner,
        };
        let before = [&name.encode()[..], &[1; 16], &9_u64.encode(), &[2; 32], &1_u32.encode()].concat();
        assert_eq!(
            FileRow::decode_cfg(bytes::Bytes::from(before), &()).expect("it decodes"),
            of(Owner::default())
        );
        for owner in [Owner::default(), Owner(Some(Account([7; 32])))] {
            let encoded = of(owner).encode();
            assert_eq!(FileRow::decode_cfg(encoded.clone(), &()).expect("it decodes"), of(owner));
            if owner.0.is_some() {
                assert!(
                    FileRow::decode_cfg(encoded.slice(..encoded.len() - 1), &()).is_err(),
                    "cut in an account"
                );
            }
        }
    }
}
