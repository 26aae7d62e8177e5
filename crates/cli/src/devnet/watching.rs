//! The alerts of an authority about itself: its volume, its blocks, its seat.

use commonware_runtime::{Clock, Spawner};
use posync_alert::{Alerts, Space, Watch, low_space, seat_conditions};
use posync_node::handle::Handle;
use posync_protocol::{Account, Record as _, record::Seat};
use std::{
    path::PathBuf,
    thread,
    time::{Duration, SystemTime},
};

/// Time between two looks at the room on the volume.
const LOOK_AT_SPACE: Duration = Duration::from_secs(30);
/// Time between two looks at the blocks and the seat.
const LOOK_AT_SEAT: Duration = Duration::from_secs(2);

/// Tells when the volume of a member that promised nobody room is nearly full: a node that cannot
/// write its disk stops.
pub(super) fn space(directory: PathBuf, account: String, alerts: Alerts) {
    thread::spawn(move || {
        let mut watch = Watch::default();
        loop {
            let now = Space::of(&directory, 0).and_then(low_space).into_iter().collect();
            alerts.watch(&mut watch, &account, None, now);
            thread::sleep(LOOK_AT_SPACE);
        }
    });
}

/// Tells when the node is behind, or its seat in jail, for as long as `context` lives.
pub(super) fn seat<E: Spawner + Clock>(context: E, handle: Handle, account: Account, alerts: Alerts) {
    let watching = context.spawn(move |context| async move {
        let parameters = handle.genesis().parameters;
        let mut watch = Watch::default();
        let (mut height, mut since) = (handle.applied(), context.current());
        loop {
            context.sleep(LOOK_AT_SEAT).await;
            let (applied, now) = (handle.applied(), context.current());
            if applied > height {
                (height, since) = (applied, now);
            }
            let slot = handle.read_unproven(vec![Seat::key(&account)]).await.pop().flatten();
            let seat = slot.and_then(|slot| Seat::from_slot(&slot).ok());
            let now = seat_conditions(&parameters, seat.as_ref(), age(since, now));
            alerts.watch(&mut watch, &account.to_string(), Some(height), now);
        }
    });
    // The task lives as long as the node's services, even without its handle.
    drop(watching);
}

/// Time between two moments; zero if the clock was set back.
fn age(since: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(since).unwrap_or_default()
}
