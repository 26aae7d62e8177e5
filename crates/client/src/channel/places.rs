//! The connections of a listener, and which of them is closed when the listener is full.
//!
//! ```text
//!  accepted ──► silent ──key──► speaking ──proof──► proved
//!               └── at most HANDSHAKES_MAX, HANDSHAKES_PER_ORIGIN ──┘   └── at most `connections_max`,
//!                   the oldest silent one of the most crowded               KEY_CONNECTIONS_MAX a key
//!                   origin is closed
//! ```
//!
//! Invariants
//! 1. A newcomer is always accepted for a handshake. Connections that prove no key replace one another,
//!    never a proved one.
//! 2. One key holds at most [`KEY_CONNECTIONS_MAX`] proved connections.
//! 3. A full listener accepts a newcomer in place of a connection without a call, or of one of an
//!    origin (then of a key) that holds at least two more than the newcomer's. Otherwise it refuses
//!    the newcomer.

use commonware_utils::sync::{Mutex, MutexGuard};
use posync_protocol::Account;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::oneshot;

/// Connections of one listener that have not proved a key yet: with a read buffer each, about 16 MiB.
pub(crate) const HANDSHAKES_MAX: usize = 256;
/// Connections of one origin that have not proved a key yet.
pub(crate) const HANDSHAKES_PER_ORIGIN: usize = 128;
/// Proved connections of one key.
pub(crate) const KEY_CONNECTIONS_MAX: usize = 32;

const _: () = assert!(HANDSHAKES_PER_ORIGIN < HANDSHAKES_MAX);
const _: () = assert!(KEY_CONNECTIONS_MAX * 8 <= posync_protocol::limits::CONNECTIONS_MAX);

/// The origin of a connection: an IPv4 address, or the /64 network of an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Origin(IpAddr);

impl Origin {
    /// Returns the origin of an address.
    pub(crate) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                Self(IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)))
            }
            v4 => Self(v4),
        }
    }
}

/// Number of a connection's open calls.
pub(crate) type Calls = Arc<AtomicUsize>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Silent,
    Speaking,
    Proved(Account),
}

struct ConnectionEntry {
    origin: Origin,
    stage: Stage,
    calls: Calls,
    /// Dropping it ends the connection.
    _cut: oneshot::Sender<()>,
}

impl ConnectionEntry {
    fn key(&self) -> Option<Account> {
        match self.stage {
            Stage::Proved(key) => Some(key),
            _ => None,
        }
    }

    fn is_idle(&self) -> bool {
        self.calls.load(Ordering::Relaxed) == 0
    }
}

#[derive(Default)]
struct Table {
    next: u64,
    entries: BTreeMap<u64, ConnectionEntry>,
}

impl Table {
    fn count(&self, is: impl Fn(&ConnectionEntry) -> bool) -> usize {
        self.entries.values().filter(|entry| is(entry)).count()
    }

    /// The oldest handshake of the most crowded origin; silent ones come first.
    fn handshake_to_end(&self, only: Option<Origin>) -> Option<u64> {
        let waiting = || self.entries.iter().filter(|(_, entry)| entry.key().is_none());
        let origin =
            only.or_else(|| most(waiting().map(|(_, entry)| entry.origin)).map(|(origin, _)| origin))?;
        let of_origin = || waiting().filter(|(_, entry)| entry.origin == origin);
        let silent = of_origin().find(|(_, entry)| entry.stage == Stage::Silent);
        silent.or_else(|| of_origin().next()).map(|(id, _)| *id)
    }

