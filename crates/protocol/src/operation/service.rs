//! What auditors send: a commitment in the epoch, and what was committed in the first round of the
//! next one.
//!
//! ```text
//!   batch b  = BLAKE3("posync/audit-batch/1" | salt | b | reports on strata [64 b, 64 b + 64))
//!   digest   = BLAKE3("posync/audit-digest/1" | auditor | epoch | batch 0 | batch 1 | ..)
//! ```
//! A report's stratum decides its batch, so that a commitment holds one report of a provider and
//! nobody can choose between two after it has seen those of others.

use super::{sign, signatures::unsigned};
use crate::{
    Account, AgreementId, Bounded, Hash, Signature,
    limits::{
        AUDITORS_MAX, LATENCY_BANDS, PROVIDERS_MAX, REPORT_BATCHES_MAX, REPORTS_MAX, SLOTS_MAX,
        THROUGHPUT_BANDS,
    },
    operation::SignatureCheck,
};
use alloc::vec::Vec;
use bytes::{Bytes, BytesMut};
use commonware_codec::{Encode, EncodeSize, Write};
use commonware_cryptography::{Signer, ed25519};

/// Namespace of a report's signature, by the session key of its agreement.
pub const REPORT_NAMESPACE: &[u8] = b"posync/report/1";
/// Namespace of a commitment's signature, by the seat: two different ones of an epoch are evidence.
pub const AUDIT_NAMESPACE: &[u8] = b"posync/audit/1";

encoded! {
    /// What an auditor found in an epoch at one drawn provider.
    #[derive(Copy)]
    Report {
        /// Which of the drawn providers: its stratum.
        stratum: u16,
        /// Which of that provider's auditors this seat is, checked.
        auditor: u8,
        /// Who stands at the drawn index.
        provider: Account,
        /// The drawn index.
        index: u32,
        /// The slot of the agreement under which the auditor read.
        slot: u32,
        /// The height at which that agreement was opened.
        opened: u64,
        /// The agreement's session key: only who reads under it can sign this.
        session_key: Account,
        /// Reads that it asked for, each of [`crate::limits::AUDIT_READ_BYTES`].
        asked: u16,
        /// Reads that were answered in time, rightly or not.
        answered: u16,
        /// Reads whose bytes verified, and which it therefore paid for.
        correct: u16,
        /// Latency band of the answered reads ([`crate::service::latency_band`]); 0 without any.
        latency: u8,
        /// Throughput band of the answered reads ([`crate::service::throughput_band`]).
        throughput: u8,
        /// Ed25519 by the session key over chain id, epoch, auditor and the fields above.
        signature: Signature,
    }
}

encoded! {
    /// An auditor's word, hidden, within the epoch that it is about.
    #[derive(Copy)]
    AuditCommit {
        /// The epoch.
        epoch: u64,
        /// [`digest_of`] everything that it will reveal.
        digest: Hash,
        /// Ed25519 by the seat's key over chain id and the fields above.
        signature: Signature,
    }
}

encoded! {
    /// A batch of what an auditor committed to, in the first round of the epoch after.
    AuditReveal {
        /// The epoch that it is about.
        epoch: u64,
        /// The auditor's secret.
        salt: Hash,
        /// Which batch these reports are.
        batch: u8,
        /// Digests of the other batches of the commitment, in their order.
        others: Bounded<Hash, { REPORT_BATCHES_MAX - 1 }>,
        /// The reports, by stratum.
        reports: Bounded<Report, REPORTS_MAX>,
    }
}

impl Report {
    /// Signs as the session key's holder; `self.signature` is replaced.
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

    /// The agreement that was read under.
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

    /// The signature to check.
    pub fn check(&self, chain: &Hash, epoch: u64, auditor: &Account) -> SignatureCheck {
        SignatureCheck {
            namespace: REPORT_NAMESPACE,
            message: self.signed_bytes(chain, epoch, auditor),
            key: self.session_key,
            signature: self.signature,
        }
    }

    /// Whether every field lies within its range.
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
    /// Signs with the seat's key.
    pub fn signed(seat: &ed25519::PrivateKey, chain: &Hash, epoch: u64, digest: Hash) -> Self {
        let mut commit = Self { epoch, digest, signature: [0; 64] };
        commit.signature = sign(seat, AUDIT_NAMESPACE, &commit.signed_bytes(chain));
        commit
    }

