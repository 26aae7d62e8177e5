//! Looks closer at a provider that a draw made suspect.

use super::{Notice, state::FoundBy};
use crate::{catalogue::row::Added, core::Core, deed::Deed};
use posync_protocol::Account;
use std::{sync::Arc, time::Duration};

/// Unanswered questions, this far apart, that make a late provider a stopped one.
const SILENCES: u32 = 2;
const SILENCE_PAUSE: Duration = Duration::from_millis(500);
/// Losses in a row, from the first read on, that make a provider's whole word worthless.
const ALL_LOST_AFTER: usize = 8;

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
    core.trust(&provider, false);
    for deed in deeds {
        all_lost(&core, &deed, FoundBy::Late).await;
    }
}

/// A draw found reads missing: which of our shards does the provider still have?
pub(super) async fn failed(core: Arc<Core>, provider: Account) {
    core.trust(&provider, false);
    for deed in core.deeds_with(&provider) {
        let (mut lost, mut read) = (Vec::new(), 0);
        for entry in deed.with_state(|state| state.live()) {
            let payer = core.payer(&deed, entry.bytes.into()).await;
            match payer.fetch(entry.name, entry.bytes.into()).await {
                Err(error) if error.shows_loss() => lost.push(entry.sequence),
                Err(error) => {
                    tracing::debug!(%error, "a suspect does not answer");
                    return late(core, provider).await;
                }
                Ok(_) => {}
            }
            read += 1;
            if read == ALL_LOST_AFTER && lost.len() == read {
                all_lost(&core, &deed, FoundBy::Draw).await;
                lost.clear();
                break;
            }
        }
        tell(&core, &deed, lost, FoundBy::Draw).await;
    }
}

async fn all_lost(core: &Core, deed: &Deed, found_by: FoundBy) {
    let live: Vec<Added> = deed.with_state(|state| state.live());
    tell(core, deed, live.iter().map(|entry| entry.sequence).collect(), found_by).await;
}

async fn tell(core: &Core, deed: &Deed, sequences: Vec<u64>, found_by: FoundBy) {
    if !sequences.is_empty() {
        core.notice_surely(Notice::Lost { deed: deed.number, sequences, found_by }).await;
    }
}