    /// The proved connection that is closed for a newcomer of `origin` with `key`.
    fn proved_to_end(&self, origin: Origin, key: Account) -> Option<u64> {
        let proved = || self.entries.iter().filter(|(_, entry)| entry.key().is_some());
        let own = self.count(|entry| entry.key().is_some() && entry.origin == origin);
        let (crowded, held) = most(proved().map(|(_, entry)| entry.origin))?;
        let origin = if held > own + 1 { crowded } else { origin };
        let keys = proved().filter(|(_, entry)| entry.origin == origin).filter_map(|(_, entry)| entry.key());
        let greedy = most(keys)
            .filter(|(_, keys)| held > own + 1 || *keys > self.count(|entry| entry.key() == Some(key)) + 1);
        let candidates = |entry: &ConnectionEntry| {
            greedy.is_some_and(|(greedy, _)| entry.origin == origin && entry.key() == Some(greedy))
        };
        let of_greedy = || proved().filter(|(_, entry)| candidates(entry));
        let idle = of_greedy().find(|(_, entry)| entry.is_idle());
        let any_idle = || proved().find(|(_, entry)| entry.is_idle());
        idle.or_else(any_idle).or_else(|| of_greedy().next_back()).map(|(id, _)| *id)
    }
}

/// The most frequent item and its count.
fn most<T: Ord>(items: impl Iterator<Item = T>) -> Option<(T, usize)> {
    let mut counts = BTreeMap::new();
    for item in items {
        *counts.entry(item).or_insert(0) += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count)
}

/// The connections of one listener.
#[derive(Clone, Default)]
pub(super) struct Places(Arc<Mutex<Table>>);

/// One connection's entry; dropping it frees the place.
pub(super) struct ConnectionPlace {
    id: u64,
    places: Places,
}

/// Resolves when the connection has to close.
pub(super) type Cut = oneshot::Receiver<()>;

impl Places {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock()
    }

    /// Registers an accepted connection; an older handshake is ended if there are too many.
    pub(super) fn arrive(&self, origin: Origin) -> (ConnectionPlace, Cut) {
        let mut table = self.lock();
        let waiting = table.count(|entry| entry.key().is_none());
        let own = table.count(|entry| entry.key().is_none() && entry.origin == origin);
        let victim = match (own >= HANDSHAKES_PER_ORIGIN, waiting >= HANDSHAKES_MAX) {
            (true, _) => table.handshake_to_end(Some(origin)),
            (false, true) => table.handshake_to_end(None),
            (false, false) => None,
        };
        if let Some(victim) = victim {
            table.entries.remove(&victim);
        }
        let (cut, gives_way) = oneshot::channel();
        let id = table.next;
        table.next += 1;
        let entry = ConnectionEntry { origin, stage: Stage::Silent, calls: Calls::default(), _cut: cut };
        table.entries.insert(id, entry);
        (ConnectionPlace { id, places: self.clone() }, gives_way)
    }
}

impl ConnectionPlace {
    /// Records that the other end has named a key.
    pub(super) fn speaks(&self) {
        if let Some(entry) = self.places.lock().entries.get_mut(&self.id) {
            entry.stage = Stage::Speaking;
        }
    }

