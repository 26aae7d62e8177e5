//! The gateway's index: file name -> segments -> shards -> agreements that hold them. A change is durable
//! before it is acknowledged.
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
//! 4. After a failed write the actor ends, and acknowledges nothing more.
//!
//! Files belong to accounts ([`row::Owner`]): an account names, lists and removes only its own.
//!
//! Memory: about 100 bytes plus the name for each file, 30 bytes for each row, and a page cache of 8 MiB.

mod index;
mod loaded;
pub mod row;
mod snapshot;
mod store;
#[cfg(test)]
mod tests;

pub use index::{Agreed, Index};
pub use loaded::{Entry, Loaded, LoadedAgreement};
pub use snapshot::{Held, backup, restore};
pub use store::{Error, partitions};

use crate::{
    coding::FileId,
    limits::{COMMIT_ROWS_MAX, MAILBOX},
};
use commonware_runtime::{Clock, Handle, Metrics, Spawner, Storage};
use commonware_utils::channel::{mpsc, oneshot};
use posync_protocol::{AgreementId, Hash, wire::gateway::File};
use row::{Added, FaultRow, FileRow, Intent, JobRow, Named, OwnAgreementRow, Owner, PaidRow, SegmentRow};

/// The catalogue's actor has ended: the process is stopping or its disk failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the catalogue has stopped; see the log, then start the gateway again")]
pub struct Stopped;

type Reply<T> = oneshot::Sender<T>;

enum Message {
    File(Named, Reply<Option<FileRow>>),
    Describe(FileRow, Reply<File>),
    List(Named, Reply<Vec<File>>),
    Files(Owner, Reply<u64>),
    Stored(Owner, Reply<u64>),
    Segment(FileId, u32, Reply<Option<SegmentRow>>),
    Faults(Reply<Vec<(u64, FaultRow)>>),
    Begin(FileId, u32, Reply<u32>),
    Place(FileId, u32, SegmentRow, Reply<()>),
    Finish(u32, FileRow, Reply<Finished>),
    Remove(Named, Reply<Option<(File, u32, JobRow)>>),
    Jobs(u32, usize, Reply<Vec<(u32, JobRow)>>),
    Job(u32, Reply<Option<JobRow>>),
    JobDone(u32, JobRow, Reply<()>),
    ForgetSegment(FileId, u32, Reply<()>),
    AddAgreement(OwnAgreementRow, Reply<Option<u32>>),
    PutAgreement(u32, OwnAgreementRow, Reply<()>),
    PutPaid(u32, AgreementId, PaidRow, Reply<bool>),
    Intend(u32, Intent, Reply<()>),
    Withdraw(u32, AgreementId, Reply<()>),
    Agreed(Agreed, Reply<Option<Vec<Added>>>),
    Drop(u32, AgreementId, Vec<Added>, Reply<()>),
    Erase(u32, AgreementId, Vec<Added>, Reply<()>),
    Settled(u32, AgreementId, u64, Reply<()>),
    AddFault(FaultRow, Reply<u64>),
    PutFault(u64, FaultRow, Reply<()>),
}

/// The result of finishing a put: the file as users see it, and the job that removes the file that it
/// replaced. The error says which bound is reached.
pub type Finished = Result<(File, Option<(u32, JobRow)>), &'static str>;

/// Answers that are sent after the next commit.
type Answers = Vec<Box<dyn FnOnce() + Send>>;

fn later<T: Send + 'static>(answers: &mut Answers, reply: Reply<T>, value: T) {
    answers.push(Box::new(move || drop(reply.send(value))));
}

/// A handle to the catalogue's actor.
#[derive(Clone)]
pub struct Catalogue(mpsc::Sender<Message>);

/// Opens the catalogue in `partition` and starts its actor. The handle ends when the actor fails, or when
/// all senders are dropped.
///
/// # Errors
/// [`Error`].
pub async fn start<E>(
    context: E,
    partition: &str,
    secret: Hash,
) -> Result<(Catalogue, Loaded, Handle<Result<(), Error>>), Error>
where
    E: Storage + Clock + Metrics + Spawner,
{
    let (index, loaded) = Index::open(context.child("store"), partition, secret).await?;
    let (sender, receiver) = mpsc::channel(MAILBOX);
    let handle = context.spawn(move |_| run(index, receiver));
    Ok((Catalogue(sender), loaded, handle))
}

