//! Decides which request is served next: pure.

use posync_protocol::{Account, economics::fair, limits::SHARD_BYTES_MAX};
use std::collections::{BTreeMap, VecDeque};

/// Maximum number of waiting requests.
pub(crate) const QUEUE_MAX: usize = 1024;
/// Number of resources: requests on the disk, their bytes in memory, their bytes on the uplink.
const RESOURCES: usize = 3;
/// Amounts of each resource that a request takes.
pub(crate) type Demand = [u64; RESOURCES];
/// Totals of each resource: 64 requests, 128 MiB in memory, 128 MiB on the uplink.
pub(crate) const TOTAL: Demand = [64, 32 * SHARD_BYTES_MAX, 32 * SHARD_BYTES_MAX];
/// Divisor: a consumer that holds some of a resource may hold all but one of this many parts.
const PARTS: u64 = 4;

/// The largest request fits beside a consumer's three quarters, so no consumer waits for another's end.
const _: () = assert!(SHARD_BYTES_MAX <= TOTAL[1] / PARTS && SHARD_BYTES_MAX <= TOTAL[2] / PARTS);

/// A request of a consumer, waiting or served.
#[derive(Clone, Copy, Debug)]
struct Request {
    consumer: Account,
    demand: Demand,
    served: bool,
}

/// A consumer with at least one request.
#[derive(Clone, Debug, Default)]
struct User {
    weight: u64,
    held: Demand,
    /// Tickets of its waiting requests, oldest first.
    waiting: VecDeque<u64>,
    served: usize,
}

impl User {
    /// True if the consumer leaves the others their quarter when it also gets `demand`.
    fn may_hold(&self, demand: &Demand) -> bool {
        let within =
            |((held, more), total): ((&u64, &u64), &u64)| *more == 0 || held + more <= total - total / PARTS;
        self.served == 0 || self.held.iter().zip(demand).zip(&TOTAL).all(within)
    }
}

/// All requests, waiting and served, with the resources in use.
#[derive(Debug, Default)]
pub(super) struct State {
    next: u64,
    waiting: usize,
    used: Demand,
    requests: BTreeMap<u64, Request>,
    users: BTreeMap<Account, User>,
}

/// A request's ticket, and the ticket that gave up its place for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queued {
    /// Ticket of the new request.
    pub(super) ticket: u64,
    /// Ticket that waits no longer: the newest of the consumer with most.
    pub(super) displaced: Option<u64>,
}

impl State {
    /// Queues a request; `None` when the queue is full and no consumer has more waiting.
    pub(super) fn ask(&mut self, consumer: Account, weight: u64, demand: Demand) -> Option<Queued> {
        let displaced = match self.waiting < QUEUE_MAX {
            true => None,
            false => Some(self.displace(&consumer)?),
        };
        let ticket = self.next;
        self.next += 1;
        let user = self.users.entry(consumer).or_default();
        user.weight = weight.max(1);
        user.waiting.push_back(ticket);
        self.waiting += 1;
        self.requests.insert(ticket, Request { consumer, demand, served: false });
        Some(Queued { ticket, displaced })
    }

    fn displace(&mut self, newcomer: &Account) -> Option<u64> {
        let own = self.users.get(newcomer).map_or(0, |user| user.waiting.len());
        let most = self.users.values().max_by_key(|user| user.waiting.len())?;
        let newest = most.waiting.back().copied().filter(|_| most.waiting.len() > own + 1)?;
        self.leave(newest);
        Some(newest)
    }

    /// Serves the next ticket; `None` if it does not fit. No other request passes it, since many small
    /// requests could keep a large one waiting forever.
    pub(super) fn next(&mut self) -> Option<u64> {
        let (account, ticket, demand) = self.first()?;
        let fits = self.used.iter().zip(&demand).zip(&TOTAL).all(|((used, more), all)| used + more <= *all);
        if !fits {
            return None;
        }
        let user = self.users.get_mut(&account).expect("it waits");
        user.waiting.pop_front();
        user.served += 1;
        self.waiting -= 1;
        for (index, more) in demand.iter().enumerate() {
            user.held[index] += more;
            self.used[index] += more;
        }
        self.requests.get_mut(&ticket).expect("it waits").served = true;
        Some(ticket)
    }

    /// The request that is due: by least weighted dominant share, then by longest wait.
    fn first(&self) -> Option<(Account, u64, Demand)> {
        let mut users: Vec<(u64, &Account, &User)> = self
            .users
            .iter()
            .filter_map(|(account, user)| Some((*user.waiting.front()?, account, user)))
            .filter(|(ticket, _, user)| user.may_hold(&self.requests[ticket].demand))
            .collect();
        users.sort_unstable_by_key(|(ticket, ..)| *ticket);
        let held: Vec<Vec<u64>> = users.iter().map(|(.., user)| user.held.to_vec()).collect();
        let weights: Vec<u64> = users.iter().map(|(.., user)| user.weight).collect();
        let first = *fair::order(&TOTAL, &held, &weights).first()?;
        let (ticket, account, _) = users[first];
        Some((*account, ticket, self.requests[&ticket].demand))
    }

    /// Ends a request, waiting or served; no effect if it is gone already.
    pub(super) fn leave(&mut self, ticket: u64) {
        let Some(request) = self.requests.remove(&ticket) else { return };
        let Some(user) = self.users.get_mut(&request.consumer) else { return };
        if request.served {
            user.served -= 1;
            for (index, less) in request.demand.iter().enumerate() {
                user.held[index] -= less;
                self.used[index] -= less;
            }
        } else {
            user.waiting.retain(|waiting| *waiting != ticket);
            self.waiting -= 1;
        }
        if user.served == 0 && user.waiting.is_empty() {
            self.users.remove(&request.consumer);
        }
    }

