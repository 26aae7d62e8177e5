//! Quotas that follow the load, and their cost.

mod barred;
mod urgent;
mod years;

use super::*;
use crate::{
    agreement::state::leaves,
    auditor::{
        self,
        state::{GROUP_EPOCHS, LEAD_EPOCHS},
    },
    catalogue::row::OwnAgreementRow,
    sample::state::SAMPLES,
};
use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use posync_protocol::{
    AgreementId, Bounded, Hash,
    agreement::{check, deposit, locked, storage_reserve, unused},
    amount::ONE,
    limits::AUDIT_READ_BYTES,
    operation::Voucher,
    record::{Agreement, Audit, Measured, Offer, Provider, Reputation, Usage},
};

const P: Parameters = Parameters::LOCAL;
const CHAIN: Hash = [7; 32];
const MIB: u64 = 1 << 20;
/// As a gateway stores a file: segments of 4 MiB in eight shards, of which six are waited for.
const SEGMENT_BYTES: u64 = 4 << 20;
const SHARDS: usize = 8;
const ACKNOWLEDGE_SHARDS: usize = 6;

fn posted() -> Posted {
    let pair = |price: u128| Pair { price: price as u64, slow: price as u64 };
    let prices = P.prices.map(pair);
    Posted { prices, balance: Amount::sync(1_000_000), height: 1 }
}

fn view() -> View {
    let offer = Offer {
        operator: [0; 32],
        capacity: PerClass::new(1 << 23, 1 << 30, 0),
        reserve: PerClass::all(0),
        term_max: 720,
        region: Bounded::default(),
    };
    let provider = Provider { bond: Amount::sync(1_000), ..Provider::default() };
    let (audit, reputation) = (Audit::default(), Reputation::newborn(0));
    View { offer, provider, audit, reputation, measured: None, barred: false }
}

fn account(id: u8) -> Account {
    Account([id; 32])
}

fn usage_of(provider: u8, number: u32, leaves: u64, load: u64) -> AgreementUsage {
    let row = OwnAgreementRow {
        id: AgreementId { provider: account(provider), slot: number, opened: 1 },
        stage: Stage::Open as u8,
        end_epoch: 720,
        quota_leaves: leaves,
        quota_egress: 4 * LEAF_BYTES * leaves,
        voucher_reserve: Amount::sync(1),
        egress_price: P.prices[Class::Egress] as u64,
        rate_egress: Default::default(),
    };
    AgreementUsage {
        number,
        row,
        load,
        egress: 0,
        pace: 0,
        empty: load == 0,
        live: load,
        coming: false,
        refuses: false,
        unknown: false,
        idle: 0,
    }
}

fn leaves_of(quotas: &[Quota]) -> Vec<u64> {
    quotas.iter().map(|quota| quota.leaves).collect()
}

#[test]
fn quotas_begin_small_and_double_with_the_load() {
    let policy = Policy::of(&P);
    let first = policy.first.leaves;
    assert_eq!((first, policy.first.egress), (1 << 13, 32 * MIB));
    let asks = |mine: &[AgreementUsage], demand, epoch| {
        leaves_of(&policy.openings(&mine.iter().collect::<Vec<_>>(), demand, epoch, &P))
    };
    let held = |leaves, load| usage_of(1, 0, leaves, load);
    let old = |load| AgreementUsage {
        row: OwnAgreementRow { end_epoch: 100, ..held(first, 0).row },
        ..held(1 << 20, load)
    };
    for (what, mine, demand, epoch, expected) in [
        ("none", vec![], 0, 0, vec![first]),
        ("below three quarters", vec![held(first, first * 3 / 4 - 1)], 0, 0, vec![]),
        ("three quarters", vec![held(first, first * 3 / 4)], 0, 0, vec![2 * first]),
        ("the newest is fresh", vec![held(first, first), held(2 * first, 9)], 0, 0, vec![]),
        ("full twice", vec![held(first, first), held(2 * first, 2 * first)], 0, 0, vec![4 * first]),
        ("more is on its way than there is room", vec![held(first, 0)], first + 1, 0, vec![2 * first]),
        ("it fits", vec![held(first, 0)], first, 0, vec![]),
        ("much is on its way", vec![], 7 * first, 0, vec![first, 2 * first, 4 * first]),
        ("a lie is on its way", vec![], u64::MAX, 0, (0..6).map(|i| first << i).collect()),
        ("old and little used", vec![old(5)], 0, 80, vec![first]),
        ("old and used", vec![old(3 * first)], 0, 80, vec![8 * first]),
        ("at the bound", vec![held(1 << 21, 1 << 21)], 0, 0, vec![1 << 21]),
    ] {
        assert_eq!(asks(&mine, demand, epoch), expected, "{what}");
    }
    let mut read = held(first, 0);
    read.egress = 24 * MIB;
    let more = policy.openings(&[&read], 0, 0, &P);
    assert_eq!(more, [Quota { leaves: 0, egress: 48 * MIB }], "reading needs no room");
}

