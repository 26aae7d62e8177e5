//! The rows of the catalogue and where they stand.
//!
//! Keys are a kind byte and a place. Files, jobs, agreements and faults stand at dense numbers
//! (a freed number is used again), so that a start finds all of them by counting; segments stand
//! under their file's id.

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

/// A place in the store.
pub type Key = Vec<u8>;

fn place(kind: u8, id: &[&[u8]]) -> Key {
    let mut key = vec![kind];
    id.iter().for_each(|part| key.extend_from_slice(part));
    key
}

macro_rules! rows {
    ($($kind:literal $name:ident ($($id:ident : $type:ty),*) [$($part:expr),*];)*) => {
        $(impl $name {
            /// Where this row stands.
            pub fn key($($id: $type),*) -> Key { place($kind, &[$(&$part[..]),*]) }
        }
        impl Row for $name {})*
    };
}

/// Where it is noted that a restore is under way.
pub(super) fn restoring() -> Key {
    place(10, &[])
}

rows! {
    0 Meta () [];
    1 FileRow (number: u32) [number.to_be_bytes()];
    2 SegmentRow (file: &FileId, segment: u32) [file, segment.to_be_bytes()];
    3 DeedRow (deed: u32) [deed.to_be_bytes()];
    4 Intent (deed: u32) [deed.to_be_bytes()];
    5 Waiting (deed: u32) [deed.to_be_bytes()];
    6 JobRow (number: u32) [number.to_be_bytes()];
    7 FaultRow (number: u32) [number.to_be_bytes()];
    8 SetRow (deed: u32) [deed.to_be_bytes()];
    9 PaidRow (deed: u32) [deed.to_be_bytes()];
}

encoded! {
    /// How far the dense numbers go.
    #[derive(Copy, Default)]
    Meta {
        /// File rows stand below this.
        files: u32,
        /// Job rows stand below this.
        jobs: u32,
        /// Agreements' rows stand below this; never used again.
        deeds: u32,
        /// Faults found in all; the last ones are kept in a ring.
        faults: u64,
        /// The gateway's secret: file, session and storage keys derive from it.
        master: Hash,
    }
}

impl Meta {
    /// Where its copy stands.
    pub fn copy() -> Key {
        place(0, &[&[0]])
    }
}

/// Whose a file is: an account's that the gateway's owner lists or, without one, the owner's. Rows that
/// were written when there was nobody else end where this begins: they are the owner's.
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

/// What a file is found by: accounts name theirs without regard to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named(pub Owner, pub Vec<u8>);

/// A name of the gateway's owner.
impl From<Vec<u8>> for Named {
    fn from(name: Vec<u8>) -> Self {
        Self(Owner::default(), name)
    }
}

encoded! {
    /// A file that is durable.
    FileRow {
        /// Its name.
        name: Name,
        /// Its id: places its segments, derives its key.
        id: FileId,
        /// Its bytes.
        bytes: u64,
        /// Plain BLAKE3 of them.
        blake3: Hash,
        /// Segments.
        segments: u32,
        /// Whose it is. Last: see [`Owner`].
        owner: Owner,
    }
}

encoded! {
    /// A shard of a segment under an agreement.
    #[derive(Copy)]
    Holding {
        /// Which shard: 0 to 7.
        position: u8,
        /// Which agreement.
        deed: u32,
        /// Its place in the order of the agreement's data set.
        sequence: u64,
        /// Lost or no longer wanted: to be taken out of the data set, never read.
        dropped: bool,
    }
}

encoded! {
    /// A segment: what its shards are called and who signed for them.
    SegmentRow {
        /// Plain bytes.
        plain: u32,
        /// Names of the shards by position.
        names: Bounded<Hash, SHARDS>,
        /// Who holds what.
        holdings: Bounded<Holding, HOLDINGS_MAX>,
    }
}

