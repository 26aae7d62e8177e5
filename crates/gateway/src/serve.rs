//! The gateway service: stores and serves files by name, for the owner and the accounts it lists.
//!
//! Invariants
//! 1. An account that [`Access`] does not know gets only the answer that it is not served, and what to do.
//! 2. A caller that stalls holds its own share of memory only. Its call ends when it moved less than
//!    [`SPAN_BYTES`] in [`SPAN`]. The connection notices a caller that is gone.
//! 3. Every refusal says what happened, why, and what to do.

use crate::{
    access::{Access, Share},
    agreements::state::Stage,
    catalogue::{
        Usage,
        row::{FileRow, Named, Owner},
    },
    environment::Environment,
    shared::Shared,
    transfer::{Error, Reader, put},
};
use futures::StreamExt as _;
use posync_client::rpc::{Gateway, Incoming};
use posync_protocol::{
    Account, Bounded,
    wire::gateway::{
        AgreementRow, Ask, Fault, GatewayAnswer, Get, Name, Put, ROWS_MAX, Refused, Status, UserRow,
    },
};
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// Bytes of a file in one message. A caller that does not read keeps at most
/// [`posync_protocol::limits::CALL_WINDOW`] messages in flight, 2 MiB.
const PIECE_BYTES: usize = 64 << 10;
/// Time spent waiting for a caller within which it must move [`SPAN_BYTES`].
const SPAN: Duration = Duration::from_secs(3600);
/// Bytes that a caller must move within [`SPAN`] of waiting.
const SPAN_BYTES: usize = 64 << 10;
/// Time within which a caller must make room for the last answer.
const LAST: Duration = Duration::from_secs(60);

/// The state of the gateway service.
pub(crate) struct Service {
    /// State shared with repair and renewal: agreements, catalogue, memory.
    pub shared: Arc<Shared>,
    /// The gateway's own account.
    pub account: Account,
    /// Accounts that are served, with the memory of each.
    pub access: Access,
}

/// Answers one call, with a refusal if the caller is not served or the request fails.
pub(crate) async fn handle(service: Arc<Service>, mut call: Incoming<Gateway>, ask: Ask) {
    let peer = call.peer();
    let answer = match service.access.of(&peer) {
        Some(share) => service.answer(&share, &mut call, ask).await,
        None => Err(Error::Stranger(peer)),
    };
    if let Err(error) = &answer {
        tracing::debug!(%peer, %error, "a call is refused");
    }
    let answer = answer.unwrap_or_else(|error| refused(&error));
    match service.shared.common.environment.within(LAST, call.finish(&answer)).await {
        Some(Ok(())) => {}
        Some(Err(error)) => tracing::debug!(%peer, %error, "the caller is gone"),
        None => tracing::debug!(%peer, "the caller does not receive its answer"),
    }
}

impl Service {
    async fn answer(
        &self,
        share: &Arc<Share>,
        call: &mut Incoming<Gateway>,
        ask: Ask,
    ) -> Result<GatewayAnswer, Error> {
        let shared = &self.shared;
        match ask {
            Ask::Put(ask) => store(shared, share, call, ask).await,
            Ask::Get(ask) => read(shared, share, call, ask).await,
            Ask::Remove(name) => remove(shared, share.owner, name).await,
            Ask::List(from) => list(shared, share.owner, from).await,
            Ask::RemoveOf(of) => {
                let owner = self.owner_of(share, call.peer(), of.account)?;
                if self.access.of(&of.account).is_some() {
                    return Err(Error::Listed(of.account));
                }
                remove(shared, owner, of.name).await
            }
            Ask::ListOf(of) => list(shared, self.owner_of(share, call.peer(), of.account)?, of.name).await,
            Ask::Status(_) => self.status(share).await,
            Ask::Agreements(_) => Ok(agreements(shared).await),
            Ask::Why(provider) => Ok(GatewayAnswer::Why(shared.why(&provider))),
            Ask::Data(_) | Ask::Cancel(_) => Err(Error::NoPut),
        }
    }
}

