//! Audit operations: a commitment within the epoch, and its reveal in the first round of the next one.
//!
//! ```text
//!   batch b  = BLAKE3("posync/audit-batch/1" | salt | b | reports on strata [64 b, 64 b + 64))
//!   digest   = BLAKE3("posync/audit-digest/1" | auditor | epoch | batch 0 | batch 1 | ..)
//! ```
//! A report's stratum decides its batch. So a commitment holds one report on a provider, and an auditor
//! cannot choose between two after it has seen the reports of others (SQ-4).

use super::{sign, signatures::unsigned};
use crate::number::{count, index16, saturate_u8};
use crate::{
    Account, AgreementId, Bounded, Hash, Signature,
    bodies::SignatureCheck,
    limits::{
        AUDITORS_MAX, LATENCY_BANDS, PROVIDERS_MAX, REPORT_BATCHES_MAX, REPORTS_MAX, SLOTS_MAX,
        THROUGHPUT_BANDS,
    },
};
use alloc::vec::Vec;
use bytes::{Bytes, BytesMut};
use commonware_codec::{Encode, EncodeSize, Write};
use commonware_cryptography::{Signer, ed25519};

/// Namespace of a report's signature, made with the session key of its agreement.
pub const REPORT_NAMESPACE: &[u8] = b"posync/report/1";
/// Namespace of a commitment's signature, made by the seat. Two different ones of an epoch are evidence
/// (AU-4).
pub const AUDIT_NAMESPACE: &[u8] = b"posync/audit/1";

encoded! {
    #[json("agreement" = Self::agreement)]
    /// An auditor's measurements of one drawn provider in an epoch.
    #[derive(Copy)]
    Report {
        /// Stratum of the draw that selected the provider.
        stratum: u16,
        /// This seat's number among the provider's auditors; checked against the draw.
        auditor: u8,
        /// Provider at the drawn index.
        #[json(skip)]
        provider: Account,
        /// Provider index that the stratum's draw selected.
        index: u32,
        /// Slot of the agreement under which the auditor read.
        #[json(skip)]
        slot: u32,
        /// Height of the block that opened that agreement.
        #[json(skip)]
        opened: u64,
        /// The agreement's session key: only the auditor that reads under the agreement can sign with
        /// it.
        session_key: Account,
        /// Reads requested, each of [`crate::limits::AUDIT_READ_BYTES`].
        asked: u16,
        /// Reads answered in time, whether or not the bytes were right.
        answered: u16,
        /// Reads whose bytes verified, so that the auditor paid for them.
        correct: u16,
        /// Latency band of the answered reads ([`crate::service::latency_band`]); 0 if there are none.
        #[json("latency_band")]
        latency: u8,
        /// Throughput band of the answered reads ([`crate::service::throughput_band`]).
        #[json("throughput_band")]
        throughput: u8,
        /// Ed25519 signature by the session key over chain id, epoch, auditor and the fields above.
        #[json(skip)]
        signature: Signature,
    }
}

encoded! {
    #[json]
    /// An auditor's commitment to its reports, hidden as a digest, made within the epoch that they cover
    /// (SQ-3).
    #[derive(Copy)]
    AuditCommit {
        /// Epoch that the reports cover.
        epoch: u64,
        /// [`digest_of`] all reveals that will follow.
        digest: Hash,
        /// Ed25519 signature by the seat's key over chain id and the fields above.
        #[json(skip)]
        signature: Signature,
    }
}

encoded! {
    #[json]
    /// One batch of committed reports, revealed in the first round of the following epoch (SQ-4).
    AuditReveal {
        /// Epoch that the reports cover.
        epoch: u64,
        /// Secret of the auditor, which kept the digest from being guessed.
        salt: Hash,
        /// Number of this batch within the commitment.
        batch: u8,
        /// Digests of the commitment's other batches, in order.
        others: Bounded<Hash, { REPORT_BATCHES_MAX - 1 }>,
        /// Reports of the batch, ascending by stratum.
        reports: Bounded<Report, REPORTS_MAX>,
    }
}

impl Report {
    /// Signs with the session key. Replaces `session_key` and `signature`.
    pub fn signed(
        mut self,
        session: &ed25519::PrivateKey,
        chain: &Hash,
        epoch: u64,
        auditor: &Account,
    ) -> Self {
        self.session_key = Account::of(&session.public_key());
        self.signature = sign(session, REPORT_NAMESPACE, &self.signed_bytes(chain, epoch, auditor));
        self
    }

    /// Id of the agreement under which the auditor read.
    pub const fn agreement(&self) -> AgreementId {
        AgreementId { provider: self.provider, slot: self.slot, opened: self.opened }
    }

    fn signed_bytes(&self, chain: &Hash, epoch: u64, auditor: &Account) -> Bytes {
        let fields = self.encode();
        let mut bytes = BytesMut::with_capacity(72 + fields.len());
        chain.write(&mut bytes);
        epoch.write(&mut bytes);
        auditor.write(&mut bytes);
        bytes.extend_from_slice(&fields[..fields.len() - self.signature.encode_size()]);
        bytes.freeze()
    }

