//! The agreements' rows; each operation stages all of its changes together.
//!
//! In memory are the numbers of agreements and what they stand for. All else is read on demand.

use super::{
    contents::{Agreed, Contents},
    loaded::{Loaded, LoadedAgreement},
    row::{
        Added, CatalogueRow, DAMAGED_PAGES, Intent, Key, Meta, OwnAgreementRow, PaidRow, RESTORING,
        RestoredRow, SetRow, Waiting, place,
    },
    salvage,
    store::{Error, Store},
};
use crate::{
    agreements::state::Stage,
    limits::{AGREEMENTS_FRESH, AGREEMENTS_MAX},
};
use commonware_codec::Error::Invalid;
use commonware_runtime::{Clock, Metrics, Spawner, Storage};
use posync_protocol::{AgreementId, Hash};
use std::collections::{BTreeMap, VecDeque};

/// The rows of a catalogue, with the counts of its dense numbers.
pub struct Rows<E: Storage + Clock + Metrics> {
    /// The rows on disk, and the changes of them that are staged.
    pub store: Store<E>,
    /// The counts of the dense numbers, and the secret.
    pub meta: Meta,
    /// Kind and number of each row that does not decode.
    aside: Vec<String>,
}

impl<E: Storage + Clock + Metrics + Spawner> Rows<E> {
    /// Opens the rows; `secret` becomes the master secret of a new catalogue.
    ///
    /// # Errors
    /// [`Error`].
    async fn open(context: E, partition: &str, secret: Hash) -> Result<Self, Error> {
        salvage::resume(&context, partition).await?;
        let mut store = match Store::open(context.child("table"), partition).await {
            Err(Error::Page(why)) => {
                salvage::mend(&context, partition, why).await?;
                Store::open(context.child("mended"), partition).await?
            }
            opened => opened?,
        };
        if store.raw(&place(RESTORING, &[])).await?.is_some() {
            return Err(Error::Restoring);
        }
        // The secret of all files is in one row, so that row has a copy.
        let found = match store.get::<Meta>(&Meta::key()).await {
            Ok(Some(meta)) => Some(meta),
            Ok(None) | Err(Error::Damaged(_)) => store.get::<Meta>(&Meta::copy()).await?,
            Err(error) => return Err(error),
        };
        let meta = match found {
            Some(meta) => meta,
            None => {
                let meta = Meta { master: secret, ..Meta::default() };
                store.put(Meta::key(), &meta);
                store.put(Meta::copy(), &meta);
                store.commit().await?;
                meta
            }
        };
        let damaged = store.raw(&place(DAMAGED_PAGES, &[])).await?;
        let aside = damaged.map(|_| "pages".into()).into_iter().collect();
        Ok(Self { store, meta, aside })
    }

