//! The gateway service: whole files by name, for users.
//!
//! Invariants
//! 1. A reader or writer that stalls holds at most its call's window, and is cut off after
//!    [`STALL`].
//! 2. Every refusal says what happened, why, and what to do.
//! 3. At most [`crate::limits::TRANSFERS_MAX`] files move at once; more wait.

use crate::{
    core::Core,
    purse::state::Stage,
    transfer::{Error, Reader, put},
};
use futures::StreamExt as _;
use posync_client::rpc::{Gateway, Incoming};
use posync_protocol::{
    Account, Bounded,
    wire::gateway::{AgreementRow, Answer, Ask, DATA_BYTES_MAX, Fault, Get, Name, Put, ROWS_MAX, Status},
};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// How long one piece of a file may take to be sent or to arrive.
const STALL: Duration = Duration::from_secs(60);

/// Answers a call.
pub async fn handle(core: Arc<Core>, own: Account, mut call: Incoming<Gateway>, ask: Ask) {
    let answer = match ask {
        Ask::Put(put) => store(&core, &mut call, put).await,
        Ask::Get(get) => read(&core, &mut call, get).await,
        Ask::Remove(name) => remove(&core, name).await,
        Ask::List(from) => list(&core, from).await,
        Ask::Status(_) => status(&core, own).await,
        Ask::Agreements(_) => Ok(agreements(&core).await),
        Ask::Why(provider) => Ok(Answer::Why(core.why(&provider))),
        Ask::Data(_) | Ask::Cancel(_) => Ok(refused("no put is open in this call; begin with one")),
    };
    let answer = answer.unwrap_or_else(|error| refused(&error.to_string()));
    if let Err(error) = call.finish(&answer).await {
        tracing::debug!(%error, "the caller is gone");
    }
}

fn refused(text: &str) -> Answer {
    let end = (0..=text.len().min(1024)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    Answer::Refused(Bounded::new(text.as_bytes()[..end].to_vec()).expect("cut to 1024 bytes"))
}

fn text(name: &Name) -> String {
    String::from_utf8_lossy(name).into_owned()
}

async fn store(core: &Arc<Core>, call: &mut Incoming<Gateway>, ask: Put) -> Result<Answer, Error> {
    let _place = core.transfers.acquire().await.expect("the semaphore is never closed");
    let pieces = futures::stream::unfold(call, |call| async move {
        match core.common.environment.within(STALL, call.recv()).await {
            Some(Some(Ask::Data(piece))) => Some((piece.into_inner(), call)),
            _ => None,
        }
    });
    Ok(Answer::Stored(put(core, ask.name, ask.length, pieces.boxed()).await?))
}

async fn read(core: &Arc<Core>, call: &mut Incoming<Gateway>, ask: Get) -> Result<Answer, Error> {
    let _place = core.transfers.acquire().await.expect("the semaphore is never closed");
    let file = core.common.catalogue.file(ask.name.to_vec()).await?;
    let file = file.ok_or_else(|| Error::NoFile(text(&ask.name)))?;
    let found = core.common.catalogue.describe(file.clone()).await?;
    if call.send(&Answer::Found(found)).await.is_err() {
        return Err(Error::Cancelled);
    }
    let mut reader = Reader::open(core, &file, ask.offset, ask.length)?;
    while let Some(bytes) = reader.next().await? {
        for piece in bytes.chunks(DATA_BYTES_MAX) {
            let data = Answer::Data(Bounded::new(piece.to_vec()).expect("cut to size"));
            let sent = core.common.environment.within(STALL, call.send(&data)).await;
            if !matches!(sent, Some(Ok(()))) {
                return Err(Error::Cancelled);
            }
        }
    }
    Ok(Answer::End(Default::default()))
}

async fn remove(core: &Core, name: Name) -> Result<Answer, Error> {
    match core.common.catalogue.remove(name.to_vec()).await? {
        Some((file, ..)) => Ok(Answer::Removed(file)),
        None => Err(Error::NoFile(text(&name))),
    }
}

async fn list(core: &Core, from: Name) -> Result<Answer, Error> {
    let files = core.common.catalogue.list(from.to_vec()).await?;
    Ok(Answer::Files(Bounded::new(files).expect("one page at most")))
}

async fn status(core: &Core, account: Account) -> Result<Answer, Error> {
    let faults = core.common.catalogue.faults().await?;
    let faults = faults.into_iter().map(|(_, row)| Fault {
        provider: row.provider,
        found_by: row.found_by,
        round: row.round,
        shards_lost: row.lost,
        shards_repaired: row.repaired,
    });
    Ok(Answer::Status(Status {
        account,
        height: core.height.load(Ordering::Relaxed),
        files: core.common.catalogue.files().await?,
        repairs_open: core.repairs_open.load(Ordering::Relaxed),
        faults: Bounded::new(faults.collect()).expect("the ring holds fewer"),
    }))
}

async fn agreements(core: &Core) -> Answer {
    let mut rows = Vec::new();
    let open = core.deeds().into_iter().filter(|deed| Stage::of(&deed.terms()) != Stage::Gone);
    for deed in open.take(ROWS_MAX) {
        let (terms, (shards, bytes)) = (deed.terms(), deed.with_state(|state| state.totals()));
        rows.push(AgreementRow {
            agreement: deed.agreement,
            shards,
            bytes,
            version: deed.with_state(|state| state.version()),
            egress: deed.egress().await,
            end_epoch: terms.end_epoch,
            voucher_reserve: terms.voucher_reserve,
        });
    }
    Answer::Agreements(Bounded::new(rows).expect("taken to size"))
}

const _: () = assert!(crate::limits::FAULTS_MAX <= ROWS_MAX);
