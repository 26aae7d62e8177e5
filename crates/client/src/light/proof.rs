//! A sync proof: one record of the ledger that anyone can verify with the network key alone.
//!
//! ```text
//!  magic | subject (kind, id) | headers to the certificate | finalization | slot | QMDB proof | row
//! ```
//!
//! The state keeps a provider's pay for 512 epochs; the books of an epoch stay for ever and name the root
//! over its rows. So a proof of books may carry one of their rows, with the path to that root: this proves
//! the pay and score of any past epoch.
//!
//! About 1.4 kB when the block has a certificate of its own. It also proves *whose* record it is: the
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

/// Upper bound on the bytes of a sync proof.
pub const SYNC_PROOF_BYTES_MAX: usize = 3_000;
/// Name and version of the format.
const MAGIC: [u8; 8] = *b"posync/1";
/// Bytes of the longest id: a provider and a number.
const ID_BYTES_MAX: usize = 40;

encoded! {
    /// The kind of a record and the id that it is filed under.
    Subject {
        /// Kind of the record: [`Record::KIND`].
        kind: u8,
        /// Parts of the id, concatenated.
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

    /// A record whose id is an account alone.
    pub fn of_account<R: Record>(account: &Account) -> Self {
        Self::new::<R>(&[&account.0]).expect("32 bytes fit")
    }

    /// The record's place in the state.
    pub(crate) fn key(&self) -> Key {
        place(self.kind, &self.id)
    }
}

encoded! {
    /// A provider's row of closed books, and its path to their root.
    ProvedRow {
        /// Provider that the row is about.
        account: Account,
        /// Index of the row among all rows.
        index: u32,
        /// Bytes of the [`Settlement`].
        slot: Slot,
        /// Path from the row to the root, by [`tree::path`].
        path: Bounded<Hash, { tree::PATH_MAX }>,
    }
}

impl ProvedRow {
    /// Returns the row if it belongs to `books`.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it does not decode, [`Error::Commitment`] if it belongs to other books.
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
        /// Name and version of the format: `posync/1`.
        magic: [u8; 8],
        /// Kind and id of the record.
        subject: Subject,
        /// The header whose state holds the record, and its certificate.
        certified: Certified,
        /// The record and its proof.
        record: ProvenRecord,
        /// One row of the books, if the record is books.
        row: Option<ProvedRow>,
    }
}

/// The content of a verified proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Header of the certified block that the proof is about.
    pub header: Header,
    /// Kind and id of the record.
    pub subject: Subject,
    /// Bytes of the record; `None` if its absence is proved.
    pub slot: Option<Slot>,
    /// The row of the books that is proved as well, and its provider.
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
    /// Packs an answer that [`Light::read`] has accepted.
    pub(crate) const fn new(subject: Subject, certified: Certified, record: ProvenRecord) -> Self {
        Self { magic: MAGIC, subject, certified, record, row: None }
    }

    /// Adds a row to a proof of books.
    #[must_use]
    pub fn with_row(self, row: ProvedRow) -> Self {
        Self { row: Some(row), ..self }
    }

    /// Encodes the proof as the bytes of a file.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encode().to_vec()
    }

    /// Reads and verifies the bytes of a proof.
    ///
    /// # Errors
    /// [`Error`] if the bytes differ in any way from what the network certified.
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
