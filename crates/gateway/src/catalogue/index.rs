//! Operations on the catalogue's rows; each stages all of its changes together.
//!
//! In memory are the names, in order and with their row's number, and for each file the number of its
//! shards that have a holder. All else is read on demand.

use super::{
    loaded::{Entry, Loaded, LoadedAgreement},
    row::{
        Added, FaultRow, FileRow, Holding, Intent, JobRow, Meta, Named, OwnAgreementRow, Owner, PaidRow,
        Removed, SegmentRow, SetRow, SignedClaim, Waiting,
    },
    store::{Error, Store},
};
use crate::{
    agreements::state::Stage,
    coding::{DATA, FileId, SHARDS},
    limits::{AGREEMENTS_FRESH, AGREEMENTS_MAX, FAULTS_MAX, FILES_MAX},
};
use commonware_codec::Error::Invalid;
use commonware_runtime::{Clock, Metrics, Spawner, Storage};
use posync_protocol::{
    AgreementId, Bounded, Hash,
    wire::gateway::{File, ROWS_MAX},
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A change of a data set that both sides signed.
#[derive(Debug)]
pub struct Agreed {
    /// Number of the agreement that changed.
    pub agreement: u32,
    /// The new version and next sequence number of its data set.
    pub row: SetRow,
    /// The signed claim, to be submitted to the ledger.
    pub claim: SignedClaim,
    /// Shards that were added to the data set.
    pub adds: Vec<Added>,
    /// Shards that were removed from it.
    pub removes: Vec<Removed>,
}

/// The file id for a shard that found its segment full. It is derived from the shard, so it is the same
/// after a crash.
fn stray_id(add: &Added, agreement: u32) -> FileId {
    let mut hasher = blake3::Hasher::new_derive_key("posync gateway 2026-11 stray shard");
    hasher.update(&add.file).update(&add.segment.to_be_bytes());
    hasher.update(&agreement.to_be_bytes()).update(&add.sequence.to_be_bytes());
    hasher.finalize().as_bytes()[..16].try_into().expect("sixteen of 32 bytes")
}

/// The catalogue's state, without its mailbox.
pub struct Index<E: Storage + Clock + Metrics> {
    pub(super) store: Store<E>,
    meta: Meta,
    names: BTreeMap<Owner, BTreeMap<Vec<u8>, u32>>,
    free_files: BTreeSet<u32>,
    free_jobs: BTreeSet<u32>,
    /// Numbers of agreements that are gone, the one that went first at the front.
    free_agreements: VecDeque<u32>,
    /// The agreement for which a number stands.
    identities: BTreeMap<u32, AgreementId>,
    durable: BTreeMap<FileId, u32>,
    /// Bytes of each account's files.
    stored: BTreeMap<Owner, u64>,
    /// Kind and number of each row that does not decode.
    aside: Vec<String>,
}

impl<E: Storage + Clock + Metrics + Spawner> Index<E> {
    /// Opens the catalogue; `secret` becomes the master secret of a new one.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn open(context: E, partition: &str, secret: Hash) -> Result<(Self, Loaded), Error> {
        let mut store = Store::open(context, partition).await?;
        if store.raw(&super::row::restoring()).await?.is_some() {
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
        let mut index = Self {
            store,
            meta,
            names: BTreeMap::new(),
            free_files: BTreeSet::new(),
            free_jobs: BTreeSet::new(),
            free_agreements: VecDeque::new(),
            identities: BTreeMap::new(),
            stored: BTreeMap::new(),
            aside: Vec::new(),
            durable: BTreeMap::new(),
        };
        let loaded = index.load().await?;
        Ok((index, loaded))
    }

    async fn load(&mut self) -> Result<Loaded, Error> {
        let mut loaded = Loaded { master: self.meta.master, ..Loaded::default() };
        let mut agreements = BTreeMap::new();
        for number in 0..self.meta.agreements {
            if let Some(agreement) = self.aside("agreement", number, self.load_agreement(number).await)? {
                self.identities.insert(number, agreement.row.id);
                agreements.insert(number, agreement);
            }
        }
        for number in 0..self.meta.files {
            let found = self.store.get::<FileRow>(&FileRow::key(number)).await;
            match self.aside("file", number, found)? {
                Some(Some(file)) => {
                    self.load_segments(&file.id, file.segments, true, &mut agreements, &mut loaded.open)
                        .await?;
                    self.names.entry(file.owner).or_default().insert(file.name.to_vec(), number);
                    *self.stored.entry(file.owner).or_default() += file.bytes;
                }
                Some(None) => drop(self.free_files.insert(number)),
                None => {}
            }
        }
        for number in 0..self.meta.jobs {
            let found = self.store.get::<JobRow>(&JobRow::key(number)).await;
            match self.aside("job", number, found)? {
                Some(Some(job)) => {
                    self.load_segments(&job.file, job.segments, false, &mut agreements, &mut loaded.open)
                        .await?;
                    loaded.jobs.push((number, job));
                }
                Some(None) => drop(self.free_jobs.insert(number)),
                None => {}
            }
        }
        let is_free = |agreement: &LoadedAgreement| {
            Stage::of(&agreement.row) == Stage::Gone && agreement.entries.is_empty()
        };
        self.free_agreements = agreements
            .values()
            .filter(|agreement| is_free(agreement))
            .map(|agreement| agreement.number)
            .collect();
        loaded.agreements = agreements.into_values().collect();
        loaded.aside = self.aside.clone();
        Ok(loaded)
    }

    async fn load_agreement(&self, number: u32) -> Result<LoadedAgreement, Error> {
        let row = self.need(&OwnAgreementRow::key(number)).await?;
        let intent = self.store.get(&Intent::key(number)).await?;
        let waiting = self.store.get(&Waiting::key(number)).await?.unwrap_or_default();
        let set = self.store.get(&SetRow::key(number)).await?.unwrap_or_default();
        let paid = self.store.get(&PaidRow::key(number)).await?.unwrap_or_default();
        Ok(LoadedAgreement { number, row, set, paid, intent, waiting, entries: BTreeMap::new() })
    }

    /// Sets a row aside that does not decode, and returns `None` for it. The row stays as it is, its
    /// number is not used again, and everything else goes on.
    fn aside<T>(&mut self, kind: &str, number: u32, read: Result<T, Error>) -> Result<Option<T>, Error> {
        match read {
            Err(Error::Damaged(why)) => {
                tracing::error!(%why, kind, number, "a row of the catalogue does not decode; it is set aside, and all else goes on");
                self.aside.push(format!("{kind} {number}"));
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    async fn load_segments(
        &mut self,
        file: &FileId,
        segments: u32,
        wanted: bool,
        agreements: &mut BTreeMap<u32, LoadedAgreement>,
        without: &mut Vec<(FileId, u32)>,
    ) -> Result<(), Error> {
        let mut durable = 0;
        for segment in 0..segments {
            let found = self.store.get::<SegmentRow>(&SegmentRow::key(file, segment)).await;
            let found = found.and_then(|row| match row {
                Some(row) if !row.is_sound() => Err(Error::Damaged(Invalid("SegmentRow", "positions"))),
                row => Ok(row),
            });
            let Some(Some(row)) = self.aside("segment", segment, found)? else { continue };
            let mut homeless = false;
            for holding in row.holdings.iter() {
                let added = Added {
                    file: *file,
                    segment,
                    position: holding.position,
                    sequence: holding.sequence,
                    name: row.names[usize::from(holding.position)],
                    bytes: u32::try_from(row.shard_bytes()).expect("a shard is below 4 MiB"),
                    moves: false,
                };
                let entry = Entry { added, dropped: holding.dropped || !wanted };
                match agreements.get_mut(&holding.agreement) {
                    Some(agreement) => drop(agreement.entries.insert(holding.sequence, entry)),
                    None => homeless |= !holding.dropped,
                }
            }
            let open = row.open_positions().count();
            durable += (SHARDS - open) as u32;
            if wanted && (open > 0 || homeless) {
                without.push((*file, segment));
            }
        }
        self.durable.insert(*file, durable);
        Ok(())
    }

    async fn need<R: super::store::Row>(&self, key: &super::row::Key) -> Result<R, Error> {
        let damaged = Error::Damaged(Invalid("Row", "missing"));
        self.store.get(key).await?.ok_or(damaged)
    }

    fn put_meta(&mut self) {
        self.store.put(Meta::key(), &self.meta);
        self.store.put(Meta::copy(), &self.meta);
    }

    /// Reads a row; one that does not decode counts as absent. Only what it described is lost.
    async fn known<R: super::store::Row>(&self, key: &super::row::Key) -> Result<Option<R>, Error> {
        match self.store.get(key).await {
            Err(Error::Damaged(why)) => {
                tracing::error!(%why, ?key, "a row of the catalogue does not decode; what it described cannot be had");
                Ok(None)
            }
            other => other,
        }
    }

    /// The row of the file with that name.
    pub async fn file(&self, Named(owner, name): &Named) -> Result<Option<FileRow>, Error> {
        let number = self.names.get(owner).and_then(|names| names.get(name));
        let Some(number) = number else { return Ok(None) };
        self.known(&FileRow::key(*number)).await
    }

    /// Describes a file as users see it.
    pub fn describe(&self, row: &FileRow) -> File {
        File {
            name: row.name.clone(),
            bytes: row.bytes,
            blake3: row.blake3,
            segments: row.segments,
            shards_durable: self.durable.get(&row.id).copied().unwrap_or(0),
            shards: row.segments.saturating_mul(SHARDS as u32),
        }
    }

    /// Lists one page of an account's files from the name `from` on, by name.
    pub async fn list(&self, Named(owner, from): Named) -> Result<Vec<File>, Error> {
        let mut files = Vec::new();
        let Some(names) = self.names.get(&owner) else { return Ok(files) };
        for number in names.range(from..).map(|(_, number)| *number).take(ROWS_MAX) {
            files.extend(self.known(&FileRow::key(number)).await?.map(|row| self.describe(&row)));
        }
        Ok(files)
    }

    /// The bytes of an account's files.
    pub fn stored(&self, owner: &Owner) -> u64 {
        self.stored.get(owner).copied().unwrap_or_default()
    }

    fn add_stored(&mut self, owner: Owner, more: u64, less: u64) {
        let stored = self.stored.entry(owner).or_default();
        *stored = stored.saturating_add(more).saturating_sub(less);
    }

    /// The number of an account's files.
    pub fn files(&self, owner: &Owner) -> u64 {
        self.names.get(owner).map_or(0, |names| names.len() as u64)
    }

    /// The row of a segment, if it is there and sound.
    pub async fn segment(&self, file: &FileId, segment: u32) -> Result<Option<SegmentRow>, Error> {
        let row: Option<SegmentRow> = self.known(&SegmentRow::key(file, segment)).await?;
        Ok(row.filter(SegmentRow::is_sound))
    }

    fn add_job(&mut self, job: JobRow) -> u32 {
        let number = self.free_jobs.pop_first().unwrap_or(self.meta.jobs);
        if number == self.meta.jobs {
            self.meta.jobs += 1;
            self.put_meta();
        }
        self.store.put(JobRow::key(number), &job);
        number
    }

    /// Opens a put. Until it is finished, a crash leaves a job that cleans it up. Returns the job's
    /// number.
    pub fn begin(&mut self, file: FileId, segments: u32) -> u32 {
        self.durable.insert(file, 0);
        self.add_job(JobRow { file, segments })
    }

    /// Stores the names of a segment's shards, before any of them is signed for.
    pub fn place(&mut self, file: &FileId, segment: u32, row: &SegmentRow) {
        self.store.put(SegmentRow::key(file, segment), row);
    }

    /// Completes a put: the name points to the new file. Returns the job for the file that it replaces,
    /// if any.
    ///
    /// # Errors
    /// [`Error::Full`] above [`FILES_MAX`] names.
    pub async fn finish(&mut self, job: u32, row: &FileRow) -> Result<Option<(u32, JobRow)>, Error> {
        let known = self.names.get(&row.owner).and_then(|names| names.get(&row.name[..])).copied();
        let number = match known {
            Some(number) => number,
            None => match self.free_files.pop_first() {
                Some(number) => number,
                None if self.meta.files as usize >= FILES_MAX => return Err(Error::Full("too many files")),
                None => {
                    self.meta.files += 1;
                    self.put_meta();
                    self.meta.files - 1
                }
            },
        };
        let old = match known {
            Some(_) => self.known::<FileRow>(&FileRow::key(number)).await?,
            None => None,
        };
        self.add_stored(row.owner, row.bytes, old.as_ref().map_or(0, |old| old.bytes));
        let replaced = old.map(|old| {
            let old = JobRow { file: old.id, segments: old.segments };
            (self.add_job(old), old)
        });
        self.store.put(FileRow::key(number), row);
        self.store.delete(JobRow::key(job));
        self.free_jobs.insert(job);
        self.names.entry(row.owner).or_default().insert(row.name.to_vec(), number);
        Ok(replaced)
    }

    /// Removes a name; its segments become a job, which is returned.
    pub async fn remove(&mut self, Named(owner, name): &Named) -> Result<Option<(File, u32, JobRow)>, Error> {
        let number = self.names.get_mut(owner).and_then(|names| names.remove(name));
        let Some(number) = number else { return Ok(None) };
        let Some(row) = self.known::<FileRow>(&FileRow::key(number)).await? else { return Ok(None) };
        self.store.delete(FileRow::key(number));
        self.add_stored(*owner, 0, row.bytes);
        self.free_files.insert(number);
        let job = JobRow { file: row.id, segments: row.segments };
        Ok(Some((self.describe(&row), self.add_job(job), job)))
    }

    /// At most `most` jobs numbered `from` or higher, lowest first. Jobs that do not decode are left out
    /// and do not count.
    pub async fn jobs(&self, from: u32, most: usize) -> Result<Vec<(u32, JobRow)>, Error> {
        let mut jobs = Vec::new();
        for number in (from..self.meta.jobs).filter(|number| !self.free_jobs.contains(number)) {
            if jobs.len() >= most {
                break;
            }
            jobs.extend(self.known(&JobRow::key(number)).await?.map(|job| (number, job)));
        }
        Ok(jobs)
    }

    /// The job with that number, if it is there.
    pub async fn job(&self, number: u32) -> Result<Option<JobRow>, Error> {
        self.known(&JobRow::key(number)).await
    }

    /// Completes a job: none of its segments has a row any more.
    pub fn job_done(&mut self, number: u32, job: &JobRow) {
        self.store.delete(JobRow::key(number));
        self.free_jobs.insert(number);
        self.durable.remove(&job.file);
    }

    /// Removes the row of a segment without holders.
    pub fn forget_segment(&mut self, file: &FileId, segment: u32) {
        self.store.delete(SegmentRow::key(file, segment));
    }

    /// Adds an agreement and returns its number: a fresh one below [`AGREEMENTS_FRESH`], after that the one
    /// that has been free for longest, or a fresh one if none is free.
    ///
    /// # Errors
    /// [`Error::Full`] if all [`AGREEMENTS_MAX`] numbers are in use.
    pub fn add_agreement(&mut self, row: &OwnAgreementRow) -> Result<u32, Error> {
        let fresh = (self.meta.agreements as usize) < AGREEMENTS_FRESH;
        let gone = if fresh { None } else { self.free_agreements.pop_front() };
        let number = match gone {
            Some(number) => number,
            None if self.meta.agreements as usize >= AGREEMENTS_MAX => {
                return Err(Error::Full("too many agreements"));
            }
            None => {
                self.meta.agreements += 1;
                self.put_meta();
                self.meta.agreements - 1
            }
        };
        // A fresh number may have rows, too, from a restore that was interrupted.
        let rows = [Intent::key, Waiting::key, SetRow::key, PaidRow::key];
        rows.into_iter().for_each(|key| self.store.delete(key(number)));
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
    pub fn put_agreement(&mut self, number: u32, row: &OwnAgreementRow) {
        if !self.stands_for(number, &row.id) {
            return;
        }
        if Stage::of(row) == Stage::Gone && !self.free_agreements.contains(&number) {
            self.free_agreements.push_back(number);
        }
        self.identities.insert(number, row.id);
        self.store.put(OwnAgreementRow::key(number), row);
    }

    /// Writes the total that the next voucher signs for, before the voucher is sent. Returns false, and
    /// writes nothing, if the number stands for another agreement.
    pub fn put_paid(&mut self, number: u32, agreement: &AgreementId, row: &PaidRow) -> bool {
        let is_its = self.identities.get(&number) == Some(agreement);
        if is_its {
            self.store.put(PaidRow::key(number), row);
        }
        is_its
    }

    /// Writes the change that is about to be sent to the provider for its signature.
    pub fn intend(&mut self, agreement: u32, intent: &Intent) {
        if self.stands_for(agreement, &intent.claim.agreement) {
            self.store.put(Intent::key(agreement), intent);
        }
    }

    /// Deletes the intent: the provider refused it for good.
    pub fn withdraw(&mut self, number: u32, agreement: &AgreementId) {
        if self.stands_for(number, agreement) {
            self.store.delete(Intent::key(number));
        }
    }

    /// Applies a change that both sides signed. Returns the additions that no longer belong to a segment;
    /// one returned with another file id found its segment full. `None`, with nothing written, if the
    /// number stands for another agreement.
    pub async fn agreed(&mut self, agreed: &Agreed) -> Result<Option<Vec<Added>>, Error> {
        if !self.stands_for(agreed.agreement, &agreed.claim.claim.agreement) {
            return Ok(None);
        }
        let mut orphans = Vec::new();
        for add in &agreed.adds {
            let holding = Holding {
                position: add.position,
                agreement: agreed.agreement,
                sequence: add.sequence,
                dropped: false,
            };
            orphans.extend(self.hold(add, holding).await?);
        }
        for remove in &agreed.removes {
            self.change_holdings(&remove.file, remove.segment, |holdings| {
                holdings.retain(|h| (h.agreement, h.sequence) != (agreed.agreement, remove.sequence));
            })
            .await?;
        }
        self.store.put(Waiting::key(agreed.agreement), &Waiting { claim: Some(agreed.claim) });
        self.store.put(SetRow::key(agreed.agreement), &agreed.row);
        self.store.delete(Intent::key(agreed.agreement));
        Ok(Some(orphans))
    }

    /// Adds a holding. A second holder of a position is marked as dropped and the first stays in force,
    /// unless the second is to replace it. Returns the addition if it must be removed again.
    async fn hold(&mut self, add: &Added, holding: Holding) -> Result<Option<Added>, Error> {
        let Some(row) = self.segment(&add.file, add.segment).await? else {
            // A row that does not decode is kept as it is.
            if self.store.raw(&SegmentRow::key(&add.file, add.segment)).await?.is_none() {
                self.orphan(add, holding);
            }
            return Ok(Some(*add));
        };
        let taken = row.holder(usize::from(add.position)).is_some();
        let holding = Holding { dropped: taken && !add.moves, ..holding };
        let change = |holdings: &mut Vec<Holding>| {
            let old = holdings.iter_mut().filter(|h| h.position == add.position && add.moves);
            old.for_each(|h| h.dropped = true);
            holdings.push(holding);
        };
        if self.change_holdings(&add.file, add.segment, change).await? {
            return Ok(holding.dropped.then_some(*add));
        }
        tracing::warn!(
            segment = add.segment,
            agreement = holding.agreement,
            "a segment has as many holdings as its row takes; one more is taken out again, and all else goes on"
        );
        let stray = Added { file: stray_id(add, holding.agreement), segment: 0, ..*add };
        self.orphan(&stray, holding);
        Ok(Some(stray))
    }

    /// Gives a row, and a job that removes it, to a shard whose segment was deleted while its provider
    /// signed: the shard is in the data set all the same.
    fn orphan(&mut self, add: &Added, holding: Holding) {
        let names = vec![add.name; SHARDS];
        let row = SegmentRow {
            plain: add.bytes.saturating_mul(DATA as u32),
            names: Bounded::new(names).expect("eight"),
            holdings: Bounded::new(vec![Holding { dropped: true, ..holding }]).expect("one"),
        };
        self.place(&add.file, add.segment, &row);
        self.add_job(JobRow { file: add.file, segments: add.segment.saturating_add(1) });
    }

    /// Changes the holdings of a segment. Returns false, with nothing changed, if the segment has no row
    /// or would have too many holdings.
    async fn change_holdings(
        &mut self,
        file: &FileId,
        segment: u32,
        change: impl FnOnce(&mut Vec<Holding>),
    ) -> Result<bool, Error> {
        let Some(row) = self.segment(file, segment).await? else { return Ok(false) };
        let Some(changed) = row.with_holdings(change) else { return Ok(false) };
        if let Some(durable) = self.durable.get_mut(file) {
            *durable += row.open_positions().count() as u32;
            *durable = durable.saturating_sub(changed.open_positions().count() as u32);
        }
        self.store.put(SegmentRow::key(file, segment), &changed);
        Ok(true)
    }

    /// Marks holdings as dropped: they are lost or no longer wanted. Ignored if the number stands for
    /// another agreement.
    pub async fn drop_holdings(
        &mut self,
        number: u32,
        agreement: &AgreementId,
        entries: &[Added],
    ) -> Result<(), Error> {
        let mark = |holdings: &mut Vec<Holding>, sequence| {
            let it = holdings.iter_mut().filter(|h| (h.agreement, h.sequence) == (number, sequence));
            it.for_each(|h| h.dropped = true);
        };
        self.change_entries(number, agreement, entries, mark).await
    }

    /// Deletes holdings that went with their agreement. Ignored if the number stands for another
    /// agreement.
    pub async fn erase_holdings(
        &mut self,
        number: u32,
        agreement: &AgreementId,
        entries: &[Added],
    ) -> Result<(), Error> {
        let delete = |holdings: &mut Vec<Holding>, sequence| {
            holdings.retain(|h| (h.agreement, h.sequence) != (number, sequence));
        };
        self.change_entries(number, agreement, entries, delete).await
    }

    /// Changes the holdings of the segment of each entry, given the entry's sequence.
    async fn change_entries(
        &mut self,
        number: u32,
        agreement: &AgreementId,
        entries: &[Added],
        change: impl Fn(&mut Vec<Holding>, u64),
    ) -> Result<(), Error> {
        if !self.stands_for(number, agreement) {
            return Ok(());
        }
        for entry in entries {
            let change = |holdings: &mut Vec<Holding>| change(holdings, entry.sequence);
            self.change_holdings(&entry.file, entry.segment, change).await?;
        }
        Ok(())
    }

    /// Deletes the waiting claim if the ledger knows its version, that is, `version` or an older one.
    pub async fn settled(&mut self, number: u32, agreement: &AgreementId, version: u64) -> Result<(), Error> {
        if !self.stands_for(number, agreement) {
            return Ok(());
        }
        let waiting: Waiting = self.known(&Waiting::key(number)).await?.unwrap_or_default();
        if waiting.claim.is_some_and(|signed| signed.claim.version <= version) {
            self.store.delete(Waiting::key(number));
        }
        Ok(())
    }

    /// Stores a fault and returns its number; in a full ring it replaces the oldest.
    pub fn add_fault(&mut self, row: &FaultRow) -> u64 {
        let number = self.meta.faults;
        self.meta.faults += 1;
        self.put_meta();
        self.store.put(FaultRow::key((number % FAULTS_MAX as u64) as u32), row);
        number
    }

    /// Changes a fault that is still in the ring.
    pub fn put_fault(&mut self, number: u64, row: &FaultRow) {
        if number + FAULTS_MAX as u64 > self.meta.faults {
            self.store.put(FaultRow::key((number % FAULTS_MAX as u64) as u32), row);
        }
    }

    /// Faults in the ring with their numbers, oldest first.
    pub async fn faults(&self) -> Result<Vec<(u64, FaultRow)>, Error> {
        let first = self.meta.faults.saturating_sub(FAULTS_MAX as u64);
        let mut rows = Vec::new();
        for number in first..self.meta.faults {
            match self.store.get(&FaultRow::key((number % FAULTS_MAX as u64) as u32)).await {
                Ok(Some(row)) => rows.push((number, row)),
                Ok(None) | Err(Error::Damaged(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(rows)
    }
}