impl Service {
    /// The owner of the files of `account`, which the gateway's owner alone may ask about.
    fn owner_of(&self, share: &Share, caller: Account, account: Account) -> Result<Owner, Error> {
        if !share.is_owners() {
            return Err(Error::NotOwner(caller));
        }
        Ok(self.access.of(&account).map_or(Owner(Some(account)), |of| of.owner))
    }

    async fn status(&self, share: &Share) -> Result<GatewayAnswer, Error> {
        let Self { shared, account, .. } = self;
        let faults = shared.catalogue.faults().await?;
        let faults = faults.into_iter().map(|(_, row)| Fault {
            provider: row.provider,
            found_by: row.found_by,
            round: row.round,
            shards_lost: row.lost,
            shards_repaired: row.repaired,
        });
        Ok(GatewayAnswer::Status(Status {
            account: *account,
            height: shared.height.load(Ordering::Relaxed),
            files: shared.catalogue.files(share.owner).await?,
            repairs_open: shared.repairs_open.load(Ordering::Relaxed),
            faults: Bounded::new(faults.collect()).expect("the ring holds fewer"),
            users: Bounded::new(self.users(share).await?).expect("taken to size"),
        }))
    }

    /// The bytes that count for each account: for the gateway's owner all that are served or have files, for
    /// others their own.
    async fn users(&self, share: &Share) -> Result<Vec<UserRow>, Error> {
        let mut usages: BTreeMap<Owner, Usage> = self.shared.catalogue.usages().await?.into_iter().collect();
        let row = |account: Account, listed, quota, usage: Option<Usage>| {
            let Usage { files, bytes, pending } = usage.unwrap_or_default();
            UserRow { account, listed, quota, files, bytes, pending }
        };
        let served = self.access.all().filter(|(_, of)| share.is_owners() || of.owner == share.owner);
        let mut rows: Vec<UserRow> =
            served.map(|(account, of)| row(*account, true, of.quota, usages.remove(&of.owner))).collect();
        if share.is_owners() {
            // Accounts that were taken off the list keep their files.
            let others = usages.into_iter().filter_map(|(owner, usage)| Some((owner.0?, usage)));
            rows.extend(others.map(|(account, usage)| row(account, false, None, Some(usage))));
        }
        rows.truncate(ROWS_MAX);
        Ok(rows)
    }
}

fn refused(error: &Error) -> GatewayAnswer {
    let text = error.to_string();
    let end = (0..=text.len().min(1024)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    let text = Bounded::new(text.as_bytes()[..end].to_vec()).expect("cut to 1024 bytes");
    GatewayAnswer::Refused(Refused { kind: error.kind(), text })
}

fn text(name: &Name) -> String {
    String::from_utf8_lossy(name).escape_debug().to_string()
}

/// Measures the pace of a caller over the time spent waiting for it; the gateway's own delays do not count.
struct Pace<'a> {
    environment: &'a Environment,
    waited: Duration,
    moved: usize,
}

impl<'a> Pace<'a> {
    const fn new(environment: &'a Environment) -> Self {
        Self { environment, waited: Duration::ZERO, moved: 0 }
    }

    /// Waits for `work` of the caller and returns its result; `None` when the caller is too slow.
    async fn wait<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let begun = self.environment.now();
        let done = self.environment.within(SPAN.saturating_sub(self.waited), work).await;
        self.waited += self.environment.now().duration_since(begun).unwrap_or_default();
        done
    }

    /// Records that the caller sent or took `bytes`.
    fn moved(&mut self, bytes: usize) {
        self.moved += bytes;
        if self.moved >= SPAN_BYTES {
            (self.waited, self.moved) = (Duration::ZERO, 0);
        }
    }
}