#[test]
fn egress_is_extended_before_it_is_spent_at_the_pace_of_the_reads() {
    let policy = Policy::of(&P);
    let reads = |egress: u64, pace: u64| {
        let it = AgreementUsage { egress: egress * MIB, pace: pace * MIB, ..usage_of(1, 0, 1 << 13, 9) };
        policy.openings(&[&it], 0, 0, &P).iter().map(|quota| quota.egress / MIB).collect::<Vec<_>>()
    };
    // The first quota is 32 MiB.
    for (egress, pace, opened) in [
        (8, 0, vec![]),
        (8, 1, vec![]),
        (16, 1, vec![]),
        (17, 1, vec![34]),
        (4, 4, vec![128]),
        (10, 100, vec![3_200]),
        (24, 0, vec![48]),
    ] {
        assert_eq!(reads(egress, pace), opened, "{egress} MiB read, {pace} since the last look");
    }
}

/// Ten restarts of a network cost every provider a few draws. No data was lost, and the egress of their
/// agreements is used up: reading must still be possible.
#[test]
fn who_missed_draws_is_still_read_and_gets_no_new_data() {
    let policy = Policy::of(&P);
    let missed = || change(|v| (v.audit.drawn, v.audit.history) = (64, u64::MAX << 10));
    let reading = Quota { leaves: 0, ..policy.first };
    assert!(policy.open(&missed(), reading, &posted(), &P).is_some());
    assert_eq!(policy.open(&missed(), policy.first, &posted(), &P), None);
    let spent = AgreementUsage { egress: 32 * MIB, ..usage_of(1, 0, 1 << 13, 9) };
    let opens = asked(missed(), &[spent], 0, &posted());
    assert_eq!(
        opens.iter().map(|open| (open.quota[Class::Storage], open.quota[Class::Egress])).collect::<Vec<_>>(),
        [(0, 64 * MIB)]
    );
}

#[test]
fn who_only_reads_holds_no_leaves_and_what_it_reads() {
    let policy = Policy::to_read(&P, auditor::state::READ_EPOCHS, auditor::state::READ_BYTES);
    let asks = |mine: &[AgreementUsage]| policy.openings(&mine.iter().collect::<Vec<_>>(), 0, 0, &P);
    assert_eq!(asks(&[]), [Quota { leaves: 0, egress: 19 * MIB / 4 }]);
    let mut reading = usage_of(1, 0, 0, 0);
    (reading.row.quota_egress, reading.row.end_epoch) = (policy.first.egress, 32);
    assert_eq!(asks(&[reading.clone()]), []);
    reading.egress = policy.first.egress * 3 / 4;
    assert_eq!(asks(&[reading]), [Quota { leaves: 0, egress: policy.first.egress * 3 / 2 }]);
}

#[test]
fn ten_providers_have_what_they_need() {
    let policy = Policy::of(&P);
    let views: BTreeMap<_, _> = (0..14).map(|i| (account(i), view())).collect();
    let want = |needed: &BTreeSet<Account>, mine: &[AgreementUsage]| -> Vec<Account> {
        let all = wanted(&views, needed, mine, (&policy, 0), &posted(), &P);
        all.into_iter().map(|(account, _)| account).collect()
    };
    let none = BTreeSet::new();
    assert_eq!(want(&none, &[]).len(), 10);
    let fresh: Vec<_> = (0..10).map(|i| usage_of(i, i.into(), 1 << 13, 0)).collect();
    assert_eq!(want(&none, &fresh), []);
    assert_eq!(want(&none, &fresh[..9]), [account(9)]);
    let mut full = fresh[1..].to_vec();
    full[4].load = 1 << 13;
    assert_eq!(want(&none, &full), [account(5), account(0)], "known providers first");
    let needed = BTreeSet::from([12, 3, 99].map(account));
    assert_eq!(want(&needed, &fresh), [account(12)], "what is needed and not there yet, of those who exist");
}

