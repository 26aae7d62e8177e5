//! A runtime whose clock never steps, and a monitor of the machine's clock, which may.
//!
//! Consensus, its timeouts and the quotas of the network use moments of [`Clock::current`]. If that were the
//! machine's clock, a step back of 20 s would stop them all for 20 s. So an authority runs them on
//! [`Steady`]: the machine's time at its start, plus the time that has passed since, by the clock that
//! counts from boot and includes suspension. The times of the authority's own blocks come from it as well;
//! no rule reads them. Gateways and providers run on it too: a step ends no transfer, and delays none.
//!
//! The machine's clock is monitored: a step, or a distance to the time of the other authorities' blocks, is
//! logged when it begins and when it ends. A node ends if its clock was set far away since its start and
//! its network runs on without it ([`is_lost`]): its next start takes the time again. One that has no state yet
//! begins anew by itself.

use crate::silence::{Attentive, Heard};
use commonware_runtime::{BlobVersion, Clock, Error, Network, SinkOf, Storage, StreamOf, Supervisor};
use rustix::time::{ClockId, clock_gettime};
use std::{
    collections::VecDeque,
    net::SocketAddr,
    ops::RangeInclusive,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The clock that never steps and also counts the time in which the machine is suspended.
#[cfg(any(target_os = "linux", target_os = "android"))]
const SINCE_BOOT: ClockId = ClockId::Boottime;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const SINCE_BOOT: ClockId = ClockId::Monotonic;

/// Time since boot, including the time in which the machine was suspended.
fn since_boot() -> Duration {
    clock_gettime(SINCE_BOOT).try_into().unwrap_or_default()
}

/// The moment at which the steady clock began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Anchor {
    wall: SystemTime,
    /// Time since boot at that moment.
    began: Duration,
}

impl Anchor {
    /// An anchor at the present moment.
    pub(crate) fn now() -> Self {
        Self { wall: SystemTime::now(), began: since_boot() }
    }

    fn current(&self) -> SystemTime {
        self.wall + since_boot().saturating_sub(self.began)
    }

    /// Seconds by which the machine's clock is ahead of the steady one; negative if it is behind.
    pub(crate) fn step(&self) -> i64 {
        seconds(SystemTime::now()) - seconds(self.current())
    }

    /// Seconds by which the machine's clock is ahead of a time in milliseconds since 1970.
    pub(crate) fn ahead_of(time_ms: u64) -> i64 {
        seconds(SystemTime::now()) - i64::try_from(time_ms / 1_000).unwrap_or(i64::MAX)
    }
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Distance of the machine's clock from which a service takes it for right, and its own for wrong.
const WRONG: Duration = Duration::from_secs(24 * 60 * 60);

/// The source of a steady clock.
#[derive(Clone, Copy, Debug)]
enum Source {
    /// The machine's time at the anchor, and the time since.
    Boot(Anchor),
    /// The same while the machine's time is less than [`WRONG`] away from it; else the machine's time.
    Near(Anchor),
    /// The clock below, and this many milliseconds.
    Below(i64),
}

/// A runtime with a clock that never steps.
pub struct Steady<E> {
    inner: E,
    source: Source,
}

impl<E> Steady<E> {
    /// Wraps `inner`, with a clock that starts at the machine's time, now. If the machine's clock is set by a day or
    /// more, it was wrong before, and counts from then on: peers refuse a time that is two days off.
    pub fn of_machine(inner: E) -> Self {
        Self { inner, source: Source::Near(Anchor::now()) }
    }

    /// Wraps `inner`, with a clock that starts at `anchor`.
    pub(crate) const fn new(inner: E, anchor: Anchor) -> Self {
        Self { inner, source: Source::Boot(anchor) }
    }

    /// Wraps a deterministic runtime, with a clock that is wrong by `ahead_ms`.
    pub(crate) const fn shifted(inner: E, ahead_ms: i64) -> Self {
        Self { inner, source: Source::Below(ahead_ms) }
    }
}

posync_client::forward_runtime!(Steady { inner, source });

impl<E: Clock> Clock for Steady<E> {
    fn current(&self) -> SystemTime {
        match self.source {
            Source::Boot(anchor) => anchor.current(),
            Source::Near(anchor) => {
                let (steady, machine) = (anchor.current(), SystemTime::now());
                let apart = machine.duration_since(steady).unwrap_or_else(|before| before.duration());
                if apart < WRONG { steady } else { machine }
            }
            Source::Below(ahead_ms) => {
                let (now, by) = (self.inner.current(), Duration::from_millis(ahead_ms.unsigned_abs()));
                if ahead_ms < 0 { now.checked_sub(by).unwrap_or(UNIX_EPOCH) } else { now + by }
            }
        }
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send + 'static + use<E> {
        self.inner.sleep(duration)
    }

