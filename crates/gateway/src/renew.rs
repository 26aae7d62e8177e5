//! Moves shards of draining agreements to agreements with the same provider that end later, or to other
//! providers if this one leaves, signs no change any more, or has no room until late in the term.
//!
//! Invariants
//! 1. A shard leaves its old agreement only after it is signed for under the new one.
//! 2. A shard that was read and could not move waits before it is read again, each time for twice as long: reading it
//!    costs egress, and a provider may refuse to take it.

use crate::{
    agreement::{OwnAgreement, Room},
    agreements::{
        Drain,
        state::{AgreementUsage, Stage},
        successor,
    },
    catalogue::row::Added,
    coding::SHARDS,
    limits::HOLDINGS_MAX,
    repair::restore,
    shared::Shared,
};
use commonware_utils::sync::Mutex;
use posync_protocol::Account;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// Entries of one provider that move at once.
const MOVED_AT_ONCE: usize = 16;

/// Time for a shard to be read, stored and signed for; a provider that never signs delays no other.
const SHIFT_TIMEOUT: Duration = Duration::from_secs(120);

/// Most times that the pause before an entry is read again doubles, from one look: about an hour.
const DOUBLINGS: u32 = 12;

/// An entry: its agreement, and its sequence number.
type ShardAt = (u32, u64);

#[derive(Default)]
struct Moves {
    /// Number of this look.
    look: u64,
    under_way: BTreeSet<ShardAt>,
    /// Entries that were read and did not move: how often, and the look at which they may be read again.
    paused: BTreeMap<ShardAt, (u32, u64)>,
}

/// Entries that are moving, or wait before they are read again.
#[derive(Clone, Default)]
struct Moving(Arc<Mutex<Moves>>);

struct Moved(Moving, ShardAt);

impl Moving {
    /// Begins a look. Forgets the pauses of agreements that no longer drain.
    fn look(&self, draining: &BTreeSet<u32>) {
        let mut all = self.0.lock();
        all.look = all.look.saturating_add(1);
        all.paused.retain(|(agreement, _), _| draining.contains(agreement));
    }

    fn take(&self, entry: ShardAt) -> Option<Moved> {
        let mut all = self.0.lock();
        let pauses = all.paused.get(&entry).is_some_and(|(_, until)| all.look < *until);
        (!pauses && all.under_way.insert(entry)).then(|| Moved(self.clone(), entry))
    }

    fn of(&self, agreement: u32) -> usize {
        self.0.lock().under_way.range((agreement, 0)..=(agreement, u64::MAX)).count()
    }
}

impl Moved {
    /// Has the entry wait before it is read again.
    fn pause(&self) {
        let mut all = self.0.0.lock();
        let look = all.look;
        let (times, until) = all.paused.entry(self.1).or_default();
        *until = look.saturating_add(1 << (*times).min(DOUBLINGS));
        *times = times.saturating_add(1);
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        self.0.0.lock().under_way.remove(&self.1);
    }
}

/// The reason why a shard did not move.
struct Stays {
    why: String,
    /// True if it was read, which may have cost egress.
    read: bool,
}

/// Moves shards of the gateway's draining agreements at each look.
pub(crate) fn drainer(shared: &Arc<Shared>) -> Drain {
    let (shared, moving) = (shared.clone(), Moving::default());
    Box::new(move |usages, away, epoch| drain(&shared, usages, away, &moving, epoch))
}

/// Moves some entries, in the background. With each provider, the agreement that holds least goes first,
/// so that it can be closed and its room used for the next. Entries of agreements in `away` move to other
/// providers.
fn drain(
    shared: &Arc<Shared>,
    usages: &[(Arc<OwnAgreement>, AgreementUsage)],
    away: &BTreeSet<u32>,
    moving: &Moving,
    epoch: u64,
) {
    let p = &shared.parameters;
    let mut draining: Vec<&(Arc<OwnAgreement>, AgreementUsage)> =
        usages.iter().filter(|(_, s)| Stage::of(&s.row) == Stage::Draining).collect();
    moving.look(&draining.iter().map(|(agreement, _)| agreement.number).collect());
    draining.sort_by_key(|(_, usage)| (usage.load, usage.number));
    let mut under_way: BTreeMap<Account, usize> = BTreeMap::new();
    for (agreement, _) in &draining {
        *under_way.entry(agreement.provider()).or_default() += moving.of(agreement.number);
    }
    for (old, _) in draining {
        let count = under_way.entry(old.provider()).or_default();
        if *count >= MOVED_AT_ONCE {
            continue;
        }
        for entry in old.with_state(|state| state.live()) {
            if *count >= MOVED_AT_ONCE {
                break;
            }
            let Some(moved) = moving.take((old.number, entry.sequence)) else { continue };
            let bytes = u64::from(entry.bytes);
            let leaves = away.contains(&old.number);
            let new = if leaves { None } else { successor(&shared.consumer, old, bytes, epoch, p) };
            let room = new.and_then(|new| new.reserve(bytes));
            if room.is_none() && !leaves {
                continue;
            }
            *count += 1;
            let (shared, old) = (shared.clone(), old.clone());
            shared.clone().common.environment.spawn(async move {
                let shifted = shift(&shared, &old, room, entry, leaves);
                let shifted = shared.common.environment.within(SHIFT_TIMEOUT, shifted);
                let late = || Err(Stays { why: "it takes too long".into(), read: true });
                if let Err(Stays { why, read }) = shifted.await.unwrap_or_else(late) {
                    tracing::debug!(why, "a shard is not renewed yet");
                    if read {
                        moved.pause();
                    }
                }
            });
        }
    }
}