#[test]
fn providers_with_which_the_account_cannot_pay_for_an_agreement_are_counted() {
    let policy = Policy::of(&P);
    let views: BTreeMap<_, _> = (0..14).map(|i| (account(i), view())).collect();
    let count = |balance| {
        let (posted, none) = (Posted { balance, ..posted() }, BTreeSet::new());
        unpaid(&views, (&none, &none), &[], (&policy, 0), &posted, &P)
    };
    assert_eq!((count(posted().balance), count(Amount::ZERO)), (0, 10));
    let fresh: Vec<_> = (0..10).map(|i| usage_of(i, i.into(), 1 << 13, 0)).collect();
    let (none, needed) = (Posted { balance: Amount::ZERO, ..posted() }, BTreeSet::new());
    assert_eq!(unpaid(&views, (&needed, &needed), &fresh, (&policy, 0), &none, &P), 0, "none is needed");
}

#[test]
fn an_opening_that_is_under_way_or_in_doubt_is_not_taken_for_a_lack_of_money() {
    let policy = Policy::of(&P);
    let views: BTreeMap<_, _> = (0..14).map(|i| (account(i), view())).collect();
    let none = BTreeSet::new();
    let all = wanted(&views, &none, &[], (&policy, 0), &posted(), &P);
    let costs: Vec<u128> = all
        .iter()
        .map(|(account, opens)| {
            opens.iter().map(|open| cost(open, &views[account], &posted(), &P).grains()).sum()
        })
        .collect();
    let count = |opening: &BTreeSet<Account>, balance: u128| {
        let posted = Posted { balance: Amount::new(balance).expect("in range"), ..posted() };
        unpaid(&views, (&none, opening), &[], (&policy, 0), &posted, &P)
    };
    // The ledger has taken the money for all ten, and none of the agreements is taken up yet.
    let opening: BTreeSet<Account> = all.iter().map(|(account, _)| *account).collect();
    assert_eq!((count(&none, 0), count(&opening, 0)), (10, 0));
    // The money of the others is there: those under way are not paid for twice.
    let first: BTreeSet<Account> = all.iter().take(7).map(|(account, _)| *account).collect();
    let rest: u128 = costs[7..].iter().sum();
    assert_eq!(count(&first, rest), 0);
    assert_eq!(count(&first, rest - 1), 1, "and what is short is counted all the same");
}

fn change(f: impl FnOnce(&mut View)) -> View {
    let mut view = view();
    f(&mut view);
    view
}

#[test]
fn only_what_the_ledger_accepts_is_asked_for() {
    let policy = Policy::of(&P);
    let measured = |taken, rates| Some(Measured { taken, epochs: [3, 2, 1], rates });
    for (what, view, term) in [
        ("with room", view(), Some(720)),
        ("the offer's longest term", change(|v| v.offer.term_max = 40), Some(40)),
        ("a term not worth it", change(|v| v.offer.term_max = 7), None),
        ("one leaf short", change(|v| v.provider.sold[Class::Storage] = (1 << 23) - (1 << 13) + 1), None),
        ("exactly full", change(|v| v.provider.sold[Class::Storage] = (1 << 23) - (1 << 13)), Some(720)),
        ("leaving", change(|v| v.provider.leaves_at = 7), None),
        ("suspended", change(|v| v.reputation.suspended = 3), None),
        ("in jail", change(|v| v.reputation.jailed_until = 9), None),
        (
            "dearer storage",
            change(|v| v.offer.reserve[Class::Storage] = P.prices[Class::Storage] as u64 + 1),
            None,
        ),
        (
            "dearer egress",
            change(|v| v.offer.reserve[Class::Egress] = P.prices[Class::Egress] as u64 + 1),
            None,
        ),
        ("all egress sold", change(|v| v.provider.sold[Class::Egress] = 1 << 30), None),
        ("egress measured away", change(|v| v.measured = measured(3, [0, 9, 0])), None),
        ("measured twice", change(|v| v.measured = measured(2, [0; 3])), Some(720)),
        ("one of ten reads failed", change(|v| (v.audit.drawn, v.audit.history) = (10, 0x3fe)), Some(720)),
        ("one of nine failed", change(|v| (v.audit.drawn, v.audit.history) = (9, 0x1fe)), None),
        ("all of 64 passed", change(|v| (v.audit.drawn, v.audit.history) = (900, u64::MAX)), Some(720)),
    ] {
        let open = policy.open(&view, policy.first, &posted(), &P);
        assert_eq!(open.map(|open| open.end_epoch), term, "{what}");
    }
    let dear = |class: Class| {
        let mut posted = posted();
        posted.prices[class].price = policy.price_max[class] + 1;
        policy.open(&view(), policy.first, &posted, &P)
    };
    assert_eq!([dear(Class::Storage), dear(Class::Egress)], [None, None], "above what we pay");
    let mut dear = posted();
    dear.prices[Class::Compute].price = u64::MAX;
    assert!(policy.open(&view(), policy.first, &dear, &P).is_some(), "no gas is bought");
    let poor = Posted { balance: Amount::sync(0), ..posted() };
    assert_eq!(policy.open(&view(), policy.first, &poor, &P), None, "no money");
    let reader = Policy::to_read(&P, 32, 4 * MIB);
    let mut dear = posted();
    dear.prices[Class::Storage].price = policy.price_max[Class::Storage] + 1;
    assert!(reader.open(&view(), reader.first, &dear, &P).is_some(), "who stores nothing pays for no leaves");
}

