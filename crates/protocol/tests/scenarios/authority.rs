//! Authorities: seats are paid by credits, and lose their bond if they sign against themselves.

use crate::{
    audits::holding,
    books::run_to,
    samples::header,
    script::Stage,
    world::{World, account},
};
use posync_protocol::{
    Account, Amount, Bounded, Record,
    amount::ONE,
    block::Header,
    economics::slash,
    ledger::{Event, ReputationReason, ReputationStep},
    limits::Parameters,
    operation::{Evidence, Proposals},
    record::{Books, Closing, Offences, Reputation, Seat, SeatAt},
};
use proptest::prelude::*;

pub(crate) const ACCEPTED: &str = "
    a evidence s
    a evidence t view=1
    epoch 1
    b evidence s
    b evidence u term=0
";

pub(crate) const REFUSED: &str = "
    a evidence s other=nothing => !NotEvidence
    a evidence s other=missing => !NotEvidence
    a evidence s other=view    => !NotEvidence
    a evidence s other=term    => !NotEvidence
    a evidence s other=leader  => !NotEvidence
    a evidence s other=chain   => !NotEvidence
    a evidence s term=1        => !EvidenceStale
    a evidence s term=max      => !EvidenceStale
    a evidence p               => !SeatUnknown
    a evidence s nonce=1       => !BadShape
    a evidence s fee=1         => !FeeAboveMaximum
    nobody evidence s          => !UnknownAccount
    a evidence s
    a evidence s               => !EvidenceKnown
    b evidence s view=9        => !EvidenceKnown
    epoch 14
    a evidence t term=0
    epoch 15
    a evidence u term=0        => !EvidenceStale
    a evidence s term=0        => !EvidenceStale
";

const SEATS: [&str; 4] = ["s", "t", "u", "v"];

fn seated() -> Stage {
    let mut stage = Stage::new();
    SEATS.iter().for_each(|name| stage.world.seat(name));
    stage
}

fn seat(world: &World, name: &str) -> Seat {
    world.get(Seat::key(&account(name))).expect("it has a seat")
}

fn parts(amount: Amount, parts: u64) -> u128 {
    amount.grains() * u128::from(parts) / u128::from(ONE)
}

#[test]
fn table() {
    for script in [ACCEPTED, REFUSED] {
        seated().play(script);
    }
}

#[test]
fn the_seats_share_an_epoch_by_the_blocks_that_they_led() {
    let (mut stage, member) = holding(&[70_000]);
    SEATS.iter().for_each(|name| stage.world.seat(name));
    // Of four blocks, `s` leads two and `t` one; one leader has no seat.
    stage.world.leaders = ["s", "t", "s", "nobody"].map(account).to_vec();
    let mut events = Vec::new();
    for epoch in 1..10 {
        let before = stage.world.system().committee;
        events.extend(run_to(&mut stage, &member, epoch, true));
        let world = &stage.world;
        assert!(epoch < 4 || world.system().committee < before.checked_add(Amount::sync(1)).expect("small"));
    }
    let world = &stage.world;
    for epoch in 1..=5 {
        let books: Books = world.get(Books::key(epoch)).expect("it is sealed");
        assert_eq!(books.credits, 30, "40 blocks, of which a quarter had no seat's leader");
        assert!(books.committee > Amount::ZERO);
        for (name, credits) in [("s", 20), ("t", 10)] {
            let amount = Amount::new(books.committee.grains() * credits / 30).expect("a share");
            let paid = Event::CommitteePaid { epoch, seat: account(name), credits: credits as u32, amount };
            assert!(events.contains(&paid), "{paid:?}");
        }
    }
    let paid = |name| seat(world, name).paid;
    assert_eq!((world.balance("s"), world.balance("t")), (paid("s"), paid("t")));
    assert_eq!((paid("u"), world.balance("u")), (Amount::ZERO, Amount::ZERO), "it led nothing");
    assert_eq!(world.get::<Closing>(Closing::of(5)).expect("it stands").committee, Amount::ZERO);
}

