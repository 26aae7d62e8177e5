//! Operations on the rows of files; each stages all of its changes together.
//!
//! In memory are the names, in order and with their row's number, and for each file the number of its
//! shards that have a holder. All else is read on demand.

use super::{
    row::{Added, FaultRow, FileRow, Holding, JobRow, Named, Owner, SegmentRow},
    usage::{Claim, NoRoom, Usage, UsageBook},
};
use crate::{
    catalogue::FileId,
    coding::{DATA, SHARDS, billed},
    limits::{FAULTS_MAX, FILES_MAX, JOBS_PER_ACCOUNT},
};
use commonware_codec::Error::Invalid;
use commonware_runtime::{Clock, Metrics, Spawner, Storage};
use posync_consumer::catalogue::{Agreed, Entry, Error, LoadedAgreement, Rows};
use posync_protocol::{
    Bounded,
    wire::gateway::{File, ROWS_MAX},
};
use std::collections::{BTreeMap, BTreeSet};

/// The file id for a shard that found its segment full or gone. It is derived from the shard, so it is the same
/// after a crash.
fn stray_id(add: &Added, agreement: u32) -> FileId {
    let mut hasher = blake3::Hasher::new_derive_key("posync gateway 2026-11 stray shard");
    hasher.update(&add.file).update(&add.segment.to_be_bytes());
    hasher.update(&agreement.to_be_bytes()).update(&add.sequence.to_be_bytes());
    hasher.finalize().as_bytes()[..16].try_into().expect("sixteen of 32 bytes")
}

/// The files in memory.
#[derive(Default)]
pub(crate) struct Files {
    names: BTreeMap<Owner, BTreeMap<Vec<u8>, u32>>,
    free_files: BTreeSet<u32>,
    free_jobs: BTreeSet<u32>,
    durable: BTreeMap<FileId, u32>,
    /// The job of each file that has one, with its number.
    jobs: BTreeMap<FileId, (u32, JobRow)>,
    usage: UsageBook,
}

/// The findings of a start, for repair and the reaper.
#[derive(Debug, Default)]
pub(crate) struct LoadedFiles {
    /// Segments of files that lack a holder.
    pub open: Vec<(FileId, u32)>,
    /// Open jobs, each with its number.
    pub jobs: Vec<(u32, JobRow)>,
}

/// The files in memory, and their rows.
pub(super) struct Index<'a, E: Storage + Clock + Metrics> {
    pub(super) files: &'a mut Files,
    pub(super) rows: &'a mut Rows<E>,
}

