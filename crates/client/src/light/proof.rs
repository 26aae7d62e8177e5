//! A sync proof: one record of the ledger that anyone verifies with nothing but the network key.
//!
//! ```text
//!  magic | subject (kind, id) | headers to the certificate | finalization | slot | QMDB proof | row
//! ```
//!
//! The state keeps what a provider was paid for 512 epochs; the books of an epoch stay for ever and
//! name the root over its rows. A proof of books therefore may carry one of their rows, with the path
//! to that root: so any past epoch's pay and score is proved.
//!
//! About 1.4 kB when the block has a certificate of its own. It says *whose* record it is: the
//! record's place in the state is the hash of its kind and id, and both are in the proof.

use super::{Error, Light, NetworkKey, canonical, check_record};
use commonware_codec::Encode as _;
use posync_protocol::{
    Account, Bounded, Hash, Key, Record, Slot,
    block::Header,
    books::tree,
    encoded,
    record::{Agreement, Books, Settlement, place},
    wire::node::{Certified, ProvenRecord},
};

/// A sync proof is at most this long.
pub const SYNC_PROOF_BYTES_MAX: usize = 3_000;
/// Name and version of the format.
const MAGIC: [u8; 8] = *b"posync/1";
/// Bytes of the longest id: a provider and a number.
const ID_BYTES_MAX: usize = 40;

encoded! {
    /// What a record is about: its kind and the id that it is filed under.
    Subject {
        /// As in [`Record::KIND`].
        kind: u8,
        /// The id's parts, one after the other.
        id: Bounded<u8, ID_BYTES_MAX>,
    }
}

impl Subject {
    /// The record of kind `R` filed under `parts`, as the record's own `key` names them.
    ///
    /// # Errors
    /// [`Error::Question`] if the parts are longer than any id.
    pub fn new<R: Record>(parts: &[&[u8]]) -> Result<Self, Error> {
        let id = Bounded::new(parts.concat()).ok_or(Error::Question)?;
        Ok(Self { kind: R::KIND, id })
    }

    /// The terms of an agreement.
    pub fn agreement(provider: &Account, slot: u32) -> Self {
        Self::new::<Agreement>(&[&provider.0, &slot.to_be_bytes()]).expect("36 bytes fit")
    }

    /// A record that is filed under an account alone.
    pub fn of_account<R: Record>(account: &Account) -> Self {
        Self::new::<R>(&[&account.0]).expect("32 bytes fit")
    }

    /// Where it stands in the state.
    pub fn key(&self) -> Key {
        place(self.kind, &self.id)
    }
}

encoded! {
    /// A provider's row of closed books, and how it leads to their root.
    Row {
        /// Whose it is.
        account: Account,
        /// Its place among the rows.
        index: u32,
        /// The [`Settlement`].
        slot: Slot,
        /// As [`tree::path`].
        path: Bounded<Hash, { tree::PATH_MAX }>,
    }
}

impl Row {
    /// The row, if it is one of `books`.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is no row, [`Error::Commitment`] if it is not one of these books.
    fn of(&self, books: &Books) -> Result<Settlement, Error> {
        let row = Settlement::from_slot(&self.slot).map_err(|_| Error::Malformed("the row"))?;
        let leaf = tree::leaf(&self.account, &self.slot);
        let root = tree::root_by_path(&leaf, self.index.into(), books.rows, &self.path);
        if root == Some(books.root) && row.epoch == books.epoch {
            return Ok(row);
        }
        Err(Error::Commitment("the row"))
    }
}

encoded! {
    /// A record, or its absence, with everything that leads to the network key.
    SyncProof {
        /// `posync/1`.
        magic: [u8; 8],
        /// What it is about.
        subject: Subject,
        /// The header whose state it is from, and what certifies it.
        certified: Certified,
        /// The record and its proof.
        record: ProvenRecord,
        /// With books: one of their rows.
        row: Option<Row>,
    }
}

/// What a verified proof says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The certified block.
    pub header: Header,
    /// What the record is about.
    pub subject: Subject,
    /// Its bytes; `None`: proved that there is none.
    pub slot: Option<Slot>,
    /// With books: whose row of them is proved too, and the row.
    pub row: Option<(Account, Settlement)>,
}

impl Verified {
    /// The record, if it is of kind `R` and exists.
    ///
    /// # Errors
    /// [`Error::Question`] if it is of another kind, [`Error::Malformed`] if the slot does not decode.
    pub fn record<R: Record>(&self) -> Result<Option<R>, Error> {
        if self.subject.kind != R::KIND {
            return Err(Error::Question);
        }
        self.slot.as_ref().map(R::from_slot).transpose().map_err(|_| Error::Malformed("the record"))
    }
}

impl SyncProof {
    /// Packs what [`Light::read`] has accepted.
    pub const fn new(subject: Subject, certified: Certified, record: ProvenRecord) -> Self {
        Self { magic: MAGIC, subject, certified, record, row: None }
    }

    /// Adds a row to a proof of books.
    #[must_use]
    pub fn with_row(self, row: Row) -> Self {
        Self { row: Some(row), ..self }
    }

    /// The bytes of a file.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encode().to_vec()
    }

    /// Reads and verifies the bytes of a proof.
    ///
    /// # Errors
    /// [`Error`]: any difference from what the network certified.
    pub fn verify(bytes: &[u8], network_key: &NetworkKey) -> Result<Verified, Error> {
        if bytes.len() > SYNC_PROOF_BYTES_MAX {
            return Err(Error::Malformed("the proof is longer than 3,000 bytes: it"));
        }
        let proof: Self = canonical("the proof", bytes, &())?;
        if proof.magic != MAGIC {
            return Err(Error::Malformed("the proof's version"));
        }
        let header = proof.certified.headers.first().ok_or(Error::Headers)?.clone();
        Light::new(header.chain, *network_key).certified(&proof.certified)?;
        check_record(&header, &proof.subject.key(), &proof.record)?;
        if proof.record.slot.is_some_and(|slot| slot[0] != proof.subject.kind) {
            return Err(Error::Question);
        }
        let mut verified = Verified { header, subject: proof.subject, slot: proof.record.slot, row: None };
        if let Some(row) = proof.row {
            let books = verified.record::<Books>()?.ok_or(Error::Commitment("the row"))?;
            verified.row = Some((row.account, row.of(&books)?));
        }
        Ok(verified)
    }
}