/// The providers of the operator of a provider.
fn same_operator(shared: &Shared, provider: &Account) -> Vec<Account> {
    let all = shared.all_known();
    let operator = all.get(provider).map(|known| known.operator.clone());
    let of = all.into_iter().filter(|(_, known)| Some(&known.operator) == operator.as_ref());
    of.map(|(account, _)| account).collect()
}

/// Room for a shard at an operator that holds no other shard of its segment.
async fn elsewhere(shared: &Shared, old: &OwnAgreement, entry: &Added) -> Result<Room, String> {
    let found = shared.catalogue.segment(entry.file, entry.segment).await;
    let row = found.map_err(|stopped| stopped.to_string())?.ok_or("the shard's segment no longer exists")?;
    let accounts = |dropped: bool| -> BTreeSet<Account> {
        let of = row.holdings.iter().filter(|holding| holding.dropped == dropped);
        of.filter_map(|holding| shared.agreement(holding.agreement))
            .map(|agreement| agreement.provider())
            .collect()
    };
    let (mut kept, mut avoided) = (accounts(false), accounts(true));
    kept.remove(&old.provider());
    avoided.insert(old.provider());
    if old.refuses() {
        avoided.extend(same_operator(shared, &old.provider()));
    }
    let label = [&entry.file[..], &entry.segment.to_be_bytes()].concat();
    let rooms = shared.rooms(&label, 1, entry.bytes.into(), &kept, &avoided);
    rooms.into_iter().next().ok_or_else(|| "no other operator has room".into())
}

/// The bytes of a shard: from its provider or, if it is `late` and the provider does not send it, rebuilt
/// from the other shards of its segment.
async fn bytes_of(
    shared: &Arc<Shared>,
    old: &Arc<OwnAgreement>,
    entry: &Added,
    late: bool,
) -> Result<Vec<u8>, String> {
    let payer = shared.payer(old, entry.bytes.into()).await;
    match payer.fetch(entry.name, entry.bytes.into()).await {
        Err(error) if late => {
            tracing::debug!(%error, agreement = old.number,
                "a shard to be moved cannot be read; it is rebuilt from the others");
            restore(shared, entry).await
        }
        fetched => fetched.map_err(|error| error.to_string()),
    }
}

/// Stores a shard under the new agreement, has it signed, then drops it from the old one. If `late`, its
/// bytes need not come from its provider.
async fn shift(
    shared: &Arc<Shared>,
    old: &Arc<OwnAgreement>,
    room: Option<Room>,
    entry: Added,
    late: bool,
) -> Result<(), Stays> {
    let (unread, read) = (|why| Stays { why, read: false }, |why| Stays { why, read: true });
    let row = shared.catalogue.segment(entry.file, entry.segment).await;
    let row = row.map_err(|stopped| unread(stopped.to_string()))?;
    let row = row.ok_or_else(|| unread("the shard's segment no longer exists".into()))?;
    if row.holdings.len() >= HOLDINGS_MAX - SHARDS {
        return Err(unread("many copies of its segment wait to be taken out".into()));
    }
    let room = match room {
        Some(room) => room,
        None => elsewhere(shared, old, &entry).await.map_err(unread)?,
    };
    let _place = shared.mending.acquire().await.map_err(|error| unread(error.to_string()))?;
    let bytes = bytes_of(shared, old, &entry, late).await.map_err(read)?;
    let unsigned = room.store(Added { moves: true, ..entry }, bytes).await;
    if !unsigned.map_err(|error| read(error.to_string()))?.signed().await {
        return Err(read("the provider refused to sign".into()));
    }
    old.drop_entries(vec![entry.sequence]).await.map_err(|stopped| unread(stopped.to_string()))?;
    Ok(())
}
