//! The durable index of an account: its agreements, and what it keeps beside them. A change is durable
//! before it is acknowledged.
//!
//! ```text
//!   agreements ────────────────messages──► actor ──► index (agreements), contents ──► store
//!   a gateway's puts, repair ─────┘          │
//!                 ◄──answers after one sync for all that waited──┘
//! ```
//!
//! Invariants
//! 1. A change is on disk before it is answered; changes keep their order.
//! 2. A change that both sides signed is one atomic commit: the agreement's version, and the place of each
//!    shard in the contents. No shard that is paid for is forgotten.
//! 3. After a failed write the actor ends, and acknowledges nothing more.

mod contents;
mod index;
mod loaded;
pub mod row;
mod salvage;
pub mod store;

pub(crate) use contents::Nothing;
pub use contents::{Agreed, Contents};
pub use index::Rows;
pub use loaded::{Entry, Loaded, LoadedAgreement};
pub use salvage::erase;
pub(crate) use salvage::is_gone;
pub use store::{Error, partitions};

use crate::limits::{COMMIT_ROWS_MAX, MAILBOX};
use commonware_runtime::{Clock, Handle, Metrics, Spawner, Storage};
use commonware_utils::channel::{mpsc, oneshot};
use futures::future::BoxFuture;
use index::Index;
use posync_protocol::{AgreementId, Hash};
use row::{Added, Intent, OwnAgreementRow, PaidRow};
use std::sync::Arc;

/// The catalogue's actor has ended: the process is stopping or its disk failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the catalogue has stopped; see the log, then start the gateway again")]
pub struct Stopped;

/// The sender of an answer.
pub type Reply<T> = oneshot::Sender<T>;

/// Answers that are sent after the next commit.
pub type Answers = Vec<Box<dyn FnOnce() + Send>>;

/// Answers `reply` after the next commit.
pub fn later<T: Send + 'static>(answers: &mut Answers, reply: Reply<T>, value: T) {
    answers.push(Box::new(move || drop(reply.send(value))));
}

/// A request about agreements.
enum Ask {
    Add(OwnAgreementRow, Reply<Option<u32>>),
    Put(u32, OwnAgreementRow, Reply<()>),
    PutPaid(u32, AgreementId, PaidRow, Reply<bool>),
    Intend(u32, Intent, Reply<()>),
    Withdraw(u32, AgreementId, Reply<()>),
    Agreed(Agreed, Reply<Option<Vec<Added>>>),
    Drop(u32, AgreementId, Vec<Added>, Reply<()>),
    Erase(u32, AgreementId, Vec<Added>, Reply<()>),
    Settled(u32, AgreementId, u64, Reply<()>),
}

enum Message<M> {
    Agreements(Ask),
    Contents(M),
}

/// A handle to the catalogue's actor, for requests about agreements.
#[derive(Clone)]
pub struct Catalogue(Arc<dyn Fn(Ask) -> BoxFuture<'static, Result<(), Stopped>> + Send + Sync>);

/// A handle to the same actor, for requests about its contents. Both share one queue.
pub struct Sender<M>(mpsc::Sender<Message<M>>);

impl<M> Clone for Sender<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: Send + 'static> Sender<M> {
    /// Sends the request that `message` makes of a reply, and waits for the answer.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn ask<T>(&self, message: impl FnOnce(Reply<T>) -> M) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Message::Contents(message(reply))).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }
}

impl Catalogue {
    async fn ask<T>(&self, message: impl FnOnce(Reply<T>) -> Ask) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        (self.0)(message(reply)).await?;
        answer.await.map_err(|_| Stopped)
    }
}

/// A catalogue whose actor runs.
pub struct Started<C: Contents> {
    /// A handle for requests about agreements.
    pub catalogue: Catalogue,
    /// A handle for requests about the contents.
    pub contents: Sender<C::Ask>,
    /// The rows as the last process left them.
    pub loaded: Loaded<C::Found>,
    /// The actor; it ends when its disk fails, or when all handles are dropped.
    pub disk: Handle<Result<(), Error>>,
}

/// Opens the catalogue in `partition` and starts its actor.
///
/// # Errors
/// [`Error`].
pub async fn start<C, E>(context: E, partition: &str, secret: Hash) -> Result<Started<C>, Error>
where
    C: Contents,
    E: Storage + Clock + Metrics + Spawner,
{
    let (index, loaded) = Index::<E, C>::open(context.child("store"), partition, secret).await?;
    let (sender, receiver) = mpsc::channel(MAILBOX);
    let disk = context.spawn(move |_| run(index, receiver));
    let contents = Sender(sender.clone());
    let catalogue = Catalogue(Arc::new(move |ask| {
        let sender = sender.clone();
        Box::pin(async move { sender.send(Message::Agreements(ask)).await.map_err(|_| Stopped) })
    }));
    Ok(Started { catalogue, contents, loaded, disk })
}

async fn run<E, C>(mut index: Index<E, C>, mut receiver: mpsc::Receiver<Message<C::Ask>>) -> Result<(), Error>
where
    C: Contents,
    E: Storage + Clock + Metrics + Spawner,
{
    let mut answers: Answers = Vec::new();
    while let Some(first) = receiver.recv().await {
        let mut next = Some(first);
        while let Some(message) = next.take() {
            match message {
                Message::Agreements(ask) => handle(&mut index, ask, &mut answers).await?,
                Message::Contents(ask) => {
                    index.contents.handle(&mut index.rows, ask, &mut answers).await?;
                }
            }
            if index.rows.store.staged() < COMMIT_ROWS_MAX {
                next = receiver.try_recv().ok();
            }
        }
        index.rows.store.commit().await?;
        answers.drain(..).for_each(|answer| answer());
    }
    Ok(())
}

async fn handle<E, C>(index: &mut Index<E, C>, ask: Ask, answers: &mut Answers) -> Result<(), Error>
where
    C: Contents,
    E: Storage + Clock + Metrics + Spawner,
{
    use Ask as M;
    match ask {
        M::Add(row, reply) => {
            let number = index.add_agreement(&row).ok();
            later(answers, reply, number);
        }
        M::Put(number, row, reply) => later(answers, reply, index.put_agreement(number, &row)),
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
    }
    Ok(())
}

/// Makes the methods of a handle that asks its actor: `name(arguments) -> answer = Message;`.
#[macro_export]
#[doc(hidden)]
macro_rules! asks {
    ($handle:ident, $ask:ident: $($(#[$meta:meta])* $name:ident($($argument:ident : $type:ty),*) -> $answer:ty = $message:ident;)*) => {
        impl $handle {
            $($(#[$meta])*
            ///
            /// # Errors
            /// [`Stopped`].
            pub async fn $name(&self, $($argument: $type),*) -> Result<$answer, Stopped> {
                self.ask(|reply| $ask::$message($($argument.into(),)* reply)).await
            })*
        }
    };
}

asks! { Catalogue, Ask:
    /// Adds an agreement and returns its number; `None` if there are too many.
    add_agreement(row: OwnAgreementRow) -> Option<u32> = Add;
    /// Writes an agreement's row; ignored if the number stands for another agreement.
    put_agreement(number: u32, row: OwnAgreementRow) -> () = Put;
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
}