#[test]
fn an_agreement_asks_for_a_sixteenth_of_the_egress_that_is_free() {
    let policy = Policy::of(&P);
    let large = Quota { leaves: 0, egress: 64 << 30 };
    let measured = |rates| Some(Measured { taken: 3, epochs: [3, 2, 1], rates });
    for (declared, sold, rates, expected) in [
        (1 << 40, 0, None, Some(64 << 30)),
        (80 * MIB, 0, None, Some(720 * 5 * MIB)),
        (80 * MIB, 48 * MIB, None, Some(720 * 2 * MIB)),
        (40 * MIB, 0, Some([16 * MIB, 8 * MIB, 17 * MIB]), Some(720 * MIB)),
        (40 * MIB, 20 * MIB, Some([8 * MIB; 3]), None),
        (0, 0, None, None),
    ] {
        let view = change(|v| {
            (v.offer.capacity[Class::Egress], v.provider.sold[Class::Egress]) = (declared, sold);
            v.measured = rates.and_then(measured);
        });
        let open = policy.open(&view, large, &posted(), &P);
        assert_eq!(open.map(|open| open.quota[Class::Egress]), expected, "{declared} {sold} {rates:?}");
    }
}

#[test]
fn an_idle_agreement_is_closed_unless_it_is_a_first_one() {
    let policy = Policy::of(&P);
    let idle = |it: AgreementUsage| AgreementUsage { idle: IDLE_EPOCHS, ..it };
    let first = || idle(usage_of(1, 0, 1 << 13, 0));
    let second = || idle(usage_of(1, 1, 1 << 14, 0));
    let is_idle = |it: &AgreementUsage, mine: &[AgreementUsage]| {
        policy.is_idle(it, &mine.iter().collect::<Vec<_>>(), 20, &P)
    };
    let pair = [first(), second()];
    assert_eq!([is_idle(&pair[0], &pair), is_idle(&pair[1], &pair)], [false, true]);
    let used = AgreementUsage { idle: IDLE_EPOCHS - 1, ..second() };
    assert!(!is_idle(&used, &[first(), used.clone()]), "a moment ago something was there");
    assert!(is_idle(&second(), &[second()]), "a large one gives way to a first one");
    let again = AgreementUsage { number: 2, ..first() };
    assert!(is_idle(&again, &[first(), again.clone()]), "one of them is enough");
    let spent = AgreementUsage { egress: 24 * MIB, ..first() };
    let mut more = idle(usage_of(1, 3, 0, 0));
    more.row.quota_egress = 48 * MIB;
    assert!(!is_idle(&more, &[spent.clone(), more.clone()]), "the same would be opened again");
    assert!(is_idle(&more, &[first(), more.clone()]), "the first one suffices again");
    let reader = Policy::to_read(&P, 32, 4 * MIB);
    let read = idle(usage_of(1, 0, 0, 0));
    assert!(!reader.is_idle(&read, &[&read], 20, &P), "with whom there is nothing to read yet");
}

/// The agreement that a policy's first opening results in.
fn opened(policy: &Policy) -> (Open, Agreement) {
    let open = policy.open(&view(), policy.first, &posted(), &P).expect("accepted");
    (open.clone(), terms(&account(9), &open, posted().prices, posted().height))
}