    /// Number of requests that wait.
    #[cfg(test)]
    pub(super) const fn waiting(&self) -> usize {
        self.waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn account(id: u8) -> Account {
        Account([id; 32])
    }

    /// Queues requests in order, then serves all that fit; returns the consumers of the served ones.
    fn served(state: &mut State, asks: &[(u8, u64, Demand, usize)]) -> Vec<u8> {
        for (id, weight, demand, times) in asks {
            (0..*times).for_each(|_| assert!(state.ask(account(*id), *weight, *demand).is_some()));
        }
        let tickets = std::iter::from_fn(|| state.next()).collect::<Vec<_>>();
        tickets.iter().map(|ticket| state.requests[ticket].consumer.0[0]).collect()
    }

    #[test]
    fn rows() {
        let get: Demand = [1, 4 * MIB, 4 * MIB];
        let small: Demand = [1, 1, 1];
        type Shares = (&'static str, Vec<(u8, u64, Demand, usize)>, Vec<(u8, usize)>);
        let rows: [Shares; 8] = [
            ("nobody", vec![], vec![]),
            ("one alone leaves a quarter", vec![(1, 1, get, 100)], vec![(1, 24)]),
            ("slots too", vec![(1, 1, small, 100)], vec![(1, 48)]),
            ("two alike share", vec![(1, 1, get, 100), (2, 1, get, 100)], vec![(1, 16), (2, 16)]),
            ("three to one by weight", vec![(1, 3, get, 100), (2, 1, get, 100)], vec![(1, 24), (2, 8)]),
            (
                "a small one behind a greedy one",
                vec![(1, 1 << 60, get, 900), (2, 0, get, 1)],
                vec![(1, 24), (2, 1)],
            ),
            (
                "dominant shares are equal",
                vec![(1, 1, get, 100), (2, 1, [1, 1, 0], 100)],
                vec![(1, 21), (2, 43)],
            ),
            (
                "largest weights",
                vec![(1, u64::MAX, get, 100), (2, u64::MAX, get, 100)],
                vec![(1, 16), (2, 16)],
            ),
        ];
        for (what, asks, expected) in rows {
            let order = served(&mut State::default(), &asks);
            let count = |id: u8| order.iter().filter(|served| **served == id).count();
            let got: Vec<_> = expected.iter().map(|(id, _)| (*id, count(*id))).collect();
            assert_eq!(got, expected, "{what}");
        }
    }

    #[test]
    fn what_is_freed_goes_to_who_holds_least() {
        let get: Demand = [1, 4 * MIB, 4 * MIB];
        let mut state = State::default();
        served(&mut state, &[(1, 5, get, 100), (2, 5, get, 100)]);
        assert_eq!(served(&mut state, &[(3, 1, get, 2)]), [0u8; 0], "all is taken");
        state.leave(0);
        assert_eq!(served(&mut state, &[]), [3], "it holds nothing");
        let of = |state: &State, id: u8| state.users[&account(id)].served;
        assert_eq!((of(&state, 1), of(&state, 2), of(&state, 3)), (15, 16, 1));
        state.leave(1);
        assert_eq!(served(&mut state, &[]), [3], "one of weight one is less than fourteen of weight five");
    }

    #[test]
    fn a_full_queue_takes_from_who_has_most() {
        let demand: Demand = [64, 0, 0];
        let mut state = State::default();
        assert_eq!(served(&mut state, &[(9, 1, demand, 1)]), [9], "everything is taken");
        served(&mut state, &[(1, 1, demand, QUEUE_MAX)]);
        assert_eq!(state.ask(account(1), 1, demand), None, "busy");
        let queued = state.ask(account(2), 1, demand).expect("it has none waiting");
        assert_eq!(queued.displaced, Some(QUEUE_MAX as u64), "the newest of the greedy one");
        assert_eq!(state.waiting(), QUEUE_MAX);
        for _ in 1..QUEUE_MAX / 2 {
            assert!(state.ask(account(2), 1, demand).is_some());
        }
        assert_eq!(state.ask(account(2), 1, demand), None, "half each");
        assert!(state.ask(account(3), 1, demand).is_some());
    }

    proptest! {
        #[test]
        fn nothing_is_exceeded_and_nothing_stays_behind(
            steps in proptest::collection::vec((0u8..5, 0u64..4, 0u64..=4 * MIB, 0u8..4), 1..300),
        ) {
            let mut state = State::default();
            let mut open = VecDeque::new();
            for (id, weight, bytes, action) in steps {
                if action > 0 {
                    open.extend(state.ask(account(id), weight, [1, bytes, bytes / 2]).map(|queued| queued.ticket));
                } else if let Some(ticket) = open.pop_front() {
                    state.leave(ticket);
                }
                while state.next().is_some() {}
                prop_assert!(state.used.iter().zip(&TOTAL).all(|(used, total)| used <= total));
                let idle = state.users.values().find(|user| user.served == 0);
                let room = state.used.iter().zip(&TOTAL).zip([1, 4 * MIB, 4 * MIB]).all(|((u, t), d)| u + d <= *t);
                prop_assert!(idle.is_none() || !room, "nobody who holds nothing waits while there is room");
            }
            open.into_iter().for_each(|ticket| state.leave(ticket));
            prop_assert_eq!((state.used, state.waiting), ([0; 3], 0));
            prop_assert!(state.requests.is_empty() && state.users.is_empty());
        }
    }
}