    /// Records that the other end has proved `key`. Returns its count of open calls; `None`: it is refused.
    pub(super) fn prove(&self, key: Account, connections_max: usize) -> Option<Calls> {
        let mut table = self.places.lock();
        let origin = table.entries.get(&self.id)?.origin;
        let of_key = |entry: &ConnectionEntry| entry.key() == Some(key);
        let bound = if cfg!(planted = "greedy-key") { usize::MAX } else { KEY_CONNECTIONS_MAX };
        if table.count(of_key) >= bound {
            let idle = table.entries.iter().find(|(_, entry)| of_key(entry) && entry.is_idle());
            let idle = idle.map(|(id, _)| *id)?;
            table.entries.remove(&idle);
        } else if table.count(|entry| entry.key().is_some()) >= connections_max {
            let victim = table.proved_to_end(origin, key)?;
            table.entries.remove(&victim);
        }
        let entry = table.entries.get_mut(&self.id)?;
        entry.stage = Stage::Proved(key);
        Some(entry.calls.clone())
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.places.lock().entries.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(last: u8) -> Origin {
        Origin::of(IpAddr::from([192, 0, 2, last]))
    }

    fn is_cut(cut: &mut Cut) -> bool {
        cut.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn an_origin_is_an_ipv4_address_or_an_ipv6_network() {
        let of = |text: &str| Origin::of(text.parse().expect("an address"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
    }

    #[test]
    fn silent_connections_push_out_one_another_and_nobody_who_speaks() {
        let places = Places::default();
        let (speaking, mut cut) = places.arrive(origin(1));
        speaking.speaks();
        let mut silent: Vec<_> = (0..10 * HANDSHAKES_MAX).map(|_| places.arrive(origin(1))).collect();
        let left = silent.iter_mut().filter_map(|(_, cut)| (!is_cut(cut)).then_some(())).count();
        assert_eq!(left, HANDSHAKES_PER_ORIGIN - 1);
        assert!(!is_cut(&mut cut));
        assert!(speaking.prove(Account([1; 32]), 1).is_some());
    }

    #[test]
    fn handshakes_of_many_origins_cost_the_most_crowded_one() {
        let places = Places::default();
        let (_place, mut cut) = places.arrive(origin(9));
        let _crowd: Vec<_> = (0..600).map(|n| places.arrive(origin(n as u8 % 3))).collect();
        assert!(!is_cut(&mut cut), "its origin has one");
        assert_eq!(places.lock().entries.len(), HANDSHAKES_MAX);
    }

    #[test]
    fn one_key_holds_no_more_than_its_share_and_its_idle_ones_give_way() {
        let places = Places::default();
        let prove = |key: u8| {
            let (place, cut) = places.arrive(origin(1));
            place.prove(Account([key; 32]), 256).map(|calls| (place, cut, calls))
        };
        let mut held: Vec<_> = (0..KEY_CONNECTIONS_MAX).map(|_| prove(1).expect("its share")).collect();
        for (_, _, calls) in &held[1..] {
            calls.store(1, Ordering::Relaxed);
        }
        let (_place, _cut, calls) = prove(1).expect("in the place of the idle one");
        assert!(is_cut(&mut held[0].1));
        calls.store(1, Ordering::Relaxed);
        assert!(prove(1).is_none(), "all of its own work");
        assert!(prove(2).is_some(), "another key has its own share");
    }

    #[test]
    fn a_full_listener_takes_an_origin_in_that_holds_less() {
        let places = Places::default();
        let prove = |at: u8, key: u8| {
            let (place, cut) = places.arrive(origin(at));
            place.prove(Account([key; 32]), 8).map(|calls| {
                calls.store(1, Ordering::Relaxed);
                (place, cut)
            })
        };
        let mut greedy: Vec<_> = (0..8).map(|key| prove(1, key).expect("there is room")).collect();
        assert!(prove(1, 99).is_none(), "eight keys at one address, all at work: as many as it gets");
        let mut others: Vec<_> = (0..3).map(|_| prove(2, 50).expect("a share of its own")).collect();
        assert_eq!(greedy.iter_mut().filter_map(|(_, cut)| is_cut(cut).then_some(())).count(), 3);
        let third = prove(3, 60).expect("a share of its own");
        assert!(others.iter_mut().all(|(_, cut)| !is_cut(cut)), "the most crowded one gives way");
        drop(third);
        assert!(prove(2, 51).is_some(), "a free place is free");
    }

    #[test]
    fn at_one_address_the_key_with_most_gives_way() {
        let places = Places::default();
        let prove = |key: u8| {
            let (place, cut) = places.arrive(origin(1));
            place.prove(Account([key; 32]), 8).map(|calls| {
                calls.store(1, Ordering::Relaxed);
                (place, cut)
            })
        };
        let mut held: Vec<_> = (0..8).map(|_| prove(1).expect("there is room")).collect();
        let _other = prove(2).expect("a share of its own");
        assert!(is_cut(&mut held[7].1), "the youngest of the greedy key");
    }
}