/// Grains that an idle agreement burns in an epoch: a tenth of the price of its leaves, and of its egress
/// spread over its term (AG-7).
fn idle_burn(policy: &Policy) -> u64 {
    let (open, agreement) = opened(policy);
    let epoch = P.epoch_rounds;
    let whole =
        storage_reserve(agreement.prices[Class::Storage].price, open.quota[Class::Storage], epoch, &P)
            .expect("small");
    let window = storage_reserve(agreement.prices[Class::Storage].price, open.quota[Class::Storage], 0, &P)
        .expect("small");
    let leaves = (whole.grains() - window.grains()) * u128::from(P.reserve_share) / u128::from(ONE);
    let usage = Usage { deposit: deposit(&agreement, &P).expect("small"), ..Usage::default() };
    let at = |round: u64| unused(&agreement, &usage, round, &P).grains();
    u64::try_from(leaves + at(21 * epoch) - at(20 * epoch)).expect("small")
}

#[test]
fn ten_idle_agreements_burn_next_to_nothing() {
    let gateway = Policy::of(&P);
    let auditor = Policy::to_read(&P, auditor::state::READ_EPOCHS, auditor::state::READ_BYTES);
    // 39,062 for 8 MiB of leaves and 4,444 for 32 MiB of egress in 720 epochs.
    assert_eq!(10 * idle_burn(&gateway), 10 * 43_506);
    // 4.75 MiB of egress in 32 epochs.
    assert_eq!(10 * idle_burn(&auditor), 10 * 14_843);
    // Half a GiB of leaves, and all the egress there is: 2.5 and 6.4 million grains an epoch, each.
    let before = Policy { first: Quota { leaves: 1 << 19, egress: 64 << 30 }, ..gateway.clone() };
    assert!(idle_burn(&before) > 200 * idle_burn(&gateway));
    // A reading account locks so little that one transfer is enough for a thousand providers.
    let (open, agreement) = opened(&auditor);
    let locks = locked(&agreement, &view().provider, &P);
    let all = locks.storage.grains() + locks.deposit.grains() + open.voucher_reserve.grains();
    assert!(all < 20_000_000, "{all}");
}

/// A file that is put to ten providers with a first agreement each: how many segments fit, look by look,
/// before new agreements are open.
struct Filling {
    views: BTreeMap<Account, View>,
    usages: Vec<AgreementUsage>,
    /// Looks in which the put had to wait for room.
    waits: u32,
}

impl Filling {
    /// Places the segments that arrive between two looks: 100 MB, or as many as six of ten providers have
    /// room for.
    fn arrive(&mut self, segments: &mut u32, shard: u64) {
        for _ in 0..(*segments).min(25) {
            let turn = *segments;
            let mut roomy: Vec<usize> = (0..10u32)
                .filter_map(|i| {
                    let provider = account(((i + turn) % 10) as u8);
                    self.usages
                        .iter()
                        .position(|s| s.row.id.provider == provider && s.load + shard <= s.row.quota_leaves)
                })
                .collect();
            if roomy.len() < ACKNOWLEDGE_SHARDS {
                self.waits += 1;
                return;
            }
            roomy.truncate(SHARDS);
            roomy.into_iter().for_each(|place| self.usages[place].load += shard);
            *segments -= 1;
        }
    }

    /// Puts a file; agreements requested at one look are open at the next.
    fn put(&mut self, bytes: u64, policy: &Policy) {
        let mut segments = u32::try_from(bytes.div_ceil(SEGMENT_BYTES)).expect("not too large");
        let shard = leaves(SHARD_BYTES as u64);
        while segments > 0 {
            let demand = (u64::from(segments) * SHARDS as u64 * shard).div_ceil(10);
            let none = BTreeSet::new();
            let asked = wanted(&self.views, &none, &self.usages, (policy, demand), &posted(), &P);
            self.arrive(&mut segments, shard);
            for (account, open) in
                asked.into_iter().flat_map(|(account, all)| all.into_iter().map(move |o| (account, o)))
            {
                let number = self.usages.len() as u32;
                self.usages.push(usage_of(account.0[0], number, open.quota[Class::Storage], 0));
            }
        }
    }

    fn with(&self, provider: u8) -> Vec<u64> {
        let of = self.usages.iter().filter(|s| s.row.id.provider == account(provider));
        of.map(|s| s.row.quota_leaves).collect()
    }
}

