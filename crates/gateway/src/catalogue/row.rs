//! The rows of the catalogue and their keys.
//!
//! A key is a kind byte and a place. Files, jobs, agreements and faults have dense numbers (a freed
//! number is used again), so that a start finds all of them by counting; segments are stored under their
//! file's id.

use super::store::Row;
use crate::{
    coding::{FileId, SHARDS},
    limits::{HOLDINGS_MAX, SIGN_BATCH},
};
use commonware_codec::{Buf, EncodeSize, Read, Write};
use posync_protocol::{
    Account, AgreementId, Amount, Bounded, Hash, Signature, encoded, operation::DataSetClaim,
    wire::gateway::Name,
};

/// The key of a row in the store.
pub type Key = Vec<u8>;

fn place(kind: u8, id: &[&[u8]]) -> Key {
    let mut key = vec![kind];
    id.iter().for_each(|part| key.extend_from_slice(part));
    key
}

macro_rules! rows {
    ($($kind:literal $name:ident ($($id:ident : $type:ty),*) [$($part:expr),*];)*) => {
        $(impl $name {
            /// The key under which this row is stored.
            pub fn key($($id: $type),*) -> Key { place($kind, &[$(&$part[..]),*]) }
        }
        impl Row for $name {})*
    };
}

/// The key of the mark that a restore is under way.
pub(super) fn restoring() -> Key {
    place(10, &[])
}

/// The key of the mark that pages were damaged, with the number of bytes that could not be read.
pub(super) fn damaged_pages() -> Key {
    place(11, &[])
}

rows! {
    0 Meta () [];
    1 FileRow (number: u32) [number.to_be_bytes()];
    2 SegmentRow (file: &FileId, segment: u32) [file, segment.to_be_bytes()];
    3 OwnAgreementRow (agreement: u32) [agreement.to_be_bytes()];
    4 Intent (agreement: u32) [agreement.to_be_bytes()];
    5 Waiting (agreement: u32) [agreement.to_be_bytes()];
    6 JobRow (number: u32) [number.to_be_bytes()];
    7 FaultRow (number: u32) [number.to_be_bytes()];
    8 SetRow (agreement: u32) [agreement.to_be_bytes()];
    9 PaidRow (agreement: u32) [agreement.to_be_bytes()];
}

encoded! {
    /// The counts of the dense numbers, and the secret.
    #[derive(Copy, Default)]
    Meta {
        /// All file rows have lower numbers.
        files: u32,
        /// All job rows have lower numbers.
        jobs: u32,
        /// All agreements' rows have lower numbers.
        agreements: u32,
        /// Faults found so far; the last ones are kept in a ring.
        faults: u64,
        /// The gateway's secret: file, session and storage keys derive from it.
        master: Hash,
    }
}

impl Meta {
    /// The key of its copy.
    pub fn copy() -> Key {
        place(0, &[&[0]])
    }
}

/// The owner of a file: an account that the gateway's owner lists or, if `None`, the gateway's owner.
/// Rows from before there were users end where this field begins; they decode as the owner's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner(pub Option<Account>);

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

/// The bytes that an agreement lets its provider send in each round since its opening (VO-2), together; not
/// known if 0. Rows from before it was kept end where this field begins; they decode as 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateCap(pub u64);

impl Write for RateCap {
    fn write(&self, buf: &mut impl bytes::BufMut) {
        self.0.write(buf);
    }
}

impl EncodeSize for RateCap {
    fn encode_size(&self) -> usize {
        self.0.encode_size()
    }
}

impl Read for RateCap {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, (): &()) -> Result<Self, commonware_codec::Error> {
        if buf.has_remaining() { Ok(Self(u64::read_cfg(buf, &())?)) } else { Ok(Self(0)) }
    }
}

/// The key of a file for its users: each account has names of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named(pub Owner, pub Vec<u8>);

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
    pub const fn shard_bytes(&self) -> u64 {
        crate::coding::shard_bytes(self.plain as usize) as u64
    }

    /// Returns true if it names eight shards, and every holding is of one of them.
    pub fn is_sound(&self) -> bool {
        self.names.len() == SHARDS && self.holdings.iter().all(|h| usize::from(h.position) < SHARDS)
    }

    /// The holding in force at a position.
    pub fn holder(&self, position: usize) -> Option<&Holding> {
        self.holdings.iter().find(|h| usize::from(h.position) == position && !h.dropped)
    }

    /// Positions without a holder.
    pub fn open_positions(&self) -> impl Iterator<Item = usize> + '_ {
        (0..SHARDS).filter(|position| self.holder(*position).is_none())
    }

    /// Replaces the holdings by the result of `change`; `None` if there are too many.
    pub fn with_holdings(&self, change: impl FnOnce(&mut Vec<Holding>)) -> Option<Self> {
        let mut holdings = self.holdings.to_vec();
        change(&mut holdings);
        Some(Self { holdings: Bounded::new(holdings)?, ..self.clone() })
    }
}