async fn run<E>(mut index: Index<E>, mut receiver: mpsc::Receiver<Message>) -> Result<(), Error>
where
    E: Storage + Clock + Metrics + Spawner,
{
    let mut answers: Answers = Vec::new();
    while let Some(first) = receiver.recv().await {
        let mut next = Some(first);
        while let Some(message) = next.take() {
            handle(&mut index, message, &mut answers).await?;
            if index.store.staged() < COMMIT_ROWS_MAX {
                next = receiver.try_recv().ok();
            }
        }
        index.store.commit().await?;
        answers.drain(..).for_each(|answer| answer());
    }
    Ok(())
}

async fn handle<E>(index: &mut Index<E>, message: Message, answers: &mut Answers) -> Result<(), Error>
where
    E: Storage + Clock + Metrics + Spawner,
{
    use Message as M;
    match message {
        M::File(name, reply) => drop(reply.send(index.file(&name).await?)),
        M::Describe(row, reply) => drop(reply.send(index.describe(&row))),
        M::List(from, reply) => drop(reply.send(index.list(from).await?)),
        M::Files(owner, reply) => drop(reply.send(index.files(&owner))),
        M::Stored(owner, reply) => drop(reply.send(index.stored(&owner))),
        M::Segment(file, segment, reply) => drop(reply.send(index.segment(&file, segment).await?)),
        M::Faults(reply) => drop(reply.send(index.faults().await?)),
        M::Begin(file, segments, reply) => {
            let job = index.begin(file, segments);
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
        M::JobDone(number, job, reply) => later(answers, reply, index.job_done(number, &job)),
        M::ForgetSegment(file, segment, reply) => {
            later(answers, reply, index.forget_segment(&file, segment));
        }
        other => return handle_agreement(index, other, answers).await,
    }
    Ok(())
}

async fn handle_agreement<E>(
    index: &mut Index<E>,
    message: Message,
    answers: &mut Answers,
) -> Result<(), Error>
where
    E: Storage + Clock + Metrics + Spawner,
{
    use Message as M;
    match message {
        M::AddAgreement(row, reply) => {
            let number = index.add_agreement(&row).ok();
            later(answers, reply, number);
        }
        M::PutAgreement(number, row, reply) => later(answers, reply, index.put_agreement(number, &row)),
        M::PutPaid(number, of, row, reply) => later(answers, reply, index.put_paid(number, &of, &row)),
        M::Intend(agreement, intent, reply) => later(answers, reply, index.intend(agreement, &intent)),
        M::Withdraw(agreement, of, reply) => later(answers, reply, index.withdraw(agreement, &of)),
        M::Agreed(agreed, reply) => {
            let orphans = index.agreed(&agreed).await?;
            later(answers, reply, orphans);
        }
        M::Drop(agreement, of, entries, reply) => {
            index.drop_holdings(agreement, &of, &entries).await?;
            later(answers, reply, ());
        }
        M::Erase(agreement, of, entries, reply) => {
            index.erase_holdings(agreement, &of, &entries).await?;
            later(answers, reply, ());
        }
        M::Settled(agreement, of, version, reply) => {
            index.settled(agreement, &of, version).await?;
            later(answers, reply, ());
        }
        M::AddFault(row, reply) => {
            let number = index.add_fault(&row);
            later(answers, reply, number);
        }
        M::PutFault(number, row, reply) => later(answers, reply, index.put_fault(number, &row)),
        _ => unreachable!("the other messages are handled before"),
    }
    Ok(())
}

macro_rules! asks {
    ($($(#[$meta:meta])* $name:ident($($argument:ident : $type:ty),*) -> $answer:ty = $message:ident;)*) => {
        impl Catalogue {
            $($(#[$meta])*
            ///
            /// # Errors
            /// [`Stopped`].
            pub async fn $name(&self, $($argument: $type),*) -> Result<$answer, Stopped> {
                let (reply, answer) = oneshot::channel();
                self.0.send(Message::$message($($argument.into(),)* reply)).await.map_err(|_| Stopped)?;
                answer.await.map_err(|_| Stopped)
            })*
        }
    };
}

asks! {
    /// The file with that name: an account's, or the gateway owner's if only a name is given.
    file(name: impl Into<Named>) -> Option<FileRow> = File;
    /// Describes a file as users see it.
    describe(row: FileRow) -> File = Describe;
    /// Lists one page of an account's files from the name `from` on, by name.
    list(from: impl Into<Named>) -> Vec<File> = List;
    /// The number of an account's files.
    files(owner: Owner) -> u64 = Files;
    /// The bytes of an account's files.
    stored(owner: Owner) -> u64 = Stored;
    /// The row of a segment, if it is there and sound.
    segment(file: FileId, segment: u32) -> Option<SegmentRow> = Segment;
    /// Faults, oldest first, with their numbers.
    faults() -> Vec<(u64, FaultRow)> = Faults;
    /// Opens a put of `segments` segments; returns the job that cleans it up if it never finishes.
    begin(file: FileId, segments: u32) -> u32 = Begin;
    /// Stores a segment's row, before any of its shards is signed for.
    place(file: FileId, segment: u32, row: SegmentRow) -> () = Place;
    /// Completes the put of that job: its name points to the new file.
    finish(job: u32, row: FileRow) -> Finished = Finish;
    /// Removes a name; returns the job that removes its segments.
    remove(name: impl Into<Named>) -> Option<(File, u32, JobRow)> = Remove;
    /// At most `most` jobs numbered `from` or higher, lowest first.
    jobs(from: u32, most: usize) -> Vec<(u32, JobRow)> = Jobs;
    /// The job with that number, if it is there.
    job(number: u32) -> Option<JobRow> = Job;
    /// Completes a job: none of its segments has a row any more.
    job_done(number: u32, job: JobRow) -> () = JobDone;
    /// Removes the row of a segment without holders.
    forget_segment(file: FileId, segment: u32) -> () = ForgetSegment;
    /// Adds an agreement and returns its number; `None` if there are too many.
    add_agreement(row: OwnAgreementRow) -> Option<u32> = AddAgreement;
    /// Writes an agreement's row; ignored if the number stands for another agreement.
    put_agreement(number: u32, row: OwnAgreementRow) -> () = PutAgreement;
    /// Writes the total that the next voucher signs for, before the voucher is sent. Returns false, and
    /// writes nothing, if the number stands for another agreement.
    put_paid(number: u32, agreement: AgreementId, row: PaidRow) -> bool = PutPaid;
    /// Writes the change that is about to be sent to a provider for its signature.
    intend(agreement: u32, intent: Intent) -> () = Intend;
    /// Deletes an intent that the provider refused for good.
    withdraw(number: u32, agreement: AgreementId) -> () = Withdraw;
    /// Applies a change that both sides signed; returns the additions that no longer have a place.
    /// `None`, with nothing written, if the number stands for another agreement.
    agreed(agreed: Agreed) -> Option<Vec<Added>> = Agreed;
    /// Marks holdings as dropped: they are lost or no longer wanted.
    drop_holdings(number: u32, agreement: AgreementId, entries: Vec<Added>) -> () = Drop;
    /// Deletes holdings that went with their agreement.
    erase_holdings(number: u32, agreement: AgreementId, entries: Vec<Added>) -> () = Erase;
    /// Deletes the waiting claim if the ledger knows its version, that is, `version` or an older one.
    settled(number: u32, agreement: AgreementId, version: u64) -> () = Settled;
    /// Stores a fault and returns its number.
    add_fault(row: FaultRow) -> u64 = AddFault;
    /// Overwrites a fault that is still in the ring.
    put_fault(number: u64, row: FaultRow) -> () = PutFault;
}
