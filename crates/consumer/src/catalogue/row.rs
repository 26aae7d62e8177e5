//! The rows of the catalogue and their keys.
//!
//! A key is a kind byte and a place. Agreements, and a gateway's files, jobs and faults, have dense numbers
//! (a freed number is used again), so that a start finds all of them by counting.
//!
//! | kinds | rows |
//! | --- | --- |
//! | 0 | the counts of the dense numbers, and the secret |
//! | 3, 4, 5, 8, 9 | agreements: here |
//! | 1, 2, 6, 7 | files, segments, jobs, faults: the gateway's |
//! | 10 | the mark of a restore that is under way |
//! | 11 | the mark that pages were damaged |
//! | 12 | the providers that are silent: the gateway's |
//! | 13 | agreements that came from a backup: here |
//! | 14 | files that were to be removed when a backup was taken: the gateway's |

use crate::{agreements::state::Stage, limits::SIGN_BATCH};
use bytes::Buf as _;
use commonware_codec::{Encode, EncodeSize, Read, Write};
use posync_protocol::{AgreementId, Amount, Bounded, Hash, Signature, encoded, operation::DataSetClaim};

/// The key of a row in the store.
pub type Key = Vec<u8>;

/// A file's random name inside its gateway: where a shard in a data set belongs.
pub type FileId = [u8; 16];

/// Kind of a gateway's rows of files.
pub(crate) const FILES: u8 = 1;
/// Kind of the rows of agreements.
pub(crate) const AGREEMENTS: u8 = 3;
/// Kind of a gateway's rows of jobs.
pub(crate) const JOBS: u8 = 6;
/// Kind of the mark that a restore is under way.
pub const RESTORING: u8 = 10;
/// Kind of the mark that pages were damaged; it holds the number of bytes that could not be read.
pub(crate) const DAMAGED_PAGES: u8 = 11;

/// A type that is stored as one row.
pub trait CatalogueRow: Encode + Read<Cfg = ()> {}

/// The key of the row of a kind at a place.
pub fn place(kind: u8, id: &[&[u8]]) -> Key {
    let mut key = vec![kind];
    id.iter().for_each(|part| key.extend_from_slice(part));
    key
}

/// Makes types rows of the catalogue: `kind Type (arguments) [the parts of its place];`.
#[macro_export]
#[doc(hidden)]
macro_rules! rows {
    ($($kind:literal $name:ident ($($id:ident : $type:ty),*) [$($part:expr),*];)*) => {
        $(impl $name {
            /// The key under which this row is stored.
            pub fn key($($id: $type),*) -> $crate::catalogue::row::Key {
                $crate::catalogue::row::place($kind, &[$(&$part[..]),*])
            }
        }
        impl $crate::catalogue::row::CatalogueRow for $name {})*
    };
}

rows! {
    0 Meta () [];
    3 OwnAgreementRow (agreement: u32) [agreement.to_be_bytes()];
    4 Intent (agreement: u32) [agreement.to_be_bytes()];
    5 Waiting (agreement: u32) [agreement.to_be_bytes()];
    8 SetRow (agreement: u32) [agreement.to_be_bytes()];
    9 PaidRow (agreement: u32) [agreement.to_be_bytes()];
    13 RestoredRow (agreement: u32) [agreement.to_be_bytes()];
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
        /// The account's secret: file, session and storage keys derive from it.
        master: Hash,
    }
}

impl Meta {
    /// The key of its copy.
    pub fn copy() -> Key {
        place(0, &[&[0]])
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

    fn read_cfg(buf: &mut impl commonware_codec::Buf, (): &()) -> Result<Self, commonware_codec::Error> {
        if buf.has_remaining() { Ok(Self(u64::read_cfg(buf, &())?)) } else { Ok(Self(0)) }
    }
}

encoded! {
    /// An agreement of this account: its terms. Fields that change often have rows of their own, so that
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

/// The row of an agreement as it is restored: it takes no shards, and those that it holds move on.
pub fn drained(row: OwnAgreementRow) -> OwnAgreementRow {
    match Stage::of(&row) {
        Stage::Open | Stage::Draining => OwnAgreementRow { stage: Stage::Draining as u8, ..row },
        _ => row,
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
    /// A mark of an agreement that came from a backup. Another catalogue of the account may know more of its data set.
    #[derive(Copy)]
    RestoredRow {
        /// The last version that the backup knows to be signed or asked for. Once the provider has signed a later one for
        /// this catalogue, nothing of the data set is unknown here.
        version: u64,
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

#[cfg(test)]
mod tests {
    use super::*;
    use commonware_codec::Decode as _;
    use posync_protocol::Account;

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
}
