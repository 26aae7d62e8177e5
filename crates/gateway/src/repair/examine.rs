//! Examines a provider that a draw made suspect.

use super::{
    Notice,
    state::{FoundBy, Task},
};
use crate::{
    agreement::{OwnAgreement, Part},
    coding::SHARDS,
    repair::suspects::Place,
    shared::Shared,
};
use posync_protocol::{Account, limits::SLICE_BYTES};
use std::{sync::Arc, time::Duration};

/// Failed looks in a row, [`SILENCE_PAUSE`] apart, that make a late provider a suspected one.
const SILENCES: u32 = 2;
const SILENCE_PAUSE: Duration = Duration::from_millis(500);

/// The result of one look at a provider.
enum Shown {
    /// It answers, and a slice of a shard that it holds verifies; or it holds no shard.
    Serves,
    /// It answers, but this gateway cannot read from it for a reason of its own: no verdict.
    Ours,
    /// It shows that it does not hold the entry with this sequence of an agreement.
    Lost(Arc<OwnAgreement>, u64),
    /// It does not answer, or serves no slice of a shard that it holds.
    Silent,
}

/// Asks a provider for its status and for a slice of a shard that it holds. A status alone proves nothing.
async fn look(shared: &Arc<Shared>, provider: &Account) -> Shown {
    let agreements = shared.agreements_with(provider);
    let Some(first) = agreements.first() else { return Shown::Serves };
    if let Err(error) = first.peer.status().await {
        tracing::debug!(%error, "a provider does not answer a status request");
        return Shown::Silent;
    }
    let live = |agreement: &Arc<OwnAgreement>| agreement.with_state(|state| state.live());
    let mut held: Vec<_> = agreements.iter().flat_map(|d| live(d).into_iter().map(move |e| (d, e))).collect();
    if held.is_empty() {
        return Shown::Serves;
    }
    let random = shared.common.environment.random();
    let draw = u64::from_be_bytes(random[..8].try_into().expect("eight of 32 bytes")) % held.len() as u64;
    let (agreement, entry) = held.swap_remove(usize::try_from(draw).expect("below a length"));
    let part = slice(shared, entry.name, u64::from(entry.bytes));
    let payer = shared.payer(agreement, part.bytes).await;
    if !shared.can_read(&payer, part.bytes).await {
        return Shown::Ours;
    }
    match payer.read(part).await {
        Ok(_) => Shown::Serves,
        Err(error) if error.shows_loss() => Shown::Lost(agreement.clone(), entry.sequence),
        Err(crate::peer::Error::Paced(_)) => Shown::Ours,
        Err(error) => {
            tracing::debug!(%error, "a provider answers, and serves none of its shards");
            Shown::Silent
        }
    }
}

/// Examines a provider that is late on a draw, and reports it as silent if it does not serve.
pub(super) async fn late(shared: Arc<Shared>, provider: Account) {
    for _ in 0..SILENCES {
        match look(&shared, &provider).await {
            Shown::Serves | Shown::Ours => return,
            Shown::Lost(agreement, lost) => {
                return tell(&shared, &agreement, vec![lost], FoundBy::Draw).await;
            }
            Shown::Silent => shared.common.environment.sleep(SILENCE_PAUSE).await,
        }
    }
    shared.notice_surely(Notice::Silent(provider)).await;
}

/// Examines a suspected provider again. If it is still silent, reports its shards that are overdue.
pub(super) async fn suspected(shared: Arc<Shared>, provider: Account) {
    let agreements = shared.agreements_with(&provider);
    match look(&shared, &provider).await {
        Shown::Serves => return shared.notice_surely(Notice::Answers(provider)).await,
        Shown::Ours => return shared.suspects.spare(&provider),
        Shown::Lost(agreement, lost) => return tell(&shared, &agreement, vec![lost], FoundBy::Draw).await,
        Shown::Silent => {}
    }
    let silent = shared.suspects.silent_for(&provider).unwrap_or_default();
    if silent < shared.grace.short {
        return;
    }
    let mut overdue = Vec::new();
    for agreement in agreements {
        for entry in agreement.with_state(|state| state.live()) {
            let task: Task = (entry.file, entry.segment);
            let Ok(found) = shared.catalogue.segment(entry.file, entry.segment).await else { return };
            let Some(row) = found else { continue };
            let position = usize::from(entry.position);
            let ours = row.holder(position).is_some_and(|h| h.agreement == agreement.number);
            if ours && shared.grace.overdue(&places(&shared, &row)).contains(&position) {
                overdue.push((task, entry.position));
            }
        }
    }
    if !overdue.is_empty() {
        shared.notice_surely(Notice::Overdue(provider, overdue)).await;
    }
}

/// The state of each position of a segment.
pub(super) fn places(shared: &Shared, row: &crate::catalogue::row::SegmentRow) -> [Place; SHARDS] {
    std::array::from_fn(|position| {
        let Some(holding) = row.holder(position) else { return Place::Open };
        // This gateway cannot use the agreement, so it cannot ask its provider under it.
        let Some(agreement) = shared.agreement(holding.agreement) else {
            return Place::Silent(Duration::MAX);
        };
        shared.suspects.silent_for(&agreement.provider()).map_or(Place::Live, Place::Silent)
    })
}

/// Examines a provider whose reads a draw found missing: reads a slice of each shard that it holds, and
/// reports those that are lost. Whole shards would spend the agreements' egress on one missed draw.
pub(super) async fn failed(shared: Arc<Shared>, provider: Account) {
    let trusted = shared.known(&provider).is_some_and(|known| known.trusted);
    shared.trust(&provider, false);
    let mut all_found = true;
    for agreement in shared.agreements_with(&provider) {
        let mut lost = Vec::new();
        for entry in agreement.with_state(|state| state.live()) {
            let length = u64::from(entry.bytes);
            let part = slice(&shared, entry.name, length);
            let payer = shared.payer(&agreement, part.bytes).await;
            match payer.read(part).await {
                Err(error) if error.shows_loss() => lost.push(entry.sequence),
                Err(error) => {
                    tracing::debug!(%error, "a suspect does not serve");
                    tell(&shared, &agreement, lost, FoundBy::Draw).await;
                    if trusted {
                        shared.trust(&provider, true);
                    }
                    return late(shared, provider).await;
                }
                Ok(_) => {}
            }
        }
        all_found &= lost.is_empty();
        tell(&shared, &agreement, lost, FoundBy::Draw).await;
    }
    if trusted && all_found {
        shared.trust(&provider, true);
    }
}

/// A random slice of a shard.
fn slice(shared: &Shared, name: posync_protocol::Hash, length: u64) -> Part {
    let random = shared.common.environment.random();
    let draw = u64::from_be_bytes(random[..8].try_into().expect("eight of 32 bytes"));
    let offset = draw % length.div_ceil(SLICE_BYTES).max(1) * SLICE_BYTES;
    Part { name, length, offset, bytes: SLICE_BYTES.min(length - offset) }
}

async fn tell(shared: &Shared, agreement: &OwnAgreement, sequences: Vec<u64>, found_by: FoundBy) {
    if !sequences.is_empty() {
        shared.notice_surely(Notice::Lost { agreement: agreement.number, sequences, found_by }).await;
    }
}