#[test]
fn a_file_of_a_gib_opens_agreements_that_double_and_waits_for_one_opening() {
    let policy = Policy::of(&P);
    let first = policy.first.leaves;
    let mut filling = Filling {
        views: (0..10).map(|i| (account(i), view())).collect(),
        usages: (0..10).map(|i| usage_of(i, i.into(), first, 0)).collect(),
        waits: 0,
    };
    filling.put(1 << 30, &policy);
    assert!(filling.waits <= 1, "{}", filling.waits);
    let doubled = |count: u32| (0..count).map(|i| first << i).collect::<Vec<_>>();
    // A fifth of a gibibyte with each: below 2^5 times 8 MiB.
    (0..10).for_each(|i| assert_eq!(filling.with(i), doubled(5), "provider {i}"));
    let reserved: u64 = filling.usages.iter().map(|s| s.row.quota_leaves).sum();
    let used: u64 = filling.usages.iter().map(|s| s.load).sum();
    assert!(used * 5 >= reserved * 4, "little of it is paid for nothing: {used} of {reserved}");
    filling.put(1 << 30, &policy);
    assert!(filling.waits <= 2, "{}", filling.waits);
    (0..10).for_each(|i| assert_eq!(filling.with(i), doubled(6), "provider {i}, after the second"));
}

#[test]
fn what_an_auditor_reads_is_paid_in_full_so_that_it_backs_its_reports() {
    let policy = Policy::to_read(&P, auditor::state::READ_EPOCHS, auditor::state::READ_BYTES);
    let key = PrivateKey::from_seed(3);
    for rise in [0, P.prices[Class::Egress] as u64 / 8] {
        // The price may rise by an eighth before the opening is executed.
        let (open, mut agreement) = opened(&policy);
        agreement.prices[Class::Egress].price += rise;
        agreement.session_key = Account::of(&key.public_key());
        let id = AgreementId { provider: account(1), slot: 0, opened: agreement.opened };
        let voucher = Voucher::signed(&key, &CHAIN, id, Units::egress(open.quota[Class::Egress]));
        let usage = Usage { voucher_reserve: open.voucher_reserve, ..Usage::default() };
        let round = 20 * P.epoch_rounds;
        let delta = check(&agreement, &usage, &voucher, &agreement.session_key, round, &P).expect("paid");
        assert_eq!(
            delta.units.egress,
            open.quota[Class::Egress],
            "units count as far as they were paid (VO-3)"
        );
        assert_eq!(Some(delta.fee), floor(agreement.prices[Class::Egress].price, open.quota[Class::Egress]));
        let reads = SAMPLES * (GROUP_EPOCHS + LEAD_EPOCHS);
        assert!(reads * AUDIT_READ_BYTES <= delta.units.egress, "every correct read backs a report (SQ-5)");
    }
}

fn floor(price: u64, bytes: u64) -> Option<Amount> {
    Amount::new(u128::from(price) * u128::from(bytes) / UNIT)
}

/// Six agreements of one upload become old together. Once their provider had room for all
/// their data, but the gateway asked for twice as much in one piece, or for nothing.
#[test]
fn what_is_held_is_renewed_where_there_is_room_for_it() {
    let policy = Policy::of(&P);
    // A provider of 1 GiB; 504 MiB are sold to us, 520 MiB are free.
    let mine: Vec<AgreementUsage> = (0..6).map(|i| usage_of(1, i, 1 << (13 + i), 1 << (13 + i))).collect();
    let sold: u64 = mine.iter().map(|s| s.row.quota_leaves).sum();
    let (held, capacity) = (sold, 1 << 20);
    assert!(capacity - sold >= held, "{sold}");
    let full = change(|v| {
        (v.offer.capacity[Class::Storage], v.provider.sold[Class::Storage], v.provider.slots) =
            (capacity, sold, 6)
    });
    let views = BTreeMap::from([(account(1), full)]);
    let epoch = |epoch: u64| Posted { height: epoch * P.epoch_blocks(), ..posted() };
    let asked = |at: u64| wanted(&views, &BTreeSet::new(), &mine, (&policy, 0), &epoch(at), &P);
    let never = (540..720).all(|at| asked(at).is_empty());
    assert!(!never, "from three quarters of the term to its end nothing is opened: all of it is lost");
}

