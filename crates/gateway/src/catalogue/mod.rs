//! The gateway's files: file name -> segments -> shards -> agreements that hold them. They stand beside the
//! agreements in one catalogue ([`posync_consumer::catalogue`]), and change together with them.
//!
//! ```text
//!   put, repair, agreements ──messages──► actor ──► index (rows, names in memory) ──► store
//!                           ◄──answers after one sync for all that waited──┘
//! ```
//!
//! Invariants
//! 1. A change is on disk before it is answered; changes keep their order.
//! 2. A name points to a file all of whose segments have rows. The switch from the old file to the new
//!    one is one atomic commit, in which the old one becomes a job.
//! 3. Every shard that a provider signed for is either a holding in a segment's row or part of an intent
//!    that is sent again: no shard that is paid for is forgotten.
//! 4. After a failed write, and at a damaged page, the actor ends and acknowledges nothing more. At the next
//!    start the page is set aside, and all else goes on (`salvage.rs`).
//!
//! Files belong to accounts ([`row::Owner`]): an account names, lists and removes only its own.
//!
//! Memory: about 100 bytes plus the name for each file, 30 bytes for each row, and a page cache of 8 MiB.

mod index;
pub(crate) mod row;
mod snapshot;
#[cfg(test)]
mod tests;
mod usage;

pub(crate) use index::Files;
pub(crate) use index::LoadedFiles;
pub use posync_consumer::catalogue::partitions;
pub(crate) use posync_consumer::catalogue::{
    Agreed, Answers, Contents, Error, LoadedAgreement, Reply, Rows, Sender, Stopped, later,
};
#[cfg(test)]
pub(crate) use posync_consumer::catalogue::{Entry, Loaded, Started, erase, store};
pub use snapshot::{Held, backup, check, restore};
pub(crate) use usage::{Claim, NoRoom, Usage};

#[cfg(test)]
use commonware_runtime::Handle;
use commonware_runtime::{Clock, Metrics, Spawner, Storage};
use index::Index;
use posync_consumer::asks;
pub(crate) use posync_consumer::catalogue::row::FileId;
#[cfg(test)]
use posync_protocol::Hash;
use posync_protocol::wire::gateway::File;
use row::{Added, FaultRow, FileRow, JobRow, Named, Owner, SegmentRow};
use std::{collections::BTreeMap, ops::Deref};

/// A request about files.
pub(crate) enum Ask {
    File(Named, Reply<Option<FileRow>>),
    Describe(FileRow, Reply<File>),
    List(Named, Reply<Vec<File>>),
    Files(Owner, Reply<u64>),
    Segment(FileId, u32, Reply<Option<SegmentRow>>),
    Faults(Reply<Vec<(u64, FaultRow)>>),
    Usages(Reply<Vec<(Owner, Usage)>>),
    Begin(FileId, Claim, Reply<Result<u32, NoRoom>>),
    Place(FileId, u32, SegmentRow, Reply<()>),
    Finish(u32, FileRow, Reply<Finished>),
    Remove(Named, Reply<Option<(File, u32, JobRow)>>),
    Jobs(u32, usize, Reply<Vec<(u32, JobRow)>>),
    Job(u32, Reply<Option<JobRow>>),
    Left(u32, u64, Reply<()>),
    JobDone(u32, JobRow, Reply<()>),
    ForgetSegment(FileId, u32, Reply<()>),
    AddFault(FaultRow, Reply<u64>),
    PutFault(u64, FaultRow, Reply<()>),
}

/// The result of finishing a put: the file as users see it, and the job that removes the file that it
/// replaced. The error says which bound is reached.
pub(crate) type Finished = Result<(File, Option<(u32, JobRow)>), &'static str>;

/// A handle to the catalogue's actor: its agreements and its files.
#[derive(Clone)]
pub(crate) struct Catalogue {
    agreements: posync_consumer::catalogue::Catalogue,
    files: Sender<Ask>,
}

/// Requests about agreements go to the same actor.
impl Deref for Catalogue {
    type Target = posync_consumer::catalogue::Catalogue;

    fn deref(&self) -> &Self::Target {
        &self.agreements
    }
}

impl Catalogue {
    /// The handle to an actor that runs.
    pub(crate) const fn of(agreements: posync_consumer::catalogue::Catalogue, files: Sender<Ask>) -> Self {
        Self { agreements, files }
    }

    async fn ask<T>(&self, ask: impl FnOnce(Reply<T>) -> Ask) -> Result<T, Stopped> {
        self.files.ask(ask).await
    }
}

/// Opens the catalogue in `partition` alone and starts its actor. The handle ends when the actor fails, or when
/// all senders are dropped.
///
/// # Errors
/// [`Error`].
#[cfg(test)]
pub(crate) async fn start<E>(
    context: E,
    partition: &str,
    secret: Hash,
) -> Result<(Catalogue, Loaded<LoadedFiles>, Handle<Result<(), Error>>), Error>
where
    E: Storage + Clock + Metrics + Spawner,
{
    let started = posync_consumer::catalogue::start::<Files, E>(context, partition, secret).await?;
    let Started { catalogue, contents, loaded, disk } = started;
    Ok((Catalogue::of(catalogue, contents), loaded, disk))
}

impl Contents for Files {
    type Ask = Ask;
    type Found = LoadedFiles;

    async fn load<E: Storage + Clock + Metrics + Spawner>(
        rows: &mut Rows<E>,
        agreements: &mut BTreeMap<u32, LoadedAgreement>,
    ) -> Result<(Self, LoadedFiles), Error> {
        let mut files = Self::default();
        let found = Index { files: &mut files, rows }.load(agreements).await?;
        Ok((files, found))
    }