#[test]
fn what_nobody_earned_waits_for_who_does() {
    let (mut stage, member) = holding(&[70_000]);
    stage.world.seat("s");
    run_to(&mut stage, &member, 5, true);
    let waiting = stage.world.system().committee;
    assert!(waiting > Amount::ZERO && stage.world.balance("s") == Amount::ZERO, "nobody led");
    stage.world.leaders = vec![account("s")];
    run_to(&mut stage, &member, 10, true);
    assert!(seat(&stage.world, "s").paid >= waiting, "the first epoch with a credit takes it all");
}

#[test]
fn a_slash_is_split_at_once_and_told() {
    let mut stage = seated();
    let (bond, before) = (stage.world.parameters.seat_bond, stage.world.system());
    let operation = stage.sign("a evidence s");
    let balance = stage.world.balance("a");
    stage.world.submit(&operation).expect("it stands in a block");
    let (world, after) = (&stage.world, seat(&stage.world, "s"));
    let taken = parts(bond, ONE / 20);
    assert_eq!(after.bond.grains(), bond.grains() - taken);
    assert_eq!((after.slashed.grains(), after.jailed), (taken, Some(world.height)));
    let system = world.system();
    assert_eq!(system.seat_bonds.grains(), before.seat_bonds.grains() - taken);
    let fee = operation.max_fee.grains();
    assert_eq!(system.burned.grains() - before.burned.grains(), taken - taken / 4 + fee);
    assert_eq!(world.balance("a").grains(), balance.grains() - fee + taken / 4, "a quarter");
    let told = world.events.iter().any(|event| {
        let Event::Slashed { seat, epoch, amount, burned, reporter, until, .. } = event else { return false };
        (*seat, *epoch, amount.grains(), *until) == (account("s"), 0, taken, u64::MAX)
            && burned.grains() == taken - taken / 4
            && *reporter == Some(account("a"))
    });
    assert!(told, "{:?}", world.events);
}

/// The remaining bonds of `offenders` among four seats after the close of epoch 0, and the burn.
fn bonds_after(offenders: &[&str]) -> Vec<u128> {
    let mut stage = seated();
    offenders.iter().for_each(|name| stage.play(&format!("a evidence {name}")));
    stage.play("epoch 3");
    let early: Vec<u128> = offenders.iter().map(|name| seat(&stage.world, name).bond.grains()).collect();
    assert!(early.iter().all(|bond| *bond == parts(Amount::sync(10_000), ONE / 20 * 19)), "only the floor");
    stage.play("blocks 1");
    let told = stage.world.events.iter().filter(|event| matches!(event, Event::Slashed { .. })).count();
    assert_eq!(told, offenders.len(), "each is told the rest");
    stage.play("epoch 9");
    offenders.iter().map(|name| seat(&stage.world, name).bond.grains()).collect()
}

#[test]
fn the_more_sign_against_themselves_in_an_epoch_the_more_each_loses() {
    let bond = Amount::sync(10_000);
    for offenders in [&SEATS[..1], &SEATS[..2], &SEATS[..4]] {
        let share = slash::equivocation(4, offenders.len() as u64);
        let left = bond.grains() - parts(bond, share);
        assert_eq!(bonds_after(offenders), vec![left; offenders.len()], "{offenders:?}");
    }
    assert_eq!(slash::equivocation(4, 1), 562_500_000, "one of four: 9/16");
}

#[test]
fn evidence_after_the_close_costs_the_floor_and_raises_nobody_elses() {
    let mut stage = seated();
    stage.play("epoch 3\n blocks 1\n a evidence s term=0\n a evidence t term=0\n epoch 9");
    let left = parts(Amount::sync(10_000), ONE / 20 * 19);
    assert_eq!(["s", "t"].map(|name| seat(&stage.world, name).bond.grains()), [left; 2]);
}