impl SegmentRow {
    /// Bytes of each shard.
    pub const fn shard_bytes(&self) -> u64 {
        crate::coding::shard_bytes(self.plain as usize) as u64
    }

    /// Whether it names eight shards, and holdings of those alone.
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

    /// Replaces the holdings by what `change` makes of them; `None` if they become too many.
    pub fn with_holdings(&self, change: impl FnOnce(&mut Vec<Holding>)) -> Option<Self> {
        let mut holdings = self.holdings.to_vec();
        change(&mut holdings);
        Some(Self { holdings: Bounded::new(holdings)?, ..self.clone() })
    }
}

encoded! {
    /// An agreement of ours: its terms. What changes often stands in rows of its own, so that each
    /// row has one writer.
    DeedRow {
        /// Ledger identity; `opened` is 0 until the ledger says so.
        agreement: AgreementId,
        /// See [`crate::purse::state::Stage`].
        stage: u8,
        /// End epoch.
        end_epoch: u64,
        /// Most leaves.
        quota_leaves: u64,
        /// Most egress bytes.
        quota_egress: u64,
        /// Locked for vouchers so far.
        voucher_reserve: Amount,
        /// Egress price per 2^20 bytes.
        egress_price: u64,
    }
}

encoded! {
    /// How far an agreement's data set is.
    #[derive(Copy, Default)]
    SetRow {
        /// Last version that both signed.
        version: u64,
        /// Next sequence number.
        sequence: u64,
    }
}

encoded! {
    /// What vouchers of an agreement signed away.
    #[derive(Copy, Default)]
    PaidRow {
        /// Egress bytes: never more than verified, never less than before.
        egress: u64,
    }
}

encoded! {
    /// A shard on its way into a data set.
    #[derive(Copy)]
    Added {
        /// Its file.
        file: FileId,
        /// Its segment.
        segment: u32,
        /// Its position.
        position: u8,
        /// Its place in the order of the data set.
        sequence: u64,
        /// Its name.
        name: Hash,
        /// Its bytes.
        bytes: u32,
        /// It takes the place of the same shard under an older agreement.
        moves: bool,
    }
}

encoded! {
    /// A shard on its way out of a data set.
    #[derive(Copy)]
    Removed {
        /// Its file.
        file: FileId,
        /// Its segment.
        segment: u32,
        /// Its place in the order of the data set.
        sequence: u64,
    }
}

encoded! {
    /// A change that the provider may have signed already: asked again after a crash.
    Intent {
        /// What is claimed.
        claim: DataSetClaim,
        /// What comes in, in order.
        adds: Bounded<Added, SIGN_BATCH>,
        /// What goes out first, by ascending sequence.
        removes: Bounded<Removed, SIGN_BATCH>,
    }
}

encoded! {
    /// A data set that both signed.
    #[derive(Copy)]
    SignedClaim {
        /// What is claimed.
        claim: DataSetClaim,
        /// By the provider.
        signature: Signature,
    }
}

encoded! {
    /// The newest data set of an agreement, while the ledger does not know it: it says the whole
    /// set, so those before it need not get there (DS-1).
    #[derive(Copy, Default)]
    Waiting {
        /// It.
        claim: Option<SignedClaim>,
    }
}

encoded! {
    /// Segments to be forgotten: of an open or broken put, of a removed or replaced file.
    #[derive(Copy)]
    JobRow {
        /// The file.
        file: FileId,
        /// Its segments stand below this.
        segments: u32,
    }
}

encoded! {
    /// A provider that failed and what was done.
    #[derive(Copy)]
    FaultRow {
        /// The provider.
        provider: Account,
        /// See [`posync_protocol::wire::gateway::Fault::found_by`].
        found_by: u8,
        /// Round in which it was found.
        round: u64,
        /// Shards of ours that it held.
        lost: u32,
        /// Rebuilt elsewhere so far.
        repaired: u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonware_codec::{Decode as _, Encode as _};

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