    fn sleep_until(&self, deadline: SystemTime) -> impl Future<Output = ()> + Send + 'static + use<E> {
        self.inner.sleep(deadline.duration_since(self.current()).unwrap_or_default())
    }
}

impl<E: Storage> Storage for Steady<E> {
    type Blob = E::Blob;

    async fn open_versioned(
        &self,
        partition: &str,
        name: &[u8],
        versions: RangeInclusive<BlobVersion>,
    ) -> Result<(E::Blob, u64, BlobVersion), Error> {
        self.inner.open_versioned(partition, name, versions).await
    }

    async fn remove(&self, partition: &str, name: Option<&[u8]>) -> Result<(), Error> {
        self.inner.remove(partition, name).await
    }

    async fn scan(&self, partition: &str) -> Result<Vec<Vec<u8>>, Error> {
        self.inner.scan(partition).await
    }
}

impl<E: Network + Clock + Supervisor> Network for Steady<E> {
    type Listener = Attentive<E, E::Listener>;

    async fn bind(&self, socket: SocketAddr) -> Result<Self::Listener, Error> {
        Ok(Attentive::new(&self.inner, self.inner.bind(socket).await?))
    }

    async fn dial(&self, socket: SocketAddr) -> Result<(SinkOf<Self>, StreamOf<Self>), Error> {
        let (sink, stream) = self.inner.dial(socket).await?;
        Ok((sink, Heard::new(&self.inner, stream)))
    }
}

/// Seconds of a step, or of a distance to the others, from which it is logged.
const FAR: i64 = 10;
/// Seconds below which it counts as over.
const NEAR: i64 = 5;
/// Consecutive blocks that must agree on a distance.
const BLOCKS: usize = 16;
/// Seconds of a step from which a node may have lost its network, as its own time is that far off.
const LOST: i64 = 30 * 60;
/// Time without a final block after which such a node counts as lost.
const SILENT: Duration = Duration::from_secs(60);

/// True if a node must restart to take the time again: the clock was set by `step` seconds since its start,
/// and no block has become final here for `silent`, or it waits for its state for so long. A node that follows its
/// network needs no other time, however far the clock was set.
pub(crate) fn is_lost(step: i64, silent: Duration) -> bool {
    step.unsigned_abs() >= LOST.unsigned_abs() && silent >= SILENT
}

/// A change in the state of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// The machine's clock was set, by this many seconds since the node's start.
    Stepped(i64),
    /// The machine's clock is back where it would be without a step.
    Steady,
    /// The machine's clock is this many seconds ahead of all recent blocks.
    Off(i64),
    /// The machine's clock agrees with the other authorities' blocks.
    Agrees,
    /// The machine's clock is this many seconds ahead of most others' clocks.
    OffPeers(i64),
    /// The machine's clock agrees with most others' clocks.
    AgreesPeers,
}

/// The present errors of the machine's clock, in seconds as measured when each began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MachineClock {
    /// Seconds by which it was set since the node's start.
    pub stepped: Option<i64>,
    /// Seconds by which it is ahead of all recent blocks; negative if behind.
    pub off: Option<i64>,
}

/// Tracks the clock's errors, so that each change is logged once.
#[derive(Default)]
pub(crate) struct ClockWatch {
    clock: MachineClock,
    distances: VecDeque<i64>,
    /// Seconds by which the clock is ahead of the median of the others' clocks, if that is far.
    peers: Option<i64>,
    /// True once the others' clocks are known. Blocks count no more then: one wrong clock moves their times.
    has_peers: bool,
}

impl ClockWatch {
    /// The errors at present.
    pub(crate) fn clock(&self) -> MachineClock {
        MachineClock { off: self.clock.off.or(self.peers), ..self.clock }
    }

    /// Takes the seconds by which the machine's clock is ahead of the median of the others' clocks.
    pub(crate) fn peers(&mut self, ahead: i64) -> Option<News> {
        if !std::mem::replace(&mut self.has_peers, true) {
            self.peers = self.clock.off.take();
        }
        let far = turned(&mut self.peers, ahead)?;
        Some(if far { News::OffPeers(ahead) } else { News::AgreesPeers })
    }

    /// Takes the distance of the machine's clock from the steady one.
    pub(crate) fn step(&mut self, step: i64) -> Option<News> {
        let far = turned(&mut self.clock.stepped, step)?;
        Some(if far { News::Stepped(step) } else { News::Steady })
    }

    /// Takes a block of another authority that came at its pace: the seconds by which the machine's clock was
    /// ahead of the block's time. All recent blocks must agree, so one lying leader proves nothing.
    pub(crate) fn block(&mut self, ahead: i64) -> Option<News> {
        if self.has_peers {
            return None;
        }
        self.distances.push_back(ahead);
        if self.distances.len() > BLOCKS {
            self.distances.pop_front();
        }
        if self.distances.len() < BLOCKS {
            return None;
        }
        let (least, most) = (self.distances.iter().min()?, self.distances.iter().max()?);
        let nearest = if *least > 0 {
            *least
        } else if *most < 0 {
            *most
        } else {
            0
        };
        let off = turned(&mut self.clock.off, nearest)?;
        Some(if off { News::Off(nearest) } else { News::Agrees })
    }
}