#[test]
fn evidence_after_the_close_exposes_nothing() {
    let mut stage = seated();
    stage.play("epoch 2\n a evidence s term=0");
    assert_eq!(seat(&stage.world, "s").exposed[Seat::place(0)], stage.world.parameters.seat_bond);
    stage.play("epoch 3\n blocks 1\n a evidence t term=0");
    let exposed = ["s", "t"].map(|name| seat(&stage.world, name).exposed);
    assert_eq!(exposed, [[Amount::ZERO; 4]; 2], "the epoch is closed");
}

#[test]
fn every_epoch_of_faults_is_paid_for_and_never_more_than_the_bond() {
    let mut stage = seated();
    // A small old fault that a seat reports itself does not shield it from the larger one.
    stage.play("epoch 4\n s send s 1 => !UnknownAccount\n a evidence s term=0");
    stage.play("a evidence s term=4\n a evidence t term=4\n epoch 8");
    assert_eq!(["s", "t"].map(|name| seat(&stage.world, name).bond), [Amount::ZERO; 2]);
    stage.play("a evidence s term=6\n b evidence t term=5\n epoch 12");
    let offences: Offences = stage.world.get(Offences::at(4)).expect("remembered");
    assert_eq!((offences.count(), offences.has(0), offences.has(1), offences.has(2)), (2, true, true, false));
    assert_eq!(seat(&stage.world, "s").slashed, Amount::sync(10_000));
}

#[test]
fn who_is_jailed_earns_no_more_and_keeps_what_it_earned() {
    let (mut stage, member) = holding(&[70_000]);
    SEATS.iter().for_each(|name| stage.world.seat(name));
    stage.world.leaders = ["s", "t"].map(account).to_vec();
    run_to(&mut stage, &member, 4, true);
    stage.play("a evidence s");
    let proved = stage.world.height;
    run_to(&mut stage, &member, 12, true);
    let (world, place) = (&stage.world, Seat::place(stage.world.epoch() - 1));
    let [s, t] = ["s", "t"].map(|name| seat(world, name));
    assert_eq!((s.credits, s.jailed), ([0; 4], Some(proved)));
    assert!(t.credits[place] > 0 && t.paid > s.paid && s.paid > Amount::ZERO);
    let books: Books = world.get(Books::key(6)).expect("sealed");
    assert_eq!(books.credits, 20, "only the other's blocks");
    assert_eq!(s.paid, world.balance("s"), "closed epochs are paid");
}

#[test]
fn a_provider_with_a_seat_is_jailed_for_ever_and_has_no_score_left() {
    let (mut stage, member) = holding(&[70_000]);
    stage.world.seat("p");
    run_to(&mut stage, &member, 5, true);
    stage.play("a evidence p");
    let jailed = stage.world.events.iter().any(|event| {
        matches!(event, Event::Reputation { step: ReputationStep::Jailed, reason: ReputationReason::Equivocation, until: u64::MAX, provider, .. } if *provider == account("p"))
    });
    assert!(jailed, "{:?}", stage.world.events);
    stage.play("a open p slot=1 => ProviderJailed\n p unjail => JailedStill");
    run_to(&mut stage, &member, 9, true);
    let reputation: Reputation = stage.world.get(Reputation::key(&account("p"))).expect("it is registered");
    assert_eq!(
        (reputation.score(), reputation.jailed_until),
        (0, u64::MAX),
        "it answered on, and it stays 0"
    );
}