    /// The session key's signature, ready to verify.
    pub fn check(&self, chain: &Hash, epoch: u64, auditor: &Account) -> SignatureCheck {
        SignatureCheck {
            namespace: REPORT_NAMESPACE,
            message: self.signed_bytes(chain, epoch, auditor),
            key: self.session_key,
            signature: self.signature,
        }
    }

    /// True if every field is in range.
    fn fits(&self) -> bool {
        usize::from(self.auditor) < AUDITORS_MAX
            && self.index < PROVIDERS_MAX
            && self.slot < SLOTS_MAX
            && self.asked > 0
            && self.correct <= self.answered
            && self.answered <= self.asked
            && usize::from(self.latency) < LATENCY_BANDS
            && usize::from(self.throughput) < THROUGHPUT_BANDS
    }
}

impl AuditCommit {
    /// Builds a commitment and signs it with the seat's key.
    pub fn signed(seat: &ed25519::PrivateKey, chain: &Hash, epoch: u64, digest: Hash) -> Self {
        let mut commit = Self { epoch, digest, signature: [0; 64] };
        commit.signature = sign(seat, AUDIT_NAMESPACE, &commit.signed_bytes(chain));
        commit
    }

    fn signed_bytes(&self, chain: &Hash) -> Bytes {
        unsigned(chain, self, &self.signature)
    }

    /// The commitment's signature, to verify against `seat`. Evidence needs both of its commitments
    /// verified.
    pub fn check(&self, chain: &Hash, seat: Account) -> SignatureCheck {
        SignatureCheck {
            namespace: AUDIT_NAMESPACE,
            message: self.signed_bytes(chain),
            key: seat,
            signature: self.signature,
        }
    }
}

/// Number of the batch that holds the report on `stratum`.
pub const fn batch_of(stratum: u16) -> usize {
    index16(stratum) / REPORTS_MAX
}

/// Digest of one batch; the formula is in the module header.
fn batch_digest(salt: &Hash, batch: u8, reports: &[Report]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"posync/audit-batch/1").update(salt).update(&[batch]);
    for report in reports {
        hasher.update(&report.encode());
    }
    *hasher.finalize().as_bytes()
}

/// Digest of a commitment, computed from its batches' digests in order.
fn commitment<'a>(auditor: &Account, epoch: u64, batches: impl Iterator<Item = &'a Hash>) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"posync/audit-digest/1").update(&auditor.0).update(&epoch.to_be_bytes());
    for batch in batches {
        hasher.update(batch);
    }
    *hasher.finalize().as_bytes()
}

impl AuditReveal {
    /// Digest of the commitment of `auditor` to which this batch belongs.
    pub fn digest(&self, auditor: &Account) -> Hash {
        let own = batch_digest(&self.salt, self.batch, &self.reports);
        let (before, after) = self.others.split_at(usize::from(self.batch).min(self.others.len()));
        commitment(auditor, self.epoch, before.iter().chain([&own]).chain(after))
    }

    pub(crate) fn signatures<'a>(
        &'a self,
        chain: &'a Hash,
        auditor: &'a Account,
    ) -> impl Iterator<Item = SignatureCheck> + 'a {
        self.reports.iter().map(move |report| report.check(chain, self.epoch, auditor))
    }

    /// True if the batch number exists in the commitment and the reports are valid, in order, and of its
    /// strata.
    pub(crate) fn fits(&self) -> bool {
        let batch = usize::from(self.batch);
        batch <= self.others.len()
            && !self.reports.is_empty()
            && self.reports.iter().all(|report| report.fits() && batch_of(report.stratum) == batch)
            && self.reports.windows(2).all(|pair| pair[0].stratum < pair[1].stratum)
    }
}

/// Splits an auditor's signed reports of one epoch into the batches to commit to and reveal. `None` if
/// there are no reports, two for one stratum, or a stratum beyond the last batch.
pub fn reveals(epoch: u64, salt: Hash, mut reports: Vec<Report>) -> Option<Vec<AuditReveal>> {
    reports.sort_unstable_by_key(|report| report.stratum);
    let ascends = reports.windows(2).all(|pair| pair[0].stratum < pair[1].stratum);
    let batches = batch_of(reports.last()?.stratum) + 1;
    if !ascends || batches > REPORT_BATCHES_MAX {
        return None;
    }
    let of = |batch: usize| reports.iter().filter(move |report| batch_of(report.stratum) == batch).copied();
    let digests: Vec<Hash> = (0..batches)
        .map(|batch| batch_digest(&salt, saturate_u8(count(batch)), &of(batch).collect::<Vec<_>>()))
        .collect();
    let filled = (0..batches).filter(|batch| of(*batch).next().is_some());
    filled
        .map(|batch| {
            let others = digests.iter().enumerate().filter(|(place, _)| *place != batch);
            Some(AuditReveal {
                epoch,
                salt,
                batch: saturate_u8(count(batch)),
                others: Bounded::new(others.map(|(_, digest)| *digest).collect())?,
                reports: Bounded::new(of(batch).collect())?,
            })
        })
        .collect()
}

/// The digest to commit to, the same for each of the [`reveals`]; `None` if there are none.
pub fn digest_of(reveals: &[AuditReveal], auditor: &Account) -> Option<Hash> {
    reveals.first().map(|reveal| reveal.digest(auditor))
}