async fn store(
    shared: &Arc<Shared>,
    share: &Arc<Share>,
    call: &mut Incoming<Gateway>,
    ask: Put,
) -> Result<GatewayAnswer, Error> {
    let _place = share.puts.acquire().await.expect("the semaphore is never closed");
    let pace = Pace::new(&shared.common.environment);
    let pieces = futures::stream::unfold((call, pace), |(call, mut pace)| async move {
        let piece = match pace.wait(call.recv()).await {
            Some(Some(Ask::Data(piece))) => Ok(piece.into_inner()),
            Some(Some(Ask::Cancel(_))) => Err(Error::Cancelled),
            Some(Some(_)) => Err(Error::NoPiece),
            Some(None) => Err(Error::Gone),
            None => Err(Error::SlowSource(SPAN, SPAN_BYTES)),
        };
        pace.moved(piece.as_ref().map_or(0, Vec::len));
        Some((piece, (call, pace)))
    });
    Ok(GatewayAnswer::Stored(put(shared, share, ask.name, ask.length, pieces.boxed()).await?))
}

async fn read(
    shared: &Arc<Shared>,
    share: &Arc<Share>,
    call: &mut Incoming<Gateway>,
    ask: Get,
) -> Result<GatewayAnswer, Error> {
    let _place = share.gets.acquire().await.expect("the semaphore is never closed");
    let file = shared.catalogue.file(Named(share.owner, ask.name.to_vec())).await?;
    let file = file.ok_or_else(|| Error::NoFile(text(&ask.name)))?;
    let found = shared.catalogue.describe(file.clone()).await?;
    let mut reader = Reader::open(shared, share, &file, ask.offset, ask.length)?;
    let mut pace = Pace::new(&shared.common.environment);
    let sent = pace.wait(call.send(&GatewayAnswer::Found(found))).await;
    sent.ok_or(Error::SlowReader(SPAN, SPAN_BYTES))?.map_err(|_| Error::Gone)?;
    while let Some(bytes) = next(shared, share, &mut reader, &file).await? {
        for piece in bytes.chunks(PIECE_BYTES) {
            let data = GatewayAnswer::Data(Bounded::new(piece.to_vec()).expect("cut to size"));
            let sent = pace.wait(call.send(&data)).await;
            sent.ok_or(Error::SlowReader(SPAN, SPAN_BYTES))?.map_err(|_| Error::Gone)?;
            pace.moved(piece.len());
        }
    }
    Ok(GatewayAnswer::End(Default::default()))
}

/// The next piece. A segment that is unreadable because its file was removed or replaced is reported so.
async fn next(
    shared: &Shared,
    share: &Share,
    reader: &mut Reader,
    file: &FileRow,
) -> Result<Option<Vec<u8>>, Error> {
    let next = reader.next().await;
    if let Err(Error::Unreadable(..)) = &next {
        let now = shared.catalogue.file(Named(share.owner, file.name.to_vec())).await?;
        if now.is_none_or(|now| now.id != file.id) {
            return Err(Error::Changed);
        }
    }
    next
}

async fn remove(shared: &Shared, owner: Owner, name: Name) -> Result<GatewayAnswer, Error> {
    match shared.catalogue.remove(Named(owner, name.to_vec())).await? {
        Some((file, ..)) => Ok(GatewayAnswer::Removed(file)),
        None => Err(Error::NoFile(text(&name))),
    }
}

async fn list(shared: &Shared, owner: Owner, from: Name) -> Result<GatewayAnswer, Error> {
    let files = shared.catalogue.list(Named(owner, from.to_vec())).await?;
    Ok(GatewayAnswer::Files(Bounded::new(files).expect("one page at most")))
}

async fn agreements(shared: &Shared) -> GatewayAnswer {
    let mut rows = Vec::new();
    let open =
        shared.agreements().into_iter().filter(|agreement| Stage::of(&agreement.terms()) != Stage::Gone);
    for agreement in open.take(ROWS_MAX) {
        let (terms, (shards, bytes)) = (agreement.terms(), agreement.with_state(|state| state.totals()));
        rows.push(AgreementRow {
            agreement: agreement.id,
            shards,
            bytes,
            version: agreement.with_state(|state| state.version()),
            egress: agreement.egress().await,
            end_epoch: terms.end_epoch,
            voucher_reserve: terms.voucher_reserve,
        });
    }
    GatewayAnswer::Agreements(Bounded::new(rows).expect("taken to size"))
}

const _: () = assert!(crate::limits::FAULTS_MAX <= ROWS_MAX);
const _: () = assert!(PIECE_BYTES <= posync_protocol::wire::gateway::DATA_BYTES_MAX);
