//! The alerts of a role about its machine: its clock, room on the volume; an authority's blocks and seat, too.

use crate::{keys, net::Net, session};
use commonware_cryptography::ed25519::PrivateKey;
use commonware_runtime::{Clock, Spawner, Supervisor as _, tokio::Context};
use posync_alert::{
    Alert, Alerts, RaisedAlerts, Space, clock_conditions, clock_off, full_volume, low_space, seat_conditions,
};
use posync_client::{
    connection::{Connection, Endpoint},
    light::Light,
};
use posync_gateway::Full;
use posync_node::{MachineClock, handle::Handle, turned};
use posync_protocol::{Account, Record as _, limits::PEER_SKEW_MS_MAX, record::Seat};
use std::{
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime},
};

/// Pause between two checks of the room on the volume.
const LOOK_AT_SPACE: Duration = Duration::from_secs(30);
/// Pause between two checks of the blocks and the seat.
const LOOK_AT_SEAT: Duration = Duration::from_secs(2);

/// Pause before the first comparison of clocks, and between two.
const FIRST_CLOCK: Duration = Duration::from_secs(10);
const LOOK_AT_CLOCK: Duration = Duration::from_secs(300);
/// Nodes whose clocks are asked for at once; each costs a handshake.
const CLOCKS_MAX: usize = 7;
/// Least number of clocks with a median that counts: of two, one liar could make it.
const CLOCKS_MIN: usize = 3;

/// Seconds from which the other authorities refuse connections from this one, so that it cannot ask them there.
const REFUSED: i64 = (PEER_SKEW_MS_MAX / 1_000).cast_signed();

/// Compares the machine's clock with those of the network file's nodes for as long as `context` lives, and sends the
/// alert while it is off. For roles other than an authority, which compares its own with the other authorities.
pub(super) fn clock(context: &Context, net: &Net, key: &PrivateKey, alerts: Alerts) {
    if let Some(clocks) = Clocks::of(net, key, alerts) {
        drop(context.child("clock").spawn(move |context| clocks.compare(context, 0)));
    }
}

/// As [`clock`], for an authority at its start and apart from its engine: it reports a clock that is so far off that
/// the other authorities refuse its connections. What is less is found out over these, so the comparison ends with
/// the first one that finds no such distance.
pub(super) fn far_clock(net: &Net, key: &PrivateKey, alerts: Alerts) {
    let Some(clocks) = Clocks::of(net, key, alerts) else { return };
    thread::spawn(|| {
        let compared = session::until_done(async |context| {
            clocks.compare(context, REFUSED).await;
            Ok(())
        });
        if let Err(failure) = compared {
            tracing::warn!("the clock is not compared with those of the others: {}", failure.in_one_line());
        }
    });
}

/// The nodes with whose clocks the machine's is compared.
struct Clocks {
    nodes: Vec<Endpoint>,
    light: Light,
    key: PrivateKey,
    alerts: Alerts,
}

impl Clocks {
    /// The other nodes of the network file; `None` if they are too few for a median that counts.
    fn of(net: &Net, key: &PrivateKey, alerts: Alerts) -> Option<Self> {
        let nodes = net.file.others(&keys::account(key));
        if nodes.len() < CLOCKS_MIN {
            tracing::info!(
                nodes = nodes.len(),
                "the network file names too few nodes to compare this machine's clock with theirs: it takes {CLOCKS_MIN}"
            );
            return None;
        }
        Some(Self { nodes, light: net.light.clone(), key: key.clone(), alerts })
    }

    /// Compares the clocks again and again, and sends the alert while this one is off by `least` seconds or more. With
    /// a `least`, it ends once it is not.
    async fn compare(self, context: Context, least: i64) {
        let Self { nodes, light, key, alerts } = self;
        let account = keys::account(&key);
        let (mut watch, mut off, mut first) = (RaisedAlerts::default(), None, usize::from(account.0[0]));
        let mut pause = FIRST_CLOCK;
        loop {
            context.sleep(pause).await;
            // Others each time, so that a few of many that are away or lie do not stay the measure.
            let asked = nodes.iter().cycle().skip(first % nodes.len()).take(nodes.len().min(CLOCKS_MAX));
            let asked = asked.cloned().collect();
            first = first.wrapping_add(CLOCKS_MAX);
            let (asking, over) = (context.child("asking"), context.child("sockets"));
            let connection = Connection::new(asking, over, key.clone(), asked, light.clone());
            let heard = connection.survey().await.into_iter().filter_map(|heard| heard.ahead_ms).collect();
            let ahead = ahead_of(heard);
            // Too few answered: machines that start together are asked again soon, and later less often.
            pause = if ahead.is_none() { (pause * 2).min(LOOK_AT_CLOCK) } else { LOOK_AT_CLOCK };
            if let Some(ahead) = ahead {
                let _ = turned(&mut off, if ahead.abs() < least { 0 } else { ahead });
            }
            alerts.watch(&mut watch, &account.to_string(), None, off.map(clock_off).into_iter().collect());
            if least > 0 && ahead.is_some() && off.is_none() {
                return;
            }
        }
    }
}

