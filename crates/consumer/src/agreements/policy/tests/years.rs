//! Held data over the terms of many agreements.

use super::*;
use crate::agreements::state::{AgreementStep, Around, judge};

/// A gateway's upkeep of its data over years: agreements with ten providers, by the production decisions
/// of [`wanted`] and [`next`]; shards move as in [`super::super::renew`].
struct Years {
    views: BTreeMap<Account, View>,
    all: Vec<AgreementUsage>,
    price: u64,
    /// Leaves that move under one agreement in an epoch.
    pace: u64,
}

impl Years {
    fn held(&self, epoch: u64) -> u64 {
        let running = |s: &&AgreementUsage| epoch < s.row.end_epoch && Stage::of(&s.row) != Stage::Gone;
        self.all.iter().filter(running).map(|s| s.load).sum()
    }

    fn holds(&self, provider: &Account) -> bool {
        let view = &self.views[provider];
        view.provider.leaves_at == 0 && view.reputation.jailed_until == 0
    }

    /// The index of the agreement to which data of the one at `old` moves.
    fn successor(&self, old: usize, epoch: u64, away: bool) -> Option<usize> {
        let from = &self.all[old].row;
        let takes = |s: &AgreementUsage| {
            let provider = s.row.id.provider;
            let with = if away { provider != from.id.provider } else { provider == from.id.provider };
            let later = if away {
                Stage::of(&s.row) == Stage::Open && !is_old(&s.row, epoch, &P)
            } else {
                takes_over(&s.row, from, epoch, &P)
            };
            with && later && self.holds(&provider) && room(s) > 0
        };
        (0..self.all.len())
            .filter(|at| *at != old && takes(&self.all[*at]))
            .max_by_key(|at| room(&self.all[*at]))
    }

    fn shift(&mut self, from: usize, to: usize) {
        let moved = self.pace.min(room(&self.all[to])).min(self.all[from].load);
        self.all[from].load -= moved;
        self.all[to].load += moved;
        for at in [from, to] {
            let load = self.all[at].load;
            (self.all[at].empty, self.all[at].live) = (load == 0, load);
        }
    }

    fn epoch(&mut self, epoch: u64) {
        let (policy, posted) = (Policy::of(&P), at(epoch, self.price));
        let asked = wanted(&self.views, &BTreeSet::new(), &self.all, (&policy, 0), &posted, &P);
        for at in 0..self.all.len() {
            let it = self.all[at].clone();
            let old = is_old(&it.row, epoch, &P);
            let successor =
                old && self.holds(&it.row.id.provider) && self.successor(at, epoch, false).is_some();
            let around = Around {
                successor,
                idle: false,
                kept: false,
                leaves: false,
                egress_price: posted.prices[Class::Egress].price,
            };
            let (step, away) = judge(&it, epoch, around, &policy, &P);
            match step {
                AgreementStep::Drain => self.all[at].row.stage = Stage::Draining as u8,
                AgreementStep::Close => self.all[at].row.stage = Stage::Closing as u8,
                AgreementStep::Forget => {
                    assert_eq!(it.load, 0, "epoch {epoch}: what is in force is forgotten");
                    self.all[at].row.stage = Stage::Gone as u8;
                }
                AgreementStep::Nothing | AgreementStep::TopUp(_) => {}
            }
            if Stage::of(&self.all[at].row) == Stage::Draining
                && let Some(to) = self.successor(at, epoch, away)
            {
                self.shift(at, to);
            }
        }
        for (provider, opens) in asked {
            for open in opens {
                let mut new = usage_of(provider.0[0], self.all.len() as u32, open.quota[Class::Storage], 0);
                new.row.id.opened = posted.height;
                (new.row.end_epoch, new.row.quota_egress) = (open.end_epoch, open.quota[Class::Egress]);
                self.all.push(new);
            }
        }
    }
}

#[test]
fn what_is_held_outlives_its_agreements_whatever_their_load() {
    let quota = 1 << 16;
    type Spoils = fn(&mut Years);
    let cases: [(&str, u64, u64, Spoils); 7] = [
        ("full", quota, 1, |_| ()),
        ("nearly full", quota * 3 / 4, 1, |_| ()),
        ("nearly empty", 1 << 10, 1, |_| ()),
        ("its egress is spent", quota, 1, |years| {
            years.all.iter_mut().for_each(|s| s.egress = s.row.quota_egress)
        }),
        ("prices are five times what they were", quota, 5, |_| ()),
        ("two providers are in jail", quota, 1, |years| {
            for id in [3, 7] {
                years.views.get_mut(&account(id)).expect("there").reputation.jailed_until = u64::MAX;
            }
        }),
        ("a provider sells no more egress", quota, 1, |years| {
            years.views.get_mut(&account(4)).expect("there").provider.sold[Class::Egress] = 1 << 30;
        }),
    ];
    for (what, load, price, spoil) in cases {
        let views = (0..10u8).map(|i| (account(i), change(|v| v.provider.index = i.into()))).collect();
        let all = (0..10u8).map(|i| usage_of(i, i.into(), quota, load)).collect();
        let mut years = Years { views, all, price: 1, pace: 1 << 13 };
        for epoch in 0..1_500 {
            if epoch == 500 {
                spoil(&mut years);
                years.price = price;
            }
            years.epoch(epoch);
            assert_eq!(years.held(epoch), 10 * load, "{what}: epoch {epoch}");
        }
    }
}