    fn signed_bytes(&self, chain: &Hash) -> Bytes {
        unsigned(chain, self, &self.signature)
    }

    /// The signature to check, if `seat` committed. Evidence of two different ones needs both checks.
    pub fn check(&self, chain: &Hash, seat: Account) -> SignatureCheck {
        SignatureCheck {
            namespace: AUDIT_NAMESPACE,
            message: self.signed_bytes(chain),
            key: seat,
            signature: self.signature,
        }
    }
}

/// The batch in which a report on `stratum` stands.
pub const fn batch_of(stratum: u16) -> usize {
    stratum as usize / REPORTS_MAX
}

/// The digest of one batch.
fn batch_digest(salt: &Hash, batch: u8, reports: &[Report]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"posync/audit-batch/1").update(salt).update(&[batch]);
    for report in reports {
        hasher.update(&report.encode());
    }
    *hasher.finalize().as_bytes()
}

/// What a commitment names, from the digests of its batches in their order.
fn commitment<'a>(auditor: &Account, epoch: u64, batches: impl Iterator<Item = &'a Hash>) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"posync/audit-digest/1").update(&auditor.0).update(&epoch.to_be_bytes());
    for batch in batches {
        hasher.update(batch);
    }
    *hasher.finalize().as_bytes()
}

impl AuditReveal {
    /// The commitment of `auditor` that this is a part of.
    pub fn digest(&self, auditor: &Account) -> Hash {
        let own = batch_digest(&self.salt, self.batch, &self.reports);
        let (before, after) = self.others.split_at(usize::from(self.batch).min(self.others.len()));
        commitment(auditor, self.epoch, before.iter().chain([&own]).chain(after))
    }

    pub(super) fn signatures<'a>(
        &'a self,
        chain: &'a Hash,
        auditor: &'a Account,
    ) -> impl Iterator<Item = SignatureCheck> + 'a {
        self.reports.iter().map(move |report| report.check(chain, self.epoch, auditor))
    }

    /// Whether the batch is one of the commitment's and its reports are those of its strata.
    pub(super) fn fits(&self) -> bool {
        let batch = usize::from(self.batch);
        batch <= self.others.len()
            && !self.reports.is_empty()
            && self.reports.iter().all(|report| report.fits() && batch_of(report.stratum) == batch)
            && self.reports.windows(2).all(|pair| pair[0].stratum < pair[1].stratum)
    }
}

/// What an auditor commits to, and then reveals batch by batch: signed reports of one epoch, at
/// most one of a stratum. `None` if there are none or two of a stratum.
pub fn reveals(epoch: u64, salt: Hash, mut reports: Vec<Report>) -> Option<Vec<AuditReveal>> {
    reports.sort_unstable_by_key(|report| report.stratum);
    let ascends = reports.windows(2).all(|pair| pair[0].stratum < pair[1].stratum);
    let batches = batch_of(reports.last()?.stratum) + 1;
    if !ascends || batches > REPORT_BATCHES_MAX {
        return None;
    }
    let of = |batch: usize| reports.iter().filter(move |report| batch_of(report.stratum) == batch).copied();
    let digests: Vec<Hash> =
        (0..batches).map(|batch| batch_digest(&salt, batch as u8, &of(batch).collect::<Vec<_>>())).collect();
    let filled = (0..batches).filter(|batch| of(*batch).next().is_some());
    filled
        .map(|batch| {
            let others = digests.iter().enumerate().filter(|(place, _)| *place != batch);
            Some(AuditReveal {
                epoch,
                salt,
                batch: batch as u8,
                others: Bounded::new(others.map(|(_, digest)| *digest).collect())?,
                reports: Bounded::new(of(batch).collect())?,
            })
        })
        .collect()
}

/// The digest that an auditor commits to: that of any of its [`reveals`].
pub fn digest_of(reveals: &[AuditReveal], auditor: &Account) -> Option<Hash> {
    reveals.first().map(|reveal| reveal.digest(auditor))
}