/// Milliseconds by which this machine's clock is ahead of the median of others, which are ahead of it by these
/// milliseconds; `None` if they are too few.
pub(crate) fn ahead_ms_of(mut theirs: Vec<i64>) -> Option<i64> {
    theirs.sort_unstable();
    let median = theirs.get(theirs.len() / 2).filter(|_| theirs.len() >= CLOCKS_MIN)?;
    Some(median.saturating_neg())
}

/// The same in seconds.
fn ahead_of(theirs: Vec<i64>) -> Option<i64> {
    ahead_ms_of(theirs).map(|ahead| ahead / 1_000)
}

/// Sends the alerts of `conditions` about the fullest of the volumes of a member that promised no room.
pub(super) fn space(
    directories: Vec<PathBuf>,
    account: String,
    alerts: Alerts,
    conditions: impl Fn(Space) -> Vec<Alert> + Send + 'static,
) {
    thread::spawn(move || {
        let mut watch = RaisedAlerts::default();
        loop {
            let now = fullest(&directories).map(&conditions).unwrap_or_default();
            alerts.watch(&mut watch, &account, None, now);
            thread::sleep(LOOK_AT_SPACE);
        }
    });
}

/// The room on the fullest volume of these directories; one that does not answer is none.
fn fullest(directories: &[PathBuf]) -> Option<Space> {
    directories.iter().filter_map(|directory| Space::of(directory, 0)).min_by_key(|space| space.free)
}

/// The directories of an authority or a node without a seat: `storage` may be a volume of its own.
pub(super) fn both_volumes(directory: &Path) -> Vec<PathBuf> {
    vec![directory.to_path_buf(), directory.join("storage")]
}

/// Conditions of the volume of an authority or a node without a seat; [`seat`] reports that the authority takes no part.
pub(super) fn authority_space(space: Space) -> Vec<Alert> {
    let next = "a node with less than 32 MiB writes nothing, and an authority takes no part in consensus: make room on the \
                volume";
    low_space(space).map(|alert| Alert { next: next.into(), ..alert }).into_iter().collect()
}

/// Of a gateway: its catalogue grows with every file. `full` says why it takes no new files, if it takes none.
pub(super) fn gateway_space(space: Space, full: Option<Full>) -> Vec<Alert> {
    let next = "the catalogue grows with every file, and without room the gateway takes no new files: make room on the \
                volume";
    let effect =
        "it takes no new files, reads and removes what it has, and takes files again by itself with room";
    let low = low_space(space).map(|alert| Alert { next: next.into(), ..alert });
    low.into_iter().chain(full.map(|full| full_volume(full.to_string(), effect))).collect()
}

/// The conditions of the room and the clock of a running node's machine.
fn machine(takes_part: bool, clock: MachineClock) -> Vec<Alert> {
    let full = (!takes_part).then(|| {
        let what = "the volume is nearly full, and this authority takes no part in consensus".into();
        full_volume(what, "it earns nothing, serves what it has, and takes part again by itself with room")
    });
    full.into_iter().chain(clock_conditions(clock.stepped, clock.off)).collect()
}