/// Keeps a distance in seconds while it is far: from ten on, until it is below five. Returns true when that
/// begins, false when it is over, and `None` if nothing changed.
pub fn turned(kept: &mut Option<i64>, now: i64) -> Option<bool> {
    let is_far = now.unsigned_abs() >= if kept.is_some() { NEAR } else { FAR }.unsigned_abs();
    if is_far == kept.is_some() {
        return None;
    }
    *kept = is_far.then_some(now);
    Some(is_far)
}

impl News {
    /// Logs the change for the operator.
    pub(crate) fn log(self) {
        match self {
            Self::Stepped(seconds) => tracing::error!(
                seconds,
                "the clock of this machine was set while the node ran; the node goes on by its own: see \
                 that one time service sets it, and in small steps"
            ),
            Self::Steady => tracing::warn!("the clock of this machine is where it was before it was set"),
            Self::Off(seconds) => tracing::error!(
                seconds,
                "the clock of this machine is that far ahead of (if negative, behind) what the blocks of the other \
                 authorities show: set it; certificates, logs and file times of this machine are wrong"
            ),
            Self::OffPeers(seconds) => tracing::error!(
                seconds,
                "the clock of this machine is that far ahead of (if negative, behind) the clocks of most other \
                 authorities: set it, and start the node again; consensus goes on, but certificates, logs and file \
                 times of this machine are wrong"
            ),
            Self::AgreesPeers => {
                tracing::warn!(
                    "the clock of this machine agrees with the clocks of most other authorities again"
                )
            }
            Self::Agrees => {
                tracing::warn!("the clock of this machine agrees with the other authorities again")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonware_runtime::{Runner as _, deterministic};

    #[test]
    fn a_step_is_told_once_when_it_begins_and_once_when_it_ends() {
        let mut watch = ClockWatch::default();
        let steps = [0, 2, -20, -20, -21, -6, -2, 0, 3_600, 3_600, 0];
        let news: Vec<_> = steps.into_iter().filter_map(|step| watch.step(step)).collect();
        assert_eq!(news, [News::Stepped(-20), News::Steady, News::Stepped(3_600), News::Steady]);
    }

    #[test]
    fn a_clock_is_off_only_if_all_recent_blocks_say_so() {
        let mut watch = ClockWatch::default();
        let mut feed =
            |ahead: i64, times: usize| (0..times).filter_map(|_| watch.block(ahead)).collect::<Vec<_>>();
        assert_eq!(feed(0, 40), []);
        assert_eq!(feed(3_600, 1), [], "one leader's clock");
        assert_eq!(feed(0, BLOCKS), []);
        assert_eq!(feed(-60, BLOCKS), [News::Off(-60)]);
        assert_eq!(feed(-60, 40), []);
        assert_eq!(feed(1, 1), [News::Agrees]);
    }

    #[test]
    fn a_node_takes_the_time_anew_only_if_the_clock_was_set_far_and_its_network_goes_on_without_it() {
        let minute = Duration::from_secs(60);
        for (step, silent, ends) in [
            (0, 100 * minute, false),
            (1_799, 100 * minute, false),
            (-1_799, 100 * minute, false),
            (1_800, minute, true),
            (-1_800, minute, true),
            (1_800, minute - Duration::from_millis(1), false),
            (i64::MAX, Duration::ZERO, false),
            (i64::MIN, minute, true),
        ] {
            assert_eq!(is_lost(step, silent), ends, "{step} s, silent for {silent:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_the_clock_stands_until_it_is_over() {
        let mut watch = ClockWatch::default();
        watch.step(-20);
        watch.step(-30);
        assert_eq!((0..BLOCKS).filter_map(|_| watch.block(40)).count(), 1);
        assert_eq!(watch.clock(), MachineClock { stepped: Some(-20), off: Some(40) });
        watch.step(0);
        watch.block(0);
        assert_eq!(watch.clock(), MachineClock::default());
    }

    #[test]
    fn a_clock_that_differs_from_the_others_clocks_is_told_once_and_shown_until_it_is_over() {
        let mut watch = ClockWatch::default();
        let news: Vec<_> =
            [0, 9, 3_600, 3_599, 4, 0].into_iter().filter_map(|ahead| watch.peers(ahead)).collect();
        assert_eq!(news, [News::OffPeers(3_600), News::AgreesPeers]);
        assert_eq!(
            (0..BLOCKS).filter_map(|_| watch.block(-3_600)).count(),
            0,
            "another's clock moved the blocks"
        );
        assert_eq!(watch.clock(), MachineClock::default());
        watch.peers(-3_600);
        assert_eq!(watch.clock(), MachineClock { stepped: None, off: Some(-3_600) });
    }

    /// Compares with the system's own count of the time since boot, which includes suspension.
    #[cfg(target_os = "linux")]
    #[test]
    fn time_goes_on_while_the_machine_is_suspended() {
        let uptime = || {
            let text = std::fs::read_to_string("/proc/uptime").expect("readable");
            let seconds = text.split(' ').next().and_then(|word| word.parse().ok()).expect("seconds");
            Duration::from_secs_f64(seconds)
        };
        // The file has a resolution of hundredths of a second.
        let (before, now, after) = (uptime(), since_boot(), uptime() + Duration::from_millis(10));
        assert!(before <= now && now <= after, "{before:?} <= {now:?} <= {after:?}");
        let anchor = Anchor { wall: UNIX_EPOCH, began: Duration::ZERO };
        assert!(anchor.current() >= UNIX_EPOCH + before, "all of it counts");
    }

    #[test]
    fn a_service_ignores_a_step_of_hours_and_takes_one_of_days() {
        deterministic::Runner::default().start(|context| async move {
            let hours = |hours: u64| Duration::from_secs(hours * 60 * 60);
            for (off, is_taken) in
                [(hours(0), false), (hours(23), false), (hours(25), true), (hours(9_999), true)]
            {
                let began = since_boot();
                for wall in [SystemTime::now() + off, SystemTime::now() - off] {
                    let source = Source::Near(Anchor { wall, began });
                    let steady = Steady { inner: context.child("service"), source };
                    let (least, now) = (SystemTime::now(), steady.current());
                    let is_machines = now >= least && now <= SystemTime::now();
                    assert_eq!(is_machines || off.is_zero(), is_taken || off.is_zero(), "{off:?}");
                    assert!(is_taken || now >= wall, "it goes on from its start");
                }
            }
        });
    }

    /// A caller in 1970 or in 2100 reaches a node service, which answers with its own time, and no other service.
    #[test]
    fn a_clock_that_is_years_off_asks_a_node_service_for_the_time() {
        use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
        use posync_client::{
            channel::{Listen, dial, listen},
            rpc::{self, Client, Server, Service as _},
        };
        use posync_protocol::{
            Account,
            wire::node::{Ask, NodeAnswer, Nothing},
        };
        const NOW: u64 = 1_800_000_000_000;
        const YEARS: i64 = 57 * 365 * 86_400_000;
        deterministic::Runner::default().start(|context| async move {
            let key = |seed| PrivateKey::from_seed(seed);
            let account = Account::of(&key(1).public_key());
            let right = Steady::shifted(context.child("right"), NOW.cast_signed());
            let server = Server::<rpc::Node, _>::new(|call: rpc::Incoming<rpc::Node>, _| async move {
                let _ = call.finish(&NodeAnswer::Clock(NOW)).await;
            });
            let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
            let node = Listen::new(key(1), rpc::Node::NAMESPACE, at(7001));
            let _node = server.listen(right.child("node"), &context, node).await.expect("free");
            let other = Listen::new(key(1), rpc::Provider::NAMESPACE, at(7002));
            let serve = |_, _, _, _| async {};
            let _other = listen(right.child("other"), &context, other, serve).await.expect("free");
            for ahead in [-YEARS, YEARS] {
                let wrong = Steady::shifted(context.child("wrong"), NOW.cast_signed() + ahead);
                let (asks, own) = (wrong.child("asks"), key(2));
                let client = Client::<rpc::Node>::dial(asks, &context, &own, account, at(7001));
                let answer = client.await.expect("any clock is taken").call(Ask::Clock(Nothing {})).await;
                assert!(matches!(answer, Ok(NodeAnswer::Clock(NOW))), "{ahead}");
                let refused =
                    dial(wrong, &context, &key(2), rpc::Provider::NAMESPACE, account, at(7002)).await;
                let why = refused.err().expect("two days at most").to_string();
                assert!(why.contains("clock"), "{why}");
            }
        });
    }

    #[test]
    fn time_goes_on_whatever_the_clock_below_shows() {
        // The clock below is virtual and stands still; the steady one follows the time since boot.
        deterministic::Runner::default().start(|context| async move {
            let anchor =
                Anchor { wall: UNIX_EPOCH + Duration::from_secs(1_000_000_000), began: since_boot() };
            let steady = Steady::new(context, anchor);
            let first = steady.current();
            assert!(first >= anchor.wall && steady.child("x").current() >= first);
            assert!(anchor.step() > 0, "the machine's clock is after 2001");
            steady.sleep_until(first).await;
        });
    }
}