encoded! {
    /// An agreement of this gateway: its terms. Fields that change often have rows of their own, so that
    /// each row has one writer.
    OwnAgreementRow {
        /// Its identity on the ledger; `opened` is 0 until the ledger opened it.
        id: AgreementId,
        /// Its stage, as a number of [`crate::agreements::state::Stage`].
        stage: u8,
        /// The epoch in which it ends.
        end_epoch: u64,
        /// Leaves that may be stored under it at once.
        quota_leaves: u64,
        /// Egress bytes that may be read over its whole term.
        quota_egress: u64,
        /// Amount locked for vouchers so far.
        voucher_reserve: Amount,
        /// Egress price in grains per 2^20 bytes.
        egress_price: u64,
        /// Agreed rate cap of egress. Must stay the last field: see [`RateCap`].
        rate_egress: RateCap,
    }
}

encoded! {
    /// The progress of an agreement's data set.
    #[derive(Copy, Default)]
    SetRow {
        /// The last version that both sides signed.
        version: u64,
        /// The sequence number of the next shard.
        sequence: u64,
    }
}

encoded! {
    /// The total that an agreement's vouchers sign for.
    #[derive(Copy, Default)]
    PaidRow {
        /// Egress bytes; never more than was verified, and never lowered.
        egress: u64,
    }
}

encoded! {
    /// A shard that is being added to a data set.
    #[derive(Copy)]
    Added {
        /// The file that it belongs to.
        file: FileId,
        /// Number of its segment in the file.
        segment: u32,
        /// Its position in the segment, 0 to 7.
        position: u8,
        /// Its sequence number in the data set.
        sequence: u64,
        /// Its name: the BLAKE3 hash of its bytes.
        name: Hash,
        /// Its length in bytes.
        bytes: u32,
        /// It replaces the same shard under an older agreement.
        moves: bool,
    }
}

encoded! {
    /// A shard that is being removed from a data set.
    #[derive(Copy)]
    Removed {
        /// The file that it belongs to.
        file: FileId,
        /// Number of its segment in the file.
        segment: u32,
        /// Its sequence number in the data set.
        sequence: u64,
    }
}

encoded! {
    /// A change that the provider may have signed already: it is sent again after a crash.
    Intent {
        /// The claim of the new data set.
        claim: DataSetClaim,
        /// Shards that are added, in order.
        adds: Bounded<Added, SIGN_BATCH>,
        /// Shards that are removed first, by ascending sequence number.
        removes: Bounded<Removed, SIGN_BATCH>,
    }
}

encoded! {
    /// A claim of a data set that both sides signed.
    #[derive(Copy)]
    SignedClaim {
        /// The claim of the data set.
        claim: DataSetClaim,
        /// The provider's signature over the claim.
        signature: Signature,
    }
}

encoded! {
    /// The newest data set of an agreement, while the ledger does not have it. It covers the whole set,
    /// so earlier ones need not get there (DS-1).
    #[derive(Copy, Default)]
    Waiting {
        /// The signed claim; `None` if none waits.
        claim: Option<SignedClaim>,
    }
}

encoded! {
    /// Segments to be removed: those of an open or failed put, or of a removed or replaced file.
    #[derive(Copy, Default)]
    JobRow {
        /// The file whose segments are removed.
        file: FileId,
        /// Number of its segments.
        segments: u32,
        /// The account for which the file counts until it is removed. Must stay the last field: see [`Owner`].
        owner: Owner,
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
    fn an_agreement_of_before_its_rate_was_kept_has_none() {
        let row = OwnAgreementRow {
            id: AgreementId { provider: Account([1; 32]), slot: 2, opened: 3 },
            stage: 1,
            end_epoch: 4,
            quota_leaves: 5,
            quota_egress: 6,
            voucher_reserve: Amount::sync(7),
            egress_price: 8,
            rate_egress: RateCap(9),
        };
        let encoded = row.encode();
        assert_eq!(OwnAgreementRow::decode_cfg(encoded.clone(), &()).expect("it decodes"), row);
        let before = encoded.slice(..encoded.len() - 8);
        let unknown = OwnAgreementRow { rate_egress: RateCap(0), ..row };
        assert_eq!(OwnAgreementRow::decode_cfg(before, &()).expect("it decodes"), unknown);
        assert!(
            OwnAgreementRow::decode_cfg(encoded.slice(..encoded.len() - 1), &()).is_err(),
            "cut in a rate"
        );
    }

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