/// Reports when the node is behind, its seat in jail, its volume full, or its clock off, for as long as `context` lives.
pub(super) fn seat<E: Spawner + Clock>(context: E, handle: Handle, account: Account, alerts: Alerts) {
    let watching = context.spawn(move |context| async move {
        let parameters = handle.genesis().parameters;
        let mut watch = RaisedAlerts::default();
        let (mut height, mut since) = (handle.applied(), context.current());
        loop {
            context.sleep(LOOK_AT_SEAT).await;
            let (applied, now) = (handle.applied(), context.current());
            if applied > height {
                (height, since) = (applied, now);
            }
            let slot = handle.read_unproven(vec![Seat::key(&account)]).await.pop().flatten();
            let seat = slot.and_then(|slot| Seat::from_slot(&slot).ok());
            let mut now = seat_conditions(&parameters, seat.as_ref(), age(since, now));
            now.extend(machine(handle.taking().is_on(), handle.clock()));
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

#[cfg(test)]
mod tests {
    use super::*;
    use posync_alert::Kind;

    fn kinds(alerts: &[Alert]) -> Vec<Kind> {
        alerts.iter().map(|alert| alert.kind).collect()
    }

    #[test]
    fn a_volume_is_told_when_it_is_nearly_full_and_again_when_nothing_is_written() {
        let space = |free| Space { free, promised: 0 };
        assert_eq!(kinds(&gateway_space(space(1 << 30), None)), []);
        assert_eq!(kinds(&gateway_space(space(32 << 20), None)), [Kind::LowSpace]);
        let full = Full { free: 7, least: 32 << 20 };
        let alerts = gateway_space(space(7), Some(full));
        assert_eq!(kinds(&alerts), [Kind::LowSpace, Kind::VolumeFull]);
        assert!(
            alerts[1].what.contains("only 7 bytes") && alerts[1].next.contains("no new files"),
            "{alerts:?}"
        );
        assert_eq!(kinds(&authority_space(space(1 << 30))), []);
        assert_eq!(kinds(&authority_space(space(0))), [Kind::LowSpace]);
    }

    /// Nothing can be written to `/proc`, which has no free byte.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_storage_that_is_a_full_volume_of_its_own_counts() {
        let home = tempfile::tempdir().expect("a directory");
        let both = both_volumes(home.path());
        assert!(
            fullest(&both).is_some_and(|space| space.free > 0),
            "`storage` is not there before the first start"
        );
        std::os::unix::fs::symlink("/proc", home.path().join("storage")).expect("writable");
        assert_eq!(fullest(&both), Some(Space { free: 0, promised: 0 }));
    }

    #[test]
    fn what_a_running_node_finds_of_its_machine_is_told() {
        let good = MachineClock::default();
        assert_eq!(kinds(&machine(true, good)), []);
        assert_eq!(kinds(&machine(false, good)), [Kind::VolumeFull]);
        let off = MachineClock { stepped: None, off: Some(-60) };
        assert_eq!(kinds(&machine(false, off)), [Kind::VolumeFull, Kind::ClockOff]);
    }

    #[test]
    fn one_wrong_clock_of_the_others_is_no_measure_and_two_clocks_are_none() {
        assert_eq!(ahead_of(vec![-3_600_000, -3_600_400, 20]), Some(3_600));
        assert_eq!(ahead_of(vec![30, 3_600_000, -20, 10]), Some(0));
        assert_eq!(ahead_of(vec![-86_400_000, -86_400_000]), None);
        assert_eq!(ahead_of(vec![i64::MIN; 3]), Some(i64::MAX / 1_000));
    }

    #[test]
    fn a_webhook_hears_of_a_clock_that_is_off_once_when_it_begins_and_once_when_it_ends() {
        let (url, got) = posync_alert::test_utils::listen(vec![]);
        let alerts = Alerts::to(Some(&url), None).expect("an address");
        let (mut watch, good) = (RaisedAlerts::default(), MachineClock::default());
        let off = |seconds| MachineClock { stepped: Some(seconds), off: Some(seconds) };
        for clock in [good, off(40), off(41), good, good] {
            alerts.watch(&mut watch, "sync1x", Some(7), machine(true, clock));
        }
        assert!(alerts.flush(Duration::from_secs(30)), "everything reached the listener");
        let told: Vec<_> = got.try_iter().map(|posted| posted.json).collect();
        let states: Vec<_> = told.iter().map(|json| (&json["alert"], &json["state"])).collect();
        let clock = &serde_json::json!("clock_off");
        assert_eq!(states, [(clock, &"raised".into()), (clock, &"cleared".into())]);
        assert!(told[0]["what"].as_str().is_some_and(|what| what.contains("40 seconds ahead")), "{told:?}");
    }
}