    /// Sets a row aside that does not decode, and returns `None` for it. The row stays as it is, its
    /// number is not used again, and everything else goes on.
    ///
    /// # Errors
    /// A disk failure.
    pub fn aside<T>(&mut self, kind: &str, number: u32, read: Result<T, Error>) -> Result<Option<T>, Error> {
        match read {
            Err(Error::Damaged(why)) => {
                tracing::error!(%why, kind, number, "a row of the catalogue does not decode; it is set aside, and all else goes on");
                self.aside.push(format!("{kind} {number}"));
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    async fn need<R: CatalogueRow>(&self, key: &Key) -> Result<R, Error> {
        let damaged = Error::Damaged(Invalid("Row", "missing"));
        self.store.get(key).await?.ok_or(damaged)
    }

    /// Stages the counts, and their copy.
    pub fn put_meta(&mut self) {
        self.store.put(Meta::key(), &self.meta);
        self.store.put(Meta::copy(), &self.meta);
    }

    /// Reads a row; one that does not decode counts as absent. Only what it described is lost.
    ///
    /// # Errors
    /// A disk failure.
    pub async fn known<R: CatalogueRow>(&self, key: &Key) -> Result<Option<R>, Error> {
        match self.store.get(key).await {
            Err(Error::Damaged(why)) => {
                tracing::error!(%why, ?key,
                    "a row of the catalogue does not decode; the data that it describes cannot be \
                     read");
                Ok(None)
            }
            other => other,
        }
    }
}

/// The catalogue's state, without its mailbox.
pub(super) struct Index<E: Storage + Clock + Metrics, C> {
    pub(super) rows: Rows<E>,
    /// The rows beside those of agreements.
    pub(super) contents: C,
    /// Numbers of agreements that are gone, the one that went first at the front.
    free_agreements: VecDeque<u32>,
    /// The agreement for which a number stands.
    identities: BTreeMap<u32, AgreementId>,
}

impl<E: Storage + Clock + Metrics + Spawner, C: Contents> Index<E, C> {
    /// Opens the catalogue; `secret` becomes the master secret of a new one.
    ///
    /// # Errors
    /// [`Error`].
    pub(super) async fn open(
        context: E,
        partition: &str,
        secret: Hash,
    ) -> Result<(Self, Loaded<C::Found>), Error> {
        let mut rows = Rows::open(context, partition, secret).await?;
        let mut identities = BTreeMap::new();
        let mut agreements = BTreeMap::new();
        for number in 0..rows.meta.agreements {
            let loaded = load_agreement(&rows, number).await;
            if let Some(agreement) = rows.aside("agreement", number, loaded)? {
                identities.insert(number, agreement.row.id);
                agreements.insert(number, agreement);
            }
        }
        let (contents, found) = C::load(&mut rows, &mut agreements).await?;
        let is_free = |agreement: &LoadedAgreement| {
            Stage::of(&agreement.row) == Stage::Gone && agreement.entries.is_empty()
        };
        let free_agreements = agreements
            .values()
            .filter(|agreement| is_free(agreement))
            .map(|agreement| agreement.number)
            .collect();
        let loaded = Loaded {
            master: rows.meta.master,
            agreements: agreements.into_values().collect(),
            contents: found,
            aside: rows.aside.clone(),
        };
        Ok((Self { rows, contents, free_agreements, identities }, loaded))
    }

    /// Adds an agreement and returns its number: a fresh one below [`AGREEMENTS_FRESH`], after that the one
    /// that has been free for longest, or a fresh one if none is free.
    ///
    /// # Errors
    /// [`Error::Full`] if all [`AGREEMENTS_MAX`] numbers are in use.
    pub(super) fn add_agreement(&mut self, row: &OwnAgreementRow) -> Result<u32, Error> {
        let fresh = (self.rows.meta.agreements as usize) < AGREEMENTS_FRESH;
        let gone = if fresh { None } else { self.free_agreements.pop_front() };
        let number = match gone {
            Some(number) => number,
            None if self.rows.meta.agreements as usize >= AGREEMENTS_MAX => {
                return Err(Error::Full("too many agreements"));
            }
            None => {
                self.rows.meta.agreements += 1;
                self.rows.put_meta();
                self.rows.meta.agreements - 1
            }
        };
        // A fresh number may have rows, too, from a restore that was interrupted.
        let rows = [Intent::key, Waiting::key, SetRow::key, PaidRow::key, RestoredRow::key];
        rows.into_iter().for_each(|key| self.rows.store.delete(key(number)));
        self.identities.remove(&number);
        self.put_agreement(number, row);
        Ok(number)
    }

    /// Returns true if the number stands for that agreement, or for the request that opened it. A late
    /// change for an agreement that is gone is ignored.
    fn stands_for(&self, number: u32, it: &AgreementId) -> bool {
        self.identities.get(&number).is_none_or(|now| now == it || *now == AgreementId { opened: 0, ..*it })
    }

    /// Writes an agreement's row. The number of one that is gone becomes free. Ignored if the number
    /// stands for another agreement.
    pub(super) fn put_agreement(&mut self, number: u32, row: &OwnAgreementRow) {
        if !self.stands_for(number, &row.id) {
            return;
        }
        if Stage::of(row) == Stage::Gone && !self.free_agreements.contains(&number) {
            self.free_agreements.push_back(number);
        }
        self.identities.insert(number, row.id);
        self.rows.store.put(OwnAgreementRow::key(number), row);
    }

    /// Writes the total that the next voucher signs for, before the voucher is sent. Returns false, and
    /// writes nothing, if the number stands for another agreement.
    pub(super) fn put_paid(&mut self, number: u32, agreement: &AgreementId, row: &PaidRow) -> bool {
        let is_its = self.identities.get(&number) == Some(agreement);
        if is_its {
            self.rows.store.put(PaidRow::key(number), row);
        }
        is_its
    }

    /// Writes the change that is about to be sent to the provider for its signature.
    pub(super) fn intend(&mut self, agreement: u32, intent: &Intent) {
        if self.stands_for(agreement, &intent.claim.agreement) {
            self.rows.store.put(Intent::key(agreement), intent);
        }
    }

    /// Deletes the intent: the provider refused it for good.
    pub(super) fn withdraw(&mut self, number: u32, agreement: &AgreementId) {
        if self.stands_for(number, agreement) {
            self.rows.store.delete(Intent::key(number));
        }
    }

    /// Deletes the waiting claim if the ledger knows its version, that is, `version` or an older one.
    pub(super) async fn settled(
        &mut self,
        number: u32,
        agreement: &AgreementId,
        version: u64,
    ) -> Result<(), Error> {
        if !self.stands_for(number, agreement) {
            return Ok(());
        }
        let waiting: Waiting = self.rows.known(&Waiting::key(number)).await?.unwrap_or_default();
        if waiting.claim.is_some_and(|signed| signed.claim.version <= version) {
            self.rows.store.delete(Waiting::key(number));
        }
        Ok(())
    }

    /// Applies a change that both sides signed. Returns the additions that no longer have a place.
    /// `None`, with nothing written, if the number stands for another agreement.
    pub(super) async fn agreed(&mut self, agreed: &Agreed) -> Result<Option<Vec<Added>>, Error> {
        if !self.stands_for(agreed.agreement, &agreed.claim.claim.agreement) {
            return Ok(None);
        }
        let orphans = self.contents.agreed(&mut self.rows, agreed).await?;
        self.rows.store.put(Waiting::key(agreed.agreement), &Waiting { claim: Some(agreed.claim) });
        self.rows.store.put(SetRow::key(agreed.agreement), &agreed.row);
        self.rows.store.delete(Intent::key(agreed.agreement));
        Ok(Some(orphans))
    }

    /// Marks holdings as dropped: they are lost or no longer wanted. Ignored if the number stands for
    /// another agreement.
    pub(super) async fn drop_holdings(
        &mut self,
        number: u32,
        agreement: &AgreementId,
        entries: &[Added],
    ) -> Result<(), Error> {
        if !self.stands_for(number, agreement) {
            return Ok(());
        }
        self.contents.dropped(&mut self.rows, number, entries).await
    }

    /// Deletes holdings that went with their agreement. Ignored if the number stands for another
    /// agreement.
    pub(super) async fn erase_holdings(
        &mut self,
        number: u32,
        agreement: &AgreementId,
        entries: &[Added],
    ) -> Result<(), Error> {
        if !self.stands_for(number, agreement) {
            return Ok(());
        }
        self.contents.erased(&mut self.rows, number, entries).await
    }
}

/// Reads the rows of one agreement.
async fn load_agreement<E: Storage + Clock + Metrics + Spawner>(
    rows: &Rows<E>,
    number: u32,
) -> Result<LoadedAgreement, Error> {
    let row = rows.need(&OwnAgreementRow::key(number)).await?;
    let intent = rows.store.get(&Intent::key(number)).await?;
    let waiting = rows.store.get(&Waiting::key(number)).await?.unwrap_or_default();
    let set = rows.store.get(&SetRow::key(number)).await?.unwrap_or_default();
    let paid = rows.store.get(&PaidRow::key(number)).await?.unwrap_or_default();
    let restored = rows.store.get::<RestoredRow>(&RestoredRow::key(number)).await?.map(|row| row.version);
    Ok(LoadedAgreement { number, row, set, paid, intent, waiting, restored, entries: BTreeMap::new() })
}
