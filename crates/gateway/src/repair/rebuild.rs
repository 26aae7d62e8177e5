//! Rebuilds the open positions of one segment.

use crate::{
    catalogue::{
        Stopped,
        row::{Added, SegmentRow},
    },
    coding::{self, FileKey, Shard},
    core::Core,
    repair::state::Task,
    transfer::gather,
};
use posync_protocol::Account;
use std::{sync::Arc, time::Duration};

/// Time for a rebuilt shard to be stored and signed for.
const STORE_TIMEOUT: Duration = Duration::from_secs(60);

/// What a repair did.
#[derive(Debug, Default)]
pub(super) struct Rebuilt {
    /// Nothing is left to do.
    pub(super) whole: bool,
    /// Whose loss each rebuilt shard was, where it is known.
    pub(super) owed_by: Vec<Option<Account>>,
}

/// Rebuilds what a segment lacks.
pub(super) async fn rebuild(core: Arc<Core>, (file, segment): Task) -> Result<Rebuilt, Stopped> {
    let Some(row) = core.common.catalogue.segment(file, segment).await? else {
        return Ok(Rebuilt { whole: true, owed_by: Vec::new() });
    };
    let open: Vec<usize> = row.open_positions().collect();
    if open.is_empty() {
        return Ok(Rebuilt { whole: true, owed_by: Vec::new() });
    }
    let _memory = core.get_memory.clone().acquire_owned().await.expect("the semaphore is never closed");
    let mut held = match gather(&core, segment, &row).await {
        Ok(held) => held,
        Err(error) => {
            tracing::warn!(%error, segment, "a segment cannot be rebuilt now");
            return Ok(Rebuilt::default());
        }
    };
    let key = FileKey::derive(&core.common.master, &file);
    let shards = match coding::rebuild(&key, segment, row.plain as usize, &mut held) {
        Ok(shards) => shards,
        Err(error) => {
            tracing::error!(%error, segment, "a segment cannot be rebuilt");
            return Ok(Rebuilt::default());
        }
    };
    let mut rebuilt = Rebuilt { whole: true, owed_by: Vec::new() };
    for (position, shard) in shards.into_iter().enumerate().filter(|(position, _)| open.contains(position)) {
        if shard.name == row.names[position] && place(&core, (file, segment), &row, position, shard).await {
            rebuilt.owed_by.push(owed_by(&core, &row, position));
        } else {
            rebuilt.whole = false;
        }
    }
    Ok(rebuilt)
}

/// Stores a rebuilt shard with an operator that holds no other one of the segment.
async fn place(core: &Arc<Core>, task: Task, row: &SegmentRow, position: usize, shard: Shard) -> bool {
    let (file, segment) = task;
    // As it is now: earlier positions of this very repair have new holders.
    let Ok(Some(now)) = core.common.catalogue.segment(file, segment).await else { return false };
    let accounts = |dropped: bool| -> Vec<Account> {
        let of = now.holdings.iter().filter(|holding| holding.dropped == dropped);
        of.filter_map(|holding| core.deed(holding.deed)).map(|deed| deed.provider()).collect()
    };
    let label = [&file[..], &segment.to_be_bytes()].concat();
    let rooms = core.rooms(&label, 1, row.shard_bytes(), &accounts(false), &accounts(true));
    let Some(room) = rooms.into_iter().next() else {
        tracing::warn!(segment, "no operator has room for a rebuilt shard; it is tried again");
        return false;
    };
    let added = Added {
        file,
        segment,
        position: u8::try_from(position).expect("below eight"),
        sequence: 0,
        name: shard.name,
        bytes: u32::try_from(shard.bytes.len()).expect("a shard is 1 MiB"),
        moves: false,
    };
    let link = room.deed().link.clone();
    let work = async {
        match room.store(added, shard.bytes).await {
            Ok(unsigned) => unsigned.signed().await,
            Err(error) => {
                tracing::warn!(%error, "a rebuilt shard was not taken");
                link.doubt();
                false
            }
        }
    };
    core.common.environment.within(STORE_TIMEOUT, work).await.unwrap_or(false)
}

/// Who lost the shard of that position.
fn owed_by(core: &Core, row: &SegmentRow, position: usize) -> Option<Account> {
    let lost = row.holdings.iter().rev().find(|h| usize::from(h.position) == position && h.dropped)?;
    Some(core.deed(lost.deed)?.provider())
}