/// Once room in an older agreement counted as room for the data of an old one, but shards
/// moved only to the newest. Room is now defined by [`takes_over`], and [`super::super::renew`] moves to
/// it.
#[test]
fn what_is_old_has_somewhere_to_go() {
    let policy = Policy::of(&P);
    let first = 1 << 13;
    let of = |number: u32, leaves: u64, load: u64, end_epoch: u64| {
        let it = usage_of(1, number, leaves, load);
        let opened = (end_epoch - 720) * P.epoch_blocks() + 1;
        let id = AgreementId { opened, ..it.row.id };
        AgreementUsage { row: OwnAgreementRow { end_epoch, id, ..it.row }, ..it }
    };
    // The second has room because files were removed; the third was full before.
    let mine = [of(0, first, first, 720), of(1, 2 * first, first / 2, 920), of(2, 4 * first, 4 * first, 930)];
    let all: Vec<&AgreementUsage> = mine.iter().collect();
    for epoch in [540, 600, 680] {
        let takes = |s: &&AgreementUsage| takes_over(&s.row, &mine[0].row, epoch, &P);
        let room: u64 = mine.iter().filter(takes).map(|s| s.row.quota_leaves - s.load).sum();
        let opened: u64 = policy.openings(&all, 0, epoch, &P).iter().map(|quota| quota.leaves).sum();
        assert!(
            room + opened >= first,
            "epoch {epoch}: {room} leaves of room, {opened} opened, {first} to move"
        );
    }
    let full = |it: &AgreementUsage| AgreementUsage { load: it.row.quota_leaves, ..it.clone() };
    let mut ends_before = usage_of(1, 3, 8 * first, 0);
    ends_before.row.id.opened = 500 * P.epoch_blocks();
    ends_before.row.end_epoch = 719;
    let all = [mine[0].clone(), full(&mine[1]), full(&mine[2]), ends_before];
    let all: Vec<&AgreementUsage> = all.iter().collect();
    let opened: u64 = policy.openings(&all, 0, 540, &P).iter().map(|quota| quota.leaves).sum();
    assert!(opened >= first, "room that ends first is no room for a move");
}

/// Once, with more providers in use than the policy names, one that needed a renewal did not
/// get it.
#[test]
fn whom_we_use_beyond_the_number_is_renewed_too() {
    let policy = Policy::of(&P);
    let views: BTreeMap<_, _> = (0..11).map(|i| (account(i), view())).collect();
    let old = |it: AgreementUsage| AgreementUsage { row: OwnAgreementRow { end_epoch: 720, ..it.row }, ..it };
    let fresh = |i: u8| {
        let it = usage_of(i, i.into(), 1 << 13, 9);
        AgreementUsage {
            row: OwnAgreementRow {
                end_epoch: 1_300,
                id: AgreementId { opened: 580 * P.epoch_blocks(), ..it.row.id },
                ..it.row
            },
            ..it
        }
    };
    let mut mine: Vec<AgreementUsage> = (0..10).map(fresh).collect();
    mine.push(old(usage_of(10, 10, 1 << 13, 1 << 12)));
    let at = Posted { height: 600 * P.epoch_blocks(), ..posted() };
    let asked = wanted(&views, &BTreeSet::new(), &mine, (&policy, 0), &at, &P);
    assert_eq!(asked.into_iter().map(|(who, _)| who).collect::<Vec<_>>(), [account(10)]);
}

/// An agreement that is old at epoch 600 and holds half of a first quota.
fn ending(number: u32) -> AgreementUsage {
    let it = usage_of(1, number, 1 << 13, 1 << 12);
    AgreementUsage { row: OwnAgreementRow { end_epoch: 720, ..it.row }, ..it }
}

fn at(epoch: u64, times: u64) -> Posted {
    let mut posted = Posted { height: epoch * P.epoch_blocks(), ..posted() };
    posted.prices =
        posted.prices.map(|Pair { price, slow }| Pair { price: price * times, slow: slow * times });
    posted
}

/// The openings with provider 1 for the data that it holds for us.
fn asked(view: View, mine: &[AgreementUsage], demand: u64, posted: &Posted) -> Vec<Open> {
    let views = BTreeMap::from([(account(1), view)]);
    let all = wanted(&views, &BTreeSet::new(), mine, (&Policy::of(&P), demand), posted, &P);
    all.into_iter().flat_map(|(_, opens)| opens).collect()
}

