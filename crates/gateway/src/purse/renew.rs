//! Moves what a draining agreement holds to the newer one with the same provider.

use crate::{
    catalogue::row::{Added, DeedRow},
    core::Core,
    deed::Deed,
    purse::state::Stage,
};
use std::sync::Arc;

/// Entries moved between two looks.
const MOVED_PER_LOOK: usize = 8;

/// The newest open agreement with the same provider that may hold something, if it is another one.
pub(super) fn successor(core: &Core, old: &Deed) -> Option<Arc<Deed>> {
    let newer = |deed: &Arc<Deed>| {
        let terms = deed.terms();
        deed.number > old.number && Stage::of(&terms) == Stage::Open && holds_as_well(&terms, &old.terms())
    };
    core.deeds_with(&old.provider()).into_iter().rfind(newer)
}

/// Whether what is held under the old terms may be held under the new ones.
const fn holds_as_well(new: &DeedRow, old: &DeedRow) -> bool {
    new.end_epoch > old.end_epoch && (new.quota_leaves > 0 || old.quota_leaves == 0)
}

/// Moves some entries on, in the background.
pub(super) fn drain(core: &Arc<Core>, old: &Arc<Deed>) {
    let Some(new) = successor(core, old) else { return };
    let live = old.with_state(|state| state.live());
    for entry in live.into_iter().take(MOVED_PER_LOOK) {
        let (core, old, new) = (core.clone(), old.clone(), new.clone());
        core.clone().common.environment.spawn(async move {
            if let Err(why) = shift(&core, &old, &new, entry).await {
                tracing::debug!(why, "a shard is not renewed yet");
            }
        });
    }
}

/// The same shard under the new agreement, signed, then out of the old one.
async fn shift(core: &Core, old: &Arc<Deed>, new: &Arc<Deed>, entry: Added) -> Result<(), String> {
    let _memory = core.get_memory.acquire().await.map_err(|error| error.to_string())?;
    let payer = core.payer(old, entry.bytes.into()).await;
    let bytes = payer.fetch(entry.name, entry.bytes.into()).await.map_err(|error| error.to_string())?;
    let room = new.reserve(entry.bytes.into()).ok_or("the new agreement is full")?;
    let unsigned = room.store(Added { moves: true, ..entry }, bytes).await.map_err(|e| e.to_string())?;
    if !unsigned.signed().await {
        return Err("the provider refused to sign".into());
    }
    old.drop_entries(vec![entry.sequence]).await.map_err(|stopped| stopped.to_string())?;
    Ok(())
}
