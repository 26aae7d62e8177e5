//! Rebuilds the positions of one segment that have no holder, or whose holder was silent for too long.

use crate::{
    agreement::Room,
    catalogue::{
        Stopped,
        row::{Added, SegmentRow},
    },
    coding::{self, FileKey, SHARDS, Shard},
    limits::{ACKNOWLEDGE_SHARDS, HOLDINGS_MAX},
    repair::{
        examine::places,
        state::{Rebuilt, Task},
    },
    shared::Shared,
    transfer::gather,
};
use posync_protocol::Account;
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// Time for a rebuilt shard to be stored and signed for.
const STORE_TIMEOUT: Duration = Duration::from_secs(60);

/// Rebuilds the missing shards of a segment at providers that are not in `lost_by`.
pub(super) async fn rebuild(
    shared: Arc<Shared>,
    (file, segment): Task,
    lost_by: BTreeSet<Account>,
) -> Result<Rebuilt, Stopped> {
    let Some(row) = shared.catalogue.segment(file, segment).await? else {
        return Ok(Rebuilt { whole: true, ..Rebuilt::default() });
    };
    let missing = missing(&shared, &row);
    if missing.is_empty() {
        return Ok(Rebuilt { whole: true, ..Rebuilt::default() });
    }
    // As many shards as a put is acknowledged with are safe enough to wait until the catalogue may grow.
    let held = SHARDS.saturating_sub(missing.len());
    if held >= ACKNOWLEDGE_SHARDS
        && let Err(full) = shared.volume.has_room()
    {
        tracing::debug!(%full, segment, held, "the repair of a segment waits for room on the volume");
        return Ok(Rebuilt::default());
    }
    // Reading costs egress: nothing is read for a shard that nobody takes.
    if room_for(&shared, (file, segment), &row, &lost_by).is_none() {
        return Ok(Rebuilt::default());
    }
    let in_vain = Rebuilt { read: true, ..Rebuilt::default() };
    let _place = shared.mending.clone().acquire_owned().await.expect("the semaphore is never closed");
    let mut held = match gather(&shared, segment, &row).await {
        Ok(held) => held,
        Err(error) => {
            tracing::warn!(%error, segment, "a segment cannot be rebuilt now");
            return Ok(in_vain);
        }
    };
    let key = FileKey::derive(&shared.common.master, &file);
    let shards = match coding::rebuild(&key, segment, row.plain as usize, &mut held) {
        Ok(shards) => shards,
        Err(error) => {
            tracing::error!(%error, segment, "a segment cannot be rebuilt");
            return Ok(in_vain);
        }
    };
    let mut rebuilt = Rebuilt { whole: true, ..in_vain };
    for (position, shard) in shards.into_iter().enumerate().filter(|(position, _)| missing.contains(position))
    {
        let same = shard.name == row.names[position];
        let number = u8::try_from(position).expect("below eight");
        if same && place(&shared, (file, segment), number, shard, &lost_by).await {
            rebuilt.positions.push(number);
        } else {
            rebuilt.whole = false;
        }
    }
    Ok(rebuilt)
}

/// Rebuilds the bytes of a shard from any four shards of its segment, and checks their name.
///
/// # Errors
/// The reason why the shard cannot be rebuilt now.
pub(crate) async fn restore(shared: &Arc<Shared>, entry: &Added) -> Result<Vec<u8>, String> {
    let row = shared.catalogue.segment(entry.file, entry.segment).await;
    let row = row.map_err(|stopped| stopped.to_string())?.ok_or("its segment is gone")?;
    let mut held = gather(shared, entry.segment, &row).await.map_err(|error| error.to_string())?;
    let key = FileKey::derive(&shared.common.master, &entry.file);
    let shards = coding::rebuild(&key, entry.segment, row.plain as usize, &mut held);
    let shard = shards.map_err(|error| error.to_string())?.into_iter().nth(usize::from(entry.position));
    let shard = shard.filter(|shard| shard.name == entry.name);
    shard.map(|shard| shard.bytes).ok_or_else(|| "what was rebuilt has another name".into())
}

/// Positions without a holder, and those whose silent holder is due for replacement.
fn missing(shared: &Shared, row: &SegmentRow) -> BTreeSet<usize> {
    row.open_positions().chain(shared.grace.overdue(&places(shared, row))).collect()
}

/// Room for a rebuilt shard of a segment with an operator that holds no other and lost none; warns if there is none.
fn room_for(
    shared: &Shared,
    (file, segment): Task,
    row: &SegmentRow,
    lost_by: &BTreeSet<Account>,
) -> Option<Room> {
    if row.holdings.len() >= HOLDINGS_MAX - SHARDS {
        tracing::warn!(
            segment,
            "many copies of a segment wait to be taken out at silent providers; it is tried again"
        );
        return None;
    }
    let accounts = |dropped: bool| -> BTreeSet<Account> {
        let of = row.holdings.iter().filter(|holding| holding.dropped == dropped);
        of.filter_map(|holding| Some(shared.agreement(holding.agreement)?.provider())).collect()
    };
    let avoided = &accounts(true) | lost_by;
    let label = [&file[..], &segment.to_be_bytes()].concat();
    let rooms = shared.rooms(&label, 1, row.shard_bytes(), &accounts(false), &avoided);
    let room = rooms.into_iter().next();
    if room.is_none() {
        tracing::warn!(segment, "no operator has room for a rebuilt shard; it is tried again");
    }
    room
}

/// Stores a rebuilt shard with an operator that holds no other shard of the segment. A silent holder's
/// shard is dropped in the commit that puts the new one in force. True if the position has a holder.
async fn place(
    shared: &Arc<Shared>,
    (file, segment): Task,
    position: u8,
    shard: Shard,
    lost_by: &BTreeSet<Account>,
) -> bool {
    // Read again: earlier positions of this repair have new holders.
    let Ok(Some(now)) = shared.catalogue.segment(file, segment).await else { return false };
    let old = now.holder(usize::from(position)).copied();
    if !missing(shared, &now).contains(&usize::from(position)) {
        // Its holder answers again.
        return true;
    }
    let Some(room) = room_for(shared, (file, segment), &now, lost_by) else { return false };
    let added = Added {
        file,
        segment,
        position,
        sequence: 0,
        name: shard.name,
        bytes: u32::try_from(shard.bytes.len()).expect("a shard is 1 MiB"),
        moves: old.is_some(),
    };
    let agreement = room.agreement().clone();
    let (name, provider) = (blake3::Hash::from_bytes(shard.name), agreement.provider());
    let work = async {
        match room.store(added, shard.bytes).await {
            Ok(unsigned) => Some(unsigned.signed().await),
            Err(error) => {
                tracing::warn!(%error, shard = %name, "a provider did not store a rebuilt shard");
                None
            }
        }
    };
    match shared.common.environment.within(STORE_TIMEOUT, work).await.flatten() {
        Some(signed) => {
            if let Some((old, agreement)) = old.and_then(|old| Some((old, shared.agreement(old.agreement)?)))
                && signed
            {
                return agreement.drop_entries(vec![old.sequence]).await.is_ok();
            }
            signed
        }
        None => {
            tracing::warn!(%provider, shard = %name, "a rebuilt shard is sent to another provider");
            agreement.peer.doubt();
            false
        }
    }
}