    async fn handle<E: Storage + Clock + Metrics + Spawner>(
        &mut self,
        rows: &mut Rows<E>,
        ask: Ask,
        answers: &mut Answers,
    ) -> Result<(), Error> {
        handle(&mut Index { files: self, rows }, ask, answers).await
    }

    async fn agreed<E: Storage + Clock + Metrics + Spawner>(
        &mut self,
        rows: &mut Rows<E>,
        agreed: &Agreed,
    ) -> Result<Vec<Added>, Error> {
        Index { files: self, rows }.agreed(agreed).await
    }

    async fn dropped<E: Storage + Clock + Metrics + Spawner>(
        &mut self,
        rows: &mut Rows<E>,
        agreement: u32,
        entries: &[Added],
    ) -> Result<(), Error> {
        Index { files: self, rows }.drop_holdings(agreement, entries).await
    }

    async fn erased<E: Storage + Clock + Metrics + Spawner>(
        &mut self,
        rows: &mut Rows<E>,
        agreement: u32,
        entries: &[Added],
    ) -> Result<(), Error> {
        Index { files: self, rows }.erase_holdings(agreement, entries).await
    }
}

async fn handle<E>(index: &mut Index<'_, E>, ask: Ask, answers: &mut Answers) -> Result<(), Error>
where
    E: Storage + Clock + Metrics + Spawner,
{
    use Ask as M;
    match ask {
        M::File(name, reply) => drop(reply.send(index.file(&name).await?)),
        M::Describe(row, reply) => drop(reply.send(index.describe(&row))),
        M::List(from, reply) => drop(reply.send(index.list(from).await?)),
        M::Files(owner, reply) => drop(reply.send(index.files(&owner))),
        M::Segment(file, segment, reply) => drop(reply.send(index.segment(&file, segment).await?)),
        M::Faults(reply) => drop(reply.send(index.faults().await?)),
        M::Usages(reply) => drop(reply.send(index.usages())),
        M::Begin(file, claim, reply) => {
            let job = index.begin(file, &claim);
            later(answers, reply, job);
        }
        M::Place(file, segment, row, reply) => later(answers, reply, index.place(&file, segment, &row)),
        M::Finish(job, row, reply) => {
            let finished = match index.finish(job, &row).await {
                Ok(replaced) => Ok((index.describe(&row), replaced)),
                Err(Error::Full(what)) => Err(what),
                Err(error) => return Err(error),
            };
            later(answers, reply, finished);
        }
        M::Remove(name, reply) => {
            let removed = index.remove(&name).await?;
            later(answers, reply, removed);
        }
        M::Jobs(from, most, reply) => drop(reply.send(index.jobs(from, most).await?)),
        M::Job(number, reply) => drop(reply.send(index.job(number).await?)),
        M::Left(number, bytes, reply) => drop(reply.send(index.left(number, bytes))),
        M::JobDone(number, job, reply) => later(answers, reply, index.job_done(number, &job)),
        M::ForgetSegment(file, segment, reply) => {
            later(answers, reply, index.forget_segment(&file, segment));
        }
        M::AddFault(row, reply) => {
            let number = index.add_fault(&row);
            later(answers, reply, number);
        }
        M::PutFault(number, row, reply) => later(answers, reply, index.put_fault(number, &row)),
    }
    Ok(())
}

asks! { Catalogue, Ask:
    /// The file with that name: an account's, or the gateway owner's if only a name is given.
    file(name: impl Into<Named>) -> Option<FileRow> = File;
    /// Describes a file as users see it.
    describe(row: FileRow) -> File = Describe;
    /// Lists one page of an account's files from the name `from` on, by name.
    list(from: impl Into<Named>) -> Vec<File> = List;
    /// The number of an account's files.
    files(owner: Owner) -> u64 = Files;
    /// The row of a segment, if it is there and sound.
    segment(file: FileId, segment: u32) -> Option<SegmentRow> = Segment;
    /// Faults, oldest first, with their numbers.
    faults() -> Vec<(u64, FaultRow)> = Faults;
    /// The files and bytes of each account that has any.
    usages() -> Vec<(Owner, Usage)> = Usages;
    /// Opens a put and reserves its bytes and its name; returns the job that cleans it up if it never finishes,
    /// or the reason for which it does not begin.
    begin(file: FileId, claim: Claim) -> Result<u32, NoRoom> = Begin;
    /// Stores a segment's row, before any of its shards is signed for; the job of its put covers it.
    place(file: FileId, segment: u32, row: SegmentRow) -> () = Place;
    /// Completes the put of that job: its name points to the new file.
    finish(job: u32, row: FileRow) -> Finished = Finish;
    /// Removes a name; returns the job that removes its segments.
    remove(name: impl Into<Named>) -> Option<(File, u32, JobRow)> = Remove;
    /// At most `most` jobs numbered `from` or higher, lowest first.
    jobs(from: u32, most: usize) -> Vec<(u32, JobRow)> = Jobs;
    /// The job with that number, if it is there.
    job(number: u32) -> Option<JobRow> = Job;
    /// Records the bytes that the part of a job counts as that is still to be removed.
    left(number: u32, bytes: u64) -> () = Left;
    /// Completes a job: none of its segments has a row any more.
    job_done(number: u32, job: JobRow) -> () = JobDone;
    /// Removes the row of a segment without holders.
    forget_segment(file: FileId, segment: u32) -> () = ForgetSegment;
    /// Stores a fault and returns its number.
    add_fault(row: FaultRow) -> u64 = AddFault;
    /// Overwrites a fault that is still in the ring.
    put_fault(number: u64, row: FaultRow) -> () = PutFault;
}