#[test]
fn two_hundred_and_fifty_six_seats_are_closed_in_one_block() {
    let mut stage = Stage::new();
    let names: Vec<String> = (0..256).map(|index| format!("seat{index}")).collect();
    stage.world.parameters.seat_bond = Amount::sync(1_000);
    names.iter().for_each(|name| stage.world.seat(name));
    stage.world.leaders = names.iter().map(|name| account(name)).collect();
    for name in names.iter().take(3) {
        stage.play(&format!("a evidence {name}"));
    }
    stage.play("epoch 3");
    let quiet = stage.world.named;
    stage.play("blocks 1");
    assert!(stage.world.named > 3 * 256 && stage.world.named < 3 * 256 + 100, "{}", stage.world.named);
    assert!(quiet < 20, "{quiet}");
    let floor = parts(Amount::sync(1_000), ONE / 20 * 19);
    assert_eq!(seat(&stage.world, "seat2").bond.grains(), floor, "3 of 256 stay at the floor");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// For any evidence at any time: the ledger conserves (checked after every block), a seat never
    /// loses more than its bond, at least three quarters of the loss is burned, and exactly the
    /// seats with a fault are jailed.
    #[test]
    fn evidence_in_any_order_conserves(
        faults in prop::collection::vec((0_usize..4, 0_u64..6, 0_u64..3), 1..12),
    ) {
        let mut stage = seated();
        let bond = stage.world.parameters.seat_bond.grains();
        for (who, back, wait) in &faults {
            let term = stage.world.epoch().saturating_sub(*back);
            let got = stage.attempt(&format!("a evidence {} term={term}", SEATS[*who])).expect("an operation");
            prop_assert!(got == "Done" || got == "!EvidenceKnown", "{got}");
            stage.world.skip_to_epoch(stage.world.epoch() + wait);
        }
        stage.world.skip_to_epoch(stage.world.epoch() + 4);
        for (index, name) in SEATS.iter().enumerate() {
            let seat = seat(&stage.world, name);
            prop_assert_eq!(seat.bond.grains() + seat.slashed.grains(), bond);
            let guilty = faults.iter().any(|(who, ..)| *who == index);
            prop_assert_eq!(seat.jailed.is_some(), guilty);
            prop_assert!(!guilty || seat.slashed.grains() >= bond / 20);
        }
        let slashed: u128 = SEATS.iter().map(|name| seat(&stage.world, name).slashed.grains()).sum();
        prop_assert!(stage.world.system().burned.grains() * 4 >= slashed * 3);
    }
}

/// Each fault planted in a ledger with seats is found by the invariant of its name.
#[test]
fn the_invariant_knows_the_seats() {
    type Fault = (&'static str, fn(&mut Seat, &mut Account));
    let faults: [Fault; 3] = [
        ("System.seat_bonds", |seat, _| seat.bond = Amount::ZERO),
        ("Seat.index", |seat, _| seat.index = 9),
        ("Seat at an index", |_, account| *account = Account([5; 32])),
    ];
    for (expected, fault) in faults {
        let mut world = seated().world;
        let (key, mut at) = (Seat::key(&account("s")), account("s"));
        let mut seat = seat(&world, "s");
        fault(&mut seat, &mut at);
        world.state.insert(key, seat.to_slot());
        world.state.insert(SeatAt::key(0), SeatAt { account: at }.to_slot());
        let found = crate::canary::broken(&world);
        assert!(found.contains(expected), "planted '{expected}', found '{found}'");
    }
}

#[test]
fn the_epoch_of_two_headers_follows_from_their_term() {
    for parameters in [Parameters::LOCAL, Parameters::PRODUCTION] {
        for term in [0, 1, 2, 3, 23, 24, 25, 1_000] {
            let headers = vec![Header { term, ..header() }; 2];
            let headers = Bounded::new(headers).expect("at most two");
            let epoch = Evidence::Proposals(Proposals { headers }).epoch(&parameters);
            assert_eq!(epoch, term * parameters.term_blocks() / parameters.epoch_blocks(), "term {term}");
        }
    }
}

/// Late evidence does not touch the exposed bond of the epoch that now uses the same place in the ring.
#[test]
fn evidence_of_a_closed_epoch_leaves_the_exposed_bond_of_the_running_one() {
    let mut stage = Stage::new();
    stage.world.seat("s");
    let seat = |stage: &Stage| -> Seat { stage.world.get(Seat::key(&account("s"))).expect("it has a seat") };
    let whole = seat(&stage).bond;
    stage.play("epoch 3\n a evidence s");
    let exposed = seat(&stage).exposed;
    assert!(exposed.contains(&whole));
    stage.play("b evidence s term=0");
    assert!(seat(&stage).bond < whole);
    assert_eq!(seat(&stage).exposed, exposed);
}
