//! Examines a provider that a draw made suspect. Examinations read slices, which are paid: their cost is bounded
//! ([`super::budget`]).

use super::{
    Notice,
    state::{FoundBy, Task},
};
use crate::{
    agreement::{OwnAgreement, Part},
    catalogue::row::Added,
    coding::SHARDS,
    repair::suspects::HolderState,
    shared::Shared,
};
use posync_protocol::{Account, limits::SLICE_BYTES};
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// Shards of which a failed draw has slices read, and as many more for each that is found lost. A provider that lost
/// much is read until nearly all of it is known; one that lost nothing sells this much.
const READS_FIRST: usize = 8;
/// Failed looks in a row, [`SILENCE_PAUSE`] apart, that make a late provider a suspected one.
const SILENCES: u32 = 2;
const SILENCE_PAUSE: Duration = Duration::from_millis(500);

/// An agreement and the sequences of its shards that are lost.
type Lost = (Arc<OwnAgreement>, Vec<u64>);

/// The result of one look at a provider.
enum Shown {
    /// It answers, and a slice of a shard that it holds verifies; or it holds no shard.
    Serves,
    /// It answers, but this gateway cannot read from it for a reason of its own: no verdict.
    Ours,
    /// It answers, and nothing was read from it now: no verdict.
    Unread,
    /// It shows that it does not hold the entry with this sequence of an agreement.
    Lost(Arc<OwnAgreement>, u64),
    /// It does not answer, or serves no slice of a shard that it holds.
    Silent,
}

/// The shards in force under all agreements with a provider.
fn held(shared: &Shared, provider: &Account) -> Vec<(Arc<OwnAgreement>, Added)> {
    let live = |agreement: Arc<OwnAgreement>| {
        let live = agreement.with_state(|state| state.live());
        live.into_iter().map(move |entry| (agreement.clone(), entry))
    };
    shared.agreements_with(provider).into_iter().flat_map(live).collect()
}

fn epoch(shared: &Shared) -> u64 {
    shared.parameters.epoch(shared.height.load(Ordering::Relaxed))
}

/// Bytes that may still be read from a provider in this epoch to examine it.
fn left(shared: &Shared, provider: &Account) -> u64 {
    let agreements = shared.agreements_with(provider);
    let leaves = agreements.iter().map(|agreement| agreement.with_state(|state| state.live_leaves()));
    let leaves = leaves.fold(0, u64::saturating_add);
    shared.examinations.left(provider, leaves, epoch(shared), &shared.parameters)
}

/// Asks a provider for its status and, if `reads`, for a slice of a shard that it holds. A status alone proves
/// nothing.
async fn look(shared: &Arc<Shared>, provider: &Account, reads: impl FnOnce() -> bool) -> Shown {
    let agreements = shared.agreements_with(provider);
    let Some(first) = agreements.first() else { return Shown::Serves };
    if let Err(error) = first.peer.status().await {
        tracing::debug!(%error, "a provider does not answer a status request");
        return Shown::Silent;
    }
    let held = held(shared, provider);
    if held.is_empty() {
        return Shown::Serves;
    }
    if !reads() {
        return Shown::Unread;
    }
    let (agreement, entry) = &held[draw(shared, held.len())];
    read(shared, agreement, entry).await
}

/// Reads a random slice of a shard. If the provider serves it, it is paid, and counts as examined.
async fn read(shared: &Arc<Shared>, agreement: &Arc<OwnAgreement>, entry: &Added) -> Shown {
    let part = slice(shared, entry.name, u64::from(entry.bytes));
    let bytes = part.bytes;
    let payer = shared.payer(agreement, bytes).await;
    if !shared.can_read(&payer, bytes).await {
        return Shown::Ours;
    }
    match payer.read(part).await {
        Ok(_) => {
            shared.examinations.spend(&agreement.provider(), bytes, epoch(shared));
            Shown::Serves
        }
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
        match look(&shared, &provider, || left(&shared, &provider) > 0).await {
            Shown::Serves | Shown::Ours | Shown::Unread => return,
            Shown::Lost(agreement, lost) => {
                return report(&shared, &agreement, vec![lost], FoundBy::Draw).await;
            }
            Shown::Silent => shared.common.environment.sleep(SILENCE_PAUSE).await,
        }
    }
    shared.notice_surely(Notice::Silent(provider)).await;
}

