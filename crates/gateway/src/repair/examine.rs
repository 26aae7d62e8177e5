//! Looks closer at a provider that a draw made suspect.

use super::{
    Notice,
    state::{FoundBy, Task},
};
use crate::{
    coding::SHARDS,
    core::Core,
    deed::{Deed, Part},
    repair::suspects::Place,
};
use posync_protocol::{Account, limits::SLICE_BYTES};
use std::{sync::Arc, time::Duration};

/// Unanswered questions, this far apart, that make a late provider a suspected one.
const SILENCES: u32 = 2;
const SILENCE_PAUSE: Duration = Duration::from_millis(500);

/// A provider is late on a draw: is it there at all?
pub(super) async fn late(core: Arc<Core>, provider: Account) {
    let deeds = core.deeds_with(&provider);
    let Some(link) = deeds.first().map(|deed| deed.link.clone()) else { return };
    for _ in 0..SILENCES {
        if link.status().await.is_ok() {
            return;
        }
        core.common.environment.sleep(SILENCE_PAUSE).await;
    }
    core.notice_surely(Notice::Silent(provider)).await;
}

/// A suspected provider is asked again. What it holds is looked through if it is silent still.
pub(super) async fn suspected(core: Arc<Core>, provider: Account) {
    let deeds = core.deeds_with(&provider);
    let answers = match deeds.first() {
        // Nothing is held by it any more.
        None => true,
        Some(deed) => deed.link.status().await.is_ok(),
    };
    if answers {
        return core.notice_surely(Notice::Answers(provider)).await;
    }
    let silent = core.suspects.silent_for(&provider).unwrap_or_default();
    if silent < core.grace.short {
        return;
    }
    let mut overdue = Vec::new();
    for deed in deeds {
        for entry in deed.with_state(|state| state.live()) {
            let task: Task = (entry.file, entry.segment);
            let Ok(found) = core.common.catalogue.segment(entry.file, entry.segment).await else { return };
            let Some(row) = found else { continue };
            let position = usize::from(entry.position);
            let ours = row.holder(position).is_some_and(|h| h.deed == deed.number);
            if ours && core.grace.overdue(&places(&core, &row)).contains(&position) {
                overdue.push((task, entry.position));
            }
        }
    }
    if !overdue.is_empty() {
        core.notice_surely(Notice::Overdue(provider, overdue)).await;
    }
}

/// How the holders of a segment stand.
pub(super) fn places(core: &Core, row: &crate::catalogue::row::SegmentRow) -> [Place; SHARDS] {
    std::array::from_fn(|position| {
        let Some(holding) = row.holder(position) else { return Place::Open };
        // Under an agreement that this gateway cannot go on with: nothing can be asked there.
        let Some(deed) = core.deed(holding.deed) else { return Place::Silent(Duration::MAX) };
        core.suspects.silent_for(&deed.provider()).map_or(Place::Live, Place::Silent)
    })
}

/// A draw found reads missing: which of our shards does the provider still have? A slice of each is
/// read: whole shards would spend the agreements' egress on one missed draw.
pub(super) async fn failed(core: Arc<Core>, provider: Account) {
    let trusted = core.known(&provider).is_some_and(|known| known.trusted);
    core.trust(&provider, false);
    let mut all_found = true;
    for deed in core.deeds_with(&provider) {
        let mut lost = Vec::new();
        for entry in deed.with_state(|state| state.live()) {
            let length = u64::from(entry.bytes);
            let part = slice(&core, entry.name, length);
            let payer = core.payer(&deed, part.bytes).await;
            match payer.read(part).await {
                Err(error) if error.shows_loss() => lost.push(entry.sequence),
                Err(error) => {
                    tracing::debug!(%error, "a suspect does not answer");
                    tell(&core, &deed, lost, FoundBy::Draw).await;
                    if trusted {
                        core.trust(&provider, true);
                    }
                    return late(core, provider).await;
                }
                Ok(_) => {}
            }
        }
        all_found &= lost.is_empty();
        tell(&core, &deed, lost, FoundBy::Draw).await;
    }
    if trusted && all_found {
        core.trust(&provider, true);
    }
}

/// A slice of a shard, anywhere in it.
fn slice(core: &Core, name: posync_protocol::Hash, length: u64) -> Part {
    let random = core.common.environment.random();
    let draw = u64::from_be_bytes(random[..8].try_into().expect("eight of 32 bytes"));
    let offset = draw % length.div_ceil(SLICE_BYTES).max(1) * SLICE_BYTES;
    Part { name, length, offset, bytes: SLICE_BYTES.min(length - offset) }
}

async fn tell(core: &Core, deed: &Deed, sequences: Vec<u64>, found_by: FoundBy) {
    if !sequences.is_empty() {
        core.notice_surely(Notice::Lost { deed: deed.number, sequences, found_by }).await;
    }
}