impl<E: Storage + Clock + Metrics + Spawner> Index<'_, E> {
    /// Reads the rows of files and jobs at a start.
    pub(super) async fn load(
        &mut self,
        agreements: &mut BTreeMap<u32, LoadedAgreement>,
    ) -> Result<LoadedFiles, Error> {
        let mut found = LoadedFiles::default();
        for number in 0..self.rows.meta.files {
            let read = self.rows.store.get::<FileRow>(&FileRow::key(number)).await;
            match self.rows.aside("file", number, read)? {
                Some(Some(file)) => {
                    self.load_segments(&file.id, file.segments, true, agreements, &mut found.open).await?;
                    self.files.usage.file(file.owner, billed(file.bytes));
                    self.files.names.entry(file.owner).or_default().insert(file.name.to_vec(), number);
                }
                Some(None) => drop(self.files.free_files.insert(number)),
                None => {}
            }
        }
        for number in 0..self.rows.meta.jobs {
            let read = self.rows.store.get::<JobRow>(&JobRow::key(number)).await;
            match self.rows.aside("job", number, read)? {
                Some(Some(job)) => {
                    let (left, placed) = self
                        .load_segments(&job.file, job.placed(), false, agreements, &mut found.open)
                        .await?;
                    self.files.usage.job(number, job.owner, left, false);
                    let found_job = JobRow { segments: placed, ..job };
                    if found_job != job {
                        self.rows.store.put(JobRow::key(number), &found_job);
                    }
                    self.files.jobs.insert(job.file, (number, found_job));
                    found.jobs.push((number, found_job));
                }
                Some(None) => drop(self.files.free_jobs.insert(number)),
                None => {}
            }
        }
        Ok(found)
    }

    /// Adds and removes the holdings of a change that both sides signed. Returns the additions that no longer
    /// belong to a segment; one returned with another file id found its segment full or gone.
    pub(super) async fn agreed(&mut self, agreed: &Agreed) -> Result<Vec<Added>, Error> {
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
        Ok(orphans)
    }

    /// Marks holdings as dropped: they are lost or no longer wanted.
    pub(super) async fn drop_holdings(&mut self, number: u32, entries: &[Added]) -> Result<(), Error> {
        let mark = |holdings: &mut Vec<Holding>, sequence| {
            let it = holdings.iter_mut().filter(|h| (h.agreement, h.sequence) == (number, sequence));
            it.for_each(|h| h.dropped = true);
        };
        self.change_entries(entries, mark).await
    }

    /// Deletes holdings that went with their agreement.
    pub(super) async fn erase_holdings(&mut self, number: u32, entries: &[Added]) -> Result<(), Error> {
        let delete = |holdings: &mut Vec<Holding>, sequence| {
            holdings.retain(|h| (h.agreement, h.sequence) != (number, sequence));
        };
        self.change_entries(entries, delete).await
    }

    /// Changes the holdings of the segment of each entry, given the entry's sequence.
    async fn change_entries(
        &mut self,
        entries: &[Added],
        change: impl Fn(&mut Vec<Holding>, u64),
    ) -> Result<(), Error> {
        for entry in entries {
            let change = |holdings: &mut Vec<Holding>| change(holdings, entry.sequence);
            self.change_holdings(&entry.file, entry.segment, change).await?;
        }
        Ok(())
    }

    /// Loads the segments of a file or a job. Returns the bytes that they count as, and the number below which
    /// they are.
    async fn load_segments(
        &mut self,
        file: &FileId,
        segments: u32,
        wanted: bool,
        agreements: &mut BTreeMap<u32, LoadedAgreement>,
        without: &mut Vec<(FileId, u32)>,
    ) -> Result<(u64, u32), Error> {
        let (mut durable, mut bytes, mut placed) = (0, 0_u64, 0);
        for segment in 0..segments {
            let found = self.rows.store.get::<SegmentRow>(&SegmentRow::key(file, segment)).await;
            if !matches!(found, Ok(None)) {
                placed = segment + 1;
            }
            let found = found.and_then(|row| match row {
                Some(row) if !row.is_sound() => Err(Error::Damaged(Invalid("SegmentRow", "positions"))),
                row => Ok(row),
            });
            let Some(Some(row)) = self.rows.aside("segment", segment, found)? else { continue };
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
            bytes = bytes.saturating_add(billed(row.plain.into()));
            durable += (SHARDS - open) as u32;
            if wanted && (open > 0 || homeless) {
                without.push((*file, segment));
            }
        }
        self.files.durable.insert(*file, durable);
        Ok((bytes, placed))
    }

    /// The row of the file with that name.
    pub(super) async fn file(&self, Named(owner, name): &Named) -> Result<Option<FileRow>, Error> {
        let number = self.files.names.get(owner).and_then(|names| names.get(name));
        let Some(number) = number else { return Ok(None) };
        self.rows.known(&FileRow::key(*number)).await
    }

    /// Describes a file as users see it.
    pub(super) fn describe(&self, row: &FileRow) -> File {
        File {
            name: row.name.clone(),
            bytes: row.bytes,
            blake3: row.blake3,
            segments: row.segments,
            shards_durable: self.files.durable.get(&row.id).copied().unwrap_or(0),
            shards: row.segments.saturating_mul(SHARDS as u32),
        }
    }

    /// Lists one page of an account's files from the name `from` on, by name.
    pub(super) async fn list(&self, Named(owner, from): Named) -> Result<Vec<File>, Error> {
        let mut files = Vec::new();
        let Some(names) = self.files.names.get(&owner) else { return Ok(files) };
        for number in names.range(from..).map(|(_, number)| *number).take(ROWS_MAX) {
            files.extend(self.rows.known(&FileRow::key(number)).await?.map(|row| self.describe(&row)));
        }
        Ok(files)
    }

    /// The number of an account's files.
    pub(super) fn files(&self, owner: &Owner) -> u64 {
        self.files.names.get(owner).map_or(0, |names| names.len() as u64)
    }

    /// The row of a segment, if it is there and sound.
    pub(super) async fn segment(&self, file: &FileId, segment: u32) -> Result<Option<SegmentRow>, Error> {
        let row: Option<SegmentRow> = self.rows.known(&SegmentRow::key(file, segment)).await?;
        Ok(row.filter(SegmentRow::is_sound))
    }

    /// The files and bytes of each account that has any.
    pub(super) fn usages(&self) -> Vec<(Owner, Usage)> {
        self.files.usage.all(&self.files.names)
    }

    /// Records the bytes that the part of a job counts as that is still to be removed.
    pub(super) fn left(&mut self, number: u32, bytes: u64) {
        self.files.usage.left(number, bytes);
    }

    /// Adds a job, which counts `bytes`, and a name if it `reserves` one, for its owner until it is done.
    fn add_job(&mut self, job: JobRow, bytes: u64, reserves: bool) -> u32 {
        let number = self.files.free_jobs.pop_first().unwrap_or(self.rows.meta.jobs);
        if number == self.rows.meta.jobs {
            self.rows.meta.jobs += 1;
            self.rows.put_meta();
        }
        self.rows.store.put(JobRow::key(number), &job);
        self.files.jobs.insert(job.file, (number, job));
        self.files.usage.job(number, job.owner, bytes, reserves);
        number
    }

    /// Opens a put and reserves its bytes, and its name if that is a new one. Until it is finished, a crash
    /// leaves a job that cleans it up. Returns the job's number.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub(super) fn begin(&mut self, file: FileId, claim: &Claim) -> Result<u32, NoRoom> {
        let names = self.files.names.get(&claim.owner);
        let is_new = !names.is_some_and(|names| names.contains_key(&claim.name));
        self.check_room(claim, is_new)?;
        self.files.durable.insert(file, 0);
        let job = JobRow { file, segments: 0, owner: claim.owner };
        Ok(self.add_job(job, billed(claim.bytes), is_new))
    }

    /// Checks the room for a put. The owner may have any number of jobs: shards that have no segment any more
    /// are jobs of the owner, too.
    fn check_room(&self, claim: &Claim, is_new: bool) -> Result<(), NoRoom> {
        let used = self.files.usage.of(&claim.owner);
        if claim.quota.is_some_and(|quota| used.bytes.saturating_add(billed(claim.bytes)) > quota) {
            return Err(NoRoom::Bytes(used));
        }
        let pending = self.files.usage.pending(&claim.owner);
        if claim.owner != Owner::default() && pending.jobs >= JOBS_PER_ACCOUNT {
            return Err(NoRoom::Jobs(pending.jobs));
        }
        let names = self.files(&claim.owner) + pending.names;
        match claim.names {
            Some(most) if is_new && names >= most => Err(NoRoom::Names(names)),
            _ if is_new && self.is_full() => Err(NoRoom::Full),
            _ => Ok(()),
        }
    }

    /// True if every name that the catalogue takes is used or reserved.
    fn is_full(&self) -> bool {
        let used = self.rows.meta.files as usize - self.files.free_files.len();
        used as u64 + self.files.usage.reserved() >= FILES_MAX as u64
    }

    /// Stores the names of a segment's shards, before any of them is signed for; the file's job covers it.
    pub(super) fn place(&mut self, file: &FileId, segment: u32, row: &SegmentRow) {
        if let Some((number, job)) = self.files.jobs.get_mut(file)
            && segment >= job.segments
        {
            job.segments = segment.saturating_add(1);
            self.rows.store.put(JobRow::key(*number), job);
        }
        self.rows.store.put(SegmentRow::key(file, segment), row);
    }

    /// Completes a put: the name points to the new file. Returns the job for the file that it replaces,
    /// if any.
    ///
    /// # Errors
    /// [`Error::Full`] above [`FILES_MAX`] names, if none was reserved: the file that it was to replace is gone.
    pub(super) async fn finish(&mut self, job: u32, row: &FileRow) -> Result<Option<(u32, JobRow)>, Error> {
        let known = self.files.names.get(&row.owner).and_then(|names| names.get(&row.name[..])).copied();
        if known.is_none() && !self.files.usage.reserves(job) && self.is_full() {
            return Err(Error::Full("too many files"));
        }
        let number = match known {
            Some(number) => number,
            None => match self.files.free_files.pop_first() {
                Some(number) => number,
                None => {
                    self.rows.meta.files += 1;
                    self.rows.put_meta();
                    self.rows.meta.files - 1
                }
            },
        };
        let replaced = match known {
            Some(_) => self.rows.known::<FileRow>(&FileRow::key(number)).await?.map(|old| {
                let bytes = billed(old.bytes);
                self.files.usage.no_file(old.owner, bytes);
                let old = JobRow { file: old.id, segments: old.segments, owner: old.owner };
                (self.add_job(old, bytes, false), old)
            }),
            None => None,
        };
        self.rows.store.put(FileRow::key(number), row);
        self.rows.store.delete(JobRow::key(job));
        self.files.free_jobs.insert(job);
        self.files.usage.no_job(job);
        self.files.jobs.remove(&row.id);
        self.files.usage.file(row.owner, billed(row.bytes));
        self.files.names.entry(row.owner).or_default().insert(row.name.to_vec(), number);
        Ok(replaced)
    }

    /// Removes a name; its segments become a job, which is returned.
    pub(super) async fn remove(
        &mut self,
        Named(owner, name): &Named,
    ) -> Result<Option<(File, u32, JobRow)>, Error> {
        let number = self.files.names.get_mut(owner).and_then(|names| names.remove(name));
        let Some(number) = number else { return Ok(None) };
        let Some(row) = self.rows.known::<FileRow>(&FileRow::key(number)).await? else { return Ok(None) };
        self.rows.store.delete(FileRow::key(number));
        self.files.free_files.insert(number);
        self.files.usage.no_file(row.owner, billed(row.bytes));
        let job = JobRow { file: row.id, segments: row.segments, owner: row.owner };
        Ok(Some((self.describe(&row), self.add_job(job, billed(row.bytes), false), job)))
    }

    /// At most `most` jobs numbered `from` or higher, lowest first. Jobs that do not decode are left out
    /// and do not count.
    pub(super) async fn jobs(&self, from: u32, most: usize) -> Result<Vec<(u32, JobRow)>, Error> {
        let mut jobs = Vec::new();
        for number in (from..self.rows.meta.jobs).filter(|number| !self.files.free_jobs.contains(number)) {
            if jobs.len() >= most {
                break;
            }
            jobs.extend(self.rows.known(&JobRow::key(number)).await?.map(|job| (number, job)));
        }
        Ok(jobs)
    }

    /// The job with that number, if it is there.
    pub(super) async fn job(&self, number: u32) -> Result<Option<JobRow>, Error> {
        self.rows.known(&JobRow::key(number)).await
    }

    /// Completes a job: none of its segments has a row any more.
    pub(super) fn job_done(&mut self, number: u32, job: &JobRow) {
        self.rows.store.delete(JobRow::key(number));
        self.files.free_jobs.insert(number);
        self.files.usage.no_job(number);
        self.files.jobs.remove(&job.file);
        self.files.durable.remove(&job.file);
    }

    /// Removes the row of a segment without holders.
    pub(super) fn forget_segment(&mut self, file: &FileId, segment: u32) {
        self.rows.store.delete(SegmentRow::key(file, segment));
    }

    /// Adds a holding. A second holder of a position is marked as dropped and the first stays in force,
    /// unless the second is to replace it. Returns the addition if it must be removed again.
    async fn hold(&mut self, add: &Added, holding: Holding) -> Result<Option<Added>, Error> {
        let Some(row) = self.segment(&add.file, add.segment).await? else {
            // A row that does not decode is kept as it is.
            let is_kept = self.rows.store.raw(&SegmentRow::key(&add.file, add.segment)).await?.is_some();
            return Ok(Some(if is_kept { *add } else { self.stray(add, holding) }));
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
            "the row of a segment is full; a shard that was stored for it is removed again, and \
             all else goes on"
        );
        Ok(Some(self.stray(add, holding)))
    }

    /// Gives a row under an id of its own, and a job that removes it, to a shard whose segment is full, or was
    /// deleted while its provider signed: the shard is in the data set all the same.
    fn stray(&mut self, add: &Added, holding: Holding) -> Added {
        let stray = Added { file: stray_id(add, holding.agreement), segment: 0, ..*add };
        let names = vec![add.name; SHARDS];
        let row = SegmentRow {
            plain: add.bytes.saturating_mul(DATA as u32),
            names: Bounded::new(names).expect("eight"),
            holdings: Bounded::new(vec![Holding { dropped: true, ..holding }]).expect("one"),
        };
        self.place(&stray.file, stray.segment, &row);
        self.add_job(JobRow { file: stray.file, segments: 1, ..JobRow::default() }, 0, false);
        stray
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
        if let Some(durable) = self.files.durable.get_mut(file) {
            *durable += row.open_positions().count() as u32;
            *durable = durable.saturating_sub(changed.open_positions().count() as u32);
        }
        self.rows.store.put(SegmentRow::key(file, segment), &changed);
        Ok(true)
    }

    /// Stores a fault and returns its number; in a full ring it replaces the oldest.
    pub(super) fn add_fault(&mut self, row: &FaultRow) -> u64 {
        let number = self.rows.meta.faults;
        self.rows.meta.faults += 1;
        self.rows.put_meta();
        self.rows.store.put(FaultRow::key((number % FAULTS_MAX as u64) as u32), row);
        number
    }

    /// Changes a fault that is still in the ring.
    pub(super) fn put_fault(&mut self, number: u64, row: &FaultRow) {
        if number + FAULTS_MAX as u64 > self.rows.meta.faults {
            self.rows.store.put(FaultRow::key((number % FAULTS_MAX as u64) as u32), row);
        }
    }

    /// Faults in the ring with their numbers, oldest first.
    pub(super) async fn faults(&self) -> Result<Vec<(u64, FaultRow)>, Error> {
        let first = self.rows.meta.faults.saturating_sub(FAULTS_MAX as u64);
        let mut rows = Vec::new();
        for number in first..self.rows.meta.faults {
            match self.rows.store.get(&FaultRow::key((number % FAULTS_MAX as u64) as u32)).await {
                Ok(Some(row)) => rows.push((number, row)),
                Ok(None) | Err(Error::Damaged(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(rows)
    }
}