/// Examines a suspected provider again. If it is still silent, reports its shards that are overdue. One that answers
/// and serves nothing is read from ever less often: it may serve late, and be paid for what no look took.
pub(super) async fn suspected(shared: Arc<Shared>, provider: Account) {
    let agreements = shared.agreements_with(&provider);
    let reads = || shared.suspects.is_due(&provider, shared.grace.pause);
    match look(&shared, &provider, reads).await {
        Shown::Unread => return,
        Shown::Serves => return shared.notice_surely(Notice::Answers(provider)).await,
        Shown::Ours => return shared.suspects.spare(&provider),
        Shown::Lost(agreement, lost) => return report(&shared, &agreement, vec![lost], FoundBy::Draw).await,
        Shown::Silent => {}
    }
    if shared.suspects.confirm(&provider) {
        // A silence that an earlier process saw goes on: it gets no new shards.
        shared.trust(&provider, false);
    }
    let silent = shared.suspects.silent_for(&provider).unwrap_or_default();
    if silent < shared.grace.short || !shared.suspects.is_confirmed(&provider, &shared.grace) {
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
pub(super) fn places(shared: &Shared, row: &crate::catalogue::row::SegmentRow) -> [HolderState; SHARDS] {
    std::array::from_fn(|position| {
        let Some(holding) = row.holder(position) else { return HolderState::Open };
        // This gateway cannot use the agreement, so it cannot ask its provider under it.
        let Some(agreement) = shared.agreement(holding.agreement) else {
            return HolderState::Silent(Duration::MAX);
        };
        shared.suspects.silent_for(&agreement.provider()).map_or(HolderState::Live, HolderState::Silent)
    })
}

/// Examines a provider whose reads a draw found missing: reads slices of a few random shards that it holds, of more
/// while shards are lost, and reports those. All shards, or whole ones, would sell egress by one missed draw.
pub(super) async fn failed(shared: Arc<Shared>, provider: Account) {
    let slices = left(&shared, &provider).div_ceil(SLICE_BYTES);
    let mut due = READS_FIRST.min(usize::try_from(slices).unwrap_or(usize::MAX));
    if due == 0 {
        return tracing::debug!(%provider, "a provider failed a draw, and was examined enough in this epoch");
    }
    let trusted = shared.known(&provider).is_some_and(|known| known.trusted);
    shared.trust(&provider, false);
    let (mut rest, mut lost) = (held(&shared, &provider), BTreeMap::<u32, Lost>::new());
    let mut silent = false;
    while due > 0 && !rest.is_empty() {
        due -= 1;
        let (agreement, entry) = rest.swap_remove(draw(&shared, rest.len()));
        match read(&shared, &agreement, &entry).await {
            Shown::Serves => {}
            Shown::Lost(agreement, sequence) => {
                due = due.saturating_add(READS_FIRST);
                lost.entry(agreement.number).or_insert_with(|| (agreement, Vec::new())).1.push(sequence);
            }
            Shown::Silent => {
                silent = true;
                break;
            }
            Shown::Ours | Shown::Unread => break,
        }
    }
    if trusted && (silent || lost.is_empty()) {
        shared.trust(&provider, true);
    }
    for (agreement, sequences) in lost.into_values() {
        report(&shared, &agreement, sequences, FoundBy::Draw).await;
    }
    if silent {
        late(shared, provider).await;
    }
}

/// A random number below `count`, which is above 0.
fn draw(shared: &Shared, count: usize) -> usize {
    let random = shared.common.environment.random();
    let draw = u64::from_be_bytes(random[..8].try_into().expect("eight of 32 bytes")) % count as u64;
    usize::try_from(draw).expect("below a length")
}

/// A random slice of a shard.
fn slice(shared: &Shared, name: posync_protocol::Hash, length: u64) -> Part {
    let random = shared.common.environment.random();
    let draw = u64::from_be_bytes(random[..8].try_into().expect("eight of 32 bytes"));
    let offset = draw % length.div_ceil(SLICE_BYTES).max(1) * SLICE_BYTES;
    Part { name, length, offset, bytes: SLICE_BYTES.min(length - offset) }
}

async fn report(shared: &Shared, agreement: &OwnAgreement, sequences: Vec<u64>, found_by: FoundBy) {
    if !sequences.is_empty() {
        shared.notice_surely(Notice::Lost { agreement: agreement.number, sequences, found_by }).await;
    }
}