#[test]
fn what_is_held_is_renewed_at_any_price_that_can_be_paid() {
    for times in [1, 4, 5, 100] {
        let opens = asked(view(), &[ending(0)], 0, &at(600, times));
        let held: u64 = opens.iter().map(|open| open.quota[Class::Storage]).sum();
        assert!(held >= 1 << 12, "{times} times the genesis price: {held}");
        let dear = P.prices[Class::Storage] as u64 * times;
        assert!(
            opens.iter().all(|open| open.price_max[Class::Storage] > dear || times == 4),
            "{times}: it may rise"
        );
    }
    assert_eq!(asked(view(), &[], 1 << 20, &at(600, 5)), [], "new data has its highest price");
    assert_eq!(
        asked(view(), &[ending(0)], 1 << 20, &at(600, 5)).len(),
        1,
        "the demand waits, what is held does not"
    );
    let poor = Posted { balance: Amount::sync(0), ..at(600, 5) };
    assert_eq!(asked(view(), &[ending(0)], 0, &poor), [], "the ledger would refuse it, for a fee");
}

#[test]
fn what_is_held_is_renewed_where_all_egress_is_sold() {
    let sold_out = || change(|v| v.provider.sold[Class::Egress] = 1 << 30);
    let opens = asked(sold_out(), &[ending(0)], 0, &at(600, 1));
    assert_eq!(
        opens.iter().map(|open| (open.quota[Class::Storage], open.quota[Class::Egress])).collect::<Vec<_>>(),
        [(1 << 13, 0)]
    );
    assert_eq!(asked(sold_out(), &[], 0, &at(600, 1)), [], "new data is to be read again");
}

#[test]
fn growth_that_does_not_fit_in_one_piece_comes_in_smaller_ones() {
    let full = |number, leaves| usage_of(1, number, leaves, leaves);
    let mine = [full(0, 1 << 13), full(1, 1 << 14), full(2, 1 << 15)];
    // The next would be 2^16; three first quotas are free.
    let narrow = change(|v| v.provider.sold[Class::Storage] = (1 << 23) - 3 * (1 << 13));
    let opens = asked(narrow.clone(), &mine, 0, &posted());
    assert_eq!(opens.iter().map(|open| open.quota[Class::Storage]).collect::<Vec<_>>(), [1 << 14]);
    let opens = asked(narrow, &mine, 1 << 18, &posted());
    let sum: u64 = opens.iter().map(|open| open.quota[Class::Storage]).sum();
    assert_eq!(sum, 3 << 13, "all that is free, and no more");
}

#[test]
fn an_opening_locks_what_is_reckoned_with_slack_for_the_price() {
    let policy = Policy::of(&P);
    let most = Quota::to_hold(P.quota_max[Class::Storage], policy.most);
    for times in [1, 3] {
        let posted = at(1, times);
        let open = policy.open(&view(), most, &posted, &P).expect("accepted");
        let needed = |posted: &Posted| locked(&agreement(&open, posted), &view().provider, &P).storage;
        let mut risen = posted;
        risen.prices[Class::Storage].price += risen.prices[Class::Storage].price / 8;
        assert!(needed(&risen) <= open.storage_reserve_max, "it may rise by an eighth");
        assert!(open.storage_reserve_max.grains() <= needed(&posted).grains() * 5 / 4);
    }
}

#[test]
fn what_a_new_agreement_would_not_outlive_is_not_renewed_again_and_again() {
    let short = || change(|v| v.offer.term_max = 40);
    let opened = |number| {
        let it = usage_of(1, number, 1 << 13, 0);
        let id = AgreementId { opened: 600 * P.epoch_blocks(), ..it.row.id };
        AgreementUsage { row: OwnAgreementRow { end_epoch: 640, id, ..it.row }, ..it }
    };
    assert_eq!(asked(short(), &[ending(0), opened(1)], 0, &at(601, 1)), []);
    assert_eq!(asked(short(), &[ending(0)], 0, &at(690, 1)).len(), 1, "once it would");
}

#[test]
fn agreements_of_one_gateway_do_not_end_together() {
    let policy = Policy::of(&P);
    let ends = |term: u32| -> Vec<u64> {
        let of = |index| change(|v| (v.provider.index, v.offer.term_max) = (index, term));
        let open = |index| policy.open(&of(index), policy.first, &posted(), &P);
        (0..10).map(|index| open(index).expect("accepted").end_epoch).collect()
    };
    let of_720 = ends(720);
    let apart: BTreeSet<u64> = of_720.iter().copied().collect();
    assert_eq!((apart.len(), of_720[0]), (10, 720), "{of_720:?}");
    assert!(of_720.iter().all(|end| *end > 720 * 7 / 8), "a term is hardly shorter: {of_720:?}");
    assert!(ends(40).iter().collect::<BTreeSet<_>>().len() > 2);
    assert!(ends(8).iter().all(|end| *end == 8), "a short one is not cut");
}
